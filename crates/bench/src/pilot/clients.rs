//! The simulated proxies: a process of its own that keeps a stream for each, acknowledges every response at once and
//! counts what came. It is told what to do by lines on its standard input, and answers each with a line of JSON.
//!
//! Commands: `connect FROM TO FIRST CLASSES` (the classes of the proxies are FIRST, FIRST+1 … in turns),
//! `disconnect FROM TO`, `expect FROM TO MASKS` (counts anew; each mask is a set of types of which one must come), `poll`
//! and `collect FROM TO`. Times are nanoseconds of the monotonic clock, which all processes of the machine share.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use super::session::{Answer, Asked, KINDS, Mode, Session};
use super::wire::{DeltaRequest, DeltaResponse, Node, Sized, SotwRequest, SotwResponse, Wire};

/// Options of the process.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientsOptions {
    /// Address of the xDS server
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, value_enum)]
    mode: Mode,
    /// Number of threads
    #[arg(long)]
    threads: usize,
}

/// Counts of one client.
#[derive(Debug, Default)]
struct Tally {
    /// Sets of types of which one each must come.
    expected: Vec<u8>,
    /// Types that came.
    seen: u8,
    /// Time of the last acknowledgement.
    last: u64,
    bytes: u64,
    responses: u64,
    resources: [u64; KINDS.len()],
    /// Answers that are outstanding.
    awaited: usize,
    /// Streams that failed.
    broken: u64,
    /// The reason of the last failure.
    error: Option<String>,
}

impl Tally {
    /// Tells if something that is expected has not come.
    fn is_waiting(&self) -> bool {
        self.expected.iter().any(|mask| self.seen & mask == 0) || self.awaited > 0
    }

    fn begin(&mut self, expected: &[u8]) {
        *self = Self { expected: expected.to_vec(), awaited: self.awaited, ..Self::default() };
    }

    /// Notes that the stream failed: the next one begins with nothing.
    fn fail(&mut self, reason: String) {
        self.awaited = 1;
        self.broken += 1;
        self.error = Some(reason);
    }
}

/// One client and its counts.
#[derive(Default)]
struct Client {
    tally: Arc<Mutex<Tally>>,
    task: Option<JoinHandle<()>>,
}

/// All clients.
struct Clients {
    options: ClientsOptions,
    /// One runtime of one thread each: no client is handed from one thread to another.
    threads: Vec<Handle>,
    list: Vec<Client>,
}

/// Reads commands until the input ends.
pub(crate) fn run(options: &ClientsOptions) -> anyhow::Result<()> {
    let threads = (0..options.threads.max(1)).map(|_| thread()).collect::<anyhow::Result<_>>()?;
    let mut clients = Clients { options: options.clone(), threads, list: Vec::new() };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lines() {
        writeln!(output, "{}", clients.command(&line?)?)?;
        output.flush()?;
    }
    Ok(())
}

/// Starts a thread that runs tasks for as long as the process lives.
fn thread() -> anyhow::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Returns the time of the monotonic clock in nanoseconds.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    fn command(&mut self, line: &str) -> anyhow::Result<Value> {
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        let mut rest = words.clone().filter_map(|word| word.parse::<usize>().ok());
        let mut number = || rest.next().with_context(|| format!("'{line}' lacks a number"));
        match command {
            "poll" => Ok(self.poll()),
            "connect" => {
                let (from, to, first, classes) = (number()?, number()?, number()?, number()?);
                (from..to).for_each(|index| self.connect(index, first + index % classes));
                Ok(Value::Null)
            }
            "disconnect" => {
                let range = number()?..number()?;
                for client in self.list.get_mut(range).unwrap_or_default() {
                    client.task.take().inspect(JoinHandle::abort);
                    *client = Client::default();
                }
                Ok(Value::Null)
            }
            "expect" => {
                let range = number()?..number()?;
                let masks = words.next_back().unwrap_or_default().split(',');
                let masks: Vec<u8> = masks.filter_map(|mask| mask.parse().ok()).collect();
                for (index, client) in self.list.iter().enumerate() {
                    lock(&client.tally).begin(if range.contains(&index) { &masks } else { &[] });
                }
                Ok(Value::Null)
            }
            "collect" => {
                let range = number()?..number()?;
                Ok(self.collect(self.list.get(range).unwrap_or_default()))
            }
            _ => bail!("'{line}' is no command"),
        }
    }

    fn connect(&mut self, index: usize, class: usize) {
        let connection =
            Connection { server: self.options.server, mode: self.options.mode, node: Node::of(index, class) };
        while self.list.len() <= index {
            self.list.push(Client::default());
        }
        let client = &mut self.list[index];
        let tally = client.tally.clone();
        // It has nothing yet, and must not pass for a client that waits for nothing.
        lock(&tally).awaited = 1;
        client.task = Some(self.threads[index % self.threads.len()].spawn(async move {
            let mut wait = FIRST_WAIT;
            loop {
                let ended = connection.clone().serve(&tally).await;
                let reason = ended.err().map_or_else(|| "the stream ended".to_owned(), |error| format!("{error:#}"));
                lock(&tally).fail(reason);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }));
    }

    fn poll(&self) -> Value {
        let (mut waiting, mut last, mut broken, mut error) = (0, 0, 0, None);
        for client in &self.list {
            let tally = lock(&client.tally);
            waiting += usize::from(tally.is_waiting());
            last = last.max(tally.last);
            broken += tally.broken;
            error = error.or_else(|| tally.error.clone());
        }
        json!({"waiting": waiting, "last": last, "broken": broken, "error": error})
    }

    fn collect(&self, clients: &[Client]) -> Value {
        let mut resources = [0; KINDS.len()];
        let (mut last, mut all, mut bytes, mut responses) = (Vec::new(), Vec::new(), 0, 0);
        for client in clients {
            let tally = lock(&client.tally);
            all.push(tally.last);
            if !tally.is_waiting() {
                last.push(tally.last);
            }
            bytes += tally.bytes;
            responses += tally.responses;
            resources.iter_mut().zip(tally.resources).for_each(|pair| *pair.0 += pair.1);
        }
        json!({"last": last, "all": all, "bytes": bytes, "responses": responses, "resources": resources})
    }
}

