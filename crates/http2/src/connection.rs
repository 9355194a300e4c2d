//! One connection: its frames, streams, windows and limits.

mod budget;
mod receive;
mod send;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;

use serin_http1::RequestHead;

use crate::error::{ConnectionError, Reason, StreamError};
use crate::fields::FieldList;
use crate::frame::{self, frame};
use crate::hpack::Decoder;
use crate::message::{MOST_FIELDS, REQUEST_LIMIT, RESPONSE_LIMIT};
use crate::stream::Stream;
use budget::Budget;

/// The end of a connection that this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that makes requests.
    Client,
    /// The one that answers.
    Server,
}

/// The limits of the peer.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Streams at a time.
    pub streams: u32,
    /// Bytes of a stream's body that may be on their way (at most 2³¹ − 1).
    pub stream_window: u32,
    /// The same for all streams together.
    pub connection_window: u32,
    /// Bytes of the header list of a request, as HTTP/2 counts them (§6.5.2); for a server.
    pub request_head: usize,
    /// Fields of a request; for a server.
    pub request_fields: usize,
    /// True when a client may ask for another protocol (RFC 8441 §3); for a server.
    pub connect: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            request_head: REQUEST_LIMIT,
            request_fields: MOST_FIELDS,
            connect: false,
        }
    }
}

/// The window that every connection and stream begins with (§6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// The window of a client's stream before somebody reads it: responses that nobody reads cost memory, many at once.
const FIRST_ANSWER_WINDOW: u32 = 32 * 1024;
/// The largest window.
const LARGEST_WINDOW: i64 = i32::MAX as i64;
/// Unwritten bytes beyond which streams must wait.
const ROOM: usize = 256 * 1024;
/// Unwritten bytes beyond which the connection ends: heads of as many streams as there may be are far less.
const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;
/// Streams given up here whose last frames may still come.
const REMEMBERED: usize = 128;

/// Stream numbers need no hash that an attacker cannot foresee: a peer counts them up and has few at a time.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32(u32::from(*b)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Streams = HashMap<u32, Stream, BuildHasherDefault<NumberHasher>>;

/// A header block of which more is to come.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// The progress of a connection's end (§6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaving {
    No,
    /// The peer was told; what it sent before it read that is still served.
    Announced,
    /// Nothing new is served.
    Final,
}

/// A request that was refused before anybody saw it.
#[derive(Debug)]
pub struct Refused {
    /// Its head, as far as that is understood; without a method when it is not.
    pub head: RequestHead,
    /// The status of the response; `None` when its stream was reset.
    pub status: Option<u16>,
}

/// A request that nobody has taken yet.
pub(crate) struct Arrived {
    pub(crate) stream: u32,
    pub(crate) head: RequestHead,
    pub(crate) ended: bool,
}

/// The state of one end of a connection.
pub(crate) struct Connection {
    role: Role,
    config: Config,
    /// True when the client's preface has come; for a server only.
    greeted: bool,
    /// True when the peer's first SETTINGS have come.
    settled: bool,
    decoder: Decoder,
    list: FieldList,
    block: Option<Block>,
    streams: Streams,
    /// Streams that are not over.
    live: u32,
    arrived: VecDeque<Arrived>,
    refused: VecDeque<Refused>,
    /// Bytes to be written.
    pub(crate) out: Vec<u8>,
    send_window: i64,
    receive_window: i64,
    released: u32,
    /// The peer's settings.
    peer_window: i64,
    peer_streams: u32,
    /// The peer's highest stream (server), or the next of our own (client).
    highest: u32,
    next: u32,
    forgotten: VecDeque<u32>,
    leaving: Leaving,
    /// The last stream that the peer serves, once it says so.
    last_served: Option<u32>,
    gone: bool,
    budget: Budget,
    /// True when a stream waits for a window or for room.
    starved: bool,
    /// True when a header block was sent.
    encoded: bool,
    driver: Option<Waker>,
    driver_waits: bool,
}

/// The payload of the PING that asks whether the peer has read GOAWAY.
const FAREWELL: [u8; 8] = *b"farewell";

/// The payload of the PING that asks for a sign of life.
const SIGN_OF_LIFE: [u8; 8] = *b"are you?";

/// The first window of a stream's sender.
fn first_window(role: Role, config: &Config) -> u32 {
    match role {
        Role::Server => config.stream_window,
        Role::Client => config.stream_window.min(FIRST_ANSWER_WINDOW),
    }
}

