//! An immutable picture of the whole mesh, with the indexes that translation needs.
//!
//! A snapshot is made of persistent maps: one after a small change shares everything else with the one before, and
//! [`MeshSnapshot::changes_since`] finds what changed without looking at what is shared.

mod changes;
mod index;
mod instances;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::gateway::Gateway;
use crate::guard::{Demand, Guard, Guarded, ROOT_NAMESPACE, Target, closed_by};
use crate::mesh_config::MeshConfig;
use crate::name::{Hostname, Labels, selects};
use crate::object::{Kind, Object, ObjectKey, Provenance};
use crate::policy::{BackendPolicy, TrafficPolicy};
use crate::release::{Overlay, Release};
use crate::route::{Retries, RouteRules};
use crate::service::{Endpoint, Port, Service};
use crate::sidecar::Sidecar;
use index::{ByHost, Lists, Placed, Rank, Ranked};
use instances::Instances;

pub use changes::Changes;

/// Objects with their place in the order of creation.
pub type Objects = BTreeMap<ObjectKey, (Arc<Object>, Provenance)>;

/// Everything, at one instant.
#[derive(Debug, Clone, Default)]
pub struct MeshSnapshot {
    objects: OrdMap<ObjectKey, Placed>,
    /// The same by type, the oldest first.
    by_type: ByType,
    services: OrdMap<Hostname, Hosted>,
    /// Hosts of services with a port of that number.
    ports: OrdMap<u16, OrdSet<Hostname>>,
    instances: Instances,
    route_rules: ByHost,
    /// Routing rules by the hosts that their routes lead to.
    routes_to: Lists<Hostname>,
    backend_policies: ByHost,
    /// Labels of proxies that some object looks at, with the number of such objects.
    proxy_labels: OrdMap<String, usize>,
    overlays: BTreeMap<Hostname, Overlay>,
    /// Policies that are not carried out are passed over, because somebody said so.
    unenforced: bool,
    /// Objects of which an older version is in force.
    outdated: Vec<Outdated>,
}

/// Objects by type, the oldest first.
#[derive(Debug, Clone, Default)]
struct ByType {
    route_rules: Ranked,
    backend_policies: Ranked,
    gateways: Ranked,
    sidecars: Ranked,
    releases: Ranked,
    guards: Ranked,
    mesh_configs: Ranked,
}

impl ByType {
    /// The objects of the type that this one is of; instances and services have indexes of their own.
    fn of(&mut self, object: &Object) -> Option<&mut Ranked> {
        Some(match object {
            Object::RouteRules(_) => &mut self.route_rules,
            Object::BackendPolicy(_) => &mut self.backend_policies,
            Object::Gateway(_) => &mut self.gateways,
            Object::Sidecar(_) => &mut self.sidecars,
            Object::Release(_) => &mut self.releases,
            Object::Guard(_) => &mut self.guards,
            Object::MeshConfig(_) => &mut self.mesh_configs,
            Object::Services(_) | Object::Workload(_) | Object::EndpointSlice(_) => return None,
        })
    }
}

/// A service with its instances. Two are the same when nothing of them was made anew.
#[derive(Debug, Clone)]
struct Hosted {
    /// The objects that declare the host, the oldest first, which has it.
    declared: Arc<[Placed]>,
    endpoints: Arc<[Endpoint]>,
}

impl PartialEq for Hosted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoints, &other.endpoints) && self.declared.first() == other.declared.first()
    }
}

impl Hosted {
    fn service(&self, host: &Hostname) -> Option<&Service> {
        match self.declared.first()?.object.as_ref() {
            Object::Services(list) => list.iter().find(|service| service.host == *host),
            _ => None,
        }
    }
}

/// An object of which an older version is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Outdated {
    /// Its identity.
    pub key: ObjectKey,
    /// What is in force.
    pub object: Arc<Object>,
    /// Why, and since when, in words.
    pub why: String,
}

impl MeshSnapshot {
    /// Builds the snapshot of these objects. When two declare the same host, the older has it.
    #[must_use]
    pub fn build(objects: Objects) -> Self {
        let mut mesh = Self::default();
        mesh.update(objects.into_iter().map(|(key, placed)| (key, Some(placed))));
        mesh
    }

