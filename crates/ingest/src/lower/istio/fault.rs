//! Delays and aborts that a VirtualService injects.

use serin_model::{Abort, AbortStatus, Delay, Fault, Share};

use crate::cursor::{self, Cursor};
use crate::diagnostic::{Code, Severity};

/// Reads a `fault`.
pub(super) fn read(cursor: &Cursor<'_>) -> Option<Fault> {
    let object = cursor.object()?;
    Some(Fault {
        delay: object.get("delay").and_then(|c| read_delay(&c)),
        abort: object.get("abort").and_then(|c| read_abort(&c)),
    })
}

fn read_delay(cursor: &Cursor<'_>) -> Option<Delay> {
    let object = cursor.object()?;
    object.not_supported(&["exponentialDelay"]);
    let share = percentage(&object, cursor)?;
    if object.has("exponentialDelay") {
        return None;
    }
    Some(Delay { fixed: object.required("fixedDelay")?.duration()?, share })
}

fn read_abort(cursor: &Cursor<'_>) -> Option<Abort> {
    let object = cursor.object()?;
    object.not_supported(&["http2Error"]);
    let share = percentage(&object, cursor)?;
    let status = match (object.get("httpStatus"), object.get("grpcStatus")) {
        (Some(code), None) => AbortStatus::Http(u16::try_from(code.bounded(200, 599)?).ok()?),
        (None, Some(name)) => AbortStatus::Grpc(grpc_status(&name)?),
        _ => {
            object.error(Code::MissingField, "an abort needs httpStatus or grpcStatus", "");
            return None;
        }
    };
    Some(Abort { status, share })
}

/// `percentage.value`; without it nothing is injected, as in Istio, which is worth a word.
fn percentage(object: &cursor::Object<'_>, cursor: &Cursor<'_>) -> Option<Share> {
    let (percentage, percent) = (object.get("percentage"), object.get("percent"));
    if let (Some(_), Some(old)) = (&percentage, &percent) {
        old.report(Code::NoEffectYet, Severity::Warning, "'percent' has no effect beside 'percentage'", "take it away");
    }
    let value = match (percentage, percent) {
        (Some(p), _) => p.object().and_then(|o| o.get("value")),
        (None, Some(old)) => Some(old),
        (None, None) => {
            cursor.report(
                Code::InvalidValue,
                Severity::Warning,
                "without percentage no request is affected",
                "add percentage: {value: 100}",
            );
            None
        }
    };
    let Some(value) = value else { return Share::from_percent(0.0) };
    let number = value.number()?;
    let share = Share::from_percent(number);
    if share.is_none() {
        value.invalid(format!("{number} is not between 0.0001 and 100, or 0"), "");
    }
    share
}

pub(crate) const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_status(cursor: &Cursor<'_>) -> Option<u32> {
    let name = cursor.text()?;
    let code = GRPC_STATUS.iter().position(|n| *n == name.to_ascii_uppercase());
    if code.is_none() {
        cursor.invalid(format!("'{name}' is no gRPC status"), "such as UNAVAILABLE");
    }
    code.and_then(|c| u32::try_from(c).ok())
}
