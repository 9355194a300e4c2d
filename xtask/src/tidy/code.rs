//! The code of a Rust file without comments, literals and tests, so that rules can search it as text.
//!
//! Not a parser: it knows just enough of the lexical rules to tell code from what only looks like code. Lines keep their
//! numbers, because what is left out becomes spaces.

/// Replaces comments, strings and character literals by spaces.
pub(super) fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let rest = &bytes[at..];
        let after_name = out.last().is_some_and(|b: &u8| is_name(*b));
        let end = match byte {
            b'/' if rest.starts_with(b"//") => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            b'"' => string(rest),
            b'r' | b'b' | b'c' if !after_name => prefixed_string(rest),
            b'\'' => character(rest),
            _ => 0,
        };
        if end == 0 {
            out.push(byte);
            at += 1;
        } else {
            out.extend(rest[..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at += end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// True for a byte of an identifier; bytes of other scripts count as such.
pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The length of a block comment, which may contain others.
fn block_comment(text: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a string literal that begins here.
fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a literal such as `r"…"`, `br#"…"#`, `b"…"` or `b'…'`; 0 for anything else.
fn prefixed_string(text: &[u8]) -> usize {
    let letters = text.iter().take_while(|b| b"rbc".contains(b)).count().min(2);
    let raw = text[..letters].contains(&b'r');
    let hashes = if raw { text[letters..].iter().take_while(|b| **b == b'#').count() } else { 0 };
    let quote = letters + hashes;
    match text.get(quote) {
        Some(b'"') if raw => {
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = &text[quote + 1..];
            let found = body.windows(close.len()).position(|w| w == close).unwrap_or(body.len());
            (quote + 1 + found + close.len()).min(text.len())
        }
        Some(b'"') => quote + string(&text[quote..]),
        Some(b'\'') if text.starts_with(b"b'") => quote + character(&text[quote..]),
        _ => 0,
    }
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &[u8]) -> usize {
    if text.get(1) == Some(&b'\\') {
        return text.iter().skip(3).position(|b| *b == b'\'').map_or(text.len(), |end| end + 4);
    }
    let width = match text.get(1) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    if text.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// Replaces items under `#[cfg(test)]` by spaces. Takes code without literals.
pub(super) fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(TEST) {
        let item = &out[start + TEST.len()..];
        let open = item.find(['{', ';']);
        let end = match open {
            Some(open) if item[open..].starts_with('{') => open + matching(&item[open..]),
            Some(semicolon) => semicolon + 1,
            None => item.len(),
        };
        let range = start..start + TEST.len() + end;
        let blank: String = out[range.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(range, &blank);
    }
    out
}

/// The length of what the bracket at the beginning encloses, with both brackets. Takes code without literals.
pub(super) fn matching(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    code.len()
}

/// The parts between commas that no bracket encloses; angle brackets count, arrows do not.
pub(super) fn split_list(code: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut before) = (0, 0, ' ');
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if before == '-' || before == '=' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&code[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    parts.push(&code[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// The number of the line of a place in a text, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        without_tests(&without_literals(text)).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        assert_eq!(squeezed("a(\"x // y\"); // b\nc"), "a( ); c");
        assert_eq!(squeezed("/* a /* b */ c */ d"), "d");
        assert_eq!(squeezed(r##"r#"a"b"# + br"c" + b'\'' + 'x' + '\u{1}' + "\"""##), "+ + + + +");
        assert_eq!(squeezed("fn f<'a>(x: &'a str) -> char { 'é' }"), "fn f<'a>(x: &'a str) -> char { }");
    }

    #[test]
    fn tests_are_left_out() {
        assert_eq!(squeezed("a;\n#[cfg(test)]\nmod tests { fn b() { c(); } }\nd;"), "a; d;");
        assert_eq!(squeezed("#[cfg(test)]\nmod tests;\nd;"), "d;");
        assert_eq!(without_tests("#[cfg(test)]\nuse a;\nb").lines().count(), 3);
    }

    #[test]
    fn lists_are_split_outside_brackets() {
        assert_eq!(
            split_list("a: (b, c), d: E<F, G>, h: fn(i) -> J, "),
            ["a: (b, c)", " d: E<F, G>", " h: fn(i) -> J"]
        );
    }
}
