//! What a change of configuration does to requests that are on their way: latency at a fixed rate through an entrance
//! under Serin's pilot, with its routes changed several times a second and without, in turns.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::case;
use crate::load::{Aim, paced};
use crate::peer::Running;
use crate::report::{Ratio, median};
use crate::rounds::{CORE, OTHER, backend, free_port};

/// Options of `push`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PushOptions {
    /// Number of rounds; each round measures with and without changes
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Duration of each measurement in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Requests per second
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Number of routes that each change replaces
    #[arg(long, default_value_t = 100)]
    routes: usize,
    /// Interval between changes in milliseconds
    #[arg(long, default_value_t = 200)]
    every: u64,
    /// Path of the serin binary
    #[arg(long, default_value = "target/dist/serin")]
    serin: PathBuf,
}

/// A pilot and an entrance under it.
struct Mesh {
    entrance: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    documents: Documents,
    _processes: [Running; 2],
}

/// What the pilot reads.
#[derive(Clone, Copy)]
struct Documents {
    upstream: SocketAddr,
    entrance: SocketAddr,
    routes: usize,
}

/// Runs the rounds and prints what came of them.
pub(crate) fn run(options: &PushOptions) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new().prefix("serin-push-").tempdir()?;
    let case = case::chosen(&["h1-small".to_owned()])?.first().copied().context("no case")?;
    let (mut quiet, mut pushed, mut changes) = (Vec::new(), Vec::new(), 0);
    for round in 0..options.rounds {
        for busy in [false, true] {
            let upstream = free_port()?;
            let _backend = backend(&case, upstream)?;
            let mesh = start(options, upstream, scratch.path())?;
            let aim = Aim { address: mesh.entrance, core: OTHER, scratch: scratch.path() };
            paced::run(&case, aim, f64::from(options.rate), 1.0)?;
            let before = mesh.updates()?;
            let stop = AtomicBool::new(!busy);
            let latency = std::thread::scope(|scope| {
                scope.spawn(|| mesh.change(&stop, Duration::from_millis(options.every)));
                let latency = paced::run(&case, aim, f64::from(options.rate), f64::from(options.seconds));
                stop.store(true, Relaxed);
                latency
            })?;
            let updates = mesh.updates()? - before;
            eprintln!(
                "round {:>2}  {:<7} {updates:>3} changes applied, p50 {:.0} p99 {:.0} p99.9 {:.0} µs, {} failed",
                round + 1,
                if busy { "changing" } else { "quiet" },
                latency.p50,
                latency.p99,
                latency.p999,
                latency.failed
            );
            ensure!(latency.failed == 0, "requests failed");
            ensure!(!busy || updates > 0, "no change was applied");
            changes += updates;
            if busy { pushed.push(latency) } else { quiet.push(latency) }
        }
    }
    let p99 = |list: &[paced::Latency]| list.iter().map(|l| l.p99).collect::<Vec<_>>().into_iter();
    let ratio = Ratio::new(p99(&pushed), p99(&quiet), 0.0);
    eprintln!(
        "\n{changes} changes of {} routes under {} requests/s: p99 {:.0} µs quiet, {:.0} µs changing; ratio {}",
        options.routes,
        options.rate,
        median(p99(&quiet)),
        median(p99(&pushed)),
        ratio.verdict(Some(1.05))
    );
    Ok(())
}

fn start(options: &PushOptions, upstream: SocketAddr, scratch: &Path) -> anyhow::Result<Mesh> {
    let folder = tempfile::Builder::new().prefix("mesh-").tempdir_in(scratch)?.keep();
    let (xds, entrance, admin) = (free_port()?, free_port()?, free_port()?);
    let documents = Documents { upstream, entrance, routes: options.routes };
    let file = folder.join("mesh.yaml");
    std::fs::write(&file, documents.text(0))?;
    let serin = std::path::absolute(&options.serin)?;
    let spawn = |core: usize, arguments: &[&str]| {
        // The pilot, which would be on another machine, yields to the load that shares its core.
        let (nice, core) = (if core == OTHER { "19" } else { "0" }, core.to_string());
        let mut command = Command::new("nice");
        command.args(["-n", nice, "taskset", "-c", &core]).arg(&serin).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Running).context("taskset is needed (Debian: util-linux)")
    };
    let (xds_text, admin_text) = (xds.to_string(), admin.to_string());
    let own_admin = free_port()?.to_string();
    let folder = folder.display().to_string();
    let mut pilot = spawn(OTHER, &["pilot", "--config", &folder, "--xds", &xds_text, "--admin", &own_admin])?;
    pilot.wait_for(xds).context("the pilot does not start")?;
    let identity = ["--workload", "entry", "--gateway", "--labels", "role=entry", "--concurrency", "1"];
    let mut proxy = spawn(CORE, &[&["proxy", "--xds", &xds_text, "--admin", &admin_text][..], &identity].concat())?;
    proxy.wait_for(entrance).context("the entrance does not open")?;
    Ok(Mesh { entrance, admin, file, documents, _processes: [proxy, pilot] })
}

impl Mesh {
    /// Writes other routes again and again until it is told to stop.
    fn change(&self, stop: &AtomicBool, every: Duration) {
        let mut version = 0;
        while !stop.load(Relaxed) {
            std::thread::sleep(every);
            version += 1;
            // Written aside and moved, so that the pilot never reads half of it.
            let aside = self.file.with_extension("new");
            if std::fs::write(&aside, self.documents.text(version)).is_ok() {
                let _ = std::fs::rename(&aside, &self.file);
            }
        }
    }

    /// Route updates that the entrance has applied.
    fn updates(&self) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let line = text.lines().find_map(|l| l.strip_prefix("http.rds.update_success: "));
        line.and_then(|n| n.trim().parse().ok()).context("the admin interface tells no http.rds.update_success")
    }
}

impl Documents {
    fn text(self, version: usize) -> String {
        let Self { upstream, entrance, routes } = self;
        let mut text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: web}}\nspec:\n  hosts: [web.internal]\n  \
             resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  \
             endpoints: [{{address: {}, ports: {{http: {}}}}}]\n---\n\
             apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: entry}}\nspec:\n  selector: {{role: entry}}\n  \
             servers:\n  - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: [\"*\"]\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: entry}}\nspec:\n  selector: {{role: entry}}\n  \
             ports: [{{name: http, port: 80, targetPort: {}}}]\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n  hosts: [\"*\"]\n  \
             gateways: [entry]\n  http:\n",
            upstream.ip(),
            upstream.port(),
            entrance.port()
        );
        for route in 0..routes {
            // The formatting of a String cannot fail.
            let _ = writeln!(
                text,
                "  - match: [{{uri: {{exact: /{route}/{version}}}}}]\n    route: [{{destination: {{host: web.internal}}}}]"
            );
        }
        text.push_str("  - route: [{destination: {host: web.internal}}]\n");
        text
    }
}
