//! Lets in who may come in (`envoy.filters.http.rbac`). Source: Envoy, "Role Based Access Control (RBAC) Filter".

use std::marker::PhantomData;

use serin_traffic::filter::{Caller, RbacGate};
use serin_traffic::response_flag::ResponseFlag;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::handshake::names_of;
use crate::http::local_reply::{LocalReply, Stop};

counters! {
    Rbac:
    ALLOWED = "rbac.allowed",
    DENIED = "rbac.denied",
    SHADOW_ALLOWED = "rbac.shadow_allowed",
    SHADOW_DENIED = "rbac.shadow_denied",
}

/// The filter; it keeps nothing of a request.
pub(super) struct Rbac<'a>(PhantomData<&'a ()>);

impl<'a> HttpFilter<'a> for Rbac<'a> {
    type Config = RbacGate;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, RbacGate>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        _kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let gate = setting.config;
        let RequestParts { head, record, .. } = request;
        let connection = context.connection;
        let caller = Caller {
            peer: connection.peer,
            local: connection.local,
            client: context.request.client,
            names: connection.tls.as_deref().map(names_of),
            server_name: connection.server_name.as_deref(),
        };
        if let Some(allowed) = gate.would_let_in(&caller, Some(head)) {
            record.count(if allowed { counter::SHADOW_ALLOWED } else { counter::SHADOW_DENIED });
        }
        if gate.config.rules.is_none() {
            return Ok(());
        }
        if gate.lets_in(&caller, Some(head)) {
            record.count(counter::ALLOWED);
            return Ok(());
        }
        record.count(counter::DENIED);
        // Envoy: spaces cannot stand in a log's field.
        let policy = gate.denied_by(&caller, Some(head)).unwrap_or("none").replace(' ', "_");
        let reply = LocalReply::new(403, "RBAC: access denied", ResponseFlag::None);
        Err(Stop::Reply(reply.because(format!("rbac_access_denied_matched_policy[{policy}]"))))
    }
}
