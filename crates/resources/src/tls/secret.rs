//! Secrets, as SDS gives them or a bootstrap has them.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use prost::Message as _;

use super::{DataSource, TlsCertificate, Validation};
use crate::{Audit, Error, Path};

/// A secret with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: SecretValue,
}

/// What a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// A certificate with its key.
    Certificate(TlsCertificate),
    /// Rules for peers.
    Validation(Validation),
    /// Keys for session tickets.
    TicketKeys(Vec<DataSource>),
}

impl Secret {
    /// Decodes the bytes of an SDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("Secret");
        let value = pb::Secret::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        Self::from_proto(&value, audit, &path)
    }

    pub(crate) fn from_proto(value: &pb::Secret, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::secret::Type as T;
        if value.name.is_empty() {
            return Err(path.field("name").error("is required"));
        }
        let secret = match &value.r#type {
            Some(T::TlsCertificate(certificate)) => {
                SecretValue::Certificate(TlsCertificate::decode(certificate, audit, &path.field("tls_certificate"))?)
            }
            Some(T::ValidationContext(context)) => {
                SecretValue::Validation(Validation::decode(context, audit, &path.field("validation_context"))?)
            }
            Some(T::SessionTicketKeys(keys)) => {
                SecretValue::TicketKeys(super::decode::ticket_keys(keys, audit, &path.field("session_ticket_keys"))?)
            }
            Some(T::GenericSecret(_)) => return Err(Audit::refuse(path, "generic_secret")),
            None => return Err(path.error("has no value")),
        };
        Ok(Self { name: value.name.clone(), value: secret })
    }

    /// The bytes of an SDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        use pb::secret::Type as T;
        let value = match &self.value {
            SecretValue::Certificate(certificate) => T::TlsCertificate(certificate.encode()),
            SecretValue::TicketKeys(keys) => T::SessionTicketKeys(super::encode::ticket_keys(keys)),
            SecretValue::Validation(validation) => T::ValidationContext(validation.encode()),
        };
        pb::Secret { name: self.name.clone(), r#type: Some(value) }.encode_to_vec()
    }
}
