//! TLS with others' clients and servers: curl, OpenSSL and h2load, where this machine has them. And certificates that change
//! while connections are made.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use serin_testkit::backend::Backend;
use serin_testkit::certificates::Certificates;
use serin_testkit::client::{Client, read_response};
use serin_testkit::process::{Process, wait_until};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// Runs a tool; `None` where it is not installed.
fn run(tool: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("{tool} is not installed: its part is left out");
        return None;
    };
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(input);
    drop(pipe);
    Some(child.wait_with_output().unwrap())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A proxy that speaks TLS with that context, in front of a backend that says `hello`.
fn server(context: &Value, backend: &Backend) -> (Proxy, SocketAddr) {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let mut config = bootstrap(&routes, &[cluster("a", &[backend.address()])]);
    let mut context = context.clone();
    context["@type"] = format!("{CONTEXT}.DownstreamTlsContext").into();
    config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
        json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let address = proxy.listener("main").unwrap();
    (proxy, address)
}

fn certificate(certificates: &Certificates, name: &str) -> Value {
    let file = |end: &str| json!({"filename": certificates.folder().join(format!("{name}.{end}"))});
    json!({"certificate_chain": file("pem"), "private_key": file("key")})
}

#[test]
fn curl_speaks_each_version_with_and_without_a_certificate() {
    let certificates = Certificates::make().unwrap();
    let backend = Backend::answering(ok("hello")).unwrap();
    let file = |name: &str| certificates.folder().join(name).display().to_string();
    let common =
        json!({"tls_certificates": [certificate(&certificates, "server")], "alpn_protocols": ["h2", "http/1.1"]});
    let mut asking = common.clone();
    asking["validation_context"] = json!({"trusted_ca": {"filename": file("ca.pem")}});
    let (_open, anyone) = server(&json!({"common_tls_context": common}), &backend);
    let (_closed, known) = server(&json!({"common_tls_context": asking, "require_client_certificate": true}), &backend);
    let ca = file("ca.pem");
    let curl = |address: SocketAddr, more: &[&str]| {
        let url = format!("https://test.local:{}/", address.port());
        let resolve = format!("test.local:{}:127.0.0.1", address.port());
        let fixed = ["-sS", "--cacert", &ca, "--resolve", &resolve, "-w", " %{http_version} %{http_code}", &url];
        run("curl", &[&fixed, more].concat(), b"").map(|output| text(&output))
    };
    let (key, own) = (file("client.key"), file("client.pem"));
    let (other_key, other) = (file("from-other-ca.key"), file("from-other-ca.pem"));
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        for (http, says) in [("--http1.1", "hello 1.1 200"), ("--http2", "hello 2 200")] {
            let more = |rest: &[&'static str]| [&version[..], &[http], rest].concat();
            let Some(said) = curl(anyone, &more(&[])) else { return };
            assert_eq!(said, says, "{version:?}");
            let of = |own: &str, key: &str| curl(known, &[&more(&[])[..], &["--cert", own, "--key", key]].concat());
            assert_eq!(of(&own, &key).unwrap(), says, "{version:?} with a certificate");
            let refused = [curl(known, &more(&[])).unwrap(), of(&other, &other_key).unwrap()];
            assert!(refused.iter().all(|said| said.contains(" 000")), "{refused:?}");
        }
    }
    assert_eq!(backend.answered(), 8, "no request of a refused client came");
    let said = curl(anyone, &["--tlsv1.1", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"]).unwrap();
    assert!(said.contains(" 000"), "an old version: {said}");
}

#[test]
fn openssl_goes_on_with_its_session() {
    let certificates = Certificates::make().unwrap();
    let backend = Backend::answering(ok("hello")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session").display().to_string();
    let common = json!({"tls_certificates": [certificate(&certificates, "server")]});
    let (_proxy, address) = server(&json!({"common_tls_context": common}), &backend);
    let (address, ca) = (address.to_string(), certificates.folder().join("ca.pem").display().to_string());
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (keep, how) in [("-sess_out", "New"), ("-sess_in", "Reused")] {
            let fixed = ["s_client", "-connect", &address, "-servername", "test.local", "-CAfile", &ca, "-ign_eof"];
            let arguments = [&fixed[..], &["-verify_return_error", version, keep, &session]].concat();
            let request = b"GET / HTTP/1.1\r\nhost: test.local\r\nconnection: close\r\n\r\n";
            let Some(output) = run("openssl", &arguments, request) else { return };
            let said = text(&output);
            assert!(said.contains("hello"), "{said}");
            assert!(said.contains(&format!("{how}, {name}")), "{said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        }
    }
}

#[test]
fn h2load_loses_nothing() {
    let certificates = Certificates::make().unwrap();
    let backend = Backend::answering(ok("hello")).unwrap();
    let common =
        json!({"tls_certificates": [certificate(&certificates, "server")], "alpn_protocols": ["h2", "http/1.1"]});
    let (_proxy, address) = server(&json!({"common_tls_context": common}), &backend);
    for more in [&["-m", "10"][..], &["--h1"]] {
        let url = format!("https://{address}/");
        let Some(output) = run("h2load", &[&["-n", "400", "-c", "8"], more, &[&url]].concat(), b"") else { return };
        let said = text(&output);
        assert!(said.contains("400 succeeded, 0 failed, 0 errored"), "{more:?}: {said}");
    }
}

#[test]
fn a_server_of_openssl_is_verified() {
    let certificates = Certificates::make().unwrap();
    let file = |name: &str| certificates.folder().join(name).display().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("openssl");
    let (chain, key) = (file("server.pem"), file("server.key"));
    command.args(["s_server", "-www", "-accept", &free.to_string(), "-cert", &chain, "-key", &key]);
    let Ok(_server) = Process::start(&mut command) else { return eprintln!("openssl is not installed") };
    wait_until(Duration::from_secs(10), || std::net::TcpStream::connect(free).ok()).unwrap();
    let upstream = |name: &str, san: &str, ca: &str| {
        let mut cluster = cluster(name, &[free]);
        let names = json!([{"san_type": "DNS", "matcher": {"exact": san}}]);
        let rules = json!({"trusted_ca": {"filename": file(ca)}, "match_typed_subject_alt_names": names});
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": format!("{CONTEXT}.UpstreamTlsContext"), "sni": san,
            "common_tls_context": {"validation_context": rules}}});
        cluster
    };
    let clusters = [
        upstream("good", "test.local", "ca.pem"),
        upstream("name", "bad.local", "ca.pem"),
        upstream("ca", "test.local", "other-ca.pem"),
    ];
    let route =
        |name: &str| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "prefix_rewrite": "/"}});
    let proxy = Proxy::start(SERIN, &bootstrap(&json!(["good", "name", "ca"].map(route)), &clusters)).unwrap();
    let ask = |path: &str| Client::new(proxy.listener("main").unwrap()).get(path, &[]).unwrap();
    let good = ask("/good");
    assert_eq!(good.status, 200);
    assert!(good.text().contains("TLSv1."), "{}", good.text());
    for refused in ["/name", "/ca"] {
        assert_eq!(ask(refused).status, 503, "{refused}");
    }
    assert_eq!(proxy.stat("cluster.name.ssl.fail_verify_san"), 1);
    assert_eq!(proxy.stat("cluster.ca.ssl.fail_verify_error"), 1);
}

