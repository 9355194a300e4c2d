//! Decoding of header blocks (RFC 7541 §3 and §6).

use super::table::{Dynamic, STATIC};
use crate::fields::FieldList;
use crate::huffman;

/// The table that both ends keep is lost, and with it the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// The block is no HPACK.
    Wrong,
    /// It stands for many times more than may be sent: a short block can refer to one long entry again and again.
    Endless,
}

/// The factor by which a block may exceed its limit before its connection is given up. Up to there it is decoded, so that the table
/// stays right, and the request is answered.
const GROWTH: usize = 4;

/// The bytes that a field costs towards the limit beside its own (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

/// The receiving end's state.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Dynamic,
    /// Largest size that the peer may choose for the table.
    limit: usize,
}

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self { table: Dynamic::new(limit), limit }
    }

    /// Decodes a whole block. False when the list is larger than `most`; then what is in `out` is of no use, but the
    /// table is as it must be.
    ///
    /// # Errors
    /// [`Undecodable`].
    pub(crate) fn decode(&mut self, block: &[u8], most: usize, out: &mut FieldList) -> Result<bool, Undecodable> {
        let mut input = Input { rest: block };
        let (mut size, mut updates, mut begun) = (0, 0, false);
        while let Some(first) = input.peek() {
            if first & 0xe0 == 0x20 {
                let limit = input.integer(5)?;
                updates += 1;
                if begun || updates > 2 || limit > self.limit {
                    return Err(Undecodable::Wrong);
                }
                self.table.resize(limit);
                continue;
            }
            begun = true;
            let start = out.bytes.len();
            let middle = self.field(first, &mut input, &mut out.bytes)?;
            size += out.bytes.len() - start + OVERHEAD;
            if size > most.saturating_mul(GROWTH) {
                return Err(Undecodable::Endless);
            }
            if size > most {
                out.bytes.truncate(start);
            } else {
                out.close(start, middle);
            }
        }
        Ok(size <= most)
    }

    /// One field: name and value are appended to `bytes`; yields where the value begins.
    fn field(&mut self, first: u8, input: &mut Input<'_>, bytes: &mut Vec<u8>) -> Result<usize, Undecodable> {
        if first & 0x80 != 0 {
            let (name, value) = self.entry(input.integer(7)?)?;
            bytes.extend_from_slice(name);
            let middle = bytes.len();
            bytes.extend_from_slice(value);
            return Ok(middle);
        }
        let keep = first & 0x40 != 0;
        let start = bytes.len();
        match input.integer(if keep { 6 } else { 4 })? {
            0 => input.string(bytes)?,
            index => bytes.extend_from_slice(self.entry(index)?.0),
        }
        let middle = bytes.len();
        input.string(bytes)?;
        if keep {
            let (name, value) = bytes.get(start..).unwrap_or_default().split_at(middle - start);
            self.table.insert(name, value);
        }
        Ok(middle)
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Undecodable> {
        let at = index.checked_sub(1).ok_or(Undecodable::Wrong)?;
        match STATIC.get(at) {
            Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
            None => self.table.entry(at - STATIC.len()).ok_or(Undecodable::Wrong),
        }
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn byte(&mut self) -> Result<u8, Undecodable> {
        let (first, rest) = self.rest.split_first().ok_or(Undecodable::Wrong)?;
        self.rest = rest;
        Ok(*first)
    }

    /// An integer with a prefix of so many bits (§5.1); more than 28 bits are too many for anything here.
    fn integer(&mut self, prefix: u32) -> Result<usize, Undecodable> {
        let mask = (1u8 << prefix) - 1;
        let mut value = usize::from(self.byte()? & mask);
        if value < usize::from(mask) {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Undecodable::Wrong)
    }

    /// A string (§5.2).
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Undecodable> {
        let coded = self.peek().is_some_and(|b| b & 0x80 != 0);
        let length = self.integer(7)?;
        if length > self.rest.len() {
            return Err(Undecodable::Wrong);
        }
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        if !coded {
            out.extend_from_slice(text);
        } else if !huffman::decode(text, out) {
            return Err(Undecodable::Wrong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn decode(decoder: &mut Decoder, hex: &str) -> Result<Vec<(String, String)>, Undecodable> {
        let mut list = FieldList::default();
        decoder.decode(&bytes(hex), 1000, &mut list)?;
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        Ok(list.iter().map(|(n, v)| (text(n), text(v))).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// RFC 7541 Appendix C.3 and C.4: the same requests without and with Huffman codes.
    #[test]
    fn examples_of_requests() {
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        let second = [&first[..], &[("cache-control", "no-cache")]].concat();
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::new(4096);
            assert_eq!(decode(&mut decoder, blocks[0]).unwrap(), pairs(&first));
            assert_eq!(decode(&mut decoder, blocks[1]).unwrap(), pairs(&second));
            assert_eq!(decode(&mut decoder, blocks[2]).unwrap(), pairs(&third));
        }
    }

    #[test]
    fn what_is_no_hpack_is_refused() {
        for (hex, why) in [
            ("80", "index 0"),
            ("be", "an index beyond the table"),
            ("ff ff ff ff ff 7f", "an integer without end"),
            ("82 20", "a size update behind a field"),
            ("20 20 20 82", "three size updates"),
            ("3f e2 1f 82", "a table over the limit"),
            ("00 05 61", "a string that is cut off"),
            ("00 81 00 01 61", "a bad Huffman code"),
            ("00", "a field that is cut off"),
            ("40", "a kept field that is cut off"),
        ] {
            assert_eq!(decode(&mut Decoder::new(4096), hex), Err(Undecodable::Wrong), "{why}");
        }
        assert!(decode(&mut Decoder::new(4096), "20 3f e1 1f 82").is_ok(), "down to nothing and up to the limit");
    }

    /// A short block that refers to one long entry again and again makes no long list.
    #[test]
    fn a_list_over_the_limit_is_not_kept() {
        let mut decoder = Decoder::new(4096);
        let mut list = FieldList::default();
        let mut block = vec![0x40, 1, b'a', 0x7f, 0x80 | (900u32 as u8 & 0x7f), 7];
        let length = 127 + usize::from(900u32 as u8 & 0x7f) + (7 << 7);
        block.extend(std::iter::repeat_n(b'x', length));
        let head = block.len();
        block.extend(std::iter::repeat_n(0xbe, 15));
        assert_eq!(decoder.decode(&block, 5000, &mut list), Ok(false));
        assert!(list.bytes.len() <= 5000 && list.len() < 5);
        block.truncate(head);
        block.extend(std::iter::repeat_n(0xbe, 10_000));
        assert_eq!(Decoder::new(4096).decode(&block, 5000, &mut FieldList::default()), Err(Undecodable::Endless));
    }
}
