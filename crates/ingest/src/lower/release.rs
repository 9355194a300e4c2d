//! `serin.dev/v1alpha1` Release.

use std::time::Duration;

use serin_model::{
    Alert, AlertForm, Analysis, Approval, Bake, Failing, HashKey, Hook, HookCall, HttpMatch, Kayenta, Labels, Object,
    ObjectName, OnDeadline, OnMix, Query, Release, Share, Step, Supersede, selects,
};

use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};
use crate::lower::istio::fault::GRPC_STATUS;
use crate::lower::istio::route_headers::{cookie_name, header_name};
use crate::lower::istio::{host, http_match, labels};
use crate::reference::Reference;

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let host = object.required("host").and_then(|h| {
        let host = host(&h)?;
        let at = (h.at(), h.path().to_owned());
        h.context.refer(Reference::Destination { host: host.clone(), host_at: at, subset: None, port: None });
        Some(host)
    });
    let stable = object.required("stable").and_then(|s| arm(&s));
    let candidate = object.required("candidate").and_then(|c| arm(&c));
    let strategy = object.get("strategy").and_then(|s| one_of(&s, &["canary", "blueGreen", "mirrorFirst"]));
    let steps = steps(&object, strategy.as_deref().unwrap_or("canary"));
    // Everything is read before anything is missed, so that all that is wrong is said at once.
    let baseline = object.get("baseline").and_then(|b| arm(&b));
    let versions = [("stable", &stable), ("candidate", &candidate), ("baseline", &baseline)];
    apart(&object, &versions.map(|(name, labels)| (name, labels.as_ref())));
    let stickiness = object.get("stickiness").and_then(|s| stickiness(&s));
    let analysis = object.get("analysis").map(|a| analysis(&a)).unwrap_or_default();
    let guard = object.get("guard").and_then(|g| g.duration()).unwrap_or(Duration::from_secs(600));
    let freezes = object.get("freeze").map(|f| f.list()).unwrap_or_default().iter().filter_map(freeze).collect();
    let start = object.get("start").and_then(|s| one_of(&s, &["auto", "manual"]));
    let supersede = object.get("supersede").and_then(|s| one_of(&s, &["queue", "replace", "refuse"]));
    let train = object.get("train").and_then(|t| {
        let train = t.object()?;
        Some((train.required("name")?.text()?, train.required("order")?.bounded(0, 1000)?))
    });
    let alerts = object.get("alerts").map(|a| a.list()).unwrap_or_default().iter().filter_map(alert).collect();
    let release = Release {
        name: name.clone(),
        host: host?,
        stable: stable?,
        candidate: candidate?,
        baseline,
        stickiness,
        steps,
        analysis,
        guard,
        freezes,
        waits_for_start: start.as_deref() == Some("manual"),
        supersede: match supersede.as_deref() {
            Some("replace") => Supersede::Replace,
            Some("refuse") => Supersede::Refuse,
            _ => Supersede::Queue,
        },
        train,
        alerts,
        document: spec.json(),
    };
    Some(Object::Release(Box::new(release)))
}

/// Instances that are of two versions would get the traffic of both and be counted for one.
fn apart(object: &Fields<'_>, versions: &[(&str, Option<&Labels>)]) {
    for (n, (one, labels)) in versions.iter().enumerate() {
        for (other, others) in versions.iter().skip(n + 1) {
            let (Some(labels), Some(others)) = (labels, others) else { continue };
            if selects(labels, others) || selects(others, labels) {
                object.error(
                    Code::InvalidValue,
                    format!("{one} and {other} can mean the same instances: one has all labels of the other"),
                    "give each the label of its version",
                );
            }
        }
    }
}

/// `{labels: …}`, which must say something.
fn arm(cursor: &Cursor<'_>) -> Option<Labels> {
    let object = cursor.object()?;
    let labels = labels(&object.required("labels")?);
    if labels.is_empty() {
        cursor.invalid("at least one label is needed", "for example labels: {version: v3}");
        return None;
    }
    Some(labels)
}

fn one_of(cursor: &Cursor<'_>, known: &[&str]) -> Option<String> {
    let text = cursor.text()?;
    if known.contains(&text.as_str()) {
        return Some(text);
    }
    cursor.invalid(format!("'{text}' is not known"), format!("use {}", known.join(", ")));
    None
}

