//! Listening sockets: one for each worker and listener, opened here so that a failure can be told to whoever asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serin_resources::FormatString;
use serin_resources::Listener;
use serin_resources::access_log::{AccessLog, Sink};
use serin_resources::listener::{Filter, FilterChain};
use serin_resources::local_reply::LocalReplyConfig;
use serin_resources::upgrade::Upgrade;
use serin_telemetry::access_log::{Destination, Writer};
use serin_telemetry::{Counters, Histogram};
use serin_traffic::filter::Chain;
use serin_traffic::log_filter::CompiledFilter;
use serin_traffic::router::RouteTable;
use serin_transport::BoundListener;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::Error;
use crate::handshake::TlsCounts;
use crate::http;
use crate::metric;
use crate::snapshot::{ChainRuntime, Gate, ListenerRuntime, LogRuntime};
use crate::tls::TlsStore;
use crate::worker::Command;

/// All sockets with what their listeners need at run time.
pub(crate) struct Listeners {
    workers: usize,
    commands: Vec<UnboundedSender<Command>>,
    /// A log that every listener gets besides its own.
    access_log: Option<String>,
    /// What was asked for, and what it became (port 0 is any free one).
    bound: HashMap<String, (SocketAddr, SocketAddr)>,
    waiting: HashMap<String, Vec<BoundListener>>,
    /// By `http` or `tcp`, the prefix, and that of the listener.
    stats: HashMap<(&'static str, String, String), Arc<Counters>>,
    /// How long requests took, by prefix.
    times: HashMap<String, Arc<Histogram>>,
    writers: HashMap<String, Arc<Writer>>,
    /// The chains of each listener as they were published last.
    runtimes: HashMap<String, Vec<Arc<ChainRuntime>>>,
    /// Connections that no chain of a listener matched.
    unmatched: HashMap<String, Arc<AtomicU64>>,
    /// Handshakes, by listener.
    handshakes: HashMap<String, Arc<TlsCounts>>,
    /// What TLS is made of.
    pub(crate) tls: Arc<TlsStore>,
}

impl Listeners {
    pub(crate) fn new(workers: usize, commands: Vec<UnboundedSender<Command>>, access_log: Option<String>) -> Self {
        Self {
            workers,
            commands,
            access_log,
            bound: HashMap::new(),
            waiting: HashMap::new(),
            stats: HashMap::new(),
            times: HashMap::new(),
            writers: HashMap::new(),
            runtimes: HashMap::new(),
            unmatched: HashMap::new(),
            handshakes: HashMap::new(),
            tls: Arc::default(),
        }
    }

    /// Checks what the TLS of a listener of discovery is made of, whose files may come later.
    pub(crate) fn check(&self, listener: &Listener) -> Result<(), Error> {
        for settings in listener.all_chains().filter_map(|chain| chain.tls.as_ref()) {
            self.tls.server(settings).map(drop).or_else(|problem| problem.refuses(&listener.name))?;
        }
        Ok(())
    }

    /// The same for one of the bootstrap.
    pub(crate) fn check_fixed(&self, listener: &Listener) -> Result<(), Error> {
        for settings in listener.all_chains().filter_map(|chain| chain.tls.as_ref()) {
            self.tls.server(settings)?;
        }
        Ok(())
    }

    /// Handshakes by the prefix of listeners' statistics.
    pub(crate) fn handshakes(&self, listener: &str) -> Option<&Arc<TlsCounts>> {
        self.handshakes.get(listener)
    }