impl Connection {
    pub(crate) fn new(role: Role, config: Config) -> Self {
        let mut out = Vec::new();
        let mut settings = Vec::new();
        let mut setting = |id: u16, value: u32| {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        };
        match role {
            Role::Client => {
                out.extend_from_slice(frame::PREFACE);
                setting(2, 0);
                setting(6, RESPONSE_LIMIT as u32);
            }
            Role::Server => {
                setting(3, config.streams);
                setting(6, config.request_head as u32);
                if config.connect {
                    setting(8, 1);
                }
            }
        }
        setting(4, first_window(role, &config));
        frame(frame::SETTINGS, 0, 0, &settings, &mut out);
        let more = config.connection_window.saturating_sub(FIRST_WINDOW as u32);
        if more > 0 {
            frame(frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut out);
        }
        Self {
            role,
            config,
            greeted: role == Role::Client,
            settled: false,
            decoder: Decoder::new(4096),
            list: FieldList::default(),
            block: None,
            streams: Streams::default(),
            live: 0,
            arrived: VecDeque::new(),
            refused: VecDeque::new(),
            out,
            send_window: FIRST_WINDOW,
            receive_window: FIRST_WINDOW + i64::from(more),
            released: 0,
            peer_window: FIRST_WINDOW,
            peer_streams: 100,
            highest: 0,
            next: 1,
            forgotten: VecDeque::new(),
            leaving: Leaving::No,
            last_served: None,
            gone: false,
            budget: Budget::default(),
            starved: false,
            encoded: false,
            driver: None,
            driver_waits: false,
        }
    }

    fn first_window(&self) -> u32 {
        first_window(self.role, &self.config)
    }

    pub(crate) fn stream(&mut self, id: u32) -> Result<&mut Stream, StreamError> {
        self.streams.get_mut(&id).ok_or(StreamError::Gone)
    }

    /// The next request that nobody has taken and that its client still wants.
    ///
    /// None is given out while a client does not read what it asked for: streams that wait count, so it is refused more.
    pub(crate) fn accept(&mut self) -> Option<Arrived> {
        loop {
            if self.out.len() >= ROOM {
                return None;
            }
            let arrived = self.arrived.pop_front()?;
            match self.streams.get(&arrived.stream) {
                Some(stream) if stream.failure.is_none() => return Some(arrived),
                _ => self.release_stream(arrived.stream),
            }
        }
    }

    /// Notes that a stream has changed from living to over, if it has.
    fn settle(&mut self, id: u32, was_over: bool) {
        let over = self.streams.get(&id).is_none_or(Stream::is_over);
        if over && !was_over {
            self.live = self.live.saturating_sub(1);
        }
    }

