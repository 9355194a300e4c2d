//! Serin and real Envoy, run from the same bootstraps with the same requests against the same recording backends.
//!
//! Every case of `differential/cases/*.yaml` becomes one bootstrap. What clients and backends saw of it must be what the case
//! expects and, when `SERIN_TEST_ENVOY` names Envoy's binary, equal for both. Differences that are kept on purpose stand in
//! docs/differences.md. `ONLY=part` runs the cases whose name contains it, `ALONE=envoy` only Envoy; `SHOW=1` prints what was seen;
//! `CASES=FOLDER` takes the cases of another folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[path = "differential/backends.rs"]
mod backends;
#[path = "differential/case.rs"]
mod case;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/observe.rs"]
mod observe;
#[path = "differential/over_h2.rs"]
mod over_h2;
#[path = "differential/raw.rs"]
mod raw;
#[path = "differential/tls.rs"]
mod tls;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use backends::Backends;
use case::Case;
use observe::{Around, Observed};
use serin_testkit::certificates::Certificates;

/// Cases that run at once.
const AT_ONCE: usize = 8;

#[test]
fn serin_does_what_envoy_does() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let envoy = std::env::var("SERIN_TEST_ENVOY").ok().map(PathBuf::from);
    let certificates = Arc::new(Certificates::make().unwrap());
    let cases: Vec<Case> = Case::all(&certificates).into_iter().filter(|c| c.name().contains(&only)).collect();
    assert!(!cases.is_empty(), "no case is called '{only}'");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| run(case, &certificates, envoy.as_deref())));
                    if let Err(difference) = ran.unwrap_or_else(|_| Err("the case itself is wrong".to_owned())) {
                        failures.lock().unwrap().push(format!("== {}\n{difference}", case.name()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let against = if envoy.is_some() { "Serin and Envoy" } else { "Serin alone" };
    println!("{} cases with {against}, {} differ", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs a case; the error says what differs.
fn run(case: &Case, certificates: &Arc<Certificates>, envoy: Option<&Path>) -> Result<(), String> {
    // Both go to the same backends: where a hash leads depends on their addresses.
    let backends = Backends::start(case.backends(), certificates);
    let around = Around { backends: &backends, certificates };
    let serin = match std::env::var("ALONE").as_deref() {
        Ok("envoy") => None,
        _ => Some(observe::serin(case, &around)?),
    };
    if let Some(serin) = &serin {
        show(case, "Serin", serin);
        compare::with_expectation(case, "Serin", serin)?;
    }
    let Some(envoy) = envoy else { return Ok(()) };
    let envoy = observe::envoy(envoy, case, &around)?;
    show(case, "Envoy", &envoy);
    compare::with_expectation(case, "Envoy", &envoy)?;
    serin.map_or(Ok(()), |serin| compare::with_each_other(case, &serin, &envoy))
}

fn show(case: &Case, who: &str, observed: &Observed) {
    if std::env::var_os("SHOW").is_none() {
        return;
    }
    let mut text = format!("== {}: {who}\n", case.name());
    for seen in observed.seen.iter().flatten() {
        text.push_str(&format!("{} {:?} {:.300?}\n", seen.outcome(), seen.headers, seen.body));
        for one in &seen.tries {
            text.push_str(&format!("  {} {} {:?} {:.300?}\n", one.backend, one.line, one.headers, one.body));
        }
    }
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}{:?} {:?} {:#?}", observed.stats, observed.refusal, observed.log);
}