fn stickiness(cursor: &Cursor<'_>) -> Option<HashKey> {
    let object = cursor.object()?;
    let cookie = object.get("cookie").and_then(|c| {
        let cookie = c.object()?;
        let name = cookie.required("name")?;
        let name = cookie_name(&name)?;
        Some(HashKey::Cookie {
            name,
            path: "/".to_owned(),
            ttl: cookie.get("ttl").and_then(|t| t.duration()),
            attributes: Vec::new(),
        })
    });
    let header = object.get("header").and_then(|h| header_name(&h.text()?, &h)).map(HashKey::Header);
    let query = object.get("query").and_then(|q| q.line().map(|name| (name, q)));
    if let Some((_, at)) = query.as_ref().filter(|(name, _)| name.is_empty()) {
        at.invalid("the name of a query parameter is empty", "");
    }
    let query = query.map(|(name, _)| HashKey::Query(name));
    let address = object.get("sourceIp").and_then(|s| s.boolean()).filter(|on| *on).map(|_| HashKey::SourceIp);
    let keys: Vec<HashKey> = [header, cookie, query, address].into_iter().flatten().collect();
    match keys.as_slice() {
        [one] => Some(one.clone()),
        _ => {
            object.error(Code::InvalidValue, "needs exactly one of header, cookie, query and sourceIp: true", "");
            None
        }
    }
}

/// `1%`, `0.01%`, or a number of per cent above 1; below that it could be meant as a part of 1, which is asked for.
fn share(cursor: &Cursor<'_>) -> Option<Share> {
    let percent = match cursor.peek_text() {
        Some(text) => text.strip_suffix('%').and_then(|t| t.trim().parse::<f64>().ok()),
        None => {
            let number = cursor.number()?;
            if number > 0.0 && number <= 1.0 {
                let hundredfold = (number * 1e8).round() / 1e6;
                cursor.invalid(
                    format!("{number} can mean {number}% or {hundredfold}%"),
                    format!("write \"{number}%\" or \"{hundredfold}%\""),
                );
                return None;
            }
            Some(number)
        }
    };
    let share = percent.and_then(Share::from_percent);
    if share.is_none() {
        cursor.invalid("not a share of the traffic", "write per cent, such as 5%, from 0.0001% to 100%");
    }
    share
}

fn steps(spec: &Fields<'_>, strategy: &str) -> Vec<Step> {
    let Some(list) = (if strategy == "blueGreen" { spec.get("steps") } else { spec.required("steps") }) else {
        return blue_green(spec);
    };
    let mut steps = Vec::new();
    if strategy == "mirrorFirst" {
        let mirror = spec.get("mirror").and_then(|m| m.object());
        let share = mirror.as_ref().and_then(|m| m.get("share")).and_then(|s| share(&s)).unwrap_or(Share::ALL);
        let bake = mirror.as_ref().and_then(|m| m.get("bake")).map_or(FIRST_LOOK, |b| bake(&b));
        steps.push(Step { mirror: Some(share), bake, ..Step::default() });
    }
    let mut reached = Share::NONE;
    for item in list.list() {
        let Some(step) = step(&item) else { continue };
        if let Some(weight) = step.weight {
            if weight <= reached && reached != Share::NONE {
                item.report(
                    Code::InvalidValue,
                    Severity::Error,
                    "the weight does not rise",
                    "weights go up from step to step",
                );
            }
            reached = weight;
        }
        // A consent of its own belongs to the step before it.
        let only_consent = step.weight.is_none() && step.cohorts.is_none() && step.mirror.is_none();
        match (steps.last_mut(), only_consent) {
            (Some(last), true) if last.approval.is_none() && step.before.is_empty() => {
                last.approval = step.approval;
                last.after.extend(step.after);
            }
            _ => steps.push(step),
        }
    }
    if steps.is_empty() {
        list.invalid("at least one step is needed", "");
    }
    steps
}

/// How long a first look lasts when nothing is said.
const FIRST_LOOK: Bake = Bake { min: Duration::from_secs(120), max: Duration::from_secs(120) };

