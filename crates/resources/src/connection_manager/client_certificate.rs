//! What is said of a client's certificate to upstreams (`x-forwarded-client-cert`).

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use pb::http_connection_manager::SetCurrentClientCertDetails as Proto;

use crate::convert;
use crate::{Audit, Error, Path};

/// What is said of a client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// What becomes of the header that comes with a request, and whether the own one is added.
    pub mode: ForwardMode,
    /// What the own one says, besides names of this side and the digest of the certificate.
    pub details: CertificateDetails,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardMode {
    /// It is removed.
    #[default]
    Sanitize,
    /// That of a client with a certificate passes.
    Forward,
    /// The client's own is added to what a client with a certificate sent.
    Append,
    /// The client's own stands instead of what was sent.
    Set,
    /// Anybody's passes.
    AlwaysForward,
}

/// The parts of what is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificateDetails {
    /// The certificate.
    pub certificate: bool,
    /// The certificate with its chain.
    pub chain: bool,
    /// Its subject.
    pub subject: bool,
    /// Its URIs.
    pub uri: bool,
    /// Its host names.
    pub dns: bool,
    /// Its issuer.
    pub issuer: bool,
}

impl ClientCertificate {
    pub(super) fn decode(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        let mode = match value.forward_client_cert_details {
            0 => ForwardMode::Sanitize,
            1 => ForwardMode::Forward,
            2 => ForwardMode::Append,
            3 => ForwardMode::Set,
            4 => ForwardMode::AlwaysForward,
            _ => return Err(path.field("forward_client_cert_details").error("is not known")),
        };
        let Some(details) = &value.set_current_client_cert_details else {
            return Ok(Self { mode, details: CertificateDetails::default() });
        };
        audit!(details, Proto as Proto, audit, &path.field("set_current_client_cert_details");
            supported: subject, cert, chain, dns, uri, issuer; ignored: ; refused: format);
        let details = CertificateDetails {
            certificate: details.cert,
            chain: details.chain,
            subject: details.subject.as_ref().is_some_and(|v| v.value),
            uri: details.uri,
            dns: details.dns,
            issuer: details.issuer,
        };
        Ok(Self { mode, details })
    }

    pub(super) fn encode_mode(self) -> i32 {
        match self.mode {
            ForwardMode::Sanitize => 0,
            ForwardMode::Forward => 1,
            ForwardMode::Append => 2,
            ForwardMode::Set => 3,
            ForwardMode::AlwaysForward => 4,
        }
    }

    pub(super) fn encode_details(self) -> Option<Proto> {
        let CertificateDetails { certificate, chain, subject, uri, dns, issuer } = self.details;
        (self.details != CertificateDetails::default()).then(|| Proto {
            subject: subject.then(|| convert::wrap_bool(true)),
            cert: certificate,
            chain,
            dns,
            uri,
            issuer,
            ..Default::default()
        })
    }
}
