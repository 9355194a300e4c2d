//! The filters between a listener and its routes, in their order, and their changes to the response.

use serin_traffic::grpc::GrpcStatus;
use serin_traffic::response_flag::ResponseFlag;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use serin_http1::framing::{Declared, Framing};
use serin_http1::{RequestHead, ResponseHead};
use serin_resources::fault::{AbortStatus, Fault};
use serin_resources::header::HeaderEdits;
use serin_resources::http_filter::{Compressor, Cors, HealthAnswer};
use serin_traffic::fault::{self, Draws, Injection};
use serin_traffic::filter::{
    self, Admission, Bucket, Caller, Concurrency, Filter, Link, Overrides, Preflight, RbacGate,
};
use serin_traffic::header_edit::{self, CommandSource};
use serin_traffic::router::is_grpc;
use serin_traffic::split::drawn;
use tokio::time::Instant;

use super::ConnectionContext;
use super::alter::BodyTransform;
use super::body::{Gathered, RequestBody};
use super::finish::StreamInfo;
use super::local_reply::{LocalReply, Stop};
use super::request::RequestInfo;
use crate::metric::http as counter;
use crate::since_start;
use crate::worker::View;

/// The changes to the response that filters have asked for; mostly none, so it takes no room.
#[derive(Default)]
pub(crate) struct ResponseFilters<'a>(Option<Box<PendingFilters<'a>>>);

#[derive(Default)]
struct PendingFilters<'a> {
    cors: Option<(Cors, Vec<u8>)>,
    edits: Vec<&'a HeaderEdits>,
    admissions: Vec<&'a Admission>,
    slots: Vec<ConcurrencySlot<'a>>,
    /// Faults that end with the response.
    faults: Vec<Active<'a>>,
    /// Bytes a second at which the response may come.
    rate: Option<u64>,
    /// The compression of the response; true when the client accepts it.
    compress: Option<(&'a Compressor, bool)>,
}

/// A place among the requests that a filter lets in at once.
struct ConcurrencySlot<'a> {
    control: &'a Concurrency,
    began: Instant,
    answered: Option<Duration>,
}

impl Drop for ConcurrencySlot<'_> {
    fn drop(&mut self) {
        self.control.end(self.answered, since_start());
    }
}

impl<'a> ResponseFilters<'a> {
    fn pending(&mut self) -> &mut PendingFilters<'a> {
        self.0.get_or_insert_default()
    }

    /// Applies the changes to a response, of the upstream or a local reply.
    pub(crate) fn apply(&mut self, answer: &mut ResponseHead, request: &RequestHead, facts: &dyn CommandSource) {
        let Some(pending) = &mut self.0 else { return };
        if let Some((cors, origin)) = &pending.cors {
            filter::cors_answer(cors, origin, &mut answer.fields);
        }
        for edits in &pending.edits {
            header_edit::to_response(edits, answer, request, facts);
        }
        let grpc = GrpcStatus::of(&answer.fields);
        for admission in pending.admissions.drain(..) {
            admission.note(since_start(), answer.status, grpc);
        }
        for place in &mut pending.slots {
            place.answered = Some(place.began.elapsed());
        }
    }
}

impl ResponseFilters<'_> {
    /// Returns the changes to a response's body, after it has changed the head accordingly.
    pub(crate) fn alter(&mut self, answer: &mut ResponseHead, body: (Framing, Declared)) -> Option<Box<BodyTransform>> {
        let pending = self.0.as_mut()?;
        let is_empty = body.0 == Framing::Empty;
        let length = match body {
            (Framing::Length(n), _) | (_, Declared::Length(n)) => Some(n),
            _ => None,
        };
        let compressed =
            |(config, takes): &(&Compressor, bool)| filter::compress(config, answer, *takes && !is_empty, length);
        let level = pending.compress.filter(compressed).map(|c| c.0.level);
        let altered = !is_empty && (level.is_some() || pending.rate.is_some());
        altered.then(|| Box::new(BodyTransform::new(level, pending.rate)))
    }
}

/// The request and its context, as filters see it.
pub(crate) struct FilterContext<'r, 'a> {
    pub(crate) context: &'r Rc<ConnectionContext>,
    pub(crate) view: &'a View,
    pub(crate) request: &'r RequestInfo,
    pub(crate) record: &'r StreamInfo,
    /// The most specific first.
    pub(crate) overrides: &'r [&'a Overrides],
    /// The name of the cluster to which its route forwards it.
    pub(crate) cluster: Option<&'r str>,
}

