//! Normalises a request head before anything is decided by it.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use serin_http1::path::{self, Normalise};
use serin_http1::{HeaderBlock, NameSet, RequestHead, Scheme, framing};
use serin_resources::connection_manager::{
    AddressDetection, AuthorityOptions, EscapedSlashes, HttpConnectionManager, PathOptions, StripPort, TrustedProxies,
    Underscores,
};
use serin_resources::route::Route;
use serin_traffic::header_edit::{self, CommandSource};
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::router::{RouteTable, is_grpc};

use super::client_certificate;
use super::local_reply::LocalReply;
use super::upgrade::{Asked, UpgradeRequest, Verdict};
use super::{ConnectionContext, count};
use crate::metric::{self, codec, http};

/// Headers that only internal clients may send (Envoy `ConnectionManagerUtility::cleanInternalHeaders`).
static INTERNAL: NameSet = NameSet::new(&[
    "x-envoy-internal",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
]);

/// Headers that an edge takes from nobody besides.
static OF_EDGE: NameSet = NameSet::new(&[
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
]);

/// The properties of a request that its normalisation finds.
pub(crate) struct RequestInfo {
    /// The protocol that it asks to go on with.
    pub(crate) upgrade: Option<UpgradeRequest>,
    /// True when its client is internal.
    pub(crate) internal: bool,
    /// The address of the client, as far as earlier proxies are trusted.
    pub(crate) client: IpAddr,
}

impl RequestInfo {
    /// What is done about the protocol that it asks for, if it does.
    pub(super) fn verdict(&self, manager: &HttpConnectionManager, route: Option<&Route>) -> Option<Verdict> {
        self.upgrade.as_ref().map(|asked| asked.verdict(&manager.upgrades, route))
    }
}

/// The scheme of a request: who says nothing came by what an earlier proxy said, or by what carries the connection.
fn scheme(context: &ConnectionContext, head: &RequestHead) -> Scheme {
    if head.scheme != Scheme::Unsaid {
        return head.scheme;
    }
    match head.fields.get("x-forwarded-proto").map_or(Scheme::Unsaid, Scheme::of) {
        Scheme::Unsaid => Scheme::of(context.scheme().as_bytes()),
        forwarded => forwarded,
    }
}

/// Brings a request into the form in which it is routed and forwarded.
///
/// # Errors
/// The local reply to a request that is not let in.
pub(crate) fn normalise(
    context: &ConnectionContext,
    manager: &HttpConnectionManager,
    table: &RouteTable,
    head: &mut RequestHead,
    commands: &impl CommandSource,
) -> Result<RequestInfo, Box<LocalReply>> {
    check_host(manager, head).and_then(|()| check_relative(context, head))?;
    check_underscores(manager.heads.underscores, head)?;
    if !head.is_connect() {
        normalise_path(manager.path, head).inspect_err(|reply| {
            let is_redirect = (300..400).contains(&reply.head.status);
            count(context, if is_redirect { http::RQ_NORMALISED_REDIRECT } else { http::RQ_NORMALISATION_FAILED });
        })?;
    }
    header_edit::mutate_request(&manager.early_mutations, head, commands);
    if manager.authority != AuthorityOptions::default() {
        strip_authority(manager.authority, context.local, head);
    }
    let asked = Asked::of(head, manager);
    framing::strip_hop_by_hop(&mut head.fields);
    let upgrade = match asked {
        Some(asked) => Some(asked.restore(head)),
        None => head.is_connect().then_some(UpgradeRequest::Connect),
    };
    if head.fields.get_all("x-forwarded-for").nth(1).is_some() {
        let all = head.fields.get_all("x-forwarded-for").collect::<Vec<_>>().join(&b","[..]);
        head.fields.set("x-forwarded-for", &all);
    }
    let Client { address: client, may_be_internal, appends_peer } =
        client(context, manager, head).inspect_err(|_| count(context, http::RQ_DETECTION_REJECTED))?;
    if appends_peer {
        add_hop(&context.peer.ip(), head);
    }
    let internal = may_be_internal && manager.trust.internal.iter().any(|network| network.contains(client));
    if internal {
        head.fields.set("x-envoy-internal", b"true");
    } else {
        head.fields.remove_all(&INTERNAL);
        if manager.use_remote_address {
            head.fields.remove_all(&OF_EDGE);
        }
        table.internal_only_headers.iter().for_each(|name| _ = head.fields.remove(name));
    }
    let own_scheme = manager.scheme.map_or(context.scheme(), Scheme::as_str);
    if manager.use_remote_address {
        if !internal {
            head.fields.set("x-envoy-external-address", client.to_string().as_bytes());
        }
        if !manager.trust.skip_append {
            add_hop(&context.peer.ip(), head);
        }
        if manager.trust.hops == 0 || !head.fields.contains("x-forwarded-proto") {
            head.fields.set("x-forwarded-proto", own_scheme.as_bytes());
        }
    } else if manager.scheme.is_some() || !head.fields.contains("x-forwarded-proto") {
        head.fields.set("x-forwarded-proto", own_scheme.as_bytes());
    }
    check_referer(head);
    if context.tls.is_some() || head.fields.contains("x-forwarded-client-cert") {
        client_certificate::tell(manager.client_certificate, context.tls.as_deref(), head);
    }
    head.scheme = manager.scheme.unwrap_or_else(|| scheme(context, head));
    let is_edge = manager.use_remote_address && manager.trust.hops == 0;
    if manager.append_forwarded_port
        && (is_edge || !head.fields.contains("x-forwarded-port"))
        && let Some(local) = context.local
    {
        head.fields.set("x-forwarded-port", local.port().to_string().as_bytes());
    }
    if manager.add_user_agent {
        add_user_agent(context, head);
    }
    if !manager.via.is_empty() {
        add_via(&manager.via, &mut head.fields);
    }
    if manager.generate_request_id {
        let edge = manager.use_remote_address && !internal;
        if edge && !manager.trust.keep_request_id {
            head.fields.remove("x-request-id");
        }
        if !head.fields.contains("x-request-id") {
            let id = request_id(context.worker.random(), context.worker.random());
            head.fields.append(b"x-request-id", &id);
        }
    }
    Ok(RequestInfo { upgrade, internal, client })
}

