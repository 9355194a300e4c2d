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
    pub trailers: &'a [(String, String)],
    /// Of an extended CONNECT.
    pub protocol: Option<&'a str>,
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
    let Request { method, path, headers, body, trailers, protocol } = *asked;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let host =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or("test.local", |(_, host)| host);
    let plain_connect = method == "CONNECT" && protocol.is_none();
    let uri = match plain_connect {
        true => http::Uri::builder().authority(path).build()?,
        false => http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build()?,
    };
    let mut request = http::Request::builder().method(method).uri(uri);
    if let Some(protocol) = protocol {
        request = request.extension(h2::ext::Protocol::from(protocol));
    }
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(*name, *value);
    }
    let tunnel = plain_connect || protocol.is_some();
    if tunnel {
        // Whether it may be asked for comes with the settings.
        client = client.ready().await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (answer, mut sender) =
        client.send_request(request.body(())?, body.is_empty() && trailers.is_empty() && !tunnel)?;
    if !body.is_empty() {
        sender.send_data(Bytes::copy_from_slice(body.as_bytes()), trailers.is_empty() && !tunnel)?;
    }
    if !trailers.is_empty() {
        let mut map = http::HeaderMap::new();
        for (name, value) in trailers {
            map.append(http::HeaderName::from_bytes(name.as_bytes())?, http::HeaderValue::from_str(value)?);
        }
        sender.send_trailers(map)?;
    }
    let (head, mut stream) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    let mut open = tunnel;
    loop {
        let next = stream.data();
        let data = match open {
            true => match tokio::time::timeout(Duration::from_millis(300), next).await {
                Ok(data) => data,
                Err(_) => {
                    open = false;
                    sender.send_data(Bytes::new(), true)?;
                    continue;
                }
            },
            false => next.await,
        };
        let Some(data) = data else { break };
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
    served(async { serve_on(serving, Polled::new(connection, stream)?).await });
}

/// The same without TLS.
pub fn serve_plain(serving: &Arc<Serving>, stream: std::net::TcpStream) {
    served(async {
        stream.set_nonblocking(true)?;
        serve_on(serving, TcpStream::from_std(stream)?).await
    });
}

fn served(connection: impl Future<Output = anyhow::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The other side may end it however it likes.
    let _ = runtime.block_on(connection);
}

async fn serve_on(
    serving: &Arc<Serving>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<()> {
    let mut connection = h2::server::Builder::new().enable_connect_protocol().handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let serving = serving.clone();
        tokio::spawn(async move { answer(&serving, request, respond).await });
    }
    Ok(())
}

async fn answer(
    serving: &Serving,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> anyhow::Result<()> {
    let (head, mut stream) = request.into_parts();
    let is_tunnel = head.method == "CONNECT";
    let mut body = Vec::new();
    let mut trailers = http::HeaderMap::new();
    if !is_tunnel {
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        trailers = stream.trailers().await?.unwrap_or_default();
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.extend(trailers.iter().map(|(name, value)| (format!("(trailer) {name}"), text(value))));
    if let Some(protocol) = head.extensions.get::<h2::ext::Protocol>() {
        headers.push((":protocol".to_owned(), protocol.as_str().to_owned()));
    }
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
    if is_tunnel && answer.status == 200 {
        let mut sender = respond.send_response(response.body(())?, false)?;
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            sender.send_data(data, false)?;
        }
        sender.send_data(Bytes::new(), true)?;
        return Ok(());
    }
    let mut sender = respond.send_response(response.body(())?, nothing && answer.trailers.is_empty())?;
    if !nothing {
        sender.send_data(Bytes::from(answer.body), answer.trailers.is_empty())?;
    }
    if !answer.trailers.is_empty() {
        let mut map = http::HeaderMap::new();
        for (name, value) in &answer.trailers {
            map.append(http::HeaderName::from_bytes(name.as_bytes())?, http::HeaderValue::from_str(value)?);
        }
        sender.send_trailers(map)?;
    }
    Ok(())
}