    /// Puts objects in place of those with the same key, or takes them away. Costs what it changes.
    pub fn update(&mut self, changes: impl IntoIterator<Item = (ObjectKey, Option<(Arc<Object>, Provenance)>)>) {
        let mut hosts = BTreeSet::new();
        for (key, new) in changes {
            let before = self.objects.get(&key).cloned();
            let new = new.map(|(object, provenance)| {
                let rank = Rank::new(&key, &provenance);
                // What says the same is the same.
                let same = before.as_ref().filter(|before| before.object == object).map(|before| before.object.clone());
                Placed { rank, key: key.clone(), object: same.unwrap_or(object) }
            });
            if before == new {
                continue;
            }
            if let Some(before) = before {
                self.unindex(&before, &mut hosts);
                self.objects.remove(&key);
            }
            if let Some(new) = new {
                self.index(&new, &mut hosts);
                self.objects.insert(key, new);
            }
        }
        for host in hosts {
            self.find_instances(&host);
        }
    }

    fn index(&mut self, placed: &Placed, hosts: &mut BTreeSet<Hostname>) {
        self.count_labels(&placed.object, true);
        if let Some(list) = self.by_type.of(&placed.object) {
            list.insert(placed.rank.clone(), placed.object.clone());
        }
        match placed.object.as_ref() {
            Object::RouteRules(rule) => {
                rule.hosts.iter().for_each(|host| self.route_rules.add(host, placed));
                rule.destinations().for_each(|to| self.routes_to.add(&to.host, placed));
            }
            Object::BackendPolicy(rule) => self.backend_policies.add(&rule.host, placed),
            Object::Services(list) => {
                for service in list {
                    self.declare(&service.host, |declared| {
                        declared.retain(|other| other.rank != placed.rank);
                        declared.push(placed.clone());
                    });
                    hosts.insert(service.host.clone());
                }
            }
            Object::Workload(_) | Object::EndpointSlice(_) => self.instances.add(placed, hosts),
            _ => {}
        }
    }

    fn unindex(&mut self, placed: &Placed, hosts: &mut BTreeSet<Hostname>) {
        self.count_labels(&placed.object, false);
        if let Some(list) = self.by_type.of(&placed.object) {
            list.remove(&placed.rank);
        }
        match placed.object.as_ref() {
            Object::RouteRules(rule) => {
                rule.hosts.iter().for_each(|host| self.route_rules.remove(host, &placed.rank));
                rule.destinations().for_each(|to| self.routes_to.remove(&to.host, &placed.rank));
            }
            Object::BackendPolicy(rule) => self.backend_policies.remove(&rule.host, &placed.rank),
            Object::Services(list) => {
                for service in list {
                    self.declare(&service.host, |declared| declared.retain(|other| other.rank != placed.rank));
                    hosts.insert(service.host.clone());
                }
            }
            Object::Workload(_) | Object::EndpointSlice(_) => self.instances.remove(placed, hosts),
            _ => {}
        }
    }

    /// Counts the labels of proxies that an object looks at.
    fn count_labels(&mut self, object: &Object, is_new: bool) {
        for label in proxy_labels(object) {
            let count = self.proxy_labels.get(&label).copied().unwrap_or_default();
            match if is_new { count + 1 } else { count.saturating_sub(1) } {
                0 => self.proxy_labels.remove(&label),
                count => self.proxy_labels.insert(label, count),
            };
        }
    }

    /// Changes who declares a host, and what follows from who has it.
    fn declare(&mut self, host: &Hostname, change: impl FnOnce(&mut Vec<Placed>)) {
        let before = self.services.get(host).cloned();
        if let Some(service) = before.as_ref().and_then(|hosted| hosted.service(host)) {
            for port in &service.ports {
                index::take(&mut self.ports, &port.number, host);
            }
            self.instances.unselect(service);
        }
        let mut declared: Vec<Placed> = before.as_ref().map(|hosted| hosted.declared.to_vec()).unwrap_or_default();
        change(&mut declared);
        declared.sort_by(|a, b| a.rank.cmp(&b.rank));
        if declared.is_empty() {
            self.services.remove(host);
            return;
        }
        let endpoints = before.map(|hosted| hosted.endpoints).unwrap_or_default();
        let hosted = Hosted { declared: declared.into(), endpoints };
        if let Some(service) = hosted.service(host) {
            for port in &service.ports {
                self.ports.entry(port.number).or_default().insert(host.clone());
            }
            self.instances.select(service);
        }
        self.services.insert(host.clone(), hosted);
    }

    /// Finds the instances of a service anew.
    fn find_instances(&mut self, host: &Hostname) {
        let Some(hosted) = self.services.get(host) else { return };
        let Some(service) = hosted.service(host) else { return };
        let found = self.instances.of(service);
        if hosted.endpoints[..] != found[..] {
            let hosted = Hosted { endpoints: found.into(), ..hosted.clone() };
            self.services.insert(host.clone(), hosted);
        }
    }

