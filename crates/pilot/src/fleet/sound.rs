//! Resources as proxies will read them. Documents are checked so that no proxy rejects what becomes of them; where one would all the
//! same, what it would reject is refused by itself, instead of every proxy rejecting all that comes with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serin_resources::header::HeaderEdits;
use serin_resources::http_filter::PerRoutes;
use serin_resources::route::{Action, PathMatch, Respond, Route, RouteMatch, VirtualHost};
use serin_resources::{ApiListener, Audit, Cluster, Error, Listener, LoadAssignment, RouteConfiguration, type_url};
use serin_xds::Resource;
use xxhash_rust::xxh64::Xxh64;

/// Encoded resources that are in use, so that classes with the same one share it, and none is decoded twice to see that it is sound.
#[derive(Default)]
pub(super) struct Encoded {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    resources: HashMap<u64, Weak<Resource>>,
    /// Size at which resources that nobody uses any more are looked for.
    limit: usize,
}

impl Encoded {
    /// Returns the resource of these bytes.
    ///
    /// # Errors
    /// The objection of a proxy against it.
    pub(super) fn resource(&self, type_url: &str, name: &str, body: Vec<u8>) -> Result<Arc<Resource>, Error> {
        let key = key(type_url, name, &body);
        let is_it = |known: &Arc<Resource>| *known.name == *name && *known.body == *body;
        if let Some(known) = self.lock().resources.get(&key).and_then(Weak::upgrade).filter(is_it) {
            return Ok(known);
        }
        check(type_url, &body)?;
        let version = format!("{key:016x}");
        let resource = Arc::new(Resource { name: name.into(), version, body: body.into() });
        let mut known = self.lock();
        known.resources.insert(key, Arc::downgrade(&resource));
        if known.resources.len() > known.limit {
            known.resources.retain(|_, resource| resource.strong_count() > 0);
            known.limit = 1024.max(2 * known.resources.len());
        }
        Ok(resource)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version of a resource: a hash of all that it is.
fn key(type_url: &str, name: &str, body: &[u8]) -> u64 {
    let mut hash = Xxh64::new(0);
    for part in [type_url.as_bytes(), name.as_bytes(), body] {
        hash.update(part);
        hash.update(&[0]);
    }
    hash.digest()
}

/// Reads a resource as a proxy will.
fn check(type_url: &str, body: &[u8]) -> Result<(), Error> {
    let audit = &mut Audit::default();
    match type_url {
        type_url::CLUSTER => Cluster::decode(body, audit).map(drop),
        type_url::ENDPOINT => LoadAssignment::decode(body, audit).map(drop),
        type_url::LISTENER if ApiListener::is_one(body) => Ok(()),
        type_url::LISTENER => Listener::decode(body, audit).map(drop),
        type_url::ROUTE => RouteConfiguration::decode(body, audit).map(drop),
        type_url::VIRTUAL_HOST => VirtualHost::decode(body, audit).map(drop),
        _ => Ok(()),
    }
}

/// Returns the same virtual host with those rules refused that proxies would reject.
pub(super) fn mended(host: &VirtualHost) -> VirtualHost {
    let is_sound = |host: &VirtualHost| check(type_url::VIRTUAL_HOST, &host.encode());
    let mut mended = VirtualHost { routes: Vec::new(), ..host.clone() };
    for route in &host.routes {
        mended.routes.push(route.clone());
        let Err(error) = is_sound(&mended) else { continue };
        tracing::error!(
            "a rule of {} answers 503, because proxies would reject it: {error}",
            host.domains.first().map_or("", String::as_str)
        );
        let Some(last) = mended.routes.last_mut() else { continue };
        let body = b"serin: this rule cannot be carried out".to_vec();
        *last = Route {
            name: last.name.clone(),
            matches: last.matches.clone(),
            action: Action::Respond(Respond { status: 503, body, format: None }),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            filters: PerRoutes::default(),
            buffers: Default::default(),
        };
        if is_sound(&mended).is_err()
            && let Some(last) = mended.routes.last_mut()
        {
            // What it matches cannot be said either: from here on nothing of the host is certain.
            last.matches = RouteMatch::path(PathMatch::Prefix("/".to_owned()));
        }
    }
    mended
}