/// A client of the proxy that trusts `ca`, and the certificate that it saw.
fn visit(config: &Arc<ClientConfig>, address: SocketAddr) -> anyhow::Result<CertificateDer<'static>> {
    let stream = std::net::TcpStream::connect(address)?;
    let name = ServerName::try_from("test.local")?;
    let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name)?, stream);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test.local\r\n\r\n")?;
    anyhow::ensure!(read_response(&mut stream, false)?.status == 200, "no 200");
    // The connection goes on, whatever happens to the certificate.
    std::thread::sleep(Duration::from_millis(5));
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test.local\r\n\r\n")?;
    anyhow::ensure!(read_response(&mut stream, false)?.status == 200, "no second 200");
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
    Ok(shown.ok_or_else(|| anyhow::anyhow!("no certificate"))?.clone().into_owned())
}

#[test]
fn certificates_change_under_load() {
    let certificates = Certificates::make().unwrap();
    let renewed = Certificates::make().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Two chains for the same name, each from a root of its own.
    let put = |from: &Certificates| {
        for end in ["pem", "key"] {
            let (new, name) = (folder.path().join("new"), folder.path().join(format!("server.{end}")));
            std::fs::write(&new, from.read(&format!("server.{end}")).unwrap()).unwrap();
            std::fs::rename(new, name).unwrap();
        }
    };
    put(&certificates);
    let mut roots = RootCertStore::empty();
    for each in [&certificates, &renewed] {
        roots.add(each.chain("ca").unwrap().remove(0)).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let file = |end: &str| json!({"filename": folder.path().join(format!("server.{end}"))});
    let common = json!({"tls_certificates": [{"certificate_chain": file("pem"), "private_key": file("key")}]});
    let backend = Backend::answering(ok("hello")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let mut bootstrap = bootstrap(&routes, &[cluster("a", &[backend.address()])]);
    bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": format!("{CONTEXT}.DownstreamTlsContext"), "common_tls_context": common}});
    let proxy = Proxy::serin(SERIN, &bootstrap).unwrap();
    let address = proxy.listener("main").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        failures.extend(visit(&config, address).err().map(|error| error.to_string()));
                    }
                    failures
                })
            })
            .collect();
        for round in 0..6 {
            let from = if round % 2 == 0 { &renewed } else { &certificates };
            put(from);
            let wanted = from.chain("server").unwrap().remove(0);
            let changed = Instant::now();
            let seen = || (visit(&config, address).ok()? == wanted).then_some(());
            wait_until(Duration::from_secs(10), seen).unwrap();
            eprintln!("round {round}: the new certificate after {:?}", changed.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().unwrap(), Vec::<String>::new());
        }
    });
}
