//! Files with many documents, of which few change at a time.
//!
//! A line that begins with `---` ends a document wherever it stands (YAML 1.2.2 §9.1.2: no scalar may contain it), so a text can be cut
//! there and each part be parsed alone. A part that stands at the same line with the same text as in the version before is not parsed
//! again. When some part cannot be parsed, the whole is, which says what is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::document::{MAX_FILE_BYTES, Parsed, parse_document, parse_whole};
use crate::node;

/// Parts at most; a text with more is parsed as a whole, which refuses it.
const MOST: usize = 50_000;

/// The parts of a file as they were parsed, by the number of lines before each.
#[derive(Debug, Default)]
pub struct Parts(HashMap<u32, Part>);

#[derive(Debug)]
struct Part {
    text: Box<str>,
    parsed: Arc<Parsed>,
}

/// A file that was parsed, with its parts for the next time.
#[derive(Debug, Default)]
pub struct InParts {
    /// Its content.
    pub parsed: Parsed,
    /// Its parts; none where it has only one, or could not be parsed.
    pub parts: Parts,
}

/// Parses the text of one file; `file` is how diagnostics call it.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    parse_beside(file, text, &Parts::default()).parsed
}

/// Parses the text of one file, and only those parts of it that differ from the version before. The result is that of
/// [`parse`].
#[must_use]
pub fn parse_beside(file: &str, text: &str, before: &Parts) -> InParts {
    let cut = cut(text);
    if cut.len() == 1 || cut.len() > MOST || text.len() > MAX_FILE_BYTES {
        return InParts { parsed: parse_whole(file, text), parts: Parts::default() };
    }
    let name: Arc<str> = file.into();
    let (mut whole, mut parts) = (Parsed::default(), HashMap::with_capacity(cut.len()));
    for (line, text_of_part) in cut {
        let known = before.0.get(&line).filter(|part| *part.text == *text_of_part && part.parsed.before == whole.end());
        let parsed = match known {
            Some(part) => part.parsed.clone(),
            None => {
                let Ok(documents) = node::parse_stream(text_of_part) else {
                    return InParts { parsed: parse_whole(file, text), parts: Parts::default() };
                };
                let mut parsed = Parsed { before: whole.end(), ..Parsed::default() };
                for mut document in documents {
                    document.shift(line);
                    parse_document(&name, &document, &mut parsed);
                }
                Arc::new(parsed)
            }
        };
        whole.add(&parsed);
        parts.insert(line, Part { text: text_of_part.into(), parsed });
    }
    InParts { parsed: whole, parts: Parts(parts) }
}

impl Parsed {
    fn add(&mut self, part: &Self) {
        self.documents.extend(part.documents.iter().cloned());
        self.broken.extend(part.broken.iter().cloned());
        self.faults.extend(part.faults.iter().cloned());
        self.closing.extend(part.closing.iter().cloned());
        self.nameless |= part.nameless;
        self.diagnostics.extend(part.diagnostics.iter().cloned());
    }
}

/// Cuts a text where documents begin; each part with the number of lines before it.
fn cut(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut begun, mut begun_line, mut at) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        let is_border =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_border && at > begun {
            parts.extend(text.get(begun..at).map(|part| (begun_line, part)));
            (begun, begun_line) = (at, number);
        }
        at += line.len();
    }
    parts.extend(text.get(begun..).map(|part| (begun_line, part)));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parsed: &Parsed) -> String {
        format!("{:#?}", Parsed { before: 0, ..parsed.clone() })
    }

    fn service(name: &str, port: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: no}]}\n";
        let texts = [
            String::new(),
            "---\n".to_owned(),
            service("a", "80"),
            format!("# only words\n---\n{}---\n---\n{}", service("a", "80"), service("b", "81")),
            format!("--- # first\n{}---\t\n{}...\n{}", service("a", "80"), service("b", "81"), "# end\n"),
            format!("{}---\r\n{}--- {{kind: Nothing}}\n", service("a", "80"), broken),
            format!("{}---\n{}", service("a", "80"), "a: |\n  text\n  --- no border\n ---x\n"),
            format!("{}---\nkind: [\n---\n{}", service("a", "80"), service("b", "81")),
            format!("%YAML 1.2\n---\n{}", service("a", "80")),
            format!("{}---\n{}---\n{}", service("a", "80"), service("a", "80"), service("c", "x")),
        ];
        for text in texts {
            assert_eq!(
                said(&parse_beside("f.yaml", &text, &Parts::default()).parsed),
                said(&parse_whole("f.yaml", &text)),
                "{text}"
            );
        }
    }

    #[test]
    fn only_what_differs_is_parsed_again_and_nothing_else_changes() {
        let text = |ports: [&str; 3]| {
            ["a", "b", "c"].iter().zip(ports).map(|(name, port)| service(name, port)).collect::<Vec<_>>().join("---\n")
        };
        let first = parse_beside("f.yaml", &text(["1", "2", "3"]), &Parts::default());
        for next in [
            text(["1", "9", "3"]),
            text(["1", "no", "3"]),
            text(["1", "2", "3"]),
            format!("# a line\n{}", text(["1", "2", "3"])),
            text(["1", "2", "3"]).replace("kind: Service\nmetadata: {name: b}", "kind: List\nitems: []"),
            service("a", "1"),
        ] {
            let second = parse_beside("f.yaml", &next, &first.parts).parsed;
            assert_eq!(said(&second), said(&parse_whole("f.yaml", &next)), "{next}");
        }
        let second = parse_beside("f.yaml", &text(["1", "9", "3"]), &first.parts).parsed;
        let is_shared: Vec<bool> = (first.parsed.documents.iter().zip(&second.documents))
            .map(|(one, other)| Arc::ptr_eq(&one.object, &other.object))
            .collect();
        assert_eq!(is_shared, [true, false, true]);
    }
}
