//! Properties that hold for every input: the fuzz targets look for one that breaks them, `cargo test` replays those once found.

use serin_http1::body::BodyDecoder;
use serin_http1::encode::{self, Connection, Names, Style};
use serin_http1::framing::{self, Framing};
use serin_http1::{Error, HeaderBlock, Limits, RequestHead, ResponseHead, Scan, parse_request, parse_response};

/// Names stay as they came, so that they can be compared.
const KEPT: Style = Style { names: Names::Kept, keeps_reason: true, is_http10: false };

/// A request head: the same however it is cut, the same as httparse where both accept, the same after encoding.
pub fn request(input: &[u8]) {
    let whole = parse(input, input.len().max(1));
    assert_same(&whole, &parse(input, 1), input);
    assert_same(&whole, &parse(input, 7), input);
    let Ok(Some((used, mut head))) = whole else { return };
    agrees_with_httparse(input, used, &head);
    let Ok(framing) = framing::of_request(&mut head) else { return };
    if !head.fields.contains("host") {
        // Who needs one asks for it: HTTP/1.0 knows none, and HTTP/1.1 without one is answered by the connection manager.
        return;
    }
    framing::strip_hop_by_hop(&mut head.fields);
    let mut out = Vec::new();
    encode::request(&head, framing, Connection::Default, KEPT, &mut out);
    let Ok(Some((length, mut again))) = parse(&out, out.len()) else {
        assert!(input.len() > 15_000 || head.fields.len() > 95, "not parsed back: {}", out.escape_ascii());
        return;
    };
    assert_eq!(length, out.len(), "{}", out.escape_ascii());
    assert_eq!(framing::of_request(&mut again).ok(), Some(framing), "{}", out.escape_ascii());
    assert_eq!((head.method(), head.target()), (again.method(), again.target()));
    assert_eq!(pairs(&head.fields), pairs(&again.fields));
}

/// A response head: as [`request`].
pub fn response(input: &[u8]) {
    let (mut head, mut dribbled) = (ResponseHead::default(), ResponseHead::default());
    let limits = Limits::default();
    let whole = parse_response(input, &mut Scan::default(), &limits, &mut head);
    let mut scan = Scan::default();
    let cut = prefixes(input, 1).find_map(|part| parse_response(part, &mut scan, &limits, &mut dribbled).transpose());
    match (&whole, &cut) {
        (Ok(None), None) => return,
        (Ok(Some(a)), Some(Ok(b))) if a == b => {}
        (Err(_), Some(Err(_))) => return,
        _ => panic!("whole {whole:?}, cut {cut:?}: {}", input.escape_ascii()),
    }
    assert_eq!((head.status, pairs(&head.fields)), (dribbled.status, pairs(&dribbled.fields)));
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Response::new(&mut fields);
    if let (Ok(Some(used)), Ok(httparse::Status::Complete(end))) = (whole, other.parse(input)) {
        assert_eq!((used, Some(head.status)), (end, other.code), "{}", input.escape_ascii());
    }
    let Ok((framing, declared)) = framing::of_response(&mut head, false) else { return };
    let mut out = Vec::new();
    encode::response(&head, (framing, declared), Connection::Default, KEPT, &mut out);
    let mut again = ResponseHead::default();
    let parsed = parse_response(&out, &mut Scan::default(), &limits, &mut again);
    assert!(matches!(parsed, Ok(Some(n)) if n == out.len()) || input.len() > 50_000 || head.fields.len() > 95);
}

/// A chunked body: the same data however it is cut, and no more data than input.
pub fn body(input: &[u8]) {
    let whole = decode(input, input.len().max(1));
    for size in [1, 2, 13] {
        let cut = decode(input, size);
        assert_eq!(whole.is_ok(), cut.is_ok(), "pieces of {size}: {}", input.escape_ascii());
        if let (Ok(a), Ok(b)) = (&whole, &cut) {
            assert_eq!(a, b, "pieces of {size}: {}", input.escape_ascii());
        }
    }
    assert!(whole.is_ok_and(|(data, _)| data.len() <= input.len()) || decode(input, 1).is_err());
}

type Parsed = Result<Option<(usize, RequestHead)>, Error>;

fn prefixes(input: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    let cuts = (step..input.len()).step_by(step).chain([input.len()]);
    cuts.filter_map(|end| input.get(..end))
}

/// Parses as more and more of the input arrives, `step` bytes at a time.
fn parse(input: &[u8], step: usize) -> Parsed {
    let (mut scan, mut head) = (Scan::default(), RequestHead::default());
    for part in prefixes(input, step) {
        if let Some(used) = parse_request(part, &mut scan, &Limits::default(), &mut head)? {
            return Ok(Some((used, head)));
        }
    }
    Ok(None)
}

fn assert_same(whole: &Parsed, cut: &Parsed, input: &[u8]) {
    let same = match (whole, cut) {
        (Ok(None), Ok(None)) => true,
        (Ok(Some((n, a))), Ok(Some((m, b)))) => {
            n == m && (a.method(), a.target()) == (b.method(), b.target()) && pairs(&a.fields) == pairs(&b.fields)
        }
        (Err(a), Err(b)) => a.status() == b.status() || input.len() > 16_000,
        _ => false,
    };
    assert!(same, "cut otherwise, {} means something else", input.escape_ascii());
}

fn agrees_with_httparse(input: &[u8], used: usize, head: &RequestHead) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(end)) = other.parse(input) else { return };
    assert_eq!(used, end, "{}", input.escape_ascii());
    assert_eq!(Some(head.method()), other.method.map(str::as_bytes));
    if other.path.is_some_and(|p| p.starts_with('/')) {
        assert_eq!(Some(head.target()), other.path.map(str::as_bytes));
        let theirs: Vec<_> = other.headers.iter().map(|h| (h.name.as_bytes(), h.value.trim_ascii())).collect();
        assert_eq!(pairs(&head.fields), theirs, "{}", input.escape_ascii());
    }
}

fn pairs(fields: &HeaderBlock) -> Vec<(&[u8], &[u8])> {
    fields.iter().map(|(n, v)| (n, v.trim_ascii())).collect()
}

/// The data of a chunked body that arrives `size` bytes at a time, and whether it was complete.
fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, bool), Error> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut buffer) = (Vec::new(), Vec::new());
    for piece in input.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            let step = decoder.step(&buffer)?;
            data.extend_from_slice(buffer.get(step.skip..step.skip + step.data).unwrap_or_default());
            buffer.drain(..step.skip + step.data);
            if step.done {
                return Ok((data, true));
            }
            if step.skip + step.data == 0 || buffer.is_empty() {
                break;
            }
        }
    }
    Ok((data, false))
}
