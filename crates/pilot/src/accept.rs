//! Accepting connections so that nobody can exhaust the pilot: as many as there are descriptors for, less a reserve for files, and none
//! that says nothing.
//!
//! Over the limit, a new connection takes the place of a silent one ([`MakesRoom`]), or waits until another ends. One that has not sent
//! a byte within [`FIRST_BYTE`], or none for [`IDLE`], is ended. An error of accepting is waited out: trying again at once would take a
//! whole core.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use serin_transport::{ByteStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

/// Time for the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// Longest silence. Servers ask their HTTP/2 clients for a sign of life more often than that.
const IDLE: Duration = Duration::from_secs(75);

/// Silence after which a connection may have to make room.
const QUIET: Duration = Duration::from_millis(250);

/// The same for one that has said nothing at all: whoever asks for something does so at once.
const MUTE: Duration = Duration::from_millis(50);

/// How long a connection of a proxy may take until it asks for something, when others wait for its place.
const GREETING: Duration = Duration::from_secs(2);

/// How long is waited after accepting failed.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Descriptors that connections leave to files and to what the pilot asks of others.
const RESERVE: u64 = 48;

/// How many connections there may be: a share of the descriptors that this process may have.
#[must_use]
pub(crate) fn share(numerator: u64, denominator: u64) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20).min(1 << 20);
    let usable = limit.saturating_sub(RESERVE).max(8) * numerator / denominator;
    usize::try_from(usable).unwrap_or(usize::MAX).max(4)
}

/// A socket that accepts so many connections at most at a time.
pub(crate) struct Bounded {
    listener: Listener,
    places: Arc<Semaphore>,
    held: Arc<Mutex<Vec<Held>>>,
    name: &'static str,
    makes_room: MakesRoom,
    /// Whether it is known that accepting fails.
    fails: bool,
    /// Whether it was said that there is no place.
    is_full: AtomicBool,
}

/// Which connections end when a new one finds no place.
#[derive(Clone)]
pub(crate) enum MakesRoom {
    /// The one that has been silent for longest, for [`QUIET`] at least.
    LongestSilent,
    /// The one that has been silent for longest of those that have said nothing at all, or are older than [`GREETING`] and not served:
    /// silence of one that is served means nothing.
    Unserved(Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>),
}

/// A connection as the socket remembers it.
struct Held {
    heard: Heard,
    peer: SocketAddr,
    /// Ends it when it is dropped.
    _ends: oneshot::Sender<()>,
}

impl Bounded {
    /// `name` is what the socket is for, in warnings.
    pub(crate) fn new(listener: Listener, most: usize, name: &'static str, makes_room: MakesRoom) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { listener, places, held: Arc::default(), name, makes_room, fails: false, is_full: AtomicBool::new(false) }
    }

