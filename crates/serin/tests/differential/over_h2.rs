//! HTTP/2: requests with prior knowledge or after TLS, one stream each, and backends that speak it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serin_testkit::client::Response;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::backends::{Serving, Try};
use super::tls::Polled;

/// What is asked.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a str,
}

/// Asks once, on a connection of its own; trailers stand behind the headers, marked as such.
pub fn ask(address: SocketAddr, request: &Request<'_>) -> Option<Response> {
    patiently(async { exchange(TcpStream::connect(address).await?, "http", request).await })
}

/// Asks once, on a connection that has its handshake behind it.
pub fn ask_tls(connection: rustls::Connection, stream: std::net::TcpStream, request: &Request<'_>) -> Option<Response> {
    patiently(async { exchange(Polled::new(connection, stream)?, "https", request).await })
}

fn patiently(asked: impl Future<Output = anyhow::Result<Response>>) -> Option<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), asked).await }).ok()?.ok()
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &str,
    asked: &Request<'_>,
) -> anyhow::Result<Response> {
    let Request { method, path, headers, body } = *asked;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let host =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or("test.local", |(_, host)| host);
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build()?;
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(*name, *value);
    }
    let (answer, mut sender) = client.send_request(request.body(())?, body.is_empty())?;
    if !body.is_empty() {
        sender.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
    }
    let (head, mut stream) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let last = trailers.iter().map(|(name, value)| (format!("(trailer) {name}"), text(value)));
    Ok(Response { status: head.status.as_u16(), headers: fields.chain(last).collect(), body: bytes, keep_alive: true })
}

/// Serves a connection of a backend until it ends.
pub fn serve(serving: &Arc<Serving>, connection: rustls::Connection, stream: std::net::TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = async {
        let mut connection = h2::server::handshake(Polled::new(connection, stream)?).await?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted?;
            let serving = serving.clone();
            tokio::spawn(async move { answer(&serving, request, respond).await });
        }
        anyhow::Ok(())
    };
    // The other side may end it however it likes.
    let _ = runtime.block_on(served);
}

async fn answer(
    serving: &Serving,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> anyhow::Result<()> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.push((":scheme".to_owned(), head.uri.scheme_str().unwrap_or_default().to_owned()));
    headers.push(("host".to_owned(), head.uri.authority().map(ToString::to_string).unwrap_or_default()));
    let line = format!("{} {}", head.method, head.uri.path_and_query().map_or("", |p| p.as_str()));
    let seen = Try { backend: String::new(), line, headers, body: String::from_utf8_lossy(&body).into_owned() };
    let Some(answer) = serving.answer(seen) else {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    };
    tokio::time::sleep(answer.after).await;
    if answer.ends {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let nothing = head.method == "HEAD" || answer.body.is_empty();
    let mut sender = respond.send_response(response.body(())?, nothing)?;
    if !nothing {
        sender.send_data(Bytes::from(answer.body), true)?;
    }
    Ok(())
}
