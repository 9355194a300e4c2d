//! Policies that are known and not carried out: what they guard is closed, because a policy that is left out would let through what
//! it is there to stop.
//!
//! Source of who is selected: Istio's reference pages PeerAuthentication, RequestAuthentication and AuthorizationPolicy.

use std::collections::BTreeMap;

use crate::name::{Hostname, Labels, ObjectName};

/// Where policies without a selector are for the whole mesh (Istio's default root namespace).
pub const ROOT_NAMESPACE: &str = "istio-system";

/// The label by which a workload says which Gateway it carries out.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A policy that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Its kind, as its document says it.
    pub kind: String,
    /// Its name.
    pub name: ObjectName,
    /// Labels of the workloads it selects; empty is its whole namespace, or the mesh in [`ROOT_NAMESPACE`].
    pub selector: Labels,
    /// Gateways it is for instead, by name; empty is whoever the selector selects.
    pub gateways: Vec<String>,
    /// What it demands.
    pub demand: Demand,
}

/// What a policy demands of requests to what it selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Something that nobody can evaluate: every request is refused, at gateways too.
    Unknown,
    /// Nothing: it allows every request, so other policies that only allow do not matter.
    AllowAll,
    /// Requests that certain rules allow; nobody can evaluate them, so none is.
    Allow,
    /// Mutual TLS, or none; by port of the workload where that is said.
    MutualTls {
        /// `None` inherits.
        strict: Option<bool>,
        /// By port.
        ports: BTreeMap<u16, bool>,
    },
    /// TLS towards these services, or something that proxies in front of them would evaluate.
    Services(Vec<Target>),
}

/// A service that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its host.
    Host(Hostname),
    /// All that this ServiceEntry declares.
    ServiceEntry(ObjectName),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::ServiceEntry(name) => write!(f, "the hosts of ServiceEntry {name}"),
        }
    }
}

/// A workload, or a proxy beside it.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// The port of the workload that is meant.
    pub port: Option<u16>,
    /// Whether it is a gateway, which PeerAuthentication does not concern.
    pub is_gateway: bool,
    /// Whether it may have more labels than are known: then it may be selected by those too.
    pub is_partly_known: bool,
    /// Where policies without a selector are for the whole mesh.
    pub root: &'a str,
}

impl Guard {
    fn selects(&self, guarded: &Guarded<'_>) -> bool {
        let here = self.name.namespace == guarded.root || self.name.namespace == guarded.namespace;
        let fits = |(key, value): (&String, &String)| match guarded.labels.get(key) {
            Some(label) => label == value,
            None => guarded.is_partly_known,
        };
        let gateway = guarded.labels.get(GATEWAY_NAME);
        let named = self.gateways.is_empty() || gateway.is_some_and(|name| self.gateways.contains(name));
        here && named && self.selector.iter().all(fits)
    }

    /// How near it is to what it selects: workload, namespace, mesh.
    fn reach(&self, root: &str) -> u8 {
        match self.selector.is_empty() {
            false => 0,
            true if self.name.namespace == root => 2,
            true => 1,
        }
    }
}

impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The policy because of which requests to a workload are refused; `guards` in order of creation.
#[must_use]
pub fn closed_by<'a>(guards: impl Iterator<Item = &'a Guard> + Clone, guarded: &Guarded<'_>) -> Option<&'a Guard> {
    let concerning = guards.filter(|g| g.selects(guarded));
    if let Some(unknown) = concerning.clone().find(|g| g.demand == Demand::Unknown) {
        return Some(unknown);
    }
    let allows = concerning.clone().find(|g| g.demand == Demand::Allow);
    let all = concerning.clone().any(|g| g.demand == Demand::AllowAll);
    if let Some(allow) = allows.filter(|_| !all) {
        return Some(allow);
    }
    (!guarded.is_gateway).then(|| mutual_tls(concerning, guarded)).flatten()
}

/// The nearest policy that says something of mutual TLS decides, the oldest of equally near ones, and a port's own word goes first.
fn mutual_tls<'a>(concerning: impl Iterator<Item = &'a Guard>, guarded: &Guarded<'_>) -> Option<&'a Guard> {
    let said = |guard: &'a Guard| match &guard.demand {
        Demand::MutualTls { strict, ports } => {
            let of_port =
                guarded.port.and_then(|port| ports.get(&port).copied()).filter(|_| !guard.selector.is_empty());
            of_port.or(*strict).map(|strict| (guard, strict))
        }
        _ => None,
    };
    let mut found: Vec<(&Guard, bool)> = concerning.filter_map(said).collect();
    // The order among equals stays that of creation.
    found.sort_by_key(|(guard, _)| guard.reach(guarded.root));
    found.first().filter(|(_, strict)| *strict).map(|(guard, _)| *guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(namespace: &str, selector: &[(&str, &str)], demand: Demand) -> Guard {
        Guard {
            kind: "Policy".to_owned(),
            name: ObjectName { namespace: namespace.to_owned(), name: "p".to_owned() },
            selector: labels(selector),
            gateways: Vec::new(),
            demand,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn tls(strict: Option<bool>, ports: &[(u16, bool)]) -> Demand {
        Demand::MutualTls { strict, ports: ports.iter().copied().collect() }
    }

    fn is_closed(guards: &[Guard], port: u16, is_gateway: bool) -> bool {
        let labels = labels(&[("app", "a"), ("version", "v1")]);
        closed_by(
            guards.iter(),
            &Guarded {
                namespace: "ns",
                labels: &labels,
                port: Some(port),
                is_gateway,
                is_partly_known: false,
                root: ROOT_NAMESPACE,
            },
        )
        .is_some()
    }

    #[test]
    fn what_nobody_can_evaluate_closes_whom_it_selects() {
        let closes = |guard: Guard| is_closed(&[guard], 80, false);
        assert!(closes(guard("ns", &[], Demand::Unknown)));
        assert!(closes(guard("ns", &[("app", "a")], Demand::Allow)));
        assert!(closes(guard(ROOT_NAMESPACE, &[], Demand::Allow)));
        assert!(!closes(guard("other", &[], Demand::Unknown)));
        assert!(!closes(guard("ns", &[("app", "b")], Demand::Unknown)));
        assert!(!closes(guard("ns", &[], Demand::AllowAll)));
        let both = [guard("ns", &[], Demand::Allow), guard("ns", &[("app", "a")], Demand::AllowAll)];
        assert!(!is_closed(&both, 80, false), "one policy that allows is enough");
        assert!(is_closed(&[guard("ns", &[], Demand::AllowAll), guard("ns", &[], Demand::Unknown)], 80, true));
    }

    #[test]
    fn mutual_tls_is_decided_by_the_nearest_policy() {
        let strict = guard(ROOT_NAMESPACE, &[], tls(Some(true), &[]));
        let off = guard("ns", &[], tls(Some(false), &[]));
        let own = |demand| guard("ns", &[("app", "a")], demand);
        assert!(is_closed(std::slice::from_ref(&strict), 80, false));
        assert!(!is_closed(std::slice::from_ref(&strict), 80, true), "gateways are none of its business");
        assert!(!is_closed(&[strict.clone(), off.clone()], 80, false));
        assert!(is_closed(&[strict.clone(), off.clone(), own(tls(Some(true), &[]))], 80, false));
        assert!(is_closed(&[strict.clone(), own(tls(None, &[(81, false)]))], 80, false));
        assert!(!is_closed(&[strict, own(tls(None, &[(80, false)]))], 80, false));
        assert!(is_closed(&[off, own(tls(None, &[(80, true)]))], 80, false));
    }
}
