//! Idle connections by endpoint, of one worker. The newest is used first, so that surplus ones grow old and close.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serin_http1::Codec;
use serin_traffic::balance::Peak;

use super::connect::{H1Connection, H2Connection, Upstream};

/// Streams that one HTTP/2 connection takes before another is made (Istio's limit).
const STREAMS: usize = 100;

/// Connections to one endpoint.
#[derive(Default)]
pub(crate) struct HostPool {
    #[expect(clippy::vec_box, reason = "a connection stays in its box while it is used")]
    http1: RefCell<Vec<Box<H1Connection>>>,
    http2: RefCell<Vec<H2Connection>>,
    /// Connections whose endpoint was told a name that follows from the request.
    named: RefCell<HashMap<Rc<str>, Rc<Self>>>,
    /// The response times of its requests, where they count.
    pub(crate) peak: Cell<Peak>,
}

impl HostPool {
    /// A connection that is still alive.
    pub(crate) fn checkout(&self, codec: Codec) -> Option<Upstream> {
        match codec {
            Codec::Http1 => {
                let mut pool = self.http1.borrow_mut();
                while let Some(connection) = pool.pop() {
                    if is_quiet(&connection) {
                        return Some(Upstream::H1(connection));
                    }
                    connection.gauge.ended_by_remote();
                }
                None
            }
            Codec::Http2 => {
                let mut pool = self.http2.borrow_mut();
                pool.retain(|c| kept(c, c.is_usable()));
                // The oldest that has room: few connections with many streams each are cheaper than the reverse, and
                // surplus ones grow old.
                let found = pool.iter().find(|c| c.usage.streams() < STREAMS && c.session.can_open())?;
                Some(Upstream::H2(found.clone()))
            }
        }
    }

    /// The connections whose endpoint was told that name.
    pub(crate) fn named(&self, name: &Rc<str>) -> Rc<Self> {
        self.named.borrow_mut().entry(name.clone()).or_default().clone()
    }

    /// Any HTTP/2 connection that takes one more stream, however many it has.
    pub(crate) fn any(&self) -> Option<Upstream> {
        let pool = self.http2.borrow();
        let found = pool.iter().find(|c| c.is_usable() && c.session.can_open());
        found.map(|c| Upstream::H2(c.clone()))
    }

    /// Takes a connection back after a complete exchange.
    pub(crate) fn put(&self, mut connection: Box<H1Connection>) {
        connection.reader.rest();
        self.http1.borrow_mut().push(connection);
    }

    /// Shares a new HTTP/2 connection.
    pub(crate) fn share(&self, connection: H2Connection) {
        self.http2.borrow_mut().push(connection);
    }

    /// Drops what is idle too long, closed by the other end, or spoke out of turn.
    fn sweep(&self, now: Instant) {
        self.http1.borrow_mut().retain(|c| {
            let fresh = c.idle_timeout == Duration::ZERO || now.duration_since(c.idle_since) < c.idle_timeout;
            let is_quiet = is_quiet(c);
            if !is_quiet {
                c.gauge.ended_by_remote();
            }
            fresh && is_quiet
        });
        self.http2.borrow_mut().retain(|c| kept(c, c.is_usable() && !c.usage.is_idle(now)));
        self.named.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            let is_used = Rc::strong_count(pool) > 1;
            is_used || !pool.http1.borrow().is_empty() || !pool.http2.borrow().is_empty()
        });
    }

    /// Drops everything.
    fn clear(&self) {
        self.named.borrow_mut().clear();
        self.http1.borrow_mut().clear();
        self.http2.borrow_mut().retain(|c| kept(c, false));
    }
}

impl Drop for HostPool {
    /// A connection made for an endpoint that was gone by then must end too.
    fn drop(&mut self) {
        self.clear();
    }
}

/// All pools of a worker, by endpoint.
#[derive(Default)]
pub(crate) struct Pools(HashMap<u64, Rc<HostPool>>);

impl Pools {
    /// The pool of an endpoint.
    pub(crate) fn of(&mut self, host: u64) -> Rc<HostPool> {
        self.0.entry(host).or_default().clone()
    }

    /// Closes what is not needed any more, and all that leads to endpoints which are not among `hosts`. An HTTP/2
    /// connection closes when its last stream ends after that.
    pub(crate) fn sweep(&mut self, hosts: &HashSet<u64>) {
        let now = Instant::now();
        self.0.retain(|host, pool| {
            let wanted = hosts.contains(host);
            if wanted {
                pool.sweep(now)
            } else {
                pool.clear()
            }
            wanted
        });
    }
}

/// Lets a connection that is not kept end, once its streams have.
fn kept(connection: &H2Connection, wanted: bool) -> bool {
    if !wanted {
        connection.session.shut_down();
    }
    wanted
}

/// Returns true when an idle connection is open and silent: a byte on it would be a response to nothing.
fn is_quiet(connection: &H1Connection) -> bool {
    let mut byte = [0u8; 1];
    let read = connection.reader.socket.try_read(&mut byte);
    connection.reader.buffer.is_empty() && matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests;
