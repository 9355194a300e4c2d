//! Envoy's substitution format strings: `%COMMAND(ARGUMENT):LENGTH%` between literal text, in access logs, header values and
//! bodies. Source: Envoy, "Access logging", command operators.

mod of_request;
mod operators;

use std::fmt::Write as _;

use of_request::{OF_PATH, REQUESTED_NAME, of_path, requested_name, without_query};
use operators::{CAN_BE_CUT, COMMANDS, is_argument};

/// Envoy's default access log line.
const DEFAULT_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Provides the values of a format's commands.
pub trait FormatContext {
    /// The value of a command, such as `RESPONSE_CODE`.
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String>;
    /// A request header or pseudo-header.
    fn request_header(&self, name: &str) -> Option<String>;
    /// A response header.
    fn response_header(&self, name: &str) -> Option<String>;
    /// A response trailer.
    fn response_trailer(&self, _name: &str) -> Option<String> {
        None
    }
}

/// A compiled format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Format {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Command {
        name: String,
        argument: Option<String>,
        length: Option<usize>,
    },
    Header {
        of: Of,
        name: String,
        other: Option<String>,
        length: Option<usize>,
    },
    /// The first of several that is known.
    First {
        parts: Vec<Self>,
        length: Option<usize>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    /// Without what follows a question mark.
    RequestWithoutQuery,
    Response,
    Trailers,
}

/// The reason why a format does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` without its partner.
    #[error("'%' without a closing '%'")]
    Unclosed,
    /// A command nobody here knows.
    #[error("unknown command '%{0}%'")]
    Unknown(String),
}

impl Format {
    /// Compiles a format.
    ///
    /// # Errors
    /// [`FormatError`] with the command that is not known.
    pub fn compile(format: &str) -> Result<Self, FormatError> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some((literal, after)) = rest.split_once('%') {
            push_literal(&mut parts, literal);
            let (command, after) = split_command(after).ok_or(FormatError::Unclosed)?;
            if command.is_empty() {
                push_literal(&mut parts, "%");
            } else {
                parts.push(compile_command(command)?);
            }
            rest = after;
        }
        push_literal(&mut parts, rest);
        Ok(Self { source: format.to_owned(), parts })
    }

    /// Envoy's default access log.
    #[must_use]
    pub fn default_log() -> Self {
        Self::compile(DEFAULT_LOG).unwrap_or_default()
    }

    /// A format that always gives this text.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        let mut parts = Vec::new();
        push_literal(&mut parts, text);
        Self { source: text.replace('%', "%%"), parts }
    }

    /// The text that it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text, when it is always the same.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns true when it is one command and nothing else.
    pub(crate) fn is_single_command(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Command { .. } | Part::Header { .. } | Part::First { .. }])
    }

    /// Returns true when it is one command that gives a number.
    pub(crate) fn is_number(&self) -> bool {
        const NUMBERS: [&str; 8] = [
            "RESPONSE_CODE",
            "BYTES_RECEIVED",
            "BYTES_SENT",
            "DURATION",
            "REQUEST_DURATION",
            "RESPONSE_DURATION",
            "RESPONSE_TX_DURATION",
            "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        ];
        matches!(self.parts.as_slice(), [Part::Command { name, .. }] if NUMBERS.contains(&name.as_str()))
    }

    /// Appends a line of a text log. What clients and backends say is escaped, so that none of it ends a quotation or a line:
    /// `"` and `\` get a `\`, control characters stand as `\xNN`. (Envoy writes them as they are.)
    pub fn write_line(&self, record: &dyn FormatContext, missing: &str, out: &mut String) {
        self.write_with(record, missing, out, escaped);
    }

    /// Appends what it gives for a record; `missing` stands for what the record does not know.
    pub fn write(&self, record: &dyn FormatContext, missing: &str, out: &mut String) {
        self.write_with(record, missing, out, |value, out| out.push_str(value));
    }

    fn write_with(&self, record: &dyn FormatContext, missing: &str, out: &mut String, push: fn(&str, &mut String)) {
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => {
                    out.push_str(text);
                    continue;
                }
                other => other.value(record),
            };
            match value {
                Some(value) => push(&value, out),
                None => out.push_str(missing),
            }
        }
    }
}

impl Part {
    /// The value that a record has for it.
    fn value(&self, record: &dyn FormatContext) -> Option<String> {
        match self {
            Self::Literal(text) => Some(text.clone()),
            Self::Command { name, argument: Some(argument), length } if name == REQUESTED_NAME => {
                requested_name(record, argument).map(|v| cut(v, *length))
            }
            Self::Command { name, argument, length } if OF_PATH.contains(&name.as_str()) => {
                of_path(record, name, argument.as_deref()).map(|v| cut(v, *length))
            }
            Self::Command { name, argument, length } => {
                record.command(name, argument.as_deref()).map(|v| cut(v, *length))
            }
            Self::Header { of, name, other, length } => {
                let look = |name: &str| match of {
                    Of::Request => record.request_header(name),
                    Of::RequestWithoutQuery => record.request_header(name).map(without_query),
                    Of::Response => record.response_header(name),
                    Of::Trailers => record.response_trailer(name),
                };
                look(name).or_else(|| other.as_deref().and_then(look)).map(|v| cut(v, *length))
            }
            Self::First { parts, length } => parts.iter().find_map(|part| part.value(record)).map(|v| cut(v, *length)),
        }
    }
}

