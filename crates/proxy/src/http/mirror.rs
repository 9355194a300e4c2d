//! Copies of requests to other clusters. Nobody waits for their responses, and nothing of theirs reaches the client.
//! Source: Envoy, "Traffic shadowing": the copy's authority gets `-shadow`, ports kept.

use serin_traffic::grpc::GrpcStatus;
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serin_http1::RequestHead;
use serin_http1::encode::decimal;
use serin_http1::framing::Framing;
use serin_resources::route::{Action, Mirror};
use serin_traffic::balance::LbContext;
use serin_traffic::header_edit::{self, CommandSource};
use serin_traffic::outcome::Outcome;
use serin_traffic::split::drawn;

use super::attempt::{Attempt, Failure, choose, request_style};
use super::attempts::grpc_status;
use super::body::{BodyCopy, RequestBody, Source};
use super::compare::{Pair, Tap};
use super::forward::Moved;
use super::stage::Stages;
use super::{forward, request, respond};
use crate::metric;
use crate::timer::Timers;
use crate::worker::{LocalCluster, Worker};

/// Nothing but the heads is known of a copy.
struct Nothing;

impl CommandSource for Nothing {
    fn command(&self, _: &str, _: Option<&str>) -> Option<String> {
        None
    }
}

/// Sends the copies that the route asks for; their bodies follow as the request's is received. What is returned waits for the
/// client's response, to be compared.
pub(super) fn start(stages: &Stages<'_>, head: &RequestHead, body: &mut RequestBody<'_>) -> Vec<Rc<Pair>> {
    let mut pairs = Vec::new();
    let worker = &stages.context.worker;
    for (mirror, number) in &stages.place.route.mirrors {
        if !drawn(mirror.share, worker.random()) {
            continue;
        }
        let cluster = match mirror.cluster_header.as_str() {
            "" => stages.cluster(*number),
            header => head.fields.get_str(header).and_then(|name| stages.cluster_named(name)),
        };
        if let Some(cluster) = cluster {
            let limit = match &stages.place.route.config.action {
                Action::Forward(forward) if !forward.timeout.is_zero() => forward.timeout,
                _ => Duration::from_secs(15),
            };
            let pair = stages.comparison().map(|config| Pair::new(worker, config, &cluster.config.name, head));
            pairs.extend(pair.clone());
            send(stages, Planned { mirror, cluster, pair, limit }, head, body);
        }
    }
    pairs
}

/// A copy that is to be sent.
struct Planned<'a> {
    mirror: &'a Mirror,
    cluster: Rc<LocalCluster>,
    /// Compares its response with the client's.
    pair: Option<Rc<Pair>>,
    /// The time limit of its response.
    limit: Duration,
}

fn send(stages: &Stages<'_>, planned: Planned<'_>, head: &RequestHead, body: &mut RequestBody<'_>) {
    let Planned { mirror, cluster, pair, limit } = planned;
    let mut copy = head.clone();
    let authority = match &mirror.host_rewrite {
        Some(host) => host.clone().into_bytes(),
        None if mirror.plain_host => copy.authority().to_vec(),
        None => shadowed(copy.authority()),
    };
    copy.fields.set("host", &authority);
    copy.fields.set("x-envoy-internal", b"true");
    if let Some(local) = stages.context.local {
        request::add_hop(&local.ip(), &mut copy);
    }
    let mut digits = [0u8; 20];
    if !stages.http.suppress_envoy_headers {
        let left = decimal(limit.as_millis() as u64, &mut digits);
        copy.fields.set("x-envoy-expected-rq-timeout-ms", left);
    }
    header_edit::mutate_request(&mirror.headers, &mut copy, &Nothing);
    let (context, framing, body) = (stages.context.clone(), stages.framing, body.copy());
    tokio::task::spawn_local(async move {
        let shadow = Shadow { worker: &context.worker, cluster: &cluster, pair: pair.as_ref(), head: &copy };
        shadow.run(framing, body, limit).await;
    });
}

/// A copy of a request on its way.
struct Shadow<'a> {
    worker: &'a Rc<Worker>,
    cluster: &'a Rc<LocalCluster>,
    pair: Option<&'a Rc<Pair>>,
    head: &'a RequestHead,
}

