//! How messages are written for an upstream that speaks HTTP/1, and what is taken of its trailers.

use serin_http1::RequestHead;
use serin_http1::encode::{Names, Style};
use serin_resources::connection_manager::Underscores;
use serin_resources::protocol::{Http1Options, NameCase};

use crate::wire::TrailerLimits;

/// The limits of trailers of responses: those of heads.
pub(super) const RESPONSE_TRAILERS: TrailerLimits =
    TrailerLimits { fields: 100, bytes: 60 * 1024, underscores: Underscores::Allow };

/// How a request's head is written for a cluster. Where names are kept, their message has them with it (Envoy: stateful formatters
/// belong to the header map).
pub(crate) fn request_style(client: NameCase, cluster: &Http1Options) -> Style {
    Style { names: names(client, cluster.names), ..Style::default() }
}

/// How names are written that came by one side, for the other.
pub(crate) fn names(from: NameCase, to: NameCase) -> Names {
    match (from, to) {
        (NameCase::Kept { own_proper: true, .. }, _) => Names::KeptOwnProper,
        (NameCase::Kept { own_proper: false, .. }, _) => Names::Kept,
        (_, NameCase::Proper) => Names::Proper,
        (_, NameCase::Lower | NameCase::Kept { .. }) => Names::Lower,
    }
}

/// How trailers are written: names are not made proper (Envoy: `StreamEncoderImpl::encodeTrailersBase`).
pub(crate) fn trailer_style(style: Style) -> Style {
    if style.names == Names::Proper { Style::default() } else { style }
}

/// The same head with a whole URL as its target (Envoy: `send_fully_qualified_url`).
pub(super) fn with_url(head: &RequestHead) -> RequestHead {
    let mut with_url = head.clone();
    if !head.is_connect() {
        let url = [head.scheme.as_str().as_bytes(), b"://", head.authority(), head.target()].concat();
        with_url.set_target(&url);
    }
    with_url
}
