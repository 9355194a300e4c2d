//! Virtual hosts that come as resources of their own (VHDS), and the tables that they make with their route configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serin_resources::RouteConfiguration;
use serin_resources::route::{VirtualHost, append_virtual_hosts};
use serin_traffic::router::RouteTable;

use super::{Held, Store};

/// Virtual hosts of all route configurations that leave them to VHDS.
#[derive(Default)]
pub(crate) struct VirtualHosts {
    /// By `ROUTE CONFIGURATION/VIRTUAL HOST`.
    held: BTreeMap<String, Held<VirtualHost>>,
    /// Route configurations of which virtual hosts, or that there are none, were received.
    known: BTreeSet<String>,
    /// Route configurations whose table is to be made again.
    stale: BTreeSet<String>,
    /// Route configurations whose virtual hosts do not go together, and why; they keep the table that they had.
    conflicts: Vec<String>,
}

impl VirtualHosts {
    /// Returns the virtual hosts of a route configuration.
    fn of<'a>(&'a self, routes: &str) -> impl Iterator<Item = &'a Held<VirtualHost>> + use<'a> {
        let prefix = format!("{routes}/");
        let all = self.held.range(prefix.clone()..).take_while(move |(name, _)| name.starts_with(&prefix));
        all.map(|(_, held)| held)
    }

    /// Takes a virtual host in; its name in the protocol says which route configuration it belongs to.
    pub(super) fn put(&mut self, name: &str, host: Held<VirtualHost>) {
        if let Some((routes, _)) = name.rsplit_once('/') {
            self.known.insert(routes.to_owned());
            self.stale.insert(routes.to_owned());
        }
        self.held.insert(name.to_owned(), host);
    }

    /// Takes a virtual host out; the name of a route configuration says that it has none.
    pub(super) fn remove(&mut self, name: &str) {
        let routes = name.rsplit_once('/').map_or(name, |(routes, _)| routes);
        self.held.remove(name);
        self.known.insert(routes.to_owned());
        self.stale.insert(routes.to_owned());
    }

    /// Forgets the virtual hosts of a route configuration that is not used any more.
    pub(super) fn forget(&mut self, routes: &str) {
        let prefix = format!("{routes}/");
        self.held.retain(|name, _| !name.starts_with(&prefix));
        self.known.remove(routes);
    }

    /// Notes that a route configuration changed.
    pub(super) fn note(&mut self, routes: &str) {
        self.stale.insert(routes.to_owned());
    }
}

impl Store {
    /// The route configurations whose virtual hosts come by VHDS.
    pub(crate) fn wanted_virtual_hosts(&self) -> BTreeSet<String> {
        self.routes.values().filter(|held| held.value.has_vhds).map(|held| held.value.name.clone()).collect()
    }

    /// The bytes of a route configuration with its virtual hosts, wherever they came from.
    pub(crate) fn whole_routes(&self, held: &Held<RouteConfiguration>) -> Bytes {
        let hosts = self.virtual_hosts.of(&held.value.name).map(|host| host.body.as_ref());
        append_virtual_hosts(held.body.to_vec(), hosts).into()
    }

    /// Takes what the last update said against itself.
    pub(crate) fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.virtual_hosts.conflicts)
    }

    /// Makes the tables of route configurations that changed. One whose virtual hosts have not come yet keeps the table it had, or
    /// stays out of use.
    pub(super) fn build_tables(&mut self) {
        for name in std::mem::take(&mut self.virtual_hosts.stale) {
            let Some(held) = self.routes.get(&name) else { continue };
            if !held.value.has_vhds {
                self.built_tables.insert(name, Arc::new(RouteTable::compile(&held.value)));
            } else if self.virtual_hosts.known.contains(&name) {
                let mut whole = held.value.clone();
                whole.virtual_hosts.extend(self.virtual_hosts.of(&name).map(|host| host.value.clone()));
                match whole.check_domains() {
                    Ok(()) => drop(self.built_tables.insert(name, Arc::new(RouteTable::compile(&whole)))),
                    Err(error) => self.virtual_hosts.conflicts.push(format!("{name}: {error}")),
                }
            }
        }
    }
}
