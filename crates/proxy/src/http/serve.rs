//! The life of a request, one stage after the other. Every stage takes plain arguments and yields a value or an answer.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use serin_http1::RequestHead;
use serin_http1::framing::Framing;
use serin_resources::cluster::Protocol;
use serin_resources::fault::{AbortStatus, Fault};
use serin_resources::header::HeaderEdits;
use serin_resources::listener::Filter;
use serin_resources::route::{Action, Forward, WeightedCluster};
use serin_traffic::outcome::Outcome;
use serin_traffic::router::{CompiledHost, CompiledRoute, RouteTable};
use serin_traffic::{fault, header_edit, redirect, retry, rewrite};
use tokio::time::Instant;

use super::attempt::{Answer, Attempt, Failure, choose};
use super::body::RequestBody;
use super::finish::Record;
use super::forward::Side;
use super::local_reply::LocalReply;
use super::respond::{self, Responder, Served};
use super::{ConnectionContext, request};
use crate::metric;
use crate::runtime::{ClusterRuntime, Host, Permit};
use crate::timer::Timers;
use crate::worker::{LocalCluster, View};

/// Serves one request; `framing` is that of its body.
pub(crate) async fn serve(
    context: &Rc<ConnectionContext>,
    head: &mut RequestHead,
    framing: Framing,
    mut body: RequestBody<'_>,
    responder: Responder<'_>,
) -> Served {
    let (known, view) = context.view();
    let mut record = Record::new(context, &view, body.timers.last());
    record.request(head);
    if !known {
        let reply = LocalReply { close: true, ..LocalReply::new(503, "the listener was removed", "NR") };
        return respond::local(reply, (head, &body), responder, &mut record).await;
    }
    if head.is_connect() {
        let reply = LocalReply { close: true, ..LocalReply::empty(405, "-") };
        return respond::local(reply, (head, &body), responder, &mut record).await;
    }
    let Filter::Http(http) = &view.listener.config.filter else {
        // The listener became another: the connection ends as its configuration did.
        return Served::Abort;
    };
    body.idle = http.timeouts.stream_idle;
    let websocket = match request::normalise(context, http, head) {
        Ok(asked) => asked,
        Err(error) => {
            let reply = LocalReply { close: true, ..LocalReply::new(error.status(), error.to_string(), "-") };
            return respond::local(reply, (head, &body), responder, &mut record).await;
        }
    };
    record.request(head);
    let Some(place) = find(&view.table, head, context.worker.random()) else {
        record.count(metric::http::NO_ROUTE);
        return respond::local(LocalReply::empty(404, "NR"), (head, &body), responder, &mut record).await;
    };
    record.route(&place.route.config.name);
    let stages = Stages { context, view: &view, place, faults: http.fault.as_ref(), framing, websocket };
    let outcome = stages.run(head, &mut body, &mut record).await;
    let served = match outcome {
        Ok(forwarded) => {
            let edits = stages.response_edits(forwarded.destination);
            let server = http.server_name.as_deref();
            respond::answer(forwarded, respond::Shape { edits, server }, &mut body, (responder, &mut record)).await
        }
        Err(Some(reply)) => respond::local(reply.for_request(head), (head, &body), responder, &mut record).await,
        Err(None) => Served::Abort,
    };
    record.received = body.received();
    served
}

/// Where a request belongs.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a CompiledHost,
    route: &'a CompiledRoute,
}

fn find<'a>(table: &'a RouteTable, head: &RequestHead, random: u64) -> Option<Place<'a>> {
    let host = table.virtual_host(head.authority())?;
    let route = RouteTable::route(host, head, random)?;
    Some(Place { host, route })
}

/// An answer from upstream, with what the rest of the request needs.
pub(crate) struct Forwarded<'a> {
    pub(crate) answer: Answer,
    pub(crate) cluster: Rc<LocalCluster>,
    pub(crate) destination: &'a WeightedCluster,
    pub(crate) deadline: Option<Instant>,
    pub(crate) permit: Permit,
}

