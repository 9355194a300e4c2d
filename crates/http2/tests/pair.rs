//! A client and a server of this crate, joined: requests, bodies, windows, the end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use serin_http1::{HeaderBlock, RequestHead, ResponseHead, Version};
use serin_http2::{Config, Piece, Reason, Role, Session, StreamError};

struct Pair {
    client: Session,
    server: Session,
}

impl Pair {
    fn new(config: Config) -> Self {
        let pair = Self { client: Session::new(Role::Client, config), server: Session::new(Role::Server, config) };
        pair.exchange();
        pair
    }

    /// Carries bytes until neither has any.
    fn exchange(&self) {
        let mut bytes = Vec::new();
        loop {
            let mut moved = false;
            for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
                bytes.clear();
                if from.take_output(&mut bytes) {
                    to.receive(&mut BytesMut::from(&bytes[..])).unwrap();
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }
}

fn get() -> RequestHead {
    let mut head = RequestHead::default();
    head.start(b"GET", b"/path?q", Version::Http11);
    head.fields.append(b"Host", b"a.b");
    head.fields.append(b"X-Mixed", b"Case");
    head
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn a_request_and_its_answer() {
    let pair = Pair::new(Config::default());
    let asked = pair.client.open(&get(), Some(3), false).unwrap();
    assert_eq!(asked.send(b"abc", true), Ok(3));
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    assert_eq!((accepted.head.target(), accepted.head.authority()), (&b"/path?q"[..], &b"a.b"[..]));
    assert_eq!(accepted.head.fields.get("x-mixed"), Some(&b"Case"[..]));
    assert!(accepted.head.fields.iter().all(|(name, _)| !name.iter().any(u8::is_ascii_uppercase)));
    assert!(matches!(accepted.stream.take(), Ok(Some(Piece::Data(data))) if data == "abc"));
    assert!(accepted.stream.is_ended());

    accepted.stream.respond(&ResponseHead::new(200), None, false).unwrap();
    accepted.stream.send(b"def", false).unwrap();
    let mut trailers = HeaderBlock::default();
    trailers.append(b"grpc-status", b"0");
    accepted.stream.send_trailers(&trailers).unwrap();
    pair.exchange();
    assert!(matches!(asked.poll_head(&context()), Poll::Ready(Ok(head)) if head.status == 200));
    assert!(matches!(asked.take(), Ok(Some(Piece::Data(data))) if data == "def"));
    assert!(matches!(asked.take(), Ok(Some(Piece::Trailers(t))) if t.get("grpc-status") == Some(b"0")));
    assert!(asked.is_ended());
    drop((asked, accepted));
    assert_eq!((pair.client.live(), pair.server.live()), (0, 0));
    assert!(!pair.client.take_output(&mut Vec::new()), "a stream that is over needs no reset");
}

/// However large, a body passes, and never more of it than the receiver's windows allow.
#[test]
fn bodies_wait_for_their_windows() {
    let config = Config { stream_window: 100_000, connection_window: 150_000, ..Config::default() };
    let pair = Pair::new(config);
    let asked = pair.client.open(&get(), None, false).unwrap();
    let body: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let (mut sent, mut came) = (0, Vec::new());
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    while !accepted.stream.is_ended() {
        sent += asked.send(&body[sent..], true).unwrap_or(0);
        pair.exchange();
        assert!(sent - came.len() <= 100_000);
        while let Ok(Some(Piece::Data(data))) = accepted.stream.take() {
            came.extend_from_slice(&data);
        }
    }
    assert!(came == body);
}

#[test]
fn what_one_end_gives_up_the_other_sees() {
    let pair = Pair::new(Config::default());
    let asked = pair.client.open(&get(), None, true).unwrap();
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    drop(asked);
    pair.exchange();
    assert_eq!(accepted.stream.poll_given_up(&context()), Poll::Ready(StreamError::Reset(Reason::CANCEL)));
    assert!(accepted.stream.respond(&ResponseHead::new(200), None, true).is_err());

    let asked = pair.client.open(&get(), None, true).unwrap();
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    accepted.stream.reset(Reason::INTERNAL_ERROR);
    pair.exchange();
    assert!(matches!(asked.poll_head(&context()), Poll::Ready(Err(StreamError::Reset(Reason::INTERNAL_ERROR)))));
    pair.client.close();
    assert!(!pair.client.can_open());
}

#[test]
fn streams_that_are_open_outlive_the_announced_end() {
    let pair = Pair::new(Config::default());
    let first = pair.client.open(&get(), None, true).unwrap();
    pair.exchange();
    pair.server.shut_down();
    pair.exchange();
    assert!(!pair.client.can_open());
    assert!(!pair.server.is_finished());
    let accepted = pair.server.accept().unwrap();
    accepted.stream.respond(&ResponseHead::new(204), None, true).unwrap();
    pair.exchange();
    assert!(matches!(first.poll_head(&context()), Poll::Ready(Ok(head)) if head.status == 204));
    drop((first, accepted));
    pair.exchange();
    assert!(pair.server.is_finished() && pair.client.is_finished());
}

#[test]
fn no_more_streams_than_the_peer_takes() {
    let pair = Pair::new(Config { streams: 2, ..Config::default() });
    let held: Vec<_> = std::iter::from_fn(|| pair.client.open(&get(), None, true)).collect();
    assert_eq!(held.len(), 2);
    drop(held);
    assert!(pair.client.can_open());
}

/// Whatever comes in, nothing panics, and nothing that was not asked for is kept.
#[test]
fn random_frames_do_no_harm() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let role = if random.bool() { Role::Server } else { Role::Client };
        let session = Session::new(role, Config::default());
        let asked = session.open(&get(), None, false);
        let mut input = BytesMut::new();
        if role == Role::Server {
            input.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        input.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for _ in 0..200 {
            let length = random.usize(..40);
            input.extend_from_slice(&[0, 0, length as u8, random.u8(..11), random.u8(..), 0, 0, 0, random.u8(..8)]);
            let filling = random.bool();
            input.extend((0..length).map(|_| if filling { 0x80 | random.u8(1..16) } else { random.u8(..) }));
            if session.receive(&mut input).is_err() {
                break;
            }
            while let Some(accepted) = session.accept() {
                let _ = accepted.stream.respond(&ResponseHead::new(200), None, random.bool());
            }
        }
        drop(asked);
    }
}

/// A client that never says that it knows of the end is not served for ever.
#[test]
fn an_announced_end_can_be_forced() {
    let pair = Pair::new(Config::default());
    pair.server.shut_down();
    let mut unheard = Vec::new();
    assert!(pair.server.take_output(&mut unheard));
    let _before = pair.client.open(&get(), None, true).unwrap();
    pair.exchange();
    let before = pair.server.accept().unwrap();
    pair.server.shut_down();
    let mut last = Vec::new();
    assert!(pair.server.take_output(&mut last));
    let _after = pair.client.open(&get(), None, true).unwrap();
    pair.exchange();
    assert!(pair.server.accept().is_none());
    before.stream.respond(&ResponseHead::new(204), None, true).unwrap();
    pair.exchange();
    assert!(pair.server.is_finished());
}
