//! The cost of a request and its response on both ends of an HTTP/2 connection, without a socket:
//! `cargo bench -p serin-http2`.

use bytes::BytesMut;
use serin_http1::{RequestHead, ResponseHead, Version};
use serin_http2::{Config, Piece, Role, Session};

fn main() {
    divan::main();
}

/// Fields beside the authority.
const FIELDS: [usize; 3] = [1, 5, 20];

#[divan::bench(args = FIELDS)]
fn request_and_answer(bencher: divan::Bencher<'_, '_>, count: usize) {
    let client = Session::new(Role::Client, Config::default());
    let server = Session::new(Role::Server, Config::default());
    let (mut input, mut output) = (BytesMut::new(), Vec::new());
    let mut carry = |from: &Session, to: &Session| {
        output.clear();
        if from.take_output(&mut output) {
            input.extend_from_slice(&output);
            assert!(to.receive(&mut input).is_ok(), "both ends keep to the protocol");
        }
    };
    let mut head = RequestHead::default();
    head.start(b"GET", b"/path/to/something?a=b", Version::Http2);
    head.fields.append(b"host", b"service.example.com");
    let mut answer = ResponseHead::new(200);
    for n in 0..count {
        head.fields.append(format!("x-field-{n}").as_bytes(), b"value-of-a-field");
        answer.fields.append(format!("x-answer-{n}").as_bytes(), b"value-of-a-field");
    }
    carry(&client, &server);
    carry(&server, &client);
    bencher.bench_local(|| {
        let asked = client.open(&head, None, true)?;
        carry(&client, &server);
        let accepted = server.accept()?;
        accepted.stream.respond(&answer, Some(110), false).ok()?;
        accepted.stream.send(&[b'x'; 110], true).ok()?;
        carry(&server, &client);
        let Ok(Some(Piece::Data(data))) = asked.take() else { return None };
        Some(data.len())
    });
}
