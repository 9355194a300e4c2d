//! Who did what, when and why, in a file that is only ever added to; every line has the hash of the one before in its own.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};
use serin_model::ObjectName;
use sha2::{Digest as _, Sha256};

/// The log; without a file it is kept in memory.
pub(super) struct Audit {
    path: Option<PathBuf>,
    file: Option<File>,
    lines: Vec<String>,
    last: String,
    count: u64,
}

/// What the first line points to.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Audit {
    pub(super) fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut audit =
            Self { path: path.clone(), file: None, lines: Vec::new(), last: BEGINNING.to_owned(), count: 0 };
        let Some(path) = path else { return Ok(audit) };
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that the end of a process cut off is cut off here too.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if let Some(line) = text.get(..whole).and_then(|t| t.lines().last()) {
            let value: Value = serde_json::from_str(line).with_context(|| format!("{} is damaged", path.display()))?;
            audit.last = value["hash"].as_str().unwrap_or_default().to_owned();
            audit.count = value["number"].as_u64().unwrap_or_default();
        }
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        file.set_len(whole as u64)?;
        audit.file = Some(file);
        Ok(audit)
    }

    /// Adds a line.
    pub(super) fn write(&mut self, (at, who): (u64, &str), release: &ObjectName, what: &str, value: &Value) {
        self.count += 1;
        let mut line = json!({
            "number": self.count,
            "at": at,
            "who": who,
            "release": release.to_string(),
            "what": what,
            "details": value,
            "before": self.last,
        });
        let hash = hash(&line);
        line["hash"] = json!(hash);
        self.last = hash;
        let mut text = line.to_string();
        text.push('\n');
        match &mut self.file {
            Some(file) => {
                if let Err(error) = file.write_all(text.as_bytes()) {
                    tracing::error!("cannot write the audit log: {error}");
                }
            }
            None => self.lines.push(text),
        }
    }

    /// Follows the chain from its beginning: how many lines there are and the last hash, or where it breaks.
    pub(super) fn verify(&self) -> Result<(u64, String), String> {
        let text = match &self.path {
            Some(path) => std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?,
            None => self.lines.concat(),
        };
        verify(&text)
    }
}

/// Follows a chain from its beginning.
fn verify(text: &str) -> Result<(u64, String), String> {
    let mut last = BEGINNING.to_owned();
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        let mut value: Value = serde_json::from_str(line).map_err(|e| format!("line {count} cannot be read: {e}"))?;
        let own = value.as_object_mut().and_then(|o| o.remove("hash"));
        let own = own.and_then(|h| h.as_str().map(str::to_owned)).unwrap_or_default();
        if value["before"] != json!(last) || value["number"] != json!(count) {
            return Err(format!("line {count} does not follow the one before: something was taken out or put in"));
        }
        if hash(&value) != own {
            return Err(format!("line {count} was changed"));
        }
        last = own;
    }
    Ok((count, last))
}

fn hash(line: &Value) -> String {
    let digest = Sha256::digest(line.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_anywhere_is_found() {
        let mut audit = Audit::open(None).unwrap();
        let name = ObjectName { namespace: "default".to_owned(), name: "r".to_owned() };
        for n in 0..5 {
            audit.write((n, "ann"), &name, "pause", &json!({"n": n}));
        }
        assert_eq!(audit.verify().unwrap().0, 5);
        let whole = audit.lines.concat();
        assert!(verify(&whole.replace("\"n\":3", "\"n\":4")).unwrap_err().contains("line 4 was changed"));
        let without: String = audit.lines.iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, l)| l.clone()).collect();
        assert!(verify(&without).unwrap_err().contains("line 3"));
    }
}