    /// The same mesh with policies that are not carried out passed over instead of closing what they guard.
    #[must_use]
    pub fn without_enforcement(mut self) -> Self {
        self.unenforced = true;
        self
    }

    /// The policy because of which requests to a workload are refused.
    #[must_use]
    pub fn closed_by(&self, guarded: &Guarded<'_>) -> Option<&Guard> {
        if self.unenforced { None } else { closed_by(self.guards(), guarded) }
    }

    /// The policy that is for a service as a whole and because of which requests to it are refused.
    #[must_use]
    pub fn closes_service(&self, host: &Hostname) -> Option<String> {
        let declared = self.services.get(host).and_then(|hosted| hosted.declared.first()).map(|placed| &placed.key);
        let is_it = |target: &Target| match target {
            Target::Host(named) => named == host,
            Target::ServiceEntry(name) => {
                declared.is_some_and(|key| key.kind == Kind::ServiceEntry && key.name == *name)
            }
        };
        let closes = |guard: &&Guard| matches!(&guard.demand, Demand::Services(targets) if targets.iter().any(is_it));
        self.guards().find(closes).filter(|_| !self.unenforced).map(ToString::to_string)
    }

    /// What a policy demands that is not carried out, so that requests it concerns are refused.
    #[must_use]
    pub fn not_carried_out<'a>(&self, policy: &'a TrafficPolicy) -> Option<&'a str> {
        policy.not_carried_out().filter(|_| !self.unenforced)
    }

    /// Whether policies that are not carried out close what they guard.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        !self.unenforced
    }

    /// The policies that are not carried out.
    pub fn guards(&self) -> impl Iterator<Item = &Guard> + Clone {
        self.by_type.guards.iter().filter_map(|(_, object)| match object.as_ref() {
            Object::Guard(guard) => Some(guard),
            _ => None,
        })
    }

    /// The same mesh, which knows of which objects an older version is in force.
    #[must_use]
    pub fn with_outdated(mut self, outdated: Vec<Outdated>) -> Self {
        self.outdated = outdated;
        self
    }

    /// Objects of which an older version is in force.
    #[must_use]
    pub fn outdated(&self) -> &[Outdated] {
        &self.outdated
    }

    /// The same mesh with what releases make of the routes to their hosts.
    #[must_use]
    pub fn with_overlays(mut self, overlays: BTreeMap<Hostname, Overlay>) -> Self {
        self.overlays = overlays;
        self
    }

    /// What a release makes of the routes to a host, if one does.
    #[must_use]
    pub fn overlay(&self, host: &Hostname) -> Option<&Overlay> {
        self.overlays.get(host)
    }

    /// The releases, the oldest first.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.by_type.releases.values().filter_map(|object| match object.as_ref() {
            Object::Release(release) => Some(release.as_ref()),
            _ => None,
        })
    }

    /// The services, by host.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter_map(|(host, hosted)| hosted.service(host))
    }

    /// Returns the service of that name.
    #[must_use]
    pub fn service(&self, host: &Hostname) -> Option<&Service> {
        self.services.get(host).and_then(|hosted| hosted.service(host))
    }

    /// Returns the host of that name, when a service or a rule has it.
    #[must_use]
    pub fn known_host(&self, name: &str) -> Option<Hostname> {
        let of_rule = || {
            let host = Hostname::parse(name).ok()?;
            (!self.route_rules.of(&host).is_empty()).then_some(host)
        };
        self.services.get_key_value(name).map(|(host, _)| host.clone()).or_else(of_rule)
    }

    /// The services with a port of that number, by host.
    pub fn services_with_port(&self, port: u16) -> impl Iterator<Item = &Service> {
        self.ports.get(&port).into_iter().flatten().filter_map(|host| self.service(host))
    }

    /// The services of a namespace that find workloads with these labels, by host.
    #[must_use]
    pub fn services_selecting(&self, namespace: &str, labels: &Labels) -> Vec<&Service> {
        let hosts = self.instances.selecting(namespace, labels);
        hosts.iter().filter_map(|host| self.service(host)).collect()
    }

    /// The instances of a service with all of these labels, with the port behind `port`.
    pub fn endpoints<'a>(
        &'a self,
        host: &Hostname,
        port: &'a Port,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (&'a Endpoint, u16)> + 'a {
        let all = self.instances(host);
        all.iter().filter(move |e| selects(labels, &e.labels)).filter_map(move |e| e.port(port).map(|p| (e, p)))
    }

    /// All instances of a service.
    #[must_use]
    pub fn instances(&self, host: &Hostname) -> &[Endpoint] {
        self.services.get(host).map(|hosted| hosted.endpoints.as_ref()).unwrap_or_default()
    }

    /// Returns whether some object looks at the label of that name of proxies: proxies that differ in others only get the same.
    #[must_use]
    pub fn looks_at_label(&self, name: &str) -> bool {
        self.proxy_labels.contains_key(name)
    }

    /// Routing rules, the oldest first.
    pub fn route_rules(&self) -> impl Iterator<Item = &RouteRules> {
        self.by_type.route_rules.values().filter_map(|object| as_route_rules(object))
    }

    /// Routing rules one of whose hosts covers this one, the oldest first.
    pub fn route_rules_for(&self, host: &Hostname) -> impl Iterator<Item = &RouteRules> {
        self.route_rules.covering(host).into_iter().filter_map(|placed| as_route_rules(&placed.object))
    }

    /// Routing rules that name this very host, the oldest first.
    pub fn route_rules_of(&self, host: &Hostname) -> impl Iterator<Item = &RouteRules> {
        self.route_rules.of(host).iter().filter_map(|placed| as_route_rules(&placed.object))
    }

    /// Routing rules with a route to this host, the oldest first.
    pub fn route_rules_to(&self, host: &Hostname) -> impl Iterator<Item = &RouteRules> {
        self.routes_to.get(host).iter().filter_map(|placed| as_route_rules(&placed.object))
    }

    /// Backend policies whose host covers this one, the oldest first.
    pub fn backend_policies_for(&self, host: &Hostname) -> impl Iterator<Item = &BackendPolicy> {
        self.backend_policies.covering(host).into_iter().filter_map(|placed| match placed.object.as_ref() {
            Object::BackendPolicy(rule) => Some(rule),
            _ => None,
        })
    }

    /// Returns whether there is a service that this host covers.
    #[must_use]
    pub fn has_service(&self, host: &Hostname) -> bool {
        match host.is_wildcard() {
            false => self.services.contains_key(host),
            true => self.services.keys().any(|service| host.covers(service)),
        }
    }

    /// Backend policies, the oldest first.
    pub fn backend_policies(&self) -> impl Iterator<Item = &BackendPolicy> {
        self.by_type.backend_policies.values().filter_map(|object| match object.as_ref() {
            Object::BackendPolicy(rule) => Some(rule),
            _ => None,
        })
    }

    /// The Gateways, the oldest first.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.by_type.gateways.values().filter_map(|object| match object.as_ref() {
            Object::Gateway(gateway) => Some(gateway),
            _ => None,
        })
    }

    /// How requests are tried again where a rule says nothing of it, when the mesh's settings say so.
    #[must_use]
    pub fn default_retries(&self) -> Option<&Retries> {
        self.config()?.default_retries.as_ref()
    }

    /// Where policies without a selector, and backend policies for everybody, stand.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        self.config().and_then(|config| config.root_namespace.as_deref()).unwrap_or(ROOT_NAMESPACE)
    }

    fn config(&self) -> Option<&MeshConfig> {
        self.by_type.mesh_configs.values().find_map(|object| match object.as_ref() {
            Object::MeshConfig(config) => Some(config.as_ref()),
            _ => None,
        })
    }

    /// The Sidecars, the oldest first.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.by_type.sidecars.values().filter_map(|object| match object.as_ref() {
            Object::Sidecar(sidecar) => Some(sidecar),
            _ => None,
        })
    }
}

