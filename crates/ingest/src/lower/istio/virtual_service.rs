//! VirtualService.

use std::time::Duration;

use serin_model::{
    Action, Attachment, CorsPolicy, Destination, Headers, Hostname, HttpMatch, HttpRoute, Mirror, Object, ObjectName,
    PathRedirect, Redirect, RedirectPort, Respond, Rewrite, RouteRules, Share, StringMatch,
};

use super::http_match::{self, refer_gateway};
use super::retries::read_retries;
use super::route_headers::headers;
use super::{export_to, fault, gateway_ref, host};
use crate::cursor::{self, Cursor};
use crate::diagnostic::{Code, Severity};
use crate::reference::Reference;

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let streams = [("tls", object.list("tls")), ("tcp", object.list("tcp"))];
    for (field, rules) in streams.iter().filter(|(_, rules)| !rules.is_empty()) {
        if let Some(first) = rules.first() {
            first.report(
                Code::NoEffectYet,
                Severity::Warning,
                format!("'{field}' rules have no effect yet: connections that they speak of are not carried"),
                "its http rules are used",
            );
        }
    }
    let mut hosts = Vec::new();
    for item in not_empty(&object, "hosts", "host") {
        if let Some(found) = host(&item) {
            if hosts.contains(&found) {
                item.report(Code::Duplicate, Severity::Error, format!("host '{found}' is listed twice"), "");
            }
            hosts.push(found);
        }
    }
    let mut attachments = Vec::new();
    for item in object.list("gateways") {
        if let Some(reference) = gateway_ref(&item) {
            refer_gateway(&item, &reference);
            attachments.push(reference);
        }
    }
    if attachments.is_empty() {
        attachments.push(Attachment::Mesh);
    }
    let has_streams = streams.iter().any(|(_, rules)| !rules.is_empty());
    let rules = if has_streams { object.list("http") } else { not_empty(&object, "http", "rule") };
    let mut http = Vec::new();
    let mut unconditional = false;
    for rule in &rules {
        if unconditional {
            rule.report(
                Code::UnreachableRule,
                Severity::Warning,
                "no request reaches this rule",
                "a rule before it matches everything",
            );
        }
        let Some(mut route) = http_route(rule) else { continue };
        if let Action::Refuse(because) = &mut route.action {
            *because = format!("VirtualService {name}: {because}");
        }
        unconditional |= route.matches.is_empty();
        if loops(&hosts, &http, &route) {
            rule.report(
                Code::RedirectLoop,
                Severity::Warning,
                "this redirect leads to a request that it redirects again: clients go round in circles",
                "redirect to another path, authority or scheme, or match the new path by a rule before this one",
            );
        }
        http.push(route);
    }
    let export_to = export_to(object.get("exportTo"));
    Some(Object::RouteRules(RouteRules { name: name.clone(), hosts, attachments, http, export_to }))
}

/// Whether where a redirect leads is redirected by the same rule again.
fn loops(hosts: &[Hostname], before: &[HttpRoute], route: &HttpRoute) -> bool {
    let Action::Redirect(redirect) = &route.action else { return false };
    let same_host = redirect.authority.as_ref().is_none_or(|authority| {
        let name = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
        // A service of the mesh has shorter names too.
        let is_short = |host: &Hostname| {
            host.service_parts().is_some()
                && host.as_str().strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'))
        };
        hosts.iter().any(|host| host.as_str() == name || is_short(host))
    });
    let same_scheme = redirect.scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case("http"));
    let same_port = matches!(redirect.port, None | Some(RedirectPort::OfRequest | RedirectPort::Number(80)));
    if !(same_host && same_scheme && same_port) {
        return false;
    }
    let taken = |path: &str, rule: &HttpRoute| rule.matches.is_empty() || rule.matches.iter().any(|m| leads(m, path));
    match &redirect.path {
        None => true,
        Some(PathRedirect::Full(path)) => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            taken(path, route) && !before.iter().any(|rule| taken(path, rule))
        }
        Some(PathRedirect::Prefix(new)) => route.matches.iter().any(|m| match &m.uri {
            Some(StringMatch::Prefix(old)) => new.starts_with(old.as_str()),
            Some(StringMatch::Exact(old)) => new == old,
            _ => false,
        }),
    }
}

