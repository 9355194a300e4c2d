//! The status of releases in a file: written whole beside it and put in its place, so that there is always a whole one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use serde_json::{Map, Value};
use serin_delivery::{Phase, Status};
use serin_model::ObjectName;

/// Keeps a state file for one pilot, as long as it is held.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: std::fs::File,
}

impl StateLock {
    /// Takes it, unless another pilot has it.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        let place = path.with_extension("lock");
        let open = std::fs::File::options().create(true).truncate(false).write(true).open(&place);
        let file = open.with_context(|| format!("cannot open {}", place.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
                "another pilot keeps its releases in {}: end it, or say another file with --state",
                path.display()
            ),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", place.display()))
            }
        }
    }
}

/// The file.
pub(super) struct StateFile {
    _lock: StateLock,
    /// A descriptor that is given back while the file is written, so that there is one when all others are taken.
    reserve: Option<std::fs::File>,
    path: PathBuf,
    written: String,
    /// Phases that are safely on the disk.
    synced: Vec<(Phase, usize)>,
    /// When the file was written or touched last.
    touched: Instant,
}

/// How often the file is touched when there is nothing to write: its age says how long nobody looked.
const TOUCH: Duration = Duration::from_secs(2);

impl StateFile {
    /// Reads what is there, and how long ago somebody looked after it last.
    pub(super) fn open(path: &Path, lock: StateLock) -> anyhow::Result<(Self, BTreeMap<ObjectName, Status>, Duration)> {
        let mut found = BTreeMap::new();
        let mut away = Duration::ZERO;
        if path.exists() {
            let looked = std::fs::metadata(path).and_then(|m| m.modified()).ok();
            away = looked.and_then(|looked| looked.elapsed().ok()).unwrap_or_default();
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read --state {}", path.display()))?;
            let all: BTreeMap<String, Status> = serde_json::from_str(&text)
                .with_context(|| format!("--state {}: not a state file; move it away to begin anew", path.display()))?;
            for (name, status) in all {
                let (namespace, name) = name.split_once('/').unwrap_or(("default", &name));
                found.insert(ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }, status);
            }
        }
        let file = Self {
            _lock: lock,
            reserve: reserve(),
            path: path.to_path_buf(),
            written: String::new(),
            synced: Vec::new(),
            touched: Instant::now(),
        };
        Ok((file, found, away))
    }

    /// Writes all of it, when it has changed.
    pub(super) fn save<'a>(&mut self, all: impl Iterator<Item = (&'a ObjectName, &'a Status)>) -> anyhow::Result<()> {
        let mut map = Map::new();
        let mut phases = Vec::new();
        for (name, status) in all {
            phases.push((status.phase, status.step));
            map.insert(format!("{}/{}", name.namespace, name.name), serde_json::to_value(status)?);
        }
        let text = Value::Object(map).to_string();
        if text == self.written {
            if self.touched.elapsed() >= TOUCH && phases.iter().any(|(phase, _)| !phase.is_final()) {
                self.touched = Instant::now();
                std::fs::File::options().append(true).open(&self.path)?.set_modified(SystemTime::now())?;
            }
            return Ok(());
        }
        self.touched = Instant::now();
        self.reserve = None;
        let written = self.write(&text, &phases);
        self.reserve = reserve();
        written?;
        self.synced = phases;
        self.written = text;
        Ok(())
    }

    fn write(&self, text: &str, phases: &[(Phase, usize)]) -> anyhow::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&beside, &self.path)?;
        // Evidence that is lost with the machine's power is measured again; a decision must not be.
        if phases != self.synced {
            let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

fn reserve() -> Option<std::fs::File> {
    std::fs::File::open("/dev/null").ok()
}