impl<'a> FilterContext<'_, 'a> {
    /// Takes a request through all filters.
    pub(crate) async fn run(
        &self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        framing: &mut Framing,
        response_filters: &mut ResponseFilters<'a>,
    ) -> Result<(), Stop> {
        for link in self.view.listener.chain.links() {
            let Some(filter) = link.under(self.overrides) else { continue };
            match filter {
                Filter::Fault(config) => {
                    if let Some((injection, active)) = self.fault(config, head) {
                        Box::pin(self.inject(injection, is_grpc(head), body)).await?;
                        if injection.rate.is_some() {
                            self.record.count(counter::RATES_INJECTED);
                            response_filters.pending().rate = injection.rate;
                            response_filters.pending().faults.push(active);
                        }
                    }
                }
                Filter::Cors(_) => self.cors(link, head, response_filters)?,
                Filter::Csrf(config) => self.csrf(config, head)?,
                Filter::RateLimit(bucket) => self.rate_limit(bucket, head)?,
                Filter::Buffer(most) => Box::pin(buffer(*most, head, body, framing)).await?,
                Filter::HealthCheck(config) => self.health_check(config, head)?,
                Filter::Compressor(config) => {
                    response_filters.pending().compress = Some((config, filter::takes_gzip(&head.fields)));
                    filter::prepare_compression(config, head);
                }
                Filter::HeaderMutation(_) => {
                    for edits in filter::mutations(link, self.overrides, |m| &m.request) {
                        header_edit::to_request(edits, head, self.record);
                    }
                    response_filters.pending().edits.extend(filter::mutations(link, self.overrides, |m| &m.response));
                }
                Filter::Rbac(gate) => self.rbac(gate, head)?,
                Filter::AdaptiveConcurrency(control) => self.concurrency(control, response_filters)?,
                Filter::AdmissionControl(admission) => self.admission(admission, response_filters)?,
            }
        }
        Ok(())
    }

    fn random(&self) -> u64 {
        self.context.worker.random()
    }

    /// Returns the faults to inject into a request, with its place among the faults that go on.
    fn fault(&self, config: &Fault, head: &RequestHead) -> Option<(Injection, Active<'a>)> {
        let elsewhere = config.cluster.as_deref().is_some_and(|c| Some(c) != self.cluster);
        if config.is_empty() || elsewhere {
            return None;
        }
        let injection = {
            let draws = Draws { delay: self.random(), abort: self.random(), rate: self.random() };
            fault::decide(config, head, draws)
        };
        if injection == Injection::default() {
            return None;
        }
        let active = Active::begin(&self.view.listener.faults, config.most_active);
        if active.is_none() {
            self.record.count(counter::FAULTS_OVERFLOW);
        }
        Some((injection, active?))
    }

    async fn inject(&self, injection: Injection, is_grpc: bool, body: &mut RequestBody<'_>) -> Result<(), Stop> {
        if let Some(delay) = injection.delay {
            self.record.count(counter::DELAYS_INJECTED);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = body.abandoned() => return Err(Stop::DownstreamGone),
            }
            body.timers.tick();
        }
        let Some(status) = injection.abort else { return Ok(()) };
        self.record.count(counter::ABORTS_INJECTED);
        Err(Stop::Reply(match status {
            AbortStatus::Http(code) => LocalReply::new(code, "fault filter abort", ResponseFlag::FaultInjected),
            // Who speaks no gRPC gets the words alone (Envoy: `sendLocalReply`).
            AbortStatus::Grpc(code) if is_grpc => {
                LocalReply::new(200, "fault filter abort", ResponseFlag::FaultInjected).into_grpc(GrpcStatus::new(code))
            }
            AbortStatus::Grpc(_) => LocalReply::new(200, "fault filter abort", ResponseFlag::FaultInjected),
        }))
    }

    /// The filter itself only says that it is there; routes say who may, and only those that forward.
    fn cors(&self, link: &Link, head: &RequestHead, response_filters: &mut ResponseFilters<'a>) -> Result<(), Stop> {
        let policy = self.cluster.and_then(|_| filter::cors_policy(link, self.overrides));
        let Some(policy) = policy.filter(|p| drawn(p.enabled, self.random())) else { return Ok(()) };
        let Some((origin, allowed)) = filter::origin_allowed(&policy, head) else { return Ok(()) };
        self.record.count(if allowed { counter::CORS_VALID } else { counter::CORS_INVALID });
        let origin = origin.to_vec();
        let reply = match filter::preflight(&policy, head, allowed) {
            Preflight::Go => None,
            Preflight::Answer { .. } => {
                let mut reply = LocalReply::empty(200, ResponseFlag::None);
                filter::preflight_headers(&policy, head, &mut reply.head.fields);
                Some(reply)
            }
        };
        if allowed {
            response_filters.pending().cors = Some((policy, origin));
        }
        reply.map_or(Ok(()), |reply| Err(Stop::Reply(reply)))
    }

    fn csrf(&self, config: &serin_resources::http_filter::Csrf, head: &RequestHead) -> Result<(), Stop> {
        if !drawn(config.enabled, self.random()) {
            return Ok(());
        }
        if Filter::csrf(config, head) {
            self.record.count(counter::CSRF_INVALID);
            return Err(Stop::Reply(LocalReply::new(403, "Invalid origin", ResponseFlag::None)));
        }
        Ok(())
    }

    fn rate_limit(&self, bucket: &Bucket, head: &mut RequestHead) -> Result<(), Stop> {
        let config = &bucket.config;
        if !drawn(config.enabled, self.random()) {
            return Ok(());
        }
        bucket.count(0);
        if bucket.take(since_start()) {
            bucket.count(1);
            return Ok(());
        }
        bucket.count(2);
        if !drawn(config.enforced, self.random()) {
            header_edit::to_request(&config.unenforced_headers, head, self.record);
            return Ok(());
        }
        bucket.count(3);
        let grpc = config.resource_exhausted.then_some(GrpcStatus::RESOURCE_EXHAUSTED);
        let mut reply =
            LocalReply { grpc, ..LocalReply::new(config.status, "local_rate_limited", ResponseFlag::RateLimited) };
        reply = reply.for_request(head);
        header_edit::to_response(&config.response_headers, &mut reply.head, head, self.record);
        Err(Stop::Reply(reply))
    }

    fn health_check(&self, config: &HealthAnswer, head: &RequestHead) -> Result<(), Stop> {
        if config.headers.is_empty() || !serin_traffic::predicate::matches_headers(&config.headers, head) {
            return Ok(());
        }
        if config.pass_through {
            return Ok(());
        }
        let failing = self.context.worker.state.is_failing();
        let enough = |(name, percent): &(String, u32)| {
            let cluster = self.view.named(name, &self.context.worker);
            cluster.is_some_and(|c| c.healthy() * 100 >= *percent as usize * c.members.len() && !c.members.is_empty())
        };
        let well = !failing && config.clusters.iter().all(enough);
        let mut reply = LocalReply::empty(
            if well { 200 } else { 503 },
            if failing { ResponseFlag::FailedLocalHealthCheck } else { ResponseFlag::None },
        );
        let cluster = self.context.worker.state.service_cluster();
        reply.head.fields.append(b"x-envoy-upstream-healthchecked-cluster", cluster.as_bytes());
        if failing {
            reply.head.fields.append(b"x-envoy-immediate-health-check-fail", b"true");
        }
        Err(Stop::Reply(reply))
    }

    fn rbac(&self, gate: &RbacGate, head: &RequestHead) -> Result<(), Stop> {
        let caller = Caller { peer: self.context.peer, local: self.context.local, client: self.request.client };
        if let Some(allowed) = gate.would_let_in(&caller, Some(head)) {
            self.record.count(if allowed { counter::RBAC_SHADOW_ALLOWED } else { counter::RBAC_SHADOW_DENIED });
        }
        if gate.config.rules.is_none() {
            return Ok(());
        }
        if gate.lets_in(&caller, Some(head)) {
            self.record.count(counter::RBAC_ALLOWED);
            return Ok(());
        }
        self.record.count(counter::RBAC_DENIED);
        Err(Stop::Reply(LocalReply::new(403, "RBAC: access denied", ResponseFlag::None)))
    }

    fn concurrency(&self, control: &'a Concurrency, response_filters: &mut ResponseFilters<'a>) -> Result<(), Stop> {
        if !control.config.enabled {
            return Ok(());
        }
        if control.begin() {
            response_filters.pending().slots.push(ConcurrencySlot { control, began: Instant::now(), answered: None });
            return Ok(());
        }
        self.record.count(counter::CONCURRENCY_BLOCKED);
        Err(Stop::Reply(LocalReply::new(
            control.config.status,
            "reached concurrency limit",
            ResponseFlag::UpstreamOverflow,
        )))
    }

    fn admission(&self, admission: &'a Admission, response_filters: &mut ResponseFilters<'a>) -> Result<(), Stop> {
        if admission.refuses(since_start(), self.random()) {
            self.record.count(counter::ADMISSION_REJECTED);
            return Err(Stop::Reply(LocalReply::empty(503, ResponseFlag::None)));
        }
        response_filters.pending().admissions.push(admission);
        Ok(())
    }
}