/// Whether a path is one that a match takes, as far as its path goes.
fn leads(condition: &HttpMatch, path: &str) -> bool {
    match &condition.uri {
        None | Some(StringMatch::Present) => true,
        Some(StringMatch::Exact(exact)) => exact == path,
        Some(StringMatch::Prefix(prefix)) => path.starts_with(prefix.as_str()),
        Some(StringMatch::Regex(pattern)) => {
            regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(path))
        }
    }
}

/// The items of a list that must have some.
fn not_empty<'a>(object: &cursor::Object<'a>, field: &str, item: &str) -> Vec<Cursor<'a>> {
    let before = object.errors();
    let items = object.required_list(field).unwrap_or_default();
    if items.is_empty() && object.errors() == before {
        object.error(Code::InvalidValue, format!("{field}: at least one {item} is needed"), "");
    }
    items
}

fn http_route(cursor: &Cursor<'_>) -> Option<HttpRoute> {
    let object = cursor.object()?;
    let matches: Vec<_> = object.list("match").iter().filter_map(http_match::read).collect();
    let actions = ["route", "redirect", "directResponse"];
    let set: Vec<&str> = actions.into_iter().filter(|a| object.has(a)).collect();
    if set.len() > 1 {
        object.error(Code::InvalidValue, format!("{} exclude each other", set.join(" and ")), "");
    }
    let rewrite = object.get("rewrite").and_then(|c| read_rewrite(&c));
    let fault = object.get("fault").and_then(|c| fault::read(&c));
    let retries = object.get("retries").and_then(|c| read_retries(&c));
    let timeout = object.get("timeout").and_then(|c| c.milliseconds()).unwrap_or(Duration::ZERO);
    let (route, redirect, respond) = (object.get("route"), object.get("redirect"), object.get("directResponse"));
    let action = match (route, redirect, respond) {
        (Some(route), _, _) => Action::Forward { destinations: destinations(&route), rewrite, timeout, retries, fault },
        (_, Some(redirect), _) => Action::Redirect(read_redirect(&redirect)?),
        (_, _, Some(respond)) => Action::Respond(read_respond(&respond)?),
        _ if object.has("delegate") => Action::Refuse(delegated(&object)),
        _ if object.misspells(&["route", "redirect", "directResponse"]) => return None,
        _ => {
            object.error(Code::MissingField, "a rule needs route, redirect or directResponse", "");
            return None;
        }
    };
    Some(HttpRoute {
        name: object.get("name").and_then(|n| n.text()).unwrap_or_default(),
        matches,
        action,
        headers: object.get("headers").map(|c| headers(&c)).unwrap_or_default(),
        mirrors: mirrors(&object),
        cors: object.get("corsPolicy").and_then(|c| read_cors(&c)),
    })
}

/// Rules that stand elsewhere are not looked up: what they would do with a request is not known.
fn delegated(object: &cursor::Object<'_>) -> String {
    if let Some(delegate) = object.get("delegate") {
        if let Some(fields) = delegate.object() {
            let _ = fields.required("name").and_then(|name| name.text());
            let _ = fields.get("namespace").and_then(|namespace| namespace.text());
        }
        delegate.report(
            Code::NotEnforced,
            Severity::Warning,
            "'delegate' is not carried out yet: requests that match this rule are refused (503) until it is",
            "write the rules of the delegate here",
        );
    }
    "its rules stand in another VirtualService (delegate), which is not carried out yet".to_owned()
}

/// `mirrors`, or the one that `mirror` and its percentage speak of; without a percentage all requests are copied.
fn mirrors(object: &cursor::Object<'_>) -> Vec<Mirror> {
    let share = |percent: Option<Option<Cursor<'_>>>| {
        let Some(percent) = percent else { return Share::from_percent(100.0) };
        let Some(cursor) = percent else { return Share::from_percent(0.0) };
        let number = cursor.number()?;
        let share = Share::from_percent(number);
        if share.is_none() {
            cursor.invalid(format!("{number} is not between 0.0001 and 100, or 0"), "");
        }
        share
    };
    // A percentage without a value is nothing, as in Istio.
    fn value(percentage: Option<Cursor<'_>>) -> Option<Option<Cursor<'_>>> {
        Some(percentage?.object()?.get("value"))
    }
    let mut all = Vec::new();
    if !object.has("mirror") {
        for share in ["mirrorPercentage", "mirrorPercent"].into_iter().filter_map(|field| object.get(field)) {
            share.report(
                Code::NoEffectYet,
                Severity::Warning,
                "without 'mirror' nothing is mirrored",
                "add mirror: {host: …}",
            );
        }
    }
    if let Some(mirror) = object.get("mirror") {
        let old = object.get("mirrorPercent").map(Some);
        let share = share(value(object.get("mirrorPercentage")).or(old));
        all.extend(target(&mirror, 1).zip(share).map(|(destination, share)| Mirror { destination, share }));
    }
    for item in object.list("mirrors") {
        let Some(inner) = item.object() else { continue };
        let share = share(value(inner.get("percentage")));
        let to = inner.required("destination").and_then(|d| target(&d, 1));
        all.extend(to.zip(share).map(|(destination, share)| Mirror { destination, share }));
    }
    all
}

