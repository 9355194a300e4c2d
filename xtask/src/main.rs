//! The repository's own rules and chores. Run with `cargo xtask`.

mod descriptors;

use anyhow::bail;

const HELP: &str = "\
cargo xtask COMMAND
  descriptors  rebuild crates/proxy/descriptors.bin from the envoy-types crate";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("descriptors") => descriptors::run(),
        _ => bail!("{HELP}"),
    }
}
