//! Which requests are logged, and whose local replies are changed. Source: Envoy, `config.accesslog.v3.AccessLogFilter`, and its
//! access log page for what each filter looks at.

use serin_http1::RequestHead;
use serin_resources::access_log::LogFilter;

use crate::grpc::GrpcStatus;
use crate::predicate::Header;
use crate::response_flag::ResponseFlag;

/// A compiled filter.
#[derive(Debug)]
pub struct CompiledFilter {
    filter: LogFilter,
    /// The matchers of its headers, in the order in which they stand in it.
    headers: Vec<Header>,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its head; `None` when nothing of it was understood.
    pub head: Option<&'a RequestHead>,
    /// The status of its response; 0 for none.
    pub status: u16,
    /// Milliseconds since its begin.
    pub duration: u64,
    /// The flag of its response.
    pub flag: ResponseFlag,
    /// True when another attempt was wanted, and its policy allowed no more (`URX`).
    pub retries_exhausted: bool,
    /// The gRPC status that its response says.
    pub grpc_status: Option<GrpcStatus>,
    /// True when it is traced.
    pub is_traced: bool,
    /// True when it is a health check of this proxy.
    pub is_health_check: bool,
    /// When it is looked at: a number of `AccessLogType`.
    pub moment: i32,
    /// A random number.
    pub random: u64,
}

/// `DownstreamEnd` of `envoy.data.accesslog.v3.AccessLogType`: the end of a request of a client.
pub const DOWNSTREAM_END: i32 = 6;
/// When a connection of bytes has ended.
pub const TCP_END: i32 = 3;
/// When a connection of bytes has come.
pub const TCP_START: i32 = 14;
/// When a connection of bytes has an upstream.
pub const TCP_CONNECTED: i32 = 1;
/// When the head of a request has come.
pub const DOWNSTREAM_START: i32 = 4;
/// When another protocol was agreed on.
pub const TUNNEL_ESTABLISHED: i32 = 10;

/// `NotSet`: no log is written, but a local reply is given.
pub const NO_LOG: i32 = 0;

impl CompiledFilter {
    /// Compiles a filter.
    #[must_use]
    pub fn new(filter: &LogFilter) -> Self {
        let mut headers = Vec::new();
        compile_headers(filter, &mut headers);
        Self { filter: filter.clone(), headers }
    }

    /// Returns true when a request passes it.
    #[must_use]
    pub fn passes(&self, facts: &Facts<'_>) -> bool {
        passes(&self.filter, &mut self.headers.iter(), facts)
    }
}

fn compile_headers(filter: &LogFilter, headers: &mut Vec<Header>) {
    match filter {
        LogFilter::Header(header) => headers.push(Header::compile(header)),
        LogFilter::All(filters) | LogFilter::Any(filters) => {
            filters.iter().for_each(|filter| compile_headers(filter, headers));
        }
        _ => {}
    }
}

fn passes<'a>(filter: &LogFilter, headers: &mut impl Iterator<Item = &'a Header>, facts: &Facts<'_>) -> bool {
    match filter {
        LogFilter::Status(comparison) => comparison.holds(facts.status.into()),
        LogFilter::Duration(comparison) => comparison.holds(facts.duration),
        LogFilter::NotHealthCheck => !facts.is_health_check,
        LogFilter::Traced => facts.is_traced,
        LogFilter::Sample { share, is_independent } => {
            let id = if *is_independent { None } else { facts.head.and_then(number_of_id) };
            id.unwrap_or(facts.random) % 1_000_000 < u64::from(*share)
        }
        // Every filter takes its headers out of the list, so none is passed over.
        LogFilter::All(filters) => filters.iter().fold(true, |all, filter| passes(filter, headers, facts) & all),
        LogFilter::Any(filters) => filters.iter().fold(false, |any, filter| passes(filter, headers, facts) | any),
        LogFilter::Header(_) => {
            let header = headers.next();
            header.zip(facts.head).is_some_and(|(header, head)| header.matches(head))
        }
        LogFilter::Flags(flags) if flags.is_empty() => facts.flag != ResponseFlag::None || facts.retries_exhausted,
        LogFilter::Flags(flags) => {
            flags.iter().any(|flag| flag == facts.flag.as_str() || (facts.retries_exhausted && flag == "URX"))
        }
        LogFilter::GrpcStatus { statuses, excludes } => {
            let status = facts.grpc_status.unwrap_or_else(|| GrpcStatus::from_http(facts.status));
            statuses.iter().any(|wanted| i64::from(*wanted) == i64::from(status.code())) != *excludes
        }
        LogFilter::Moment { moments, excludes } => moments.contains(&facts.moment) != *excludes,
    }
}

