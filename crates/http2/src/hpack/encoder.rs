//! Encoding of header blocks, without a dynamic table: fields of the static table by their number, everything else as
//! text. That costs the receiver's memory nothing and the sender neither look-ups nor state; bytes are cheap between
//! proxies of one mesh (HAProxy does the same).

use super::table::STATIC;

/// Appends an integer with a prefix of so many bits; `head` holds the bits before it (RFC 7541 §5.1).
fn integer(value: usize, prefix: u32, head: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        return out.push(head | value as u8);
    }
    out.push(head | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// Slots of the index: a power of two, with room so that most names are found at once.
const SLOTS: usize = 256;

const fn slot(length: usize, first: u8, last: u8) -> usize {
    (length * 37 + (first | 0x20) as usize * 5 + (last | 0x20) as usize * 11) % SLOTS
}

const fn index() -> [u8; SLOTS] {
    let mut slots = [0u8; SLOTS];
    let mut entry = 0;
    while entry < STATIC.len() {
        let name = STATIC[entry].0.as_bytes();
        let mut at = slot(name.len(), name[0], name[name.len() - 1]);
        while slots[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        slots[at] = entry as u8 + 1;
        entry += 1;
    }
    slots
}

/// Number of each name's first entry in the static table, by its hash; 0 is free.
static INDEX: [u8; SLOTS] = index();

/// The entry of the static table with that name, and whether its value is `value` too.
fn find(name: &[u8], value: &[u8]) -> (usize, bool) {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return (0, false) };
    let mut at = slot(name.len(), *first, *last);
    let mut found = 0;
    while let entry @ 1.. = usize::from(INDEX[at]) {
        if let Some((known, its_value)) = STATIC.get(entry - 1)
            && known.len() == name.len()
            && (known.as_bytes() == name || known.as_bytes().eq_ignore_ascii_case(name))
        {
            if !its_value.is_empty() && its_value.as_bytes() == value {
                return (entry, true);
            }
            found = if found == 0 { entry } else { found };
        }
        at = (at + 1) % SLOTS;
    }
    (found, false)
}

/// Appends a field; the name is written in lower case (RFC 9113 §8.2.1).
pub(crate) fn encode_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Whoever passes a secret on must not keep it in a table (RFC 7541 §7.1.3).
    let (entry, whole) = find(name, value);
    if whole {
        return integer(entry, 7, 0x80, out);
    }
    let secret = matches!(entry, 23 | 32 | 49 | 55);
    integer(entry, 4, if secret { 0x10 } else { 0 }, out);
    if entry == 0 {
        integer(name.len(), 7, 0, out);
        let start = out.len();
        out.extend_from_slice(name);
        out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
    }
    string(value, out);
}

/// Appends `:status`.
pub(crate) fn encode_status(status: u16, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    encode_field(b":status", serin_http1::encode::decimal(u64::from(status), &mut digits), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::FieldList;
    use crate::hpack::Decoder;

    #[test]
    fn the_static_table_is_used() {
        let mut out = Vec::new();
        encode_field(b":method", b"GET", &mut out);
        encode_status(404, &mut out);
        encode_field(b":path", b"/index.html", &mut out);
        encode_field(b"accept-encoding", b"gzip, deflate", &mut out);
        assert_eq!(out, [0x82, 0x8d, 0x85, 0x90]);
        for (entry, (name, value)) in STATIC.iter().enumerate() {
            let first = STATIC.iter().position(|(n, _)| n == name).unwrap();
            assert_eq!(find(name.as_bytes(), b"?"), (first + 1, false), "{name}");
            if !value.is_empty() {
                assert_eq!(find(name.as_bytes(), value.as_bytes()), (entry + 1, true), "{name}");
            }
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut out = Vec::new();
            let mut text = |longest: usize| -> Vec<u8> {
                let length = random.usize(1..longest);
                std::iter::repeat_with(|| random.alphanumeric() as u8).take(length).collect()
            };
            let fields: Vec<(Vec<u8>, Vec<u8>)> = (0..20).map(|_| (text(200), text(2000))).collect();
            fields.iter().for_each(|(name, value)| encode_field(name, value, &mut out));
            let mut list = FieldList::default();
            assert_eq!(Decoder::new(4096).decode(&out, 1 << 20, &mut list), Ok(true));
            assert_eq!(list.len(), 20);
            for ((name, value), (n, v)) in list.iter().zip(&fields) {
                assert_eq!((name, value), (&n.to_ascii_lowercase()[..], &v[..]));
            }
        }
    }
}
