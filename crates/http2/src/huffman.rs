//! HPACK's Huffman code (RFC 7541 §5.2 and Appendix B), decoding only.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their symbols, and the lengths say
//! the rest. So the lengths are all that is written down here. Codes of up to nine bits, which are nearly all of a
//! header's characters, are found with one look-up; longer ones by comparing with the first code of each length.

/// Bits of each symbol's code; the last is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const EOS: u16 = 256;
/// Bits that one look-up decides.
const FAST_BITS: u32 = 9;
const LONGEST: usize = 30;

struct Tables {
    /// By the next nine bits: symbol and length (`symbol << 4 | length`), 0 for a longer code.
    fast: [u16; 1 << FAST_BITS],
    /// By length: the first code, how many there are, and where their symbols begin in `order`.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    offset: [u32; LONGEST + 1],
    /// Symbols by length, then by number.
    order: [u16; 257],
}

const fn tables() -> Tables {
    let mut tables = Tables {
        fast: [0; 1 << FAST_BITS],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
        order: [0; 257],
    };
    let (mut code, mut place, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        tables.first[length] = code;
        tables.offset[length] = place as u32;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                if length as u32 <= FAST_BITS {
                    let spare = FAST_BITS - length as u32;
                    let mut tail = 0;
                    while tail < 1 << spare {
                        tables.fast[((code << spare) | tail) as usize] = (symbol as u16) << 4 | length as u16;
                        tail += 1;
                    }
                }
                tables.order[place] = symbol as u16;
                tables.count[length] += 1;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    tables
}

static TABLES: Tables = tables();

/// Appends what `input` stands for; false when it is no proper code: EOS inside, or an end that is not up to seven ones.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) -> bool {
    let mut input = input.iter();
    let (mut bits, mut count) = (0u64, 0u32);
    loop {
        while count <= 56
            && let Some(byte) = input.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let entry = TABLES.fast[(bits >> (64 - FAST_BITS)) as usize];
        let (symbol, length) = if entry == 0 { long(bits) } else { (entry >> 4, u32::from(entry & 15)) };
        if length > count {
            // What is left must be the beginning of EOS, which is all ones.
            return count < 8 && (count == 0 || bits >> (64 - count) == (1 << count) - 1);
        }
        if symbol == EOS {
            return false;
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

/// A code of ten bits or more.
fn long(bits: u64) -> (u16, u32) {
    for length in FAST_BITS as usize + 1..=LONGEST {
        let code = (bits >> (64 - length)) as u32;
        let place = code.wrapping_sub(TABLES.first[length]);
        if place < TABLES.count[length] {
            return (TABLES.order[(TABLES.offset[length] + place) as usize], length as u32);
        }
    }
    (EOS, LONGEST as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of each symbol, by the definition.
    fn codes() -> Vec<(u32, u32)> {
        let mut codes = vec![(0, 0); 257];
        for length in 1..=LONGEST {
            for at in 0..TABLES.count[length] {
                let symbol = TABLES.order[(TABLES.offset[length] + at) as usize];
                codes[usize::from(symbol)] = (TABLES.first[length] + at, length as u32);
            }
        }
        codes
    }

    fn encode(text: &[u8]) -> Vec<u8> {
        let (codes, mut bits, mut out) = (codes(), Vec::new(), Vec::new());
        for byte in text {
            let (code, length) = codes[usize::from(*byte)];
            bits.extend((0..length).rev().map(|at| code >> at & 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(1);
        }
        out.extend(bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | *bit as u8)));
        out
    }

    fn decoded(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(input, &mut out).then_some(out)
    }

    #[test]
    fn examples_of_rfc_7541() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&www).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]).unwrap(), b"custom-value");
        assert_eq!(codes()[256], (0x3fff_ffff, 30));
        assert_eq!(codes()[usize::from(b'0')], (0, 5));
        assert_eq!(codes()[249], (0x0fff_fffe, 28));
    }

    #[test]
    fn every_text_is_decoded_as_it_was_encoded() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let text: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
            assert_eq!(decoded(&encode(&text)).as_deref(), Some(&text[..]));
        }
    }

    #[test]
    fn padding_is_short_and_all_ones() {
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
        for bad in [&[0x00][..], &[0x06], &[0x07, 0xff], &[0xff, 0xff, 0xff, 0xff], &[0xff]] {
            assert_eq!(decoded(bad), None, "{bad:x?}");
        }
        assert_eq!(decoded(&[]).unwrap(), b"");
    }
}
