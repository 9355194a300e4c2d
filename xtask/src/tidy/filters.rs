//! HTTP filters have one registry: a filter is named on one line of it, and every file in the folder of filters is one.
//!
//! Code that must know all filters is expanded from the registry, so a file that no line names is not compiled, and a name that
//! stands in one of the modules that expand it, or a variant of their enum that is matched elsewhere, is a second list.

use std::collections::BTreeSet;
use std::path::Path;

use super::code::{self, is_name};
use super::source::SourceFile;

const REGISTRY: &str = "crates/resources/src/http_filter/registry.rs";

/// The folder of filters.
const FILTERS: &str = "crates/proxy/src/http/filters";

/// The trait that every filter implements.
const TRAIT: &str = "HttpFilter";

/// The modules that are expanded from the registry. That of `traffic` declares modules of decisions, which may have a filter's name.
const EXPANSIONS: [(&str, Names); 3] = [
    ("crates/resources/src/http_filter.rs", Names::FilesAndTypes),
    ("crates/traffic/src/filter.rs", Names::Types),
    ("crates/proxy/src/http/filters.rs", Names::FilesAndTypes),
];

/// The names that must not stand in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    FilesAndTypes,
    Types,
}

/// One line of the registry.
struct Line<'a> {
    number: usize,
    file: &'a str,
    name: &'a str,
}

/// Looks at the registry and at all that could be another one.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let Some(registry) = files.iter().find(|file| file.path == Path::new(REGISTRY)) else { return Vec::new() };
    let text = code::without_literals(&registry.text);
    let lines = lines(&text);
    let mut violations = registered_twice(&lines);
    for file in files.iter().filter(|file| !file.is_test()) {
        let text = code::without_tests(&code::without_literals(&file.text));
        if file.path.parent() == Some(Path::new(FILTERS)) {
            violations.extend(check_filter(file, &text, &lines));
        }
        violations.extend(named_again(file, &text, &lines));
    }
    violations
}

/// The lines such as `file: Type,` and `file: Type => State,`.
fn lines(text: &str) -> Vec<Line<'_>> {
    text.lines().enumerate().filter_map(|(at, text)| line(at + 1, text)).collect()
}

fn line(number: usize, text: &str) -> Option<Line<'_>> {
    let (file, rest) = text.trim().strip_suffix(',')?.split_once(": ")?;
    let name = rest.split(" => ").next()?;
    let are_names = [file, name].iter().all(|part| !part.is_empty() && part.bytes().all(is_name));
    are_names.then_some(Line { number, file, name })
}

