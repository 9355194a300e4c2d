//! A server that meets frames of every kind, good and hostile: rows E and G of the hostile corpus.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use bytes::BytesMut;
use serin_http2::{Config, Reason, Role, Session};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// Frames that a session wants to write, as (kind, flags, stream, payload).
fn written(session: &Session) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let (mut out, mut frames) = (Vec::new(), Vec::new());
    session.take_output(&mut out);
    let mut rest = out.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(&out);
    while let [a, b, c, kind, flags, s1, s2, s3, s4, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames.push((*kind, *flags, u32::from_be_bytes([*s1, *s2, *s3, *s4]), tail[..length].to_vec()));
        rest = &tail[length..];
    }
    frames
}

/// The state of a server that received `input` behind a good start.
#[derive(Debug, PartialEq)]
enum End {
    /// It goes on.
    Fine,
    /// That stream was reset with that code.
    Stream(u32, u32),
    /// The connection ended with that code.
    Connection(u32),
}

fn served(input: &[u8]) -> End {
    let session = Session::new(Role::Server, Config::default());
    let mut bytes = BytesMut::from(input);
    let outcome = session.receive(&mut bytes);
    let frames = written(&session);
    match outcome {
        Err(error) => {
            let goaway = frames.iter().rfind(|f| f.0 == GOAWAY).expect("the peer is told");
            assert_eq!(goaway.3[4..8], error.reason.0.to_be_bytes());
            End::Connection(error.reason.0)
        }
        Ok(()) => match frames.iter().find(|f| f.0 == RST_STREAM) {
            Some(reset) => End::Stream(reset.2, u32::from_be_bytes(reset.3[..].try_into().unwrap())),
            None => End::Fine,
        },
    }
}

fn after_start(frames: &[Vec<u8>]) -> End {
    served(&[preface(), frames.concat()].concat())
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, 5, stream, &GET)
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, 4, stream, &GET)
}