/// The labels of proxies that an object looks at.
fn proxy_labels(object: &Object) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    let mut look = |selector: &Labels| labels.extend(selector.keys().cloned());
    match object {
        Object::RouteRules(rule) => {
            rule.http.iter().flat_map(|route| &route.matches).for_each(|matches| look(&matches.source_labels));
        }
        Object::BackendPolicy(rule) => rule.workloads.iter().for_each(look),
        Object::Gateway(gateway) => look(&gateway.selector),
        Object::Sidecar(sidecar) => look(&sidecar.selector),
        Object::Services(services) => services.iter().filter_map(|s| s.selector.as_ref()).for_each(look),
        Object::Guard(guard) => {
            look(&guard.selector);
            labels.insert(crate::guard::GATEWAY_NAME.to_owned());
        }
        Object::Release(release) => {
            let cohorts = release.steps.iter().flat_map(|step| &step.cohorts).flatten();
            cohorts.for_each(|cohort| look(&cohort.source_labels));
        }
        Object::Workload(_) | Object::EndpointSlice(_) | Object::MeshConfig(_) => {}
    }
    labels
}

fn as_route_rules(object: &Object) -> Option<&RouteRules> {
    match object {
        Object::RouteRules(rule) => Some(rule),
        _ => None,
    }
}
