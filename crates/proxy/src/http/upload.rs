//! The way of a request's body to the upstream.

use std::pin::pin;
use std::time::Duration;

use super::body::RequestBody;
use crate::wire::{BodyError, BodySink, Take};

/// A side of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Upstream,
}

/// The reason why a request's body did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpError {
    /// That side is gone.
    Gone(Side),
    /// That side was silent for too long.
    Stalled(Side),
    /// The client's body is not framed as it should be.
    Malformed,
    /// The client's trailers are more than they may be.
    TooLarge,
    /// The client's trailers have more fields than they may have.
    TooMany,
    /// The client's trailers have a name that is refused.
    Underscore,
}

impl PumpError {
    /// The side that failed.
    pub(crate) fn side(self) -> Side {
        match self {
            Self::Gone(side) | Self::Stalled(side) => side,
            Self::Malformed | Self::TooLarge | Self::TooMany | Self::Underscore => Side::Client,
        }
    }
}

/// Moves the request's body until its end. Can be dropped and made anew at any point.
pub(crate) async fn pump(body: &mut RequestBody<'_>, sink: &mut BodySink<'_>) -> Result<(), PumpError> {
    loop {
        let taken = body.take().map_err(|error| match error {
            BodyError::Malformed => PumpError::Malformed,
            BodyError::TooLarge => PumpError::TooLarge,
            BodyError::TooMany => PumpError::TooMany,
            BodyError::Underscore => PumpError::Underscore,
            BodyError::Aborted | BodyError::Truncated => PumpError::Gone(Side::Client),
        });
        match taken? {
            Take::Frame(frame) => {
                sink.push(frame);
                if sink.is_full() {
                    push_out(body, sink).await?;
                    body.timers.tick();
                }
            }
            Take::End => {
                sink.finish();
                return push_out(body, sink).await;
            }
            Take::Wait if !sink.is_full() && body.fill_more() => {}
            Take::Wait => {
                push_out(body, sink).await?;
                let timers = body.timers;
                let filled =
                    timers.within(body.idle, pin!(body.fill())).await.ok_or(PumpError::Stalled(Side::Client))?;
                filled.map_err(|_| PumpError::Gone(Side::Client))?;
            }
        }
    }
}

/// The interval at which a client is looked at while its request cannot go on.
const LOOK: Duration = Duration::from_secs(1);

async fn push_out(body: &RequestBody<'_>, sink: &mut BodySink<'_>) -> Result<(), PumpError> {
    let mut flushing = pin!(sink.flush());
    let idle = if body.idle.is_zero() { Duration::MAX } else { body.idle };
    let mut patience = idle.min(LOOK);
    let mut watch = body.watch();
    loop {
        match body.timers.within(patience, flushing.as_mut()).await {
            Some(flushed) => return flushed.map_err(|_| PumpError::Gone(Side::Upstream)),
            None if patience >= idle => return Err(PumpError::Stalled(Side::Upstream)),
            None if body.is_gone(&mut watch).await => return Err(PumpError::Gone(Side::Client)),
            None => patience = idle.min(patience + LOOK),
        }
    }
}

/// Moves the request's body, or, when that is done, waits for the client to go away.
pub(crate) async fn upload(body: &mut RequestBody<'_>, sink: &mut BodySink<'_>, done: bool) -> Result<(), PumpError> {
    if done {
        body.abandoned().await;
        return Err(PumpError::Gone(Side::Client));
    }
    pump(body, sink).await
}