/// One switch: a preview for those who match, then everything.
fn blue_green(spec: &Fields<'_>) -> Vec<Step> {
    let preview = spec.get("preview").map(|p| matches(&p)).unwrap_or_default();
    let bake = spec.get("bake").map_or(FIRST_LOOK, |b| bake(&b));
    let approval = spec.get("approval").map(|a| approval(&a));
    vec![Step { cohorts: Some(preview), bake, approval, ..Step::default() }]
}

fn matches(cursor: &Cursor<'_>) -> Vec<HttpMatch> {
    cursor.list().iter().filter_map(http_match::read).collect()
}

fn step(cursor: &Cursor<'_>) -> Option<Step> {
    let object = cursor.object()?;
    let hooks = |name: &str| object.get(name).map(|h| h.list()).unwrap_or_default().iter().filter_map(hook).collect();
    let step = Step {
        weight: object.get("weight").and_then(|w| share(&w)),
        cohorts: object.get("match").map(|m| matches(&m)),
        mirror: object.get("mirror").and_then(|m| share(&m)),
        bake: object
            .get("bake")
            .map_or(Bake { min: Duration::from_secs(120), max: Duration::from_secs(1800) }, |b| bake(&b)),
        approval: object.get("approval").map(|a| approval(&a)),
        before: hooks("before"),
        after: hooks("after"),
    };
    let approves = object.has("approval") || cursor.peek("approval").is_some();
    let step =
        if approves && step.approval.is_none() { Step { approval: Some(Approval::default()), ..step } } else { step };
    let empty = !["weight", "match", "mirror"].iter().any(|field| object.has(field)) && step.approval.is_none();
    if empty && step.before.is_empty() && step.after.is_empty() {
        cursor.invalid("a step needs weight, match, mirror or approval", "");
        return None;
    }
    Some(step)
}

/// `2m`, or `{min: 2m, max: 30m}`.
fn bake(cursor: &Cursor<'_>) -> Bake {
    if cursor.peek_text().is_some() {
        let fixed = cursor.duration().unwrap_or_default();
        return Bake { min: fixed, max: fixed };
    }
    let Some(object) = cursor.object() else { return Bake::default() };
    let min = object.get("min").and_then(|m| m.duration()).unwrap_or_default();
    let max = object.get("max").and_then(|m| m.duration()).unwrap_or(min.max(Duration::from_secs(1800)));
    if max < min {
        cursor.invalid("max is less than min", "");
    }
    Bake { min, max }
}

fn approval(cursor: &Cursor<'_>) -> Approval {
    let Some(object) = cursor.object() else { return Approval::default() };
    Approval {
        role: object.get("role").and_then(|r| one_of(&r, &["releaser", "admin"])).unwrap_or_default(),
        expires: object.get("expires").and_then(|e| e.duration()),
    }
}

fn hook(cursor: &Cursor<'_>) -> Option<Hook> {
    let object = cursor.object()?;
    let timeout = object.get("timeout").and_then(|t| t.duration()).unwrap_or(Duration::from_secs(30));
    let http = object.get("http").and_then(|h| h.text());
    let metadata = object.get("metadata").map(|m| labels(&m)).unwrap_or_default();
    let command: Option<Vec<String>> =
        object.get("command").map(|c| c.list().iter().filter_map(|a| a.text()).collect());
    match (http, command) {
        (Some(url), None) if url.starts_with("http://") => Some(Hook { call: HookCall::Http(url), metadata, timeout }),
        (Some(_), None) => {
            object.error(Code::InvalidValue, "only http:// is supported", "");
            None
        }
        (None, Some(command)) if !command.is_empty() => {
            Some(Hook { call: HookCall::Command(command), metadata, timeout })
        }
        _ => {
            object.error(Code::InvalidValue, "needs http: URL or command: [PROGRAM, …]", "");
            None
        }
    }
}