#[test]
fn connection_errors() {
    const PROTOCOL: u32 = Reason::PROTOCOL_ERROR.0;
    const FLOW: u32 = Reason::FLOW_CONTROL_ERROR.0;
    const SIZE: u32 = Reason::FRAME_SIZE_ERROR.0;
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let padded_over = frame(DATA, 8, 1, &[9, 0, 0]);
    let rows: Vec<(&str, Vec<Vec<u8>>, u32)> = vec![
        ("E3 too large", vec![post(1), frame(DATA, 0, 1, &[0; 16_385])], SIZE),
        ("E4 no HPACK", vec![frame(HEADERS, 5, 1, &[0x80])], Reason::COMPRESSION_ERROR.0),
        ("E5 inside a block", vec![frame(HEADERS, 1, 1, &GET), frame(PING, 0, 0, &[0; 8])], PROTOCOL),
        ("E5 unknown inside a block", vec![frame(HEADERS, 1, 1, &GET), frame(99, 0, 0, &[])], PROTOCOL),
        ("E5 of nothing", vec![frame(CONTINUATION, 4, 1, &GET)], PROTOCOL),
        ("E5 other stream", vec![frame(HEADERS, 1, 1, &GET), frame(CONTINUATION, 4, 3, &[])], PROTOCOL),
        ("E5 after its end", vec![get(1), frame(CONTINUATION, 4, 1, &[])], PROTOCOL),
        ("E6 DATA", vec![frame(DATA, 0, 1, b"a")], PROTOCOL),
        ("E6 RST_STREAM", vec![frame(RST_STREAM, 0, 1, &[0; 4])], PROTOCOL),
        ("E6 WINDOW_UPDATE", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], PROTOCOL),
        ("E9 even", vec![get(2)], PROTOCOL),
        ("E9 lower", vec![get(5), get(3)], Reason::STREAM_CLOSED.0),
        ("E11 DATA", vec![post(1), padded_over], PROTOCOL),
        ("E11 HEADERS", vec![frame(HEADERS, 0xd, 1, &[200, 0x82])], PROTOCOL),
        ("E11 no room for priority", vec![frame(HEADERS, 0x25, 1, &[0; 3])], SIZE),
        ("E12 DATA", vec![frame(DATA, 0, 0, b"a")], PROTOCOL),
        ("E12 HEADERS", vec![get(0)], PROTOCOL),
        ("E12 PRIORITY", vec![frame(PRIORITY, 0, 0, &[0; 5])], PROTOCOL),
        ("E12 RST_STREAM", vec![frame(RST_STREAM, 0, 0, &[0; 4])], PROTOCOL),
        ("E14 RST_STREAM", vec![get(1), frame(RST_STREAM, 0, 1, &[0; 3])], SIZE),
        ("E14 PING", vec![frame(PING, 0, 0, &[0; 7])], SIZE),
        ("E14 SETTINGS", vec![frame(SETTINGS, 0, 0, &[0; 5])], SIZE),
        ("E14 SETTINGS ACK", vec![frame(SETTINGS, 1, 0, &[0; 6])], SIZE),
        ("E14 WINDOW_UPDATE", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], SIZE),
        ("E15 PING", vec![get(1), frame(PING, 0, 1, &[0; 8])], PROTOCOL),
        ("E15 SETTINGS", vec![get(1), frame(SETTINGS, 0, 1, &[])], PROTOCOL),
        ("E15 GOAWAY", vec![get(1), frame(GOAWAY, 0, 1, &[0; 8])], PROTOCOL),
        ("E16 push", vec![frame(SETTINGS, 0, 0, &setting(2, 2))], PROTOCOL),
        ("E16 window", vec![frame(SETTINGS, 0, 0, &setting(4, 1 << 31))], FLOW),
        ("E16 frame too small", vec![frame(SETTINGS, 0, 0, &setting(5, 16_383))], PROTOCOL),
        ("E16 frame too large", vec![frame(SETTINGS, 0, 0, &setting(5, 1 << 24))], PROTOCOL),
        ("E19 nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], PROTOCOL),
        ("E19 too much", vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])], FLOW),
        ("E21 push", vec![frame(PUSH_PROMISE, 4, 1, &[0; 8])], PROTOCOL),
        (
            "E22 GOAWAY grows",
            vec![frame(GOAWAY, 0, 0, &[0; 8]), frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])],
            PROTOCOL,
        ),
        ("E22 GOAWAY short", vec![frame(GOAWAY, 0, 0, &[0; 7])], SIZE),
    ];
    for (what, frames, reason) in rows {
        assert_eq!(after_start(&frames), End::Connection(reason), "{what}");
    }
    assert_eq!(served(b"PRI * HTTP/2.1"), End::Connection(PROTOCOL), "E1");
    let without_settings = [&preface()[..24], &frame(PING, 0, 0, &[0; 8])].concat();
    assert_eq!(served(&without_settings), End::Connection(PROTOCOL), "E1");
}

#[test]
fn stream_errors() {
    let closed = Reason::STREAM_CLOSED.0;
    let length = |n: u8| [&GET[..], &[0x0f, 0x0d, 1, b'0' + n]].concat();
    let rows: Vec<(&str, Vec<Vec<u8>>, u32)> = vec![
        ("E7 DATA", vec![get(1), frame(DATA, 0, 1, b"a")], closed),
        ("E7 HEADERS", vec![get(1), get(1)], closed),
        ("E13 size", vec![get(1), frame(PRIORITY, 0, 1, &[0; 4])], Reason::FRAME_SIZE_ERROR.0),
        ("E19 nothing", vec![get(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])], 1),
        ("E19 too much", vec![get(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])], 3),
        ("F8 less", vec![frame(HEADERS, 4, 1, &length(3)), frame(DATA, 1, 1, b"ab")], 1),
        ("F8 more", vec![frame(HEADERS, 4, 1, &length(3)), frame(DATA, 0, 1, b"abcd")], 1),
        ("F8 none", vec![frame(HEADERS, 5, 1, &length(3))], 1),
        ("F9 not the end", vec![post(1), frame(HEADERS, 4, 1, &[0, 1, b'a', 1, b'b'])], 1),
        ("F9 pseudo", vec![post(1), frame(HEADERS, 5, 1, &[0x84])], 1),
        ("malformed", vec![frame(HEADERS, 5, 1, &GET[..3])], 1),
    ];
    for (what, frames, reason) in rows {
        assert_eq!(after_start(&frames), End::Stream(1, reason), "{what}");
    }
    let flood: Vec<Vec<u8>> = (0..101).map(|n| post(n * 2 + 1)).collect();
    assert_eq!(after_start(&flood), End::Stream(201, Reason::REFUSED_STREAM.0), "E10");
    // More than the stream's window, within the connection's.
    let parts: Vec<Vec<u8>> = (0..17).map(|_| frame(DATA, 0, 1, &[0; 16_384])).collect();
    assert_eq!(after_start(&[vec![post(1)], parts].concat()), End::Stream(1, 3), "E20");
    let over: Vec<Vec<u8>> =
        (0..80).map(|n| [post(n * 2 + 1), frame(DATA, 0, n * 2 + 1, &[0; 16_384])].concat()).collect();
    assert_eq!(after_start(&over), End::Connection(3), "E20 connection");
}

