//! Names: hosts, objects, labels.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Labels of a workload or a selector.
pub type Labels = BTreeMap<String, String>;

/// The domain that short host names end in.
pub const DOMAIN: &str = "cluster.local";

/// Whether every label of `selector` is among `labels`. An empty selector selects everything.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A DNS name, lower-case and without a dot at its end, possibly with a `*` at its start, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

/// Why a string is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a host name: labels of letters, digits and '-', at most 253 characters, '*' only at the start")]
pub struct InvalidHostname(String);

impl Hostname {
    /// Checks and lower-cases a name; `*` alone is one. As in Istio's validation, a first label may begin with `*` (`*-v2.b.c`, `*v2.b.c`),
    /// and a dot may end the name.
    ///
    /// # Errors
    /// [`InvalidHostname`] for anything that is not a DNS name, wildcard or IP address.
    pub fn parse(text: &str) -> Result<Self, InvalidHostname> {
        let invalid = || InvalidHostname(text.chars().take(80).collect());
        let lower = text.to_ascii_lowercase();
        let whole = lower.strip_suffix('.').unwrap_or(&lower);
        let (rest, wild) = whole.strip_prefix('*').map_or((whole, false), |rest| (rest, true));
        let mut labels = rest.split('.');
        let first = labels.next().unwrap_or_default();
        let first = if wild { first.strip_prefix('-').unwrap_or(first) } else { first };
        let is_all = !rest.is_empty() || lower == "*";
        let name =
            is_all && rest.len() <= 253 && (is_label(first) || (wild && first.is_empty())) && labels.all(is_label);
        if name || lower.parse::<std::net::IpAddr>().is_ok() { Ok(Self(whole.into())) } else { Err(invalid()) }
    }

    /// Parses a name as written in an object of `namespace`: a name without dots is a service there.
    ///
    /// # Errors
    /// As [`Hostname::parse`].
    pub fn resolve(text: &str, namespace: &str) -> Result<Self, InvalidHostname> {
        let host = Self::parse(text)?;
        if text.contains('.') || host.0.contains('*') || host.0.contains(':') {
            return Ok(host);
        }
        Ok(Self(format!("{}.{namespace}.svc.{DOMAIN}", host.0).into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it starts with `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether this name, if a wildcard, covers `other`, or equals it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => other.0.ends_with(suffix),
            None => self == other,
        }
    }

    /// The narrower of two names when one covers the other.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// `name` and `namespace` when this is a service of the mesh's own domain.
    #[must_use]
    pub fn service_parts(&self) -> Option<(&str, &str)> {
        let rest = self.0.strip_suffix(DOMAIN)?.strip_suffix(".svc.")?;
        rest.split_once('.').filter(|(_, namespace)| !namespace.contains('.'))
    }
}

/// Host names are ordered and compared as their text.
impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
