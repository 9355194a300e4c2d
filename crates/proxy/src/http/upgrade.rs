//! Requests that ask to go on with another protocol: `Upgrade` (RFC 9110 §7.8), CONNECT (§9.3.6) and its extended form (RFC 8441).
//!
//! One that is let in has no body until the upstream agrees; then bytes pass both ways as bodies that end with their sides.

use serin_http1::{RequestHead, ResponseHead, Version};
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::route::{Action, Route};
use serin_resources::upgrade::{CONNECT, ConnectConfig, RouteUpgrade, Upgrade};
use serin_traffic::predicate::text_matches;

/// A protocol that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpgradeRequest {
    /// What its `upgrade` says.
    Protocol(Box<[u8]>),
    /// CONNECT: bytes to an authority.
    Connect,
}

/// The field values that ask for an upgrade, to be kept while fields of the connection are removed.
pub(crate) struct Asked {
    connection: Vec<u8>,
    protocol: Vec<u8>,
}

impl Asked {
    /// Returns what a request asks for. `h2c` is not spoken this way, and HTTP/1.0 knows no upgrades.
    pub(crate) fn of(head: &RequestHead, manager: &HttpConnectionManager) -> Option<Self> {
        let protocol = all(head, "upgrade")?;
        let connection = all(head, "connection")?;
        let named = connection.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        if !named || head.version == Version::Http10 || protocol.eq_ignore_ascii_case(b"h2c") {
            return None;
        }
        let overlooked = manager.http1.ignored_upgrades.iter().any(|matcher| text_matches(matcher, &protocol));
        (!overlooked || head.version == Version::Http2).then_some(Self { connection, protocol })
    }

    /// Puts the fields back.
    pub(crate) fn restore(self, head: &mut RequestHead) -> UpgradeRequest {
        head.fields.append(b"upgrade", &self.protocol);
        head.fields.append(b"connection", &self.connection);
        UpgradeRequest::Protocol(self.protocol.into())
    }
}

/// All values of a field, in one.
fn all(head: &RequestHead, name: &str) -> Option<Vec<u8>> {
    let mut values = head.fields.get_all(name);
    let first = values.next()?.to_vec();
    Some(values.fold(first, |before, value| [&before, &b","[..], value].concat()))
}

/// What is done about a request for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is let in; the number of the manager's upgrade whose filters it passes, if it has its own.
    Accepted(Option<usize>),
    Rejected,
}

impl UpgradeRequest {
    fn is(&self, protocol: &str) -> bool {
        match self {
            Self::Connect => protocol.eq_ignore_ascii_case(CONNECT),
            Self::Protocol(own) => own.eq_ignore_ascii_case(protocol.as_bytes()),
        }
    }

    /// Decides by what the route says, or else the manager (Envoy: `HttpConnectionManagerConfig::createUpgradeFilterChain`).
    pub(crate) fn verdict(&self, manager: &[Upgrade], route: Option<&Route>) -> Verdict {
        let of_route = self.of_route(route).map(|upgrade| upgrade.enabled);
        let number = manager.iter().position(|upgrade| self.is(&upgrade.protocol));
        let own = number.and_then(|number| manager.get(number));
        if !of_route.unwrap_or(own.is_some_and(|upgrade| upgrade.enabled)) {
            return Verdict::Rejected;
        }
        Verdict::Accepted(number.filter(|_| own.is_some_and(|upgrade| upgrade.filters.is_some())))
    }

    fn of_route<'a>(&self, route: Option<&'a Route>) -> Option<&'a RouteUpgrade> {
        match &route?.action {
            Action::Forward(forward) => forward.upgrades.iter().find(|upgrade| self.is(&upgrade.protocol)),
            _ => None,
        }
    }

    /// Returns true when a response agrees.
    pub(crate) fn is_agreed(&self, head: &ResponseHead) -> bool {
        match self {
            Self::Protocol(_) => head.status == 101 && head.fields.contains("upgrade"),
            Self::Connect => (200..300).contains(&head.status),
        }
    }

    /// Returns true when a response neither agrees nor refuses: a WebSocket's client could make nothing of its body (Envoy:
    /// `websocket_handshake_unsuccessful`).
    pub(crate) fn is_missed(&self, head: &ResponseHead) -> bool {
        self.is("websocket") && (200..300).contains(&head.status)
    }

    /// Makes the response of an HTTP/2 upstream what HTTP/1 has for it.
    pub(crate) fn agree(&self, head: &mut ResponseHead) {
        if let Self::Protocol(protocol) = self
            && head.status == 200
        {
            head.status = 101;
            head.fields.set("upgrade", protocol);
            head.fields.set("connection", b"upgrade");
        }
    }
}

/// Returns how a request ends at the proxy, so that its endpoint gets bytes instead of it.
pub(crate) fn terminated<'a>(head: &RequestHead, upgrades: &'a [RouteUpgrade]) -> Option<&'a ConnectConfig> {
    let config = upgrades.iter().find_map(|upgrade| upgrade.connect.as_ref())?;
    let is_meant = head.is_connect() || (config.allow_post && head.method() == b"POST");
    is_meant.then_some(config)
}
