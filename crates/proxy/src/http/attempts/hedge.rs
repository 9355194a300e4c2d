//! Attempts beside each other: one that takes longer than it may goes on, another begins, and the first good response wins.
//!
//! Source: Envoy, `HedgePolicy.hedge_on_per_try_timeout`. The whole body is received first; one that is longer than
//! can be sent again, or of unknown length and not there yet, is not hedged.

use std::sync::Arc;
use std::time::Duration;

use serin_http1::Codec;
use serin_http1::framing::Framing;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::replies::{ended, stalled};
use super::{
    Failure, Host, Outcome, Permit, RequestBody, RequestHead, Retry, RetryState, StreamInfo, failed, grpc_status,
};
use super::{NO_ENDPOINT, request_style};
use crate::http::attempt::{Answer, Attempt};
use crate::http::body::{KEEP, Source};
use crate::http::local_reply::{LocalReply, Stop};
use crate::http::stage::Stages;
use crate::metric;
use crate::timer::Timers;

/// An attempt that ended.
struct Ended {
    number: usize,
    /// The position in the body up to which it was sent.
    position: usize,
    result: Result<Answer, Failure>,
}

/// An attempt that is under way.
struct UnderWay {
    number: usize,
    /// Its endpoint.
    choice: usize,
    host: Arc<Host>,
    began: Option<Duration>,
    /// The time from which it is too slow; `None` once it is.
    slow: Option<Instant>,
    /// True when another began because of it.
    succeeded: bool,
}

/// The attempts of one request; those that are still under way when it is dropped are given up.
pub(super) struct Race<'a, 'b> {
    tries: RetryState<'a>,
    target: &'b super::Target<'b>,
    per_try: Duration,
    codec: Option<Codec>,
    running: JoinSet<Ended>,
    under_way: Vec<UnderWay>,
    begun: usize,
    /// The time at which another begins that is wanted.
    again: Option<Instant>,
    /// The newest one's place among the cluster's retries.
    permit: Option<Permit>,
}

/// Receives a body that is short for certain, or that has come already; whether all of it is there to be sent several times.
pub(super) async fn is_whole(framing: Framing, body: &mut RequestBody<'_>) -> bool {
    use crate::http::body::Gathered;
    let gathered = match framing {
        Framing::Length(length) if length > KEEP as u64 => return false,
        Framing::Empty | Framing::Length(_) => body.gather(KEEP as u64).await,
        // A stream may wait for its response before it ends.
        Framing::Chunked | Framing::UntilClose => match body.gather_ready(KEEP as u64) {
            Some(gathered) => gathered,
            None => return false,
        },
    };
    matches!(gathered, Gathered::Whole(_)) && body.is_repeatable()
}

impl<'a, 'b> Race<'a, 'b> {
    pub(super) fn new(
        tries: RetryState<'a>,
        target: &'b super::Target<'b>,
        per_try: Duration,
        codec: Option<Codec>,
    ) -> Self {
        let (running, under_way) = (JoinSet::new(), Vec::new());
        Self { tries, target, per_try, codec, running, under_way, begun: 0, again: None, permit: None }
    }

    /// The response that wins.
    pub(super) async fn run(
        mut self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut StreamInfo,
    ) -> Result<Answer, Stop> {
        let deadline = self.tries.deadlines.first(body.timers);
        self.begin(head, body, record)?;
        loop {
            let slow = self.under_way.iter().filter_map(|one| one.slow).min();
            tokio::select! {
                biased;
                Some(Ok(ended)) = self.running.join_next() => {
                    if let Some(end) = self.ended(ended, body, record)? {
                        return Ok(end);
                    }
                }
                () = at(self.again) => {
                    self.again = None;
                    match self.begin(head, body, record) {
                        // Those that are under way may answer yet.
                        Err(end) if self.running.is_empty() => return Err(end),
                        _ => {}
                    }
                }
                () = at(slow) => self.is_slow(slow, body),
                () = at(deadline) => return Err(Stop::Reply(self.over(body.timers))),
                () = body.abandoned() => return Err(Stop::DownstreamGone),
            }
        }
    }

    /// An attempt takes longer than it may, whatever becomes of it: another begins while there are retries left.
    fn is_slow(&mut self, since: Option<Instant>, body: &RequestBody<'_>) {
        for one in self.under_way.iter_mut().filter(|one| one.slow == since) {
            one.slow = None;
            self.tries.cluster.note(&one.host, Outcome::Timeout);
            self.tries.cluster.took(one.choice, one.began, Outcome::Timeout);
        }
        if self.again.is_none() {
            self.permit = None;
            if let Some(retry) = self.tries.another(None, body) {
                self.schedule(retry);
                self.under_way.iter_mut().filter(|one| one.slow.is_none()).for_each(|one| one.succeeded = true);
            }
        }
    }

