//! An immutable picture of the whole mesh, with the indexes that translation needs.
//!
//! Objects are shared by `Arc` with the snapshot before, so building one after a small change costs look-ups,
//! not copies. Order is by namespace and name, so that equal meshes make equal snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gateway::Gateway;
use crate::name::{Hostname, Labels, selects};
use crate::object::{Object, ObjectKey};
use crate::policy::DestinationRule;
use crate::release::{Overlay, Release};
use crate::route::VirtualService;
use crate::service::{Endpoint, Port, Service};
use crate::sidecar::Sidecar;

/// Everything, at one instant.
#[derive(Debug, Default)]
pub struct MeshSnapshot {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    services: BTreeMap<Hostname, (ObjectKey, usize)>,
    endpoints: BTreeMap<Hostname, Vec<Endpoint>>,
    overlays: BTreeMap<Hostname, Overlay>,
}

impl MeshSnapshot {
    /// Builds the picture of these objects. When two declare the same host, the first by key has it.
    #[must_use]
    pub fn build(objects: BTreeMap<ObjectKey, Arc<Object>>) -> Self {
        let mut services = BTreeMap::new();
        let mut endpoints = BTreeMap::new();
        for (key, object) in &objects {
            let Object::Services(list) = object.as_ref() else { continue };
            for (index, service) in list.iter().enumerate() {
                if services.contains_key(&service.host) {
                    continue;
                }
                services.insert(service.host.clone(), (key.clone(), index));
                endpoints.insert(service.host.clone(), resolve(service, &objects));
            }
        }
        Self { objects, services, endpoints, overlays: BTreeMap::new() }
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
        self.objects.values().filter_map(|o| match o.as_ref() {
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

    fn at(&self, (key, index): &(ObjectKey, usize)) -> Option<&Service> {
        match self.objects.get(key).map(Arc::as_ref) {
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
        self.objects.values().filter_map(|o| match o.as_ref() {
            Object::VirtualService(v) => Some(v),
            _ => None,
        })
    }

    /// The DestinationRules.
    pub fn destination_rules(&self) -> impl Iterator<Item = &DestinationRule> {
        self.objects.values().filter_map(|o| match o.as_ref() {
            Object::DestinationRule(r) => Some(r),
            _ => None,
        })
    }

    /// The Gateways.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.objects.values().filter_map(|o| match o.as_ref() {
            Object::Gateway(g) => Some(g),
            _ => None,
        })
    }

    /// The Sidecars.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.objects.values().filter_map(|o| match o.as_ref() {
            Object::Sidecar(s) => Some(s),
            _ => None,
        })
    }
}

fn resolve(service: &Service, objects: &BTreeMap<ObjectKey, Arc<Object>>) -> Vec<Endpoint> {
    let mut found = service.endpoints.clone();
    let short = service.host.service_parts();
    for (key, object) in objects {
        match object.as_ref() {
            Object::Workload(workload) if key.name.namespace == service.namespace => {
                let chosen =
                    service.selector.as_ref().is_some_and(|s| !s.is_empty() && selects(s, &workload.endpoint.labels));
                found.extend(chosen.then(|| workload.endpoint.clone()));
            }
            Object::EndpointSlice(slice) if short == Some((&slice.service, &slice.namespace)) => {
                found.extend(slice.endpoints.iter().cloned());
            }
            _ => {}
        }
    }
    found
}
