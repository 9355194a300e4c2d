//! Copies of requests to other clusters. Nobody waits for their answers, and nothing of theirs reaches the client.
//! Source: Envoy, "Traffic shadowing": the copy's authority gets `-shadow`, ports kept.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serin_http1::encode::decimal;
use serin_http1::framing::Framing;
use serin_http1::{RequestHead, Version};
use serin_resources::route::{Action, Mirror};
use serin_traffic::balance::Wish;
use serin_traffic::header_edit::{self, Facts};
use serin_traffic::outcome::Outcome;
use serin_traffic::split::drawn;

use super::attempt::{Attempt, Failure, choose};
use super::attempts::grpc_status;
use super::body::{BodyCopy, RequestBody, Source};
use super::compare::{Pair, Tap};
use super::finish::is_server_error;
use super::stage::Stages;
use super::{forward, request, respond};
use crate::timer::Timers;
use crate::worker::{LocalCluster, Worker};

/// Nothing but the heads is known of a copy.
struct Nothing;

impl Facts for Nothing {
    fn command(&self, _: &str, _: Option<&str>) -> Option<String> {
        None
    }
}

/// Sends the copies that the route asks for; their bodies follow as the request's is received. What is returned waits for the
/// client's answer, to be compared.
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
            send(stages, (mirror, cluster), head, (body, pair), limit);
        }
    }
    pairs
}

fn send(
    stages: &Stages<'_>,
    (mirror, cluster): (&Mirror, Rc<LocalCluster>),
    head: &RequestHead,
    (body, pair): (&mut RequestBody<'_>, Option<Rc<Pair>>),
    limit: Duration,
) {
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
    header_edit::to_request(&mirror.headers, &mut copy, &Nothing);
    let (context, framing, body) = (stages.context.clone(), stages.framing, body.copy());
    let of = (cluster, pair);
    tokio::task::spawn_local(async move {
        let worker = &context.worker;
        let began = worker.state.reports_loads().then(Instant::now);
        let chosen = Cell::new(None);
        let exchange = exchange(worker, &of, &chosen, (&copy, framing, body));
        let good = tokio::time::timeout(limit, exchange).await.unwrap_or(false);
        // Who mirrors to a new version wants to know how it does; one that hangs does badly.
        if let (Some(began), Some(local)) = (began, chosen.get().and_then(|choice| of.0.hosts.get(choice))) {
            local.host.first_attempt(worker.id, began.elapsed(), !good);
        }
    });
}

/// Makes the request and throws the answer away, once it was compared; whether it was a good one.
async fn exchange(
    worker: &Rc<Worker>,
    (cluster, pair): &(Rc<LocalCluster>, Option<Rc<Pair>>),
    chosen: &Cell<Option<usize>>,
    (head, framing, body): (&RequestHead, Framing, BodyCopy),
) -> bool {
    let Some(_permit) = cluster.permit_request(false) else { return false };
    let h2 = cluster.config.protocol.is_h2(head.version == Version::Http2);
    let Some(choice) = choose(worker, cluster, &Wish::default(), &[], 1) else { return false };
    let timers = Timers::new();
    let mut body = RequestBody::new(Source::Copy(body), &timers);
    let attempt = Attempt { worker, cluster, head, framing, websocket: false, h2, high: false, idle: None };
    let answer = attempt.run(choice, &mut body).await;
    if !matches!(answer, Err(Failure::Outcome(Outcome::Overflow) | Failure::Client)) {
        chosen.set(Some(choice));
    }
    let Ok(mut answer) = answer else { return false };
    let (status, of_head) = (answer.head.status, grpc_status(&answer));
    answer.in_flight.outcome(Outcome::Response { status, grpc: of_head });
    let tap = Tap::default();
    let seen = pair.as_ref().map(|pair| pair.head(&answer.head));
    let whole = forward::discard(&mut answer, &mut body, pair.is_some().then_some(&tap)).await;
    let Some(of_trailers) = whole else { return false };
    if let Some((pair, seen)) = pair.as_ref().zip(seen) {
        pair.complete(true, seen, &tap);
    }
    respond::recycle(answer, cluster, timers.tick());
    status < 500 && !is_server_error(of_head.or(of_trailers))
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