/// The stages after routing, with what all of them look at.
struct Stages<'a> {
    context: &'a Rc<ConnectionContext>,
    view: &'a View,
    place: Place<'a>,
    faults: Option<&'a Fault>,
    framing: Framing,
    websocket: bool,
}

impl<'a> Stages<'a> {
    /// An answer from upstream; `Err(Some)` is an answer of our own, `Err(None)` a client that is gone.
    async fn run(
        &self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut Record,
    ) -> Result<Forwarded<'a>, Option<LocalReply>> {
        let forward = self.local_reply(head, record)?;
        self.inject_fault(head, body, record).await?;
        let drawn = self.place.route.split.pick(self.context.worker.random());
        let destination = forward.clusters.get(drawn).ok_or(None)?;
        let number = self.place.route.clusters.get(drawn).copied().unwrap_or(usize::MAX);
        record.cluster(&destination.name);
        let Some(cluster) = self.view.cluster(number, &self.context.worker).cloned() else {
            record.count(metric::http::NO_CLUSTER);
            return Err(Some(LocalReply::empty(forward.cluster_not_found_status, "NC")));
        };
        self.edit_request(head, forward, destination);
        let permit = admit(&cluster, self.context.worker.id)?;
        let deadline = (!forward.timeout.is_zero()).then(|| body.timers.last() + forward.timeout);
        let answer = self.attempts(head, body, (&cluster, deadline), record).await?;
        Ok(Forwarded { answer, cluster, destination, deadline, permit })
    }

    /// What is answered without an upstream: redirects, fixed answers, https where it is demanded.
    fn local_reply(&self, head: &RequestHead, record: &Record) -> Result<&'a Forward, Option<LocalReply>> {
        let forwarded = head.fields.get("x-forwarded-proto") == Some(b"https");
        if self.place.host.config.require_tls && !forwarded {
            let location = [b"https://", head.authority(), head.target()].concat();
            record.count(metric::http::RQ_REDIRECT);
            return Err(Some(redirect_to(301, &location)));
        }
        match &self.place.route.config.action {
            Action::Forward(forward) => Ok(forward),
            Action::Redirect(config) => {
                record.count(metric::http::RQ_REDIRECT);
                let location = redirect::location(config, self.place.route, head, "http");
                Err(Some(redirect_to(config.status, &location)))
            }
            Action::Respond(respond) => {
                record.count(metric::http::RQ_DIRECT_RESPONSE);
                let mut reply = LocalReply::new(respond.status, &respond.body, "-");
                for edits in [&self.place.route.config.response_headers, &self.place.host.config.response_headers] {
                    header_edit::apply(edits, &mut reply.head.fields);
                }
                Err(Some(reply))
            }
        }
    }

    /// Forced delay and abort: the route's, else the virtual host's, else the filter's own.
    async fn inject_fault(
        &self,
        head: &RequestHead,
        body: &mut RequestBody<'_>,
        record: &Record,
    ) -> Result<(), Option<LocalReply>> {
        let Some(listeners) = self.faults else { return Ok(()) };
        let config =
            self.place.route.config.fault.as_ref().or(self.place.host.config.fault.as_ref()).unwrap_or(listeners);
        if config.delay.is_none() && config.abort.is_none() {
            return Ok(());
        }
        let worker = &self.context.worker;
        let injection = fault::decide(config, head, (worker.random(), worker.random()));
        if let Some(delay) = injection.delay {
            record.count(metric::http::DELAYS_INJECTED);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = body.abandoned() => return Err(None),
            }
            body.timers.tick();
        }
        match injection.abort {
            None => Ok(()),
            Some(status) => {
                record.count(metric::http::ABORTS_INJECTED);
                Err(Some(match status {
                    AbortStatus::Http(code) => LocalReply::new(code, "fault filter abort", "FI"),
                    AbortStatus::Grpc(code) => LocalReply::new(200, "fault filter abort", "FI").grpc(code),
                }))
            }
        }
    }

    /// Header edits from the most specific level to the least, then path and authority.
    fn edit_request(&self, head: &mut RequestHead, forward: &Forward, destination: &WeightedCluster) {
        let config = &self.place.route.config;
        for edits in [
            &destination.request_headers,
            &config.request_headers,
            &self.place.host.config.request_headers,
            &self.view.table.request_headers,
        ] {
            header_edit::apply(edits, &mut head.fields);
        }
        if let Some(path_rewrite) = &forward.path_rewrite
            && let Some(target) = rewrite::target(self.place.route, path_rewrite, head)
        {
            let original = head.target().to_vec();
            head.fields.set("x-envoy-original-path", &original);
            head.set_target(&target);
        }
        let literal = destination.host_rewrite.as_ref().map(|h| h.as_bytes().to_vec());
        let authority = literal.or_else(|| forward.host_rewrite.as_ref().and_then(|h| rewrite::authority(h, head, "")));
        if let Some(authority) = authority.filter(|a| *a != head.authority()) {
            if forward.append_x_forwarded_host {
                let original = head.authority().to_vec();
                head.fields.append(b"x-forwarded-host", &original);
            }
            head.fields.set("host", &authority);
        }
    }

    fn response_edits(&self, destination: &'a WeightedCluster) -> [&'a HeaderEdits; 4]
    where
        Self: 'a,
    {
        let Place { host, route } = self.place;
        [
            &destination.response_headers,
            &route.config.response_headers,
            &host.config.response_headers,
            &self.view.table.response_headers,
        ]
    }

    /// Tries until an answer is acceptable, the policy is exhausted or the time is up.
    async fn attempts(
        &self,
        head: &RequestHead,
        body: &mut RequestBody<'_>,
        (cluster, deadline): (&Rc<LocalCluster>, Option<Instant>),
        record: &mut Record,
    ) -> Result<Answer, Option<LocalReply>> {
        let worker = &self.context.worker;
        let policy = self.place.route.retry.as_ref();
        let h2 = match cluster.config.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Downstream => head.version == serin_http1::Version::Http2,
        };
        let attempt = Attempt { worker, cluster, head, framing: self.framing, websocket: self.websocket, h2 };
        if policy.is_some() || head.is_idempotent() {
            body.keep();
        }
        let mut tried = Vec::new();
        let mut retries = 0;
        let mut repeating: Option<Permit> = None;
        loop {
            let draws = policy.filter(|p| p.avoid_previous_hosts).map_or(1, |p| p.host_selection_attempts);
            let Some(choice) = choose(worker, cluster, &tried, draws) else {
                cluster.state.stats.add(worker.id, metric::cluster::CX_NONE_HEALTHY, 1);
                return Err(Some(LocalReply::new(503, "no healthy upstream", "UH")));
            };
            let Some(host) = cluster.hosts.get(choice).map(|local| &local.host) else { return Err(None) };
            record.upstream = Some(host.address);
            record.attempts += 1;
            let per_try = policy.and_then(|p| p.per_try_timeout).map(|d| body.timers.last() + d);
            let timers = body.timers;
            let (result, whole) = bounded(timers, pin!(attempt.run(choice, body)), per_try, deadline).await;
            drop(repeating.take());
            let outcome = match &result {
                Some(Ok(answer)) => Outcome::Response { status: answer.head.status, grpc: grpc_status(answer) },
                Some(Err(Failure::Outcome(outcome))) => *outcome,
                Some(Err(Failure::Client)) => return Err(None),
                Some(Err(Failure::Stalled(side))) => return Err(Some(stalled(*side))),
                Some(Err(Failure::Malformed)) => return Err(Some(bad_request())),
                None => self.timed_out(cluster, host, whole),
            };
            let again = !whole && policy.is_some_and(|p| retry::wanted(p, outcome));
            let exhausted = policy.is_none_or(|p| retries >= p.attempts);
            if again
                && !exhausted
                && body.is_repeatable()
                && let Some(permit) = self.permit_retry(cluster)
            {
                repeating = Some(permit);
                retries += 1;
                if let Some(Ok(answer)) = result {
                    answer.in_flight.outcome(outcome);
                }
                tried.push(host.id);
                body.rewind();
                let wait = policy.map_or(Duration::ZERO, |p| retry::back_off(p, retries, worker.random()));
                self.wait(cluster, wait, deadline).await?;
                body.timers.tick();
                continue;
            }
            if again && exhausted {
                cluster.state.stats.add(worker.id, metric::cluster::RQ_RETRY_LIMIT_EXCEEDED, 1);
            }
            body.forget();
            return match result {
                Some(Ok(answer)) => {
                    if retries > 0 && answer.head.status < 500 {
                        cluster.state.stats.add(worker.id, metric::cluster::RQ_RETRY_SUCCESS, 1);
                    }
                    Ok(answer)
                }
                _ => Err(Some(LocalReply::new(outcome.status(), outcome.reason(), outcome.flag()))),
            };
        }
    }

    fn timed_out(&self, cluster: &ClusterRuntime, host: &Host, whole: bool) -> Outcome {
        let index = if whole { metric::cluster::RQ_TIMEOUT } else { metric::cluster::RQ_PER_TRY_TIMEOUT };
        cluster.state.stats.add(self.context.worker.id, index, 1);
        host.stats.add(self.context.worker.id, metric::host::RQ_TIMEOUT, 1);
        host.stats.add(self.context.worker.id, metric::host::RQ_ERROR, 1);
        cluster.note(host, Outcome::Timeout);
        Outcome::Timeout
    }

    /// A place among the cluster's retries in flight, unless all are taken; it is held until the try is answered.
    fn permit_retry(&self, cluster: &ClusterRuntime) -> Option<Permit> {
        let permit = Permit::take(&cluster.state, |s| &s.retries, cluster.config.max_retries);
        if permit.is_none() {
            cluster.state.stats.add(self.context.worker.id, metric::cluster::RQ_RETRY_OVERFLOW, 1);
        }
        permit
    }

    async fn wait(
        &self,
        cluster: &ClusterRuntime,
        wait: Duration,
        deadline: Option<Instant>,
    ) -> Result<(), Option<LocalReply>> {
        cluster.state.stats.add(self.context.worker.id, metric::cluster::RQ_RETRY, 1);
        let until = Instant::now() + wait;
        if deadline.is_some_and(|d| until >= d) {
            let outcome = Outcome::Timeout;
            return Err(Some(LocalReply::new(outcome.status(), outcome.reason(), outcome.flag())));
        }
        if !wait.is_zero() {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }
}

