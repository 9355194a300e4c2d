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
    /// Bytes of the file that are whole lines.
    length: u64,
    /// Entries that could not be written, and why the first could not.
    missing: Option<(u64, String)>,
}

/// Where a line's hash stands, at its end: it is that of the line without it.
const HASH: &str = ",\"hash\":\"";

/// Characters of what is said in one entry at most.
const WORDS: usize = 1000;

/// What the first line points to.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Audit {
    pub(super) fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut audit = Self {
            path: path.clone(),
            file: None,
            lines: Vec::new(),
            last: BEGINNING.to_owned(),
            count: 0,
            length: 0,
            missing: None,
        };
        let Some(path) = path else { return Ok(audit) };
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // A line that the end of a process cut off is cut off here too; where only its end of line is missing, nothing is.
        let mut bytes = bytes;
        let last = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if bytes.get(last..).is_some_and(|line| !line.is_empty() && serde_json::from_slice::<Value>(line).is_ok()) {
            bytes.push(b'\n');
            std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if let Some(line) = bytes.get(..whole).and_then(|t| t.trim_ascii_end().rsplit(|b| *b == b'\n').next())
            && whole > 0
        {
            let value: Value =
                serde_json::from_slice(line).with_context(|| format!("{} is damaged", path.display()))?;
            audit.last = value["hash"].as_str().unwrap_or_default().to_owned();
            audit.count = value["number"].as_u64().unwrap_or_default();
        }
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        file.set_len(whole as u64)?;
        audit.length = whole as u64;
        audit.file = Some(file);
        audit.missing = audit.compare();
        if let Err(why) = audit.log().verify(0) {
            tracing::error!("the audit log {} is not whole: {why}", path.display());
        }
        Ok(audit)
    }

    /// How many lines it has.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Where it stands that the log has so many lines, and the hash of the last: a chain alone does not show that its end is gone.
    fn head(&self) -> Option<PathBuf> {
        self.path.as_ref().map(|path| path.with_extension("head"))
    }

    /// What the log lacks of what an earlier pilot wrote.
    fn compare(&self) -> Option<(u64, String)> {
        let text = std::fs::read_to_string(self.head()?).ok()?;
        let (count, hash) = text.trim().split_once(' ')?;
        let count: u64 = count.parse().ok()?;
        let lost = match count.checked_sub(self.count)? {
            0 if hash == self.last => return None,
            lost => lost.max(1),
        };
        let why = "the end of the log was taken away or changed while no pilot ran".to_owned();
        tracing::error!("the audit log is not whole: {lost} entries are missing: {why}");
        Some((lost, why))
    }

    /// Adds a line. One that cannot be written leaves a gap, which the next that can marks.
    pub(super) fn write(&mut self, stamp: Stamp<'_>, release: &ObjectName, what: &str, value: &Value) {
        let Stamp { at, who } = stamp;
        if let Some((lost, why)) = self.missing.clone() {
            let text = format!("{lost} entries are missing here: {why}");
            if self.add(Stamp { at, who: "serin" }, "-", &text, &json!({"missing": lost})).is_ok() {
                self.missing = None;
            }
        }
        let what: String = what.chars().take(WORDS).collect();
        let added = match &self.missing {
            Some((_, why)) => Err(why.clone()),
            None => self.add(stamp, &release.to_string(), &what, value),
        };
        if let Err(why) = added {
            let (lost, first) = self.missing.take().unwrap_or((0, why));
            if lost == 0 {
                tracing::error!("cannot write the audit log: {first}; it lacks: {release} {who}: {what}");
            }
            self.missing = Some((lost + 1, first));
        }
    }

    /// Whether all entries are in the log; the error says how many are not, and why.
    pub(super) fn is_kept(&self) -> Result<(), Error> {
        match &self.missing {
            None => Ok(()),
            Some((lost, why)) => Err(Error::NotWritten { lost: *lost, why: why.clone() }),
        }
    }

    fn add(&mut self, stamp: Stamp<'_>, release: &str, what: &str, value: &Value) -> Result<(), String> {
        let Stamp { at, who } = stamp;
        let line = json!({
            "number": self.count + 1,
            "at": at,
            "who": who,
            "release": release,
            "what": what,
            "details": value,
            "before": self.last,
        });
        let text = line.to_string();
        let hash = hash(&text);
        let text = format!("{}{HASH}{hash}\"}}\n", text.strip_suffix('}').unwrap_or(&text));
        match &mut self.file {
            Some(file) => {
                if let Err(error) = file.write_all(text.as_bytes()) {
                    // What follows must not stand behind half a line.
                    let cut = file.set_len(self.length);
                    return Err(cut.err().map_or_else(|| error.to_string(), |cut| format!("{error}; {cut}")));
                }
                self.length += text.len() as u64;
            }
            None => self.lines.push(text),
        }
        self.last = hash;
        self.count += 1;
        if let Some(head) = self.head() {
            let beside = head.with_extension("newhead");
            let written = std::fs::write(&beside, format!("{} {}\n", self.count, self.last))
                .and_then(|()| std::fs::rename(&beside, &head));
            if let Err(error) = written {
                tracing::warn!("{}: {error}", head.display());
            }
        }
        Ok(())
    }

    /// Entries that are missing and not marked yet.
    pub(super) fn lost(&self) -> u64 {
        self.missing.as_ref().map_or(0, |(lost, _)| *lost)
    }

    /// The log as it is now, to be read without holding anybody up.
    pub(super) fn log(&self) -> Log {
        match &self.path {
            Some(path) => Log::File(path.clone(), self.length),
            None => Log::Text(self.lines.concat()),
        }
    }
}