fn registered_twice(lines: &[Line<'_>]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut violations = Vec::new();
    for line in lines {
        for name in [line.file, line.name].into_iter().filter(|name| !seen.insert(*name)) {
            violations.push(format!("{REGISTRY}:{}: names the filter '{name}' on a second line", line.number));
        }
    }
    violations
}

/// A file in the folder of filters implements the trait and has its line.
fn check_filter(file: &SourceFile, text: &str, lines: &[Line<'_>]) -> Vec<String> {
    let shown = file.path.display();
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let mut violations = Vec::new();
    let mut headers = text.split("impl").skip(1).filter_map(|rest| rest.split_once('{')).map(|(header, _)| header);
    if !headers.any(|header| header.contains(TRAIT) && header.contains(" for ")) {
        violations.push(format!("{shown}: does not implement {TRAIT}, as every file in this folder"));
    }
    if !lines.iter().any(|line| line.file == stem) {
        violations.push(format!("{shown}: is not in the registry, {REGISTRY}"));
    }
    violations
}

/// Finds names of filters where another list of them would be.
fn named_again(file: &SourceFile, text: &str, lines: &[Line<'_>]) -> Vec<String> {
    let expansion = EXPANSIONS.iter().find(|(path, _)| file.path == Path::new(path)).map(|(_, names)| *names);
    let may_match = ["crates/proxy/src", "crates/traffic/src"].iter().any(|folder| file.path.starts_with(folder));
    let mut violations = Vec::new();
    for Line { file: module, name, .. } in lines {
        let variant = format!("Filter::{name}");
        let forbidden: &[&str] = match expansion {
            Some(Names::FilesAndTypes) => &[module, name],
            Some(Names::Types) => &[name],
            None if may_match => &[&variant],
            None => &[],
        };
        for (at, found) in forbidden.iter().flat_map(|text_of| text.match_indices(text_of)) {
            let bytes = text.as_bytes();
            let is_part = at > 0 && is_name(bytes[at - 1]) || bytes.get(at + found.len()).is_some_and(|b| is_name(*b));
            if !is_part {
                let line = code::line(text, at);
                violations.push(format!(
                    "{}:{line}: names the filter '{name}' beside its line in the registry, {REGISTRY}",
                    file.path.display()
                ));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "//! The list.\nmacro_rules! http_filters {\n    ($then:ident) => {\n        $then! {\n            \
        cors: Cors,\n            rbac: Rbac => RbacGate,\n        }\n    };\n}\n";

    fn found(path: &str, text: &str) -> Vec<String> {
        found_with(LIST, path, text)
    }

    fn found_with(list: &str, path: &str, text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.to_owned() };
        check(&[file(REGISTRY, list), file(path, text)])
    }

    #[test]
    fn a_file_that_is_no_filter_is_found() {
        let good = "//! Cors.\nimpl<'a> HttpFilter<'a> for Cors<'a> {\n}\n";
        assert!(found("crates/proxy/src/http/filters/cors.rs", good).is_empty());
        assert!(found("crates/proxy/src/http/filters/tests.rs", "//! Tests.").is_empty());
        assert_eq!(
            found(
                "crates/proxy/src/http/filters/rbac.rs",
                "//! impl HttpFilter for it.\nimpl Rbac {}\nuse super::HttpFilter;"
            ),
            ["crates/proxy/src/http/filters/rbac.rs: does not implement HttpFilter, as every file in this folder"]
        );
        assert_eq!(
            found("crates/proxy/src/http/filters/lua.rs", good),
            ["crates/proxy/src/http/filters/lua.rs: is not in the registry, \
              crates/resources/src/http_filter/registry.rs"]
        );
    }

    #[test]
    fn a_filter_on_a_second_line_of_the_registry_is_found() {
        let twice = LIST.replace("rbac: Rbac => RbacGate", "rbac: Rbac => RbacGate,\n            cross: Cors");
        assert_eq!(
            found_with(&twice, "crates/a/src/a.rs", ""),
            ["crates/resources/src/http_filter/registry.rs:7: names the filter 'Cors' on a second line"]
        );
    }

    #[test]
    fn a_filter_in_another_list_is_found() {
        assert_eq!(
            found("crates/proxy/src/http/filters.rs", "//! cors\nmod tests;\nmod cors;\n"),
            ["crates/proxy/src/http/filters.rs:3: names the filter 'Cors' beside its line in the registry, \
              crates/resources/src/http_filter/registry.rs"]
        );
        assert_eq!(
            found("crates/traffic/src/filter.rs", "mod cors;\nuse serin_resources::http_filter::Cors;").len(),
            1
        );
        assert_eq!(found("crates/proxy/src/http/serve.rs", "match filter { Filter::Rbac(gate) => {} }").len(), 1);
    }

    #[test]
    fn other_names_and_other_places_are_in_order() {
        assert!(found("crates/traffic/src/filter.rs", "mod cors;\npub use access::RbacGate;").is_empty());
        assert!(found("crates/proxy/src/http/serve.rs", "match filter { Filter::Http(http) => {} }").is_empty());
        assert!(found("crates/translator/src/route.rs", "FilterConfig::Cors(cors)").is_empty());
        assert!(found("crates/proxy/src/snapshot.rs", "use serin_resources::http_filter::Rbac;").is_empty());
    }
}
