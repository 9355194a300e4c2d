//! Decides whether a response is compressed, and changes its head. Source: Envoy, `CompressorFilter::encodeHeaders`.

use serin_http1::{HeaderBlock, RequestHead, ResponseHead};
use serin_resources::http_filter::Compressor;

/// Returns true when a client takes gzip (RFC 9110 §12.5.3): named, or by `*`, and not with a weight of 0.
#[must_use]
pub fn takes_gzip(fields: &HeaderBlock) -> bool {
    let mut any = false;
    let mut named = None;
    for part in fields.get_all("accept-encoding").flat_map(|v| v.split(|b| *b == b',')) {
        let mut parameters = part.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let coding = parameters.next().unwrap_or_default();
        let weight = parameters.find_map(|p| p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q=")));
        let weight = weight.and_then(|w| std::str::from_utf8(w).ok()?.parse::<f32>().ok()).unwrap_or(1.0);
        if coding.eq_ignore_ascii_case(b"gzip") {
            named = Some(weight > 0.0);
        } else if coding == b"*" {
            any = weight > 0.0;
        }
    }
    named.unwrap_or(any)
}

/// Decides about a response of that length, if it is known, and, when it is compressed, changes its head; true when its body
/// is to be, if it has one.
pub fn compress(config: &Compressor, answer: &mut ResponseHead, takes: bool, length: Option<u64>) -> bool {
    let fields = &answer.fields;
    let long = length.is_none_or(|length| length >= config.shortest);
    let kind = fields.get("content-type").map(|v| v.split(|b| *b == b';').next().unwrap_or_default().trim_ascii());
    let fit = kind.is_none_or(|kind| config.types.iter().any(|t| kind.eq_ignore_ascii_case(t.as_bytes())));
    let fixed = fields.get_all("cache-control").any(|v| contains(v, b"no-transform"));
    let tagged = config.not_with_etag && fields.contains("etag");
    let possible = config.enabled
        && long
        && fit
        && !fixed
        && !tagged
        && answer.status != 101
        && !fields.contains("content-encoding")
        && !config.except.contains(&answer.status);
    if possible {
        vary(&mut answer.fields);
    }
    if !possible || !takes {
        return false;
    }
    let fields = &mut answer.fields;
    if let Some(tag) = fields.get("etag").filter(|tag| !tag.starts_with(b"W/") && !tag.starts_with(b"w/")) {
        if config.weaken_etag {
            let weak = [b"W/", tag].concat();
            fields.set("etag", &weak);
        } else {
            fields.remove("etag");
        }
    }
    fields.remove("content-length");
    fields.set("content-encoding", b"gzip");
    true
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
}

/// Says that another client might be answered otherwise (RFC 9110 §12.5.5).
fn vary(fields: &mut HeaderBlock) {
    if fields.get_all("vary").any(|line| contains(line, b"accept-encoding") || line.trim_ascii() == b"*") {
        return;
    }
    let only = fields.get("vary").filter(|_| fields.get_all("vary").count() == 1);
    match only.map(|line| [line, b", Accept-Encoding"].concat()) {
        Some(line) => fields.set("vary", &line),
        None => fields.append(b"vary", b"Accept-Encoding"),
    }
}

/// Removes what the upstream is not to see, where the filter says so.
pub fn prepare(config: &Compressor, request: &mut RequestHead) {
    if config.hide_accepted {
        request.fields.remove("accept-encoding");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_vary_stays() {
        let after = |lines: &[&str]| {
            let mut fields = HeaderBlock::default();
            lines.iter().for_each(|line| fields.append(b"vary", line.as_bytes()));
            vary(&mut fields);
            let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
            fields.get_all("vary").map(text).collect::<Vec<_>>()
        };
        assert_eq!(after(&[]), ["Accept-Encoding"]);
        assert_eq!(after(&["Origin"]), ["Origin, Accept-Encoding"]);
        assert_eq!(after(&["Origin", "Cookie"]), ["Origin", "Cookie", "Accept-Encoding"]);
        assert_eq!(after(&["Origin", "accept-encoding"]), ["Origin", "accept-encoding"]);
        assert_eq!(after(&["*"]), ["*"]);
    }
}