/// When something was done, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp<'a> {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    pub(super) who: &'a str,
}

/// An audit log that is not whole, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Entries that could not be written.
    #[error("{lost} entries of the audit log cannot be written: {why}")]
    NotWritten {
        /// Their number.
        lost: u64,
        /// The first reason.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// The file lacks what was written.
    #[error("the file is shorter than what was written")]
    Short,
    /// The file is no text.
    #[error("it is no text: {0}")]
    NotText(#[from] std::str::Utf8Error),
    /// A line that is no entry.
    #[error("line {line} cannot be read: {error}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The reason.
        error: serde_json::Error,
    },
    /// A line that does not continue the chain.
    #[error("line {0} does not follow the one before: something was taken out or put in")]
    Broken(u64),
    /// A line whose hash is another.
    #[error("line {0} was changed")]
    Changed(u64),
}

/// An audit log as it was at one moment.
pub(super) enum Log {
    /// So many bytes of a file.
    File(PathBuf, u64),
    /// All of it.
    Text(String),
}

/// A log whose chain is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// How many lines it has.
    pub(crate) entries: u64,
    /// The hash of the last.
    pub(crate) hash: String,
    /// The last ones.
    pub(crate) last: Vec<Value>,
    /// Entries that are missing in it, because they could not be written.
    pub(crate) missing: u64,
}

impl Log {
    /// Follows the chain from its beginning, and yields so many lines of its end; the error says where it breaks.
    pub(super) fn verify(&self, last: usize) -> Result<Whole, Error> {
        match self {
            Self::Text(text) => verify(text, last),
            Self::File(path, length) => {
                let bytes = std::fs::read(path).map_err(|error| Error::Unreadable { path: path.clone(), error })?;
                let whole = bytes.get(..*length as usize).ok_or(Error::Short)?;
                verify(std::str::from_utf8(whole)?, last)
            }
        }
    }
}

