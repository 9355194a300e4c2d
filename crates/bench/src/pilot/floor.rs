//! The limit of the simulated proxies: a server that only pushes bytes encoded beforehand, to all of them at once.
//!
//! It says how fast the clients acknowledge a response of a size, and so from when on they would be the limit of a pilot.
//! It sends route configurations, with one field of padding that the clients pass over as they do with virtual hosts.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::clients::now;
use super::fleet::{Classes, Fleet};
use super::measure::{percentile, processors};
use super::session::{Kind, Mode};
use super::wire::{DeltaRequest, DeltaResource, DeltaResponse, Sized, Typed, Wire};
use crate::cpu;

/// A push to every client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pushes {
    pub(crate) proxies: usize,
    pub(crate) bytes: usize,
    pub(crate) rounds: usize,
    pub(crate) threads: usize,
}

/// Pushes some times and returns a line of figures.
pub(crate) fn run(pushes: Pushes) -> anyhow::Result<String> {
    let Pushes { proxies, bytes, rounds, threads } = pushes;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (sender, _) = broadcast::channel(4);
    let address = crate::rounds::free_port()?;
    let floor = Floor { pushes: sender.clone() };
    runtime.spawn(tonic::transport::Server::builder().add_service(floor).serve(address));
    let mut fleet = Fleet::start(address, Mode::Delta, threads)?;
    let all = 0..proxies;
    fleet.connect(&all, Classes { first: 0, count: 1 })?;
    let began = Instant::now();
    while sender.receiver_count() < proxies {
        ensure!(began.elapsed() < Duration::from_secs(60), "the clients do not connect");
        std::thread::sleep(Duration::from_millis(20));
    }
    let response = response(bytes);
    let (mut millis, mut last, mut used) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(200));
        fleet.expect(&all, &[&[Kind::Routes]])?;
        let (before, started) = (cpu::usage(fleet.pid()).nanos, now());
        sender.send(response.clone())?;
        // The clients wait for clusters that never come, so that only the responses say that a push has arrived.
        while fleet.collect(&all)?.responses < proxies as u64 {
            ensure!(now() - started < 60_000_000_000, "a push does not arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        used += cpu::usage(fleet.pid()).nanos - before;
        let times = fleet.collect(&all)?.all;
        let own: Vec<f64> = times.iter().map(|time| time.saturating_sub(started) as f64 / 1e6).collect();
        last.push(percentile(&own, 1.0));
        millis.extend(own);
    }
    Ok(format!(
        "{proxies} proxies, {} bytes each, {rounds} pushes, {threads} threads of {} processors: p50 {:.2} ms, p99 {:.2} ms, \
         until the last {:.2} ms (median), clients' CPU {:.2} ms a push\n",
        response.len(),
        processors(),
        percentile(&millis, 0.5),
        percentile(&millis, 0.99),
        percentile(&last, 0.5),
        used as f64 / 1e6 / rounds as f64,
    ))
}

/// Returns an encoded response with a route configuration of a size.
fn response(bytes: usize) -> Bytes {
    let padding = Typed { type_url: String::new(), value: vec![0; bytes].into() };
    let type_url = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".to_owned();
    let body = Some(super::wire::Body { value: padding.encode_to_vec().into() });
    let resources = vec![DeltaResource { name: "80".to_owned(), body }];
    let response = DeltaResponse { resources, type_url, nonce: "n".to_owned(), removed: Vec::new() };
    response.encode_to_vec().into()
}

/// The server: every stream gets what is pushed.
#[derive(Clone)]
struct Floor {
    pushes: broadcast::Sender<Bytes>,
}

impl NamedService for Floor {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for Floor {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let stream = Pushed { pushes: self.pushes.clone() };
        Box::pin(async move { Ok(Grpc::new(Encoded).streaming(stream, request).await) })
    }
}

/// One stream of the server.
struct Pushed {
    pushes: broadcast::Sender<Bytes>,
}

impl StreamingService<Sized<DeltaRequest>> for Pushed {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Sized<DeltaRequest>>>) -> Self::Future {
        let mut requests = request.into_inner();
        let mut pushes = self.pushes.subscribe();
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(_acknowledged)) = request else { return };
                    }
                    push = pushes.recv() => {
                        let Ok(push) = push else { return };
                        if sender.send(Ok(push)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(receiver))) })
    }
}

/// The codec of responses that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Sized<DeltaRequest>;
    type Encoder = Self;
    type Decoder = Wire<DeltaRequest, DeltaRequest>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        Wire::default()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_has_the_size_that_was_asked_for() {
        let encoded = response(10_000);
        assert!((10_000..10_200).contains(&encoded.len()));
        let decoded = DeltaResponse::decode(encoded).unwrap();
        assert_eq!(decoded.resources[0].name, "80");
    }
}
