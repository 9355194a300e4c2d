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

/// How a try ended, with the number of its endpoint.
type Ended = (usize, Result<Answer, Failure>);

/// The tries of one request; those that are still under way when it is dropped are given up.
pub(super) struct Race<'a, 'b> {
    pub(super) tries: Tries<'a>,
    pub(super) target: &'b super::Target<'b>,
    pub(super) per_try: Duration,
    pub(super) h2: bool,
    pub(super) running: JoinSet<Ended>,
    /// When another begins though none has ended.
    pub(super) next: Option<Instant>,
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
                Some(Ok((choice, result))) = self.running.join_next() => {
                    if let Some(end) = self.ended((choice, result), (head, body), record).await? {
                        return Ok(end);
                    }
                }
                () = at(self.next) => {
                    self.next = None;
                    if let Some((permit, wait)) = self.tries.again(&None, Outcome::Timeout, false, body) {
                        self.permits.push(permit);
                        self.tries.wait(wait).await?;
                        self.begin(head, body, record)?;
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
        let copy = body.whole_copy();
        let (head, framing, h2) = (head.clone(), stages.framing, self.h2);
        let high = self.tries.forward.high_priority;
        let idle = body.idle;
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
            (choice, result.map(|answer| detached(answer, whole)))
        });
        self.next = Some(Instant::now() + self.per_try);
        Ok(())
    }

    /// What a try that ended means: the answer that wins, or nothing yet.
    async fn ended(
        &mut self,
        (choice, result): Ended,
        (head, body): (&mut RequestHead, &mut RequestBody<'_>),
        record: &mut Record,
    ) -> Result<Option<Answer>, Option<LocalReply>> {
        let outcome = match &result {
            Ok(answer) => Outcome::Response { status: answer.head.status, grpc: grpc_status(answer) },
            Err(Failure::Outcome(outcome)) => *outcome,
            Err(Failure::Stalled(side)) => return Err(Some(stalled(*side))),
            Err(Failure::Client | Failure::Malformed) => return Err(None),
        };
        let result = Some(result);
        match self.tries.again(&result, outcome, false, body) {
            Some((permit, wait)) => {
                if let Some(Ok(answer)) = result {
                    answer.in_flight.outcome(outcome);
                }
                self.permits.push(permit);
                self.tries.wait(wait).await?;
                self.begin(head, body, record)?;
                Ok(None)
            }
            // A bad answer waits for what is still under way.
            None if !self.running.is_empty() && self.tries.is_bad(&result, outcome) => {
                if let Some(Ok(answer)) = result {
                    answer.in_flight.outcome(outcome);
                }
                Ok(None)
            }
            None => match result {
                Some(Ok(answer)) => {
                    self.running.abort_all();
                    body.drop_all();
                    if let Some(local) = self.tries.cluster.hosts.get(choice) {
                        record.settled(choice, local.host.address);
                    }
                    Ok(Some(answer))
                }
                _ => Err(Some(failed((outcome, self.tries.retries > 0), self.tries.cluster, self.tries.worker()))),
            },
        }
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
