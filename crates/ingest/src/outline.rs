//! What the lines of a text that is no YAML seem to say: keys, their values and the keys around them, as far as indentation, braces and
//! quotes tell. Comments and block scalars say nothing.
//!
//! It serves one purpose: a file that cannot be read must not open what its policies are there to close.

/// A key with its value, or a value alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key; empty for a value that stands alone, as in a list.
    pub(crate) key: String,
    /// The value on its line or the next; empty where something stands below the key.
    pub(crate) value: String,
    /// The maps and lists around it, outermost first: a number for each, and the key that it is the value of.
    pub(crate) around: Vec<(usize, String)>,
    /// The number of what stands below the key.
    pub(crate) below: usize,
}

impl Entry {
    /// The number of the map or list that it stands in; 0 is the document.
    pub(crate) fn within(&self) -> usize {
        self.around.last().map_or(0, |(number, _)| *number)
    }

    /// Whether it stands somewhere below the map of that number.
    pub(crate) fn is_below(&self, number: usize) -> bool {
        number == 0 || self.around.iter().any(|(around, _)| *around == number)
    }
}

/// The documents of a text, each with the line before it and its entries.
pub(crate) fn documents(text: &str) -> Vec<(u32, Vec<Entry>)> {
    let mut documents = vec![(0, Outline::default())];
    for (number, line) in (1..).zip(text.lines()) {
        let is_border =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if is_border {
            documents.push((number, Outline::default()));
        } else if let Some((_, outline)) = documents.last_mut() {
            outline.line(line);
        }
    }
    documents.into_iter().map(|(line, outline)| (line, outline.entries)).collect()
}

/// A map or list that is open.
struct Frame {
    number: usize,
    key: String,
    /// Its key's indentation; `None` between braces.
    indent: Option<usize>,
}

#[derive(Default)]
struct Outline {
    entries: Vec<Entry>,
    frames: Vec<Frame>,
    numbers: usize,
    /// Lines that are indented deeper than this are text.
    scalar: Option<usize>,
}

impl Outline {
    fn line(&mut self, line: &str) {
        let mut indent = line.len() - line.trim_start_matches(' ').len();
        let mut rest = line.trim();
        if rest.is_empty() || self.scalar.is_some_and(|above| indent > above) {
            return;
        }
        self.scalar = None;
        if self.is_flow() {
            return self.tokens(rest, indent);
        }
        let is_item = |rest: &str| rest == "-" || rest.starts_with("- ");
        if !is_item(rest) {
            self.leave(indent);
        }
        while is_item(rest) {
            // An item is a map of its own; its keys stand two columns on. It may stand no deeper than the key of its list.
            self.leave(indent + 1);
            if self.frames.last().is_some_and(|frame| frame.key.is_empty() && frame.indent == Some(indent)) {
                self.frames.pop();
            }
            self.open(String::new(), Some(indent));
            let after = rest.get(1..).unwrap_or_default();
            indent += 1 + (after.len() - after.trim_start().len());
            rest = after.trim_start();
        }
        self.tokens(rest, indent);
    }

    fn is_flow(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.indent.is_none())
    }

    /// Closes what does not reach to a line of that indentation.
    fn leave(&mut self, indent: usize) {
        while self.frames.last().is_some_and(|frame| frame.indent.is_some_and(|of| of >= indent)) {
            self.frames.pop();
        }
    }

    fn open(&mut self, key: String, indent: Option<usize>) -> usize {
        self.numbers += 1;
        self.frames.push(Frame { number: self.numbers, key, indent });
        self.numbers
    }

    fn push(&mut self, key: &str, value: &str) {
        let around = self.frames.iter().map(|frame| (frame.number, frame.key.clone())).collect();
        self.entries.push(Entry { key: key.to_owned(), value: value.to_owned(), around, below: usize::MAX });
    }

    fn tokens(&mut self, line: &str, indent: usize) {
        let mut rest = line.trim_start();
        let mut key = String::new();
        while let Some(first) = rest.chars().next() {
            match first {
                '#' => return,
                '{' | '[' => {
                    let below = self.open(std::mem::take(&mut key), None);
                    self.is_value_of_last(below);
                    rest = rest.get(1..).unwrap_or_default();
                }
                '}' | ']' => {
                    if self.is_flow() {
                        self.frames.pop();
                    }
                    rest = rest.get(1..).unwrap_or_default();
                }
                ',' | ':' => rest = rest.get(1..).unwrap_or_default(),
                _ => {
                    let (token, after) = token(rest, self.is_flow());
                    let after = after.trim_start_matches(' ');
                    let is_key = after.starts_with(':')
                        && (rest.starts_with(['"', '\''])
                            || after.len() == 1
                            || after.starts_with(": ")
                            || self.is_flow());
                    if !is_key {
                        self.value(&token);
                        rest = after.trim_start();
                        continue;
                    }
                    let after = after.get(1..).unwrap_or_default().trim_start();
                    self.push(&token, "");
                    let (value, after) = plain(after, self.is_flow());
                    rest = after.trim_start();
                    match value {
                        Some(value) if value.starts_with(['|', '>']) && !self.is_flow() => {
                            self.scalar = Some(indent);
                            return;
                        }
                        Some(value) => self.last_value(&value),
                        None if rest.is_empty() || rest.starts_with('#') => {
                            if !self.is_flow() {
                                let below = self.open(token, Some(indent));
                                self.is_value_of_last(below);
                            }
                        }
                        None => key = token,
                    }
                }
            }
            rest = rest.trim_start();
        }
    }

    fn is_value_of_last(&mut self, below: usize) {
        if let Some(last) = self.entries.last_mut().filter(|last| last.below == usize::MAX && last.value.is_empty()) {
            last.below = below;
        }
    }

    fn last_value(&mut self, value: &str) {
        if let Some(last) = self.entries.last_mut() {
            value.clone_into(&mut last.value);
        }
    }

    /// A value without a key: that of the key on the line before, or one of a list.
    fn value(&mut self, token: &str) {
        let here = self.frames.last().map_or(0, |frame| frame.number);
        match self.entries.last_mut() {
            Some(last) if last.below == here && last.value.is_empty() && !last.key.is_empty() && here > 0 => {
                token.clone_into(&mut last.value);
            }
            _ => self.push("", token),
        }
    }
}

