//! TLS at both ends of a case: clients that trust everyone and tell whom they saw, backends that ask and tell the same.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::Acceptor;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, CommonState, Connection, DigitallySignedStruct, DistinguishedName, Error,
    HandshakeKind, ServerConfig, ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use serde_json::Value;
use serin_testkit::certificates::Certificates;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// How one end speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// What a client asks for.
    pub sni: Option<String>,
    /// Own certificate; a client may have none.
    pub certificate: Option<String>,
    pub alpn: Vec<String>,
    /// Whether a backend asks for a certificate; it takes any, or none.
    pub asks: bool,
    /// Whether a client goes on with its earlier session.
    pub resume: bool,
    versions: Vec<String>,
    ciphers: Vec<String>,
    groups: Vec<String>,
    schemes: Vec<String>,
}

/// Facts about a connection, written as header fields.
pub type Facts = Vec<(String, String)>;

/// For one message of a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

impl Tls {
    /// Reads what clients and backends have in common.
    pub fn read(value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let list = |field: &str| {
            let items = value.get(field).and_then(Value::as_array).into_iter().flatten();
            items.map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (min, max) = (text("min").unwrap_or("1.2".into()), text("max").unwrap_or("1.3".into()));
        let versions = ["1.2", "1.3"].map(str::to_owned).into_iter().filter(|v| (&min..=&max).contains(&v)).collect();
        Self {
            sni: text("sni"),
            certificate: text("client").or_else(|| text("tls")),
            alpn: list("alpn"),
            asks: value.get("client_ca").is_some_and(|v| v == true),
            resume: value.get("resume").is_some_and(|v| v == true),
            versions,
            ciphers: list("ciphers"),
            groups: list("groups"),
            schemes: list("schemes"),
        }
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let chosen = |(name, version)| self.versions.iter().any(|v| v == name).then_some(version);
        [("1.2", &TLS12), ("1.3", &TLS13)].into_iter().filter_map(chosen).collect()
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        let named = |names: &[String], it: &dyn Debug| names.is_empty() || names.contains(&format!("{it:?}"));
        provider.cipher_suites.retain(|c| named(&self.ciphers, &c.suite()));
        provider.kx_groups.retain(|g| named(&self.groups, &g.name()));
        Arc::new(provider)
    }

    fn anyone(&self) -> Arc<Anyone> {
        let algorithms = self.provider().signature_verification_algorithms;
        let named = |scheme: &SignatureScheme| self.schemes.is_empty() || self.schemes.contains(&format!("{scheme:?}"));
        Arc::new(Anyone(algorithms, algorithms.supported_schemes().into_iter().filter(named).collect()))
    }

    fn protocols(&self) -> Vec<Vec<u8>> {
        self.alpn.iter().map(|p| p.clone().into_bytes()).collect()
    }

    /// What a client of this kind needs for its connections.
    pub fn client(&self, certificates: &Certificates) -> anyhow::Result<Arc<ClientConfig>> {
        let (provider, any) = (self.provider(), self.anyone());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&self.versions())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(any);
        let mut config = match &self.certificate {
            Some(name) => builder.with_client_auth_cert(certificates.chain(name)?, certificates.key(name)?)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols();
        config.enable_sni = self.sni.is_some();
        if !self.resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }

    fn server(&self, certificates: &Certificates) -> anyhow::Result<Arc<ServerConfig>> {
        let (provider, any) = (self.provider(), self.anyone());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&self.versions())?;
        let builder = if self.asks { builder.with_client_cert_verifier(any) } else { builder.with_no_client_auth() };
        let name = self.certificate.as_deref().context("a backend without a certificate")?;
        let mut config = builder.with_single_cert(certificates.chain(name)?, certificates.key(name)?)?;
        config.alpn_protocols = self.protocols();
        Ok(Arc::new(config))
    }

