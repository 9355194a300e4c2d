//! A request's span: begun when the request came, told when its record ends.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::SystemTime;

use serin_http1::{RequestHead, Version};
use serin_resources::listener::Direction;
use serin_resources::substitution::{Format, FormatContext as _};
use serin_resources::tracing::{Tag, TagSource, Tracing};
use serin_telemetry::otlp::Span;
use serin_traffic::trace::{Carrier, Context, decide};

use super::StreamInfo;
use crate::worker::Worker;

/// The span of a request that is traced.
pub(super) struct Traced {
    context: Context,
    parent: Option<(Context, Carrier)>,
    began: SystemTime,
    agent: String,
}

impl Traced {
    /// Its trace, in hexadecimal digits.
    pub(super) fn trace_id(&self) -> String {
        format!("{:032x}", self.context.trace)
    }

    /// Its span, in hexadecimal digits.
    pub(super) fn span_id(&self) -> String {
        format!("{:016x}", self.context.span)
    }
}

/// Decides whether a request is traced, and tells the next one. A trace that came with it goes on as its caller decided.
pub(super) fn begin(tracing: &Tracing, head: &mut RequestHead, internal: bool, worker: &Worker) -> Option<Box<Traced>> {
    let decided = decide(tracing, head, internal);
    let parent = Context::extract(&head.fields);
    let context = Context {
        trace: parent.map_or_else(
            || (u128::from(worker.random()) << 64) | u128::from(worker.random().max(1)),
            |(parent, _)| parent.trace,
        ),
        span: worker.random().max(1),
        sampled: parent.map_or(decided, |(parent, _)| parent.sampled),
    };
    if tracing.propagate {
        context.inject(parent, &mut head.fields);
    }
    let agent = || head.fields.get_str("user-agent").unwrap_or_default().to_owned();
    context.sampled.then(|| Box::new(Traced { context, parent, began: SystemTime::now(), agent: agent() }))
}

impl Traced {
    /// The span, with Envoy's tags (`HttpTracerUtility::setCommonTags`).
    pub(super) fn end(&self, tracing: &Tracing, direction: Direction, record: &StreamInfo) -> Span {
        let header = |name: &str| record.request_header(name).unwrap_or_default();
        let command = |name: &str| record.command(name, None).unwrap_or_default();
        let authority = header(":authority");
        let path: String = header(":path").chars().take(tracing.path_length).collect();
        let mut attributes = vec![
            ("component".to_owned(), "proxy".to_owned()),
            ("node_id".to_owned(), record.worker().state.node_id().to_owned()),
            ("guid:x-request-id".to_owned(), header("x-request-id")),
            ("http.url".to_owned(), format!("{}://{authority}{path}", header(":scheme"))),
            ("http.method".to_owned(), header(":method")),
            ("downstream_cluster".to_owned(), header("x-envoy-downstream-service-cluster")),
            ("user_agent".to_owned(), self.agent.clone()),
            ("http.protocol".to_owned(), Version::as_str(record.version()).to_owned()),
            ("peer.address".to_owned(), command("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT")),
            ("request_size".to_owned(), record.received.to_string()),
            ("response_size".to_owned(), record.sent.to_string()),
            ("upstream_cluster".to_owned(), command("UPSTREAM_CLUSTER")),
            ("upstream_cluster.name".to_owned(), command("UPSTREAM_CLUSTER")),
            ("upstream_address".to_owned(), command("UPSTREAM_HOST")),
            ("http.status_code".to_owned(), record.status.to_string()),
            ("response_flags".to_owned(), record.flag.as_str().to_owned()),
        ];
        attributes.iter_mut().filter(|(_, value)| value.is_empty()).for_each(|(_, value)| value.push('-'));
        let failed = record.status >= 500 || record.status == 0;
        if failed {
            attributes.push(("error".to_owned(), "true".to_owned()));
        }
        attributes.extend(tracing.tags.iter().filter_map(|tag| Some((tag.name.clone(), value(tag, record)?))));
        let usual = match direction {
            Direction::Outbound => format!("egress {authority}"),
            _ => "ingress".to_owned(),
        };
        Span {
            trace: self.context.trace,
            id: self.context.span,
            parent: self.parent.map_or(0, |(parent, _)| parent.span),
            name: tracing.operation.as_ref().map_or(usual, |format| written(format, record)),
            is_server: direction != Direction::Outbound,
            times: [self.began, SystemTime::now()],
            attributes,
            failed,
        }
    }
}

fn written(format: &Format, record: &StreamInfo) -> String {
    let mut text = String::new();
    format.write(record, "-", &mut text);
    text
}

/// A variable of the environment as it was when the first one was asked for: nothing in the process changes it.
fn environment(name: &str) -> Option<&'static str> {
    static VARIABLES: OnceLock<HashMap<OsString, OsString>> = OnceLock::new();
    let variables = VARIABLES.get_or_init(|| std::env::vars_os().collect());
    variables.get(OsStr::new(name))?.to_str()
}

fn value(tag: &Tag, record: &StreamInfo) -> Option<String> {
    match &tag.source {
        TagSource::Literal(text) => Some(text.clone()),
        TagSource::Environment(name, otherwise) => Some(environment(name).unwrap_or(otherwise).to_owned()),
        TagSource::Header(name, otherwise) => {
            record.request_header(name).or_else(|| (!otherwise.is_empty()).then(|| otherwise.clone()))
        }
        TagSource::Format(format) => Some(written(format, record)),
    }
}
