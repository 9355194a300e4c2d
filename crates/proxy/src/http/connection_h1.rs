//! An HTTP/1 client's connection: one request after the other, each answered before the next is looked at.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use serin_http1::body::BodyDecoder;
use serin_http1::encode::{Names, Style};
use serin_http1::framing::{self, Framing};
use serin_http1::{Error, Limits, RequestHead, Scan, Version, parse_request, reason_of};
use serin_resources::connection_manager::{HeadOptions, Timeouts};
use serin_resources::protocol::NameCase;
use serin_traffic::response_flag::ResponseFlag;
use serin_transport::ByteStream;
use tokio::io::AsyncWriteExt as _;

use super::body::{RequestBody, Source};
use super::finish::StreamInfo;
use super::local_reply::LocalReply;
use super::respond::{self, Disposition, Responder};
use super::serve::serve as serve_request;
use super::{ConnectionContext, count, finishing, within};
use crate::metric::{self, End};
use crate::timer::Timers;
use crate::wire::{BodySource, Frame, H1Reader, H1Writer, Take, TrailerLimits};

/// The next step of a connection.
enum Next {
    Request(Framing),
    /// A head that is no request.
    Refuse(Refusal),
    Closed,
    /// Nothing, for a while.
    Quiet,
}

/// The reason why there is no request.
#[derive(Clone, Copy)]
enum Refusal {
    Error(Error),
    /// It did not come in time.
    Late(Late),
}

/// The time in which a head did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Headers,
    Request,
    Idle,
}

impl Late {
    fn counter(self) -> usize {
        match self {
            Self::Headers => metric::http::RQ_HEADER_TIMEOUT,
            Self::Request => metric::http::RQ_TIMEOUT,
            Self::Idle => metric::http::RQ_IDLE_TIMEOUT,
        }
    }

    /// Body and details of the local reply (Envoy: `ActiveStream::onRequestHeaderTimeout`, `onRequestTimeout`, `onIdleTimeout`).
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Headers => ("request header timeout", "request_header_timeout"),
            Self::Request => ("request timeout", "request_overall_timeout"),
            Self::Idle => ("stream timeout", "stream_idle_timeout"),
        }
    }
}

/// The shortest of the times in which a head must come, and which it is; zero is none.
fn head_time(timeouts: Timeouts) -> (Duration, Late) {
    let Timeouts { request_headers, request, stream_idle, .. } = timeouts;
    let all = [(request_headers, Late::Headers), (request, Late::Request), (stream_idle, Late::Idle)];
    let shortest = all.into_iter().filter(|(time, _)| !time.is_zero()).min_by_key(|(time, _)| *time);
    shortest.unwrap_or((Duration::ZERO, Late::Headers))
}

/// The end of a burst of requests.
enum Burst {
    /// The client says nothing for a while.
    Quiet,
    /// The connection is over, at once.
    Closed,
    /// It is over in the middle of a request.
    Aborted,
    /// It is over when the client has read what was written.
    Linger,
}

/// The time that a client may say nothing before what its next request needs is put away.
const QUIET: Duration = Duration::from_millis(250);

/// Serves a connection until it ends. Most connections wait most of the time: what a request needs, several kilobytes,
/// is there only while requests come.
pub(crate) async fn serve(context: Rc<ConnectionContext>, stream: ByteStream, buffer: BytesMut) -> End {
    let (read, write) = stream.into_split();
    let mut reader = H1Reader::new(read, buffer);
    let mut writer = H1Writer::new(write);
    loop {
        match Box::pin(burst(&context, &mut reader, &mut writer)).await {
            Burst::Quiet => {}
            Burst::Closed => return End { by_remote: is_closed(&reader), is_busy: false },
            Burst::Aborted => return End { by_remote: is_closed(&reader), is_busy: true },
            Burst::Linger => {
                Box::pin(linger(reader, writer)).await;
                return End::default();
            }
        }
        reader.rest();
        writer.rest();
        let idle = settings(&context).0.idle;
        let limit = if idle.is_zero() { idle } else { idle.saturating_sub(QUIET).max(QUIET) };
        let readable = tokio::select! {
            biased;
            readable = within(limit, std::future::poll_fn(|cx| reader.socket.poll_read_ready(cx))) => readable,
            () = finishing(&context.worker) => return End::default(),
        };
        if readable.is_none() {
            count(&context, metric::http::CX_IDLE_TIMEOUT);
            return End::default();
        }
    }
}

