//! Envoy's format strings: `%COMMAND(ARGUMENT):LENGTH%` between literal text.

/// Envoy's default.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// What a log line can be made of.
pub trait Record {
    /// The value of a command, such as `RESPONSE_CODE`; `None` prints `-`.
    fn command(&self, name: &str) -> Option<String>;
    /// A request header or pseudo-header.
    fn request_header(&self, name: &str) -> Option<String>;
    /// A response header.
    fn response_header(&self, name: &str) -> Option<String>;
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Command(String),
    Request(String, Option<String>, Option<usize>),
    Response(String, Option<String>, Option<usize>),
}

/// Why a format does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` without its partner.
    #[error("'%' without a closing '%'")]
    Unclosed,
    /// A command nobody here knows.
    #[error("unknown command '%{0}%'")]
    Unknown(String),
}

const COMMANDS: [&str; 18] = [
    "START_TIME",
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DURATION",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "ROUTE_NAME",
    "REQUESTED_SERVER_NAME",
];

impl Format {
    /// Compiles a format; `None` is Envoy's default.
    ///
    /// # Errors
    /// [`FormatError`] with the command that is not known.
    pub fn compile(format: Option<&str>) -> Result<Self, FormatError> {
        let mut parts = Vec::new();
        let mut rest = format.unwrap_or(DEFAULT);
        while let Some((literal, after)) = rest.split_once('%') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (command, after) = after.split_once('%').ok_or(FormatError::Unclosed)?;
            parts.push(if command.is_empty() { Part::Literal("%".to_owned()) } else { compile_command(command)? });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Appends the line for a record.
    pub fn write(&self, record: &dyn Record, out: &mut String) {
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Command(name) => record.command(name),
                Part::Request(name, other, length) => {
                    let value =
                        record.request_header(name).or_else(|| other.as_ref().and_then(|o| record.request_header(o)));
                    value.map(|v| cut(v, *length))
                }
                Part::Response(name, other, length) => {
                    let value =
                        record.response_header(name).or_else(|| other.as_ref().and_then(|o| record.response_header(o)));
                    value.map(|v| cut(v, *length))
                }
            };
            out.push_str(value.as_deref().unwrap_or("-"));
        }
    }
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
        None => (command, None, None),
        Some((name, rest)) => {
            let (argument, after) = rest.rsplit_once(')').ok_or_else(unknown)?;
            let length = after.strip_prefix(':').map(|n| n.parse().map_err(|_| unknown())).transpose()?;
            (name, Some(argument), length)
        }
    };
    if let ("REQ" | "RESP", Some(argument)) = (name, argument) {
        let (first, other) = match argument.split_once('?') {
            Some((first, other)) => (first, Some(other.to_ascii_lowercase())),
            None => (argument, None),
        };
        let first = first.to_ascii_lowercase();
        return Ok(if name == "REQ" {
            Part::Request(first, other, length)
        } else {
            Part::Response(first, other, length)
        });
    }
    if COMMANDS.contains(&name) { Ok(Part::Command(name.to_owned())) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Record for Fixed {
        fn command(&self, name: &str) -> Option<String> {
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
        let format = Format::compile(Some("%RESPONSE_CODE% %REQ(X-A?:PATH):4% %RESP(B)% 100%%")).unwrap();
        let mut out = String::new();
        format.write(&Fixed, &mut out);
        assert_eq!(out, "200 /a/l - 100%");
    }

    #[test]
    fn unknown_commands_are_named() {
        assert_eq!(Format::compile(Some("%NOPE%")), Err(FormatError::Unknown("NOPE".to_owned())));
        assert_eq!(Format::compile(Some("50%")), Err(FormatError::Unclosed));
        assert!(Format::compile(None).is_ok());
    }
}