/// Refuses a request that does not say for whom it is (RFC 9112 §3.2).
fn check_host(manager: &HttpConnectionManager, head: &RequestHead) -> Result<(), Box<LocalReply>> {
    if head.fields.contains("host") {
        return Ok(());
    }
    let reply = LocalReply::empty(400, ResponseFlag::None).because("missing_host_header");
    let close = !manager.http1.keep_after_error.unwrap_or(manager.keeps_after_error);
    Err(Box::new(LocalReply { close, ..reply }))
}

/// Refuses a target that is no path, where it may not be one (Envoy: `absolute_path_rejected`).
fn check_relative(context: &ConnectionContext, head: &RequestHead) -> Result<(), Box<LocalReply>> {
    if head.is_connect() || head.target().starts_with(b"/") {
        return Ok(());
    }
    count(context, http::RQ_NON_RELATIVE);
    Err(Box::new(LocalReply::empty(404, ResponseFlag::None).because("absolute_path_rejected")))
}

/// Removes a `referer` that is no URL, or that says more than whence a client came (Envoy: `sanitizeReferer`).
fn check_referer(head: &mut RequestHead) {
    let Some(referer) = head.fields.get("referer") else { return };
    let rest = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| referer.strip_prefix(scheme));
    let is_sound = rest.is_some_and(|rest| {
        let host = rest.split(|b| matches!(b, b'/' | b'?')).next().unwrap_or_default();
        !host.is_empty() && !host.contains(&b'@') && !rest.contains(&b'#')
    });
    if !is_sound {
        head.fields.remove("referer");
    }
}

/// Refuses a request with an underscore in the name of a field, or leaves such fields out.
fn check_underscores(rule: Underscores, head: &mut RequestHead) -> Result<(), Box<LocalReply>> {
    if rule == Underscores::Allow {
        return Ok(());
    }
    let has_one = |name: &[u8]| name.contains(&b'_');
    let names: Vec<Vec<u8>> =
        head.fields.iter().filter(|(name, _)| has_one(name)).map(|(name, _)| name.to_vec()).collect();
    if names.is_empty() {
        return Ok(());
    }
    if rule == Underscores::Reject {
        metric::count_codec(head.version, codec::UNDERSCORES_REJECTED, 1);
        let reply = LocalReply::new(400, "Bad Request", ResponseFlag::DownstreamProtocolError)
            .because("http1.unexpected_underscore");
        return Err(Box::new(LocalReply { close: true, ..reply }));
    }
    metric::count_codec(head.version, codec::UNDERSCORES_DROPPED, names.len() as u64);
    for name in names {
        head.fields.remove(&String::from_utf8_lossy(&name));
    }
    Ok(())
}

/// The reason of a request whose path has no normal form, or another.
const NOT_NORMAL: &str = "path_normalization_failed";

