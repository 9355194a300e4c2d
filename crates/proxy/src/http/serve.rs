//! The life of a request, one stage after the other. Every stage takes plain arguments and returns a value or a `Stop`.

use serin_traffic::response_flag::ResponseFlag;
use std::rc::Rc;

use serin_http1::RequestHead;
use serin_http1::framing::Framing;
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::header::HeaderEdits;
use serin_resources::listener::Filter;
use serin_resources::route::{Action, Forward, RandomSource, RequireTls, WeightedCluster};
use serin_traffic::filter::Overrides;
use serin_traffic::hash::{self, Hashed};
use serin_traffic::header_edit;
use serin_traffic::router::{Circumstances, RouteTable, is_grpc};
use serin_traffic::{redirect, rewrite, timeout};

use super::attempts::Target;
use super::body::RequestBody;
use super::deadlines::Deadlines;
use super::draw::{Drawn, cluster_name, draw};
use super::filters::{ActiveFilters, FilterContext, RequestParts, ResponseParts};
use super::finish::StreamInfo;
use super::follow::Redirects;
use super::local_reply::{LocalReply, Stop};
use super::request::RequestInfo;
use super::respond::{self, Disposition, Responder};
use super::stage::{Forwarded, MatchedRoute, RouteCommands, Stages, metadata};
use super::strict::check_strictly;
use super::upgrade::Verdict;
use super::{ConnectionContext, admit_upgrade, attempts, held, mirror, request};
use crate::metric;
use crate::worker::{LocalCluster, View};

/// Serves one request; `framing` is that of its body.
pub(crate) async fn serve(
    context: &Rc<ConnectionContext>,
    head: &mut RequestHead,
    mut framing: Framing,
    mut body: RequestBody<'_>,
    responder: Responder<'_>,
) -> Disposition {
    let (_, view) = context.view();
    let mut record = StreamInfo::new(context, &view, body.timers.last());
    record.arrived(head, framing);
    let (http, info) = match admit(&view, head, &mut body, &record) {
        Ok(admitted) => admitted,
        Err(stop) => return stopped(stop, head, &body, responder, &mut record).await,
    };
    record.request_info(&info, head, http.tracing.as_ref());
    // Bytes of another protocol may have been sent ahead: what follows is not another request.
    let responder = responder.closing_if(info.upgrade.is_some());
    let mut redirects = Redirects::new(context.tls.is_some());
    let served = loop {
        let found = find(&view.table, head, info.internal, context.circumstances());
        let place = found.place();
        routed(place, head, &mut record);
        let drawn = place.map(|p| draw(p, context, &info, head));
        let overrides = overrides(&view.table, place, drawn.as_ref());
        let cluster = place.zip(drawn.as_ref()).and_then(|(p, d)| cluster_name(p, d, head));
        let verdict = record.upgrade(info.verdict(http, place.map(|p| &p.route.config)));
        log_beginning(&view, place, drawn.as_ref(), &mut record);
        let chain = admit_upgrade::begin(&view.chain, verdict, head, &mut framing, &mut body);
        let mut filters = ActiveFilters::new(FilterContext {
            connection: context,
            view: &view,
            chain,
            request: &info,
            overrides: &overrides,
            cluster: cluster.as_deref(),
        });
        let mut request = RequestParts { head, body: &mut body, framing: &mut framing, record: &record };
        let passed = match chain.links().is_empty() {
            _ if verdict == Some(Verdict::Rejected) && place.is_some() => {
                Err(Stop::Reply(admit_upgrade::rejected(&record)))
            }
            true => Ok(()),
            false => filters.request_head(&mut request).await,
        };
        let outcome = match (passed, place.zip(drawn)) {
            (Err(stop), drawn) => {
                record_skipped_cluster(&view, drawn.as_ref().map(|(place, drawn)| (*place, drawn)), &mut record);
                Err(stop)
            }
            (Ok(()), None) => Err(Stop::Reply(unrouted(&found, head, &record))),
            (Ok(()), Some((place, drawn))) => {
                let stages = Stages { context, view: &view, place, http, request: &info, framing };
                match stages.run(drawn, head, &mut body, &mut record).await {
                    Ok(forwarded) => Ok((stages, forwarded)),
                    Err(stop) => Err(stages.edited(stop, head, &mut record)),
                }
            }
        };
        match outcome {
            Ok((stages, forwarded)) => {
                let place = stages.place;
                let target = |candidate: &RequestHead| {
                    let found = find(&view.table, candidate, info.internal, context.circumstances());
                    found.place().map(|place| place.route.config.name.clone())
                };
                let mut request = RequestParts { head, body: &mut body, framing: &mut framing, record: &record };
                if redirects.follow(&forwarded, &place.route.config.name, target, &mut request) {
                    body.leave_filters();
                    // Where it goes now it has all its time.
                    body.timers.tick();
                    continue;
                }
                body.forget();
                let edits = stages.response_edits(forwarded.destination);
                let upgrade = info.upgrade.as_ref();
                let shape = respond::Shape { edits, http, place, request: head, upgrade, filters };
                break respond::answer(forwarded, shape, &mut body, responder, &mut record).await;
            }
            Err(Stop::Reply(reply)) => {
                let reply = completed(reply, place, head, &mut record, &mut filters).await;
                break respond::local(reply, head, &body, responder, &mut record).await;
            }
            Err(stop) => break stopped(stop, head, &body, responder, &mut record).await,
        }
    };
    record.received = body.received();
    served
}

