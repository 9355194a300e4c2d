//! docs/envoy-fields.md: what becomes of every field of every message that the decoders look through, read from the decoders.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

const FILE: &str = "docs/envoy-fields.md";

/// Supported, ignored and refused fields of a message.
type Fields = [Vec<String>; 3];

/// Writes the page anew.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = std::env::current_dir()?;
    let page = page(&root)?;
    std::fs::write(root.join(FILE), page).with_context(|| format!("cannot write {FILE}"))?;
    eprintln!("{FILE} is up to date");
    Ok(())
}

/// Says whether the page is what the decoders say.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let written = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    let stale = written != page(root)?;
    Ok(stale.then(|| format!("{FILE}: is not what the decoders say; run 'cargo xtask fields'")).into_iter().collect())
}

fn page(root: &Path) -> anyhow::Result<String> {
    let mut messages: BTreeMap<String, Fields> = BTreeMap::new();
    for file in crate::repository::rust_files(&root.join("crates/resources/src"))? {
        let text = std::fs::read_to_string(&file)?;
        collect(&text, &mut messages).with_context(|| file.display().to_string())?;
    }
    ensure!(!messages.is_empty(), "no decoder looks through any message");
    let mut page = String::from(
        "# What becomes of Envoy's fields\n\n\
         Made from the decoders by `cargo xtask fields`; a test keeps it so. A field that is not in its message's list does not\n\
         exist there. *Ignored* fields that are set are listed in `ignored_fields` of `/config_dump` and, of a bootstrap, as\n\
         warnings at the start. *Refused* ones are an error that names their path: a NACK, or the end of the program.\n\
         Fields with a value that is not supported are refused in the same way.\n",
    );
    for (message, [supported, ignored, refused]) in &messages {
        let _ = write!(page, "\n## {message}\n\n");
        for (what, fields) in [("supported", supported), ("ignored", ignored), ("refused", refused)] {
            if !fields.is_empty() {
                let list: Vec<String> = fields.iter().map(|f| format!("`{f}`")).collect();
                let _ = writeln!(page, "- {what}: {}", list.join(", "));
            }
        }
    }
    Ok(page)
}

/// Every `audit!` of a file.
fn collect(text: &str, messages: &mut BTreeMap<String, Fields>) -> anyhow::Result<()> {
    let aliases = aliases(text);
    for block in text.split("audit!(").skip(1) {
        let Some((head, rest)) = block.split_once(';') else { continue };
        let mut parts = head.split(',').map(str::trim);
        let Some(ty) = parts.nth(1).and_then(|t| t.split(" as ").next()) else { continue };
        // The macro itself and its documentation name no type.
        if ty.starts_with('$') || ty.is_empty() {
            continue;
        }
        let list = |name: &str| -> anyhow::Result<Vec<String>> {
            let (_, after) = rest.split_once(&format!("{name}:")).with_context(|| format!("{ty} has no '{name}:'"))?;
            let end = after.find([';', ')']).unwrap_or(after.len());
            let fields = after.get(..end).unwrap_or_default().split(',').map(str::trim);
            Ok(fields.filter(|f| !f.is_empty()).map(|f| f.trim_start_matches("r#").to_owned()).collect())
        };
        let fields = [list("supported")?, list("ignored")?, list("refused")?];
        messages.entry(full_name(ty, &aliases)).or_insert(fields);
    }
    Ok(())
}

/// The paths that short names stand for in a file.
fn aliases(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let Some(path) = line.strip_prefix("use ").and_then(|l| l.strip_suffix(';')) else { continue };
        for (path, alias) in imports(path) {
            let path = path.strip_prefix("envoy_types::pb::").map_or(path.clone(), str::to_owned);
            found.insert(alias, path);
        }
    }
    found
}

/// `a::b as c` and `a::{b, c as d, self}`, each with the name it gets.
fn imports(path: &str) -> Vec<(String, String)> {
    let (base, names) = match path.split_once("::{") {
        Some((base, names)) => (base, names.trim_end_matches('}').split(',').map(str::trim).collect()),
        None => path.rsplit_once("::").map_or((path, Vec::new()), |(base, last)| (base, vec![last])),
    };
    let last = |path: &str| path.rsplit("::").next().unwrap_or(path).to_owned();
    let one = |name: &str| match name.split_once(" as ") {
        Some((name, alias)) => (format!("{base}::{name}"), alias.to_owned()),
        None => (format!("{base}::{name}"), last(name)),
    };
    names.into_iter().map(one).collect()
}

/// The message's name as protobuf has it.
fn full_name(ty: &str, aliases: &BTreeMap<String, String>) -> String {
    let mut path = ty.to_owned();
    for _ in 0..3 {
        let first = path.split("::").next().unwrap_or_default().to_owned();
        let Some(full) = aliases.get(&first) else { break };
        path = format!("{full}{}", path.get(first.len()..).unwrap_or_default());
    }
    let mut versioned = false;
    let parts = path.split("::").map(|part| {
        let part = part.trim_start_matches("r#");
        let name = if versioned { pascal(part) } else { part.to_owned() };
        versioned |= part.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
        name
    });
    parts.collect::<Vec<_>>().join(".")
}

/// A module that stands for a message, in the spelling of messages.
fn pascal(part: &str) -> String {
    let words = part.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_decoders_say() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(std::path::Path::to_path_buf);
        let stale = root.map(|root| super::check(&root));
        assert!(matches!(stale, Some(Ok(ref list)) if list.is_empty()), "{stale:?}");
    }
}
