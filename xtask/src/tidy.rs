//! The rules of the house, checked.
//!
//! Run by hand and in CI as `cargo xtask tidy`, and by the tests of this crate, so that `cargo test` fails too.

mod code;
mod filters;
mod layers;
mod modules;
mod purity;
mod signatures;
mod sockets;
mod source;

use anyhow::bail;

use crate::repository;

/// Checks everything and lists every violation.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = repository::root()?;
    let mut violations = layers::check(&root)?;
    let files = source::rust_files(&root)?;
    violations.extend(source::check(&files));
    violations.extend(signatures::check(&files));
    violations.extend(purity::check(&files));
    violations.extend(sockets::check(&files));
    violations.extend(filters::check(&files));
    violations.extend(modules::check(&files));
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        super::run().unwrap();
    }
}
