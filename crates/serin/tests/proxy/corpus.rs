//! The hostile corpus: the data files under `tests/corpus`, and how their notation becomes bytes.
//!
//! A file is a list of rows, one on a line. In `send`, `U+0000` to `U+00FF` each stand for that byte, and `{N*text}` for
//! `text` repeated N times.
//!
//! Of a request: `status` is what the client sees (200 for what is passed on, 0 for a close without an answer), `upstream`
//! the exact bytes received (chunks joined, ids as `*`; a lone `*` where only the number of answers counts); `begun` that
//! the head may have been passed on before its body was refused, `ends` that the client closes its side and nothing can
//! follow, `alone` that nothing can follow, `interim` that a 100 may come first. Of a response: `body` is what the client
//! gets (status 0: an answer that breaks off), `later` is sent after a pause, `end` is where the answer ends.
//!
//! `UPDATE=1 cargo test` writes what happened into rows that expect nothing yet; read it before
//! you commit it, row by row, against the outcome that the standard asks for.

use std::path::PathBuf;

use serde_json::{Map, Value};

/// The rows of one file.
pub struct Corpus {
    path: PathBuf,
    pub rows: Vec<Row>,
}

/// One input; the fields that a kind of corpus does not use are absent.
#[derive(Clone)]
pub struct Row(Map<String, Value>);

impl Corpus {
    pub fn load(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/{name}.json"));
        let rows: Vec<Map<String, Value>> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        Self { path, rows: rows.into_iter().map(Row).collect() }
    }

    /// Writes the rows back, one on a line.
    pub fn save(&self) {
        let lines: Vec<String> =
            self.rows.iter().map(|r| format!("  {}", serde_json::to_string(&r.0).unwrap())).collect();
        std::fs::write(&self.path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
}

impl Row {
    /// `ROW what`, as failures name it.
    pub fn name(&self) -> String {
        format!("{} {}", self.text("row").unwrap(), self.text("what").unwrap())
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    pub fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    pub fn is(&self, flag: &str) -> bool {
        self.0.get(flag).is_some_and(|v| v == true)
    }

    /// The bytes that a field stands for.
    pub fn bytes(&self, field: &str) -> Option<Vec<u8>> {
        let text: Vec<char> = self.text(field)?.chars().collect();
        Some(expand(&text))
    }

    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0.insert(field.to_owned(), value.into());
    }
}

fn expand(text: &[char]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(c) = text.get(at) {
        let repeated = (*c == '{').then(|| repetition(text.get(at + 1..)?)).flatten();
        if let Some((times, inner, length)) = repeated {
            bytes.extend(expand(inner).repeat(times));
            at += 1 + length;
        } else {
            bytes.push(u8::try_from(u32::from(*c)).unwrap());
            at += 1;
        }
    }
    bytes
}

/// Of `N*text}…`: N, the text, and the length up to and with the brace that closes it.
fn repetition(text: &[char]) -> Option<(usize, &[char], usize)> {
    let star = text.iter().position(|c| !c.is_ascii_digit())?;
    if star == 0 || text.get(star) != Some(&'*') {
        return None;
    }
    let times = text.get(..star)?.iter().collect::<String>().parse().ok()?;
    let mut end = star + 1;
    loop {
        match text.get(end)? {
            '}' => return Some((times, text.get(star + 1..end)?, end + 1)),
            '{' => end += 1 + repetition(text.get(end + 1..)?).map_or(0, |(_, _, length)| length),
            _ => end += 1,
        }
    }
}

/// The offsets to cut `length` bytes at: every one, or 64 spread ones of an input too long for that.
pub fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (1..length).step_by(if length > 512 { length / 64 } else { 1 })
}
