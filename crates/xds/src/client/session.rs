//! One stream to a control plane as a state machine; what was received outlives the stream.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::error::Error;
use crate::server::{Mode, Request};
use crate::type_spec::TYPES;

/// What to ask for of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything.
    All,
    /// These names.
    Names(BTreeSet<String>),
}

/// What a response changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The type.
    pub type_url: String,
    /// New or changed resources: name (empty where the protocol does not tell it), version, bytes.
    pub changed: Vec<(String, String, Bytes)>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Whether `changed` is everything there is of the type.
    pub full: bool,
    /// The response's nonce.
    pub nonce: String,
    /// The response's version.
    pub version: String,
}

#[derive(Debug, Default)]
struct TypeState {
    asked: Option<Wanted>,
    versions: BTreeMap<String, String>,
    nonce: String,
    version: String,
}

/// A session; keep it across reconnects, so that only changes travel.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    types: BTreeMap<String, TypeState>,
}

impl Session {
    /// A session without any knowledge.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, types: BTreeMap::new() }
    }

    /// A new stream: nonces and subscriptions start over, versions stay.
    pub fn on_connect(&mut self) {
        for state in self.types.values_mut() {
            state.asked = None;
            state.nonce.clear();
        }
    }

    /// The requests that bring subscriptions in line with `wanted`, in its order.
    pub fn subscribe(&mut self, wanted: &[(&str, Wanted)]) -> Vec<Request> {
        wanted.iter().filter_map(|(type_url, wanted)| self.subscribe_type(type_url, wanted)).collect()
    }

    fn subscribe_type(&mut self, type_url: &str, wanted: &Wanted) -> Option<Request> {
        let state = self.types.entry(type_url.to_owned()).or_default();
        let first = state.asked.is_none();
        let nothing = *wanted == Wanted::Names(BTreeSet::new());
        if state.asked.as_ref() == Some(wanted) || (first && nothing) {
            return None;
        }
        let before = match &state.asked {
            Some(Wanted::Names(names)) => names.clone(),
            _ => BTreeSet::new(),
        };
        let names = match wanted {
            Wanted::All => BTreeSet::new(),
            Wanted::Names(names) => names.clone(),
        };
        if matches!(wanted, Wanted::Names(_)) {
            let on_demand = TYPES.iter().any(|spec| spec.is_on_demand && spec.url == type_url);
            let below = |name: &str| name.rsplit_once('/').is_some_and(|(above, _)| names.contains(above));
            state.versions.retain(|name, _| names.contains(name) || (on_demand && below(name)));
        }
        state.asked = Some(wanted.clone());
        let mut request = Request { type_url: type_url.to_owned(), ..Request::default() };
        match self.mode {
            Mode::Sotw => {
                request.nonce = state.nonce.clone();
                request.names = names.into_iter().collect();
            }
            Mode::Delta => {
                request.subscribe = names.difference(&before).cloned().collect();
                request.unsubscribe = before.difference(&names).cloned().collect();
                if first {
                    request.initial_versions = state.versions.clone();
                }
            }
        }
        Some(request)
    }

    /// Takes a response in. In delta the versions are remembered as given; see [`Session::answer`].
    pub fn on_response(&mut self, update: &mut Update) {
        let state = self.types.entry(update.type_url.clone()).or_default();
        state.nonce = update.nonce.clone();
        if self.mode == Mode::Delta {
            for (name, version, _) in &update.changed {
                state.versions.insert(name.clone(), version.clone());
            }
            for name in &update.removed {
                state.versions.remove(name);
            }
        }
    }

    /// The acknowledgement, or the rejection with its reason.
    pub fn answer(&mut self, update: &Update, outcome: Result<(), Error>) -> Request {
        let state = self.types.entry(update.type_url.clone()).or_default();
        if outcome.is_ok() {
            state.version = update.version.clone();
        } else {
            // Not claimed on a reconnect, so that the server sends them again.
            for (name, ..) in &update.changed {
                state.versions.remove(name);
            }
        }
        let names = match (&self.mode, &state.asked) {
            (Mode::Sotw, Some(Wanted::Names(names))) => names.iter().cloned().collect(),
            _ => Vec::new(),
        };
        Request {
            type_url: update.type_url.clone(),
            nonce: update.nonce.clone(),
            error: outcome.err().map(|error| error.to_string()),
            names,
            ..Request::default()
        }
    }

    /// The version to acknowledge with, of the newest accepted response.
    #[must_use]
    pub fn version(&self, type_url: &str) -> String {
        self.types.get(type_url).map(|s| s.version.clone()).unwrap_or_default()
    }
}