impl Shadow<'_> {
    /// Sends it, and counts how it went: who mirrors to a new version wants to know how it does.
    async fn run(&self, framing: Framing, body: BodyCopy, limit: Duration) {
        let Some(_permit) = self.cluster.permit_request(false) else { return };
        let Some(choice) = choose(self.worker, self.cluster, &LbContext::default(), &[], 1) else { return };
        let Some(local) = self.cluster.hosts.get(choice) else { return };
        let began = self.worker.state.reports_loads().then(Instant::now);
        let timers = Timers::new();
        let mut body = RequestBody::new(Source::Copy(body), &timers);
        // As for any request, the time for the response begins when it has come.
        let until = || timers.received().map(|received| received + limit);
        let answered = Cell::new(false);
        let exchange = pin!(self.exchange(choice, framing, &mut body, &answered));
        let good = timers.limited(until, exchange).await.unwrap_or_else(|| {
            self.cluster.state.stats.add(self.worker.id, metric::cluster::RQ_TIMEOUT, 1);
            // Its head has counted already.
            if !answered.get() {
                local.host.stats.add(self.worker.id, metric::host::RQ_TIMEOUT, 1);
                local.host.stats.add(self.worker.id, metric::host::RQ_ERROR, 1);
                self.cluster.note(&local.host, Outcome::Timeout);
            }
            Some(false)
        });
        if let (Some(began), Some(good)) = (began, good) {
            local.host.first_attempt(self.worker.id, began.elapsed(), (!good).then_some(0), !good);
        }
    }

    /// Makes the request and throws the response away, once it was compared: whether it was a good one, or nothing when it says
    /// nothing of the endpoint.
    async fn exchange(
        &self,
        choice: usize,
        framing: Framing,
        body: &mut RequestBody<'_>,
        answered: &Cell<bool>,
    ) -> Option<bool> {
        let Self { worker, cluster, head, .. } = *self;
        let codec = cluster.config.codec.of(head.version.codec());
        let attempt = Attempt {
            worker,
            cluster,
            head,
            framing,
            upgrade: None,
            terminated: None,
            style: request_style(serin_resources::protocol::NameCase::Lower, &cluster.config.http1),
            codec,
            high: false,
            idle: None,
        };
        let mut answer = match attempt.run(choice, body).await {
            Ok(answer) => answer,
            Err(Failure::Outcome(Outcome::Overflow) | Failure::Client) => return None,
            Err(_) => return Some(false),
        };
        let (status, of_head) = (answer.head.status, grpc_status(&answer));
        answer.in_flight.outcome(Outcome::Response { status, grpc: of_head });
        answered.set(true);
        let tap = Tap::default();
        let seen = self.pair.map(|pair| pair.head(&answer.head));
        let (moved, of_trailers) = forward::discard(&mut answer, body, self.pair.is_some().then_some(&tap)).await;
        match moved {
            Moved::Complete | Moved::Early => {}
            Moved::ClientGone => return None,
            Moved::UpstreamGone | Moved::Malformed | Moved::TimedOut | Moved::Idle => {
                answer.in_flight.ended(None);
                return Some(false);
            }
        }
        if let Some((pair, seen)) = self.pair.zip(seen) {
            pair.complete(true, seen, &tap);
        }
        let grpc = of_head.or(of_trailers);
        answer.in_flight.ended(grpc);
        if moved == Moved::Complete {
            respond::recycle(answer, cluster, body.timers.tick());
        }
        Some(status < 500 && !grpc.is_some_and(GrpcStatus::is_server_error))
    }
}

/// The authority with `-shadow` behind its name, before its port.
fn shadowed(authority: &[u8]) -> Vec<u8> {
    let port = authority
        .iter()
        .rposition(|b| *b == b':')
        .filter(|at| authority.get(at + 1..).is_some_and(|p| !p.is_empty() && p.iter().all(u8::is_ascii_digit)));
    let (name, port) = authority.split_at(port.unwrap_or(authority.len()));
    [name, b"-shadow", port].concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shadow_keeps_its_port() {
        assert_eq!(super::shadowed(b"a.example:80"), b"a.example-shadow:80");
        assert_eq!(super::shadowed(b"a.example"), b"a.example-shadow");
    }
}