    async fn next(&mut self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.fails = false;
                    let _ = stream.set_nodelay(true);
                    let place = self.place().await;
                    return self.hold(stream, peer, place);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.fails, true) {
                        tracing::warn!("cannot accept connections for {}: {error}; trying again", self.name);
                    }
                    self.make_room();
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    /// A place, for which another connection may have to end.
    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                if self.places.available_permits() > 0 {
                    self.is_full.store(false, Relaxed);
                }
                return place;
            }
            if !self.is_full.swap(true, Relaxed) {
                tracing::warn!("there are as many connections for {} as may be: silent ones make room", self.name);
            }
            self.make_room();
            let freed = tokio::time::timeout(MUTE, self.places.clone().acquire_owned());
            if let Ok(Ok(place)) = freed.await {
                return place;
            }
        }
    }

    /// Ends a connection that may end.
    fn make_room(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let may_end = |held: &&Held| {
            let silence = now.duration_since(held.heard.silent_since());
            match &self.makes_room {
                _ if !held.heard.has_spoken() => silence >= MUTE,
                MakesRoom::LongestSilent => silence >= QUIET,
                MakesRoom::Unserved(is_served) => {
                    now.duration_since(held.heard.began) >= GREETING && !is_served(held.peer)
                }
            }
        };
        let longest = held.iter().filter(may_end).map(|held| held.heard.silent_since()).min();
        if let Some(place) = held.iter().position(|held| Some(held.heard.silent_since()) == longest) {
            held.swap_remove(place);
        }
    }

    fn hold(&self, stream: ByteStream, peer: SocketAddr, place: OwnedSemaphorePermit) -> Accepted {
        let (sender, ended) = oneshot::channel();
        let heard = Heard::new();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that ended by themselves are nobody's.
        held.retain(|held| Arc::strong_count(&held.heard.after) > 1);
        held.push(Held { heard: heard.clone(), peer, _ends: sender });
        Accepted { stream, peer, heard, ended, place }
    }

    /// Gives connections to so many threads, in turn, each with a runtime of its own: a stream that is woken is served where its
    /// connection is, and no other thread is woken for it. `server` is called once in each thread; what it returns is called with each
    /// connection for that thread, and spawns a local task that serves it.
    pub(crate) fn spread<S: Fn(Accepted)>(
        mut self,
        threads: usize,
        server: impl Fn() -> S + Clone + Send + 'static,
    ) -> io::Result<mpsc::Receiver<anyhow::Error>> {
        let (failed, failures) = mpsc::channel(threads);
        let mut senders = Vec::new();
        for number in 0..threads {
            let (sender, mut accepted) = mpsc::channel::<Accepted>(1);
            senders.push(sender);
            let (server, failed) = (server.clone(), failed.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("serin-xds-{number}")).spawn(move || {
                tokio::task::LocalSet::new().block_on(&runtime, async {
                    let serve = server();
                    while let Some(accepted) = accepted.recv().await {
                        serve(accepted);
                    }
                });
                let _ = failed.blocking_send(anyhow::anyhow!("it ended"));
            })?;
        }
        tokio::spawn(async move {
            for place in (0..senders.len()).cycle() {
                let accepted = self.next().await;
                let Some(sender) = senders.get(place) else { return };
                if sender.send(accepted).await.is_err() {
                    return;
                }
            }
        });
        Ok(failures)
    }
}

/// A connection before anybody looks after it.
pub(crate) struct Accepted {
    stream: ByteStream,
    peer: SocketAddr,
    heard: Heard,
    /// Resolves when another connection needs the place.
    ended: oneshot::Receiver<()>,
    place: OwnedSemaphorePermit,
}

impl Accepted {
    /// Serves the connection with the runtime of the caller, until it ends or another needs its place.
    pub(crate) async fn serve<F: Future<Output = ()>>(self, serve: impl FnOnce(ByteStream, SocketAddr, Heard) -> F) {
        let Self { stream, peer, heard, ended, place: _place } = self;
        let Ok(stream) = stream.into_current_runtime() else { return };
        tokio::select! {
            () = serve(stream, peer, heard) => {}
            _ = ended => {}
        }
    }
}

/// Remembers when a connection was heard last.
#[derive(Clone)]
pub(crate) struct Heard {
    /// Milliseconds after [`began`](Self::began); 0 is never.
    after: Arc<AtomicU64>,
    began: Instant,
}

impl Heard {
    fn new() -> Self {
        Self { after: Arc::new(AtomicU64::new(0)), began: Instant::now() }
    }

    /// Notes that the connection said something now.
    pub(crate) fn note(&self) {
        let after = self.began.elapsed().as_millis().max(1);
        self.after.store(u64::try_from(after).unwrap_or(u64::MAX), Relaxed);
    }

    fn has_spoken(&self) -> bool {
        self.after.load(Relaxed) > 0
    }

    fn silent_since(&self) -> Instant {
        self.began + Duration::from_millis(self.after.load(Relaxed))
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Accepted { stream, peer, heard, ended, place } = self.next().await;
        let silence = Box::pin(tokio::time::sleep(FIRST_BYTE));
        (Connection { stream, silence, heard, ended, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is silent for too long.
pub(crate) struct Connection {
    stream: ByteStream,
    silence: Pin<Box<Sleep>>,
    heard: Heard,
    /// Resolves when another connection needs the place.
    ended: oneshot::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.silence.as_mut().reset(Instant::now() + IDLE);
                self.heard.note();
                Poll::Ready(read)
            }
            Poll::Pending if Pin::new(&mut self.ended).poll(context).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
