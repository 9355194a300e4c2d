//! Instances that stand alone, by what services find them by.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::index::{Lists, Placed};
use crate::name::{Hostname, Labels, selects};
use crate::object::Object;
use crate::service::{Endpoint, EndpointSlice, Service};

/// A namespace with one label, `(namespace, key, value)`.
type NamespacedLabel = (Arc<str>, Arc<str>, Arc<str>);

/// Workloads and slices, and the services that find them.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances {
    /// Workloads by each of their labels.
    workloads: Lists<NamespacedLabel>,
    /// Slices by the host of their service.
    slices: Lists<Hostname>,
    /// Services with a selector, by its first label.
    selectors: OrdMap<NamespacedLabel, OrdSet<Hostname>>,
}

fn namespaced(namespace: &str, label: (&String, &String)) -> NamespacedLabel {
    (namespace.into(), label.0.as_str().into(), label.1.as_str().into())
}

/// The host of the service that a slice belongs to.
fn host_of(slice: &EndpointSlice) -> Option<Hostname> {
    Hostname::resolve(&slice.service, &slice.namespace).ok()
}

impl Instances {
    pub(super) fn add(&mut self, placed: &Placed, hosts: &mut BTreeSet<Hostname>) {
        match placed.object.as_ref() {
            Object::Workload(workload) => {
                for label in &workload.endpoint.labels {
                    self.workloads.add(&namespaced(&placed.key.name.namespace, label), placed);
                }
                hosts.extend(self.selecting(&placed.key.name.namespace, &workload.endpoint.labels));
            }
            Object::EndpointSlice(slice) => {
                if let Some(host) = host_of(slice) {
                    self.slices.add(&host, placed);
                    hosts.insert(host);
                }
            }
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, placed: &Placed, hosts: &mut BTreeSet<Hostname>) {
        match placed.object.as_ref() {
            Object::Workload(workload) => {
                for label in &workload.endpoint.labels {
                    self.workloads.remove(&namespaced(&placed.key.name.namespace, label), &placed.rank);
                }
                hosts.extend(self.selecting(&placed.key.name.namespace, &workload.endpoint.labels));
            }
            Object::EndpointSlice(slice) => {
                if let Some(host) = host_of(slice) {
                    self.slices.remove(&host, &placed.rank);
                    hosts.insert(host);
                }
            }
            _ => {}
        }
    }

    /// Notes what a service finds its workloads by.
    pub(super) fn select(&mut self, service: &Service) {
        if let Some(label) = service.selector.iter().flatten().next() {
            self.selectors.entry(namespaced(&service.namespace, label)).or_default().insert(service.host.clone());
        }
    }

    /// Forgets what a service finds its workloads by.
    pub(super) fn unselect(&mut self, service: &Service) {
        let Some(label) = service.selector.iter().flatten().next() else { return };
        super::index::take(&mut self.selectors, &namespaced(&service.namespace, label), &service.host);
    }

    /// Returns the hosts of services of a namespace whose selector's first label is among these: the rest is for the caller to see.
    pub(super) fn selecting(&self, namespace: &str, labels: &Labels) -> BTreeSet<Hostname> {
        let hosts = labels.iter().filter_map(|label| self.selectors.get(&namespaced(namespace, label)));
        hosts.flatten().cloned().collect()
    }

    /// Returns the instances of a service: its own, then workloads, then those of slices.
    pub(super) fn of(&self, service: &Service) -> Vec<Endpoint> {
        let mut endpoints = service.endpoints.clone();
        if let Some(selector) = &service.selector
            && let Some(label) = selector.iter().next()
        {
            let near = self.workloads.get(&namespaced(&service.namespace, label)).iter();
            endpoints.extend(near.filter_map(|placed| {
                match placed.object.as_ref() {
                    Object::Workload(workload) => Some(&workload.endpoint),
                    _ => None,
                }
                .filter(|endpoint| selects(selector, &endpoint.labels))
                .cloned()
            }));
        }
        let slices = self.slices.get(&service.host).iter().filter_map(|placed| match placed.object.as_ref() {
            Object::EndpointSlice(slice) => Some(slice),
            _ => None,
        });
        for endpoint in slices.flat_map(|slice| &slice.endpoints) {
            let mut endpoint = endpoint.clone();
            // Whatever else its labels are, it has those by which the service finds it.
            for (key, value) in service.selector.iter().flatten() {
                endpoint.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            endpoints.push(endpoint);
        }
        if service.publishes_unready {
            endpoints.iter_mut().for_each(|endpoint| endpoint.ready = true);
        }
        endpoints
    }
}
