//! The applications. Each knows only its own proxy. It sends every request to that proxy, with the name of the service.

mod details;
mod page;
mod productpage;
mod ratings;
mod reviews;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use serin_transport::Listener;

use crate::client::Client;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The services of Bookinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// The page.
    Productpage,
    /// Facts about the book.
    Details,
    /// Reviews of the book.
    Reviews,
    /// Ratings in stars.
    Ratings,
}

/// Options of one application.
#[derive(Debug, Clone, Args)]
pub struct AppOptions {
    /// Service to run
    #[arg(long)]
    service: Service,
    /// Version of the service
    #[arg(long, default_value = "v1")]
    version: String,
    /// Name of the instance
    #[arg(long)]
    name: String,
    /// Listen address
    #[arg(long)]
    listen: SocketAddr,
    /// Share of requests that fail, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    fail: f64,
    /// Delay before each response
    #[arg(long, value_parser = serin_ingest::duration, default_value = "0s")]
    delay: Duration,
    /// Address of the outbound listener of its proxy
    #[arg(long, required_unless_present = "direct")]
    mesh: Option<SocketAddr>,
    /// Without a proxy: addresses of the services that it calls, SERVICE=HOST:PORT
    #[arg(long, value_delimiter = ',')]
    direct: Vec<String>,
}

/// The port by which services are called.
const PORT: u16 = 9080;

/// Headers that an application passes on to those it calls.
const PASSED_ON: [&str; 13] = [
    "end-user",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "cookie",
    "authorization",
    "user-agent",
];

/// The state that handlers share.
#[derive(Clone)]
struct App {
    name: Arc<str>,
    version: Arc<str>,
    mesh: Option<SocketAddr>,
    direct: Arc<Vec<(String, SocketAddr)>>,
    turn: Arc<AtomicUsize>,
    client: Client,
}

/// Runs an application until the process is ended.
///
/// # Errors
/// When its address cannot be bound.
pub fn run(options: &AppOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &AppOptions) -> anyhow::Result<()> {
    let direct = options.direct.iter().map(|pair| {
        let (name, address) = pair.split_once('=').with_context(|| format!("'{pair}' is not SERVICE=HOST:PORT"))?;
        Ok((name.to_owned(), address.parse()?))
    });
    let app = App {
        name: options.name.as_str().into(),
        version: options.version.as_str().into(),
        mesh: options.mesh,
        direct: Arc::new(direct.collect::<anyhow::Result<_>>()?),
        turn: Arc::default(),
        client: Client::new(),
    };
    let router = match options.service {
        Service::Productpage => productpage::router(),
        Service::Details => details::router(),
        Service::Reviews => reviews::router(),
        Service::Ratings => ratings::router(),
    };
    let faults = Faults { fail: options.fail, delay: options.delay, turn: Arc::default() };
    let router = router.layer(axum::middleware::from_fn_with_state(faults, faulty));
    let router: Router = router.route("/health", axum::routing::get(|| async { "ok" })).with_state(app);
    let socket =
        Listener::bind(options.listen, BACKLOG).with_context(|| format!("cannot listen on {}", options.listen))?;
    axum::serve(socket, router).await?;
    Ok(())
}

/// The faults of an application, on purpose.
#[derive(Clone)]
struct Faults {
    fail: f64,
    delay: Duration,
    turn: Arc<AtomicUsize>,
}

/// Waits and fails as it is told to: of every hundred requests so many, spread evenly.
async fn faulty(
    axum::extract::State(faults): axum::extract::State<Faults>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    if !faults.delay.is_zero() {
        tokio::time::sleep(faults.delay).await;
    }
    let turn = faults.turn.fetch_add(1, Relaxed) as f64;
    if ((turn + 1.0) * faults.fail).floor() > (turn * faults.fail).floor() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "it fails on purpose\n").into_response();
    }
    next.run(request).await
}

impl App {
    /// Calls another service through the mesh, passing on what must be passed on.
    async fn call(
        &self,
        service: &str,
        path: &str,
        headers: &HeaderMap,
        limit: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let address = self.address(service)?;
        let mut request = Request::get(format!("http://{address}{path}"));
        for name in PASSED_ON {
            for value in headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        request = request.header("host", HeaderValue::from_str(&format!("{service}:{PORT}"))?);
        self.client.send(request.body(Full::default())?, limit).await
    }

    fn address(&self, service: &str) -> anyhow::Result<SocketAddr> {
        if let Some(mesh) = self.mesh {
            return Ok(mesh);
        }
        let all: Vec<SocketAddr> = self.direct.iter().filter(|(name, _)| name == service).map(|(_, a)| *a).collect();
        let turn = self.turn.fetch_add(1, Relaxed);
        all.get(turn % all.len().max(1)).copied().with_context(|| format!("no address of {service}"))
    }
}

/// A JSON response.
fn json(status: StatusCode, value: &Value) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    (status, [("content-type", "application/json")], value.to_string())
}