/// One of the faults that are going on, counted until dropped.
struct Active<'a>(&'a AtomicU32);

impl<'a> Active<'a> {
    fn begin(count: &'a AtomicU32, most: Option<u32>) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        let most = most.unwrap_or(u32::MAX);
        count.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1)).ok()?;
        Some(Self(count))
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits for the whole body, which may not be longer than that.
async fn buffer(
    most: u64,
    head: &mut RequestHead,
    body: &mut RequestBody<'_>,
    framing: &mut Framing,
) -> Result<(), Stop> {
    if *framing == Framing::Empty {
        return Ok(());
    }
    match body.gather(most).await {
        Gathered::Whole(length) => {
            head.fields.remove("content-length");
            *framing = Framing::Length(length);
            Ok(())
        }
        Gathered::TooLong => Err(Stop::Reply(LocalReply {
            close: true,
            ..LocalReply::new(413, "Payload Too Large", ResponseFlag::None)
        })),
        Gathered::Malformed => Err(Stop::Reply(LocalReply {
            close: true,
            ..LocalReply::new(400, "Bad Request", ResponseFlag::DownstreamProtocolError)
        })),
        Gathered::Silent => Err(Stop::Reply(LocalReply {
            close: true,
            ..LocalReply::new(408, "stream timeout", ResponseFlag::StreamIdleTimeout)
        })),
        Gathered::Gone => Err(Stop::DownstreamGone),
    }
}