/// Lets a request in and normalises it, or stops it before it is routed.
#[inline]
fn admit<'v>(
    view: &'v View,
    head: &mut RequestHead,
    body: &mut RequestBody<'_>,
    record: &StreamInfo,
) -> Result<(&'v HttpConnectionManager, RequestInfo), Stop> {
    let closing = |reply: LocalReply| Stop::Reply(LocalReply { close: true, ..reply });
    let context = record.context();
    if let Some(reply) = unserved(context, record) {
        return Err(closing(reply));
    }
    // The listener became another: the connection ends as its configuration did.
    let Filter::Http(http) = &view.chain.config.filter else { return Err(Stop::DownstreamGone) };
    body.idle = http.timeouts.stream_idle;
    Ok((http, request::normalise(context, http, &view.table, head, record).map_err(|reply| Stop::Reply(*reply))?))
}

/// Ends a request that no route completes: with a local reply, or by breaking off.
async fn stopped(
    stop: Stop,
    head: &RequestHead,
    body: &RequestBody<'_>,
    responder: Responder<'_>,
    record: &mut StreamInfo,
) -> Disposition {
    let reply = match stop {
        Stop::Reply(reply) => reply,
        Stop::DownstreamGone => return Disposition::Abort,
        Stop::Bug(what) => {
            tracing::error!("a bug in Serin ended a request: {what}");
            LocalReply { close: true, ..LocalReply::empty(500, ResponseFlag::None) }
        }
    };
    let reply = reply.mapped(head, record).for_request(head);
    respond::local(reply, head, body, responder, record).await
}

/// The local reply to a request that is not looked at further.
fn unserved(context: &ConnectionContext, record: &StreamInfo) -> Option<LocalReply> {
    if held::is_exhausted(context) {
        record.count(metric::http::RQ_OVERLOAD);
        let details = Some("overload".into());
        return Some(LocalReply {
            details,
            ..LocalReply::new(503, "too much waits for clients that do not read", ResponseFlag::OverloadManager)
        });
    }
    None
}

/// Records the route that was found.
fn routed(place: Option<MatchedRoute<'_>>, head: &RequestHead, record: &mut StreamInfo) {
    if let Some(place) = place {
        record.route(&place.host.config.name, &place.route.config.name);
    }
    record.log_followed(head);
}

/// Logs that a request begins, where that is wanted.
fn log_beginning(view: &View, place: Option<MatchedRoute<'_>>, drawn: Option<&Drawn>, record: &mut StreamInfo) {
    if record.wants_beginning() {
        record_skipped_cluster(view, place.zip(drawn), record);
        record.begins();
    }
}

