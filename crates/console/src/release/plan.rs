//! `serin release lint`: what a plan can see.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serin_delivery::judge::{clean_requests, events_until_promotion, events_until_rollback};
use serin_delivery::verdict::margin;
use serin_model::{Bake, Failing, Object, OnDeadline, Release, Share};

/// Options of `lint`.
#[derive(Debug, Clone, Args)]
pub(super) struct LintOptions {
    /// Files with Release documents
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Requests per second to the service
    #[arg(long, default_value_t = 10.0)]
    rps: f64,
    /// Percentage of requests that fail at present
    #[arg(long, default_value_t = 0.1)]
    error_rate: f64,
}

/// The releases in a file; what is wrong with it goes to standard error.
pub(super) fn releases(file: &Path) -> anyhow::Result<(Vec<Release>, bool)> {
    let text =
        serin_folders::read_file(file).text.map_err(|why| anyhow::anyhow!("cannot read {}: {why}", file.display()))?;
    let parsed = serin_ingest::parse(&file.display().to_string(), &text);
    for diagnostic in &parsed.diagnostics {
        eprintln!("{}", serin_ingest::render_text(diagnostic, Some(&text), false));
    }
    let broken = !parsed.broken.is_empty() || parsed.unreadable || parsed.nameless;
    let found = parsed.documents.iter().filter_map(|d| match d.object.as_ref() {
        Object::Release(release) => Some(release.as_ref().clone()),
        _ => None,
    });
    Ok((found.collect(), broken))
}

pub(super) fn lint(options: &LintOptions) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut out = String::new();
    for file in &options.files {
        let (releases, broken) = releases(file)?;
        failed |= broken;
        for release in &releases {
            power(release, options, &mut out);
        }
        if releases.is_empty() && !broken {
            let _ = writeln!(out, "{}: no Release in it", file.display());
        }
    }
    super::print(&out)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes what each step can see, and in which time.
fn power(release: &Release, options: &LintOptions, out: &mut String) {
    let _ = writeln!(
        out,
        "Release {}: at {} requests a second, of which {} % fail",
        release.name, options.rps, options.error_rate
    );
    let _ = writeln!(out, "  failures are {}", failures(release));
    for step in powers(release, options.rps, options.error_rate) {
        if step.share <= 0.0 || step.share >= 1.0 {
            let _ = writeln!(
                out,
                "  step {}: no weight, nothing is compared; it lasts {}",
                step.number,
                time(step.bake.min.as_secs_f64())
            );
            continue;
        }
        let _ = writeln!(
            out,
            "  step {}: {} % — advances after {}, sees 2 times the failures after {}, 10 times after {}",
            step.number,
            step.weight.percent(),
            time(step.advances),
            time(step.doubling),
            time(step.tenfold)
        );
        for warning in step.warnings(options.rps, release.analysis.on_deadline) {
            let _ = writeln!(out, "    warning: {warning}");
        }
    }
}

/// The sentence about the responses that count as failures, and about a list without 5xx.
fn failures(release: &Release) -> String {
    let Some(list) = &release.analysis.failures else {
        return "5xx, requests without an answer, and gRPC errors of servers (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, \
                UNAVAILABLE, DATA_LOSS); analysis.failures chooses others"
            .to_owned();
    };
    let one = |failing: &Failing| match failing {
        Failing::Class(class, except) if except.is_empty() => format!("{class}xx"),
        Failing::Class(class, except) => {
            let except: Vec<String> = except.iter().map(u16::to_string).collect();
            format!("{class}xx except {}", except.join(", "))
        }
        Failing::Status(status) => status.to_string(),
        Failing::Grpc(code) => format!("gRPC status {code}"),
        Failing::NoResponse => "requests without an answer".to_owned(),
    };
    let mut text = list.iter().map(one).collect::<Vec<_>>().join(", ");
    if !list.iter().any(|f| f.means(503)) {
        text += "\n    warning: 503 is not among them: a candidate that answers nothing else holds the release instead of rolling it back";
    }
    text
}

