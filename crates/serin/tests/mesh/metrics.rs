//! Istio's and Flagger's published queries, answered from what Serin's proxies show, are what the load saw.
//!
//! Read from the proxies' own pages always, and through a real Prometheus when `SERIN_TEST_PROMETHEUS` names its binary.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::client::Client;
use serin_testkit::demo::Demo;
use serin_testkit::load::{self, Answer};
use serin_testkit::process::{Process, wait_until};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// The services that are looked at: the page at the entrance, and reviews behind it.
const PAGE: &str = "productpage.default.svc.cluster.local";
const BEHIND: &str = "reviews.default.svc.cluster.local";

type Counts = BTreeMap<(String, String), u64>;

fn pages(demo: &Demo) -> Vec<SocketAddr> {
    let all = demo.line["proxies"].as_array().unwrap().iter();
    all.map(|p| p["admin"].as_str().unwrap().trim_start_matches("http://").parse().unwrap()).collect()
}

/// Requests to a service by version and status, as the callers' proxies counted them.
fn counted(demo: &Demo, service: &str) -> Counts {
    let mut found = BTreeMap::new();
    for page in pages(demo) {
        let text = Client::new(page).get("/stats/prometheus?filter=istio_requests_total", &[]).unwrap().text();
        let service = format!("destination_service=\"{service}\"");
        let calls = |line: &&str| line.contains("reporter=\"source\"") && line.contains(&service);
        for line in text.lines().filter(calls) {
            let label = |name: &str| {
                let at = line.find(&format!(",{name}=\"")).unwrap() + name.len() + 3;
                line[at..].split('"').next().unwrap().to_owned()
            };
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *found.entry((label("destination_version"), label("response_code"))).or_default() += count;
        }
    }
    found
}

/// What the load saw, in the same form: the page is of version 1, unless its route answered itself.
fn seen(answers: &[Answer]) -> [Counts; 2] {
    let [mut page, mut reviews] = [Counts::new(), Counts::new()];
    for (status, version) in answers.iter().map(|a| a.outcome.as_ref().unwrap()) {
        let status = status.to_string();
        let by = if status == "200" { "v1" } else { "unknown" };
        if status == "200" {
            *reviews.entry((version.clone(), status.clone())).or_default() += 1;
        }
        *page.entry((by.to_owned(), status)).or_default() += 1;
    }
    [page, reviews]
}

#[test]
fn the_load_finds_itself_in_istios_metrics() {
    let demo = Builder::serin(env!("CARGO_BIN_EXE_serin"), &examples()).unwrap().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v1", 80), ("v3", 20)], "")).unwrap();
    let gateway = demo.read("bookinfo-gateway.yaml").unwrap();
    let faulty = "\n    fault: {abort: {percentage: {value: 25}, httpStatus: 500}, delay: {percentage: {value: 20}, fixedDelay: 0.13s}}\n    route:";
    demo.save("bookinfo-gateway.yaml", &gateway.replace("\n    route:", faulty)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    demo.wait_synced(PATIENCE).unwrap();
    // Rates are of what was seen to grow: every series begins before Prometheus does.
    drop(load::burst(demo.entrance().unwrap(), REVIEWS, 200, version));
    let before = [counted(&demo, PAGE), counted(&demo, BEHIND)];
    let prometheus = Prometheus::start(&pages(&demo));
    let answers = load::burst(demo.entrance().unwrap(), REVIEWS, 2_000, version);
    let seen = seen(&answers);
    let now = [counted(&demo, PAGE), counted(&demo, BEHIND)];
    let grown = |(now, before): (&Counts, Counts)| -> Counts {
        now.iter().map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or_default())).collect()
    };
    assert_eq!(now.iter().zip(before).map(grown).collect::<Vec<_>>(), seen);
    assert!(seen.iter().all(|counts| counts.len() == 2), "{seen:?}");
    if let Some(prometheus) = prometheus {
        prometheus.agrees(&now, &seen);
        prometheus.agrees_on_time(&answers);
        prometheus.takes_a_release_back(&demo);
    }
    demo.end().unwrap();
}

struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that has scraped every proxy, so that what follows is an increase.
    fn start(pages: &[SocketAddr]) -> Option<Self> {
        let binary = std::env::var_os("SERIN_TEST_PROMETHEUS")?;
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{
                "job_name": "serin",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": pages}],
            }],
        });
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(binary);
        command.arg("--config.file").arg(&file).arg("--storage.tsdb.path").arg(folder.path().join("data"));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::start(&mut command).unwrap();
        let prometheus = Self { address, _process: process, _folder: folder };
        let all = pages.len() as f64;
        wait_until(PATIENCE, || (prometheus.ask("sum(up)") == Some(all)).then_some(())).unwrap();
        Some(prometheus)
    }

    /// The only value of a query.
    fn ask(&self, query: &str) -> Option<f64> {
        let escaped: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = Client::new(self.address).get(&format!("/api/v1/query?query={escaped}"), &[]).ok()?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    fn agrees(&self, [all_page, all_reviews]: &[Counts; 2], [page, _]: &[Counts; 2]) {
        for (service, counts) in [(PAGE, all_page), (BEHIND, all_reviews)] {
            for ((version, status), count) in counts {
                let of = format!("{},destination_version=\"{version}\"", of(service));
                let query = format!("sum(istio_requests_total{{{of},response_code=\"{status}\"}})");
                wait_until(PATIENCE, || (self.ask(&query) == Some(*count as f64)).then_some(())).unwrap();
            }
        }
        // Istio's dashboard asks for rates; over the same seconds a share of rates is a share of requests.
        let all: u64 = page.values().sum();
        let good: u64 = page.iter().filter(|((_, status), _)| status == "200").map(|(_, count)| count).sum();
        let expected = 100.0 * good as f64 / all as f64;
        let share = self.success_rate(&of(PAGE)).unwrap();
        eprintln!("success rate {share:.2} %, the load saw {expected:.2} %");
        assert!((share - expected).abs() < 5.0, "success rate {share} instead of {expected}");
        for version in ["v1", "v3"] {
            let p99 = self.ask(&format!(
                "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{{{},\
                 destination_version=\"{version}\"}}[1m])))",
                of(BEHIND)
            ));
            eprintln!("p99 of reviews {version}: {p99:?} ms");
            assert!(p99.is_some_and(|p99| p99.is_finite() && p99 > 0.0), "p99 of {version} is {p99:?}");
        }
        // Flagger asks the proxies beside the applications.
        let flagger = "reporter=\"destination\",destination_workload_namespace=\"default\",\
                       destination_workload=~\"reviews-v3.*\"";
        assert_eq!(self.success_rate(flagger), Some(100.0));
    }

    /// Buckets lose what is between their borders: the load's own times are put into the same ones.
    fn agrees_on_time(&self, answers: &[Answer]) {
        let good = answers.iter().filter(|a| matches!(a.outcome, Ok((200, _))));
        let mut times: Vec<f64> = good.map(|a| a.took.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let borders = [0.0, 0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
        let below = |border: f64| times.iter().filter(|t| **t <= border).count() as f64;
        let rank = 0.99 * times.len() as f64;
        let bucket = borders.windows(2).find(|pair| below(pair[1]) >= rank).unwrap();
        let share = (rank - below(bucket[0])) / (below(bucket[1]) - below(bucket[0]));
        let expected = bucket[0] + (bucket[1] - bucket[0]) * share;
        let query = format!(
            "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{{{},\
             destination_version=\"v1\"}}[1m])))",
            of(PAGE)
        );
        let p99 = self.ask(&query).unwrap();
        let exact = times[rank as usize];
        eprintln!(
            "p99 of the page {p99:.1} ms, the load saw {expected:.1} ms in the same buckets ({exact:.1} ms without)"
        );
        assert!((p99 - expected).abs() < expected * 0.1, "p99 {p99} ms instead of {expected} ms");
    }

    /// A release asks it: what it answers is shown, and is outside its limits.
    fn takes_a_release_back(&self, demo: &Demo) {
        let release = format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: asks}}\nspec:\n  host: reviews\n  \
             stable: {{labels: {{version: v1}}}}\n  candidate: {{labels: {{version: v3}}}}\n  \
             steps: [{{weight: 20%, bake: 1000s}}]\n  analysis:\n    warmup: 0s\n    prometheus: http://{}\n    queries:\n    \
             - {{name: up, query: 'sum(up{{job=\"serin\"}})', max: 1, interval: 1s, failures: 3}}\n    \
             - {{name: nothing, query: absent_metric, min: 1, interval: 1s}}\n",
            self.address
        );
        demo.save("release.yaml", &release).unwrap();
        let admin = demo.line["pilot"]["admin"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        let end = wait_until(PATIENCE, || {
            let answer = Client::new(admin).get("/api/v1/releases/default/asks", &[]).ok()?;
            let value: Value = serde_json::from_slice(&answer.body).ok()?;
            (value["status"]["phase"] == "rolledBack").then(|| value["status"].clone())
        });
        let end = end.unwrap();
        assert!(end["reason"].as_str().unwrap().contains("up is 13, above 1, 3 times in a row"), "{end}");
        assert_eq!(end["queries"]["nothing"]["problem"], "the answer is empty");
    }

    fn success_rate(&self, of: &str) -> Option<f64> {
        self.ask(&format!(
            "sum(rate(istio_requests_total{{{of},response_code!~\"5.*\"}}[1m])) \
             / sum(rate(istio_requests_total{{{of}}}[1m])) * 100"
        ))
    }
}

fn of(service: &str) -> String {
    format!("reporter=\"source\",destination_service=~\"{service}\"")
}
