//! Attempts of a request until a response is acceptable, the policy is exhausted or the time is up.

mod hedge;
mod replies;

use serin_traffic::grpc::GrpcStatus;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serin_http1::encode::decimal;
use serin_http1::{RequestHead, ResponseHead};
use serin_resources::retry::RetryPolicy;
use serin_resources::route::{Forward, HostRewrite};
use serin_traffic::balance::LbContext;
use serin_traffic::outcome::Outcome;
use serin_traffic::router::is_grpc;
use serin_traffic::{retry, timeout};
use tokio::time::Instant;

use super::attempt::{Answer, Attempt, Failure, choose, request_style};
use super::body::{KEEP, RequestBody};
use super::deadlines::Deadlines;
use super::finish::StreamInfo;
use super::local_reply::{LocalReply, Stop};
use super::stage::{MatchedRoute, Stages};
use super::upgrade;
use crate::metric;
use crate::runtime::{ClusterRuntime, Host, Permit};
use crate::timer::Timers;
use crate::worker::LocalCluster;
use replies::{bad_request, bad_trailer, ended, failed, nobody, request_late, stalled, too_large};

/// The properties by which an endpoint is chosen.
pub(super) struct Target<'a> {
    pub(super) hash: Option<u64>,
    pub(super) metadata: Option<Cow<'a, BTreeMap<String, String>>>,
}

/// The upstream of a request: its cluster, by what an endpoint of it is chosen, and how long the request may take.
pub(super) struct Upstream<'a> {
    pub(super) forward: &'a Forward,
    pub(super) cluster: &'a Rc<LocalCluster>,
    pub(super) target: &'a Target<'a>,
    pub(super) deadlines: Deadlines,
}

/// Makes attempts; returns the last response, acceptable or not.
pub(super) async fn run(
    stages: &Stages<'_>,
    upstream: &Upstream<'_>,
    head: &mut RequestHead,
    body: &mut RequestBody<'_>,
    record: &mut StreamInfo,
) -> Result<Answer, Stop> {
    let Upstream { forward, cluster, target: destination, deadlines } = *upstream;
    let hedged = hedges(stages, head);
    let policy = policy(stages, head);
    let policy = policy.as_deref();
    let tries = RetryState::new(stages, upstream, policy);
    let keeps = policy.is_some() || forward.internal_redirect.is_some();
    if keeps {
        let Stages { place: MatchedRoute { route, host }, view, .. } = stages;
        let limit = route.config.buffers.within(host.config.buffers, view.chain.buffer_limit);
        body.keep(usize::try_from(limit).unwrap_or(usize::MAX));
    } else if head.is_idempotent() {
        body.keep(KEEP);
    }
    let codec = cluster.config.codec.of(head.version.codec());
    if let Some(per_try) = policy.and_then(|p| p.per_try_timeout).filter(|_| hedged && stages.request.upgrade.is_none())
        && hedge::is_whole(stages.framing, body).await
    {
        let race = hedge::Race::new(RetryState { hedged: true, ..tries }, destination, per_try, codec);
        return Box::pin(race.run(head, body, record)).await;
    }
    let mut tries = tries;
    let worker = &stages.context.worker;
    let (high, idle) = (forward.high_priority, policy.and_then(|p| p.per_try_idle_timeout));
    let mut repeating: Option<Permit> = None;
    loop {
        let choice = tries.pick(destination)?;
        let host = cluster.hosts.get(choice).map(|local| &local.host).ok_or(Stop::Bug(NO_ENDPOINT))?;
        record.endpoint(choice, host.address);
        tries.announce(head, choice, record, body.timers);
        let attempt = Attempt {
            worker,
            cluster,
            head,
            framing: stages.framing,
            upgrade: stages.request.upgrade.as_ref(),
            terminated: upgrade::terminated(head, &forward.upgrades),
            codec,
            high,
            style: request_style(stages.http.http1.names, &cluster.config.http1),
            idle,
        };
        let per_try = policy.and_then(|p| p.per_try_timeout);
        let timers = body.timers;
        let began = cluster.clock();
        timers.set_connected(None);
        let (result, whole) = bounded(timers, pin!(attempt.run(choice, body)), per_try, deadlines).await;
        drop(repeating.take());
        let outcome = match &result {
            Some(result) => outcome(result)?,
            None if whole && deadlines.ends_request(timers) => return Err(tries.request_late()),
            None if whole && deadlines.ends_stream(timers) => return Err(Stop::Reply(ended())),
            None => tries.timed_out(host, whole),
        };
        cluster.took(choice, began, outcome);
        if let Some(Retry { permit, wait }) = tries.again(&result, outcome, whole, body) {
            repeating = Some(permit);
            if let Some(Ok(answer)) = result {
                answer.in_flight.outcome(outcome);
            }
            tries.avoid(host.id);
            body.rewind();
            tries.wait(wait, body).await?;
            body.timers.tick();
            continue;
        }
        record.retries_exhausted = tries.exhausted;
        tries.note_overflow(keeps && body.has_overflowed());
        return match result {
            Some(Ok(answer)) => Ok(answer),
            _ => {
                record.transport_failure = worker.handshake_failure.take();
                let late = outcome == Outcome::Timeout && (whole || per_try.is_none());
                let reply = own(failed(outcome, tries.retries > 0, cluster, worker.id), record, cluster, worker.id);
                Err(Stop::Reply(if late { reply.because(RESPONSE_TIMEOUT) } else { reply }))
            }
        };
    }
}

