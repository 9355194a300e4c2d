//! The names that the proxy has of discovery, and those that it wants because of them.

use std::collections::{BTreeMap, BTreeSet};

use serin_resources::cluster::Discovery;
use serin_resources::connection_manager::RouteSource;
use serin_resources::tls::DownstreamTls;
use serin_resources::type_url;

use super::{Held, Store};

impl Store {
    /// Names of a type that discovery gave.
    pub(crate) fn names(&self, type_url: &str) -> Vec<String> {
        fn dynamic<T>(map: &BTreeMap<String, Held<T>>) -> Vec<String> {
            map.iter().filter(|(_, held)| !held.fixed).map(|(name, _)| name.clone()).collect()
        }
        match type_url {
            type_url::CLUSTER => dynamic(&self.clusters),
            type_url::LISTENER => dynamic(&self.listeners),
            _ => Vec::new(),
        }
    }

    /// Names under which endpoints are wanted.
    pub(crate) fn wanted_endpoints(&self) -> BTreeSet<String> {
        self.clusters
            .values()
            .filter_map(|held| match &held.value.discovery {
                Discovery::Eds(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// Names under which secrets are wanted.
    pub(crate) fn wanted_secrets(&self) -> BTreeSet<String> {
        let of_listeners = self.listeners.values().flat_map(|held| held.value.all_chains());
        let servers = of_listeners.filter_map(|chain| chain.tls.as_ref()).flat_map(DownstreamTls::secrets);
        let clients =
            self.clusters.values().flat_map(|held| super::tls_of(&held.value)).flat_map(|tls| tls.common.secrets());
        let names = servers.chain(clients);
        let names = names.filter(|secret| !secret.is_static && !self.fixed_secrets.contains(&secret.name));
        names.map(|secret| secret.name.clone()).collect()
    }

    /// Names under which routes are wanted.
    pub(crate) fn wanted_routes(&self) -> BTreeSet<String> {
        let sources = self.listeners.values().flat_map(|held| held.value.route_sources());
        sources
            .filter_map(|routes| match routes {
                RouteSource::Rds(name) => Some(name.clone()),
                RouteSource::Inline(_) => None,
            })
            .collect()
    }
}