/// Waits before a new stream after a failure: the first, and the longest that they double to, as in Serin's proxy.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A client before it connects.
#[derive(Clone)]
struct Connection {
    server: SocketAddr,
    mode: Mode,
    node: Node,
}

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// Window of a connection and its stream, as Serin's proxy has it.
const WINDOW: u32 = 1 << 20;

impl Connection {
    /// Serves one stream until it ends.
    async fn serve(self, tally: &Mutex<Tally>) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.server))?
            .connect_timeout(Duration::from_secs(10))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let channel = endpoint.connect().await.context("cannot connect")?;
        let stream = Stream { grpc: Grpc::new(channel), session: Session::new(self.mode), tally };
        match self.mode {
            Mode::Delta => {
                let first: DeltaRequest = stream.session.first().into();
                let first = DeltaRequest { node: Some(self.node), ..first };
                stream.serve::<DeltaRequest, DeltaResponse>(first, DELTA).await
            }
            Mode::Sotw => {
                let first: SotwRequest = stream.session.first().into();
                let first = SotwRequest { node: Some(self.node), ..first };
                stream.serve::<SotwRequest, SotwResponse>(first, SOTW).await
            }
        }
    }
}

/// A stream about to open.
struct Stream<'a> {
    grpc: Grpc<Channel>,
    session: Session,
    tally: &'a Mutex<Tally>,
}

impl Stream<'_> {
    async fn serve<Q, R>(self, first: Q, path: &'static str) -> anyhow::Result<()>
    where
        Q: Message + From<Asked> + 'static,
        R: Message + Default + Into<Answer> + 'static,
    {
        let Self { grpc, mut session, tally } = self;
        let mut grpc = grpc.max_decoding_message_size(1 << 30);
        let (sender, receiver) = mpsc::channel(16);
        sender.send(first).await?;
        grpc.ready().await.context("cannot connect")?;
        let request = tonic::Request::new(ReceiverStream::new(receiver));
        let codec = Wire::<Q, R>::default();
        let mut responses = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
        while let Some(Sized { bytes, message }) = responses.message().await? {
            let answer: Answer = message.into();
            sender.send(session.acknowledge(&answer).into()).await?;
            let acknowledged = now();
            for asked in session.follow(&answer) {
                session.sent(&asked);
                sender.send(asked.into()).await?;
            }
            let mut tally = lock(tally);
            tally.seen |= answer.kind.bit();
            tally.last = acknowledged;
            tally.bytes += bytes as u64;
            tally.responses += 1;
            tally.resources[answer.kind as usize] += answer.count() as u64;
            tally.awaited = session.awaited();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Kind;
    use super::*;

    #[test]
    fn a_client_waits_for_one_type_of_each_set() {
        let mut tally = Tally::default();
        tally.begin(&[Kind::Clusters.bit(), Kind::Routes.bit() | Kind::VirtualHosts.bit()]);
        assert!(tally.is_waiting());
        tally.seen = Kind::Clusters.bit() | Kind::VirtualHosts.bit();
        assert!(!tally.is_waiting());
        tally.awaited = 1;
        assert!(tally.is_waiting());
    }

    #[test]
    fn commands_are_read_whole() {
        let options = ClientsOptions { server: ([127, 0, 0, 1], 1).into(), mode: Mode::Delta, threads: 1 };
        let mut clients = Clients { options, threads: Vec::new(), list: vec![Client::default(), Client::default()] };
        clients.command("expect 1 2 1,24").unwrap();
        assert_eq!(clients.command("poll").unwrap()["waiting"], 1);
        assert_eq!(lock(&clients.list[1].tally).expected, [1, 24]);
        assert!(clients.command("connect 1 2").is_err());
        assert!(clients.command("jump").is_err());
    }
}
