//! The cost of reading and writing heads: `cargo bench -p serin-http1`.

use serin_http1::encode::{self, Connection, Style};
use serin_http1::framing::{Declared, Framing};
use serin_http1::{Limits, RequestHead, ResponseHead, Scan, parse_request, parse_response};

fn main() {
    divan::main();
}

/// Fields beside `host`.
const FIELDS: [usize; 3] = [1, 5, 20];

fn fields(count: usize) -> String {
    (0..count).map(|n| format!("x-field-{n}: value-of-field-number-{n}\r\n")).collect()
}

fn request(count: usize) -> Vec<u8> {
    format!("GET /path/to/something?a=b HTTP/1.1\r\nhost: service.example.com\r\n{}\r\n", fields(count)).into_bytes()
}

fn response(count: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 110\r\n{}\r\n", fields(count)).into_bytes()
}

#[divan::bench(args = FIELDS)]
fn parse_request_head(bencher: divan::Bencher<'_, '_>, count: usize) {
    let (input, mut head) = (request(count), RequestHead::default());
    bencher.bench_local(|| parse_request(&input, &mut Scan::default(), &Limits::default(), &mut head).is_ok());
}

#[divan::bench(args = FIELDS)]
fn parse_response_head(bencher: divan::Bencher<'_, '_>, count: usize) {
    let (input, mut head) = (response(count), ResponseHead::default());
    bencher.bench_local(|| parse_response(&input, &mut Scan::default(), &Limits::default(), &mut head).is_ok());
}

#[divan::bench(args = FIELDS)]
fn encode_request_head(bencher: divan::Bencher<'_, '_>, count: usize) {
    let (mut head, mut out) = (RequestHead::default(), Vec::new());
    let parsed = parse_request(&request(count), &mut Scan::default(), &Limits::default(), &mut head);
    assert!(matches!(parsed, Ok(Some(_))), "the request is whole");
    bencher.bench_local(|| {
        out.clear();
        encode::request(&head, Framing::Empty, Connection::Default, Style::default(), &mut out);
        out.len()
    });
}

#[divan::bench(args = FIELDS)]
fn encode_response_head(bencher: divan::Bencher<'_, '_>, count: usize) {
    let (mut head, mut out) = (ResponseHead::default(), Vec::new());
    let parsed = parse_response(&response(count), &mut Scan::default(), &Limits::default(), &mut head);
    assert!(matches!(parsed, Ok(Some(_))), "the response is whole");
    bencher.bench_local(|| {
        out.clear();
        encode::response(
            &head,
            (Framing::Length(110), Declared::AsFramed),
            Connection::Default,
            Style::default(),
            &mut out,
        );
        out.len()
    });
}
