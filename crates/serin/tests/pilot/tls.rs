//! TLS by documents, through a real pilot and a real proxy: towards servers that speak TLS alone, and at a gateway.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serin_testkit::backend::Backend;
use serin_testkit::certificates::Certificates;
use serin_testkit::client::{Client, Response, read_response};
use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::wait_until;
use serin_testkit::proxy::Proxy;

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
        // The ServiceEntry names the certificate, unless the rule does.
        ("entry.local", format!("mode: SIMPLE, {ca}"), Some("entry.local 0")),
        ("entry-wrong.local", format!("mode: SIMPLE, {ca}, sni: test.local"), None),
        (
            "entry-overruled.local",
            format!("mode: SIMPLE, {ca}, sni: test.local, subjectAltNames: [test.local]"),
            Some("test.local 0"),
        ),
        ("mesh.local", "mode: ISTIO_MUTUAL".to_owned(), None),
        ("secret.local", "mode: SIMPLE, credentialName: s".to_owned(), None),
    ];
    let port = free_port();
    let documents: String = cases
        .iter()
        .map(|(host, tls, _)| {
            let name = host.replace('.', "-");
            let policy = format!("{{host: {host}, trafficPolicy: {{tls: {{{tls}}}}}}}");
            let names = match *host {
                "entry.local" => "  subjectAltNames: [test.local]\n",
                "entry-wrong.local" | "entry-overruled.local" => "  subjectAltNames: [other.local]\n",
                _ => "",
            };
            service(host, 80, &[(secure.address, "app: s")]).replace(&format!("name: {host}"), &format!("name: {name}"))
                + names
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

/// A client that trusts `ca`.
struct Visitor<'a>(&'a Certificates, SocketAddr);

impl Visitor<'_> {
    /// Asks for a host of a server by its name, with a certificate or without; fails unless the server proves its name.
    fn ask(&self, server: &'static str, host: &str, own: Option<&str>) -> anyhow::Result<Response> {
        let Self(certificates, address) = self;
        let mut roots = RootCertStore::empty();
        roots.add(certificates.chain("ca")?.remove(0))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots);
        let config = match own {
            Some(name) => config.with_client_auth_cert(certificates.chain(name)?, certificates.key(name)?)?,
            None => config.with_no_client_auth(),
        };
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(server)?)?;
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
        read_response(&mut stream, false)
    }
}

