//! Configuration over TLS: a proxy whose bootstrap says so speaks to the control plane over TLS alone.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::backend::Backend;
use serin_testkit::certificates::Certificates;
use serin_testkit::client::Client;
use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::Process;
use serin_testkit::proxy::{Proxy, cluster, socket_address};

use super::{SERIN, free_port, service, sidecar};

const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn socket(side: &str, context: &Value) -> Value {
    let mut context = context.clone();
    context["@type"] = format!("{CONTEXT}.{side}TlsContext").into();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

#[test]
fn configuration_comes_over_tls() {
    let certificates = Certificates::make().unwrap();
    let file = |name: &str| json!({"filename": certificates.folder().join(name)});
    let own = |name: &str| json!([{"certificate_chain": file(&format!("{name}.pem")), "private_key": file(&format!("{name}.key"))}]);
    let backend = Backend::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    let port = free_port();
    let documents = service("hello", 80, &[(backend.address(), "app: hello")]) + &sidecar(port);
    let folder = Folder::new(&[("m.yaml", &documents)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();

    // TLS ends before the pilot.
    let asked = json!({"require_client_certificate": true, "common_tls_context": {"alpn_protocols": ["h2"],
        "tls_certificates": own("server"), "validation_context": {"trusted_ca": file("ca.pem")}}});
    let end = json!({"static_resources": {"clusters": [cluster("pilot", &[pilot.xds])], "listeners": [{
        "name": "main", "address": socket_address("127.0.0.1:0".parse().unwrap()), "filter_chains": [{
            "transport_socket": socket("Downstream", &asked),
            "filters": [{"name": "tcp", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "x", "cluster": "pilot"}}]}]}]}});
    let end = Proxy::start(SERIN, &end).unwrap();

    let client = serin_xds::bootstrap::Client {
        role: "sidecar",
        workload: "client-1",
        namespace: "default",
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        labels: vec![("app", "client")],
        xds: end.listener("main").unwrap(),
    };
    let secure = |ca: &str, name: &str, certificate: Option<&str>| {
        let mut bootstrap = serin_xds::bootstrap::envoy(&client, "127.0.0.1:0".parse().unwrap());
        bootstrap.as_object_mut().unwrap().remove("stats_sinks");
        let names = json!([{"san_type": "DNS", "matcher": {"exact": name}}]);
        let mut context = json!({"sni": name, "common_tls_context": {"alpn_protocols": ["h2"],
            "validation_context": {"trusted_ca": file(ca), "match_typed_subject_alt_names": names}}});
        if let Some(certificate) = certificate {
            context["common_tls_context"]["tls_certificates"] = own(certificate);
        }
        bootstrap["static_resources"]["clusters"][0]["transport_socket"] = socket("Upstream", &context);
        bootstrap
    };
    let proxy = Proxy::start(SERIN, &secure("ca.pem", "test.local", Some("client"))).unwrap();
    let address = proxy.listener(&format!("127.0.0.1_{port}")).unwrap();
    assert_eq!(Client::new(address).get("/", &[("host", "hello")]).unwrap().text(), "hello");

    for (bootstrap, why) in [
        (secure("other-ca.pem", "test.local", Some("client")), "TLS"),
        (secure("ca.pem", "wrong.local", Some("client")), "TLS"),
        (secure("ca.pem", "test.local", None), "cannot connect"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("bootstrap.json");
        std::fs::write(&path, bootstrap.to_string()).unwrap();
        let mut command = Command::new(SERIN);
        let process = Process::start(command.arg("proxy").arg("--bootstrap").arg(path)).unwrap();
        process.wait_for(why, Duration::from_secs(20)).unwrap();
    }
    let connected = pilot.json("/debug/syncz").unwrap();
    assert_eq!(connected.to_string().matches("client-1.default").count(), 1, "{connected}");
}