/// Follows a chain from its beginning.
fn verify(text: &str, wanted: usize) -> Result<Whole, Error> {
    let mut whole = Whole { entries: 0, hash: BEGINNING.to_owned(), last: Vec::new(), missing: 0 };
    let lines = text.lines().count();
    for line in text.lines() {
        whole.entries += 1;
        let count = whole.entries;
        let mut value: Value = serde_json::from_str(line).map_err(|error| Error::Line { line: count, error })?;
        let own = value.as_object_mut().and_then(|o| o.remove("hash"));
        let own = own.and_then(|h| h.as_str().map(str::to_owned)).unwrap_or_default();
        // Nothing may stand behind the hash.
        let hashed =
            line.strip_suffix(&format!("{HASH}{own}\"}}")).map_or_else(String::new, |text| format!("{text}}}"));
        if value["before"] != json!(whole.hash) || value["number"] != json!(count) {
            return Err(Error::Broken(count));
        }
        if hash(&hashed) != own {
            return Err(Error::Changed(count));
        }
        whole.hash = own;
        whole.missing += value["details"]["missing"].as_u64().unwrap_or(0);
        if lines - (count as usize) < wanted {
            whole.last.push(value);
        }
    }
    Ok(whole)
}

fn hash(line: &str) -> String {
    let digest = Sha256::digest(line.as_bytes());
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
            // Numbers that not every reader of JSON yields unchanged.
            audit.write(
                Stamp { at: n, who: "ann" },
                &name,
                "pause",
                &json!({"n": n, "share": 1.041_666_666_666_666_5}),
            );
        }
        assert_eq!(audit.log().verify(0).unwrap().entries, 5);
        let numbers =
            |last| audit.log().verify(last).unwrap().last.iter().map(|l| l["number"].clone()).collect::<Vec<_>>();
        assert_eq!((numbers(2), numbers(9).len()), (vec![json!(4), json!(5)], 5));
        let whole = audit.lines.concat();
        assert!(
            verify(&whole.replace("\"n\":3", "\"n\":4"), 0).unwrap_err().to_string().contains("line 4 was changed")
        );
        let behind = whole.replacen("\"}\n", "\",\"who\":\"eve\"}\n", 1);
        assert!(verify(&behind, 0).unwrap_err().to_string().contains("line 1 was changed"));
        let without: String = audit.lines.iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, l)| l.clone()).collect();
        assert!(verify(&without, 0).unwrap_err().to_string().contains("line 3"));
    }

    #[test]
    fn a_torn_line_is_cut_off_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let name = ObjectName { namespace: "default".to_owned(), name: "r".to_owned() };
        let mut audit = Audit::open(Some(path.clone())).unwrap();
        (0..3).for_each(|n| audit.write(Stamp { at: n, who: "zoë" }, &name, "pause", &json!({})));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"who\":\"zo\xc3");
        std::fs::write(&path, bytes).unwrap();
        let mut audit = Audit::open(Some(path.clone())).unwrap();
        audit.write(Stamp { at: 3, who: "ann" }, &name, "resume", &json!({}));
        assert_eq!(audit.log().verify(0).unwrap().entries, 4);
        // An end that is gone is missed by the next pilot, and marked.
        let text = std::fs::read_to_string(&path).unwrap();
        for kept in [2, 0] {
            let cut: String = text.lines().take(kept).map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, cut).unwrap();
            std::fs::write(path.with_extension("head"), format!("4 {}\n", audit.last)).unwrap();
            let mut after = Audit::open(Some(path.clone())).unwrap();
            assert_eq!(after.lost(), 4 - kept as u64);
            after.write(Stamp { at: 4, who: "ann" }, &name, "pause", &json!({}));
            let whole = after.log().verify(9).unwrap();
            assert_eq!((whole.entries, whole.missing), (kept as u64 + 2, 4 - kept as u64));
            assert!(whole.last.iter().any(|l| l["what"].as_str().unwrap().contains("taken away")));
        }
        std::fs::write(&path, "no line of a log\n").unwrap();
        assert!(Audit::open(Some(path)).is_err());
    }
}
