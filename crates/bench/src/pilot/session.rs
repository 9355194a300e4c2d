//! The order in which a simulated proxy asks for configuration: clusters, their endpoints, listeners, their routes, and
//! the virtual hosts of routes that leave them to VHDS. It does no I/O.
//!
//! Names are kept as hashes, because hundreds of clients hold thousands of names each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use clap::ValueEnum;
use prost::Message as _;

use super::wire::{BY_EDS, Cluster, DeltaRequest, DeltaResponse, Listener, Named, Routes, SotwRequest, SotwResponse};

/// The variant of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Incremental xDS
    Delta,
    /// State of the world
    Sotw,
}

impl Mode {
    /// Returns its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        }
    }
}

/// A type of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Clusters,
    Endpoints,
    Listeners,
    Routes,
    VirtualHosts,
    Other,
}

/// All types, in the order of their counts.
pub(crate) const KINDS: [Kind; 6] =
    [Kind::Clusters, Kind::Endpoints, Kind::Listeners, Kind::Routes, Kind::VirtualHosts, Kind::Other];

impl Kind {
    /// Returns the short name of the discovery service.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clusters => "CDS",
            Self::Endpoints => "EDS",
            Self::Listeners => "LDS",
            Self::Routes => "RDS",
            Self::VirtualHosts => "VHDS",
            Self::Other => "other",
        }
    }

    /// Returns the bit that stands for the type in a set of types.
    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }

    fn url(self) -> &'static str {
        match self {
            Self::Clusters => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listeners => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHosts => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Other => "",
        }
    }

    fn of(url: &str) -> Self {
        KINDS.into_iter().find(|kind| kind.url() == url).unwrap_or(Self::Other)
    }
}

/// A request of either variant.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Asked {
    type_url: String,
    nonce: String,
    version: String,
    /// Names to add (delta) or all names (state of the world).
    names: Vec<String>,
    unsubscribe: Vec<String>,
}

impl From<Asked> for DeltaRequest {
    fn from(asked: Asked) -> Self {
        let Asked { type_url, nonce, names, unsubscribe, version: _ } = asked;
        Self { node: None, type_url, subscribe: names, unsubscribe, nonce }
    }
}

impl From<Asked> for SotwRequest {
    fn from(asked: Asked) -> Self {
        let Asked { type_url, nonce, version, names, unsubscribe: _ } = asked;
        Self { version, node: None, names, type_url, nonce }
    }
}

/// A resource of a response.
#[derive(Debug)]
struct Resource {
    name: String,
    body: Bytes,
}

/// A response of either variant.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    type_url: String,
    nonce: String,
    version: String,
    resources: Vec<Resource>,
    removed: Vec<String>,
}

impl Answer {
    /// Returns the number of resources that it brings or removes.
    pub(crate) fn count(&self) -> usize {
        self.resources.len() + self.removed.len()
    }
}

impl From<DeltaResponse> for Answer {
    fn from(response: DeltaResponse) -> Self {
        let DeltaResponse { resources, type_url, nonce, removed } = response;
        let resources = resources.into_iter().map(|resource| Resource {
            name: resource.name,
            body: resource.body.map(|body| body.value).unwrap_or_default(),
        });
        let kind = Kind::of(&type_url);
        Self { kind, type_url, nonce, version: String::new(), resources: resources.collect(), removed }
    }
}

impl From<SotwResponse> for Answer {
    fn from(response: SotwResponse) -> Self {
        let SotwResponse { version, resources, type_url, nonce } = response;
        let named = |body: Bytes| Resource { name: Named::decode(body.clone()).unwrap_or_default().name, body };
        let resources = resources.into_iter().map(|body| named(body.value)).collect();
        Self { kind: Kind::of(&type_url), type_url, nonce, version, resources, removed: Vec::new() }
    }
}