/// The sentences about what a release cannot see at so many requests a second, of which so many per cent fail.
pub(crate) fn blind_spots(release: &Release, rps: f64, error_rate: f64) -> Vec<String> {
    let steps = powers(release, rps, error_rate).into_iter().filter(|s| s.share > 0.0 && s.share < 1.0);
    steps
        .flat_map(|step| {
            let warnings = step.warnings(rps, release.analysis.on_deadline);
            warnings.into_iter().map(move |w| format!("step {}: {w}", step.number))
        })
        .collect()
}

/// The power of a step; times in seconds.
struct Power {
    /// From 1.
    number: usize,
    weight: Share,
    share: f64,
    bake: Bake,
    /// The time at which an equal candidate goes on.
    advances: f64,
    /// The time at which twice the failures are seen.
    doubling: f64,
    /// The time at which ten times the failures are seen.
    tenfold: f64,
}

fn powers(release: &Release, rps: f64, error_rate: f64) -> Vec<Power> {
    let (rate, analysis) = (error_rate / 100.0, &release.analysis);
    let mut weight = Share::NONE;
    let mut found = Vec::new();
    for (number, step) in release.steps.iter().enumerate() {
        weight = step.weight.unwrap_or(weight);
        let share = weight.percent() / 100.0;
        let failures = |ratio: f64| rps * rate * (share * ratio + 1.0 - share);
        let detect = |ratio: f64| events_until_rollback(ratio, share, analysis.rollback_alpha) / failures(ratio);
        let compares = share > 0.0 && share < 1.0;
        let [doubling, tenfold] = if compares { [detect(2.0), detect(10.0)] } else { [f64::INFINITY; 2] };
        let advances = if compares {
            let events = events_until_promotion(margin(analysis, share), share, analysis.promote_alpha);
            let limit = analysis.error_rate.filter(|limit| *limit > rate * 2.0);
            let clean = limit.map(|limit| clean_requests(limit, analysis.promote_alpha) * 1.6 / (rps * share));
            let relative = events / failures(1.0);
            clean.map_or(relative, |c| c.min(relative)).max(step.bake.min.as_secs_f64())
        } else {
            step.bake.min.as_secs_f64()
        };
        found.push(Power { number: number + 1, weight, share, bake: step.bake, advances, doubling, tenfold });
    }
    found
}

impl Power {
    fn warnings(&self, rps: f64, on_deadline: OnDeadline) -> Vec<String> {
        let most = self.bake.max.as_secs_f64();
        let mut warnings = Vec::new();
        if self.advances > most {
            let what = match on_deadline {
                OnDeadline::Hold => "it will wait for a person",
                OnDeadline::Promote => "it will go on without evidence",
                OnDeadline::Abort => "it will be rolled back",
            };
            warnings.push(format!("{} are not enough to go on: {what}", time(most)));
        }
        if self.doubling > most {
            let most = time(most);
            warnings.push(format!("at {rps} requests a second it cannot see a doubling of failures in {most}"));
        }
        warnings
    }
}

pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s > 1e7 => "for ever".to_owned(),
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.0} min", s / 60.0),
        s => format!("{s:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_blind_at_few_requests_and_sees_at_many() {
        let text = "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {name: r}\nspec:\n  host: reviews\n  \
                    stable: {labels: {version: v1}}\n  candidate: {labels: {version: v3}}\n  steps: [{weight: 5%, bake: 10m}]\n";
        let parsed = serin_ingest::parse("r.yaml", text);
        let Some(Object::Release(release)) = parsed.documents.first().map(|d| d.object.as_ref()) else {
            panic!("{:?}", parsed.diagnostics)
        };
        let found = blind_spots(release, 3.0, 0.1);
        let expected = [
            "step 1: 10 min are not enough to go on: it will wait for a person",
            "step 1: at 3 requests a second it cannot see a doubling of failures in 10 min",
        ];
        assert_eq!(found, expected);
        assert_eq!(blind_spots(release, 3000.0, 0.1), Vec::<String>::new());
    }
}
