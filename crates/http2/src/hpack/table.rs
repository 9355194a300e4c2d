//! The static table (RFC 7541 Appendix A) and the dynamic one (§2.3.2).

use std::collections::VecDeque;

/// The static table; entry 1 comes first.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The bytes that an entry costs beside its own (§4.1).
const OVERHEAD: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Place of the name, counted over all bytes ever added; the value follows.
    start: u64,
    name: u32,
    value: u32,
}

impl Entry {
    fn size(self) -> usize {
        self.name as usize + self.value as usize + OVERHEAD
    }
}

/// The dynamic table: entries behind each other in one buffer, of which the front is given up from time to time.
#[derive(Debug)]
pub(super) struct Dynamic {
    bytes: Vec<u8>,
    /// Bytes given up so far.
    dropped: u64,
    /// Oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

impl Dynamic {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), dropped: 0, entries: VecDeque::new(), size: 0, limit }
    }

    /// Entry 0 is the newest.
    pub(super) fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(self.entries.len().checked_sub(index + 1)?)?;
        let start = (entry.start - self.dropped) as usize;
        let middle = start + entry.name as usize;
        Some((self.bytes.get(start..middle)?, self.bytes.get(middle..middle + entry.value as usize)?))
    }

    /// Adds an entry; one that is larger than the table empties it (§4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry =
            Entry { start: self.dropped + self.bytes.len() as u64, name: name.len() as u32, value: value.len() as u32 };
        self.shrink(self.limit.saturating_sub(entry.size()));
        if entry.size() > self.limit {
            return;
        }
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += entry.size();
        self.entries.push_back(entry);
    }

    /// Changes the limit (§4.3).
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(limit);
    }

    /// Evicts the oldest until no more than `size` is left.
    fn shrink(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_front()
        {
            self.size -= entry.size();
        }
        let live = self.entries.front().map_or(self.dropped + self.bytes.len() as u64, |e| e.start);
        let dead = (live - self.dropped) as usize;
        if dead == self.bytes.len() || dead > 4096 {
            self.bytes.drain(..dead);
            self.dropped = live;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut table = Dynamic::new(3 * (32 + 4));
        for n in 0..1000u32 {
            let name = format!("n{}", n % 10);
            table.insert(name.as_bytes(), b"vv");
            assert_eq!(table.entry(0), Some((name.as_bytes(), &b"vv"[..])));
            assert_eq!(table.entry(2).is_some(), n >= 2);
            assert_eq!(table.entry(3), None);
        }
        table.resize(32 + 4);
        assert_eq!((table.entry(0), table.entry(1)), (Some((&b"n9"[..], &b"vv"[..])), None));
        table.insert(b"too long for", b"that table");
        assert_eq!((table.entry(0), table.bytes.len()), (None, 0));
    }
}