/// Counts the reply of a failed request, and says in its details why a handshake failed.
fn own(mut reply: LocalReply, record: &StreamInfo, cluster: &ClusterRuntime, worker: usize) -> LocalReply {
    count_own(&reply, cluster, worker);
    if let Some(reason) = &record.transport_failure {
        add_reason(&mut reply, reason);
    }
    reply
}

/// The own reply counts as one of the cluster (Envoy: `Filter::chargeUpstreamCode`).
fn count_own(reply: &LocalReply, cluster: &ClusterRuntime, worker: usize) {
    let status = reply.head.status;
    cluster.state.stats.add(worker, metric::cluster::RQ_COMPLETED, 1);
    cluster.state.stats.add(worker, metric::class(metric::cluster::RQ_1XX, status), 1);
    cluster.state.count_code(worker, status);
}

/// Says in the details why a handshake failed; the client is not told.
fn add_reason(reply: &mut LocalReply, reason: &str) {
    let details = reply.details.as_deref().unwrap_or_default().trim_end_matches('}');
    reply.details = Some(Cow::Owned(format!("{details}|{reason}}}")));
}

/// The outcome of an attempt, unless its failure ends the request.
fn outcome(result: &Result<Answer, Failure>) -> Result<Outcome, Stop> {
    match result {
        Ok(answer) => Ok(Outcome::Response { status: answer.head.status, grpc: grpc_status(answer) }),
        Err(Failure::Outcome(outcome)) => Ok(*outcome),
        Err(Failure::Client) => Err(Stop::DownstreamGone),
        Err(Failure::Stalled(side)) => Err(Stop::Reply(stalled(*side))),
        Err(Failure::Malformed) => Err(Stop::Reply(bad_request())),
        Err(Failure::TooLarge) => Err(Stop::Reply(too_large("http1.headers_too_large"))),
        Err(Failure::TooMany) => Err(Stop::Reply(too_large("http1.too_many_headers"))),
        Err(Failure::Underscore) => Err(Stop::Reply(bad_trailer())),
    }
}

/// Returns true when an attempt that takes too long goes on beside the next.
fn hedges(stages: &Stages<'_>, head: &RequestHead) -> bool {
    match head.fields.get("x-envoy-hedge-on-per-try-timeout") {
        Some(b"true") if stages.request.internal => true,
        Some(b"false") if stages.request.internal => false,
        _ => stages.place.route.hedge,
    }
}

/// The route's policy, with what an internal client asks for.
fn policy<'a>(stages: &Stages<'a>, head: &mut RequestHead) -> Option<Cow<'a, RetryPolicy>> {
    let own = stages.place.route.retry.as_ref();
    let asked = if stages.request.internal { retry::asked_by(own, head) } else { None };
    if stages.request.internal {
        retry::ASKING.iter().for_each(|name| _ = head.fields.remove(name));
        let asking = timeout::asking_header(head, stages.http.respect_expected_timeout);
        if asking == timeout::ASKING {
            head.fields.remove(asking);
        }
    }
    let policy = asked.map(Cow::Owned).or(own.map(Cow::Borrowed));
    policy.filter(|p| retry::concerns(p, head))
}

/// The state that all attempts of a request share.
struct RetryState<'a> {
    stages: &'a Stages<'a>,
    forward: &'a Forward,
    cluster: &'a Rc<LocalCluster>,
    deadlines: Deadlines,
    policy: Option<&'a RetryPolicy>,
    retries: u32,
    /// The hosts of earlier attempts.
    tried: Vec<u64>,
    /// The priorities that are avoided.
    without: Vec<u32>,
    /// True when an attempt that takes too long goes on.
    hedged: bool,
    /// True when another attempt was wanted, and the policy allows no more.
    exhausted: bool,
}

/// A retry that the policy and the circuit breaker allow.
struct Retry {
    /// Its place among the cluster's retries in flight.
    permit: Permit,
    /// The time before it begins.
    wait: Duration,
}