fn read_cors(cursor: &Cursor<'_>) -> Option<CorsPolicy> {
    let object = cursor.object()?;
    let texts = |name: &str| -> Vec<String> { object.list(name).iter().filter_map(|c| c.line()).collect() };
    let mut origins: Vec<StringMatch> = texts("allowOrigin").into_iter().map(StringMatch::Exact).collect();
    for item in object.list("allowOrigins") {
        origins.extend(http_match::string_match(&item));
    }
    let unmatched = object.get("unmatchedPreflights").and_then(|c| Some((c.text()?, c)));
    let forward_others = match unmatched {
        None => None,
        Some((text, _)) if text == "FORWARD" || text == "UNSPECIFIED" => Some(true),
        Some((text, _)) if text == "IGNORE" => Some(false),
        Some((text, at)) => {
            at.invalid(format!("'{text}' is not FORWARD or IGNORE"), "");
            None
        }
    };
    Some(CorsPolicy {
        origins,
        methods: texts("allowMethods"),
        headers: texts("allowHeaders"),
        expose: texts("exposeHeaders"),
        max_age: object.get("maxAge").and_then(|c| c.duration()),
        credentials: object.get("allowCredentials").and_then(|c| c.boolean()),
        forward_others,
    })
}

fn destinations(cursor: &Cursor<'_>) -> Vec<Destination> {
    let items = cursor.list();
    let list: Vec<Destination> = items.iter().filter_map(destination).collect();
    let total: u64 = list.iter().map(|d| u64::from(d.weight)).sum();
    if items.is_empty() {
        cursor.invalid("at least one destination is needed", "");
    } else if list.len() > 1 && total == 0 {
        cursor.invalid("the weights are all zero", "give at least one destination a weight above 0");
    } else if total > u64::from(u32::MAX) {
        cursor.invalid(
            format!("the weights add up to {total}, more than {}", u32::MAX),
            "weights are relative: use smaller ones",
        );
    }
    if list.len() > 1 && list.len() == items.len() && total > 0 && total != 100 {
        unusual_weights(cursor, &list, total);
    }
    if let ([only], [item]) = (list.as_slice(), items.as_slice())
        && ![0, 100].contains(&only.weight)
    {
        item.report(
            Code::UnusualWeights,
            Severity::Info,
            format!("the only destination gets all requests, whatever its weight ({}) is", only.weight),
            "add the other destinations, or leave the weight out",
        );
    }
    match <[Destination; 1]>::try_from(list) {
        Ok([only]) => vec![Destination { weight: 1, ..only }],
        Err(list) => list,
    }
}

/// Weights are relative, so any sum works; one that is not 100 is often a slip, and the shares that result are said.
fn unusual_weights(cursor: &Cursor<'_>, list: &[Destination], total: u64) {
    let share = |d: &Destination| {
        let name = d.subset.as_deref().unwrap_or_else(|| d.host.as_str());
        format!("{name} {:.4}", f64::from(d.weight) * 100.0 / total as f64)
    };
    let shown: Vec<String> = list
        .iter()
        .map(|d| {
            let text = share(d);
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
            format!("{text} %")
        })
        .collect();
    cursor.report(
        Code::UnusualWeights,
        Severity::Warning,
        format!("the weights add up to {total}, not 100: the shares are {}", shown.join(", ")),
        "weights are relative; write ones that add up to 100 to see the shares",
    );
}

fn destination(cursor: &Cursor<'_>) -> Option<Destination> {
    let object = cursor.object()?;
    let weight = object.get("weight").map(|w| (w.integer(), w));
    let weight = match weight {
        None => Some(0),
        Some((Some(number), at)) => match u32::try_from(number) {
            Ok(weight) if weight <= i32::MAX as u32 => Some(weight),
            _ => {
                at.invalid(format!("a weight cannot be {number}"), "weights are relative and 0 to 2147483647");
                None
            }
        },
        Some((None, _)) => None,
    };
    let edits = object.get("headers").map(|c| headers(&c)).unwrap_or_default();
    let to = target(&object.required("destination")?, weight?)?;
    Some(Destination { headers: edits, ..to })
}

