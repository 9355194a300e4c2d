//! What came of handshakes: their counters, and the names of a client's certificate.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serin_traffic::filter::CertificateNames;
use serin_transport::tls::{HandshakeError, Rejected, TlsInfo};

use crate::metric::{self, tls as counter};

/// The names of a client's certificate.
pub(crate) fn names_of(tls: &TlsInfo) -> CertificateNames<'_> {
    tls.peer.first().map_or_else(CertificateNames::default, |peer| CertificateNames {
        uris: &peer.uris,
        dns: &peer.dns,
        subject: &peer.subject,
    })
}

/// The counter of a failed handshake (Envoy: `ssl.*`).
pub(crate) fn failure(error: &HandshakeError) -> Option<usize> {
    match error {
        HandshakeError::NoCertificate => Some(counter::FAIL_NO_CERTIFICATE),
        HandshakeError::Rejected(rejected) => Some(rejection(rejected)),
        // A client that leaves has broken nothing.
        HandshakeError::Io(_) => None,
        HandshakeError::Alert(_) | HandshakeError::Protocol(_) => Some(counter::CONNECTION_ERROR),
    }
}

/// The counter of a certificate that is not accepted.
pub(crate) fn rejection(rejected: &Rejected) -> usize {
    match rejected {
        Rejected::Chain(_) => counter::FAIL_CHAIN,
        Rejected::Name => counter::FAIL_NAME,
        Rejected::Hash => counter::FAIL_HASH,
    }
}

/// Counts handshakes by what was agreed on.
#[derive(Debug, Default)]
pub(crate) struct Agreed(Mutex<BTreeMap<String, u64>>);

impl Agreed {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, info: &TlsInfo) {
        let mut agreed = self.counts();
        let mut count = |name: String| *agreed.entry(name).or_default() += 1;
        count(format!("ssl.versions.{}", info.version));
        count(format!("ssl.ciphers.{}", info.cipher));
        if !info.group.is_empty() {
            count(format!("ssl.curves.{}", info.group));
        }
    }

    /// All counts by name.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.counts().clone()
    }
}

/// Counts of the handshakes of a listener, which all workers share: a handshake costs far more.
#[derive(Debug, Default)]
pub(crate) struct TlsCounts {
    counts: metric::Shared<{ counter::NAMES.len() }>,
    agreed: Agreed,
}

impl TlsCounts {
    pub(crate) fn add(&self, index: usize) {
        self.counts.add(index);
    }

    pub(crate) fn agreed(&self, info: &TlsInfo) {
        self.agreed.count(info);
    }

    /// All counts by name.
    pub(crate) fn all(&self) -> Vec<(String, u64)> {
        let fixed = counter::NAMES.iter().map(ToString::to_string).zip(self.counts.all());
        fixed.chain(self.agreed.all()).collect()
    }
}
