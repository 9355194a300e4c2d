//! No cycles between the modules of a folder.
//!
//! An edge goes from a module to a sibling that it, or a module inside it, names: by `crate::a::b`, by `super::a`, in braces, or
//! through a name that their parent imports from the sibling. A parent and its children may name each other: together they are
//! one unit. Names that `*` imports are not followed.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{self, is_name, matching, split_list};
use super::source::SourceFile;

/// A path from the root of a crate.
type ModulePath = Vec<String>;

/// The siblings that each module of a folder uses.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Looks at every crate, and at xtask.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let parts: Vec<String> = file.path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let Some(source) = parts.iter().position(|part| part == "src").filter(|at| *at <= 2) else { continue };
        let (name, inside) = (parts[..source].join("/"), &parts[source + 1..]);
        let mut module: ModulePath = inside.iter().map(|part| part.trim_end_matches(".rs").to_owned()).collect();
        module.pop_if(|last| module_is_root(last, inside.len()));
        let text = code::without_tests(&code::without_literals(&file.text));
        crates.entry(name).or_default().modules.insert(module, text);
    }
    crates.iter().flat_map(|(name, found)| found.cycles().into_iter().map(move |c| format!("{name}: {c}"))).collect()
}

fn module_is_root(name: &str, depth: usize) -> bool {
    depth == 1 && ["lib", "main"].contains(&name)
}

/// The modules of a crate that have a file, with their code.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, String>,
}

impl Crate {
    /// One cycle of each folder that has any.
    fn cycles(&self) -> Vec<String> {
        let imports: BTreeMap<&ModulePath, BTreeMap<String, ModulePath>> =
            self.modules.iter().map(|(module, text)| (module, self.imports(module, text))).collect();
        let mut folders: BTreeMap<ModulePath, Edges> = BTreeMap::new();
        for (module, text) in &self.modules {
            for target in paths(module, text) {
                let Some((folder, from, to)) = self.edge(module, target, &imports) else { continue };
                folders.entry(folder).or_default().entry(from).or_default().insert(to);
            }
        }
        let show = |folder: &ModulePath, found: Vec<String>| {
            let place = if folder.is_empty() { String::new() } else { format!(" of {}", folder.join("::")) };
            format!("modules{place} form a cycle: {}", found.join(" > "))
        };
        folders.iter().filter_map(|(folder, edges)| cycle(edges).map(|found| show(folder, found))).collect()
    }

    /// The folder in which a reference from a module leads to a sibling, and the two siblings.
    fn edge(
        &self,
        module: &ModulePath,
        mut target: ModulePath,
        imports: &BTreeMap<&ModulePath, BTreeMap<String, ModulePath>>,
    ) -> Option<(ModulePath, String, String)> {
        // A name may be passed on from parent to parent, but not for ever.
        for _ in 0..8 {
            let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            let (from, to) = (module.get(common)?, target.get(common)?);
            let folder = module[..common].to_vec();
            if self.modules.contains_key(&target[..=common]) {
                return Some((folder, from.clone(), to.clone()));
            }
            let imported = imports.get(&folder)?.get(to)?;
            target = [imported.as_slice(), &target[common + 1..]].concat();
        }
        None
    }

    /// The names that a module imports, with where they come from.
    fn imports(&self, module: &ModulePath, text: &str) -> BTreeMap<String, ModulePath> {
        let mut found = BTreeMap::new();
        for (at, _) in text.match_indices("use ").filter(|(at, _)| is_word(text, *at)) {
            let statement = &text[at + 4..];
            let statement = &statement[..statement.find(';').unwrap_or(statement.len())];
            let mut trees = Vec::new();
            tree(statement, &[], &mut trees);
            for (name, path) in trees {
                let child = || {
                    path.first().is_some_and(|f| {
                        self.modules.contains_key(&[module.as_slice(), std::slice::from_ref(f)].concat())
                    })
                };
                let absolute = absolute(module, &path).or_else(|| child().then(|| [module.as_slice(), &path].concat()));
                found.extend(absolute.map(|absolute| (name, absolute)));
            }
        }
        found
    }
}

