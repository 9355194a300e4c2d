//! TLS towards services, by DestinationRules: through a real pilot and a real proxy to servers that speak TLS alone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serin_testkit::certificates::Certificates;
use serin_testkit::client::Client;
use serin_testkit::pilot::{Folder, Pilot};

use super::{SERIN, free_port, rule, service, sidecar};

/// A server that answers with the name of the client's certificate, if it showed one, and the name that it asked for.
struct Secure {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Secure {
    fn start(certificates: &Certificates, name: &str) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificates.chain("ca").unwrap().remove(0)).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(certificates.chain(name).unwrap(), certificates.key(name).unwrap())
            .unwrap();
        let (config, requests) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, counted) = (listener.local_addr().unwrap(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, counted) = (config.clone(), counted.clone());
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    let mut seen = Vec::new();
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        seen.extend_from_slice(&buffer[..count]);
                        if !seen.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        counted.fetch_add(1, Ordering::SeqCst);
                        seen.clear();
                        let shown = stream.conn.peer_certificates().map_or(0, <[_]>::len);
                        let body = format!("{} {shown}", stream.conn.server_name().unwrap_or("-"));
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(head.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }
}

#[test]
fn destination_rules_say_how_tls_is_spoken() {
    let certificates = Certificates::make().unwrap();
    let secure = Secure::start(&certificates, "server");
    let file = |name: &str| certificates.folder().join(name).display().to_string();
    let ca = format!("caCertificates: {}", file("ca.pem"));
    let own = format!("clientCertificate: {}, privateKey: {}", file("client.pem"), file("client.key"));
    // The host, how TLS is spoken to it, and what comes of a request: the name that the server was told and how many certificates.
    let cases = [
        ("test.local", format!("mode: SIMPLE, {ca}"), Some("test.local 0")),
        ("other.local", format!("mode: SIMPLE, {ca}"), None),
        ("named.local", format!("mode: SIMPLE, {ca}, sni: test.local"), Some("test.local 0")),
        (
            "san.local",
            format!(
                "mode: SIMPLE, {ca}, sni: a.b, subjectAltNames: [x, 'spiffe://cluster.local/ns/default/sa/server']"
            ),
            Some("a.b 0"),
        ),
        ("wrong.local", format!("mode: SIMPLE, {ca}, sni: test.local, subjectAltNames: [wrong.local]"), None),
        ("stranger.local", format!("mode: SIMPLE, caCertificates: {}, sni: test.local", file("other-ca.pem")), None),
        ("system.local", "mode: SIMPLE, sni: test.local".to_owned(), None),
        ("anyone.local", "mode: SIMPLE, insecureSkipVerify: true".to_owned(), Some("anyone.local 0")),
        ("mutual.local", format!("mode: MUTUAL, {ca}, {own}, sni: test.local"), Some("test.local 1")),
        ("lost.local", format!("mode: MUTUAL, {ca}, clientCertificate: /none.pem, privateKey: /none.key"), None),
        ("half.local", format!("mode: MUTUAL, {ca}"), None),
        ("mesh.local", "mode: ISTIO_MUTUAL".to_owned(), None),
        ("secret.local", "mode: SIMPLE, credentialName: s".to_owned(), None),
    ];
    let port = free_port();
    let documents: String = cases
        .iter()
        .map(|(host, tls, _)| {
            let name = host.replace('.', "-");
            let policy = format!("{{host: {host}, trafficPolicy: {{tls: {{{tls}}}}}}}");
            service(host, 80, &[(secure.address, "app: s")]).replace(&format!("name: {host}"), &format!("name: {name}"))
                + &rule("DestinationRule", &name, &policy)
        })
        .collect();
    let folder = Folder::new(&[("m.yaml", &format!("{documents}{}", sidecar(port)))]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    let mut client = Client::new(proxy.listener(&format!("127.0.0.1_{port}")).unwrap());
    for (host, tls, expected) in &cases {
        let before = secure.requests.load(Ordering::SeqCst);
        let response = client.get("/", &[("host", host)]).unwrap();
        match expected {
            Some(said) => assert_eq!((response.status, response.text().as_str()), (200, *said), "{host}: {tls}"),
            None => {
                assert_eq!(response.status, 503, "{host}: {tls}");
                assert_eq!(secure.requests.load(Ordering::SeqCst), before, "{host}: a request came");
            }
        }
    }
}