#[test]
fn what_is_unusual_but_right() {
    let rows: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("E2 unknown frame", vec![frame(99, 255, 77, b"x"), get(1)]),
        ("E2 unknown setting", vec![frame(SETTINGS, 0, 0, &[0, 99, 1, 2, 3, 4])]),
        ("padding", vec![post(1), frame(DATA, 9, 1, &[2, b'a', 0, 0])]),
        ("priority", vec![frame(PRIORITY, 0, 1, &[0; 5]), get(1)]),
        ("priority in HEADERS", vec![frame(HEADERS, 0x25, 1, &[&[0; 5][..], &GET].concat())]),
        ("blocks in pieces", vec![frame(HEADERS, 1, 1, &GET[..2]), frame(CONTINUATION, 4, 1, &GET[2..])]),
        ("trailers", vec![post(1), frame(DATA, 0, 1, b"a"), frame(HEADERS, 5, 1, &[0, 1, b'a', 1, b'b'])]),
        ("acknowledged", vec![frame(SETTINGS, 1, 0, &[]), frame(PING, 1, 0, &[0; 8])]),
        ("length", vec![frame(HEADERS, 4, 1, &[&GET[..], &[0x0f, 0x0d, 1, b'3']].concat()), frame(DATA, 1, 1, b"abc")]),
    ];
    for (what, frames) in rows {
        assert_eq!(after_start(&frames), End::Fine, "{what}");
        // Byte by byte it is the same.
        let session = Session::new(Role::Server, Config::default());
        let mut input = BytesMut::new();
        for byte in [preface(), frames.concat()].concat() {
            input.extend_from_slice(&[byte]);
            session.receive(&mut input).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        assert!(input.is_empty(), "{what}");
    }
}

#[test]
fn a_flood_is_told_to_calm_down() {
    let calm = End::Connection(Reason::ENHANCE_YOUR_CALM.0);
    let many = |one: Vec<u8>, n: usize| vec![one.repeat(n)];
    assert_eq!(after_start(&many(frame(PING, 0, 0, &[0; 8]), 1001)), calm, "G4 PING");
    assert_eq!(after_start(&many(frame(SETTINGS, 0, 0, &[]), 1001)), calm, "G4 SETTINGS");
    assert_eq!(after_start(&[vec![post(1)], many(frame(DATA, 0, 1, &[]), 200)].concat()), calm, "G5 DATA");
    assert_eq!(
        after_start(&[vec![frame(HEADERS, 1, 1, &GET)], many(frame(CONTINUATION, 0, 1, &[]), 20)].concat()),
        calm,
        "G3"
    );
    assert_eq!(after_start(&many(frame(PRIORITY, 0, 1, &[0; 5]), 20_000)), calm, "G6");
    assert_eq!(
        after_start(&[vec![get(1)], many(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), 20_000)].concat()),
        calm,
        "G10"
    );
    let reset = |n: u32| [get(n * 2 + 1), frame(RST_STREAM, 0, n * 2 + 1, &[0, 0, 0, 8])].concat();
    assert_eq!(after_start(&(0..1000).map(reset).collect::<Vec<_>>()), calm, "G1");
    let made = |n: u32| [get(n * 2 + 1), frame(WINDOW_UPDATE, 0, n * 2 + 1, &[0; 4])].concat();
    assert_eq!(after_start(&(0..1000).map(made).collect::<Vec<_>>()), calm, "G2");
    assert_eq!(after_start(&many(frame(PING, 1, 0, &[0; 8]), 1001)), End::Fine, "answers need none");
}

