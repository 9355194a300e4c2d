//! The same requests over HTTP/2, with prior knowledge, one stream each.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serin_testkit::client::Response;
use tokio::net::TcpStream;

/// Asks once, on a connection of its own; trailers stand behind the headers, marked as such.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked =
        async { tokio::time::timeout(Duration::from_secs(20), exchange(address, method, path, headers, body)).await };
    runtime.block_on(asked).ok()?.ok()
}

async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    let stream = TcpStream::connect(address).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let host =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or("test.local", |(_, host)| host);
    let uri = http::Uri::builder().scheme("http").authority(host).path_and_query(path).build()?;
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
