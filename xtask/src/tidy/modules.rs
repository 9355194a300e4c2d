//! No cycles between the modules of a crate.
//!
//! An edge goes from a top-level module to another one that it names with `crate::`. What a module's own children use
//! counts as its own. The crate's root may name everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::SourceFile;

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Looks at every crate.
pub(super) fn check(_root: &Path, files: &[SourceFile]) -> Vec<String> {
    let mut crates: BTreeMap<String, Edges> = BTreeMap::new();
    for file in files {
        let parts: Vec<String> = file.path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let [_, name, source, module, ..] = parts.as_slice() else { continue };
        if source != "src" {
            continue;
        }
        let module = module.trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let edges = crates.entry(name.clone()).or_default().entry(module.clone()).or_default();
        edges.extend(named(&file.text).filter(|m| *m != module));
    }
    crates
        .iter()
        .filter_map(|(name, edges)| {
            cycle(edges).map(|c| format!("crates/{name}: modules form a cycle: {}", c.join(" > ")))
        })
        .collect()
}

/// Top-level modules that a text names.
fn named(text: &str) -> impl Iterator<Item = String> + '_ {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    code.match_indices("crate::")
        .filter(|(at, _)| !code.get(..*at).is_some_and(|before| before.ends_with('$')))
        .flat_map(|(at, found)| {
            let rest = code.get(at + found.len()..).unwrap_or_default();
            let list = rest.strip_prefix('{').and_then(|r| r.split('}').next());
            match list {
                Some(list) => list.split(',').map(first_word).collect::<Vec<_>>(),
                None => vec![first_word(rest)],
            }
        })
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A cycle among modules, if there is one.
fn cycle(edges: &Edges) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    edges.keys().find_map(|start| visit(start, edges, &mut Vec::new(), &mut done))
}

fn visit(module: &str, edges: &Edges, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|m| m == module) {
        let mut found = path.split_off(at);
        found.push(module.to_owned());
        return Some(found);
    }
    if done.contains(module) {
        return None;
    }
    path.push(module.to_owned());
    for next in edges.get(module).into_iter().flatten().filter(|m| edges.contains_key(*m)) {
        if let Some(found) = visit(next, edges, path, done) {
            return Some(found);
        }
    }
    path.pop();
    done.insert(module.to_owned());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn a_cycle_is_found_through_children_and_lists() {
        let files = [
            file("crates/x/src/a.rs", "//! A.\nuse crate::b::B;\n"),
            file("crates/x/src/b/inner.rs", "//! B.\nuse crate::{c::C, d};\n"),
            file("crates/x/src/c.rs", "//! C.\nuse crate::a::A;\n"),
        ];
        assert_eq!(check(Path::new("."), &files), ["crates/x: modules form a cycle: a > b > c > a"]);
        assert!(check(Path::new("."), &files[..2]).is_empty());
    }
}