    /// The time for all of them is up.
    fn over(&self, timers: &Timers) -> LocalReply {
        if self.tries.deadlines.ends_stream(timers) {
            return ended();
        }
        for one in &self.under_way {
            self.tries.count_timeout(&one.host, metric::cluster::RQ_TIMEOUT);
            if one.slow.is_some() {
                self.tries.cluster.note(&one.host, Outcome::Timeout);
                self.tries.cluster.took(one.choice, one.began, Outcome::Timeout);
            }
        }
        failed(Outcome::Timeout, self.tries.retries > 0, self.tries.cluster, self.tries.worker())
    }

    /// Another attempt is to begin.
    fn schedule(&mut self, retry: Retry) {
        let Retry { permit, wait } = retry;
        self.permit = Some(permit);
        self.tries.cluster.state.stats.add(self.tries.worker(), metric::cluster::RQ_RETRY, 1);
        self.again = Some(Instant::now() + wait);
    }

    /// Begins an attempt on an endpoint.
    fn begin(
        &mut self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut StreamInfo,
    ) -> Result<(), Stop> {
        let stages: &Stages<'_> = self.tries.stages;
        let (worker, cluster) = (stages.context.worker.clone(), self.tries.cluster.clone());
        let choice = self.tries.pick(self.target)?;
        let host = cluster.hosts.get(choice).map(|local| local.host.clone()).ok_or(Stop::Bug(NO_ENDPOINT))?;
        record.endpoint(choice, host.address);
        self.tries.announce(head, choice, record, body.timers);
        self.tries.avoid(host.id);
        body.rewind();
        let copy = body.copy();
        let (head, framing, codec) = (head.clone(), stages.framing, self.codec);
        let high = self.tries.forward.high_priority;
        let style = request_style(stages.http.http1.names, &cluster.config.http1);
        let idle = body.idle;
        let (number, began) = (self.begun, cluster.clock());
        self.begun += 1;
        self.running.spawn_local(async move {
            let timers = Timers::new();
            let mut body = RequestBody::new(Source::Copy(copy), &timers);
            body.idle = idle;
            body.keep(KEEP);
            let attempt = Attempt {
                worker: &worker,
                cluster: &cluster,
                head: &head,
                framing,
                upgrade: None,
                terminated: None,
                style,
                codec,
                high,
                idle: None,
            };
            let result = attempt.run(choice, &mut body).await;
            Ended { number, position: body.position(), result }
        });
        let slow = Some(Instant::now() + self.per_try);
        self.under_way.push(UnderWay { number, choice, host, began, slow, succeeded: false });
        Ok(())
    }

    /// Takes an attempt that ended in: returns the response that wins, or nothing yet.
    fn ended(
        &mut self,
        ended: Ended,
        body: &mut RequestBody<'_>,
        record: &mut StreamInfo,
    ) -> Result<Option<Answer>, Stop> {
        let Ended { number, position, result } = ended;
        let Some(place) = self.under_way.iter().position(|one| one.number == number) else { return Ok(None) };
        let UnderWay { choice, began, slow, succeeded, .. } = self.under_way.swap_remove(place);
        let outcome = match &result {
            Ok(answer) => Outcome::Response { status: answer.head.status, grpc: grpc_status(answer) },
            Err(Failure::Outcome(outcome)) => *outcome,
            Err(Failure::Stalled(side)) => return Err(Stop::Reply(stalled(*side))),
            Err(Failure::Client | Failure::Malformed | Failure::TooLarge | Failure::TooMany | Failure::Underscore) => {
                return Err(Stop::DownstreamGone);
            }
        };
        if slow.is_some() {
            self.tries.cluster.took(choice, began, outcome);
        }
        let result = Some(result);
        // One that was too slow has its successor already, and so has one while another is to begin.
        let succeeded = succeeded || self.again.is_some();
        let retry = if succeeded {
            None
        } else {
            self.permit = None;
            self.tries.again(&result, outcome, false, body)
        };
        let more = self.again.is_some() || retry.is_some() || !self.running.is_empty();
        if let Some(retry) = retry {
            self.schedule(retry);
        } else if !(more && (!matches!(result, Some(Ok(_))) || self.tries.is_bad(&result, outcome))) {
            return match result {
                Some(Ok(answer)) => {
                    self.running.abort_all();
                    if let Some(local) = self.tries.cluster.hosts.get(choice) {
                        record.settled(choice, local.host.address);
                    }
                    // What it has not sent of the body yet goes up beside its response.
                    body.resume(position);
                    Ok(Some(answer))
                }
                _ => Err(Stop::Reply(failed(outcome, self.tries.retries > 0, self.tries.cluster, self.tries.worker()))),
            };
        }
        // What was bad waits for those that may be better.
        if let Some(Ok(answer)) = result {
            answer.in_flight.outcome(outcome);
        }
        Ok(None)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
