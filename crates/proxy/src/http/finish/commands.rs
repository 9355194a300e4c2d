//! The values of format commands: what access logs, headers and bodies say of a request. Source: Envoy, "Access logging".

use serin_resources::substitution;
use serin_traffic::header_edit::CommandSource;
use serin_traffic::response_flag::ResponseFlag;
use std::borrow::Cow;
use std::time::SystemTime;

use super::{StreamInfo, tls_commands};
use crate::times::{hostname, milliseconds, start_time};

impl StreamInfo {
    /// The flags of the response, with that of retries that were not allowed.
    fn flags<'a>(&self, [retry_limit, delay]: [&str; 2], own: &'a str) -> Cow<'a, str> {
        let delayed = self.is_delayed.get().then_some(delay);
        let all = [self.retries_exhausted.then_some(retry_limit), delayed, (own != "-").then_some(own)];
        match all.into_iter().flatten().collect::<Vec<_>>().as_slice() {
            [] => Cow::Borrowed("-"),
            [_] if own != "-" => Cow::Borrowed(own),
            several => Cow::Owned(several.join(",")),
        }
    }
}

impl CommandSource for StreamInfo {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (peer, local) = (self.context.peer, self.context.local);
        match name {
            "START_TIME" => {
                let started = self.wall.unwrap_or_else(|| SystemTime::now() - self.started.elapsed());
                start_time(jiff::Timestamp::try_from(started).ok()?, argument)
            }
            "PROTOCOL" => Some(self.version.as_str().to_owned()),
            "RESPONSE_CODE" => Some(self.followed.get().unwrap_or(self.status).to_string()),
            "RESPONSE_CODE_DETAILS" if self.followed.get().is_some() => Some("internal_redirect".to_owned()),
            "RESPONSE_FLAGS" => some(&self.flags(MORE_FLAGS.0, self.flag.as_str())),
            "RESPONSE_FLAGS_LONG" => some(&self.flags(MORE_FLAGS.1, self.flag.long())),
            "RESPONSE_CODE_DETAILS" => Some(details(self.details.as_deref()?, argument)),
            "BYTES_RECEIVED" => Some(self.received.to_string()),
            "BYTES_SENT" => Some(self.sent.to_string()),
            "REQUEST_DURATION" | "REQUEST_TX_DURATION" => milliseconds(self.request_took),
            "RESPONSE_DURATION" => milliseconds(self.first_byte),
            "RESPONSE_TX_DURATION" => milliseconds(self.took.zip(self.first_byte).map(|(whole, first)| whole - first)),
            "DURATION" => Some(self.started.elapsed().as_millis().to_string()),
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => self.upstream.map(|a| a.to_string()),
            "UPSTREAM_REMOTE_PORT" => self.upstream.map(|a| a.port().to_string()),
            "UPSTREAM_CLUSTER" => some(self.cluster.as_ref()?.config.stat_name()),
            "UPSTREAM_CLUSTER_RAW" => some(&self.cluster.as_ref()?.config.name),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => {
                // One that found no endpoint was an attempt all the same.
                let nobody = matches!(self.flag, ResponseFlag::NoHealthyUpstream | ResponseFlag::UpstreamOverflow);
                Some(self.attempts.max(u32::from(nobody)).to_string())
            }
            "DOWNSTREAM_REMOTE_ADDRESS" => Some(self.remote().to_string()),
            "DOWNSTREAM_REMOTE_PORT" => Some(self.remote().port().to_string()),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Some(peer.to_string()),
            "DOWNSTREAM_DIRECT_REMOTE_PORT" => Some(peer.port().to_string()),
            "DOWNSTREAM_LOCAL_ADDRESS" => local.map(|a| a.to_string()),
            "DOWNSTREAM_LOCAL_PORT" => local.map(|a| a.port().to_string()),
            "ROUTE_NAME" => some(&self.route),
            "FILTER_CHAIN_NAME" => some(&self.view.chain.config.name),
            "VIRTUAL_HOST_NAME" => some(&self.virtual_host),
            "ENVIRONMENT" => Some(argument.and_then(|name| std::env::var(name).ok()).unwrap_or("-".to_owned())),
            "LOCAL_REPLY_BODY" => Some(String::new()),
            "HOSTNAME" => hostname(),
            "REQUESTED_SERVER_NAME" => self.context.server_name.as_deref().map(str::to_owned),
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => self.transport_failure.clone(),
            name => self.operator(name, argument).or_else(|| {
                let (tls, side) = match name.starts_with("DOWNSTREAM_") {
                    true => (self.context.tls.as_deref(), "DOWNSTREAM_"),
                    false => (self.upstream_tls.as_deref(), "UPSTREAM_"),
                };
                tls_commands::command(tls?, side, name, argument)
            }),
        }
    }
}

/// The short and the long forms of flags that stand beside others: of retries that were not allowed, and of delays.
const MORE_FLAGS: ([&str; 2], [&str; 2]) = (["URX", "DI"], ["UpstreamRetryLimitExceeded", "DelayInjected"]);

/// A record with the status that is about to be answered.
pub(super) struct Answered<'a> {
    pub(super) record: &'a StreamInfo,
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    pub(super) details: Option<&'a str>,
}

impl CommandSource for Answered<'_> {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        match name {
            "RESPONSE_CODE" => Some(self.status.to_string()),
            "RESPONSE_CODE_DETAILS" => Some(details(self.details?, argument)),
            "LOCAL_REPLY_BODY" => Some(String::from_utf8_lossy(self.body).into_owned()),
            name => CommandSource::command(self.record, name, argument),
        }
    }
}

/// The reason of a response: one word, unless white space is allowed.
fn details(details: &str, argument: Option<&str>) -> String {
    match argument {
        Some("ALLOW_WHITESPACES") => details.to_owned(),
        _ => details.replace(|c: char| c.is_ascii_whitespace(), "_"),
    }
}

impl substitution::FormatContext for StreamInfo {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        CommandSource::command(self, name, argument)
    }

    fn request_header(&self, name: &str) -> Option<String> {
        let head = self.request.as_ref()?;
        let value = match name {
            ":method" => Some(head.method()),
            ":path" => (!head.is_connect()).then(|| head.target()),
            ":authority" => head.fields.get("host"),
            ":scheme" => Some(head.scheme.as_str().as_bytes()),
            name => head.fields.get(name),
        };
        value.map(|v| String::from_utf8_lossy(v).into_owned())
    }

    fn response_trailer(&self, name: &str) -> Option<String> {
        let value = self.trailers.as_ref()?.get(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn response_header(&self, name: &str) -> Option<String> {
        let head = self.response.as_ref()?;
        if name == ":status" {
            return Some(head.status.to_string());
        }
        head.fields.get(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }
}
