//! An ordered header block as spans into one buffer.
//!
//! Names keep their case and fields their order; look-ups ignore case. Edits append to the buffer and
//! repoint spans, so nothing that was read is moved. A cleared block keeps its memory, so that a
//! connection which reuses one does not allocate a request.

/// A piece of the buffer: 32 bits are enough because a head is bounded far below 4 GiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, len: end.saturating_sub(start) as u32 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
}

/// Header fields in the order they arrived, case kept.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// A bit for each name that was ever added (see [`mark`]): most look-ups are for fields that are not there, and end
    /// with one test.
    marks: u64,
    /// Bytes that were received; what stands behind them was added.
    received: u32,
}

/// Names that are looked for together: mostly none of them is there, which one test shows.
#[derive(Debug)]
pub struct NameSet {
    names: &'static [&'static str],
    marks: u64,
}

impl NameSet {
    /// A set of these names.
    #[must_use]
    pub const fn new(names: &'static [&'static str]) -> Self {
        let (mut marks, mut at) = (0, 0);
        while at < names.len() {
            marks |= mark(names[at].as_bytes());
            at += 1;
        }
        Self { names, marks }
    }
}

/// One bit of 64, by what is cheap to see of a name: its length and its first and last letter, without case.
#[inline]
const fn mark(name: &[u8]) -> u64 {
    let (first, last) = match name {
        [] => return 0,
        [only] => (*only, *only),
        [first, .., last] => (*first, *last),
    };
    let mixed = (name.len() * 5) ^ (first | 0x20) as usize ^ ((last | 0x20) as usize * 3);
    1 << (mixed & 63)
}

impl HeaderBlock {
    /// Empties the block and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.marks = 0;
        self.received = 0;
    }

    /// Begins with bytes that were received, of which fields are made.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.clear();
        self.received = self.push_bytes(bytes).len;
    }

    /// Makes room for that many fields and bytes.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.fields.reserve(fields);
        self.bytes.reserve(bytes);
    }

    #[inline]
    fn is_absent(&self, name: &str) -> bool {
        self.marks & mark(name.as_bytes()) == 0
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns true when there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The first value under `name` (compared without case).
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        if self.is_absent(name) {
            return None;
        }
        self.fields.iter().find(|f| self.named(f, name)).map(|f| self.slice(f.value))
    }

    /// The first value under `name` when it is UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Every value under `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let fields = if self.is_absent(name) { &[][..] } else { &self.fields };
        fields.iter().filter(move |f| self.named(f, name)).map(|f| self.slice(f.value))
    }

    /// Returns true when a field of that name is there.
    #[must_use]
    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        !self.is_absent(name) && self.fields.iter().any(|f| self.named(f, name))
    }

    /// All fields as (name, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (self.slice(f.name), self.slice(f.value)))
    }

    /// All fields as (name, value), in order, and whether the name was added rather than received.
    pub fn iter_with_origin(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        self.fields.iter().map(|f| (self.slice(f.name), self.slice(f.value), f.name.start >= self.received))
    }

    /// Adds a field at the end. The caller vouches that name and value are valid.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        self.marks |= mark(name);
        let name = self.push_bytes(name);
        let value = self.push_bytes(value);
        self.fields.push(Field { name, value });
    }

    /// Makes `value` the only one under `name`: the first field keeps its place, others go.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        if self.is_absent(name) {
            return self.append(name.as_bytes(), value);
        }
        let value_span = self.push_bytes(value);
        let mut found = false;
        let bytes = &self.bytes;
        self.fields.retain_mut(|field| {
            if !slice(bytes, field.name).eq_ignore_ascii_case(name.as_bytes()) {
                return true;
            }
            let first = !found;
            found = true;
            field.value = value_span;
            first
        });
        if !found {
            let name = self.push_bytes(name.as_bytes());
            self.fields.push(Field { name, value: value_span });
        }
    }

    /// Removes every field of these names.
    #[inline]
    pub fn remove_all(&mut self, set: &NameSet) {
        if self.marks & set.marks != 0 {
            set.names.iter().for_each(|name| _ = self.remove(name));
        }
    }

    /// Removes every field of that name; true when there was one.
    #[inline]
    pub fn remove(&mut self, name: &str) -> bool {
        !self.is_absent(name) && self.remove_present(name)
    }

    fn remove_present(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        let bytes = &self.bytes;
        self.fields.retain(|f| !slice(bytes, f.name).eq_ignore_ascii_case(name.as_bytes()));
        self.fields.len() != before
    }

    /// Bytes of all names and values, with four a field for `: ` and CRLF.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        self.fields.iter().map(|f| (f.name.len + f.value.len + 4) as usize).sum()
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }

    pub(crate) fn push_field(&mut self, name: Span, value: Span) {
        self.marks |= mark(self.slice(name));
        self.fields.push(Field { name, value });
    }

    pub(crate) fn slice(&self, span: Span) -> &[u8] {
        slice(&self.bytes, span)
    }

    fn named(&self, field: &Field, name: &str) -> bool {
        let (own, name) = (self.slice(field.name), name.as_bytes());
        own.len() == name.len() && (own == name || own.eq_ignore_ascii_case(name))
    }
}

fn slice(bytes: &[u8], span: Span) -> &[u8] {
    let start = span.start as usize;
    bytes.get(start..start + span.len as usize).unwrap_or_default()
}