    /// A connection of a client, after its handshake.
    pub fn connect(
        &self,
        to: SocketAddr,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(self.sni.clone().unwrap_or("test.local".to_owned()))?;
        let mut connection = ClientConnection::new(config, name)?;
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(StreamOwned::new(connection, stream))
    }

    /// A connection of a backend, after its handshake.
    pub fn accept(
        &self,
        mut stream: TcpStream,
        certificates: &Certificates,
    ) -> anyhow::Result<(StreamOwned<ServerConnection, TcpStream>, Facts)> {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            anyhow::ensure!(acceptor.read_tls(&mut stream)? > 0, "the connection ended");
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err((error, mut alert)) => {
                    alert.write_all(&mut stream)?;
                    return Err(error.into());
                }
            }
        };
        let hello = accepted.client_hello();
        let offered = hello.alpn().map(|all| all.map(String::from_utf8_lossy).collect::<Vec<_>>().join(","));
        let mut facts = fact("sni", Some(hello.server_name().unwrap_or("none").to_owned()));
        facts.extend(fact("offered alpn", offered));
        let mut connection = match accepted.into_connection(self.server(certificates)?) {
            Ok(connection) => connection,
            Err((error, mut alert)) => {
                alert.write_all(&mut stream)?;
                return Err(error.into());
            }
        };
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        facts.extend(self::facts(&connection));
        Ok((StreamOwned::new(connection, stream), facts))
    }
}

fn fact(name: &str, value: Option<String>) -> Facts {
    value.map(|value| (format!("(tls) {name}"), value)).into_iter().collect()
}

/// What is to say about a connection: the other's certificates, the protocol, the version, whether it goes on.
pub fn facts(connection: &CommonState) -> Facts {
    let alpn = connection.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
    let version = connection.protocol_version().map(|v| format!("{v:?}"));
    let resumed = (connection.handshake_kind() == Some(HandshakeKind::Resumed)).then(|| "yes".to_owned());
    let chain = connection.peer_certificates().unwrap_or_default();
    let certificate = (!chain.is_empty()).then(|| chain.iter().map(describe).collect::<Vec<_>>().join(" < "));
    let all = [("certificate", certificate), ("alpn", alpn), ("version", version), ("resumed", resumed)];
    all.into_iter().flat_map(|(name, value)| fact(name, value)).collect()
}

/// Subject and URIs.
fn describe(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().map(|n| n.value.general_names.clone()).unwrap_or_default();
    let uris = names.iter().filter_map(|n| if let GeneralName::URI(uri) = n { Some(format!(" {uri}")) } else { None });
    format!("{}{}", parsed.subject(), uris.collect::<String>())
}

/// Takes every certificate of a peer that has its key.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms, Vec<SignatureScheme>);

/// Both traits want the same of signatures.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(message, by, signed, &self.0)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, by, signed, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.1.clone()
        }
    };
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Anyone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// A connection after its handshake, for code that does not block.
pub struct Polled {
    connection: Connection,
    stream: tokio::net::TcpStream,
}

/// Reads and writes what can be read and written at once.
struct AtOnce<'a>(&'a tokio::net::TcpStream);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn must_wait(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

impl Polled {
    /// Must be called inside a runtime.
    pub fn new(connection: Connection, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { connection, stream: tokio::net::TcpStream::from_std(stream)? })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.connection.wants_write() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.connection.write_tls(&mut AtOnce(&self.stream)) {
                Err(error) if !must_wait(&error) => return Poll::Ready(Err(error)),
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Polled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.connection.reader().read(into.initialize_unfilled()) {
                Ok(n) => {
                    into.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if !must_wait(&error) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
            ready!(this.stream.poll_read_ready(cx))?;
            match this.connection.read_tls(&mut AtOnce(&this.stream)) {
                Ok(_) => {
                    this.connection.process_new_packets().map_err(std::io::Error::other)?;
                }
                Err(error) if must_wait(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Polled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let taken = this.connection.writer().write(bytes)?;
            let sent = this.poll_send(cx)?;
            if taken > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            ready!(sent);
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.connection.send_close_notify();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
