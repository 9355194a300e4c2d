//! Handshakes and streams over real sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{ByteStream, Listener};

/// An authority and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "root");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, names: &[&str], uri: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "Org, Inc.");
        params.distinguished_name.push(DnType::CommonName, "peer");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), Vec::new()).unwrap()
    }

    fn trust(&self) -> Verification {
        Verification::trusting(Arc::new(Trusted::read(self.pem.as_bytes()).unwrap()))
    }
}

type Both = (Result<ByteStream, HandshakeError>, Result<ByteStream, HandshakeError>);

/// Both ends of a handshake: the client's, then the server's.
async fn meet(client: &ClientTls, server: &ServerTls, name: Option<&str>) -> Both {
    let listener = Listener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), 1).unwrap();
    let connected = ByteStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().0;
    tokio::join!(connected.connect_tls(client, name), accepted.accept_tls(server))
}

fn server(settings: &ServerSettings) -> ServerTls {
    ServerTls::new(settings).unwrap()
}

#[tokio::test]
async fn both_sides_know_each_other_and_their_protocol() {
    let authority = Authority::new();
    let own = authority.identity(&["a.example", "*.b.example"], "spiffe://x/server");
    let other = authority.identity(&["c.example"], "spiffe://x/other");
    let server = server(&ServerSettings {
        identities: vec![other, own],
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        clients: Some(authority.trust()),
        needs_client_certificate: true,
        ..ServerSettings::default()
    });
    let client = ClientTls::new(&ClientSettings {
        identity: Some(authority.identity(&[], "spiffe://x/client")),
        servers: Some(authority.trust()),
        alpn: vec![b"http/1.1".to_vec()],
        ..ClientSettings::default()
    })
    .unwrap();
    for (name, shown) in [
        (Some("a.example"), "spiffe://x/server"),
        (Some("q.b.example"), "spiffe://x/server"),
        (Some("c.example"), "spiffe://x/other"),
        (Some("unknown.example"), "spiffe://x/other"),
        (None, "spiffe://x/other"),
    ] {
        let (client, server) = meet(&client, &server, name).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        let (seen, known) = (client.tls().unwrap(), server.tls().unwrap());
        assert_eq!(seen.peer[0].uris, [shown], "{name:?}");
        assert_eq!((seen.version, known.server_name.as_deref()), ("TLSv1.3", name));
        assert_eq!(known.alpn.as_deref(), Some(&b"http/1.1"[..]));
        assert_eq!(
            (known.peer[0].uris[0].as_str(), known.peer[0].subject.as_str()),
            ("spiffe://x/client", "O=Org\\, Inc.,CN=peer")
        );
        assert_eq!(known.local.as_ref().unwrap().uris, [shown]);
    }
}

#[tokio::test]
async fn bytes_pass_whole_and_directions_end_by_themselves() {
    let authority = Authority::new();
    let identities = vec![authority.identity(&["a.example"], "spiffe://x/server")];
    let server = server(&ServerSettings { identities, ..ServerSettings::default() });
    let client = ClientTls::new(&ClientSettings::default()).unwrap();
    let (client, server) = meet(&client, &server, Some("a.example")).await;
    let (mut from_server, mut to_server) = client.unwrap().into_split();
    let (mut from_client, mut to_client) = server.unwrap().into_split();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let writing = async move {
        to_server.write_all(&copy).await.unwrap();
        to_server.shutdown().await.unwrap();
        to_server
    };
    let reading = async {
        let mut got = Vec::new();
        from_client.read_to_end(&mut got).await.unwrap();
        got
    };
    let (_half, got) = tokio::join!(writing, reading);
    assert!(got == sent);
    to_client.write_all(b"answer").await.unwrap();
    drop(to_client);
    let mut answer = Vec::new();
    from_server.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

#[tokio::test]
async fn whoever_shows_too_little_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.identity(&["a.example"], "spiffe://x/server");
    let asking = server(&ServerSettings {
        identities: vec![own.clone()],
        clients: Some(authority.trust().with_names(|c| c.uris == ["spiffe://x/client"])),
        needs_client_certificate: true,
        ..ServerSettings::default()
    });
    let showing =
        |identity: Option<Identity>| ClientTls::new(&ClientSettings { identity, ..ClientSettings::default() }).unwrap();
    let refused = async |client: ClientTls| meet(&client, &asking, None).await.1.unwrap_err();
    assert!(matches!(refused(showing(None)).await, HandshakeError::NoCertificate));
    let other = showing(Some(authority.identity(&[], "spiffe://x/other")));
    assert!(matches!(refused(other).await, HandshakeError::Rejected(Rejected::Name)));
    let unknown = showing(Some(stranger.identity(&[], "spiffe://x/client")));
    assert!(matches!(refused(unknown).await, HandshakeError::Rejected(Rejected::Chain(_))));

    let plain = server(&ServerSettings { identities: vec![own], ..ServerSettings::default() });
    let trusting = |servers| ClientTls::new(&ClientSettings { servers: Some(servers), ..Default::default() }).unwrap();
    let refused = async |servers| meet(&trusting(servers), &plain, None).await.0.unwrap_err();
    assert!(matches!(refused(stranger.trust()).await, HandshakeError::Rejected(Rejected::Chain(_))));
    let named = authority.trust().with_names(|c| c.dns == ["b.example"]);
    assert!(matches!(refused(named).await, HandshakeError::Rejected(Rejected::Name)));
    let listed = Verification::of_any().with_hashes(vec![[0; 32]], Vec::new());
    assert!(matches!(refused(listed).await, HandshakeError::Rejected(Rejected::Hash)));
}

