//! What becomes of resources that belong together, as the discovery client brings them.

use arc_swap::ArcSwap;
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::listener::{Direction, Filter, FilterChainMatch};
use serin_traffic::filter_chain::Connection;
use serin_xds::client::{Handler as _, Update};
use tokio::sync::mpsc;

use super::*;
use crate::discovery::handler::StoreHandler;
use crate::spans;
use crate::state::State;
use crate::worker::Worker;

/// A store behind its handler, and what workers see of it.
fn handler() -> (StoreHandler, Shared) {
    let shared = Shared {
        snapshot: Arc::new(ArcSwap::default()),
        connections: Arc::default(),
        most_held: usize::MAX,
        state: State::new(),
        spans: spans::channel().0,
    };
    let mut store = Store::new(1, shared.clone(), Vec::new(), None, mpsc::unbounded_channel().0);
    store.is_incremental = true;
    let store = Arc::new(Mutex::new(store));
    (StoreHandler { store, state: State::new(), missed: false }, shared)
}

fn put(
    handler: &mut StoreHandler,
    type_url: &str,
    changed: Vec<(&str, Vec<u8>)>,
    removed: &[&str],
) -> Result<(), String> {
    let changed = changed.into_iter().map(|(name, body)| (name.to_owned(), "1".to_owned(), body.into()));
    let update = Update {
        type_url: type_url.to_owned(),
        changed: changed.collect(),
        removed: removed.iter().map(ToString::to_string).collect(),
        full: false,
        nonce: String::new(),
        version: String::new(),
    };
    handler.apply(&update).map_err(|error| error.to_string())
}

fn host(name: &str, domains: &[&str]) -> Vec<u8> {
    let domains = domains.iter().map(ToString::to_string).collect();
    VirtualHost { name: name.to_owned(), domains, ..VirtualHost::default() }.encode()
}

/// The virtual host that a listener with the routes `r` finds for a request.
fn found(shared: &Shared, authority: &str) -> Option<String> {
    let snapshot = shared.snapshot.load_full();
    let (_, table) = snapshot.listeners.get("main")?.chains.first()?.clone();
    table.virtual_host(authority.as_bytes()).map(|host| host.config.name.clone())
}

fn chain(stat_prefix: &str, routes: RouteSource, matches: FilterChainMatch) -> FilterChain {
    let filter = Filter::http(HttpConnectionManager::new(stat_prefix, routes));
    FilterChain { matches, ..FilterChain::new(filter) }
}

fn listener(chains: Vec<FilterChain>) -> Vec<u8> {
    let address = "127.0.0.1:0".parse().unwrap();
    let first = chains.first().map(|chain| chain.filter.clone()).unwrap();
    Listener { chains, ..Listener::new("main".to_owned(), address, Direction::Unspecified, first) }.encode()
}

/// Two virtual hosts that claim a domain do not go together: the update is rejected, what was before stays, and when one goes the other
/// is served.
#[test]
fn virtual_hosts_with_the_same_domain_are_refused() {
    let (mut handler, shared) = handler();
    let routes = RouteConfiguration { name: "r".to_owned(), has_vhds: true, ..RouteConfiguration::default() };
    let main = listener(vec![chain("main", RouteSource::Rds("r".to_owned()), FilterChainMatch::default())]);
    put(&mut handler, type_url::LISTENER, vec![("main", main)], &[]).unwrap();
    put(&mut handler, type_url::ROUTE, vec![("r", routes.encode())], &[]).unwrap();
    assert_eq!(found(&shared, "a.example"), None, "its virtual hosts have not come yet");
    let first = vec![("r/a", host("r/a", &["a.example"])), ("r/b", host("b", &["b.example"]))];
    put(&mut handler, type_url::VIRTUAL_HOST, first, &[]).unwrap();
    assert_eq!(found(&shared, "a.example").as_deref(), Some("a"));

    let other = vec![("r/c", host("r/c", &["c.example", "A.example"]))];
    let refused = put(&mut handler, type_url::VIRTUAL_HOST, other, &[]).unwrap_err();
    assert!(refused.starts_with("r: ") && refused.contains("appears twice"), "{refused}");
    assert_eq!(found(&shared, "a.example").as_deref(), Some("a"));
    assert_eq!(found(&shared, "c.example"), None);

    put(&mut handler, type_url::VIRTUAL_HOST, Vec::new(), &["r/a"]).unwrap();
    assert_eq!(found(&shared, "a.example").as_deref(), Some("c"));
    assert_eq!(found(&shared, "c.example").as_deref(), Some("c"));
    assert_eq!(found(&shared, "b.example").as_deref(), Some("b"));

    // One goes and another takes its domain in the same response.
    let swap = vec![("r/d", host("r/d", &["a.example"]))];
    put(&mut handler, type_url::VIRTUAL_HOST, swap, &["r/c"]).unwrap();
    assert_eq!(found(&shared, "a.example").as_deref(), Some("d"));
}

/// A connection goes on with the chain that matches the same, whatever its number is then; without one it keeps what it had.
#[tokio::test]
async fn chains_are_followed_by_what_they_match() {
    let (mut handler, shared) = handler();
    let worker = Worker::new(0, shared.clone());
    let inline = || RouteSource::Inline(RouteConfiguration::default());
    let to = |port: u16| FilterChainMatch {
        destination_port: std::num::NonZeroU16::new(port),
        ..FilterChainMatch::default()
    };
    let main = listener(vec![chain("one", inline(), to(1)), chain("two", inline(), to(2))]);
    put(&mut handler, type_url::LISTENER, vec![("main", main)], &[]).unwrap();
    let prefix = |view: &crate::worker::View| view.chain.config.filter.stat_prefix().to_owned();
    let source = "10.0.0.1:7".parse().unwrap();
    let choose = |port: u16| {
        let destination = SocketAddr::from(([127, 0, 0, 1], port));
        let connection = Connection { destination, direct_source: source, source, hello: None };
        worker.view("main", |listener| listener.choose(|| connection))
    };
    let (one, two) = (choose(1).unwrap(), choose(2).unwrap());
    assert_eq!((prefix(&one), prefix(&two)), ("one".to_owned(), "two".to_owned()));
    assert!(choose(3).is_none());
    let unmatched = shared.snapshot.load().listeners["main"].unmatched.clone();
    assert_eq!(unmatched.load(std::sync::atomic::Ordering::Relaxed), 1);

    let changed = listener(vec![chain("three", inline(), to(2)), chain("rest", inline(), FilterChainMatch::default())]);
    put(&mut handler, type_url::LISTENER, vec![("main", changed)], &[]).unwrap();
    let follow = |chain| worker.view("main", |listener| listener.successor(chain));
    assert_eq!(follow(&two.chain).map(|view| prefix(&view)).as_deref(), Some("three"));
    assert!(follow(&one.chain).is_none());
    assert_eq!(choose(1).map(|view| prefix(&view)).as_deref(), Some("rest"));
}
