//! Takes a body out of a byte stream: by length, by chunks, or until the end.
//!
//! The decoder never copies: it says how many bytes of framing to skip and how many bytes of data follow.
//! Chunk extensions are read over and dropped; trailers are checked, and dropped or yielded, never merged (RFC 9112 §7.1.2 lets a
//! recipient discard them, and merging them is how requests get smuggled).

use memchr::memchr;

use crate::framing::Framing;
use crate::{Error, syntax};

/// State of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyDecoder {
    state: State,
    overhead: usize,
    yields_trailers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    ChunkHeader,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Broken,
}

/// The meaning of the next bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of framing at the front, to be dropped.
    pub skip: usize,
    /// Bytes of data after them.
    pub data: usize,
    /// Bytes of a line of trailers after them, with its end, for who wants them.
    pub trailer: usize,
    /// True when the body is complete after these.
    pub done: bool,
}

/// Longest chunk header line, extensions included.
const CHUNK_LINE: usize = 4096;
/// Most bytes of chunk headers with extensions, and of trailers, that a body may spend beyond 16 a chunk.
const OVERHEAD: usize = 64 * 1024;

impl BodyDecoder {
    /// A decoder for a body framed like this.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkHeader,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, overhead: 0, yields_trailers: false }
    }

    /// The same, which yields trailers rather than dropping them.
    #[must_use]
    pub fn yielding_trailers(self, yields: bool) -> Self {
        Self { yields_trailers: yields, ..self }
    }

    /// Returns true when the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns true when the end of the connection is a proper end of this body.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Looks at the bytes at hand. A step of all zeros asks for more input.
    ///
    /// # Errors
    /// [`Error::Chunk`] when the chunked coding is violated; the connection must close.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Error> {
        let step = self.advance(input);
        if step.is_err() {
            // A body that is broken once stays so, wherever its input is looked at next.
            self.state = State::Broken;
        }
        step
    }

    fn advance(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut step = Step::default();
        loop {
            let rest = input.get(step.skip..).unwrap_or_default();
            match self.state {
                State::Broken => return Err(Error::Chunk),
                State::Done => {
                    step.done = true;
                    return Ok(step);
                }
                State::Length(left) => {
                    step.data = clamp(left, rest.len());
                    self.state = after(left, step.data, State::Done, State::Length);
                    step.done = self.is_done();
                    return Ok(step);
                }
                State::UntilClose => {
                    step.data = rest.len();
                    return Ok(step);
                }
                State::ChunkData(left) => {
                    step.data = clamp(left, rest.len());
                    self.state = after(left, step.data, State::ChunkEnd, State::ChunkData);
                    return Ok(step);
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        step.skip += 2;
                        self.state = State::ChunkHeader;
                    }
                    [] | [b'\r'] => return Ok(step),
                    _ => return Err(Error::Chunk),
                },
                State::ChunkHeader => match self.chunk_header(rest)? {
                    Some(used) => step.skip += used,
                    None => return Ok(step),
                },
                State::Trailers => match self.trailer_line(rest)? {
                    Some(used) if self.yields_trailers && !self.is_done() => {
                        step.trailer = used;
                        return Ok(step);
                    }
                    Some(used) => step.skip += used,
                    None => return Ok(step),
                },
            }
        }
    }

    fn chunk_header(&mut self, input: &[u8]) -> Result<Option<usize>, Error> {
        let Some(line) = line(input, CHUNK_LINE)? else { return Ok(None) };
        let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        if size.is_empty() || size.len() > 15 {
            return Err(Error::Chunk);
        }
        check_extension(extension)?;
        self.spend(extension.len())?;
        let size = size.iter().fold(0u64, |n, b| n * 16 + u64::from(hex(*b)));
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        Ok(Some(line.len() + 2))
    }

    fn trailer_line(&mut self, input: &[u8]) -> Result<Option<usize>, Error> {
        let Some(line) = line(input, CHUNK_LINE)? else { return Ok(None) };
        if line.is_empty() {
            self.state = State::Done;
            return Ok(Some(2));
        }
        let colon = memchr(b':', line).ok_or(Error::Chunk)?;
        let (name, value) = line.split_at(colon);
        if !syntax::is_field_name(name) || !syntax::is_field_value(value) {
            return Err(Error::Chunk);
        }
        self.spend(line.len())?;
        Ok(Some(line.len() + 2))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.overhead += bytes;
        if self.overhead > OVERHEAD { Err(Error::Chunk) } else { Ok(()) }
    }
}

fn clamp(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

fn after(left: u64, taken: usize, end: State, more: fn(u64) -> State) -> State {
    match left - taken as u64 {
        0 => end,
        n => more(n),
    }
}

/// The line at the front without its CRLF; an error when it is too long or holds a stray CR or LF.
fn line(input: &[u8], limit: usize) -> Result<Option<&[u8]>, Error> {
    match memchr(b'\n', input) {
        None if input.len() > limit => Err(Error::Chunk),
        None => match memchr(b'\r', input) {
            Some(at) if at + 1 < input.len() => Err(Error::Chunk),
            _ => Ok(None),
        },
        Some(newline) => {
            let line = input.get(..newline).and_then(|l| l.strip_suffix(b"\r")).ok_or(Error::Chunk)?;
            if line.len() > limit || line.contains(&b'\r') { Err(Error::Chunk) } else { Ok(Some(line)) }
        }
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )` without the white space that RFC 9112 §7.1.1 calls bad.
fn check_extension(extension: &[u8]) -> Result<(), Error> {
    if extension.is_empty() {
        return Ok(());
    }
    let body = extension.strip_prefix(b";").ok_or(Error::Chunk)?;
    for part in body.split(|b| *b == b';') {
        let (name, value) = match memchr(b'=', part) {
            Some(at) => (part.get(..at).unwrap_or_default(), part.get(at + 1..)),
            None => (part, None),
        };
        let quoted = |v: &[u8]| v.len() >= 2 && v.starts_with(b"\"") && v.ends_with(b"\"") && syntax::is_field_value(v);
        if !syntax::is_field_name(name) || value.is_some_and(|v| !syntax::is_field_name(v) && !quoted(v)) {
            return Err(Error::Chunk);
        }
    }
    Ok(())
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}
