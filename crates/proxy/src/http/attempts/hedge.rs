//! Tries beside each other: one that takes longer than it may goes on, another begins, and the first good answer wins.
//!
//! Source: Envoy, `HedgePolicy.hedge_on_per_try_timeout`. The whole body is received first; one that is longer than
//! can be sent again, or of unknown length and not there yet, is not hedged.

use std::time::Duration;

use serin_http1::framing::Framing;
use serin_traffic::balance::Wish;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Failure, Outcome, Permit, Record, RequestBody, RequestHead, Tries, choose, failed, grpc_status};
use super::{ended, stalled};
use crate::http::attempt::{Answer, Attempt};
use crate::http::body::{KEEP, Source};
use crate::http::local_reply::LocalReply;
use crate::http::stage::Stages;
use crate::metric;
use crate::timer::Timers;

/// How a try ended, with the number of its endpoint and when it began.
type Ended = (usize, Option<Duration>, Result<Answer, Failure>);

/// The tries of one request; those that are still under way when it is dropped are given up.
pub(super) struct Race<'a, 'b> {
    pub(super) tries: Tries<'a>,
    pub(super) target: &'b super::Target<'b>,
    pub(super) per_try: Duration,
    pub(super) h2: bool,
    pub(super) running: JoinSet<Ended>,
    /// When another is wanted though none has ended.
    pub(super) next: Option<Instant>,
    /// When another begins that is wanted.
    pub(super) again: Option<Instant>,
    /// Places among the cluster's retries.
    pub(super) permits: Vec<Permit>,
}

/// Receives a body that is short for certain, or that has come already; whether all of it is there to be sent several times.
pub(super) async fn is_whole(framing: Framing, body: &mut RequestBody<'_>) -> bool {
    use crate::http::body::Gathered;
    let gathered = match framing {
        Framing::Length(length) if length > KEEP as u64 => return false,
        Framing::Empty | Framing::Length(_) => body.gather(KEEP as u64).await,
        // A stream may wait for its answer before it ends.
        Framing::Chunked | Framing::UntilClose => match body.gather_ready(KEEP as u64) {
            Some(gathered) => gathered,
            None => return false,
        },
    };
    matches!(gathered, Gathered::Whole(_)) && body.is_repeatable()
}

