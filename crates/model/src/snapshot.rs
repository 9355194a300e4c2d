//! An immutable picture of the whole mesh, with the indexes that translation needs.
//!
//! Objects are shared by `Arc` with the snapshot before, so building one after a small change costs look-ups,
//! not copies. Order is by namespace and name, so that equal meshes make equal snapshots.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::gateway::Gateway;
use crate::guard::{Demand, Guard, Guarded, ROOT_NAMESPACE, Target, closed_by};
use crate::mesh_config::MeshConfig;
use crate::name::{Hostname, Labels, selects};
use crate::object::{Kind, Object, ObjectKey, Provenance};
use crate::policy::{DestinationRule, TrafficPolicy};
use crate::release::{Overlay, Release};
use crate::route::{Retries, VirtualService};
use crate::service::{Endpoint, EndpointSlice, Port, Service, Workload};
use crate::sidecar::Sidecar;

/// Objects with their place in the order of creation.
pub type Objects = BTreeMap<ObjectKey, (Arc<Object>, Provenance)>;

/// Everything, at one instant.
#[derive(Debug, Default)]
pub struct MeshSnapshot {
    /// In order of creation: the oldest first, those of one time by file or by name.
    objects: Vec<Arc<Object>>,
    /// Their names, in the same order.
    names: Vec<ObjectKey>,
    services: BTreeMap<Hostname, (usize, usize)>,
    endpoints: BTreeMap<Hostname, Vec<Endpoint>>,
    /// Where the rules for a host stand.
    virtual_services: ByHost,
    destination_rules: ByHost,
    /// Policies that are not carried out, the mesh's settings, gateways and sidecars: few, and asked for often.
    guards: Vec<usize>,
    config: Option<usize>,
    overlays: BTreeMap<Hostname, Overlay>,
    /// Policies that are not carried out are passed over, because somebody said so.
    unenforced: bool,
    /// Objects of which an older version is in force.
    outdated: Vec<Outdated>,
}

/// An object of which an older version is in force.
#[derive(Debug, Clone)]
pub struct Outdated {
    /// Its identity.
    pub key: ObjectKey,
    /// What is in force.
    pub object: Arc<Object>,
    /// Why, and since when, in words.
    pub why: String,
}

impl MeshSnapshot {
    /// Builds the picture of these objects. When two declare the same host, the older has it.
    #[must_use]
    pub fn build(objects: Objects) -> Self {
        let mut ordered: Vec<(ObjectKey, Arc<Object>, Provenance)> =
            objects.into_iter().map(|(key, (object, provenance))| (key, object, provenance)).collect();
        // Istio orders by time of creation, then by name, then by namespace.
        ordered.sort_by(|(key, _, place), (other, _, others)| {
            (place, &key.name.name, &key.name.namespace, key.kind).cmp(&(
                others,
                &other.name.name,
                &other.name.namespace,
                other.kind,
            ))
        });
        let objects: Vec<Arc<Object>> = ordered.iter().map(|(_, object, _)| object.clone()).collect();
        let instances = Instances::new(ordered.iter().map(|(key, object, _)| (key, object.as_ref())));
        let mut services = BTreeMap::new();
        let mut endpoints = BTreeMap::new();
        for (place, object) in objects.iter().enumerate() {
            let Object::Services(list) = object.as_ref() else { continue };
            for (index, service) in list.iter().enumerate() {
                if services.contains_key(&service.host) {
                    continue;
                }
                services.insert(service.host.clone(), (place, index));
                endpoints.insert(service.host.clone(), instances.of(service));
            }
        }
        let mut found = Self::default();
        for (place, object) in objects.iter().enumerate() {
            match object.as_ref() {
                Object::VirtualService(rule) => rule.hosts.iter().for_each(|h| found.virtual_services.add(h, place)),
                Object::DestinationRule(rule) => found.destination_rules.add(&rule.host, place),
                Object::Guard(_) => found.guards.push(place),
                Object::MeshConfig(_) => found.config = found.config.or(Some(place)),
                _ => {}
            }
        }
        let names = ordered.into_iter().map(|(key, ..)| key).collect();
        Self { objects, names, services, endpoints, ..found }
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
        let declared = self.services.get(host).and_then(|(place, _)| self.names.get(*place));
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
        self.guards.iter().filter_map(|place| match self.objects.get(*place)?.as_ref() {
            Object::Guard(g) => Some(g),
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

    /// The releases.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.objects.iter().filter_map(|o| match o.as_ref() {
            Object::Release(r) => Some(r.as_ref()),
            _ => None,
        })
    }