/// The output unless the earlier of the two times comes first; the flag tells whether it was `deadline`.
async fn bounded<F: Future>(
    timers: &Timers,
    future: Pin<&mut F>,
    per_try: Option<Instant>,
    deadline: Option<Instant>,
) -> (Option<F::Output>, bool) {
    let until = [per_try, deadline].into_iter().flatten().min();
    match timers.until(until, future).await {
        Some(output) => (Some(output), false),
        None => (None, deadline.is_some_and(|d| Some(d) <= until)),
    }
}

fn grpc_status(answer: &Answer) -> Option<u32> {
    answer.head.fields.get_str("grpc-status").and_then(|v| v.parse().ok())
}

fn admit(cluster: &ClusterRuntime, worker: usize) -> Result<Permit, Option<LocalReply>> {
    Permit::take(&cluster.state, |s| &s.requests, cluster.config.max_requests).ok_or_else(|| {
        cluster.state.stats.add(worker, metric::cluster::RQ_PENDING_OVERFLOW, 1);
        let reason = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        let mut reply = LocalReply::new(503, reason, "UO");
        reply.head.fields.append(b"x-envoy-overloaded", b"true");
        Some(reply)
    })
}

fn bad_request() -> LocalReply {
    LocalReply { close: true, ..LocalReply::new(400, "Bad Request", "DPE") }
}

/// What is answered when one side was silent for too long (Envoy: stream idle timeout).
fn stalled(side: Side) -> LocalReply {
    let status = if side == Side::Client { 408 } else { 504 };
    LocalReply { close: side == Side::Client, ..LocalReply::new(status, "stream timeout", "SI") }
}

fn redirect_to(status: u16, location: &[u8]) -> LocalReply {
    let mut reply = LocalReply::empty(status, "-");
    reply.head.fields.append(b"location", location);
    reply
}
