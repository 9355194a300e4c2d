//! A small HTTP client for applications and for the demo's own questions.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Keeps connections.
#[derive(Clone)]
pub(crate) struct Client(Legacy<HttpConnector, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        Self(Legacy::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector))
    }

    /// Sends a request and reads the response, all within `limit`.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.0.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        tokio::time::timeout(limit, exchange).await?
    }

    /// GET of a URL.
    pub(crate) async fn get(&self, url: &str, limit: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
        self.send(Request::get(url).body(Full::default())?, limit).await
    }

    /// POST of nothing to a URL.
    pub(crate) async fn post(&self, url: &str, limit: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
        self.send(Request::post(url).body(Full::default())?, limit).await
    }
}
