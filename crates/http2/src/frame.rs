//! Frames (RFC 9113 §4 and §6).

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITISED: u8 = 0x20;

/// The first bytes of a client (§3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;

/// Largest payload: what every peer must take, and all that this crate takes (§4.2).
pub(crate) const LARGEST: usize = 16_384;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn read(input: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s1, s2, s3, s4] = input.get(..HEAD)? else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]) })
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes the head of a frame.
pub(crate) fn head(length: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s1, s2, s3, s4] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, s1, s2, s3, s4]);
}

/// Writes a whole frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    head(payload.len(), kind, flags, stream, out);
    out.extend_from_slice(payload);
}

/// Writes a header block, which `build` appends, as HEADERS and as many CONTINUATION frames as it takes.
pub(crate) fn header_block(stream: u32, flags: u8, out: &mut Vec<u8>, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    head(0, HEADERS, flags | END_HEADERS, stream, out);
    build(out);
    let length = out.len() - start - HEAD;
    if length <= LARGEST {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        out.get_mut(start..start + 3).unwrap_or_default().copy_from_slice(&[a, b, c]);
        return;
    }
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let mut parts = block.chunks(LARGEST).peekable();
    let (mut kind, mut flags) = (HEADERS, flags);
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frame(kind, flags | last, stream, part, out);
        (kind, flags) = (CONTINUATION, 0);
    }
}

/// The payload without padding (§6.1); `None` when there is more padding than payload.
pub(crate) fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// A payload of four bytes as a number.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_blocks_are_continued() {
        let mut out = Vec::new();
        header_block(7, END_STREAM, &mut out, |block| block.extend(std::iter::repeat_n(b'x', 40_000)));
        let mut seen = Vec::new();
        while let Some(head) = Head::read(&out) {
            seen.push((head.kind, head.flags, head.length, head.stream));
            out.drain(..HEAD + head.length);
        }
        assert_eq!(
            seen,
            [(HEADERS, END_STREAM, LARGEST, 7), (CONTINUATION, 0, LARGEST, 7), (CONTINUATION, END_HEADERS, 7232, 7)]
        );
        header_block(9, 0, &mut out, |block| block.push(0x88));
        assert_eq!(out, [0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 9, 0x88]);
    }

    #[test]
    fn padding_is_taken_off() {
        let padded = Head { length: 0, kind: DATA, flags: PADDED, stream: 1 };
        assert_eq!(unpadded(padded, &[2, b'a', 0, 0]), Some(&b"a"[..]));
        assert_eq!(unpadded(padded, &[3, b'a', 0]), None);
        assert_eq!(unpadded(padded, &[]), None);
    }
}