/// The names of a type that a client subscribes to.
#[derive(Debug, Default)]
struct Names {
    /// By hash of the name: true until the first answer.
    known: HashMap<u64, bool>,
    awaited: usize,
}

impl Names {
    /// Adds a name; returns false when it was there.
    fn add(&mut self, name: &str) -> bool {
        let Entry::Vacant(place) = self.known.entry(hash(name)) else { return false };
        place.insert(true);
        self.awaited += 1;
        true
    }

    /// Notes an answer for a name.
    fn answered(&mut self, name: &str) {
        if let Some(awaited) = self.known.get_mut(&hash(name))
            && std::mem::take(awaited)
        {
            self.awaited -= 1;
        }
    }

    /// Removes a name; returns false when it was not there.
    fn remove(&mut self, name: &str) -> bool {
        self.answered(name);
        self.known.remove(&hash(name)).is_some()
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The nonce and the version that a client last acknowledged for a type.
#[derive(Debug, Default, Clone)]
struct Acknowledged {
    nonce: String,
    version: String,
}

/// One stream of a client.
#[derive(Debug)]
pub(crate) struct Session {
    mode: Mode,
    clusters: bool,
    listeners: bool,
    endpoints: Names,
    routes: Names,
    /// Route configurations whose virtual hosts were asked for.
    virtual_hosts: Vec<String>,
    /// Those of them without an answer.
    hosts_awaited: Vec<String>,
    /// All names by type, for requests that repeat them (state of the world only).
    all: [Vec<String>; KINDS.len()],
    acknowledged: [Acknowledged; KINDS.len()],
}

impl Session {
    /// Returns a session that has asked for nothing.
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            clusters: false,
            listeners: false,
            endpoints: Names::default(),
            routes: Names::default(),
            virtual_hosts: Vec::new(),
            hosts_awaited: Vec::new(),
            all: Default::default(),
            acknowledged: Default::default(),
        }
    }

    /// Returns the request that begins the stream.
    pub(crate) fn first(&self) -> Asked {
        self.ask(Kind::Clusters, Vec::new())
    }

    /// Returns the number of answers that are outstanding.
    pub(crate) fn awaited(&self) -> usize {
        usize::from(!self.clusters)
            + usize::from(!self.listeners)
            + self.endpoints.awaited
            + self.routes.awaited
            + self.hosts_awaited.len()
    }

    /// Returns the acknowledgement of a response.
    pub(crate) fn acknowledge(&mut self, answer: &Answer) -> Asked {
        let index = answer.kind as usize;
        self.acknowledged[index] = Acknowledged { nonce: answer.nonce.clone(), version: answer.version.clone() };
        Asked {
            type_url: answer.type_url.clone(),
            nonce: answer.nonce.clone(),
            version: answer.version.clone(),
            names: self.all[index].clone(),
            unsubscribe: Vec::new(),
        }
    }

    /// Notes what a response brought; returns the requests that follow from it.
    pub(crate) fn follow(&mut self, answer: &Answer) -> Vec<Asked> {
        match answer.kind {
            Kind::Clusters => self.on_clusters(answer),
            Kind::Listeners => self.on_listeners(answer),
            Kind::Routes => self.on_routes(answer),
            Kind::Endpoints => {
                let removed = answer.removed.iter().map(String::as_str);
                let changed = answer.resources.iter().map(|resource| resource.name.as_str());
                changed.chain(removed).for_each(|name| self.endpoints.answered(name));
                Vec::new()
            }
            Kind::VirtualHosts => {
                self.hosts_awaited.retain(|routes| answer.count() > 0 && !is_for(answer, routes));
                Vec::new()
            }
            Kind::Other => Vec::new(),
        }
    }

