//! The repository's own rules and chores. Run with `cargo xtask`.

mod descriptors;
mod fields;
mod interop;
mod judge;
mod profile;
mod repository;
mod tidy;

use anyhow::bail;

const HELP: &str = "\
cargo xtask COMMAND
  tidy         check the repository's rules: layers, cycles, sizes, docs, names that do not belong here
  interop      run the mesh's acceptance with real peers, which it installs under target/
  profile      instructions of a request by function (needs valgrind and h2load; takes the options of the bench)
  descriptors  rebuild crates/proxy/descriptors.bin from the envoy-types crate
  fields       rebuild docs/envoy-fields.md from the decoders
  judge        rebuild docs/judge.md: how often the judge of releases is wrong (best with --release)";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("interop") => interop::run(),
        Some("profile") => profile::run(arguments.get(1..).unwrap_or_default()),
        Some("descriptors") => descriptors::run(),
        Some("fields") => fields::run(),
        Some("judge") => judge::run(),
        _ => bail!("{HELP}"),
    }
}
