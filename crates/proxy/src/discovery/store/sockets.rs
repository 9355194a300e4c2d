//! Listeners and their sockets: opened before a listener is taken in, tried again while a port is taken.

use std::net::SocketAddr;
use std::sync::Arc;

use serin_resources::connection_manager::RouteSource;
use serin_resources::{Listener, type_url};
use serin_traffic::router::RouteTable;

use super::{Held, Store};
use crate::error::Error;

impl Store {
    /// Takes a listener in, with the routes that stand in it.
    pub(super) fn open_listener(&mut self, listener: Held<Arc<Listener>>) -> Result<(), Error> {
        match listener.fixed {
            true => self.sockets.check_fixed(&listener.value)?,
            false => self.sockets.check(&listener.value)?,
        }
        self.sockets.open(&listener.value)?;
        let name = &listener.value.name;
        self.built_tables.retain(|table, _| !is_inline_of(table, name));
        for (number, chain) in listener.value.all_chains().enumerate() {
            if let Some(RouteSource::Inline(routes)) = chain.filter.routes() {
                self.built_tables.insert(inline(name, number), Arc::new(RouteTable::compile(routes)));
            }
        }
        self.listeners.insert(listener.value.name.clone(), listener);
        Ok(())
    }

    /// Tries again to open listeners whose ports were taken; true when one could be.
    pub(crate) fn bind_again(&mut self) -> bool {
        let mut opened = false;
        for (name, listener) in std::mem::take(&mut self.unbound) {
            if self.sockets.open(&listener.value).is_err() {
                self.unbound.insert(name, listener);
                continue;
            }
            tracing::info!("{name}: {} is free now and bound", listener.value.address);
            self.rejected.remove(&(type_url::LISTENER.to_owned(), name));
            opened |= self.open_listener(listener).is_ok();
        }
        if opened {
            self.publish();
        }
        opened
    }

    /// Addresses of listeners that cannot be bound.
    pub(crate) fn unbound(&self) -> Vec<SocketAddr> {
        self.unbound.values().map(|held| held.value.address).collect()
    }
}

/// The key of the routes that stand in a listener's chain of that number.
pub(super) fn inline(listener: &str, chain: usize) -> String {
    format!("\u{0}{chain}\u{0}{listener}")
}

/// Returns true for the keys of routes that stand in a listener.
pub(super) fn is_inline_of(key: &str, listener: &str) -> bool {
    let mut parts = key.splitn(3, '\u{0}');
    parts.next() == Some("") && parts.next().is_some() && parts.next() == Some(listener)
}