fn escaped(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Literal(before)) => before.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

/// Up to the `%` that closes a command; one inside its parentheses does not.
fn split_command(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn cut(value: String, length: Option<usize>) -> String {
    match length {
        Some(n) if value.len() > n => value.chars().take(n).collect(),
        _ => value,
    }
}

fn compile_command(command: &str) -> Result<Part, FormatError> {
    let unknown = || FormatError::Unknown(command.to_owned());
    let (name, argument, length) = match command.split_once('(') {
        None => match command.split_once(':') {
            Some((name, length)) if CAN_BE_CUT.contains(&name) => {
                (name, None, Some(length.parse().map_err(|_| unknown())?))
            }
            _ => (command, None, None),
        },
        Some((name, rest)) => {
            let (argument, after) = rest.rsplit_once(')').ok_or_else(unknown)?;
            let length = match after {
                "" => None,
                after => Some(after.strip_prefix(':').and_then(|n| n.parse().ok()).ok_or_else(unknown)?),
            };
            (name, Some(argument), length)
        }
    };
    let of = match name {
        "COALESCE" => return coalesce(argument.ok_or_else(unknown)?, length).ok_or_else(unknown),
        "REQ" | "REQUEST_HEADER" => Some(Of::Request),
        "REQ_WITHOUT_QUERY" => Some(Of::RequestWithoutQuery),
        "RESP" | "RESPONSE_HEADER" => Some(Of::Response),
        "TRAILER" | "RESPONSE_TRAILER" => Some(Of::Trailers),
        _ => None,
    };
    match (of, argument) {
        (Some(of), Some(argument)) => {
            let (first, other) = match argument.split_once('?') {
                Some((_, others)) if others.contains('?') => return Err(unknown()),
                Some((first, other)) => (first, Some(other.to_ascii_lowercase())),
                None => (argument, None),
            };
            Ok(Part::Header { of, name: first.to_ascii_lowercase(), other, length })
        }
        (None, None) if COMMANDS.contains(&name) => Ok(Part::Command { name: name.to_owned(), argument: None, length }),
        (None, Some(argument)) if is_argument(name, argument) => {
            Ok(Part::Command { name: name.to_owned(), argument: Some(argument.to_owned()), length })
        }
        _ => Err(unknown()),
    }
}

/// `{"operators": […]}`: names of commands, or objects with `command`, `param` and `max_length`.
fn coalesce(argument: &str, length: Option<usize>) -> Option<Part> {
    let value: serde_json::Value = serde_json::from_str(argument).ok()?;
    let operators = value.get("operators")?.as_array()?;
    let compile = |operator: &serde_json::Value| {
        let text = |field: &str| operator.get(field).and_then(serde_json::Value::as_str);
        let mut command = operator.as_str().or_else(|| text("command"))?.to_owned();
        if let Some(param) = text("param") {
            command.push_str(&format!("({param})"));
        }
        if let Some(length) = operator.get("max_length").and_then(serde_json::Value::as_u64) {
            command.push_str(&format!(":{length}"));
        }
        compile_command(&command).ok()
    };
    let parts = operators.iter().map(compile).collect::<Option<Vec<_>>>()?;
    (!parts.is_empty()).then_some(Part::First { parts, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl FormatContext for Fixed {
        fn command(&self, name: &str, _: Option<&str>) -> Option<String> {
            (name == "RESPONSE_CODE").then(|| "200".to_owned())
        }
        fn request_header(&self, name: &str) -> Option<String> {
            (name == ":path").then(|| "/a/long/path".to_owned())
        }
        fn response_header(&self, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn commands_arguments_and_lengths() {
        let format = Format::compile("%RESPONSE_CODE% %REQ(X-A?:PATH):4% %RESP(B)% 100%%").unwrap();
        let mut out = String::new();
        format.write(&Fixed, "-", &mut out);
        assert_eq!(out, "200 /a/l - 100%");
    }

    #[test]
    fn unknown_commands_are_named() {
        assert_eq!(Format::compile("%NOPE%"), Err(FormatError::Unknown("NOPE".to_owned())));
        assert_eq!(Format::compile("50%"), Err(FormatError::Unclosed));
        assert!(Format::default_log().as_literal().is_none());
        assert_eq!(Format::literal("5%").as_literal(), Some("5%"));
    }
}
