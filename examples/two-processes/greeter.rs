//! A server that knows nothing of meshes: `greeter PORT TEXT` answers every request on that port with that text.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().and_then(|p| p.parse().ok()).unwrap_or(7001);
    let text = arguments.next().unwrap_or_else(|| "hello".to_owned());
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for stream in listener.incoming().flatten() {
        let text = text.clone();
        std::thread::spawn(move || serve(stream, &text));
    }
    Ok(())
}

/// Answers requests without bodies, one after the other, until the client goes.
fn serve(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    // An answer leaves at once, in one segment.
    stream.set_nodelay(true)?;
    let lines = BufReader::new(stream.try_clone()?).lines();
    for line in lines {
        if line?.is_empty() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}\n", text.len() + 1);
            stream.write_all(answer.as_bytes())?;
        }
    }
    Ok(())
}
