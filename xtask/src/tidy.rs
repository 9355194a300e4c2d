//! The rules of the house, checked.
//!
//! Run by hand and in CI as `cargo xtask tidy`, and by the tests of this crate, so that `cargo test` fails too.

mod layers;
mod modules;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Checks everything and lists every violation.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root()?;
    let mut violations = layers::check(&root)?;
    let files = source::rust_files(&root)?;
    violations.extend(source::check(&files));
    violations.extend(modules::check(&root, &files));
    violations.extend(source::check_names(&root)?);
    violations.extend(crate::fields::check(&root)?);
    if violations.is_empty() {
        eprintln!("tidy: {} files in order", files.len());
        return Ok(());
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    bail!("{} violations", violations.len());
}

/// Every Rust file below a folder.
pub(crate) fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).context("xtask has no parent folder")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        super::run().unwrap();
    }
}
