//! A real pilot with documents of its own: what it does with odd files, with its state, with people, and with proxies.
//!
//! The cases of `rules`, `tls` and `make_before_break` run with Serin's proxy, and with real Envoy when `SERIN_TEST_ENVOY` names its binary (`cargo xtask interop`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[path = "pilot/analyze.rs"]
mod analyze;
#[path = "pilot/files.rs"]
mod files;
#[path = "pilot/interface.rs"]
mod interface;
#[path = "pilot/make_before_break.rs"]
mod make_before_break;
#[path = "pilot/rules.rs"]
mod rules;
#[path = "pilot/secured.rs"]
mod secured;
#[path = "pilot/sharing.rs"]
mod sharing;
#[path = "pilot/tls.rs"]
mod tls;
#[path = "pilot/upgrade.rs"]
mod upgrade;

const SERIN: &str = env!("CARGO_BIN_EXE_serin");

/// A service with instances, as a document: name, port, and address with labels of each.
fn service(name: &str, port: u16, instances: &[(std::net::SocketAddr, &str)]) -> String {
    let endpoint = |(address, labels): &(std::net::SocketAddr, &str)| {
        format!("  - {{address: {}, ports: {{http: {}}}, labels: {{{labels}}}}}\n", address.ip(), address.port())
    };
    let endpoints: String = instances.iter().map(endpoint).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}]\n  \
         resolution: STATIC\n  ports: [{{number: {port}, name: http, protocol: HTTP}}]\n  endpoints:\n{endpoints}"
    )
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An outbound listener of all workloads that takes requests for every service by its name.
fn sidecar(port: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: all}}\nspec:\n  egress:\n  \
         - {{port: {{number: {port}, protocol: HTTP_PROXY, name: out}}, bind: 127.0.0.1, captureMode: NONE, hosts: [\"*/*\"]}}\n"
    )
}

/// An object of Istio's networking API.
fn rule(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
