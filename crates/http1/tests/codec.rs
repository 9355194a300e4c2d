//! The codec against itself in pieces, and against an independent parser.

use serin_http1::body::BodyDecoder;
use serin_http1::encode::{self, Connection, Style};
use serin_http1::framing::{self, Declared, Framing};
use serin_http1::path::{Normalise, normalise};
use serin_http1::{Error, Limits, RequestHead, Scan, parse_request, parse_response};

fn parse(input: &[u8]) -> Result<Option<(usize, RequestHead)>, Error> {
    let mut head = RequestHead::default();
    let used = parse_request(input, &mut Scan::default(), &Limits::default(), &mut head)?;
    Ok(used.map(|n| (n, head)))
}

const SEED: &[u8] = b"POST /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nContent-Length: 5\r\nX-Thing:  spaced out \t\r\nAccept: */*\r\n\r\nhello";

#[test]
fn a_head_that_dribbles_in_is_the_same_head() {
    let (used, whole) = parse(SEED).unwrap().unwrap();
    assert_eq!(&SEED[used..], b"hello");
    assert_eq!((whole.method(), whole.path(), whole.query()), (&b"POST"[..], &b"/a/b"[..], &b"c=d"[..]));
    assert_eq!(whole.fields.get("x-thing"), Some(&b"spaced out"[..]));
    let mut scan = Scan::default();
    let mut head = RequestHead::default();
    for end in 0..used {
        let outcome = parse_request(&SEED[..end], &mut scan, &Limits::default(), &mut head);
        assert_eq!(outcome, Ok(None), "after {end} bytes");
    }
    assert_eq!(parse_request(SEED, &mut scan, &Limits::default(), &mut head), Ok(Some(used)));
    assert!(head.fields.iter().eq(whole.fields.iter()));
}

