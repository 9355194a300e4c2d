//! Where the connection of an attempt goes, and by which name.

use std::rc::Rc;
use std::sync::Arc;

use serin_traffic::outcome::Outcome;

use super::Attempt;
use crate::runtime::Host;
use crate::tls::Offer;
use crate::upstream::{ConnectError, Place};

impl Attempt<'_> {
    /// The name that the request has its endpoint told, if it does (Envoy: `auto_sni`).
    pub(super) fn told_by_request(&self, choice: usize) -> Option<Rc<str>> {
        let names = &self.cluster.config.names;
        if !(names.auto_sni || names.auto_san) || self.cluster.members.get(choice)?.tls.is_none() {
            return None;
        }
        let value = match names.header.as_str() {
            "" | ":authority" => None,
            header => self.head.fields.get(header).filter(|value| !value.is_empty()),
        };
        let authority = value.unwrap_or_else(|| self.head.authority());
        Some(without_port(std::str::from_utf8(authority).ok()?).to_ascii_lowercase().into())
    }

    /// Where a new connection goes.
    pub(super) fn place(&self, choice: usize, host: &Arc<Host>, asked: Option<Rc<str>>) -> Place {
        let member = self.cluster.members.get(choice);
        let tls = member.and_then(|member| member.tls.clone());
        let hostname = member.map(|member| member.endpoint.hostname.as_str()).filter(|name| !name.is_empty());
        // An address is no name to tell; with it only the certificate is compared.
        let names = &self.cluster.config.names;
        let asked = asked.filter(|name| names.auto_san || name.parse::<std::net::IpAddr>().is_err());
        let name = asked.or_else(|| {
            let settings = &tls.as_ref()?.settings;
            let own = if settings.names_host { hostname } else { None };
            own.or(Some(settings.server_name.as_str())).filter(|name| !name.is_empty()).map(Into::into)
        });
        Place { host: host.clone(), tls, name, offer: self.codec.map_or(Offer::Either, Offer::Http) }
    }

    /// Returns true when connections are kept by the name that their endpoint was told.
    pub(super) fn is_named(&self, place: &Place) -> bool {
        let names = &self.cluster.config.names;
        place.tls.is_some() && (names.auto_sni || names.auto_san)
    }

    /// The outcome without a connection; the reason is kept for logs.
    pub(super) fn failed(&self, error: ConnectError) -> Outcome {
        match error {
            ConnectError::Refused(reason) => {
                *self.worker.handshake_failure.borrow_mut() = Some(format!("delayed_connect_error:_{reason}"));
                Outcome::ConnectFailure
            }
            ConnectError::Timeout => Outcome::ConnectTimeout,
            ConnectError::Tls(reason) => {
                *self.worker.handshake_failure.borrow_mut() = Some(format!("TLS_error:|{reason}:TLS_error_end"));
                Outcome::ConnectFailure
            }
        }
    }
}

/// An authority without its port.
fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(authority, |(address, _)| address);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}