/// The scalar after a key, without its anchor and tag; `None` where none stands there.
fn plain(text: &str, flow: bool) -> (Option<String>, &str) {
    let mut rest = text;
    while rest.starts_with(['&', '!']) {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest).trim_start();
    }
    if rest.is_empty() || rest.starts_with(['{', '[', '#', ',', '}', ']']) {
        return (None, rest);
    }
    let (value, rest) = token(rest, flow);
    (Some(value), rest)
}

/// The first token, without its quotes, and what follows it.
fn token(text: &str, flow: bool) -> (String, &str) {
    if let Some(quote) = text.chars().next().filter(|c| ['"', '\''].contains(c)) {
        let inner = text.get(1..).unwrap_or_default();
        let end =
            inner.char_indices().find(|(at, c)| *c == quote && !inner.get(..*at).unwrap_or_default().ends_with('\\'));
        let end = end.map_or(inner.len(), |(at, _)| at);
        return (inner.get(..end).unwrap_or_default().to_owned(), inner.get(end + 1..).unwrap_or_default());
    }
    let ends = |(at, c): (usize, char)| {
        let next = text.get(at + c.len_utf8()..).and_then(|rest| rest.chars().next());
        match c {
            ',' | '{' | '}' | '[' | ']' => flow,
            ':' => next.is_none_or(|next| next.is_whitespace() || flow && ['{', '[', '"', '\''].contains(&next)),
            ' ' => next == Some('#'),
            _ => false,
        }
    };
    let end = text.char_indices().find(|place| ends(*place)).map_or(text.len(), |(at, _)| at);
    (text.get(..end).unwrap_or_default().trim_end().to_owned(), text.get(end..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let all = documents(text).into_iter().flat_map(|(_, entries)| entries);
        let path = |entry: &Entry| entry.around.iter().map(|(_, key)| format!("{key}/")).collect::<String>();
        all.map(|entry| format!("{}{}={}", path(&entry), entry.key, entry.value)).collect()
    }

    #[test]
    fn keys_stand_where_indentation_and_braces_put_them() {
        let block = "kind: A # kind: B\nmetadata:\n  labels: {namespace: blue}\n  namespace: green\nspec:\n  host:\n    a.b\n  n: &x y\n";
        assert_eq!(
            said(block),
            [
                "kind=A",
                "metadata=",
                "metadata/labels=",
                "metadata/labels/namespace=blue",
                "metadata/namespace=green",
                "spec=",
                "spec/host=a.b",
                "spec/n=y"
            ]
        );
        let flow = "{\"kind\": \"A\", \"spec\": {\"hosts\": [\"a\", \"b\"], \"tls\":{\"mode\":\"X\"";
        assert_eq!(
            said(flow),
            ["/kind=A", "/spec=", "/spec/hosts=a", "/spec/hosts/=b", "/spec/tls=", "/spec/tls/mode=X"]
        );
        let list = "items:\n- kind: A\n  metadata: {name: x}\n- kind: B\n";
        assert_eq!(
            said(list),
            ["items=", "items//kind=A", "items//metadata=", "items//metadata/name=x", "items//kind=B"]
        );
        let text = "a: |\n  kind: A\n\n  b\nnote: \"see kind: B\"\n# kind: C\nc: [\n";
        assert_eq!(said(text), ["a=", "note=see kind: B", "c="]);
    }

    #[test]
    fn documents_are_told_apart_and_items_too() {
        let found = documents("kind: A\n--- # next\nkind: B\n---\n- kind: C\n- kind: D\n");
        let lines: Vec<u32> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [0, 2, 4]);
        let [first, second] = [0, 1].map(|n| &found[2].1[n]);
        assert_ne!(first.within(), second.within());
    }

    #[test]
    fn any_bytes_are_outlined() {
        let mut random = fastrand::Rng::with_seed(3);
        let alphabet: Vec<char> = "ab:-{}[],\"'#&! |>\n\u{e9}".chars().collect();
        for _ in 0..20_000 {
            let text: String = (0..random.usize(0..40)).filter_map(|_| random.choice(&alphabet)).collect();
            let _ = documents(&text);
        }
    }
}