#[test]
fn tls_ends_at_a_gateway() {
    let certificates = Certificates::make().unwrap();
    let backend = Backend::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    let port = free_port();
    let server = |name: &str, host: &str, tls: &str, of: &str| {
        let file = |end: &str| certificates.folder().join(format!("{of}.{end}")).display().to_string();
        let files = format!("serverCertificate: {}, privateKey: {}", file("pem"), file("key"));
        format!(
            "{{port: {{number: {port}, name: {name}, protocol: HTTPS}}, hosts: ['{host}'], tls: {{{tls}, {files}}}}}"
        )
    };
    let ca = format!("caCertificates: {}", certificates.folder().join("ca.pem").display());
    let servers = [
        server("simple", "test.local", "mode: SIMPLE", "server"),
        server("mutual", "one.local", &format!("mode: MUTUAL, {ca}, subjectAltNames: [client.local]"), "one"),
        server("optional", "*.wild.local", &format!("mode: OPTIONAL_MUTUAL, {ca}"), "wild"),
        // Its host is taken: it has no part in what the first server of that host does.
        server("again", "test.local", "mode: SIMPLE", "two"),
        // Not carried out: its host is nobody's, though a wider server of the same name follows.
        server(
            "closed",
            "closed.wild.local",
            &format!("mode: MUTUAL, {ca}, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]"),
            "wild",
        ),
    ];
    let documents = [
        rule("Gateway", "g", &format!("{{selector: {{app: entry}}, servers: [{}]}}", servers.join(", "))),
        service("backend", 80, &[(backend.address(), "app: b")]),
        rule("VirtualService", "v", "{hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: backend}}]}]}"),
    ]
    .concat();
    let folder = Folder::new(&[("m.yaml", &documents)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let proxy = pilot.proxy("router", "entry-1", &[("app", "entry")]).unwrap();
    let address = proxy.listener(&format!("127.0.0.1_{port}")).unwrap();
    let visitor = Visitor(&certificates, address);
    for (server, own) in
        [("test.local", None), ("one.local", Some("client")), ("a.wild.local", None), ("a.wild.local", Some("client"))]
    {
        let response = visitor.ask(server, server, own).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{server} {own:?}");
        let received = String::from_utf8(backend.take()).unwrap();
        assert!(received.contains("x-forwarded-proto: https"), "{received}");
        let told = received.contains("URI=spiffe://cluster.local/ns/default/sa/client;DNS=client.local");
        assert_eq!(told, own.is_some(), "{received}");
    }
    // The certificate of another host, none where one is needed, one without the name, one of strangers, a host of another server, a name that no server has.
    assert_eq!(visitor.ask("test.local", "one.local", None).unwrap().status, 404);
    for (server, own) in [
        ("one.local", None),
        ("one.local", Some("dns-only")),
        ("one.local", Some("from-other-ca")),
        ("a.wild.local", Some("from-other-ca")),
        ("two.local", None),
        ("closed.wild.local", None),
        ("closed.wild.local", Some("client")),
    ] {
        assert!(visitor.ask(server, server, own).is_err(), "{server} {own:?}");
    }
    assert!(Client::new(address).get("/", &[("host", "test.local")]).is_err(), "plain text");
    assert!(backend.take().is_empty());
}

/// A rule that asks for TLS by files that are not there ends plain text, and is carried out when they come.
#[test]
fn files_that_come_later_open_what_was_closed() {
    let certificates = Certificates::make().unwrap();
    let plain = Backend::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain").unwrap();
    let secure = Secure::start(&certificates, "server");
    let port = free_port();
    let place = tempfile::tempdir().unwrap();
    let ca = place.path().join("later.pem");
    let services = service("plain", 80, &[(plain.address(), "app: p")])
        + &service("secure", 80, &[(secure.address, "app: s")])
        + &sidecar(port);
    let folder = Folder::new(&[("m.yaml", &services)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let identity = serin_xds::bootstrap::Client {
        role: "sidecar",
        workload: "client-1",
        namespace: "default",
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        labels: vec![("app", "client")],
        xds: pilot.xds,
    };
    let mut bootstrap = serin_xds::bootstrap::envoy(&identity, "127.0.0.1:0".parse().unwrap());
    bootstrap.as_object_mut().unwrap().remove("stats_sinks");
    // Envoy keeps the cluster without TLS: docs/differences.md.
    let proxy = Proxy::serin(SERIN, &bootstrap).unwrap();
    let address = proxy.listener(&format!("127.0.0.1_{port}")).unwrap();
    let ask = |host: &str| Client::new(address).get("/", &[("host", host)]).unwrap();
    assert_eq!(ask("plain").text(), "plain");
    let mut asked = 1;
    let tls = |host: &str| {
        let policy = format!("{{tls: {{mode: SIMPLE, caCertificates: {}, sni: test.local}}}}", ca.display());
        rule("DestinationRule", host, &format!("{{host: {host}, trafficPolicy: {policy}}}"))
    };
    folder.save("tls.yaml", &(tls("plain") + &tls("secure"))).unwrap();
    let is_closed = || {
        let is_closed = ask("plain").status == 503;
        asked += usize::from(!is_closed);
        is_closed.then_some(())
    };
    wait_until(Duration::from_secs(20), is_closed).unwrap();
    assert_eq!(ask("secure").status, 503);
    std::fs::write(&ca, certificates.read("ca.pem").unwrap()).unwrap();
    wait_until(Duration::from_secs(20), || (ask("secure").status == 200).then_some(())).unwrap();
    assert_eq!(secure.requests.load(Ordering::SeqCst), 1);
    // The other server speaks no TLS, and was sent no request since.
    assert_eq!(String::from_utf8_lossy(&plain.take()).matches("GET ").count(), asked);
}
