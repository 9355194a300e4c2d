//! Local replies as the connection manager wants them (`local_reply_config`). Source: Envoy, "Local reply modification".

use serin_http1::RequestHead;
use serin_resources::local_reply::LocalReplyConfig;
use serin_resources::{FormatKind, FormatString};
use serin_traffic::header_edit;
use serin_traffic::log_filter::{Facts, NO_LOG};
use serin_traffic::response_flag::ResponseFlag;

use super::finish::StreamInfo;
use super::local_reply::{LocalReply, PLAIN};

impl LocalReply {
    /// Makes the body of a format, which may hold the body that there is.
    pub(crate) fn format(&mut self, format: &FormatString, request: &RequestHead, record: &StreamInfo) {
        self.body = record.formatted(format, request, self).into_bytes();
        self.head.fields.set("content-type", format.content_type().as_bytes());
    }

    /// Changes it as the connection manager says, before it becomes what a gRPC client gets (Envoy: `local_reply_config`).
    pub(crate) fn mapped(mut self, request: &RequestHead, record: &mut StreamInfo) -> Self {
        if record.manager().is_none_or(|http| http.local_replies == LocalReplyConfig::default()) {
            return self;
        }
        // Mappers look at what is logged.
        // Envoy notes that a head was none only after its reply.
        record.flag = if self.flag == ResponseFlag::DownstreamProtocolError { ResponseFlag::None } else { self.flag };
        record.status = self.head.status;
        record.details.clone_from(&self.details);
        let record = &*record;
        let Some(config) = record.manager().map(|http| &http.local_replies) else { return self };
        let facts = Facts { head: Some(request), moment: NO_LOG, ..record.facts() };
        let passing = record.chain().mappers.iter().position(|filter| filter.passes(&facts));
        let mapper = passing.and_then(|number| config.mappers.get(number));
        // A content type that a mapper sets goes before that of a format.
        if self.head.fields.get("content-type") == Some(PLAIN) {
            self.head.fields.remove("content-type");
        }
        if let Some(mapper) = mapper {
            header_edit::to_response(&mapper.headers, &mut self.head, request, record);
            if let Some(status) = mapper.status {
                self.head.status = status;
            }
            if let Some(body) = &mapper.body {
                self.body.clone_from(body);
            }
        }
        let mut kind = PLAIN;
        if let Some(format) = mapper.and_then(|mapper| mapper.format.as_ref()).or(config.format.as_ref()) {
            self.body = record.formatted(format, request, &self).into_bytes();
            self.is_json = matches!(format.kind, FormatKind::Json(_));
            kind = format.content_type().as_bytes();
        }
        if !self.body.is_empty() && !self.head.fields.contains("content-type") {
            self.head.fields.append(b"content-type", kind);
        }
        self
    }
}
