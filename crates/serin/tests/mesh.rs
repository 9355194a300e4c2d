//! The whole mesh on one machine: real pilot, real proxies, real applications, real kills.
//!
//! Runs with Serin's proxy, and with real Envoy when `SERIN_TEST_ENVOY` names its binary (`cargo xtask interop`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[path = "mesh/adoption.rs"]
mod adoption;
#[path = "mesh/failures.rs"]
mod failures;
#[path = "mesh/faults.rs"]
mod faults;
#[path = "mesh/loads.rs"]
mod loads;
#[path = "mesh/metrics.rs"]
mod metrics;
#[path = "mesh/page.rs"]
mod page;
#[path = "mesh/releases.rs"]
mod releases;
#[path = "mesh/strategies.rs"]
mod strategies;
#[path = "mesh/weights.rs"]
mod weights;

use std::path::{Path, PathBuf};

use serin_testkit::demo::Builder;

/// The demo with the rules of `examples/bookinfo`.
fn demo() -> Builder {
    Builder::new(env!("CARGO_BIN_EXE_serin"), &examples()).unwrap()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo")
}

/// The version that answered, from `podname` or the page.
fn version(text: &str) -> String {
    let at = text.find("reviews-v");
    at.and_then(|at| text.get(at + 8..at + 10)).unwrap_or("none").to_owned()
}

/// A VirtualService for `reviews` with these destinations, after jason's rule when `jason` is set.
fn reviews(jason: bool, destinations: &[(&str, u32)], extra: &str) -> String {
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n",
    );
    if jason {
        text.push_str("  - match: [{headers: {end-user: {exact: jason}}}]\n    route: [{destination: {host: reviews, subset: v2}}]\n");
    }
    text.push_str("  - route:\n");
    for (subset, weight) in destinations {
        text.push_str(&format!("    - destination: {{host: reviews, subset: {subset}}}\n      weight: {weight}\n"));
    }
    text.push_str(extra);
    text
}

/// The path of the reviews' JSON through the page's API.
const REVIEWS: &str = "/api/v1/products/0/reviews";