impl Race<'_, '_> {
    /// The answer that wins.
    pub(super) async fn run(
        mut self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut Record,
    ) -> Result<Answer, Option<LocalReply>> {
        let deadline = self.tries.deadlines.first();
        self.begin(head, body, record)?;
        loop {
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
                () = at(self.next) => {
                    self.next = None;
                    self.is_slow();
                    if let Some(retry) = self.tries.again(&None, Outcome::Timeout, false, body) {
                        self.schedule(retry);
                    }
                }
                () = at(deadline) => {
                    if self.tries.deadlines.ends_stream() {
                        return Err(Some(ended()));
                    }
                    let stats = &self.tries.cluster.state.stats;
                    stats.add(self.tries.worker(), metric::cluster::RQ_TIMEOUT, self.running.len() as u64);
                    return Err(Some(failed((Outcome::Timeout, self.tries.retries > 0), self.tries.cluster, self.tries.worker())));
                }
                () = body.abandoned() => return Err(None),
            }
        }
    }

    /// The newest try takes longer than it may, whatever becomes of it.
    fn is_slow(&self) {
        let newest = self.tries.tried.last();
        if let Some(member) = self.tries.cluster.members.iter().find(|m| Some(&m.host.id) == newest) {
            self.tries.cluster.note(&member.host, Outcome::Timeout);
        }
    }

    /// Another try is to begin.
    fn schedule(&mut self, (permit, wait): (Permit, Duration)) {
        self.permits.push(permit);
        self.tries.cluster.state.stats.add(self.tries.worker(), metric::cluster::RQ_RETRY, 1);
        self.next = None;
        self.again = Some(Instant::now() + wait);
    }

    /// Begins a try on an endpoint.
    fn begin(
        &mut self,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut Record,
    ) -> Result<(), Option<LocalReply>> {
        let stages: &Stages<'_> = self.tries.stages;
        let (worker, cluster) = (stages.context.worker.clone(), self.tries.cluster.clone());
        let priorities = self.tries.priorities();
        let wish = Wish {
            hash: self.target.hash,
            metadata: self.target.metadata.as_deref(),
            without: &priorities,
            ..Wish::default()
        };
        let draws = self.tries.draws();
        let Some(choice) = choose(&worker, &cluster, &wish, &self.tries.tried, draws) else {
            cluster.state.stats.add(worker.id, metric::cluster::CX_NONE_HEALTHY, 1);
            return Err(Some(LocalReply::new(503, "no healthy upstream", "UH")));
        };
        let Some(host) = cluster.hosts.get(choice).map(|local| local.host.clone()) else { return Err(None) };
        record.endpoint(choice, host.address);
        self.tries.announce(head, choice, record.attempts, body.timers.last());
        self.tries.tried.push(host.id);
        body.rewind();
        let copy = body.copy();
        let (head, framing, h2) = (head.clone(), stages.framing, self.h2);
        let high = self.tries.forward.high_priority;
        let idle = body.idle;
        let began = cluster.clock();
        self.running.spawn_local(async move {
            let timers = Timers::new();
            let mut body = RequestBody::new(Source::Copy(copy), &timers);
            body.idle = idle;
            body.keep();
            let attempt = Attempt {
                worker: &worker,
                cluster: &cluster,
                head: &head,
                framing,
                websocket: false,
                h2,
                high,
                idle: None,
            };
            let result = attempt.run(choice, &mut body).await;
            let whole = body.is_finished();
            (choice, began, result.map(|answer| detached(answer, whole)))
        });
        self.next = Some(Instant::now() + self.per_try);
        Ok(())
    }

    /// What a try that ended means: the answer that wins, or nothing yet.
    fn ended(
        &mut self,
        (choice, began, result): Ended,
        body: &RequestBody<'_>,
        record: &mut Record,
    ) -> Result<Option<Answer>, Option<LocalReply>> {
        let outcome = match &result {
            Ok(answer) => Outcome::Response { status: answer.head.status, grpc: grpc_status(answer) },
            Err(Failure::Outcome(outcome)) => *outcome,
            Err(Failure::Stalled(side)) => return Err(Some(stalled(*side))),
            Err(Failure::Client | Failure::Malformed) => return Err(None),
        };
        self.tries.cluster.took(choice, began, outcome);
        let result = Some(result);
        // While one is to begin that nobody has tried yet, no other is asked for.
        let waits = self.again.is_some();
        let retry = if waits { None } else { self.tries.again(&result, outcome, false, body) };
        let more = waits || retry.is_some() || !self.running.is_empty();
        if let Some(retry) = retry {
            self.schedule(retry);
        } else if !(more && (!matches!(result, Some(Ok(_))) || self.tries.is_bad(&result, outcome))) {
            return match result {
                Some(Ok(answer)) => {
                    self.running.abort_all();
                    if let Some(local) = self.tries.cluster.hosts.get(choice) {
                        record.settled(choice, local.host.address);
                    }
                    Ok(Some(answer))
                }
                _ => Err(Some(failed((outcome, self.tries.retries > 0), self.tries.cluster, self.tries.worker()))),
            };
        }
        // What was bad waits for those that may be better.
        if let Some(Ok(answer)) = result {
            answer.in_flight.outcome(outcome);
        }
        Ok(None)
    }
}

/// An answer whose request's body was another task's: what was not sent of it never will be.
fn detached(mut answer: Answer, whole: bool) -> Answer {
    answer.keep_alive &= answer.request_done || whole;
    answer.request_done = true;
    answer
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
