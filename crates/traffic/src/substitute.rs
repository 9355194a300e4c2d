//! Substitution by pattern, in the notation of Envoy's `RegexMatchAndSubstitute`.

use std::borrow::Cow;

use regex::bytes::Regex;

/// The text with every match of the pattern replaced; the substitution is RE2's.
#[must_use]
pub fn all<'a>(pattern: Option<&Regex>, substitution: &str, text: &'a [u8]) -> Cow<'a, [u8]> {
    match pattern {
        Some(pattern) => pattern.replace_all(text, dollar(substitution).as_bytes()),
        None => Cow::Borrowed(text),
    }
}

/// RE2's `\1` as the regex crate's `${1}`.
fn dollar(substitution: &str) -> String {
    let mut out = String::with_capacity(substitution.len() + 4);
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            ('$', _) => out.push_str("$$"),
            (other, _) => out.push(other),
        }
    }
    out
}
