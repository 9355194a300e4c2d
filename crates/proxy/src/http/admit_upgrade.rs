//! Lets requests for another protocol in, or not.

use std::sync::Arc;

use serin_http1::framing::Framing;
use serin_http1::{RequestHead, Version};
use serin_traffic::filter::Chain;
use serin_traffic::response_flag::ResponseFlag;

use super::body::RequestBody;
use super::finish::StreamInfo;
use super::local_reply::LocalReply;
use super::upgrade::Verdict;
use crate::metric;
use crate::snapshot::ChainRuntime;

/// Begins with a request for another protocol, if it is let in: what follows its head waits until its upstream agrees. Yields the
/// filters that it passes.
pub(super) fn begin<'a>(
    chain: &'a ChainRuntime,
    verdict: Option<Verdict>,
    head: &RequestHead,
    framing: &mut Framing,
    body: &mut RequestBody<'_>,
) -> &'a Arc<Chain> {
    let Some(Verdict::Accepted(own)) = verdict else { return &chain.http_filters };
    // A body goes first (RFC 9110 §7.8); what an HTTP/2 client sends behind an extended CONNECT is none.
    if *framing == Framing::Empty || head.version == Version::Http2 {
        body.hold();
        *framing = Framing::UntilClose;
    }
    own.and_then(|number| chain.upgrade_filters.get(number)?.as_ref()).unwrap_or(&chain.http_filters)
}

/// The local reply to a request that is not let in.
pub(super) fn rejected(record: &StreamInfo) -> LocalReply {
    record.count(metric::http::RQ_WS_ON_NON_WS);
    LocalReply::empty(403, ResponseFlag::None).because("upgrade_failed")
}
