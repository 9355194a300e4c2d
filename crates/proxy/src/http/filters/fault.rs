//! Delays, aborts and slows requests (`envoy.filters.http.fault`). Source: Envoy, "Fault Injection".
//!
//! Faults that go on are counted for the whole listener, and no more than the configured number go on at once. A fault goes on
//! during its delay and, when it slows the response, until the response has ended.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serin_resources::http_filter::{self as resources, AbortStatus};
use serin_traffic::fault::{self, Draws, Injection};
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::router::is_grpc;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::http::alter::{BodyFilter, PacedChunk};
use crate::http::local_reply::{LocalReply, Stop};

counters! {
    Fault:
    DELAYS_INJECTED = "fault.delays_injected",
    ABORTS_INJECTED = "fault.aborts_injected",
    RATES_INJECTED = "fault.response_rl_injected",
    OVERFLOW = "fault.faults_overflow",
}

/// A fault that goes on.
pub(super) struct Fault<'a> {
    /// The number of those that do.
    active: &'a AtomicU32,
    /// Bytes a second at which the response may come.
    rate: Option<u64>,
}

impl<'a> HttpFilter<'a> for Fault<'a> {
    type Config = resources::Fault;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, resources::Fault>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let config = setting.config;
        let elsewhere = config.cluster.as_deref().is_some_and(|c| Some(c) != context.cluster);
        if config.is_empty() || elsewhere {
            return Ok(());
        }
        let draws = Draws { delay: context.random(), abort: context.random(), rate: context.random() };
        let injection = fault::decide(config, request.head, draws);
        if injection == Injection::default() {
            return Ok(());
        }
        let Some(fault) = Self::begin(&context.view.chain.faults, config.most_active, injection.rate) else {
            request.record.count(counter::OVERFLOW);
            return Ok(());
        };
        kept.keep(fault);
        let injected = Box::pin(inject(injection, request)).await;
        match injected {
            Ok(()) if injection.rate.is_some() => request.record.count(counter::RATES_INJECTED),
            _ => kept.release(),
        }
        injected
    }

    fn response_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        self.rate.map(|rate| Box::new(Pacer::new(rate)) as Box<dyn BodyFilter>)
    }

    fn end(&mut self) {
        self.active.fetch_sub(1, Relaxed);
    }
}

impl<'a> Fault<'a> {
    fn begin(active: &'a AtomicU32, most: Option<u32>, rate: Option<u64>) -> Option<Self> {
        let most = most.unwrap_or(u32::MAX);
        active.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1)).ok()?;
        Some(Self { active, rate })
    }
}

async fn inject(injection: Injection, request: &mut RequestParts<'_, '_>) -> Result<(), Stop> {
    if let Some(delay) = injection.delay {
        request.record.count(counter::DELAYS_INJECTED);
        request.record.is_delayed.set(true);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = request.body.abandoned() => return Err(Stop::DownstreamGone),
        }
        request.body.timers.tick();
    }
    let Some(status) = injection.abort else { return Ok(()) };
    request.record.count(counter::ABORTS_INJECTED);
    Err(Stop::Reply(match status {
        AbortStatus::Http(code) => aborted(code),
        // Who speaks no gRPC gets the words alone (Envoy: `sendLocalReply`).
        AbortStatus::Grpc(code) if is_grpc(request.head) => aborted(200).into_grpc(GrpcStatus::new(code)),
        AbortStatus::Grpc(_) => aborted(200),
    }))
}

/// Slow responses come in so many pieces a second (Envoy's `StreamRateLimiter`).
const PIECES: u64 = 16;

/// Holds a body back to a rate.
struct Pacer {
    /// Bytes of one piece.
    piece: usize,
    /// True when a piece went out already: the first waits for nothing.
    begun: bool,
}

impl Pacer {
    /// `rate` is in bytes a second.
    fn new(rate: u64) -> Self {
        Self { piece: usize::try_from(rate / PIECES).unwrap_or(usize::MAX).max(1), begun: false }
    }
}

impl BodyFilter for Pacer {
    fn changes_length(&self) -> bool {
        false
    }

    fn data(&mut self, mut data: Bytes, out: &mut Vec<PacedChunk>) {
        while data.has_remaining() {
            let part = data.split_to(self.piece.min(data.len()));
            let wait = std::mem::replace(&mut self.begun, true);
            let share = part.len() as f64 / self.piece as f64 / PIECES as f64;
            let after = if wait { Duration::from_secs_f64(share) } else { Duration::ZERO };
            out.push(PacedChunk::new(after, part));
        }
    }
}

/// The local reply of an abort.
fn aborted(status: u16) -> LocalReply {
    LocalReply::new(status, "fault filter abort", ResponseFlag::FaultInjected).because("fault_filter_abort")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::filters::tests::{Fixture, stopped_with};
    use serin_resources::http_filter::{Delay, FilterConfig, Slow};

    fn delayed(delay: Duration) -> FilterConfig {
        let delay = Some(Delay { fixed: delay, share: 1_000_000 });
        FilterConfig::Fault(resources::Fault { delay, most_active: Some(1), ..Default::default() })
    }

    #[test]
    fn a_slow_body_comes_in_pieces_with_pauses() {
        let mut pieces = Vec::new();
        Pacer::new(1024).data(vec![b'x'; 160].into(), &mut pieces);
        let waits: Vec<u128> = pieces.iter().map(|p| p.after.as_micros()).collect();
        assert_eq!(waits, [0, 62_500, 31_250]);
    }

    #[test]
    fn a_delay_whose_client_goes_away_no_longer_counts() {
        let fixture = Fixture::new([delayed(Duration::from_secs(3600))]);
        let active = || fixture.view.chain.faults.load(Relaxed);
        let mut filters = fixture.filters();
        assert!(fixture.request(&mut filters).is_none(), "it waits");
        // The request was dropped while it waited, as when its connection ends.
        assert_eq!((active(), fixture.count("fault.delays_injected")), (0, 1));
    }

    #[test]
    fn a_slow_response_counts_until_its_end_and_the_next_fault_is_one_too_many() {
        let slow = Some(Slow { rate: 1024, share: 1_000_000 });
        let config = resources::Fault { slow, most_active: Some(1), ..Default::default() };
        let fixture = Fixture::new([FilterConfig::Fault(config)]);
        let active = || fixture.view.chain.faults.load(Relaxed);
        let (mut first, mut second) = (fixture.filters(), fixture.filters());
        assert!(fixture.request(&mut first).is_some_and(|passed| passed.is_ok()));
        assert!(fixture.request(&mut second).is_some_and(|passed| passed.is_ok()));
        assert_eq!((active(), fixture.count("fault.faults_overflow")), (1, 1));
        assert!(first.response_body().is_some() && second.response_body().is_none());
        drop(first);
        assert_eq!(active(), 0);
    }

    #[test]
    fn an_abort_counts_no_longer_than_it_takes() {
        let abort = Some(resources::Abort { status: AbortStatus::Http(418), share: 1_000_000 });
        let fixture = Fixture::new([FilterConfig::Fault(resources::Fault { abort, ..Default::default() })]);
        let mut filters = fixture.filters();
        assert_eq!(stopped_with(fixture.request(&mut filters)), Some((418, ResponseFlag::FaultInjected)));
        assert_eq!(fixture.view.chain.faults.load(Relaxed), 0);
    }
}
