//! Sizes, docs and names in source files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::repository;

/// A source file with its text.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl SourceFile {
    /// True for files that only tests use: below a folder `tests`, or named `tests.rs` or `…_tests.rs`.
    pub(super) fn is_test(&self) -> bool {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        self.path.iter().any(|part| part == "tests") || name == "tests" || name.ends_with("_tests")
    }
}

/// Most lines of a file.
const FILE_LINES: usize = 500;

/// Most lines of a file of tests.
const TEST_FILE_LINES: usize = 600;

/// Every Rust file of ours.
pub(super) fn rust_files(root: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        for path in repository::rust_files(&root.join(folder))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
            files.push(SourceFile { path, text });
        }
    }
    Ok(files)
}

/// Looks at every file by itself.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let shown = file.path.display();
    let mut violations = Vec::new();
    if !file.text.starts_with("//!") {
        violations.push(format!("{shown}: has no //! that says what it is for"));
    }
    if file.path.ends_with("mod.rs") {
        violations.push(format!("{shown}: modules are foo.rs beside foo/, not mod.rs"));
    }
    let lines = file.text.lines().count();
    let most = if file.is_test() { TEST_FILE_LINES } else { FILE_LINES };
    if lines > most {
        violations.push(format!("{shown}: {lines} lines, more than {most}"));
    }
    for (number, line) in file.text.lines().enumerate() {
        let forbidden = [concat!("#[", "allow("), concat!("#![", "allow("), concat!("TO", "DO"), concat!("FIX", "ME")];
        for text in forbidden.iter().filter(|text| line.contains(**text)) {
            violations.push(format!("{shown}:{}: '{text}' does not belong in this project", number + 1));
        }
    }
    violations
}

/// Registries' hosts and private paths do not belong in what is published.
pub(super) fn check_names(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut violations = Vec::new();
    let output = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in names.split('\0').filter(|n| !n.is_empty() && *n != "Cargo.lock" && *n != "LICENSE") {
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let hosts = ["pypi.", "npmjs.", "crates.io", "static.rust-lang", "proxy.golang", "deb.debian"];
            for host in hosts.iter().filter(|h| line.contains(&format!("//{h}")) || line.contains(&format!(".{h}org")))
            {
                violations.push(format!("{name}:{}: names the registry host '{host}'", number + 1));
            }
        }
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        check_file(&SourceFile { path: "crates/x/src/a.rs".into(), text: text.to_owned() })
    }

    #[test]
    fn files_say_what_they_are_for_and_stay_short() {
        assert!(found("//! Fine.\nfn a() {}\n").is_empty());
        assert_eq!(found("fn a() {}\n").len(), 1);
        let long = format!("//! Long.\n{}", "// line\n".repeat(FILE_LINES));
        assert_eq!(found(&long), ["crates/x/src/a.rs: 501 lines, more than 500"]);
        for path in ["crates/x/src/a/tests.rs", "crates/x/tests/a.rs", "crates/x/src/a_tests.rs"] {
            assert!(check_file(&SourceFile { path: path.into(), text: long.clone() }).is_empty(), "{path}");
        }
        assert_eq!(found(concat!("//! Silenced.\n#[", "allow(dead_code)]\n")).len(), 1);
    }
}