    /// The services, by host.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().filter_map(|place| self.at(place))
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, host: &Hostname) -> Option<&Service> {
        self.services.get(host).and_then(|place| self.at(place))
    }

    fn at(&self, (place, index): &(usize, usize)) -> Option<&Service> {
        match self.objects.get(*place).map(Arc::as_ref) {
            Some(Object::Services(list)) => list.get(*index),
            _ => None,
        }
    }

    /// The instances of a service with all of these labels, with the port behind `port`.
    pub fn endpoints<'a>(
        &'a self,
        host: &Hostname,
        port: &'a Port,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (&'a Endpoint, u16)> + 'a {
        let all = self.endpoints.get(host).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(move |e| selects(labels, &e.labels)).filter_map(move |e| e.port(port).map(|p| (e, p)))
    }

    /// All instances of a service.
    #[must_use]
    pub fn instances(&self, host: &Hostname) -> &[Endpoint] {
        self.endpoints.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// The VirtualServices.
    pub fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        self.objects.iter().filter_map(|o| match o.as_ref() {
            Object::VirtualService(v) => Some(v),
            _ => None,
        })
    }

    /// The VirtualServices one of whose hosts covers this one, the oldest first.
    pub fn virtual_services_for(&self, host: &Hostname) -> impl Iterator<Item = &VirtualService> {
        self.virtual_services.covering(host).into_iter().filter_map(|place| match self.objects.get(place)?.as_ref() {
            Object::VirtualService(rule) => Some(rule),
            _ => None,
        })
    }

    /// The DestinationRules whose host covers this one, the oldest first.
    pub fn destination_rules_for(&self, host: &Hostname) -> impl Iterator<Item = &DestinationRule> {
        self.destination_rules.covering(host).into_iter().filter_map(|place| match self.objects.get(place)?.as_ref() {
            Object::DestinationRule(rule) => Some(rule),
            _ => None,
        })
    }

    /// Whether there is a service that this host covers.
    #[must_use]
    pub fn has_service(&self, host: &Hostname) -> bool {
        match host.is_wildcard() {
            false => self.services.contains_key(host),
            true => self.services.keys().any(|service| host.covers(service)),
        }
    }

    /// The DestinationRules.
    pub fn destination_rules(&self) -> impl Iterator<Item = &DestinationRule> {
        self.objects.iter().filter_map(|o| match o.as_ref() {
            Object::DestinationRule(r) => Some(r),
            _ => None,
        })
    }

    /// The Gateways.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.objects.iter().filter_map(|o| match o.as_ref() {
            Object::Gateway(g) => Some(g),
            _ => None,
        })
    }

    /// How requests are tried again where a rule says nothing of it, when the mesh's settings say so.
    #[must_use]
    pub fn default_retries(&self) -> Option<&Retries> {
        self.config()?.default_retries.as_ref()
    }

    /// Where policies without a selector, and DestinationRules for everybody, stand.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        self.config().and_then(|config| config.root_namespace.as_deref()).unwrap_or(ROOT_NAMESPACE)
    }

    fn config(&self) -> Option<&MeshConfig> {
        match self.objects.get(self.config?)?.as_ref() {
            Object::MeshConfig(config) => Some(config.as_ref()),
            _ => None,
        }
    }

    /// The Sidecars.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.objects.iter().filter_map(|o| match o.as_ref() {
            Object::Sidecar(s) => Some(s),
            _ => None,
        })
    }
}

/// Places of objects by the hosts that they are for.
#[derive(Debug, Default)]
struct ByHost {
    exact: HashMap<Hostname, Vec<usize>>,
    /// Wildcards, in the order of their places.
    wide: Vec<(Hostname, usize)>,
}

impl ByHost {
    fn add(&mut self, host: &Hostname, place: usize) {
        if host.is_wildcard() {
            self.wide.push((host.clone(), place));
        } else {
            self.exact.entry(host.clone()).or_default().push(place);
        }
    }

    /// The places of objects for hosts that cover this one, in their order, each once.
    fn covering(&self, host: &Hostname) -> Vec<usize> {
        let exact = self.exact.get(host).map(Vec::as_slice).unwrap_or_default();
        let wide = self.wide.iter().filter(|(wide, _)| wide.covers(host)).map(|(_, place)| *place);
        let mut places: Vec<usize> = exact.iter().copied().chain(wide).collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// All instances that stand alone, by what services find them by.
#[derive(Default)]
struct Instances<'a> {
    /// By namespace, and one label.
    workloads: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>,
    /// By namespace and name of the service.
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

impl<'a> Instances<'a> {
    fn new(objects: impl Iterator<Item = (&'a ObjectKey, &'a Object)>) -> Self {
        let mut found = Self::default();
        for (key, object) in objects {
            match object {
                Object::Workload(workload) => {
                    for (name, value) in &workload.endpoint.labels {
                        found.workloads.entry((&key.name.namespace, name, value)).or_default().push(workload);
                    }
                }
                Object::EndpointSlice(slice) => {
                    found.slices.entry((&slice.namespace, &slice.service)).or_default().push(slice);
                }
                _ => {}
            }
        }
        found
    }

    fn of(&self, service: &Service) -> Vec<Endpoint> {
        let mut endpoints = service.endpoints.clone();
        if let Some(selector) = &service.selector
            && let Some((name, value)) = selector.iter().next()
        {
            let near = self.workloads.get(&(service.namespace.as_str(), name.as_str(), value.as_str()));
            let chosen = near.into_iter().flatten().filter(|w| selects(selector, &w.endpoint.labels));
            endpoints.extend(chosen.map(|workload| workload.endpoint.clone()));
        }
        if let Some((name, namespace)) = service.host.service_parts() {
            let slices = self.slices.get(&(namespace, name)).into_iter().flatten();
            let mut found: Vec<Endpoint> = slices.flat_map(|slice| slice.endpoints.iter().cloned()).collect();
            // Whatever else its labels are, it has those by which the service finds it.
            for (key, value) in service.selector.iter().flatten() {
                for endpoint in found.iter_mut().filter(|e| !e.labels.contains_key(key)) {
                    endpoint.labels.insert(key.clone(), value.clone());
                }
            }
            endpoints.extend(found);
        }
        if service.publishes_unready {
            endpoints.iter_mut().for_each(|e| e.ready = true);
        }
        endpoints
    }
}
