//! Spans that workers have to tell, on their way to the main thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serin_resources::tracing::Provider;
use serin_telemetry::otlp::Span;
use tokio::sync::mpsc;

/// Spans that wait at most; those that come when so many wait are dropped.
const WAITING: usize = 4096;

/// Spans that collectors took, and those that were dropped.
pub(crate) static SENT: AtomicU64 = AtomicU64::new(0);
pub(crate) static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The channel from workers to the exporter of spans.
pub(crate) type Spans = mpsc::Sender<(Provider, Span)>;

/// A way for spans, and its end.
pub(crate) fn channel() -> (Spans, mpsc::Receiver<(Provider, Span)>) {
    mpsc::channel(WAITING)
}

/// Hands a span over.
pub(crate) fn tell(spans: &Spans, provider: &Provider, span: Span) {
    if spans.try_send((provider.clone(), span)).is_err() {
        DROPPED.fetch_add(1, Relaxed);
    }
}
