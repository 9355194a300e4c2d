//! Headers that must be right when they are there. Source: Envoy's router, `strict_check_headers`.

use serin_http1::RequestHead;
use serin_resources::connection_manager::StrictHeader;
use serin_resources::retry::RetryOn;
use serin_traffic::response_flag::ResponseFlag;

use super::local_reply::{LocalReply, Stop};

/// Refuses a request with a header that must be right and is not (Envoy: `strict_check_headers`).
pub(super) fn check_strictly(headers: &[StrictHeader], head: &RequestHead) -> Result<(), Stop> {
    for header in headers {
        let name = header.name();
        if !head.fields.contains(name) {
            continue;
        }
        // Several values are one list.
        let value = head.fields.get_all(name).collect::<Vec<_>>().join(&b","[..]);
        let text = String::from_utf8_lossy(&value);
        let is_right = match header {
            StrictHeader::Timeout | StrictHeader::PerTryTimeout | StrictHeader::MaxRetries => {
                text.trim().parse::<u64>().is_ok()
            }
            StrictHeader::RetryOn => RetryOn::is_http_list(&text),
            StrictHeader::RetryGrpcOn => RetryOn::is_grpc_list(&text),
        };
        if !is_right {
            let message = format!("invalid header '{name}' with value '{text}'");
            let reply = LocalReply::new(400, message, ResponseFlag::InvalidEnvoyRequestHeaders);
            return Err(Stop::Reply(reply.because(format!("request_headers_failed_strict_check{{{name}}}"))));
        }
    }
    Ok(())
}