/// All paths in a module's code that begin with `crate`, `super` or `self`, from the root.
fn paths(module: &ModulePath, text: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start).filter(|(at, _)| is_word(text, *at)) {
            let mut trees = Vec::new();
            tree(&text[at..], &[], &mut trees);
            found.extend(trees.iter().filter_map(|(_, path)| absolute(module, path)));
        }
    }
    found
}

/// True where a path can begin: not inside a name, nor behind `::` or `$`.
fn is_word(text: &str, at: usize) -> bool {
    !text[..at].bytes().next_back().is_some_and(|b| is_name(b) || b == b'$' || b == b':')
}

/// The leaves of a tree as in `use`, each with the name by which it is known and its path.
fn tree(text: &str, before: &[String], found: &mut Vec<(String, ModulePath)>) {
    let text = text.trim_start();
    let end = text.bytes().position(|b| !is_name(b)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        if text.starts_with('{') {
            let list = &text[1..matching(text).max(2) - 1];
            split_list(list).into_iter().for_each(|part| tree(part, before, found));
        }
        return;
    }
    // `a::{self}` is `a`.
    let is_self = name == "self" && !before.is_empty();
    let path = if is_self { before.to_vec() } else { [before, &[name.to_owned()]].concat() };
    match rest.trim_start().strip_prefix("::") {
        Some(rest) => tree(rest, &path, found),
        None => {
            let alias = rest.trim_start().strip_prefix("as ").map(|alias| alias.trim().to_owned());
            let own = path.last().cloned().unwrap_or_default();
            found.push((alias.unwrap_or(own), path));
        }
    }
}

/// A path from the root; `None` when it does not begin with `crate`, `super` or `self`.
fn absolute(module: &ModulePath, path: &[String]) -> Option<ModulePath> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    while let Some((_, more)) = rest.split_first().filter(|(first, _)| *first == "super") {
        base.pop()?;
        rest = more;
    }
    base.extend(rest.iter().cloned());
    Some(base)
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
    for next in edges.get(module).into_iter().flatten() {
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

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| SourceFile { path: path.into(), text: (*text).to_owned() };
        check(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn a_cycle_is_found_through_children_and_lists() {
        let files = [
            ("crates/x/src/a.rs", "//! A.\nuse crate::b::B;\n"),
            ("crates/x/src/b.rs", "//! B.\nmod inner;\n"),
            ("crates/x/src/b/inner.rs", "//! B.\nuse crate::{c::C, d};\n"),
            ("crates/x/src/c.rs", "//! C.\nuse crate::a::A;\n"),
        ];
        assert_eq!(found(&files), ["crates/x: modules form a cycle: a > b > c > a"]);
        assert!(found(&files[..3]).is_empty());
    }

    #[test]
    fn a_cycle_of_siblings_is_found_through_super_and_braces() {
        let files = [
            ("crates/x/src/p.rs", "mod a;\nmod b;\nstruct P;\n"),
            ("crates/x/src/p/a.rs", "use super::{P, b::{self, B}};\n"),
            ("crates/x/src/p/b.rs", "use super::P;\nfn f() { let a = super::a::A; }\n"),
            ("crates/x/src/p/b/c.rs", "use super::super::P;\n"),
        ];
        assert_eq!(found(&files), ["crates/x: modules of p form a cycle: a > b > a"]);
        let parent_and_child = [
            ("crates/x/src/p.rs", "mod a;\nmod b;\nuse a::A;\nstruct P;\n"),
            ("crates/x/src/p/a.rs", "use super::b::B;\nuse super::P;\n"),
            ("crates/x/src/p/b.rs", "use super::P;\n#[cfg(test)]\nmod tests { use super::super::a::A; }\n"),
        ];
        assert!(found(&parent_and_child).is_empty());
    }

    #[test]
    fn a_cycle_is_found_through_what_the_parent_imports() {
        let files = [
            ("xtask/src/main.rs", "mod p;\npub use p::a::A as Other;\n"),
            ("xtask/src/p.rs", "mod a;\nmod b;\npub use b::B;\n"),
            ("xtask/src/p/a.rs", "use super::B;\n"),
            ("xtask/src/p/b.rs", "use crate::Other;\n"),
        ];
        assert_eq!(found(&files), ["xtask: modules of p form a cycle: a > b > a"]);
        assert!(found(&files[1..]).is_empty());
    }
}