impl<'a> RetryState<'a> {
    fn new(stages: &'a Stages<'a>, upstream: &Upstream<'a>, policy: Option<&'a RetryPolicy>) -> Self {
        let Upstream { forward, cluster, deadlines, .. } = *upstream;
        let (tried, without) = (Vec::new(), Vec::new());
        Self {
            stages,
            forward,
            cluster,
            deadlines,
            policy,
            retries: 0,
            tried,
            without,
            hedged: false,
            exhausted: false,
        }
    }

    fn worker(&self) -> usize {
        self.stages.context.worker.id
    }

    /// Counts a body that was too long to be kept for another attempt.
    fn note_overflow(&self, is_lost: bool) {
        self.cluster.state.stats.add(self.worker(), metric::cluster::RETRY_ABANDONED, is_lost.into());
    }

    /// Ends a request that did not come in time.
    fn request_late(&self) -> Stop {
        self.stages.context_count(metric::http::RQ_TIMEOUT);
        Stop::Reply(request_late())
    }

    /// Picks an endpoint.
    fn pick(&self, target: &Target<'_>) -> Result<usize, Stop> {
        let (worker, cluster) = (&self.stages.context.worker, self.cluster);
        let context = LbContext {
            hash: target.hash,
            metadata: target.metadata.as_deref(),
            without: &self.without,
            ..LbContext::default()
        };
        choose(worker, cluster, &context, &self.tried, self.draws()).ok_or_else(|| {
            cluster.state.stats.add(worker.id, metric::cluster::CX_NONE_HEALTHY, 1);
            Stop::Reply(nobody(cluster, worker.id))
        })
    }

    /// Avoids a host in later attempts, and its priority where the policy says so.
    fn avoid(&mut self, host: u64) {
        self.tried.push(host);
        self.without = self.priorities();
    }

    /// Tells the upstream which attempt this is, and how long it may take.
    fn announce(&self, head: &mut RequestHead, choice: usize, record: &mut StreamInfo, timers: &Timers) {
        let mut digits = [0u8; 20];
        if self.stages.place.host.config.include_attempt_count {
            head.fields.set("x-envoy-attempt-count", decimal(record.attempts.into(), &mut digits));
        }
        if !self.stages.http.suppress_envoy_headers {
            let per_try = self.policy.filter(|_| !self.hedged).and_then(|p| p.per_try_timeout);
            let since = self.deadlines.since(timers);
            let passed = since.map_or(Duration::ZERO, |since| timers.last().saturating_duration_since(since));
            let left = self.deadlines.answer.map(|limit| limit.saturating_sub(passed));
            let expected = [per_try, left].into_iter().flatten().min();
            if let Some(expected) = expected {
                // A call's own header says the same (Envoy: `FilterUtility::setTimeoutHeaders`).
                if self.forward.grpc_timeout.is_some() && is_grpc(head) {
                    head.fields.set("grpc-timeout", timeout::to_grpc(expected).as_bytes());
                }
                let value = decimal((expected.as_millis() as u64).max(1), &mut digits);
                head.fields.set("x-envoy-expected-rq-timeout-ms", value);
            }
        }
        if self.forward.host_rewrite == Some(HostRewrite::Auto)
            && let Some(choice) = self.cluster.members.get(choice)
            && !choice.endpoint.hostname.is_empty()
        {
            self.stages.set_authority(head, choice.endpoint.hostname.as_bytes(), self.forward);
        }
        record.sent_as(head);
    }

    /// Returns a retry if the policy asks for one after this outcome and the circuit breaker allows it.
    fn again(
        &mut self,
        result: &Option<Result<Answer, Failure>>,
        outcome: Outcome,
        whole: bool,
        body: &RequestBody<'_>,
    ) -> Option<Retry> {
        let policy = self.policy.filter(|_| !whole)?;
        let head = match result {
            Some(Ok(answer)) => Some(&answer.head),
            _ => None,
        };
        let stats = &self.cluster.state.stats;
        if !retry::wanted(policy, outcome, head) {
            if self.retries > 0 {
                stats.add(self.worker(), metric::cluster::RQ_RETRY_SUCCESS, 1);
            }
            return None;
        }
        self.another(head, body)
    }

    /// Returns a retry if the circuit breaker allows it, whatever became of the last attempt.
    fn another(&mut self, head: Option<&ResponseHead>, body: &RequestBody<'_>) -> Option<Retry> {
        let policy = self.policy?;
        let stats = &self.cluster.state.stats;
        if self.retries >= policy.attempts {
            stats.add(self.worker(), metric::cluster::RQ_RETRY_LIMIT_EXCEEDED, 1);
            self.exhausted = true;
            return None;
        }
        if !body.is_repeatable() {
            return None;
        }
        let permit = self.cluster.permit_retry(self.forward.high_priority);
        if permit.is_none() {
            stats.add(self.worker(), metric::cluster::RQ_RETRY_OVERFLOW, 1);
        }
        let permit = permit?;
        self.retries += 1;
        let random = self.stages.context.worker.random();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let asked = head.and_then(|head| retry::asked_for(policy, head, now, random));
        let kind = if asked.is_some() { metric::cluster::RQ_RETRY_LIMITED } else { metric::cluster::RQ_RETRY_BACKOFF };
        stats.add(self.worker(), kind, 1);
        let wait = asked.unwrap_or_else(|| retry::back_off(policy, self.retries, random));
        Some(Retry { permit, wait })
    }