#[tokio::test]
async fn a_look_takes_nothing_away() {
    let authority = Authority::new();
    let identities = vec![authority.identity(&["a.example"], "spiffe://x/server")];
    let server = server(&ServerSettings { identities, alpn: vec![b"h2".to_vec()], ..ServerSettings::default() });
    let alpn = vec![b"h2".to_vec()];
    let client = ClientTls::new(&ClientSettings { alpn, ..ClientSettings::default() }).unwrap();
    let listener = Listener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), 1).unwrap();
    let address = listener.local_addr().unwrap();
    let asking = async {
        let stream = ByteStream::connect(address).await.unwrap();
        stream.connect_tls(&client, Some("A.example")).await
    };
    let answering = async {
        let stream = listener.accept().await.unwrap().0;
        let hello = ClientHello { server_name: Some("a.example".to_owned()), alpn: vec![b"h2".to_vec()] };
        assert_eq!(stream.sniff().await.unwrap(), Sniffed::Tls(hello));
        stream.accept_tls(&server).await
    };
    let (client, server) = tokio::join!(asking, answering);
    assert!(client.is_ok() && server.is_ok());
    let mut plain = ByteStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut accepted = listener.accept().await.unwrap().0;
    assert_eq!(accepted.sniff().await.unwrap(), Sniffed::Other);
    let mut first = [0; 3];
    accepted.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"GET");
}

#[test]
fn a_key_belongs_to_its_certificate() {
    let authority = Authority::new();
    let (one, other) = (authority.identity(&["a"], "a:b"), authority.identity(&["a"], "a:b"));
    let mixed = Identity { key: other.key.clone_key(), ..one };
    let settings = ServerSettings { identities: vec![mixed], ..ServerSettings::default() };
    assert_eq!(ServerTls::new(&settings).unwrap_err(), TlsError::OtherKey);
}

/// A revocation list beside trusted certificates counts: one that cannot be read must not be as if it were not there.
#[test]
fn a_revocation_list_that_cannot_be_read_is_an_error() {
    let Authority { pem, .. } = Authority::new();
    for list in ["AAAA", "not base64 §"] {
        let text = format!("{pem}-----BEGIN X509 CRL-----\n{list}\n-----END X509 CRL-----\n");
        assert!(Trusted::read(text.as_bytes()).is_err(), "{list}");
    }
    assert!(Trusted::read(b"").is_err());
}

/// The name of one label below a wildcard of one label, as Envoy takes it; no other one.
#[tokio::test]
async fn wildcards_of_one_label_are_names() {
    let authority = Authority::new();
    let identities = vec![authority.identity(&["*.local"], "a:b")];
    let server = server(&ServerSettings { identities, ..ServerSettings::default() });
    let servers = Some(authority.trust().checking_told_name(true));
    let client = ClientTls::new(&ClientSettings { servers, ..ClientSettings::default() }).unwrap();
    for (name, fits) in
        [("a.local", true), ("A.LOCAL", true), ("a.b.local", false), ("local", false), ("a.other", false)]
    {
        assert_eq!(meet(&client, &server, Some(name)).await.0.is_ok(), fits, "{name}");
    }
}