    /// Opens a listener's sockets; they accept when its routes are known.
    pub(crate) fn open(&mut self, listener: &Listener) -> Result<(), Error> {
        if self.bound.get(&listener.name).is_some_and(|(asked, _)| *asked == listener.address) {
            return Ok(());
        }
        let mut sockets = Vec::with_capacity(self.workers);
        let mut address = listener.address;
        for _ in 0..self.workers {
            let bound = BoundListener::shared(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (actual, socket) = bound.map_err(|error| Error::Bind { address, error })?;
            address = actual;
            sockets.push(socket);
        }
        if self.bound.contains_key(&listener.name) {
            self.close(&listener.name);
        }
        self.bound.insert(listener.name.clone(), (listener.address, address));
        self.waiting.insert(listener.name.clone(), sockets);
        Ok(())
    }

    /// Lets workers accept on every ready listener that waits.
    pub(crate) fn accept(&mut self, ready: &[String]) {
        for name in ready {
            let Some(sockets) = self.waiting.remove(name) else { continue };
            for (command, socket) in self.commands.iter().zip(sockets) {
                let _ = command.send(Command::Listen(name.clone(), socket));
            }
        }
    }

    /// Closes a listener's sockets; its connections end by themselves.
    pub(crate) fn close(&mut self, name: &str) {
        self.bound.remove(name);
        self.waiting.remove(name);
        self.runtimes.remove(name);
        self.unmatched.remove(name);
        self.handshakes.remove(name);
        for command in &self.commands {
            let _ = command.send(Command::Close(name.to_owned()));
        }
    }

    /// Returns the state that the connections of `listener` share; `tables` are the routes of its chains, in the order of the chains. The
    /// state of a chain is the same object while its configuration is the same.
    pub(crate) fn runtime(&mut self, listener: &Arc<Listener>, tables: Vec<Arc<RouteTable>>) -> Arc<ListenerRuntime> {
        let before = self.runtimes.remove(&listener.name).unwrap_or_default();
        let chains = listener.all_chains().enumerate();
        let chains: Vec<Arc<ChainRuntime>> = chains
            .map(|(number, chain)| {
                let is_default = number == listener.chains.len();
                self.chain(listener, chain, is_default, &before)
            })
            .collect();
        self.runtimes.insert(listener.name.clone(), chains.clone());
        let unmatched = self.unmatched.entry(listener.name.clone()).or_default().clone();
        Arc::new(ListenerRuntime {
            config: listener.clone(),
            chains: chains.into_iter().zip(tables).collect(),
            unmatched,
            inspects: listener.inspects_tls(),
        })
    }

    fn chain(
        &mut self,
        listener: &Listener,
        config: &FilterChain,
        is_default: bool,
        before: &[Arc<ChainRuntime>],
    ) -> Arc<ChainRuntime> {
        let same =
            |chain: &&Arc<ChainRuntime>| chain.is_default == is_default && chain.config.matches == config.matches;
        let before = before.iter().find(same);
        let (direction, buffer_limit) = (listener.direction, listener.buffer_limit);
        let of_listener = |chain: &ChainRuntime| chain.direction == direction && chain.buffer_limit == buffer_limit;
        if let Some(chain) = before.filter(|chain| chain.config == *config && of_listener(chain)) {
            return chain.clone();
        }
        let workers = self.workers;
        let (kind, names) = match &config.filter {
            Filter::Http(_) => ("http", http::COUNTERS),
            Filter::Tcp(_) => ("tcp", metric::tcp::NAMES),
        };
        let stats = self.stats.entry((kind, config.filter.stat_prefix().to_owned(), listener.stat_prefix()));
        let stats = stats.or_insert_with(|| Arc::new(Counters::new(names, workers))).clone();
        let times = self.times.entry(config.filter.stat_prefix().to_owned());
        let times = times.or_insert_with(|| Arc::new(Histogram::new(workers))).clone();
        let mut logs = Vec::new();
        let own = self.access_log.clone().map(|path| AccessLog {
            sink: Sink::File(path),
            format: FormatString::default(),
            filter: None,
        });
        for log in config.filter.access_logs().iter().chain(&own) {
            if let Some(writer) = self.writer(&log.sink) {
                let filter = log.filter.as_ref().map(CompiledFilter::new);
                logs.push(LogRuntime { format: log.format.clone(), filter, writer });
            }
        }
        let filters = config.filter.http_filters();
        // What filters remember survives a change of anything else.
        let (http_filters, faults) = match before.filter(|chain| chain.config.filter.http_filters() == filters) {
            Some(before) => (before.http_filters.clone(), before.faults.clone()),
            None => (Arc::new(Chain::new(filters)), Arc::default()),
        };
        let upgrades = config.filter.manager().map(|http| http.upgrades.as_slice()).unwrap_or_default();
        let of_upgrade = |upgrade: &Upgrade| upgrade.filters.as_ref().map(|filters| Arc::new(Chain::new(filters)));
        let upgrade_filters = upgrades.iter().map(of_upgrade).collect();
        let gates = config.gates.iter().map(Gate::new).collect();
        let tls = match before.filter(|chain| chain.config.tls == config.tls) {
            Some(before) => before.tls.clone(),
            None => config.tls.as_ref().map(|tls| self.tls.server_anyway(tls).0),
        };
        let tls_counts = self.handshakes.entry(listener.name.clone()).or_default().clone();
        let replies = config.filter.manager().map(|http| &http.local_replies);
        let is_remembered = !logs.is_empty() || replies.is_some_and(|replies| *replies != LocalReplyConfig::default());
        let mappers = config.filter.manager().into_iter().flat_map(|http| &http.local_replies.mappers);
        let mappers = mappers.map(|mapper| CompiledFilter::new(&mapper.filter)).collect();
        let config = config.clone();
        Arc::new(ChainRuntime {
            config,
            is_default,
            direction,
            buffer_limit,
            stats,
            times,
            logs,
            is_remembered,
            mappers,
            http_filters,
            upgrade_filters,
            gates,
            faults,
            tls,
            tls_counts,
        })
    }

    /// One writer a destination, shared by all listeners.
    fn writer(&mut self, sink: &Sink) -> Option<Arc<Writer>> {
        let destination = match sink {
            Sink::File(path) => Destination::File(path.clone()),
            Sink::Stdout => Destination::Stdout,
            Sink::Stderr => Destination::Stderr,
        };
        let key = format!("{destination:?}");
        if let Some(writer) = self.writers.get(&key) {
            return Some(writer.clone());
        }
        match Writer::open(&destination) {
            Ok(writer) => {
                let writer = Arc::new(writer);
                self.writers.insert(key, writer.clone());
                Some(writer)
            }
            Err(error) => {
                tracing::error!(%error, ?destination, "cannot open access log");
                None
            }
        }
    }

    /// Counters by `http` or `tcp`, and prefix: the sums of those of all listeners.
    pub(crate) fn stats(&self) -> BTreeMap<(&'static str, &String), Vec<(&'static str, u64)>> {
        let mut sums: BTreeMap<_, Vec<(&'static str, u64)>> = BTreeMap::new();
        for ((kind, prefix, _), stats) in &self.stats {
            let sum = sums.entry((*kind, prefix)).or_insert_with(|| stats.iter().map(|(name, _)| (name, 0)).collect());
            sum.iter_mut().zip(stats.iter()).for_each(|((_, sum), (_, count))| *sum += count);
        }
        sums
    }

    /// Counters of HTTP requests by the prefixes of listener and connection manager.
    pub(crate) fn of_listeners(&self) -> impl Iterator<Item = (&String, &String, &Arc<Counters>)> {
        let http = self.stats.iter().filter(|((kind, ..), _)| *kind == "http");
        http.map(|((_, prefix, listener), stats)| (listener, prefix, stats))
    }

    /// How long HTTP requests took, by prefix.
    pub(crate) fn times(&self) -> impl Iterator<Item = (&String, &Arc<Histogram>)> {
        self.times.iter().filter(|(prefix, _)| self.of_listeners().any(|(_, of_http, _)| of_http == *prefix))
    }

    /// Lines that access logs lost.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.writers.values().map(|w| w.dropped()).sum()
    }

    /// Tells every worker something.
    pub(crate) fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            let _ = worker.send(command());
        }
    }

    /// Addresses by listener name.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let mut list: Vec<_> = self.bound.iter().map(|(n, (_, a))| (n.clone(), *a)).collect();
        list.sort();
        let names: HashSet<&String> = self.waiting.keys().collect();
        list.retain(|(name, _)| !names.contains(name));
        list
    }
}
