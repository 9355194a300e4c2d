//! Questions to a running pilot.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A pilot's admin interface.
pub(crate) struct Pilot {
    address: String,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The reason why nobody answered.
#[derive(Debug)]
pub(crate) struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// The pilot knows nothing of that name.
#[derive(Debug)]
pub(crate) struct NotFound(String);

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFound {}

const PATIENCE: Duration = Duration::from_secs(10);

impl Pilot {
    pub(crate) fn new(address: &str, token: Option<String>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { address: address.trim_start_matches("http://").to_owned(), token, runtime, client })
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, String::new())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, body.to_string())
    }

    fn ask(&self, method: &str, path: &str, body: String) -> anyhow::Result<Value> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Ok(user) = std::env::var("USER") {
            request = request.header("x-serin-user", user);
        }
        let request = request.header("content-type", "application/json").body(Full::from(body))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let outcome = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
        let address = &self.address;
        let (status, body) =
            outcome.with_context(|| Unreachable(format!("the pilot at {address} does not answer")))?.with_context(
                || Unreachable(format!("cannot reach a pilot at {address}: say where it is with --pilot HOST:PORT")),
            )?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == hyper::StatusCode::NOT_FOUND {
            return Err(NotFound(value["error"].as_str().unwrap_or("not found").to_owned()).into());
        }
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            bail!(
                "{}",
                value["error"].as_str().unwrap_or(if text.trim().is_empty() { status.as_str() } else { text.trim() })
            );
        }
        Ok(value)
    }
}