    /// Remembers a stream that was given up here: its last frames may still come.
    fn forget(&mut self, id: u32) {
        if self.forgotten.len() >= REMEMBERED {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(id);
    }

    /// Ends a stream because of what the peer did, and tells it.
    fn fail_stream(&mut self, id: u32, reason: Reason, error: StreamError) -> Result<(), ConnectionError> {
        if !self.streams.contains_key(&id) {
            self.forget(id);
        }
        frame(frame::RST_STREAM, 0, id, &reason.0.to_be_bytes(), &mut self.out);
        self.end_stream(id, error);
        self.budget.caused_reset()
    }

    /// Ends a stream without a word to the peer.
    fn end_stream(&mut self, id: u32, error: StreamError) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let was_over = stream.is_over();
            stream.failure.get_or_insert(error);
            stream.wake();
            self.settle(id, was_over);
        }
    }

    /// Forgets a stream whose holder is gone; what is not over is given up.
    pub(crate) fn release_stream(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if !stream.is_over() {
            self.live = self.live.saturating_sub(1);
            let reason =
                if self.role == Role::Server && stream.local_ended { Reason::NO_ERROR } else { Reason::CANCEL };
            frame(frame::RST_STREAM, 0, id, &reason.0.to_be_bytes(), &mut self.out);
        }
        if !stream.remote_ended {
            self.forget(id);
        }
        let unread: usize = stream
            .received
            .iter()
            .map(|piece| if let crate::stream::Piece::Data(data) = piece { data.len() } else { 0 })
            .sum();
        if self.role == Role::Server {
            self.release(unread as u32);
        }
        self.produced();
    }

    /// Gives the peer's connection window back what was taken out.
    fn release(&mut self, bytes: u32) {
        self.released += bytes;
        if self.released >= self.config.connection_window / 2 {
            frame(frame::WINDOW_UPDATE, 0, 0, &self.released.to_be_bytes(), &mut self.out);
            self.receive_window += i64::from(self.released);
            self.released = 0;
        }
    }

    /// Gives a stream's window back what was taken out of it, and a server its connection's. A client gave that back when
    /// it came: one reader that is slow must not hold up all that share the connection, and their own windows bound them.
    pub(crate) fn release_from(&mut self, id: u32, bytes: u32) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|s| !s.remote_ended) {
            stream.released += bytes;
            if stream.released >= stream.window / 2 {
                let growth = stream.window.min(self.config.stream_window.saturating_sub(stream.window));
                stream.window += growth;
                let opened = stream.released + growth;
                frame(frame::WINDOW_UPDATE, 0, id, &opened.to_be_bytes(), &mut self.out);
                stream.receive_window += i64::from(opened);
                stream.released = 0;
            }
        }
        if self.role == Role::Server {
            self.release(bytes);
        }
        self.produced();
    }

    /// Returns true when neither end has given the connection up.
    pub(crate) fn is_open(&self) -> bool {
        !self.gone && self.last_served.is_none() && self.leaving == Leaving::No && self.next < 1 << 31
    }

    /// Returns true when another stream can be opened.
    pub(crate) fn can_open(&self) -> bool {
        self.is_open() && self.live < self.peer_streams
    }

    /// Returns true when the peer has begun as it must.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Streams that are not over.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Sends a PING (§6.7).
    pub(crate) fn ask_for_life(&mut self) {
        frame(frame::PING, 0, 0, &SIGN_OF_LIFE, &mut self.out);
        self.produced();
    }

    /// Begins to leave (§6.8): streams that are open end in peace.
    pub(crate) fn shut_down(&mut self) {
        match (self.leaving, self.role) {
            (Leaving::Final, _) => return,
            // Nothing can be on its way that is not asked for.
            (_, Role::Client) => {
                self.leaving = Leaving::Final;
                self.go_away(0, Reason::NO_ERROR);
            }
            (Leaving::No, Role::Server) => {
                self.leaving = Leaving::Announced;
                self.go_away(i32::MAX as u32, Reason::NO_ERROR);
                frame(frame::PING, 0, 0, &FAREWELL, &mut self.out);
            }
            (Leaving::Announced, Role::Server) => self.leave(),
        }
        self.produced();
    }

    /// Says which stream is the last: the peer has seen the announcement, or had its time.
    fn leave(&mut self) {
        self.leaving = Leaving::Final;
        self.go_away(self.highest, Reason::NO_ERROR);
    }

    fn go_away(&mut self, last: u32, reason: Reason) {
        let payload = [last.to_be_bytes(), reason.0.to_be_bytes()].concat();
        frame(frame::GOAWAY, 0, 0, &payload, &mut self.out);
    }

    /// Returns true when nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        let leaving = self.leaving == Leaving::Final || self.last_served.is_some();
        leaving && self.live == 0 && self.out.is_empty()
    }

    /// The next request that was refused here.
    pub(crate) fn refused(&mut self) -> Option<Refused> {
        self.refused.pop_front()
    }

    /// Ends everything: the socket is gone, or no use any more.
    pub(crate) fn close(&mut self) {
        self.gone = true;
        self.arrived.clear();
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end_stream(id, StreamError::Gone));
    }

    /// Tells the peer why the connection ends, and ends it.
    pub(crate) fn fail(&mut self, error: ConnectionError) {
        let last = if self.role == Role::Server { self.highest } else { 0 };
        self.go_away(last, error.reason);
        self.close();
    }

    /// There is something to write.
    pub(crate) fn produced(&mut self) {
        if !self.out.is_empty()
            && std::mem::take(&mut self.driver_waits)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Registers who writes.
    pub(crate) fn wait_for_output(&mut self, waker: &Waker) {
        self.driver_waits = true;
        if self.driver.as_ref().is_none_or(|d| !d.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Takes what is to be written, in exchange for an empty buffer.
    pub(crate) fn take_output(&mut self, into: &mut Vec<u8>) {
        std::mem::swap(&mut self.out, into);
        self.budget.replies_taken();
        if std::mem::take(&mut self.starved) {
            self.streams.values_mut().for_each(Stream::wake);
        }
    }

    /// To be called once in a second or so: what a peer may do grows with time.
    pub(crate) fn refill(&mut self) {
        self.budget.refill();
    }
}