/// Where a destination leads.
fn target(place: &Cursor<'_>, weight: u32) -> Option<Destination> {
    let target = place.object()?;
    let host_cursor = target.required("host")?;
    let name = host(&host_cursor)?;
    let subset = target.get("subset").and_then(|c| Some((c.text()?, c.at(), c.path().to_owned())));
    let port = target
        .get("port")
        .and_then(|p| p.object()?.required("number"))
        .and_then(|c| Some((c.port()?, c.at(), c.path().to_owned())));
    place.context.refer(Reference::Destination {
        host: name.clone(),
        host_at: (host_cursor.at(), host_cursor.path().to_owned()),
        subset: subset.clone(),
        port: port.clone(),
    });
    Some(Destination {
        host: name,
        subset: subset.map(|(name, _, _)| name),
        port: port.map(|(number, _, _)| number),
        weight,
        headers: Headers::default(),
    })
}

/// Bytes of a direct response at most (Istio's validation).
const LARGEST_BODY: usize = 1024 * 1024;

fn read_rewrite(cursor: &Cursor<'_>) -> Option<Rewrite> {
    let object = cursor.object()?;
    let regex = object.get("uriRegexRewrite").and_then(|c| {
        let inner = c.object()?;
        let pattern = inner.required("match")?;
        http_match::check_regex(&pattern)?;
        Some((pattern.line()?, inner.required("rewrite")?.line()?))
    });
    Some(Rewrite {
        uri: object.get("uri").and_then(|c| c.line()),
        regex,
        authority: object.get("authority").and_then(|c| c.line()),
    })
}

fn read_redirect(cursor: &Cursor<'_>) -> Option<Redirect> {
    let object = cursor.object()?;
    let status = object.get("redirectCode").and_then(|c| c.bounded(301, 308).map(|code| (code, c)));
    let status = match status {
        None => 301,
        Some((code, at)) => {
            if !matches!(code, 301 | 302 | 303 | 307 | 308) {
                at.invalid(format!("{code} is no redirect"), "use 301, 302, 303, 307 or 308");
            }
            u16::try_from(code).ok()?
        }
    };
    // What is empty stays as the request has it.
    let line = |name: &str| object.get(name).and_then(|c| c.line()).filter(|text| !text.is_empty());
    let full = line("uri").map(PathRedirect::Full);
    let prefix = line("prefixRewrite").map(PathRedirect::Prefix);
    Some(Redirect {
        path: full.or(prefix),
        authority: line("authority"),
        scheme: line("scheme"),
        port: redirect_port(&object),
        status,
    })
}

fn redirect_port(object: &cursor::Object<'_>) -> Option<RedirectPort> {
    let given = object.get("port").and_then(|c| c.port()).map(RedirectPort::Number);
    let Some(derived) = object.get("derivePort") else { return given };
    if given.is_some() {
        derived.invalid("port and derivePort exclude each other", "");
    }
    match derived.text()?.as_str() {
        "FROM_PROTOCOL_DEFAULT" => None,
        "FROM_REQUEST_PORT" => Some(RedirectPort::OfRequest),
        other => {
            derived.invalid(format!("'{other}' is no port"), "use FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT");
            None
        }
    }
}

fn read_respond(cursor: &Cursor<'_>) -> Option<Respond> {
    let object = cursor.object()?;
    let body = object.get("body").and_then(|c| {
        let inner = c.object()?;
        let text = inner.get("string").and_then(|s| s.text()).map(String::into_bytes);
        let Some(bytes) = inner.get("bytes") else { return text };
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(bytes.text()?);
        if let Err(error) = &decoded {
            bytes.invalid(format!("this is no base64: {error}"), "");
        }
        decoded.ok().or(text)
    });
    if body.as_ref().is_some_and(|body| body.len() > LARGEST_BODY) {
        object.error(Code::InvalidValue, format!("body: more than {LARGEST_BODY} bytes"), "");
    }
    let status = object.required("status")?.bounded(200, 599)?;
    Some(Respond { status: u16::try_from(status).ok()?, body: body.unwrap_or_default() })
}