/// Returns true when the client has closed the connection.
fn is_closed(reader: &H1Reader) -> bool {
    let mut byte = [0; 1];
    let read = reader.socket.try_read(&mut byte);
    reader.is_gone() || !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Serves requests as long as they come.
async fn burst(context: &Rc<ConnectionContext>, reader: &mut H1Reader, writer: &mut H1Writer) -> Burst {
    let mut head = RequestHead::default();
    let timers = Timers::new();
    let worker = context.worker.clone();
    let mut leaving = pin!(finishing(&worker));
    loop {
        let framing = match next(context, &timers, reader, &mut head, leaving.as_mut()).await {
            Next::Quiet => return Burst::Quiet,
            Next::Closed => return Burst::Closed,
            Next::Refuse(refusal) => {
                let body = RequestBody::new(Source::Client(BodySource::H1(reader)), &timers);
                refuse(context, refusal, &head, body, writer).await;
                return Burst::Linger;
            }
            Next::Request(framing) => framing,
        };
        if let Err(error) = expectation(&mut head, framing, writer).await {
            let body = RequestBody::new(Source::Client(BodySource::H1(reader)), &timers);
            refuse(context, Refusal::Error(error), &head, body, writer).await;
            return Burst::Linger;
        }
        let wanted = framing::keeps_alive(&head.fields, head.version);
        // A client that said its last word may have asked for more before.
        let more = !reader.ended || !reader.buffer.is_empty();
        let keep_alive = context.begin_request() && wanted && !context.worker.draining.get() && more;
        let settings = ResponseSettings::of(context, head.version);
        reader.decoder = BodyDecoder::new(framing).yielding_trailers(settings.trailers);
        reader.trailer_limits = settings.trailer_limits;
        let ResponseSettings { style, trailers, .. } = settings;
        let responder = Responder::H1 { writer: &mut *writer, version: head.version, keep_alive, style, trailers };
        let mut body = RequestBody::new(Source::Client(BodySource::H1(&mut *reader)), &timers);
        body.interim = head.version == Version::Http11;
        match serve_request(context, &mut head, framing, body, responder).await {
            Disposition::Keep if drained(reader).await => {}
            // Who asked for the end and said nothing more has nothing on its way that closing could lose.
            Disposition::Close if !wanted && reader.decoder.is_done() && reader.buffer.is_empty() => {
                return Burst::Closed;
            }
            Disposition::Keep | Disposition::Close => return Burst::Linger,
            Disposition::Abort => return Burst::Aborted,
        }
    }
}

/// How responses are written, and trailers read.
struct ResponseSettings {
    style: Style,
    trailers: bool,
    trailer_limits: TrailerLimits,
}

impl ResponseSettings {
    /// Those of the chain as they are now.
    fn of(context: &ConnectionContext, version: Version) -> Self {
        let view = context.view().1;
        let mut style = Style { is_http10: version == Version::Http10, ..Style::default() };
        let Some(http) = view.chain.config.filter.manager() else {
            return Self { style, trailers: false, trailer_limits: TrailerLimits::default() };
        };
        if http.http1.names == NameCase::Proper {
            style.names = Names::Proper;
        }
        let HeadOptions { kib, fields, underscores } = http.heads;
        let trailer_limits = TrailerLimits { fields: fields as usize, bytes: kib as usize * 1024, underscores };
        Self { style, trailers: http.http1.trailers, trailer_limits }
    }
}

/// The chain's timers and limits as they are now.
fn settings(context: &ConnectionContext) -> (Timeouts, Limits) {
    match context.view().1.chain.config.filter.manager() {
        Some(http) => {
            let head_bytes = http.heads.kib as usize * 1024;
            let fields = http.heads.fields as usize;
            let limits = Limits { head_bytes, fields, keeps_urls: !http.http1.absolute_url, ..Limits::default() };
            (http.timeouts, limits)
        }
        None => (Timeouts::default(), Limits::default()),
    }
}

/// Waits for a request head.
async fn next(
    context: &ConnectionContext,
    timers: &Timers,
    reader: &mut H1Reader,
    head: &mut RequestHead,
    leaving: Pin<&mut impl Future<Output = ()>>,
) -> Next {
    let (timeouts, limits) = settings(context);
    if reader.buffer.is_empty() {
        if reader.ended {
            return Next::Closed;
        }
        let quiet = if timeouts.idle.is_zero() { QUIET } else { QUIET.min(timeouts.idle) };
        let filled = {
            let filling = pin!(reader.fill());
            tokio::select! {
                biased;
                filled = timers.within(quiet, filling) => filled,
                () = leaving => return Next::Closed,
            }
        };
        match filled {
            Some(Ok(())) if !reader.buffer.is_empty() => {}
            Some(_) => return Next::Closed,
            None if quiet < QUIET => {
                count(context, metric::http::CX_IDLE_TIMEOUT);
                return Next::Closed;
            }
            None => return Next::Quiet,
        }
    }
    timers.tick();
    let (time, late) = head_time(timeouts);
    match timers.at_most(time, pin!(read_head(context, reader, timers, &limits, head))).await {
        Some(Some(Ok(framing))) => Next::Request(framing),
        Some(Some(Err(error))) => {
            count(context, metric::http::CX_PROTOCOL_ERROR);
            Next::Refuse(Refusal::Error(error))
        }
        Some(None) => Next::Closed,
        None => {
            if late != Late::Idle {
                count(context, late.counter());
            }
            Next::Refuse(Refusal::Late(late))
        }
    }
}

/// `None` when the client went away in the middle.
async fn read_head(
    context: &ConnectionContext,
    reader: &mut H1Reader,
    timers: &Timers,
    limits: &Limits,
    head: &mut RequestHead,
) -> Option<Result<Framing, Error>> {
    let mut scan = Scan::default();
    loop {
        match parse_request(&reader.buffer, &mut scan, limits, head) {
            Ok(Some(used)) => {
                reader.begin(used, head.fields.len());
                let completed = complete(context, head);
                if completed.is_err() {
                    // What was understood of it is not said to be a request.
                    *head = RequestHead::default();
                }
                return Some(completed);
            }
            Ok(None) if reader.ended => return None,
            Ok(None) => {
                reader.fill().await.ok()?;
                timers.tick();
            }
            Err(error) => {
                // What was understood of it is not said to be a request.
                *head = RequestHead::default();
                return Some(Err(error));
            }
        }
    }
}

/// Gives a head what its client may leave out, and reads its framing.
fn complete(context: &ConnectionContext, head: &mut RequestHead) -> Result<Framing, Error> {
    let view = context.view().1;
    let Some(http) = view.chain.config.filter.manager() else { return framing::of_request(head) };
    let is_nameless = !head.fields.contains("host") && !http.http1.default_host.is_empty();
    if is_nameless && head.version == Version::Http10 {
        head.fields.append(b"host", http.http1.default_host.as_bytes());
    }
    framing::of_request_with(head, http.http1.chunked_length)
}

/// Answers `Expect: 100-continue` at once; the body is read as it comes (RFC 9110 §10.1.1).
async fn expectation(head: &mut RequestHead, framing: Framing, writer: &mut H1Writer) -> Result<(), Error> {
    if !head.fields.contains("expect") {
        return Ok(());
    }
    if head.version == Version::Http10 {
        head.fields.remove("expect");
        return Ok(());
    }
    super::expectation(head)?;
    if framing != Framing::Empty {
        writer.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        let _ = writer.flush().await;
    }
    Ok(())
}

/// Answers what is no request, and says so where requests are logged.
async fn refuse(
    context: &Rc<ConnectionContext>,
    refusal: Refusal,
    asked: &RequestHead,
    body: RequestBody<'_>,
    writer: &mut H1Writer,
) {
    let (error, status) = match refusal {
        Refusal::Error(error) => (Some(error), error.status()),
        Refusal::Late(_) => (None, 408),
    };
    let mut record = StreamInfo::refused(context, body.timers.last(), asked, error);
    // Envoy says the name of the status.
    let text = match refusal {
        Refusal::Error(_) => reason_of(status),
        Refusal::Late(late) => {
            let (text, details) = late.texts();
            record.details = Some(details.into());
            if late == Late::Idle {
                record.flag = ResponseFlag::StreamIdleTimeout;
            }
            text
        }
    };
    let mut reply = LocalReply::new(status, text, record.flag);
    reply.details.clone_from(&record.details);
    let reply = reply.mapped(asked, &mut record);
    let ResponseSettings { style, .. } = ResponseSettings::of(context, Version::Http11);
    let responder = Responder::H1 { writer, version: Version::Http11, keep_alive: false, style, trailers: false };
    respond::local(reply, asked, &body, responder, &mut record).await;
}

/// Most body bytes that are read and thrown away to keep a connection.
const DRAIN: usize = 64 * 1024;

/// Reads the rest of a request that was answered without it; false when that is not worth it.
async fn drained(reader: &mut H1Reader) -> bool {
    let rest = async {
        let mut bytes = 0;
        loop {
            match reader.take() {
                Ok(Take::End) => return true,
                Ok(Take::Frame(Frame::Data(data))) => bytes += data.len(),
                Ok(Take::Frame(_)) => {}
                Ok(Take::Wait) => {
                    if reader.fill().await.is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
            if bytes > DRAIN {
                return false;
            }
        }
    };
    within(Duration::from_secs(1), rest).await.unwrap_or(false)
}

/// Closes so that the client can read the response: unread bytes would make the kernel reset the connection.
async fn linger(mut reader: H1Reader, mut writer: H1Writer) {
    let _ = writer.socket.shutdown().await;
    let rest = async {
        let mut bytes = 0;
        while !reader.ended && bytes < 4 * DRAIN {
            reader.buffer.clear();
            if reader.fill().await.is_err() {
                return;
            }
            bytes += reader.buffer.len();
        }
    };
    within(Duration::from_secs(1), rest).await;
}