/// Records the cluster that the request would have gone to, when a filter replied.
fn record_skipped_cluster(view: &View, drawn: Option<(MatchedRoute<'_>, &Drawn)>, record: &mut StreamInfo) {
    let number = drawn.and_then(|(place, drawn)| place.route.clusters.get(drawn.part).copied());
    if let Some(cluster) = number.and_then(|number| view.cluster(number, record.worker()).cloned()) {
        record.cluster(&cluster);
    }
}

/// The result of looking for a route.
enum Found<'a> {
    Route(MatchedRoute<'a>),
    /// Its virtual host takes no plain text, whatever the path.
    Insecure,
    Nothing,
}

impl<'a> Found<'a> {
    fn place(&self) -> Option<MatchedRoute<'a>> {
        match self {
            Self::Route(place) => Some(*place),
            Self::Insecure | Self::Nothing => None,
        }
    }
}

#[inline]
fn find<'a>(table: &'a RouteTable, head: &RequestHead, internal: bool, around: Circumstances) -> Found<'a> {
    let Some(host) = table.virtual_host(head.authority()) else { return Found::Nothing };
    let secure = || head.fields.get("x-forwarded-proto") == Some(b"https");
    let insecure = match host.config.require_tls {
        RequireTls::No => false,
        RequireTls::External => !internal && !secure(),
        RequireTls::All => !secure(),
    };
    match table.route(host, head, around) {
        _ if insecure => Found::Insecure,
        Some(route) => Found::Route(MatchedRoute { host, route }),
        None => Found::Nothing,
    }
}

/// The local reply to a request without a route.
fn unrouted(found: &Found<'_>, head: &RequestHead, record: &StreamInfo) -> LocalReply {
    if matches!(found, Found::Insecure) {
        record.count(metric::http::RQ_DIRECT_RESPONSE);
        return to_https(head);
    }
    record.count(metric::http::NO_ROUTE);
    LocalReply::empty(404, ResponseFlag::NoRouteFound).because("route_not_found")
}

/// The redirect of a virtual host that takes no plain text: authority and target stay as they are (Envoy:
/// `createSslRedirectPath`).
fn to_https(head: &RequestHead) -> LocalReply {
    LocalReply::redirect(301, &[b"https://", head.authority(), head.target()].concat())
}

/// A local reply with what its route and the filters want in it.
async fn completed(
    reply: LocalReply,
    place: Option<MatchedRoute<'_>>,
    head: &RequestHead,
    record: &mut StreamInfo,
    filters: &mut ActiveFilters<'_>,
) -> LocalReply {
    let mut reply = reply.mapped(head, record).for_request(head);
    if record.attempts > 0 && place.is_some_and(|p| p.host.config.include_attempt_count_in_response) {
        reply.head.fields.set("x-envoy-attempt-count", record.attempts.to_string().as_bytes());
    }
    filters.response_head(&mut ResponseParts { head: &mut reply.head, request: head, record, body: None }).await;
    reply
}

/// The settings of filters for a request, the most specific first.
fn overrides<'a>(table: &'a RouteTable, place: Option<MatchedRoute<'a>>, drawn: Option<&Drawn>) -> Vec<&'a Overrides> {
    let own = place.and_then(|p| p.route.cluster_filters.get(drawn?.part));
    let levels = [own, place.map(|p| &p.route.filters), place.map(|p| &p.host.filters), Some(&table.filters)];
    levels.into_iter().flatten().filter(|o| !o.is_empty()).collect()
}

/// The destination of a request.
struct Destination<'a> {
    /// The part of a split that was drawn; none when a header names the cluster.
    weighted: Option<&'a WeightedCluster>,
    cluster: Rc<LocalCluster>,
    hashed: Hashed,
}

