//! Serin and real Envoy, run from the same bootstraps with the same requests against the same recording backends.
//!
//! Every case of `differential/cases/*.yaml` becomes one bootstrap. What clients and backends saw of it must be what the case
//! expects and, when `SERIN_TEST_ENVOY` names Envoy's binary, equal for both. Differences that are kept on purpose stand in
//! docs/differences.md. `ONLY=part` runs the cases whose name contains it.

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

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use backends::Backends;
use case::Case;

/// Cases that run at once.
const AT_ONCE: usize = 4;

#[test]
fn serin_does_what_envoy_does() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let envoy = std::env::var("SERIN_TEST_ENVOY").ok().map(PathBuf::from);
    let cases: Vec<Case> = Case::all().into_iter().filter(|c| c.name().contains(&only)).collect();
    assert!(!cases.is_empty(), "no case is called '{only}'");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    if let Err(difference) = run(case, envoy.as_deref()) {
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
fn run(case: &Case, envoy: Option<&Path>) -> Result<(), String> {
    // Both go to the same backends: where a hash leads depends on their addresses.
    let backends = Backends::start(&case.backends());
    let serin = observe::serin(case, &backends)?;
    compare::with_expectation(case, "Serin", &serin)?;
    let Some(envoy) = envoy else { return Ok(()) };
    let envoy = observe::envoy(envoy, case, &backends)?;
    compare::with_expectation(case, "Envoy", &envoy)?;
    compare::with_each_other(case, &serin, &envoy)
}
