//! Operators whose values are made of a request's head.

use super::FormatContext;

/// Commands whose values are parts of the request's path.
pub(super) const OF_PATH: [&str; 3] = ["PATH", "QUERY_PARAM", "QUERY_PARAMS"];

/// The path, or parameters of its query.
pub(super) fn of_path(record: &dyn FormatContext, name: &str, argument: Option<&str>) -> Option<String> {
    let own = || record.request_header(":path");
    if name != "PATH" {
        let path = own()?;
        let (_, query) = path.split_once('?')?;
        return match (name, argument) {
            ("QUERY_PARAMS", Some("DECODED")) => Some(percent_decoded(query)),
            ("QUERY_PARAMS", _) => Some(query.to_owned()),
            (_, wanted) => {
                let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs.find(|(key, _)| Some(*key) == wanted).map(|(_, value)| percent_decoded(value))
            }
        };
    }
    let (query, which) = argument.unwrap_or("WQ").split_once(':').unwrap_or((argument.unwrap_or("WQ"), ""));
    let original = || record.request_header("x-envoy-original-path");
    let path = match which {
        "ORIG" => original(),
        "PATH" => own(),
        _ => original().or_else(own),
    }?;
    Some(if query == "NQ" { without_query(path) } else { path })
}

/// A text whose percent triplets are decoded; what is none stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()).filter(|_| *byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What stands before a question mark.
pub(super) fn without_query(mut text: String) -> String {
    if let Some(at) = text.find('?') {
        text.truncate(at);
    }
    text
}

pub(super) const REQUESTED_NAME: &str = "REQUESTED_SERVER_NAME";

/// The name of the server that was asked for: by TLS, or, where the argument says so, by the request's host as well.
pub(super) fn requested_name(record: &dyn FormatContext, argument: &str) -> Option<String> {
    let (order, which) = argument.split_once(':').unwrap_or((argument, ""));
    let by_tls = || record.command(REQUESTED_NAME, None);
    let own = || record.request_header(":authority");
    let by_host = || match which {
        "HOST" => own(),
        "ORIG" => record.request_header("x-envoy-original-host"),
        _ => record.request_header("x-envoy-original-host").or_else(own),
    };
    match order {
        "HOST_FIRST" => by_host().or_else(by_tls),
        "SNI_FIRST" => by_tls().or_else(by_host),
        _ => by_tls(),
    }
}