/// Random damage to a sound request: never a panic, and what both parsers accept they read alike.
#[test]
fn it_agrees_with_an_independent_parser_wherever_both_accept() {
    let mut rng = fastrand::Rng::with_seed(7);
    let interesting = b"\r\n\t :;,=\0\x7f\x80/?#%{}\\\"GETHTTP1.09azAZ";
    let mut both = 0;
    for _ in 0..60_000 {
        let mut input = SEED.to_vec();
        for _ in 0..rng.usize(0..4) {
            let at = rng.usize(0..input.len());
            let byte = interesting[rng.usize(0..interesting.len())];
            match rng.u8(0..3) {
                0 => input[at] = byte,
                1 => input.insert(at, byte),
                _ => {
                    input.remove(at);
                }
            }
        }
        let Ok(Some((used, head))) = parse(&input) else { continue };
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(end)) = other.parse(&input) else { continue };
        both += 1;
        assert_eq!(used, end, "{:?}", String::from_utf8_lossy(&input));
        assert_eq!(head.method(), other.method.unwrap().as_bytes());
        if other.path.unwrap().starts_with('/') {
            assert_eq!(head.target(), other.path.unwrap().as_bytes());
            let theirs = other.headers.iter().map(|h| (h.name.as_bytes(), h.value.trim_ascii()));
            assert!(
                head.fields.iter().map(|(n, v)| (n, v.trim_ascii())).eq(theirs),
                "{:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
    assert!(both > 5_000, "only {both} inputs were accepted by both");
}

#[test]
fn what_is_encoded_is_parsed_back() {
    let (_, mut head) = parse(SEED).unwrap().unwrap();
    let framing = framing::of_request(&mut head).unwrap();
    assert_eq!(framing, Framing::Length(5));
    head.fields.set("host", b"other");
    head.fields.append(b"x-new", b"1");
    assert!(head.fields.remove("accept"));
    let mut out = Vec::new();
    encode::request(&head, framing, Connection::Default, Style::default(), &mut out);
    let (used, again) = parse(&out).unwrap().unwrap();
    assert_eq!(used, out.len());
    assert_eq!((again.authority(), again.fields.get("content-length")), (&b"other"[..], Some(&b"5"[..])));
    assert!(!again.fields.contains("accept") && again.fields.contains("x-new"));
}

fn unchunk(input: &[u8], piece: usize) -> Result<Vec<u8>, Error> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut body = Vec::new();
    let mut buffer = Vec::new();
    for part in input.chunks(piece) {
        buffer.extend_from_slice(part);
        loop {
            let step = decoder.step(&buffer)?;
            body.extend_from_slice(&buffer[step.skip..step.skip + step.data]);
            buffer.drain(..step.skip + step.data);
            if step.done {
                return Ok(body);
            }
            if step.skip + step.data == 0 {
                break;
            }
        }
    }
    Err(Error::Chunk)
}

#[test]
fn chunks_are_the_same_in_any_pieces() {
    let input = b"5;name=\"value\"\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n";
    for piece in 1..input.len() {
        assert_eq!(unchunk(input, piece).unwrap(), b"hello 0123456789", "pieces of {piece}");
    }
    for bad in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\n",
        "5;=x\r\nhello\r\n",
        "10000000000000005\r\n",
        "5\rX",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        for piece in [1, bad.len()] {
            assert_eq!(unchunk(bad.as_bytes(), piece), Err(Error::Chunk), "{bad:?} in pieces of {piece}");
        }
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let flood = format!("1;{}\r\nx\r\n", "a".repeat(4000)).repeat(40);
    assert_eq!(unchunk(flood.as_bytes(), 512), Err(Error::Chunk));
    let trailers = format!("0\r\n{}", "X-T: 0123456789\r\n".repeat(10_000));
    assert_eq!(unchunk(trailers.as_bytes(), 4096), Err(Error::Chunk));
}

#[test]
fn paths_have_one_normal_form() {
    let dots = Normalise { dots: true, merge_slashes: false };
    let both = Normalise { dots: true, merge_slashes: true };
    for (path, how, expected) in [
        ("/a/b", dots, None),
        ("/a/./b/../c", dots, Some("/a/c")),
        ("/a/..", dots, Some("/")),
        ("/a/.", dots, Some("/a/")),
        ("/%2e%2E/x", dots, None),
        ("/a/%2e%2e/x?q=/../", dots, Some("/x?q=/../")),
        ("/%41%2fb", dots, Some("/A%2fb")),
        ("/a//b", dots, None),
        ("/a//b///", both, Some("/a/b/")),
        ("/.hidden/..x", dots, None),
    ] {
        let outcome = normalise(path.as_bytes(), how);
        if path == "/%2e%2E/x" {
            assert_eq!(outcome, Err(Error::Target), "{path} leaves the root");
            continue;
        }
        assert_eq!(outcome.unwrap().as_deref(), expected.map(str::as_bytes), "{path}");
    }
    for bad in ["/..", "/a/../../b", "/%", "/%1", "/%zz", "/%00"] {
        assert_eq!(normalise(bad.as_bytes(), dots), Err(Error::Target), "{bad}");
    }
}

#[test]
fn responses_are_framed_by_the_rules() {
    for (text, to_head, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, (Framing::Length(5), Declared::AsFramed)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, (Framing::Empty, Declared::Length(5))),
        ("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", false, (Framing::Empty, Declared::Length(5))),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, (Framing::Empty, Declared::AsFramed)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            false,
            (Framing::Chunked, Declared::AsFramed),
        ),
        ("HTTP/1.1 200\r\n\r\n", false, (Framing::UntilClose, Declared::AsFramed)),
        ("HTTP/1.1 200\r\n\r\n", true, (Framing::Empty, Declared::Unknown)),
    ] {
        let mut head = serin_http1::ResponseHead::default();
        let used = parse_response(text.as_bytes(), &mut Scan::default(), &Limits::default(), &mut head);
        assert_eq!(used, Ok(Some(text.len())));
        assert_eq!(framing::of_response(&mut head, to_head), Ok(expected), "{text}");
        assert!(!head.fields.contains("content-length") && !head.fields.contains("transfer-encoding"));
    }
}
