//! docs/judge.md: what the judge does with releases that are made up, measured: how often it is wrong, and how quickly it is right.

mod draw;
mod world;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serin_delivery::judge::{RATIOS, Regression, Window};

use draw::{Chart, Line};
use world::{Looked, Release, Trouble, World};

/// Releases of each kind, and of each cell of the table.
const RELEASES: u64 = 10_000;
const DETECTIONS: u64 = 2_000;

const ALPHA: f64 = 0.01;

/// Writes the page and its pictures.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = std::env::current_dir()?;
    let mut page = String::from(
        "# How often the judge is wrong, and how quickly it is right\n\nMade by `cargo xtask judge` from made-up releases; the \
         numbers follow from the seeds, so they are the same on every machine.\n\n",
    );
    errors(&mut page);
    detection(&mut page, &root)?;
    page.push_str(EXPLANATION);
    let file = root.join("docs/judge.md");
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("docs/judge.md and its pictures are up to date");
    Ok(())
}

const EXPLANATION: &str = "\
## What decides

Serin bets on the part of the failures that the candidate has in each window of half a second (`Regression::ln_evidence`), not \
on single failures. The two are the same while windows hold one failure; where failures come in clusters, by user or by second, \
bets on single failures take one piece of bad luck for many. The price is that a window with many failures counts for \
little more than one with a few.

What no judge can tell apart is a bad version from a sick machine: when one instance fails, it is the candidate's or it is not. \
Serin says which instance has the failures (`suspect` in the status), and a person decides.
";

/// How often an equal candidate is rolled back.
fn errors(page: &mut String) {
    let sigma = (ALPHA * (1.0 - ALPHA) / RELEASES as f64).sqrt();
    let _ = writeln!(
        page,
        "## An equal candidate that is rolled back all the same\n\n{RELEASES} releases of each kind, weights 1, 5, 25 and 50 %, ten minutes each, \
         traffic between 1 and 100 requests a second (sinusoidal, a period of 20 minutes), 0.5 % failures. Rollback at alpha = {ALPHA}; \
         alpha and three standard errors are {:.2} %. Flagger: five failed checks in all (success below 99 %, checks of a minute). Argo Rollouts: \
         one failed measurement of ten a step (`failureLimit: 0`).\n\n\
         | trouble | Serin, windows | bets on every failure | Flagger's rule | Argo's rule |\n|---|---|---|---|---|",
        (ALPHA + 3.0 * sigma) * 100.0
    );
    for (name, trouble) in [
        ("none", Trouble::None),
        ("outages of both: a minute with 50 % failures", Trouble::Outages),
        ("bursts by user: up to 20 failures at once, on one version by its share", Trouble::UserBursts),
        ("bursts by instance: one sick machine, on one version by its share", Trouble::InstanceBursts),
    ] {
        let share = |wrong: u64| format!("{:.2} %", wrong as f64 * 100.0 / RELEASES as f64);
        let (mut windows, mut events, mut flagger, mut argo) = (0, 0, 0, 0);
        for seed in 0..RELEASES {
            let Looked { by_windows, by_events, flagger: f, argo: a } = World::new(seed, trouble).null_release(ALPHA);
            windows += u64::from(by_windows);
            events += u64::from(by_events);
            flagger += u64::from(f);
            argo += u64::from(a);
        }
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} | {} |",
            share(windows),
            share(events),
            share(flagger),
            share(argo)
        );
    }
    page.push_str(
        "\nSerin looks as often as anybody likes: what it looks at changes when a window closes. Bets on every single failure are as good \
         while failures are independent, and no longer where they come in bursts. The last line is what it is: the burst is real, and it is the candidate's or it is not.\n\n",
    );
}

/// How many failures it takes to see a regression.
fn detection(page: &mut String, root: &Path) -> anyhow::Result<()> {
    page.push_str(
        "## Failures until a regression is seen\n\nFailures of both versions together, median (and ninth of ten), one failure a look, alpha = 0.05. \
         In brackets the median of the reference table.\n\n| share | 2 times | 3 times | 5 times | 10 times |\n|---|---|---|---|---|\n",
    );
    let reference =
        [[815.0, 249.0, 81.0, 27.0], [208.0, 69.0, 21.0, 11.0], [116.0, 42.0, 12.0, 7.0], [58.0, 27.0, 14.0, 7.0]];
    for (share, row) in [0.01, 0.05, 0.1, 0.5].into_iter().zip(reference) {
        let _ = write!(page, "| {} % |", share * 100.0);
        for (ratio, right) in [2.0, 3.0, 5.0, 10.0].into_iter().zip(row) {
            let mut lengths: Vec<u64> = (0..DETECTIONS).map(|seed| until(seed, ratio, share, 0.05)).collect();
            lengths.sort_unstable();
            let at = |q: f64| lengths[(lengths.len() as f64 * q) as usize];
            let _ = write!(page, " {} ({}) [{right}] |", at(0.5), at(0.9));
        }
        page.push('\n');
    }
    let folder = root.join("docs/judge");
    std::fs::create_dir_all(&folder)?;
    let mut chart = Chart::new("Evidence for a rollback at a share of 5 %, by failures seen", "failures", "evidence");
    for (ratio, color) in [(1.0, "#2a7"), (2.0, "#27b"), (3.0, "#a60"), (5.0, "#c33")] {
        let path = path(7, ratio, 0.05, 250);
        chart.lines.push(Line { name: format!("{ratio} times"), color, points: path });
    }
    chart.level = Some((1.0 / ALPHA, "alpha 0.01"));
    std::fs::write(folder.join("evidence.svg"), chart.svg())?;
    let mut spread =
        Chart::new("Releases that were rolled back, by failures seen (share 5 %, alpha 0.01)", "failures", "part");
    for (ratio, color) in [(2.0, "#27b"), (3.0, "#a60"), (5.0, "#c33"), (10.0, "#707")] {
        let mut lengths: Vec<u64> = (0..DETECTIONS).map(|seed| until(seed, ratio, 0.05, ALPHA)).collect();
        lengths.sort_unstable();
        let count = lengths.len() as f64;
        let points = lengths
            .iter()
            .enumerate()
            .map(|(i, n)| (*n as f64, (i + 1) as f64 / count))
            .take_while(|(n, _)| *n < 600.0)
            .collect();
        spread.lines.push(Line { name: format!("{ratio} times"), color, points });
    }
    spread.linear = true;
    std::fs::write(folder.join("detection.svg"), spread.svg())?;
    page.push_str("\n![evidence](judge/evidence.svg)\n\n![detection](judge/detection.svg)\n\n");
    Ok(())
}

/// Failures until a rollback.
fn until(seed: u64, ratio: f64, share: f64, alpha: f64) -> u64 {
    let mut release = Release::new(seed);
    let mut regression = Regression::default();
    let level = (1.0 / alpha).ln();
    for count in 1..100_000 {
        regression.add(release.failure(ratio, share));
        if regression.ln_evidence() >= level {
            return count;
        }
    }
    100_000
}

/// The evidence after each failure.
fn path(seed: u64, ratio: f64, share: f64, most: usize) -> Vec<(f64, f64)> {
    let mut release = Release::new(seed);
    let mut regression = Regression::default();
    (1..=most)
        .map(|count| {
            regression.add(release.failure(ratio, share));
            (count as f64, regression.ln_evidence().exp())
        })
        .collect()
}

/// Shared with the world: the ratios that are bet on are the judge's own.
const _: () = assert!(RATIOS.len() == 7);

/// A window of these counts.
fn window(candidate: u64, others: u64, share: f64) -> Window {
    Window { candidate: candidate as f64, others: others as f64, share }
}