fn analysis(cursor: &Cursor<'_>) -> Analysis {
    let defaults = Analysis::default();
    let Some(object) = cursor.object() else { return defaults };
    let level = |name: &str, default: f64| {
        let Some(cursor) = object.get(name) else { return default };
        let number = cursor.number().filter(|n| *n > 0.0 && *n < 0.5);
        if number.is_none() {
            cursor.invalid("must be between 0 and 0.5", "0.01 is one wrong decision in a hundred");
        }
        number.unwrap_or(default)
    };
    let limits = object.get("limits").and_then(|l| l.object());
    let latency = limits.as_ref().and_then(|l| l.get("latency")).and_then(|l| {
        let latency = l.object()?;
        let quantile = latency.get("quantile").and_then(|q| q.number()).unwrap_or(0.99);
        if !(quantile > 0.0 && quantile < 1.0) {
            l.invalid("quantile must be between 0 and 1", "0.99 is the slowest of a hundred");
        }
        Some((quantile, latency.required("max")?.duration()?))
    });
    Analysis {
        rollback_alpha: level("rollbackAlpha", defaults.rollback_alpha),
        promote_alpha: level("promoteAlpha", defaults.promote_alpha),
        margin: object.get("margin").and_then(|m| {
            let margin = m.number()?;
            if margin <= 1.0 {
                m.invalid("must be above 1", "1.5 lets the candidate have half as many failures again");
            }
            Some(margin)
        }),
        error_rate: limits.as_ref().and_then(|l| l.get("errorRate")).and_then(|e| {
            let rate = share(&e)?;
            if rate == Share::NONE || rate == Share::ALL {
                e.invalid("must be between 0% and 100%", "no evidence is certain of none, and all is no limit");
            }
            Some(rate.percent() / 100.0)
        }),
        latency,
        compare_latency: object.get("compareLatency").and_then(|c| c.boolean()).unwrap_or(true),
        on_deadline: match object.get("onDeadline").and_then(|d| one_of(&d, &["hold", "promote", "abort"])).as_deref() {
            Some("promote") => OnDeadline::Promote,
            Some("abort") => OnDeadline::Abort,
            _ => OnDeadline::Hold,
        },
        warmup: object.get("warmup").and_then(|w| w.duration()).unwrap_or(defaults.warmup),
        queries: queries(&object),
        kayenta: object.get("kayenta").and_then(|k| kayenta(&k)),
        failures: object.get("failures").map(|f| failures(&f)),
        on_mix: match object.get("statusMix").and_then(|m| one_of(&m, &["warn", "rollback", "ignore"])).as_deref() {
            Some("rollback") => OnMix::Rollback,
            Some("ignore") => OnMix::Ignore,
            _ => OnMix::Warn,
        },
    }
}

/// `[5xx, 429, 4xx-except-404, UNAVAILABLE, no-response]`.
fn failures(cursor: &Cursor<'_>) -> Vec<Failing> {
    let items = cursor.list();
    if items.is_empty() {
        cursor.invalid(
            "at least one kind of response is needed",
            "without this field 5xx and requests without a response are failures",
        );
    }
    items.iter().filter_map(failing).collect()
}

fn failing(cursor: &Cursor<'_>) -> Option<Failing> {
    let Some(text) = cursor.peek_text() else {
        return cursor.bounded(100, 599).and_then(|s| u16::try_from(s).ok()).map(Failing::Status);
    };
    let parsed = parse_failing(text);
    if parsed.is_none() {
        cursor.invalid(
            format!("'{text}' names no kind of response"),
            "use a class (5xx, 4xx-except-404), a status (429), a gRPC status (UNAVAILABLE) or no-response",
        );
    }
    parsed
}

fn parse_failing(text: &str) -> Option<Failing> {
    if text == "no-response" {
        return Some(Failing::NoResponse);
    }
    if let Ok(status) = text.parse::<u16>() {
        return (100..600).contains(&status).then_some(Failing::Status(status));
    }
    let grpc = text.trim_start_matches("grpc-").trim_start_matches("grpc:");
    if let Some(code) = GRPC_STATUS.iter().position(|name| name.eq_ignore_ascii_case(grpc)) {
        return u32::try_from(code).ok().filter(|code| *code > 0).map(Failing::Grpc);
    }
    let (class, except) = text.split_once("-except-").map_or((text, None), |(class, except)| (class, Some(except)));
    let class: u16 = class.strip_suffix("xx")?.parse().ok().filter(|class| (1..=5).contains(class))?;
    let except = except.map_or(Some(Vec::new()), |list| {
        list.split(['-', ',']).map(|s| s.trim().parse::<u16>().ok().filter(|s| s / 100 == class)).collect()
    })?;
    Some(Failing::Class(class, except))
}