impl<'a> Stages<'a> {
    /// Sends a request upstream and returns the response, unless a stage stops it.
    async fn run(
        &self,
        drawn: Drawn,
        head: &mut RequestHead,
        body: &mut RequestBody<'_>,
        record: &mut StreamInfo,
    ) -> Result<Forwarded<'a>, Stop> {
        let forward = self.local_reply(head, record)?;
        body.idle = forward.idle_timeout.unwrap_or(body.idle);
        let mut destination = self.destination(drawn, forward, head, record)?;
        record.cluster(&destination.cluster);
        check_strictly(&self.http.strict_headers, head)?;
        if !destination.cluster.config.hash.is_empty() {
            self.hash_within(&mut destination, forward, head);
        }
        if self.place.host.config.include_attempt_count {
            head.fields.set("x-envoy-attempt-count", b"1");
        }
        self.edit_request(head, forward, &destination, record);
        if self.http.rejects_early_data && head.is_connect() && body.has_early_data() {
            return Err(Stop::Reply(LocalReply::empty(400, ResponseFlag::None).because("early_connect_data")));
        }
        let Destination { weighted, cluster, hashed } = destination;
        let permit = attempts::admit(&cluster, forward.high_priority, self.context.worker.id)?;
        let mirrored = !self.place.route.mirrors.is_empty() && self.request.upgrade.is_none();
        let pairs = if mirrored { mirror::start(self, head, body) } else { Vec::new() };
        let limits = timeout::of_request(
            forward,
            head,
            self.request.internal,
            self.http.timeouts.max_stream,
            self.http.respect_expected_timeout,
        );
        if let (Some(_), Some(limit)) = (forward.max_stream.grpc_timeout, limits.stream)
            && is_grpc(head)
        {
            head.fields.set("grpc-timeout", timeout::to_grpc(limit).as_bytes());
        }
        let request = self.http.timeouts.request;
        let until = (!request.is_zero()).then(|| record.started() + request);
        let deadlines = Deadlines::new(limits, body.timers.last()).with_request(until);
        let target = Target { hash: hashed.value, metadata: metadata(forward, weighted) };
        let upstream = attempts::Upstream { forward, cluster: &cluster, target: &target, deadlines };
        let answer = attempts::run(self, &upstream, head, body, record).await?;
        // A cookie makes requests stick: where nothing goes by its hash, none is set (Envoy: the load balancer makes it).
        let sticks = forward.random == RandomSource::Hash || cluster.config.balancer.is_hashed();
        let cookies = if sticks { hashed.cookies } else { Vec::new() };
        let redirects = forward.internal_redirect.as_ref();
        Ok(Forwarded { answer, cluster, destination: weighted, deadlines, redirects, permit, cookies, pairs })
    }

    /// Draws the cluster.
    fn destination(
        &self,
        Drawn { hashed, part }: Drawn,
        forward: &'a Forward,
        head: &RequestHead,
        record: &StreamInfo,
    ) -> Result<Destination<'a>, Stop> {
        let worker = &self.context.worker;
        let route = self.place.route;
        let missing = || {
            record.count(metric::http::NO_CLUSTER);
            Stop::Reply(
                LocalReply::empty(forward.cluster_not_found_status, ResponseFlag::NoClusterFound)
                    .because("cluster_not_found"),
            )
        };
        let named = |header: &str| {
            let name = head.fields.get_str(header).ok_or_else(missing)?;
            self.view.named(name, worker).ok_or_else(missing)
        };
        if let Some(header) = &forward.cluster_header {
            return Ok(Destination { weighted: None, cluster: named(header)?, hashed });
        }
        let weighted =
            forward.clusters.get(part).ok_or(Stop::Bug("a part of a split was drawn that its route does not have"))?;
        if let Some(header) = &weighted.cluster_header {
            return Ok(Destination { weighted: Some(weighted), cluster: named(header)?, hashed });
        }
        let number = route.clusters.get(part).copied().unwrap_or(usize::MAX);
        let cluster = self.view.cluster(number, worker).cloned().ok_or_else(missing)?;
        Ok(Destination { weighted: Some(weighted), cluster, hashed })
    }

    /// Hashes a request by what its cluster says, which goes before what its route says.
    fn hash_within(&self, destination: &mut Destination<'_>, forward: &Forward, head: &RequestHead) {
        let Destination { cluster, hashed, .. } = destination;
        let connection = hash::Connection { peer: self.context.peer, local: self.context.local };
        let own = hash::of(&cluster.config.hash, &cluster.hash_patterns, head, (self.request.client, connection));
        hashed.value = own.value;
        if forward.random != RandomSource::Hash {
            // What the route says of hashing chose nothing.
            hashed.cookies.clear();
        }
        let new = own.cookies.into_iter().filter(|cookie| !hashed.cookies.contains(cookie)).collect::<Vec<_>>();
        hashed.cookies.extend(new);
    }

    /// Returns the route's action when it forwards; redirects and fixed responses are local replies.
    fn local_reply(&self, head: &RequestHead, record: &StreamInfo) -> Result<&'a Forward, Stop> {
        match &self.place.route.config.action {
            Action::Forward(forward) => Ok(forward),
            Action::Redirect(config) => {
                record.count(metric::http::RQ_REDIRECT);
                let location = redirect::location(config, self.place.route, head, scheme(head));
                Err(Stop::Reply(LocalReply::redirect(config.status, &location)))
            }
            Action::Respond(respond) => {
                record.count(metric::http::RQ_DIRECT_RESPONSE);
                let reply = LocalReply::new(respond.status, &respond.body, ResponseFlag::None);
                let mut reply = reply.because("direct_response");
                if let Some(format) = &respond.format {
                    reply.format(format, head, record);
                }
                if respond.status == 201 || (300..400).contains(&respond.status) {
                    let uri = redirect::own_uri(head, scheme(head));
                    reply.head.fields.append(b"location", &uri);
                }
                Err(Stop::Reply(reply))
            }
        }
    }

    /// Applies the header edits of a route to a local reply that was given after it was found (Envoy: `Filter::modify_headers_`).
    fn edited(&self, stop: Stop, head: &RequestHead, record: &mut StreamInfo) -> Stop {
        let Stop::Reply(mut reply) = stop else { return stop };
        record.flag = reply.flag;
        record.details.clone_from(&reply.details);
        let here = RouteCommands { record, place: self.place };
        for edits in self.response_edits(None) {
            header_edit::to_response(edits, &mut reply.head, head, &here);
        }
        Stop::Reply(reply)
    }

    /// Header edits, then path and authority.
    fn edit_request(
        &self,
        head: &mut RequestHead,
        forward: &Forward,
        destination: &Destination<'_>,
        record: &StreamInfo,
    ) {
        let MatchedRoute { host, route } = self.place;
        let here = RouteCommands { record, place: self.place };
        let weighted = destination.weighted;
        let table = &self.view.table;
        let own = weighted.map(|w| &w.request_headers);
        for edits in
            self.ordered(own, [&route.config.request_headers, &host.config.request_headers, &table.request_headers])
        {
            header_edit::to_request(edits, head, &here);
        }
        if head.is_connect() {
            // Whatever was taken off for routing: where bytes should go is said in full.
            let target = head.target().to_vec();
            head.fields.set("host", &target);
        }
        if let Some(authority) = weighted.and_then(|w| w.host_rewrite.as_ref()) {
            head.fields.set("host", authority.as_bytes());
        }
        let authority = forward.host_rewrite.as_ref().and_then(|h| rewrite::authority(h, route, head));
        if let Some(path_rewrite) = &forward.path_rewrite
            && let Some(target) = rewrite::target(route, path_rewrite, head)
        {
            if !self.http.suppress_envoy_headers {
                let original = head.target().to_vec();
                head.fields.set("x-envoy-original-path", &original);
            }
            head.set_target(&target);
        }
        if let Some(authority) = authority {
            self.set_authority(head, &authority, forward);
        }
    }

    /// Edits of all levels in the order in which they are applied.
    fn ordered<'e>(
        &self,
        destination: Option<&'e HeaderEdits>,
        [route, host, table]: [&'e HeaderEdits; 3],
    ) -> [&'e HeaderEdits; 4] {
        let first = destination.unwrap_or(const { &HeaderEdits::NONE });
        if self.view.table.most_specific_edits_win { [first, table, host, route] } else { [first, route, host, table] }
    }

    fn response_edits(&self, destination: Option<&'a WeightedCluster>) -> [&'a HeaderEdits; 4]
    where
        Self: 'a,
    {
        let MatchedRoute { host, route } = self.place;
        let table = &self.view.table;
        let levels = [&route.config.response_headers, &host.config.response_headers, &table.response_headers];
        self.ordered(destination.map(|d| &d.response_headers), levels)
    }
}

/// The scheme by which a request came.
fn scheme(head: &RequestHead) -> &str {
    head.scheme.as_str()
}
