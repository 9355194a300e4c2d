//! How messages are written for an upstream that speaks HTTP/1, and what is taken of its trailers.

use serin_http1::encode::{Names, Style};
use serin_resources::connection_manager::Underscores;
use serin_resources::protocol::{Http1Options, NameCase};

use crate::wire::TrailerLimits;

/// The limits of trailers of responses: those of heads.
pub(super) const RESPONSE_TRAILERS: TrailerLimits =
    TrailerLimits { fields: 100, bytes: 60 * 1024, underscores: Underscores::Allow };

/// How a request's head is written for a cluster. Names are kept only where the client's side has kept them.
pub(crate) fn request_style(client: NameCase, cluster: &Http1Options) -> Style {
    let names = match cluster.names {
        NameCase::Lower => Names::Lower,
        NameCase::Proper => Names::Proper,
        NameCase::Kept { own_proper, .. } if matches!(client, NameCase::Kept { .. }) => {
            if own_proper {
                Names::KeptOwnProper
            } else {
                Names::Kept
            }
        }
        NameCase::Kept { .. } => Names::Lower,
    };
    Style { names, ..Style::default() }
}

/// How trailers are written: names are not made proper (Envoy: `StreamEncoderImpl::encodeTrailersBase`).
pub(crate) fn trailer_style(style: Style) -> Style {
    if style.names == Names::Proper { Style::default() } else { style }
}