    fn on_clusters(&mut self, answer: &Answer) -> Vec<Asked> {
        let mut asked = Vec::new();
        let clusters = answer.resources.iter().filter_map(|resource| Cluster::decode(resource.body.clone()).ok());
        let wanted = clusters.filter(|c| c.discovery == BY_EDS && c.name.starts_with("outbound|")).map(|c| c.name);
        if self.mode == Mode::Sotw {
            let wanted: Vec<String> = wanted.collect();
            let new = wanted.iter().filter(|name| self.endpoints.add(name)).count();
            if new > 0 || wanted.len() != self.all[Kind::Endpoints as usize].len() {
                asked.push(self.ask(Kind::Endpoints, wanted));
            }
        } else {
            let new: Vec<String> = wanted.filter(|name| self.endpoints.add(name)).collect();
            let gone: Vec<String> = answer.removed.iter().filter(|name| self.endpoints.remove(name)).cloned().collect();
            if !new.is_empty() || !gone.is_empty() {
                asked.push(Asked { unsubscribe: gone, ..self.ask(Kind::Endpoints, new) });
            }
        }
        if !std::mem::replace(&mut self.clusters, true) {
            asked.push(self.ask(Kind::Listeners, Vec::new()));
        }
        asked
    }

    fn on_listeners(&mut self, answer: &Answer) -> Vec<Asked> {
        self.listeners = true;
        let listeners = answer.resources.iter().filter_map(|resource| Listener::decode(resource.body.clone()).ok());
        let named: Vec<String> = listeners.flat_map(|listener| listener.routes()).collect();
        let new: Vec<String> = named.into_iter().filter(|name| self.routes.add(name)).collect();
        if new.is_empty() {
            return Vec::new();
        }
        let mut names = self.all[Kind::Routes as usize].clone();
        names.extend(new);
        vec![self.ask(Kind::Routes, names)]
    }

    fn on_routes(&mut self, answer: &Answer) -> Vec<Asked> {
        answer.removed.iter().for_each(|name| self.routes.answered(name));
        let mut new = Vec::new();
        for resource in &answer.resources {
            self.routes.answered(&resource.name);
            let Ok(routes) = Routes::decode(resource.body.clone()) else { continue };
            let known = self.virtual_hosts.contains(&routes.name);
            if routes.vhds.is_some() && !known && self.mode == Mode::Delta {
                self.virtual_hosts.push(routes.name.clone());
                self.hosts_awaited.push(routes.name.clone());
                new.push(routes.name);
            }
        }
        if new.is_empty() { Vec::new() } else { vec![self.ask(Kind::VirtualHosts, new)] }
    }

    /// Returns a request for names: in addition (delta), or for these alone (state of the world).
    fn ask(&self, kind: Kind, names: Vec<String>) -> Asked {
        let type_url = kind.url().to_owned();
        match self.mode {
            Mode::Delta => Asked { type_url, names, ..Asked::default() },
            Mode::Sotw => {
                let Acknowledged { nonce, version } = self.acknowledged[kind as usize].clone();
                Asked { type_url, nonce, version, names, unsubscribe: Vec::new() }
            }
        }
    }

    /// Notes the names of a request that will be repeated (state of the world only).
    pub(crate) fn sent(&mut self, asked: &Asked) {
        if self.mode == Mode::Sotw {
            self.all[Kind::of(&asked.type_url) as usize].clone_from(&asked.names);
        }
    }
}

/// Tells if a response has virtual hosts of a route configuration, or says that there are none.
fn is_for(answer: &Answer, routes: &str) -> bool {
    let is_its = |name: &str| name.strip_prefix(routes).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    answer.resources.iter().any(|resource| is_its(&resource.name)) || answer.removed.iter().any(|name| is_its(name))
}

#[cfg(test)]
mod tests {
    use super::super::wire::{
        Body, ConnectionManager, DeltaResource, Filter, FilterChain, Present, Rds, SotwResponse, Typed,
    };
    use super::*;

