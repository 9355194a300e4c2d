//! Between the `h2` crate's messages and our own. Only this file and the sinks know that crate's types.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serin_http1::{HeaderBlock, RequestHead, ResponseHead, Version, is_host, is_method};

/// A request received over HTTP/2; `None` when it is malformed (RFC 9113 §8.3: authority and path).
pub(crate) fn request_from_h2(parts: &http::request::Parts, head: &mut RequestHead) -> Option<()> {
    let method = parts.method.as_str().as_bytes();
    let target = match parts.uri.path_and_query() {
        Some(path) => path.as_str().as_bytes(),
        None if parts.method == http::Method::CONNECT => parts.uri.authority()?.as_str().as_bytes(),
        None => return None,
    };
    if !is_method(method) {
        return None;
    }
    head.start(method, target, Version::Http2);
    let own = parts.headers.get("host").map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if let (Some(own), Some(authority)) = (own, authority)
        && !own.eq_ignore_ascii_case(authority)
    {
        return None;
    }
    let authority = authority.or(own)?;
    if !is_host(authority) || parts.headers.get_all("host").iter().count() > 1 {
        return None;
    }
    head.fields.append(b"host", authority);
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in &parts.headers {
        match name.as_str() {
            "host" => {}
            "cookie" => cookies.push(value.as_bytes()),
            name => head.fields.append(name.as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        head.fields.append(b"cookie", &cookies.join(&b"; "[..]));
    }
    Some(())
}

/// A request to be sent over HTTP/2.
pub(crate) fn request_to_h2(head: &RequestHead) -> Option<http::Request<()>> {
    let authority = std::str::from_utf8(head.authority()).ok()?;
    let target = std::str::from_utf8(head.target()).ok()?;
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(target).build().ok()?;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    fields_to_h2(&head.fields, request.headers_mut());
    request.headers_mut().remove("host");
    Some(request)
}

/// A response received over HTTP/2.
pub(crate) fn response_from_h2(parts: &http::response::Parts, head: &mut ResponseHead) {
    head.start(parts.status.as_u16(), b"", Version::Http2);
    fields_from_h2(&parts.headers, &mut head.fields);
}

/// A response to be sent over HTTP/2; `declared` is its `content-length`.
pub(crate) fn response_to_h2(head: &ResponseHead, declared: Option<u64>) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    *response.version_mut() = http::Version::HTTP_2;
    fields_to_h2(&head.fields, response.headers_mut());
    if let Some(length) = declared {
        response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Trailers received over HTTP/2.
pub(crate) fn trailers_from_h2(map: &HeaderMap) -> HeaderBlock {
    let mut block = HeaderBlock::default();
    fields_from_h2(map, &mut block);
    block
}

/// Trailers to be sent over HTTP/2.
pub(crate) fn trailers_to_h2(block: &HeaderBlock) -> HeaderMap {
    let mut map = HeaderMap::new();
    fields_to_h2(block, &mut map);
    map
}

fn fields_from_h2(map: &HeaderMap, block: &mut HeaderBlock) {
    for (name, value) in map {
        block.append(name.as_str().as_bytes(), value.as_bytes());
    }
}

fn fields_to_h2(block: &HeaderBlock, map: &mut HeaderMap) {
    for (name, value) in block.iter() {
        // Connection-specific fields have no place here (RFC 9113 §8.2.2); a request for a WebSocket has one.
        if name.eq_ignore_ascii_case(b"upgrade") {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
}
