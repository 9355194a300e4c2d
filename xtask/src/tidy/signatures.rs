//! Signatures say what things are: no tuple patterns in parameters, no sentences as errors.

use super::code::{self, is_name, matching, split_list};
use super::source::SourceFile;

/// Looks at every file.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let code = code::without_literals(&file.text);
    let shown = file.path.display();
    let mut violations = Vec::new();
    for function in functions(&code) {
        let place = format!("{shown}:{}: fn {}", code::line(&code, function.at), function.name);
        if split_list(function.parameters).into_iter().any(is_tuple_pattern) {
            violations.push(format!("{place} takes a tuple apart: use a struct with named fields, or parameters"));
        }
        if function.is_public && !file.is_test() && has_string_error(function.signature) {
            violations.push(format!("{place} has a String as error: use the crate's error type"));
        }
    }
    violations
}

/// A function, or the declaration of one.
struct Function<'a> {
    at: usize,
    name: &'a str,
    /// Visible outside its module.
    is_public: bool,
    /// Between the parentheses.
    parameters: &'a str,
    /// From the parameters to the body.
    signature: &'a str,
}

/// All functions with a name.
fn functions(code: &str) -> Vec<Function<'_>> {
    let bytes = code.as_bytes();
    let is_word = |at: usize| at == 0 || !is_name(bytes[at - 1]);
    code.match_indices("fn ").filter(|(at, _)| is_word(*at)).filter_map(|(at, _)| function(code, at)).collect()
}

fn function(code: &str, at: usize) -> Option<Function<'_>> {
    let rest = code.get(at + 3..)?;
    let end = rest.bytes().position(|b| !is_name(b))?;
    let (name, mut rest) = rest.split_at(end);
    if name.is_empty() {
        return None;
    }
    if rest.starts_with('<') {
        rest = rest.get(generics(rest)..)?;
    }
    let open = rest.find('(')?;
    let rest = rest.get(open..)?;
    let length = matching(rest);
    let after = rest.get(length..)?;
    let signature = rest.get(..length + after.find(['{', ';']).unwrap_or(after.len()))?;
    let is_public = is_public(code.get(..at)?);
    Some(Function { at, name, is_public, parameters: rest.get(1..length - 1)?, signature })
}

/// The length of a list of generic parameters.
fn generics(code: &str) -> usize {
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in code.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
        before = c;
    }
    code.len()
}

/// True when what stands before `fn` makes it visible outside its module.
fn is_public(before: &str) -> bool {
    let item = before.rsplit([';', '{', '}', ']']).next().unwrap_or_default();
    item.trim_start().strip_prefix("pub").is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// True for a parameter such as `(a, b): (A, B)`.
fn is_tuple_pattern(parameter: &str) -> bool {
    let pattern = parameter.trim_start_matches(|c: char| c.is_whitespace() || c == '&');
    let pattern = pattern.strip_prefix("mut ").unwrap_or(pattern);
    pattern.trim_start().starts_with('(')
}

/// True when a signature has a `Result` with a `String` as error, wherever it is.
fn has_string_error(signature: &str) -> bool {
    signature.match_indices("Result<").any(|(at, found)| {
        let list = &signature[at + found.len() - 1..];
        let list = &list[1..generics(list).max(2) - 1];
        split_list(list).get(1).is_some_and(|error| error.trim() == "String")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        check_file(&SourceFile { path: "crates/x/src/a.rs".into(), text: text.to_owned() })
    }

    #[test]
    fn tuple_patterns_in_parameters_are_found() {
        let bad = "impl A {\n    pub async fn f<'a, F: Fn(u8) -> u8>(\n        &self,\n        (a, b): (&'a str, F),\n    ) {}\n}\n";
        assert_eq!(
            found(bad),
            ["crates/x/src/a.rs:2: fn f takes a tuple apart: use a struct with named fields, or parameters"]
        );
        assert_eq!(found("fn f(a: u8, &(b, c): &(u8, u8));").len(), 1);
        assert!(
            found("fn f(pair: (u8, u8), [a, b]: [u8; 2], Pair { c, d }: Pair, Query(e): Query<(u8, u8)>) {}")
                .is_empty()
        );
        assert!(found("fn f() { list.map(|(a, b)| a + b); } // fn g((a, b): (u8, u8))").is_empty());
        assert!(found("type F = fn((u8, u8)) -> u8;").is_empty());
    }

    #[test]
    fn strings_as_errors_are_found() {
        let bad = "pub(crate) fn f(\n    a: u8,\n) -> Result<BTreeMap<u8, u8>, String>\nwhere\n    A: B,\n{\n}\n";
        assert_eq!(found(bad), ["crates/x/src/a.rs:1: fn f has a String as error: use the crate's error type"]);
        assert_eq!(found("/// Docs.\n#[must_use]\npub const fn f(a: Result<f64, String>) {}").len(), 1);
        assert!(found("pub fn f() -> Result<String, Error> {}\nfn g() -> Result<(), String> {}").is_empty());
        assert!(found("pub fn f() -> Result<BTreeMap<String, String>, Error> {}").is_empty());
    }
}
