//! An HTTP/2 client's connection: every stream is a request of its own.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serin_http1::framing::{self, Framing};
use serin_http1::{Error, ResponseHead, check_target};
use serin_http2::{Accepted, Config, Reason, Refused, Role, Session};
use serin_resources::connection_manager::Timeouts;
use serin_transport::ByteStream;
use serin_transport::h2::{Driven, Driver};

use super::body::{RequestBody, Source};
use super::finish::StreamInfo;
use super::respond::Responder;
use super::serve::serve as serve_request;
use super::{ConnectionContext, expectation, within};
use crate::metric::{self, End};
use crate::timer::Timers;
use crate::wire::{BodySource, H2Reader};

/// The time that a client that was asked to leave, and has no streams, may take to do so.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends.
pub(crate) async fn serve(
    context: Rc<ConnectionContext>,
    stream: ByteStream,
    buffer: BytesMut,
    timeouts: Timeouts,
) -> End {
    let session = Session::new(Role::Server, config(&context));
    let counted = context.clone();
    let first = buffer.len() as u64;
    let moved = Box::new(move |received, sent| {
        let stats = &counted.view().1.chain.stats;
        stats.add(counted.worker.id, metric::http::CX_RX_BYTES, received);
        stats.add(counted.worker.id, metric::http::CX_TX_BYTES, sent);
    });
    moved(first, 0);
    let mut driver = Driver::new(stream, session.clone(), buffer).telling(moved);
    let patience = if timeouts.request_headers.is_zero() { timeouts.idle } else { timeouts.request_headers };
    if within(patience, driver.settled()).await != Some(true) {
        broken(&context, &driver);
        return End { by_remote: driver.error().is_none(), is_busy: false };
    }
    let activity = Rc::new(Activity::new());
    let mut leaving = false;
    let mut wanted = pin!(leave(&context, &activity, timeouts.idle));
    let mut farewell = pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        let driven = tokio::select! {
            biased;
            driven = driver.next() => driven,
            () = wanted.as_mut(), if !leaving => {
                leaving = true;
                session.shut_down();
                farewell.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
                continue;
            }
            () = farewell.as_mut(), if leaving => {
                if session.live() == 0 {
                    return End::default();
                }
                // It had its time: what it asks for from now on is not served.
                session.shut_down();
                farewell.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
                continue;
            }
        };
        let accepted = match driven {
            Driven::Request(accepted) => accepted,
            Driven::Refused(refused) => {
                log(&context, &refused);
                continue;
            }
            Driven::Ended => {
                broken(&context, &driver);
                return End { by_remote: driver.error().is_none() && !leaving, is_busy: activity.streams.get() > 0 };
            }
        };
        context.view();
        if !context.begin_request() && !leaving {
            leaving = true;
            session.shut_down();
            farewell.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
        }
        let (context, stream) = (context.clone(), Stream::open(&activity));
        // In a box: on its way into a task a future is moved several times, and this one is large.
        tokio::task::spawn_local(Box::pin(async move {
            serve_stream(context, accepted).await;
            drop(stream);
        }));
    }
}

/// The limits of the codec.
fn config(context: &ConnectionContext) -> Config {
    let view = context.view().1;
    let Some(http) = view.chain.config.filter.manager() else { return Config::default() };
    let (request_head, request_fields) = (http.heads.kib as usize * 1024, http.heads.fields as usize);
    let mut config = Config { request_head, request_fields, connect: http.http2.connect, ..Config::default() };
    if let Some(streams) = http.http2.streams {
        config.streams = streams;
    }
    config
}

/// Logs a request that the codec has refused.
fn log(context: &Rc<ConnectionContext>, Refused { head, status }: &Refused) {
    let error = if status.is_some() { Error::HeadTooLarge } else { Error::Field };
    let mut record = StreamInfo::refused(context, Timers::new().last(), head, Some(error));
    if let Some(status) = status {
        record.response(&ResponseHead::new(*status));
    }
}

/// Counts what its client did for which a connection ended, if it did.
fn broken(context: &ConnectionContext, driver: &Driver) {
    let index = match driver.error() {
        Some(error) if error.reason == Reason::ENHANCE_YOUR_CALM => metric::http::CX_FLOOD,
        Some(_) => metric::http::CX_PROTOCOL_ERROR,
        None => return,
    };
    super::count(context, index);
}

/// The activity of a connection.
struct Activity {
    streams: Cell<usize>,
    since: Cell<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self { streams: Cell::new(0), since: Cell::new(Instant::now()) }
    }

    /// Returns when no stream was open for that long; zero is never.
    async fn idle_for(&self, limit: Duration) {
        if limit.is_zero() {
            std::future::pending::<()>().await;
        }
        loop {
            let idle = if self.streams.get() > 0 { Duration::ZERO } else { self.since.get().elapsed() };
            match limit.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => return,
            }
        }
    }
}

/// An open stream, counted until dropped.
struct Stream(Rc<Activity>);

impl Stream {
    fn open(activity: &Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        Self(activity.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// Waits until the connection should take no more streams.
async fn leave(context: &ConnectionContext, activity: &Activity, idle: Duration) {
    let draining = async {
        while !context.worker.draining.get() {
            context.worker.wake.notified().await;
        }
    };
    tokio::select! {
        () = draining => {}
        () = activity.idle_for(idle) => super::count(context, metric::http::CX_IDLE_TIMEOUT),
    }
}

/// Serves one stream; a client that gives it up, or goes away, ends whatever is done for it.
async fn serve_stream(context: Rc<ConnectionContext>, accepted: Accepted) {
    let Accepted { mut head, ended, stream } = accepted;
    let framing = match framing::of_request(&mut head) {
        Ok(framing) => framing,
        Err(error) => {
            drop(StreamInfo::refused(&context, Timers::new().last(), &head, Some(error)));
            return stream.reset(Reason::PROTOCOL_ERROR);
        }
    };
    let expects = head.fields.contains("expect");
    if let Err(error) = check_target(&head).and_then(|()| expectation(&mut head)) {
        let answer = ResponseHead::new(error.status());
        StreamInfo::refused(&context, Timers::new().last(), &head, Some(error)).response(&answer);
        let _ = stream.respond(&answer, None, true);
        return;
    }
    if expects && !ended {
        // A client that waits for it sends its body at once (RFC 9110 §10.1.1).
        let _ = stream.inform(100);
    }
    let framing = match framing {
        Framing::Empty if !ended => Framing::Chunked,
        other => other,
    };
    let stream = Rc::new(stream);
    let timers = Timers::new();
    let mut reader = H2Reader::new(stream.clone());
    let body = RequestBody::new(Source::Client(BodySource::H2(&mut reader)), &timers);
    tokio::select! {
        biased;
        _ = serve_request(&context, &mut head, framing, body, Responder::H2(stream.clone())) => {}
        _ = std::future::poll_fn(|cx| stream.poll_given_up(cx)) => {}
    }
}