/// Brings the path into its normal form (Envoy: `ConnectionManagerUtility::maybeNormalizePath`).
fn normalise_path(options: PathOptions, head: &mut RequestHead) -> Result<(), Box<LocalReply>> {
    let unescaped = match options.escaped_slashes {
        EscapedSlashes::Keep => None,
        EscapedSlashes::Reject | EscapedSlashes::Redirect | EscapedSlashes::Forward => {
            path::unescape_slashes(head.target())
        }
    };
    let is_unescaped = unescaped.is_some();
    if let Some(path) = unescaped {
        // A gRPC client follows no redirect (Envoy: `ConnectionManagerUtility::maybeNormalizePath`).
        if options.escaped_slashes == EscapedSlashes::Reject
            || (options.escaped_slashes == EscapedSlashes::Redirect && is_grpc(head))
        {
            let reply = LocalReply::empty(400, ResponseFlag::None).because(NOT_NORMAL);
            return Err(Box::new(LocalReply { close: true, ..reply }));
        }
        head.set_target(&path);
    }
    let how = Normalise { dots: options.normalise, merge_slashes: options.merge_slashes };
    let refused = |_| {
        let reply = LocalReply::empty(400, ResponseFlag::None).because(NOT_NORMAL);
        Box::new(LocalReply { close: true, ..reply })
    };
    if let Some(normal) = path::normalise(head.target(), how).map_err(refused)? {
        head.set_target(&normal);
    }
    if is_unescaped && options.escaped_slashes == EscapedSlashes::Redirect {
        let mut reply = LocalReply::empty(307, ResponseFlag::None).because(NOT_NORMAL);
        reply.head.fields.append(b"location", head.target());
        return Err(Box::new(reply));
    }
    Ok(())
}

/// Says which node sends the request (Envoy: `add_user_agent`).
fn add_user_agent(context: &ConnectionContext, head: &mut RequestHead) {
    let state = &context.worker.state;
    let cluster = state.service_cluster().as_bytes();
    head.fields.set("x-envoy-downstream-service-cluster", cluster);
    if head.fields.get("user-agent").is_none_or(<[u8]>::is_empty) {
        head.fields.set("user-agent", cluster);
    }
    if !state.node_id().is_empty() {
        head.fields.set("x-envoy-downstream-service-node", state.node_id().as_bytes());
    }
}

/// The client of a request.
struct Client {
    address: IpAddr,
    /// True when its address can make it an internal one.
    may_be_internal: bool,
    /// True when the address of the peer is appended to `x-forwarded-for`.
    appends_peer: bool,
}

impl Client {
    /// A client whose address nobody vouches for.
    fn new(address: IpAddr) -> Self {
        Self { address, may_be_internal: false, appends_peer: false }
    }
}

/// The client's address: the peer's, or what trusted proxies in front say.
fn client(
    context: &ConnectionContext,
    manager: &HttpConnectionManager,
    head: &RequestHead,
) -> Result<Client, Box<LocalReply>> {
    let peer = context.peer.ip();
    if manager.trust.detection.is_empty() {
        return Ok(by_hops(peer, manager, head));
    }
    for detection in &manager.trust.detection {
        match detection {
            AddressDetection::Header { name, is_trusted, otherwise } => {
                let found = head.fields.get_str(name).and_then(|text| text.trim().parse().ok());
                match (found, otherwise) {
                    (Some(address), _) => return Ok(Client { may_be_internal: *is_trusted, ..Client::new(address) }),
                    (None, Some(status)) => {
                        let reply = LocalReply::empty(*status, ResponseFlag::None);
                        return Err(Box::new(reply.because("rejecting_because_detection_failed")));
                    }
                    (None, None) => {}
                }
            }
            AddressDetection::Forwarded { proxies, appends } => {
                if let Some(address) = before_proxies(proxies, peer, head) {
                    let is_direct = !matches!(proxies, TrustedProxies::Hops(1..));
                    let may_be_internal = is_direct && is_alone(head);
                    return Ok(Client { address, may_be_internal, appends_peer: *appends });
                }
            }
        }
    }
    // The last extension that was asked decides, though it found nothing.
    let appends_peer =
        matches!(manager.trust.detection.last(), Some(AddressDetection::Forwarded { appends: true, .. }));
    Ok(Client { appends_peer, ..Client::new(peer) })
}

/// The address in `x-forwarded-for` that stands before the trusted proxies.
fn before_proxies(proxies: &TrustedProxies, peer: IpAddr, head: &RequestHead) -> Option<IpAddr> {
    let networks = match proxies {
        TrustedProxies::Hops(hops) => return forwarded(head).nth(*hops as usize).flatten(),
        TrustedProxies::Networks(networks) => networks,
    };
    let is_trusted = |address: &IpAddr| networks.iter().any(|network| network.contains(*address));
    if !is_trusted(&peer) {
        return None;
    }
    let mut last = None;
    for entry in forwarded(head) {
        last = Some(entry?);
        if !entry.as_ref().is_some_and(is_trusted) {
            break;
        }
    }
    last
}