    fn delta(kind: Kind, name: &str, body: &impl prost::Message) -> Answer {
        let body = Some(Body { value: body.encode_to_vec().into() });
        let resources = vec![DeltaResource { name: name.to_owned(), body }];
        DeltaResponse { resources, type_url: kind.url().to_owned(), nonce: "n".to_owned(), removed: Vec::new() }.into()
    }

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.to_owned(), discovery: BY_EDS }
    }

    fn listener(routes: &str) -> Listener {
        let manager = ConnectionManager { rds: Some(Rds { route_config_name: routes.to_owned() }) };
        let value = manager.encode_to_vec().into();
        let type_url = "type.googleapis.com/x.HttpConnectionManager".to_owned();
        let filters = vec![Filter { typed: Some(Typed { type_url, value }) }];
        Listener { chains: vec![FilterChain { filters }], default_chain: None }
    }

    fn asked_for(requests: &[Asked]) -> Vec<(Kind, Vec<String>)> {
        requests.iter().map(|r| (Kind::of(&r.type_url), r.names.clone())).collect()
    }

    #[test]
    fn a_client_asks_for_everything_that_follows() {
        let mut session = Session::new(Mode::Delta);
        let name = "outbound|80||a";
        let follows = session.follow(&delta(Kind::Clusters, name, &cluster(name)));
        assert_eq!(asked_for(&follows), [(Kind::Endpoints, vec![name.to_owned()]), (Kind::Listeners, vec![])]);
        assert_eq!(session.awaited(), 2);
        session.follow(&delta(Kind::Endpoints, name, &Named { name: name.to_owned() }));
        let follows = session.follow(&delta(Kind::Listeners, "l", &listener("80")));
        assert_eq!(asked_for(&follows), [(Kind::Routes, vec!["80".to_owned()])]);
        let routes = Routes { name: "80".to_owned(), vhds: Some(Present {}) };
        let follows = session.follow(&delta(Kind::Routes, "80", &routes));
        assert_eq!(asked_for(&follows), [(Kind::VirtualHosts, vec!["80".to_owned()])]);
        assert_eq!(session.awaited(), 1);
        session.follow(&delta(Kind::VirtualHosts, "80/a", &Named { name: "a".to_owned() }));
        assert_eq!(session.awaited(), 0);
        assert!(session.follow(&delta(Kind::Routes, "80", &routes)).is_empty());
    }

    #[test]
    fn a_client_gives_up_the_endpoints_of_a_cluster_that_goes() {
        let mut session = Session::new(Mode::Delta);
        session.follow(&delta(Kind::Clusters, "outbound|80||a", &cluster("outbound|80||a")));
        let removed = vec!["outbound|80||a".to_owned()];
        let gone = DeltaResponse { removed, type_url: Kind::Clusters.url().to_owned(), ..DeltaResponse::default() };
        let follows = session.follow(&gone.into());
        assert_eq!(follows[0].unsubscribe, ["outbound|80||a"]);
        assert_eq!(session.awaited(), 1, "the listeners");
    }

    #[test]
    fn a_client_of_the_state_of_the_world_repeats_its_names() {
        let mut session = Session::new(Mode::Sotw);
        let response = |names: &[&str]| {
            let resources = names.iter().map(|name| Body { value: cluster(name).encode_to_vec().into() }).collect();
            let type_url = Kind::Clusters.url().to_owned();
            SotwResponse { version: "1".to_owned(), resources, type_url, nonce: "n".to_owned() }.into()
        };
        let follows = session.follow(&response(&["outbound|80||a", "outbound|80||b"]));
        follows.iter().for_each(|asked| session.sent(asked));
        let endpoints = SotwResponse { type_url: Kind::Endpoints.url().to_owned(), ..SotwResponse::default() };
        assert_eq!(session.acknowledge(&endpoints.into()).names, ["outbound|80||a", "outbound|80||b"]);
        let follows = session.follow(&response(&["outbound|80||a", "outbound|80||c"]));
        assert_eq!(
            asked_for(&follows),
            [(Kind::Endpoints, vec!["outbound|80||a".to_owned(), "outbound|80||c".to_owned()])]
        );
    }
}
