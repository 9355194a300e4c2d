//! As much of HTTP/2 (RFC 9113) as a backend that answers everything alike and a client that asks for one thing need:
//! frames, and header blocks that use neither the dynamic table nor Huffman codes.

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;

impl Frame {
    /// The head at the start of `input`, when the whole frame is there.
    pub(crate) fn complete(input: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s1, s2, s3, s4] = input.get(..HEAD)? else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]);
        (input.len() >= HEAD + length).then_some(Self { length, kind, flags, stream })
    }

    /// Whether it is the last of its stream.
    pub(crate) fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// Writes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Writes a field whose name is an entry of the static table, never to be indexed (RFC 7541 §6.2.2).
pub(crate) fn literal(index: u8, value: &str, block: &mut Vec<u8>) {
    // A prefix of four bits holds up to 14; all indexes used here fit one more byte.
    if index < 15 {
        block.push(index);
    } else {
        block.extend_from_slice(&[15, index - 15]);
    }
    string(value, block);
}

/// Writes a field with a name of its own.
pub(crate) fn named(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0);
    string(name, block);
    string(value, block);
}

/// Strings of up to 126 bytes.
fn string(text: &str, block: &mut Vec<u8>) {
    block.push(text.len().min(126) as u8);
    block.extend(text.bytes().take(126));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written() {
        let mut out = Vec::new();
        frame(HEADERS, END_STREAM | END_HEADERS, 5, b"abc", &mut out);
        let read = Frame::complete(&out).unwrap();
        assert_eq!(read, Frame { length: 3, kind: HEADERS, flags: 5, stream: 5 });
        assert!(read.ends_stream());
        assert_eq!(Frame::complete(&out[..11]), None);
    }

    #[test]
    fn fields_follow_rfc_7541() {
        let mut block = Vec::new();
        literal(4, "/a", &mut block);
        literal(31, "x", &mut block);
        named("b", "c", &mut block);
        assert_eq!(block, [4, 2, b'/', b'a', 15, 16, 1, b'x', 0, 1, b'b', 1, b'c']);
    }
}