#[test]
fn too_many_fields_are_answered_with_431() {
    let session = Session::new(Role::Server, Config::default());
    let block = [GET.to_vec(), [0, 1, b'a', 1, b'b'].repeat(101)].concat();
    let mut input = BytesMut::from(&[preface(), frame(HEADERS, 5, 1, &block)].concat()[..]);
    session.receive(&mut input).unwrap();
    let frames = written(&session);
    let answer = frames.iter().find(|f| f.0 == HEADERS).unwrap();
    assert_eq!((answer.1 & 1, answer.2), (1, 1));
    assert!(answer.3.ends_with(b"431"));
    assert!(session.accept().is_none());
}

/// A peer whose header table is smaller than the default waits for the encoder to say that it keeps to that.
#[test]
fn the_first_block_says_that_the_encoder_keeps_no_table() {
    let session = Session::new(Role::Server, Config::default());
    let mut input = BytesMut::from(&[preface(), get(1), get(3)].concat()[..]);
    session.receive(&mut input).unwrap();
    while let Some(accepted) = session.accept() {
        accepted.stream.respond(&serin_http1::ResponseHead::new(200), None, true).unwrap();
    }
    let blocks: Vec<Vec<u8>> = written(&session).into_iter().filter(|f| f.0 == HEADERS).map(|f| f.3).collect();
    assert_eq!(blocks, [vec![0x20, 0x88], vec![0x88]]);
}

#[test]
fn tiny_frames_are_joined() {
    let session = Session::new(Role::Server, Config::default());
    let tiny = frame(DATA, 0, 1, b"x").repeat(10_000);
    let mut input = BytesMut::from(&[preface(), post(1), tiny].concat()[..]);
    session.receive(&mut input).unwrap();
    let accepted = session.accept().unwrap();
    let (mut pieces, mut bytes) = (0, 0);
    while let Ok(Some(serin_http2::Piece::Data(data))) = accepted.stream.take() {
        pieces += 1;
        bytes += data.len();
    }
    assert_eq!((pieces, bytes), (3, 10_000));
}

/// A server that ends a response that has begun, as watches and streams of events are ended, does nothing unusual.
#[test]
fn ending_a_begun_answer_is_no_abuse() {
    let session = Session::new(Role::Server, Config::default());
    let mut input = BytesMut::from(&preface()[..]);
    for n in 0..2000u32 {
        input.extend_from_slice(&get(n * 2 + 1));
        session.receive(&mut input).unwrap();
        let accepted = session.accept().unwrap();
        accepted.stream.respond(&serin_http1::ResponseHead::new(200), None, false).unwrap();
        input.extend_from_slice(&frame(RST_STREAM, 0, n * 2 + 1, &[0, 0, 0, 8]));
        session.receive(&mut input).unwrap();
        session.take_output(&mut Vec::new());
    }
}

/// A client that asks and never reads is refused more, and does not make the server collect responses without end.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let session = Session::new(Role::Server, Config::default());
    let mut input = BytesMut::from(&preface()[..]);
    let mut answer = serin_http1::ResponseHead::new(302);
    answer.fields.append(b"location", &[b'x'; 4000]);
    let (mut taken, mut ended) = (0, false);
    for n in 0..20_000u32 {
        input.extend_from_slice(&get(n * 2 + 1));
        if session.receive(&mut input).is_err() {
            ended = true;
            break;
        }
        while let Some(accepted) = session.accept() {
            accepted.stream.respond(&answer, None, true).unwrap();
            taken += 1;
        }
    }
    assert!(taken < 100 && ended, "{taken} answers were collected");
}
