//! A blocking HTTP/1.1 client on plain sockets, with heads parsed by httparse: independent of the code under test.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// Body, with chunks joined.
    pub body: Vec<u8>,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
}

impl Response {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that is kept between requests.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    timeout: Duration,
}

impl Client {
    /// A client of that address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, timeout: Duration::from_secs(20) }
    }

    /// GET with extra headers.
    ///
    /// # Errors
    /// When there is no complete, well-formed answer.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        self.request("GET", path, headers, b"")
    }

    /// Any request; a `host` header is added unless given.
    ///
    /// # Errors
    /// When there is no complete, well-formed answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Response> {
        self.request_with((method, path), headers, body, &[])
    }

    /// The same, `line` its method and path, with trailers: then the body is sent in chunks.
    ///
    /// # Errors
    /// When there is no complete, well-formed answer.
    pub fn request_with(
        &mut self,
        line: (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        trailers: &[(String, String)],
    ) -> anyhow::Result<Response> {
        let host = self.address.to_string();
        let bytes = if trailers.is_empty() {
            request_text(&host, line, headers, body)
        } else {
            let mut all = headers.to_vec();
            all.push(("transfer-encoding", "chunked"));
            let mut bytes = request_text(&host, line, &all, b"");
            if !body.is_empty() {
                bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n");
            trailers.iter().for_each(|(n, v)| bytes.extend_from_slice(format!("{n}: {v}\r\n").as_bytes()));
            bytes.extend_from_slice(b"\r\n");
            bytes
        };
        let mut stream = match self.stream.take() {
            Some(stream) if is_open(&stream) => stream,
            _ => self.connect()?,
        };
        stream.write_all(&bytes).context("cannot send")?;
        let response = read_response(&mut stream, line.0 == "HEAD")?;
        if response.keep_alive {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).context("cannot connect")?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The bytes of a request, `line` its method and path; a `host` header is added unless given.
#[must_use]
pub fn request_text(host: &str, line: (&str, &str), headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", line.0, line.1);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Whether an idle connection was not closed meanwhile.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0u8; 1];
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut byte);
    let _ = stream.set_nonblocking(false);
    matches!(peeked, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

/// Reads one answer.
///
/// # Errors
/// When the stream ends early or the answer is malformed.
pub fn read_response(stream: &mut impl Read, to_head: bool) -> anyhow::Result<Response> {
    let mut buffer = Vec::new();
    loop {
        let (mut response, used) = loop {
            if let Some(head) = parse_head(&buffer)? {
                break head;
            }
            ensure!(fill(stream, &mut buffer)? > 0, "the connection ended before the head was complete");
        };
        buffer.drain(..used);
        if response.status == 100 {
            continue;
        }
        read_body(stream, &mut buffer, &mut response, to_head)?;
        ensure!(buffer.is_empty(), "{} bytes after the answer", buffer.len());
        return Ok(response);
    }
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> anyhow::Result<usize> {
    let mut chunk = [0u8; 16 * 1024];
    let n = stream.read(&mut chunk).context("cannot receive")?;
    buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
    Ok(n)
}

fn parse_head(buffer: &[u8]) -> anyhow::Result<Option<(Response, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = parsed.parse(buffer)? else { return Ok(None) };
    let headers: Vec<(String, String)> =
        parsed.headers.iter().map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect();
    let response = Response {
        status: parsed.code.unwrap_or_default(),
        headers,
        body: Vec::new(),
        keep_alive: parsed.version == Some(1),
    };
    Ok(Some((response, used)))
}

fn read_body(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    response: &mut Response,
    to_head: bool,
) -> anyhow::Result<()> {
    if response.header("connection").is_some_and(|v| v.to_ascii_lowercase().contains("close")) {
        response.keep_alive = false;
    }
    if to_head || matches!(response.status, 101 | 204 | 304) {
        return Ok(());
    }
    if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return read_chunks(stream, buffer, response);
    }
    if let Some(length) = response.header("content-length") {
        let length: usize = length.parse()?;
        while buffer.len() < length {
            ensure!(fill(stream, buffer)? > 0, "the connection ended {} bytes early", length - buffer.len());
        }
        response.body = buffer.drain(..length).collect();
        return Ok(());
    }
    response.keep_alive = false;
    while fill(stream, buffer)? > 0 {}
    response.body = std::mem::take(buffer);
    Ok(())
}

/// Reads chunks; trailers become fields whose names begin with `(trailer) `.
fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>, response: &mut Response) -> anyhow::Result<()> {
    loop {
        let (start, size) = match httparse::parse_chunk_size(buffer) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => {
                ensure!(fill(stream, buffer)? > 0, "the connection ended inside a chunked body");
                continue;
            }
            Err(_) => bail!("malformed chunk size"),
        };
        if size == 0 {
            buffer.drain(..start);
            return read_trailers(stream, buffer, response);
        }
        let end = start + usize::try_from(size)? + 2;
        while buffer.len() < end {
            ensure!(fill(stream, buffer)? > 0, "the connection ended inside a chunk");
        }
        response.body.extend_from_slice(buffer.get(start..end - 2).unwrap_or_default());
        buffer.drain(..end);
    }
}

fn read_trailers(stream: &mut impl Read, buffer: &mut Vec<u8>, response: &mut Response) -> anyhow::Result<()> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        if let httparse::Status::Complete((used, fields)) = httparse::parse_headers(buffer, &mut headers)? {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            response.headers.extend(fields.iter().map(|f| (format!("(trailer) {}", f.name), text(f.value))));
            buffer.drain(..used);
            return Ok(());
        }
        ensure!(fill(stream, buffer)? > 0, "the connection ended inside trailers");
    }
}
