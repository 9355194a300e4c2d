//! Decides which requests are traced, and carries a trace on with them.
//!
//! Sources: W3C Trace Context (`traceparent`), B3 propagation (single header and `x-b3-*`), Envoy's
//! `ConnectionManagerUtility::mutateTracingRequestHeader` (who decides, and how the decision stands in the request id).

use std::fmt::Write as _;

use serin_http1::{HeaderBlock, RequestHead};
use serin_resources::tracing::Tracing;

/// The place of a span in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// True when it is told to a collector.
    pub sampled: bool,
}

/// The header format in which a request's trace came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `traceparent`.
    W3c,
    /// `b3`.
    B3,
    /// `x-b3-traceid` and others.
    B3Fields,
}

impl Context {
    /// Reads the caller's trace context, in the first format that is well-formed.
    #[must_use]
    pub fn extract(fields: &HeaderBlock) -> Option<(Self, Carrier)> {
        let w3c = fields.get_str("traceparent").and_then(w3c).map(|c| (c, Carrier::W3c));
        let b3 = || fields.get_str("b3").and_then(b3).map(|c| (c, Carrier::B3));
        w3c.or_else(b3).or_else(|| b3_fields(fields).map(|c| (c, Carrier::B3Fields)))
    }

    /// Tells the next one, always in `traceparent` and besides in the form in which the trace came.
    pub fn inject(&self, parent: Option<(Self, Carrier)>, fields: &mut HeaderBlock) {
        let Self { trace, span, sampled } = *self;
        let sampled = u8::from(sampled);
        fields.set("traceparent", format!("00-{trace:032x}-{span:016x}-{sampled:02x}").as_bytes());
        match parent {
            None | Some((_, Carrier::W3c)) => {}
            Some((parent, Carrier::B3)) => {
                fields.set("b3", format!("{trace:032x}-{span:016x}-{sampled}-{:016x}", parent.span).as_bytes());
            }
            Some((parent, Carrier::B3Fields)) => {
                let mut text = String::new();
                for (name, value) in [("x-b3-spanid", span), ("x-b3-parentspanid", parent.span)] {
                    text.clear();
                    let _ = write!(text, "{value:016x}");
                    fields.set(name, text.as_bytes());
                }
                fields.set("x-b3-sampled", if sampled == 1 { b"1" } else { b"0" });
            }
        }
    }
}

/// Hexadecimal digits of exactly one of these numbers, not all zero.
fn hex(text: &str, digits: &[usize]) -> Option<u128> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|n| plain && *n != 0)
}

/// `version-trace-span-flags`; later versions may have more behind.
fn w3c(value: &str) -> Option<Context> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version.len() == 2 && version.bytes().all(|b| b.is_ascii_hexdigit()) && version != "ff";
    let whole = version != "00" || parts.next().is_none();
    let plain = flags.len() == 2 && flags.bytes().all(|b| b.is_ascii_hexdigit());
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| plain)?;
    let span = hex(span, &[16])? as u64;
    (known && whole).then_some(Context { trace: hex(trace, &[32])?, span, sampled: flags & 1 == 1 })
}

/// `trace-span[-sampled[-parent]]`.
fn b3(value: &str) -> Option<Context> {
    let mut parts = value.trim().split('-');
    let trace = hex(parts.next()?, &[16, 32])?;
    let span = hex(parts.next()?, &[16])? as u64;
    Some(Context { trace, span, sampled: matches!(parts.next(), Some("1" | "d")) })
}

fn b3_fields(fields: &HeaderBlock) -> Option<Context> {
    let trace = hex(fields.get_str("x-b3-traceid")?, &[16, 32])?;
    let span = hex(fields.get_str("x-b3-spanid")?, &[16])? as u64;
    let sampled =
        matches!(fields.get_str("x-b3-sampled"), Some("1" | "true")) || fields.get("x-b3-flags") == Some(b"1");
    Some(Context { trace, span, sampled })
}

/// Decides whether a request without a trace of its own is traced. The decision goes on in the request id, at the place of the UUID's
/// version: `9` sampled, `a` forced, `b` asked for by the client, `4` not traced.
pub fn decide(tracing: &Tracing, head: &mut RequestHead, internal: bool) -> bool {
    const VERSION: usize = 14;
    let Some(id) = head.fields.get("x-request-id").filter(|id| id.len() == 36) else { return false };
    let number = std::str::from_utf8(id.get(..8).unwrap_or_default()).ok();
    let Some(number) = number.and_then(|n| u32::from_str_radix(n, 16).ok()) else { return false };
    let drawn = |share: u32| number % 10_000 < share;
    let reason = match id.get(VERSION) {
        Some(before @ (b'9' | b'a' | b'b')) => *before,
        _ if head.fields.contains("x-client-trace-id") && drawn(tracing.client) => b'b',
        _ if internal && head.fields.contains("x-envoy-force-trace") => b'a',
        _ if drawn(tracing.random) => b'9',
        _ => b'4',
    };
    let reason = if drawn(tracing.overall) { reason } else { b'4' };
    if id.get(VERSION) != Some(&reason) {
        let mut id = id.to_vec();
        id.splice(VERSION..=VERSION, [reason]);
        head.fields.set("x-request-id", &id);
    }
    reason != b'4'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> HeaderBlock {
        let mut fields = HeaderBlock::default();
        list.iter().for_each(|(name, value)| fields.append(name.as_bytes(), value.as_bytes()));
        fields
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_trace_is_read_in_every_form_and_goes_on_in_the_same() {
        let trace = u128::from_str_radix(TRACE, 16).unwrap();
        let parent = Context { trace, span: 0xb7ad_6b71_6920_3331, sampled: true };
        let own = Context { span: 1, ..parent };
        let one = format!("00-{TRACE}-0000000000000001-01");
        for (given, carrier, there) in [
            (vec![("traceparent", format!("00-{TRACE}-{SPAN}-01"))], Carrier::W3c, vec![]),
            (
                vec![("b3", format!("{TRACE}-{SPAN}-1"))],
                Carrier::B3,
                vec![("b3", format!("{TRACE}-0000000000000001-1-{SPAN}"))],
            ),
            (
                vec![
                    ("x-b3-traceid", TRACE.to_owned()),
                    ("x-b3-spanid", SPAN.to_owned()),
                    ("x-b3-sampled", "1".to_owned()),
                ],
                Carrier::B3Fields,
                vec![("x-b3-spanid", "0000000000000001".to_owned()), ("x-b3-parentspanid", SPAN.to_owned())],
            ),
        ] {
            let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut fields = fields(&given);
            let found = Context::extract(&fields);
            assert_eq!(found, Some((parent, carrier)));
            own.inject(found, &mut fields);
            assert_eq!(fields.get_str("traceparent"), Some(one.as_str()));
            for (name, value) in there {
                assert_eq!(fields.get_str(name), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn what_is_not_well_formed_is_no_trace() {
        for value in [
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-+1"),
        ] {
            assert_eq!(Context::extract(&fields(&[("traceparent", &value)])), None, "{value}");
        }
        let later = format!("01-{TRACE}-{SPAN}-00-more");
        assert!(Context::extract(&fields(&[("traceparent", &later)])).is_some_and(|(c, _)| !c.sampled));
    }
}