/// The number that a request id stands for: its first eight digits (Envoy: `UUIDRequestIDExtension`).
fn number_of_id(head: &RequestHead) -> Option<u64> {
    let id = head.fields.get_str("x-request-id").filter(|id| id.len() == 36)?;
    u64::from_str_radix(id.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use serin_http1::Version;
    use serin_resources::access_log::{Comparison, Operator};
    use serin_resources::matcher::{HeaderMatcher, HeaderPredicate};

    use super::*;

    fn facts(head: &RequestHead) -> Facts<'_> {
        Facts {
            head: Some(head),
            status: 503,
            duration: 120,
            flag: ResponseFlag::UpstreamOverflow,
            retries_exhausted: false,
            grpc_status: None,
            is_traced: false,
            is_health_check: false,
            moment: DOWNSTREAM_END,
            random: 999_999,
        }
    }

    fn header(name: &str) -> LogFilter {
        let predicate = HeaderPredicate::Present(true);
        LogFilter::Header(HeaderMatcher { name: name.to_owned(), predicate, invert: false, missing_is_empty: false })
    }

    #[test]
    fn filters_look_at_what_they_say() {
        let mut head = RequestHead::default();
        head.start(b"GET", b"/", Version::Http11);
        head.fields.append(b"b", b"1");
        head.fields.append(b"x-request-id", b"00000001-0000-4000-8000-000000000000");
        let facts = facts(&head);
        let compare = |operator, value| Comparison { operator, value };
        let grpc = |status, excludes| LogFilter::GrpcStatus { statuses: vec![status], excludes };
        let flags = |flags: &[&str]| LogFilter::Flags(flags.iter().map(ToString::to_string).collect());
        for (filter, expected) in [
            (LogFilter::Status(compare(Operator::AtLeast, 500)), true),
            (LogFilter::Status(compare(Operator::AtMost, 500)), false),
            (LogFilter::Status(compare(Operator::NotEqual, 503)), false),
            (LogFilter::Duration(compare(Operator::Equal, 120)), true),
            (LogFilter::NotHealthCheck, true),
            (LogFilter::Traced, false),
            (LogFilter::Sample { share: 2, is_independent: false }, true),
            (LogFilter::Sample { share: 1, is_independent: false }, false),
            (LogFilter::Sample { share: 999_999, is_independent: true }, false),
            (flags(&[]), true),
            (flags(&["UF", "UO"]), true),
            (flags(&["UF"]), false),
            // 503 stands for UNAVAILABLE.
            (grpc(14, false), true),
            (grpc(14, true), false),
            (LogFilter::Moment { moments: vec![DOWNSTREAM_END], excludes: false }, true),
            (LogFilter::Moment { moments: vec![DOWNSTREAM_END], excludes: true }, false),
            (LogFilter::Any(vec![LogFilter::All(vec![header("a"), header("b")]), header("b")]), true),
            (LogFilter::Any(vec![header("a"), LogFilter::All(vec![header("b"), header("c")])]), false),
        ] {
            assert_eq!(CompiledFilter::new(&filter).passes(&facts), expected, "{filter:?}");
        }
    }
}
