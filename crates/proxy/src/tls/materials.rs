//! The bytes that TLS is made of: read from files, secrets, the environment.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serin_resources::cluster::RequestNames;
use serin_resources::tls::{
    self as resources, CertificateSource, CommonTls, DataSource, DownstreamTls, SecretName, SecretValue,
    TlsCertificate, TlsVersion, UpstreamTls, Validation, ValidationSource,
};
use serin_traffic::peer_names::{PeerNames, SubjectNames};
use serin_transport::tls::{
    Certificate, ClientSettings, ClientTls, Identity, Protocols, ServerSettings, ServerTls, TicketKey, Tickets,
    TlsError, Trusted, Verification, fingerprint,
};

use super::Faces;

/// How long a client can go on with a session, if nothing else is configured (BoringSSL: `SSL_DEFAULT_SESSION_TIMEOUT`).
const SESSION_LIFETIME: Duration = Duration::from_hours(2);

/// The reason why a side is not ready.
pub(super) enum Unready {
    /// A secret has not come yet.
    Missing(String),
    /// Something cannot be used.
    Wrong(String),
}

impl From<TlsError> for Unready {
    fn from(error: TlsError) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Files that were read, with what the file system said of each: time of change, length and number.
pub(super) type Stamps = BTreeMap<String, Option<(i64, i64, u64, u64)>>;

fn stamp(path: &str) -> Option<(i64, i64, u64, u64)> {
    let seen = std::fs::metadata(path).ok()?;
    Some((seen.mtime(), seen.mtime_nsec(), seen.len(), seen.ino()))
}

/// The usual places of the authorities that a system trusts. The first is that of Debian, Ubuntu and Alpine, which the pilot names.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Returns the file that is read for a path: another system has the authorities that it trusts elsewhere.
fn existing(path: &str) -> &str {
    let is_system = path == SYSTEM_AUTHORITIES[0];
    let exists = |one: &&&str| std::path::Path::new(one).exists();
    SYSTEM_AUTHORITIES.iter().filter(|_| is_system).find(exists).copied().unwrap_or(path)
}

/// The files as they are now; each is looked at once.
#[derive(Default)]
pub(super) struct Look(Stamps);

impl Look {
    /// Returns true when one of the files is not what it was.
    pub(super) fn have_changed(&mut self, stamps: &Stamps) -> bool {
        stamps.iter().any(|(path, before)| match self.0.get(path) {
            Some(now) => now != before,
            None => *self.0.entry(path.clone()).or_insert(stamp(path)) != *before,
        })
    }
}

/// Certificates that are trusted, by the digest of their text: those of the system stand in many clusters.
#[derive(Debug, Default)]
pub(super) struct Trusts(Mutex<BTreeMap<[u8; 32], Weak<Trusted>>>);

impl Trusts {
    fn read(&self, pem: &[u8]) -> Result<Arc<Trusted>, TlsError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = fingerprint(pem);
        if let Some(trusted) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(trusted);
        }
        let trusted = Arc::new(Trusted::read(pem)?);
        known.retain(|_, other| other.strong_count() > 0);
        known.insert(key, Arc::downgrade(&trusted));
        Ok(trusted)
    }
}

/// Where bytes are looked up, and which files were read.
pub(super) struct Materials<'a> {
    secrets: &'a BTreeMap<String, SecretValue>,
    trusts: &'a Trusts,
    pub(super) stamps: Stamps,
    /// What is asked of the peer, with all bytes that belong to it.
    rules: Vec<u8>,
}

impl<'a> Materials<'a> {
    pub(super) fn new(secrets: &'a BTreeMap<String, SecretValue>, trusts: &'a Trusts) -> Self {
        Self { secrets, trusts, stamps: Stamps::new(), rules: Vec::new() }
    }

    fn bytes(&mut self, source: &DataSource) -> Result<Vec<u8>, Unready> {
        match source {
            DataSource::File(path) => {
                // Before it is read: a change meanwhile is one that comes later.
                let path = existing(path);
                self.stamps.insert(path.to_owned(), stamp(path));
                std::fs::read(path).map_err(|error| Unready::Wrong(format!("{path} cannot be read: {error}")))
            }
            DataSource::Bytes(bytes) => Ok(bytes.clone()),
            DataSource::Environment(name) => std::env::var(name)
                .map(String::into_bytes)
                .map_err(|_| Unready::Wrong(format!("the environment variable {name} is not set"))),
        }
    }

