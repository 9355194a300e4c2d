//! The differences between two snapshots, in terms of what a translation is made of.

use std::collections::BTreeSet;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::MeshSnapshot;
use crate::name::Hostname;
use crate::object::Object;
use crate::route::RouteRules;

/// The differences between two snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// True when something changed that everything may rest on: a policy that guards, a Sidecar, a Gateway, settings of the mesh.
    pub everything: bool,
    /// Hosts of services whose clusters or endpoints may differ.
    pub services: BTreeSet<Hostname>,
    /// Hosts, of services and of rules, whose routes may differ.
    pub routes: BTreeSet<Hostname>,
}

impl Changes {
    /// Returns whether nothing changed that a translation rests on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.services.is_empty() && self.routes.is_empty()
    }
}

/// The keys of which two maps have different values.
pub(super) fn differing<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    after: &'a OrdMap<K, V>,
) -> impl Iterator<Item = (&'a K, [Option<&'a V>; 2])> {
    before.diff(after).map(|difference| match difference {
        DiffItem::Add(key, new) => (key, [None, Some(new)]),
        DiffItem::Remove(key, old) => (key, [Some(old), None]),
        DiffItem::Update { old: (_, old), new: (key, new) } => (key, [Some(old), Some(new)]),
    })
}

impl MeshSnapshot {
    /// Finds what differs from an earlier snapshot. What both share is not looked at.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Changes {
        let mut changes = Changes {
            everything: self.unenforced != before.unenforced
                || self.outdated != before.outdated
                || differing(&before.proxy_labels, &self.proxy_labels).any(|(_, versions)| versions.contains(&None)),
            ..Changes::default()
        };
        for (_, versions) in differing(&before.objects, &self.objects) {
            versions.into_iter().flatten().for_each(|placed| self.note(&placed.object, &mut changes));
        }
        for (host, versions) in differing(&before.services, &self.services) {
            changes.services.insert(host.clone());
            if versions.iter().any(Option::is_none) {
                // Rules for a wildcard without a service are another thing than those with one.
                changes.routes.extend(self.wildcard_rules_over(host));
            }
        }
        let overlays = before.overlays.iter().chain(&self.overlays);
        changes.services.extend(
            overlays
                .filter(|(host, _)| before.overlays.get(*host) != self.overlays.get(*host))
                .map(|(host, _)| host.clone()),
        );
        for host in &changes.services {
            let rules = self.route_rules_to(host).chain(before.route_rules_to(host));
            let hosts = rules.flat_map(|rule| self.routed_by(rule).chain(rule.hosts.iter().cloned()));
            changes.routes.extend(hosts);
            changes.routes.insert(host.clone());
        }
        changes
    }

    fn note(&self, object: &Object, changes: &mut Changes) {
        match object {
            Object::RouteRules(rule) => {
                changes.routes.extend(self.routed_by(rule).chain(rule.hosts.iter().cloned()));
            }
            Object::BackendPolicy(rule) if rule.host.is_wildcard() => {
                changes.services.extend(self.services.keys().filter(|host| rule.host.covers(host)).cloned());
            }
            Object::BackendPolicy(rule) => {
                changes.services.insert(rule.host.clone());
            }
            Object::Gateway(_) | Object::Sidecar(_) | Object::Guard(_) | Object::MeshConfig(_) => {
                changes.everything = true;
            }
            // Services and their instances are compared by host; a release acts by its overlay.
            Object::Services(_) | Object::Workload(_) | Object::EndpointSlice(_) | Object::Release(_) => {}
        }
    }

    /// The hosts of services that the wildcards of a rule cover.
    fn routed_by<'a>(&'a self, rule: &'a RouteRules) -> impl Iterator<Item = Hostname> + 'a {
        let wide = rule.hosts.iter().filter(|host| host.is_wildcard());
        wide.flat_map(|wide| self.services.keys().filter(|host| wide.covers(host)).cloned())
    }

    /// The wildcards of rules that cover a host.
    fn wildcard_rules_over(&self, host: &Hostname) -> Vec<Hostname> {
        let rules = self.route_rules_for(host);
        rules.flat_map(|rule| &rule.hosts).filter(|wide| wide.is_wildcard() && wide.covers(host)).cloned().collect()
    }
}
