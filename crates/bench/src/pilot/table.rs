//! The figures as a table, as bars and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::PilotOptions;
use super::measure::{Figures, Run, processors};
use super::session::KINDS;

/// Returns the figures as a table in Markdown.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let mut out = "| pilot | services | proxies | operation | edits | p50 ms | p99 ms | CPU ms/edit | bytes/proxy | \
        resources/proxy | RSS MiB | clients' CPU ms/edit | client_busy | others | missed | broken |\n\
        |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for run in runs {
        for figures in &run.figures {
            // The formatting of a String cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {} | {:.1} | {} | {:.0} % | {:.0} % | {} | {} |",
                run.pilot,
                run.size.shape.services,
                run.size.proxies,
                figures.operation,
                figures.edits,
                short(figures.percentile(0.5)),
                short(figures.percentile(0.99)),
                short(figures.cpu_mean() * 1e3),
                figures.each(figures.bytes),
                resources(figures),
                figures.resident as f64 / 1024.0,
                short(figures.client_cpu / figures.edits as f64 * 1e3),
                figures.client_busy() * 100.0,
                figures.others / (figures.wall * processors() as f64) * 100.0,
                figures.missed,
                figures.broken,
            );
        }
    }
    out
}

/// Returns a figure with three digits or more.
fn short(value: f64) -> String {
    let digits = if value.abs() < 10.0 {
        2
    } else if value.abs() < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$}")
}

/// Returns the resources that a proxy gets with an edit, by type.
fn resources(figures: &Figures) -> String {
    let named = KINDS.iter().zip(figures.resources).filter(|pair| pair.1 > 0);
    let text: Vec<String> =
        named.map(|pair| format!("{} {}", short_count(figures.each(pair.1)), pair.0.name())).collect();
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

fn short_count(value: f64) -> String {
    if (value - value.round()).abs() < 0.005 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// One bar of a chart.
struct Bar {
    label: String,
    value: f64,
}

/// Returns the growth of every operation in services and in proxies, as bars.
pub(crate) fn charts(options: &PilotOptions, runs: &[Run]) -> String {
    let mut out = String::new();
    let mut pilots: Vec<&str> = runs.iter().map(|run| run.pilot).collect();
    pilots.dedup();
    pilots.sort_unstable();
    pilots.dedup();
    for pilot in pilots {
        for operation in options.operations() {
            let bars = |by: &dyn Fn(&Run) -> Option<usize>| -> Vec<Bar> {
                let own = runs.iter().filter(|run| run.pilot == pilot);
                let mut points: Vec<_> = own.filter_map(|run| by(run).map(|label| (label, run))).collect();
                points.sort_by_key(|point| point.0);
                let found =
                    |run: &Run| run.figures.iter().find(|f| f.operation == operation.name()).map(Figures::cpu_mean);
                let bar = |label: usize, run| Some(Bar { label: label.to_string(), value: found(run)? * 1e3 });
                points.into_iter().filter_map(|point| bar(point.0, point.1)).collect()
            };
            let services = bars(&|run| (run.size.proxies == options.proxies).then_some(run.size.shape.services));
            let proxies = bars(&|run| (run.size.shape.services == options.services).then_some(run.size.proxies));
            let name = operation.name();
            out += &chart(&format!("{pilot}, {name}: CPU ms/edit by services, {} proxies", options.proxies), &services);
            out += &chart(&format!("{pilot}, {name}: CPU ms/edit by proxies, {} services", options.services), &proxies);
        }
    }
    out
}

/// Returns bars whose lengths are in the ratio of the values.
fn chart(title: &str, bars: &[Bar]) -> String {
    const WIDTH: f64 = 60.0;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = format!("\n{title}\n");
    for bar in bars {
        let length = (bar.value.max(0.0) / most * WIDTH).round() as usize;
        let _ = writeln!(out, "{:>6} {} {}", bar.label, "#".repeat(length.max(1)), short(bar.value));
    }
    out
}

/// Returns everything that was measured.
pub(crate) fn json(options: &PilotOptions, runs: &[Run]) -> Value {
    let figures = |figures: &Figures| {
        let resources: serde_json::Map<String, Value> = KINDS
            .iter()
            .zip(figures.resources)
            .map(|pair| (pair.0.name().to_owned(), json!(figures.each(pair.1))))
            .collect();
        json!({
            "operation": figures.operation, "edits": figures.edits, "proxies": figures.proxies,
            "p50_ms": figures.percentile(0.5), "p99_ms": figures.percentile(0.99), "missed": figures.missed,
            "broken": figures.broken,
            "cpu_s": figures.cpu, "cpu_mean_s": figures.cpu_mean(),
            "client_cpu_s": figures.client_cpu / figures.edits as f64, "client_busy": figures.client_busy(),
            "active_s": figures.active, "wall_s": figures.wall, "others_cpu_s": figures.others,
            "bytes_per_proxy": figures.each(figures.bytes), "responses_per_proxy": figures.each(figures.responses),
            "resources_per_proxy": resources, "rss_kib": figures.resident,
        })
    };
    let run = |run: &Run| {
        json!({"pilot": run.pilot, "services": run.size.shape.services, "proxies": run.size.proxies,
            "idle_cpu": run.idle, "operations": run.figures.iter().map(figures).collect::<Vec<_>>()})
    };
    json!({"endpoints": options.endpoints, "versions": options.versions, "classes": options.classes,
        "mode": options.mode.name(), "processors": processors(), "runs": runs.iter().map(run).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::super::documents::Shape;
    use super::*;

    fn run() -> Run {
        let figures = Figures {
            operation: "weight",
            edits: 2,
            proxies: 3,
            millis: vec![1.0, 2.0],
            cpu: vec![0.5, 1.5],
            active: 1.0,
            wall: 1.0,
            bytes: 600,
            resources: [0, 0, 0, 6, 9, 0],
            ..Figures::default()
        };
        let shape = Shape { services: 7, endpoints: 1, versions: 2 };
        Run { pilot: "serin", size: Size { shape, proxies: 3 }, idle: 0.0, figures: vec![figures] }
    }

    #[test]
    fn a_row_has_all_columns() {
        let text = markdown(&[run()]);
        let columns: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [17, 17, 17]);
        assert!(text.contains("| 1.00 | 2.00 | 1000 | 100 | 1 RDS, 1.50 VHDS |"), "{text}");
    }

    #[test]
    fn the_longest_bar_fills_the_chart() {
        let bar = |value| Bar { label: "x".to_owned(), value };
        let text = chart("t", &[bar(1.0), bar(2.0)]);
        let lengths: Vec<usize> = text.lines().skip(2).map(|line| line.matches('#').count()).collect();
        assert_eq!(lengths, [30, 60]);
    }
}