/// `{interval: 1m, points: 50, pass: 95, marginal: 75}`.
fn kayenta(cursor: &Cursor<'_>) -> Option<Kayenta> {
    let object = cursor.object()?;
    let score = |name: &str, default: f64| object.get(name).and_then(|s| s.number()).unwrap_or(default);
    let rule = Kayenta {
        interval: object.get("interval").and_then(|i| i.duration()).unwrap_or(Duration::from_secs(60)),
        points: object.get("points").and_then(|p| p.bounded(5, 1000)).unwrap_or(50),
        pass: score("pass", 95.0),
        marginal: score("marginal", 75.0),
    };
    if rule.interval < Duration::from_secs(1) {
        cursor.invalid("the interval is below a second", "");
    }
    if !(0.0 <= rule.marginal && rule.marginal <= rule.pass && rule.pass <= 100.0) {
        cursor.invalid("scores must be 0 <= marginal <= pass <= 100", "");
    }
    Some(rule)
}

/// `prometheus: URL` and `queries: [{name, query, min, max, interval, failures}]`.
fn queries(analysis: &Fields<'_>) -> Vec<Query> {
    let server = analysis.get("prometheus").and_then(|p| {
        let url = p.text()?;
        if !url.starts_with("http://") {
            p.invalid("only http:// is supported", "for example http://127.0.0.1:9090");
        }
        Some(url.trim_end_matches('/').to_owned())
    });
    let Some(list) = analysis.get("queries") else { return Vec::new() };
    let Some(server) = server else {
        list.invalid("nobody is there to be asked", "name the server beside it: prometheus: http://127.0.0.1:9090");
        return Vec::new();
    };
    let queries: Vec<Query> = list.list().iter().filter_map(|q| query(q, &server)).collect();
    let mut names: Vec<&str> = queries.iter().map(|q| q.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        list.invalid("two queries have the same name", "");
    }
    queries
}

fn query(cursor: &Cursor<'_>, server: &str) -> Option<Query> {
    let object = cursor.object()?;
    let limit = |name: &str| object.get(name).and_then(|l| l.number());
    let query = Query {
        name: object.required("name")?.text()?,
        server: server.to_owned(),
        expression: object.required("query")?.text()?,
        min: limit("min"),
        max: limit("max"),
        interval: object.get("interval").and_then(|i| i.duration()).unwrap_or(Duration::from_secs(15)),
        failures: object.get("failures").and_then(|f| f.bounded(1, 1000)).unwrap_or(3),
    };
    if query.interval < Duration::from_secs(1) {
        cursor.invalid("the interval is below a second", "");
    }
    match (query.min, query.max) {
        (None, None) => cursor.invalid("needs min, max or both", "without a limit its value decides nothing"),
        (Some(min), Some(max)) if min > max => cursor.invalid("min is more than max", ""),
        _ => {}
    }
    Some(query)
}

/// `{from: Fri 16:00, to: Mon 08:00}`, in UTC.
fn freeze(cursor: &Cursor<'_>) -> Option<(u32, u32)> {
    let object = cursor.object()?;
    let minute = |cursor: Cursor<'_>| {
        let text = cursor.text()?;
        let found = minute_of_week(&text);
        if found.is_none() {
            cursor.invalid(
                format!("'{text}' is not a time of the week"),
                "write day and time in UTC, such as 'Fri 16:00'",
            );
        }
        found
    };
    Some((minute(object.required("from")?)?, minute(object.required("to")?)?))
}

fn minute_of_week(text: &str) -> Option<u32> {
    let (day, time) = text.split_once(' ')?;
    let day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .iter()
        .position(|d| day.to_ascii_lowercase().starts_with(d))?;
    let (hour, minute) = time.trim().split_once(':')?;
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(day as u32 * 1440 + hour * 60 + minute)
}

fn alert(cursor: &Cursor<'_>) -> Option<Alert> {
    let object = cursor.object()?;
    let url = object.required("url")?.text()?;
    if !url.starts_with("http://") {
        object.error(Code::InvalidValue, "only http:// is supported", "");
    }
    let form = object.get("format").and_then(|f| one_of(&f, &["slack", "cloudevents"]));
    let template = object.get("template").and_then(|t| t.text());
    let form = match form.as_deref() {
        Some("cloudevents") => AlertForm::CloudEvent,
        _ => AlertForm::Slack(template.unwrap_or_else(|| "{release}: {phase}, step {step}: {reason}".to_owned())),
    };
    Some(Alert { url, form })
}