    fn named(&self, source: &DataSource) -> String {
        match source {
            DataSource::File(path) => path.clone(),
            DataSource::Bytes(_) => "the given text".to_owned(),
            DataSource::Environment(name) => format!("${name}"),
        }
    }

    fn secret(&self, SecretName { name, is_static }: &SecretName) -> Result<&'a SecretValue, Unready> {
        self.secrets.get(name).ok_or_else(|| match is_static {
            true => Unready::Wrong(format!("there is no secret '{name}'")),
            false => Unready::Missing(name.clone()),
        })
    }

    fn identity(&mut self, source: &CertificateSource) -> Result<Identity, Unready> {
        let TlsCertificate { chain, key, staple } = match source {
            CertificateSource::Given(certificate) => certificate,
            CertificateSource::Secret(secret) => match self.secret(secret)? {
                SecretValue::Certificate(certificate) => certificate,
                SecretValue::Validation(_) | SecretValue::TicketKeys(_) => {
                    return Err(Unready::Wrong(format!("'{}' is no certificate", secret.name)));
                }
            },
        };
        let staple = staple.as_ref().map(|staple| self.bytes(staple)).transpose()?.unwrap_or_default();
        let (of_chain, of_key) = (self.bytes(chain)?, self.bytes(key)?);
        Identity::from_pem(&of_chain, &of_key, staple)
            .map_err(|error| Unready::Wrong(format!("{}, {}: {error}", self.named(chain), self.named(key))))
    }

    fn identities(&mut self, common: &CommonTls) -> Result<Vec<Identity>, Unready> {
        common.certificates.iter().map(|source| self.identity(source)).collect()
    }

    /// The rules for peers; `None` when there are none.
    fn rules(&mut self, source: Option<&ValidationSource>) -> Result<Option<Verification>, Unready> {
        let Some(source) = source else { return Ok(None) };
        let mut rules = source.given.clone().unwrap_or_default();
        if let Some(secret) = &source.secret {
            match self.secret(secret)? {
                SecretValue::Validation(validation) => rules = rules.with(validation),
                SecretValue::Certificate(_) | SecretValue::TicketKeys(_) => {
                    return Err(Unready::Wrong(format!("'{}' has no rules for certificates", secret.name)));
                }
            }
        }
        self.verification(&rules).map(Some)
    }

    fn verification(&mut self, rules: &Validation) -> Result<Verification, Unready> {
        if rules.trusted.is_none() && !(rules.names.is_empty() && rules.revoked.is_none()) {
            let message = "names and revocation lists need trusted_ca: anybody can make up names";
            return Err(Unready::Wrong(message.to_owned()));
        }
        self.rules.extend(format!("{rules:?}").into_bytes());
        let mut made = match &rules.trusted {
            Some(trusted) => {
                let pem = self.bytes(trusted)?;
                self.rules.extend_from_slice(&pem);
                let read = self.trusts.read(&pem);
                Verification::trusting(
                    read.map_err(|error| Unready::Wrong(format!("{}: {error}", self.named(trusted))))?,
                )
            }
            None => Verification::of_any(),
        };
        if let Some(revoked) = &rules.revoked {
            let pem = self.bytes(revoked)?;
            self.rules.extend_from_slice(&pem);
            made = made
                .with_revoked(&pem, rules.only_own_revocation)
                .map_err(|error| Unready::Wrong(format!("{}: {error}", self.named(revoked))))?;
        }
        if !rules.names.is_empty() {
            let names = PeerNames::new(&rules.names);
            made = made.with_names(move |certificate: &Certificate| names.matches(&names_of(certificate)));
        }
        Ok(made
            .accepting_untrusted(rules.accepts_untrusted)
            .with_hashes(rules.hashes.clone(), rules.keys.clone())
            .with_depth(rules.depth.map(|depth| depth as usize))
            .allowing_expired(rules.allows_expired)
            .hiding_authorities(rules.hides_authorities))
    }

    pub(super) fn server(&mut self, settings: &DownstreamTls) -> Result<ServerTls, Unready> {
        let common = &settings.common;
        let identities = self.identities(common)?;
        if settings.must_staple && !identities.iter().all(Identity::has_staple) {
            return Err(Unready::Wrong("a certificate has no OCSP response to staple".to_owned()));
        }
        // Without anything to judge it by, no certificate is asked for (Envoy: `DefaultCertValidator::initializeSslContexts`).
        let clients = self.rules(common.validation.as_ref())?.filter(Verification::judges);
        let made = ServerSettings {
            protocols: protocols(common, TlsVersion::V13),
            alpn: common.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
            identities,
            clients,
            needs_client_certificate: settings.requires_certificate,
            tickets: self.tickets(&settings.tickets)?,
            session_lifetime: match settings.session_seconds {
                0 => SESSION_LIFETIME,
                seconds => Duration::from_secs(seconds.into()),
            },
            context: self.context(settings),
            without_sessions: settings.without_sessions,
            prefers_client_order: settings.prefers_client_order,
            scans_all: settings.scans_all,
        };
        Ok(ServerTls::new(&made)?)
    }

    fn tickets(&mut self, source: &resources::Tickets) -> Result<Tickets, Unready> {
        let keys = match source {
            resources::Tickets::OwnKey => return Ok(Tickets::OwnKey),
            resources::Tickets::None => return Ok(Tickets::None),
            resources::Tickets::Keys(keys) => keys,
            resources::Tickets::Secret(secret) => match self.secret(secret)? {
                SecretValue::TicketKeys(keys) => keys,
                SecretValue::Certificate(_) | SecretValue::Validation(_) => {
                    return Err(Unready::Wrong(format!("'{}' has no keys for session tickets", secret.name)));
                }
            },
        };
        let key = |source: &DataSource| {
            let bytes = self.bytes(source)?;
            TicketKey::new(&bytes).map_err(|error| Unready::Wrong(format!("{}: {error}", self.named(source))))
        };
        keys.iter().map(key).collect::<Result<_, _>>().map(Tickets::Keys)
    }

    /// What tickets are bound to: a client that goes on with a session is not asked for its certificate again.
    fn context(&self, settings: &DownstreamTls) -> [u8; 32] {
        let asks = [u8::from(settings.requires_certificate), u8::from(settings.requires_name)];
        fingerprint(&[asks.as_slice(), &self.rules].concat())
    }

    pub(super) fn client(&mut self, settings: &UpstreamTls, names: &RequestNames) -> Result<Faces, Unready> {
        let common = &settings.common;
        let rules = self.rules(common.validation.as_ref())?;
        let checks_name = settings.checks_name || names.auto_san;
        let made = ClientTls::new(&ClientSettings {
            // Envoy's default for upstreams.
            protocols: protocols(common, TlsVersion::V12),
            alpn: Vec::new(),
            identity: self.identities(common)?.into_iter().next(),
            servers: match rules {
                Some(rules) if !checks_name || rules.has_chain() => Some(rules.checking_told_name(checks_name)),
                None if !checks_name => None,
                // A name proves nothing without somebody who vouches for it: nobody is trusted.
                _ => Some(Verification::default()),
            },
            sessions: settings.sessions as usize,
        })?;
        let own: Vec<Vec<u8>> = common.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        let offering = |others: &[&[u8]]| match own.is_empty() {
            true => made.with_alpn(&others.iter().map(|name| name.to_vec()).collect::<Vec<_>>()),
            false => made.with_alpn(&own),
        };
        Ok(Faces {
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
            other: offering(&[]),
        })
    }
}

/// What may be spoken; `newest` is the newest version unless the settings say otherwise.
fn protocols(common: &CommonTls, newest: TlsVersion) -> Protocols {
    let (least, most) = common.versions;
    let most = if most == TlsVersion::Auto { newest.max(least) } else { most };
    Protocols {
        without_12: least == TlsVersion::V13,
        without_13: most == TlsVersion::V12,
        ciphers: common.ciphers.clone(),
        groups: common.groups.clone(),
    }
}

fn names_of(certificate: &Certificate) -> SubjectNames<'_> {
    SubjectNames {
        dns: &certificate.dns,
        uris: &certificate.uris,
        emails: &certificate.emails,
        ips: &certificate.ips,
        others: &certificate.others,
    }
}
