//! Idle connections by endpoint, of one worker. The newest is used first, so that surplus ones grow old and close.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::connect::{H1Connection, H2Connection, Upstream};

/// Streams that one HTTP/2 connection takes before another is made (Istio's limit).
const STREAMS: usize = 100;

/// All pools of a worker.
#[derive(Default)]
pub(crate) struct Pools {
    http1: HashMap<u64, Vec<H1Connection>>,
    http2: HashMap<u64, Vec<H2Connection>>,
}

impl Pools {
    /// A connection to that host that is still alive.
    pub(crate) fn checkout(&mut self, host: u64, h2: bool) -> Option<Upstream> {
        if h2 {
            let pool = self.http2.get_mut(&host)?;
            pool.retain(|c| c.usage.is_usable());
            let found = pool.iter().filter(|c| c.usage.streams() < STREAMS).min_by_key(|c| c.usage.streams())?;
            return Some(Upstream::H2(found.clone()));
        }
        let pool = self.http1.get_mut(&host)?;
        while let Some(connection) = pool.pop() {
            if is_quiet(&connection) {
                return Some(Upstream::H1(connection));
            }
        }
        None
    }

    /// Takes a connection back after a complete exchange.
    pub(crate) fn put(&mut self, host: u64, mut connection: H1Connection) {
        connection.idle_since = Instant::now();
        self.http1.entry(host).or_default().push(connection);
    }

    /// Shares a new HTTP/2 connection.
    pub(crate) fn share(&mut self, host: u64, connection: H2Connection) {
        self.http2.entry(host).or_default().push(connection);
    }

    /// Drops what is idle too long, closed by the other end, or spoke out of turn, and all that leads to hosts which
    /// are not among `hosts`. An HTTP/2 connection closes when its last stream ends after that.
    pub(crate) fn sweep(&mut self, hosts: &HashSet<u64>) {
        let now = Instant::now();
        self.http1.retain(|host, pool| {
            pool.retain(|c| {
                let fresh = c.idle_timeout == Duration::ZERO || now.duration_since(c.idle_since) < c.idle_timeout;
                fresh && is_quiet(c)
            });
            !pool.is_empty() && hosts.contains(host)
        });
        self.http2.retain(|host, pool| {
            pool.retain(|c| c.usage.is_usable() && !c.usage.is_idle(now));
            !pool.is_empty() && hosts.contains(host)
        });
    }
}

/// Whether an idle connection is open and silent: a byte on it would be an answer to nothing.
fn is_quiet(connection: &H1Connection) -> bool {
    let mut byte = [0u8; 1];
    let read = connection.reader.socket.try_read(&mut byte);
    connection.reader.buffer.is_empty() && matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}