    /// The number of times that an endpoint is drawn at most, to find one that was not tried.
    fn draws(&self) -> u32 {
        let avoiding = self.policy.filter(|p| p.avoid_previous_hosts);
        avoiding.map_or(1, |p| p.host_selection_attempts.saturating_add(1))
    }

    /// Returns true when the policy would retry after this.
    fn is_bad(&self, result: &Option<Result<Answer, Failure>>, outcome: Outcome) -> bool {
        let head = match result {
            Some(Ok(answer)) => Some(&answer.head),
            _ => None,
        };
        self.policy.is_none_or(|policy| retry::wanted(policy, outcome, head))
    }

    /// Priorities that are avoided from now on.
    fn priorities(&self) -> Vec<u32> {
        let Some(after) = self.policy.and_then(|p| p.previous_priorities) else { return Vec::new() };
        if self.tried.len() < after as usize {
            return Vec::new();
        }
        let of = |id: &u64| self.cluster.members.iter().find(|m| m.host.id == *id).map(|m| m.endpoint.priority);
        self.tried.iter().filter_map(of).collect()
    }

    fn timed_out(&self, host: &Host, whole: bool) -> Outcome {
        let index = if whole { metric::cluster::RQ_TIMEOUT } else { metric::cluster::RQ_PER_TRY_TIMEOUT };
        self.count_timeout(host, index);
        self.cluster.note(host, Outcome::Timeout);
        Outcome::Timeout
    }

    fn count_timeout(&self, host: &Host, index: usize) {
        self.cluster.state.stats.add(self.worker(), index, 1);
        host.stats.add(self.worker(), metric::host::RQ_TIMEOUT, 1);
        host.stats.add(self.worker(), metric::host::RQ_ERROR, 1);
    }

    /// Waits before another attempt, unless the time is up before, or the client goes.
    async fn wait(&self, wait: Duration, body: &mut RequestBody<'_>) -> Result<(), Stop> {
        let timers = body.timers;
        let stats = &self.cluster.state.stats;
        stats.add(self.worker(), metric::cluster::RQ_RETRY, 1);
        let until = Instant::now() + wait;
        if wait.is_zero() {
            return Ok(());
        }
        let deadline = self.deadlines.first(timers).filter(|d| until >= *d);
        tokio::select! {
            () = tokio::time::sleep_until(deadline.unwrap_or(until)) => {}
            () = body.abandoned() => return Err(Stop::DownstreamGone),
        }
        match deadline {
            None => Ok(()),
            Some(_) if self.deadlines.ends_stream(timers) => Err(Stop::Reply(ended())),
            Some(_) => {
                stats.add(self.worker(), metric::cluster::RQ_TIMEOUT, 1);
                let reply = failed(Outcome::Timeout, true, self.cluster, self.worker());
                Err(Stop::Reply(reply.because(RESPONSE_TIMEOUT)))
            }
        }
    }
}

/// The bug of a balancer that yields a number that no endpoint has.
const NO_ENDPOINT: &str = "an endpoint was chosen that the cluster does not have";

/// Why there is a local reply when the time for the whole response is up.
const RESPONSE_TIMEOUT: &str = "response_timeout";

/// A place among a cluster's requests in flight, unless all are taken.
pub(super) fn admit(cluster: &ClusterRuntime, high: bool, worker: usize) -> Result<Permit, Stop> {
    cluster.permit_request(high).ok_or_else(|| Stop::Reply(failed(Outcome::Overflow, false, cluster, worker)))
}

/// The output unless the attempt's time or the request's is up first; the flag tells whether it was the request's.
async fn bounded<F: Future>(
    timers: &Timers,
    future: Pin<&mut F>,
    per_try: Option<Duration>,
    deadlines: Deadlines,
) -> (Option<F::Output>, bool) {
    let of_try = || Some(timers.waits_since()? + per_try?);
    let until = || [of_try(), deadlines.first(timers)].into_iter().flatten().min();
    match timers.limited(until, future).await {
        Some(output) => (Some(output), false),
        None => (None, deadlines.first(timers).is_some_and(|d| Some(d) <= until())),
    }
}

/// The gRPC status in a response's head, of a call.
pub(super) fn grpc_status(answer: &Answer) -> Option<GrpcStatus> {
    GrpcStatus::of(&answer.head.fields)
}