/// The entries of `x-forwarded-for` from the last on, as far as they are addresses.
fn forwarded(head: &RequestHead) -> impl Iterator<Item = Option<IpAddr>> {
    let all = head.fields.get("x-forwarded-for").into_iter();
    all.flat_map(|all| all.rsplit(|b| *b == b','))
        .map(|entry| std::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok())
}

/// Returns true when `x-forwarded-for` holds one address: no proxy that adds to it was between.
fn is_alone(head: &RequestHead) -> bool {
    head.fields.get("x-forwarded-for").is_some_and(|all| !all.contains(&b','))
}

/// The client as `x-forwarded-for` says it behind the proxies that are trusted by their number (Envoy:
/// `ConnectionManagerUtility::mutateRequestHeaders`, `Utility::getLastAddressFromXFF`).
fn by_hops(peer: IpAddr, manager: &HttpConnectionManager, head: &RequestHead) -> Client {
    let hops = manager.trust.hops;
    let nth = |skipped: u32| forwarded(head).nth(skipped as usize).flatten();
    if manager.use_remote_address {
        let address = hops.checked_sub(1).and_then(nth).unwrap_or(peer);
        // Through another proxy, nobody is internal.
        return Client { may_be_internal: !head.fields.contains("x-forwarded-for"), ..Client::new(address) };
    }
    match nth(hops) {
        Some(address) => Client { may_be_internal: hops == 0 && is_alone(head), ..Client::new(address) },
        None => Client::new(peer),
    }
}

/// Takes off the authority what it should not have.
fn strip_authority(options: AuthorityOptions, local: Option<SocketAddr>, head: &mut RequestHead) {
    let mut authority = head.authority();
    let at = authority.iter().rposition(|b| *b == b':');
    let port = at.and_then(|at| authority.get(at + 1..)).and_then(|p| std::str::from_utf8(p).ok()?.parse::<u16>().ok());
    if let (Some(at), Some(port)) = (at, port) {
        let strip = match options.strip_port {
            StripPort::Never => false,
            StripPort::Matching => local.is_some_and(|l| l.port() == port),
            StripPort::Any => true,
        };
        if strip {
            authority = authority.get(..at).unwrap_or(authority);
        }
    }
    let mut stripped = authority.to_vec();
    if options.strip_dot {
        // The dot of the name, which may stand before a port.
        let name = authority.iter().rposition(|b| *b == b':').unwrap_or(authority.len());
        if name.checked_sub(1).and_then(|at| authority.get(at)) == Some(&b'.') {
            stripped.remove(name - 1);
        }
    }
    if stripped.len() != head.authority().len() {
        head.fields.set("host", &stripped);
    }
}

/// Adds this proxy to those that a request came through (RFC 9110 §7.6.3, in Envoy's form).
pub(super) fn add_via(name: &str, fields: &mut HeaderBlock) {
    match fields.get("via") {
        Some(before) => {
            let all = [before, b", ", name.as_bytes()].concat();
            fields.set("via", &all);
        }
        None => fields.append(b"via", name.as_bytes()),
    }
}

/// Adds the client's address behind those that are there.
pub(super) fn add_hop(address: &IpAddr, head: &mut RequestHead) {
    let mut text = [0u8; 48];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{address}");
    let left = rest.len();
    let own = text.get(..text.len() - left).unwrap_or_default();
    match head.fields.get("x-forwarded-for") {
        None => head.fields.append(b"x-forwarded-for", own),
        Some(b"") => head.fields.set("x-forwarded-for", own),
        Some(before) => {
            let all = [before, own].join(&b","[..]);
            head.fields.set("x-forwarded-for", &all);
        }
    }
}

/// A random UUID (RFC 9562 version 4).
fn request_id(high: u64, low: u64) -> [u8; 36] {
    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let mut bits = (u128::from(high) << 64) | u128::from(low);
    let mut text = [b'-'; 36];
    for at in (0..36).rev().filter(|at| !matches!(at, 8 | 13 | 18 | 23)) {
        text[at] = b"0123456789abcdef"[(bits & 0xf) as usize];
        bits >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_ids_are_random_uuids() {
        let id = super::request_id(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(std::str::from_utf8(&id), Ok("01234567-89ab-4def-bedc-ba9876543210"));
    }
}
