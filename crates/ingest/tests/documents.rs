//! Hostile and odd documents: bounded work, a clear place, nothing lost.

use serin_ingest::{Code, Severity, parse};

fn first(text: &str) -> (Code, u32, u32, String) {
    let parsed = parse("file.yaml", text);
    let found = parsed.diagnostics.first().unwrap_or_else(|| panic!("no diagnostic for {text:.80}"));
    (found.code, found.at.line, found.at.column, found.message.clone())
}

#[test]
fn what_is_no_yaml_is_said_with_its_place() {
    let (code, line, ..) = first("a: b\n c: [d\n");
    assert_eq!((code, line), (Code::Syntax, 2));
    assert!(parse("file.yaml", "a: [").unreadable);
    assert_eq!(first("\u{0}\u{1}\u{2}").0, Code::Syntax);
}

#[test]
fn deep_nesting_alias_bombs_and_huge_files_are_bounded() {
    assert_eq!(first(&"[".repeat(10_000)).0, Code::Syntax);
    assert_eq!(first(&"- ".repeat(10_000)).0, Code::Syntax);
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, before) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        let list = vec![format!("*{before}"); 9].join(",");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    assert_eq!(first(&bomb).0, Code::Syntax);
    assert_eq!(first(&"x".repeat(50 << 20)).0, Code::Unreadable);
    assert_eq!(first("a: 1\na: 2\n").0, Code::Syntax);
}

#[test]
fn one_broken_object_does_not_spoil_the_others() {
    let good = |name: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n")
    };
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: eighty}]}\n---\n";
    let parsed = parse("file.yaml", &format!("{}{bad}{}", good("a"), good("b")));
    let names: Vec<_> = parsed.documents.iter().map(|d| d.key.name.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(parsed.broken[0].name.name, "bad");
    assert_eq!((parsed.diagnostics[0].at.line, parsed.diagnostics[0].path.as_str()), (9, "spec.ports[0].port"));
}

#[test]
fn lists_and_json_are_documents_too() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"any": "thing"}}]}"#;
    let parsed = parse("file.json", json);
    assert_eq!(parsed.documents.len(), 1);
    assert_eq!(parsed.diagnostics[0].severity, Severity::Info, "a ConfigMap is none of our business");
}

#[test]
fn durations_are_gos() {
    let rule = |timeout: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{timeout: {timeout}, route: [{{destination: {{host: a}}}}]}}]}}\n"
        )
    };
    for good in ["1s", "1.5s", "1m30s", "250ms", "1h"] {
        assert!(parse("f", &rule(good)).diagnostics.is_empty(), "{good}");
    }
    for bad in ["0s", "0.5ms", "1.5ms", "1", "s", "1 s", "-1s", "1d", "''"] {
        assert_eq!(parse("f", &rule(bad)).documents.len(), 0, "{bad}");
    }
}

/// A policy whose name, version or kind cannot be read closes what it could guard, and says so; other objects close nothing.
#[test]
fn what_has_no_readable_name_opens_nothing() {
    let policy = |version: &str, kind: &str, metadata: &str, spec: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
    };
    let (security, networking) = ("security.istio.io/v1", "networking.istio.io/v1");
    let tls = "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
    for text in [
        policy(security, "AuthorizationPolicy", "{namespace: shop}", "{}"),
        policy(security, "AuthorizationPolicy", "{name: 1}", "{}"),
        policy("security.istio.io", "AuthorizationPolicy", "{name: a}", "{}"),
        "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n".to_owned(),
        "apiVersion: security.istio.io/v1\nmetadata: {name: a}\nspec: {}\n".to_owned(),
        policy(networking, "DestinationRule", "{}", tls),
        policy(networking, "DestinationRule", "{name: A_B}", tls),
        policy("networking.istio.io/v2", "DestinationRule", "{name: a}", tls),
    ] {
        let parsed = parse("f", &text);
        assert_eq!(parsed.closing.len(), 1, "{text}");
        let said = parsed.diagnostics.iter().filter(|d| d.message.contains("are refused")).count();
        assert_eq!(said, 1, "{text}{:?}", parsed.diagnostics);
    }
    for text in [
        policy(networking, "DestinationRule", "{}", "{host: a}"),
        policy(networking, "VirtualService", "{}", "{hosts: [a]}"),
        policy("apps/v1", "AuthorizationPolicy", "{}", "{}"),
    ] {
        assert!(parse("f", &text).closing.is_empty(), "{text}");
    }
}

/// A host whose field is misspelt, TLS of one port, plain text: a broken rule closes what it demands, and no more.
#[test]
fn a_broken_rule_closes_what_it_demands() {
    use serin_model::Object;
    let rule = |spec: &str| {
        format!("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {spec}\n")
    };
    let whom = |spec: &str| -> Vec<String> {
        let parsed = parse("f", &rule(spec));
        let Some(closing) = parsed.closing.first() else { return Vec::new() };
        let Object::BackendPolicy(rule) = closing.object.as_ref() else { panic!("{closing:?}") };
        let closed = |policy: &serin_model::TrafficPolicy, of: &str| {
            let all = policy.refused.iter().map(|_| of.to_owned());
            let ports = policy.ports.iter().filter(|(_, p)| p.refused.is_some()).map(|(port, _)| format!("{of}{port}"));
            all.chain(ports).collect::<Vec<_>>()
        };
        let subsets = rule.subsets.iter().flat_map(|s| closed(&s.policy, &format!("{}:", s.name)));
        closed(&rule.policy, "").into_iter().chain(subsets).collect()
    };
    let tls = "tls: {mode: ISTIO_MUTUAL}";
    for (spec, expected) in [
        (format!("{{hots: a, trafficPolicy: {{{tls}}}}}"), vec![""]),
        (format!("{{host: '*a.b', x: 1, trafficPolicy: {{{tls}}}}}"), vec![""]),
        (
            format!("{{host: a, x: 1, trafficPolicy: {{portLevelSettings: [{{port: {{number: 81}}, {tls}}}]}}}}"),
            vec!["81"],
        ),
        (format!("{{host: a, trafficPolicy: {{portLevelSettings: [{{port: {{number: x}}, {tls}}}]}}}}"), vec![""]),
        (format!("{{host: a, x: 1, subsets: [{{name: s, trafficPolicy: {{{tls}}}}}, {{name: t}}]}}"), vec!["s:"]),
        (format!("{{host: a, subset: [{{name: s, trafficPolicy: {{{tls}}}}}]}}"), vec![""]),
        (format!("{{host: a, trafficPolicies: {{loadBalancer: {{{tls}}}}}}}"), vec![""]),
        ("{host: a, x: 1, trafficPolicy: {tls: {mode: DISABLE}}}".to_owned(), vec![]),
        (format!("{{host: a, trafficPolicy: {{connectionPool: {{tcp: {{}}, {tls}}}}}}}"), vec![""]),
        (format!("{{host: a, trafficPolicy: {{portLevelSetting: [{{port: {{number: 81}}, {tls}}}]}}}}"), vec![""]),
        (format!("{{host: a, trafficPolicy: {{portLevelSettings: {{port: {{number: 81}}, {tls}}}}}}}"), vec![""]),
        (format!("{{host: a, trafficPolicy: [{{{tls}}}]}}"), vec![""]),
        ("{host: a, trafficPolicy: {tlsSettings: {mode: ISTIO_MUTUAL}}}".to_owned(), vec![""]),
        ("{host: a, trafficPolicy: {tIs: {mode: SIMPLE}}}".to_owned(), vec![""]),
        (format!("{{host: a, subsets: [{{name: s, trafficPolcy: {{{tls}}}}}]}}"), vec!["s:"]),
        (format!("[{{host: a, trafficPolicy: {{{tls}}}}}]"), vec![""]),
        (format!("{{hosts: [a], trafficPolicy: {{{tls}}}}}"), vec![""]),
        (format!("{{host: [a], trafficPolicy: {{{tls}}}}}"), vec![""]),
        (format!("{{host: 'http://a:80', trafficPolicy: {{{tls}}}}}"), vec![""]),
        (format!("{{host: a, exportTo: '*', trafficPolicy: {{{tls}}}}}"), vec![""]),
        (format!("{{trafficPolicy: {{{tls}}}}}"), vec![]),
    ] {
        assert_eq!(whom(&spec), expected, "{spec}");
    }
}

/// What the lines of a file name that is no YAML, and its readable parts.
#[test]
fn an_unreadable_file_closes_what_it_names() {
    let closed = |text: &str| -> Vec<String> {
        parse("f", text).closing.iter().map(|d| format!("{}@{}", d.key.kind, d.key.name.namespace)).collect()
    };
    for (text, expected) in [
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  namespace: shop\nspec: {a: [\n",
            vec!["AuthorizationPolicy@shop"],
        ),
        (
            "{\"apiVersion\": \"security.istio.io/v1beta1\", \"kind\": \"PeerAuthentication\", \"spec\": {",
            vec!["PeerAuthentication@default"],
        ),
        (
            "kind: DestinationRule\napiVersion: networking.istio.io/v1\nspec:\n  host: a\n  trafficPolicy:\n    tls:\n      mode: ISTIO_MUTUAL\n  : [",
            vec!["DestinationRule@default"],
        ),
        (
            "kind: DestinationRule\napiVersion: networking.istio.io/v1\nspec:\n  host: a\n  trafficPolicy:\n    tls:\n      mode: DISABLE\n  : [",
            vec![],
        ),
        ("kind: DestinationRule\napiVersion: networking.istio.io/v1\nspec: {host: a, subsets: [", vec![]),
        ("kind: Deployment\nspec: [", vec![]),
        // Comments and texts name nothing, and what stands beside a document is not of it.
        (
            "# kind: AuthorizationPolicy\nkind: VirtualService\nmetadata: {annotations: {note: \"kind: PeerAuthentication\"}}\nspec: [",
            vec![],
        ),
        (
            "kind: ConfigMap\nmetadata: {namespace: elsewhere}\n--- # policy\nkind: AuthorizationPolicy\nmetadata:\n  labels: {namespace: blue}\n  namespace: shop\nspec: [",
            vec!["AuthorizationPolicy@shop"],
        ),
        (
            "{\"kind\": \"List\", \"items\": [{\"kind\": \"Service\", \"metadata\": {\"namespace\": \"x\"}}, {\"kind\": \"AuthorizationPolicy\", \"metadata\": {\"namespace\": \"shop\"}},]",
            vec!["AuthorizationPolicy@shop"],
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: !!str DestinationRule\nspec:\n  host:\n    a\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}",
            vec!["DestinationRule@default"],
        ),
        (
            "kind: DestinationRule\nspec:\n  host: &h a\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}",
            vec!["DestinationRule@default"],
        ),
        (
            "kind: DestinationRule\nspec:\n  host: {{ .Values.host }}\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}",
            vec![],
        ),
        (
            "spec: [\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
            vec!["AuthorizationPolicy@default"],
        ),
    ] {
        assert_eq!(closed(text), expected, "{text}");
    }
    let parsed = parse("f", "kind: AuthorizationPolicy\nspec: [\n---\n- x\n---\nkind: AuthorizationPolicy\nspec: [\n");
    let lines: Vec<u32> =
        parsed.diagnostics.iter().filter(|d| d.message.contains("are refused")).map(|d| d.at.line).collect();
    assert_eq!(lines, [1, 6]);
}

/// Aliases that expand to a great many nodes cost nothing before they are refused.
#[test]
fn aliases_that_expand_are_refused_early() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
        text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
    }
    let parsed = parse("f", &text);
    assert!(parsed.unreadable && parsed.diagnostics[0].message.contains("beyond any set of rules"), "{parsed:?}");
}

/// A policy with errors closes what it may select, and opens nothing that others close.
#[test]
fn a_broken_policy_opens_nothing() {
    use serin_model::{Demand, Object};
    let demand = |kind: &str, spec: &str| -> Option<Demand> {
        let text = format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
        let parsed = parse("f", &text);
        match parsed.closing.first()?.object.as_ref() {
            Object::Guard(guard) => Some(guard.demand.clone()),
            other => panic!("{other:?}"),
        }
    };
    let nothing = Some(Demand::MutualTls { strict: None, ports: std::collections::BTreeMap::new() });
    let unknown = Some(Demand::Unknown);
    for (kind, spec, expected) in [
        ("AuthorizationPolicy", "{rules: [{}], slector: {matchLabels: {app: a}}}", &nothing),
        ("AuthorizationPolicy", "{rules: [null]}", &Some(Demand::Allow)),
        ("AuthorizationPolicy", "{rules: [[]]}", &Some(Demand::Allow)),
        ("AuthorizationPolicy", "{action: DENY, rulez: [{}]}", &unknown),
        ("AuthorizationPolicy", "{action: AUDIT, x: 1}", &nothing),
        ("PeerAuthentication", "{mtls: {mode: DISABLE}, selctor: {}}", &nothing),
        ("PeerAuthentication", "{mtls: {mode: PERMISSIVE}, portLevelMtls: {http: {mode: STRICT}}}", &unknown),
        ("PeerAuthentication", "{portLevelMtls: {\"8080\": {mod: STRICT}}}", &unknown),
        ("PeerAuthentication", "{mlts: {mode: STRICT}}", &unknown),
        ("RequestAuthentication", "{jwtRulez: [{issuer: x}]}", &unknown),
    ] {
        assert_eq!(&demand(kind, spec), expected, "{kind} {spec}");
    }
    // A group that is misspelt, and a list of one kind.
    for text in [
        "apiVersion: security.istio/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
        "apiVersion: security.istio.oi/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
    ] {
        assert_eq!(parse("f", text).closing.len(), 1, "{text}");
    }
    assert!(
        parse(
            "f",
            "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n"
        )
        .closing
        .is_empty()
    );
    let list = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems: [{metadata: {name: a, namespace: shop}, spec: {}}]\n";
    let parsed = parse("f", list);
    assert_eq!(parsed.documents.first().map(|d| d.key.name.namespace.as_str()), Some("shop"), "{parsed:?}");
}

/// What proxies would reject is an error of its document: otherwise it would hold up what other documents say.
#[test]
fn what_proxies_reject_is_an_error() {
    let rule = |kind: &str, spec: &str| {
        let version = if kind == "Release" { "serin.dev/v1alpha1" } else { "networking.istio.io/v1" };
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n")
    };
    let route = "route: [{destination: {host: a}}]";
    let uri = |pattern: &str| format!("{{hosts: [a], http: [{{match: [{{uri: {{regex: '{pattern}'}}}}], {route}}}]}}");
    let long =
        format!("{{hosts: [a], http: [{{headers: {{response: {{add: {{x: {}}}}}}}, {route}}}]}}", "y".repeat(20_000));
    let many: Vec<String> = (0..1200).map(|n| format!("x{n}: y")).collect();
    let many = format!("{{hosts: [a], http: [{{headers: {{request: {{add: {{{}}}}}}}, {route}}}]}}", many.join(", "));
    let large = format!(
        "{{hosts: [a], http: [{{directResponse: {{status: 200, body: {{string: {}}}}}}}]}}",
        "z".repeat(2_000_000)
    );
    let release =
        |more: &str| format!("{{host: a, stable: {{labels: {{v: a}}}}, candidate: {{labels: {{v: b}}}}, {more}}}");
    let entry = |host: &str| format!("{{hosts: ['{host}'], resolution: STATIC, ports: [{{number: 80, name: http}}]}}");
    for (kind, spec) in [
        ("VirtualService", uri("/a**")),
        ("VirtualService", uri("a*+")),
        ("VirtualService", uri(r"/\u0061")),
        ("VirtualService", uri("")),
        (
            "VirtualService",
            format!("{{hosts: [a], http: [{{match: [{{headers: {{'x y': {{exact: a}}}}}}], {route}}}]}}"),
        ),
        ("VirtualService", long),
        ("VirtualService", many),
        ("VirtualService", large),
        ("DestinationRule", "{host: a, trafficPolicy: {connectionPool: {http: {idleTimeout: 2700000h}}}}".to_owned()),
        ("ServiceEntry", entry("*")),
        ("ServiceEntry", entry("*.")),
        ("Release", release("steps: [{match: [{uri: {regex: 'a**'}}]}]")),
        ("Release", release("stickiness: {header: 'x y'}, steps: [{weight: 5%}]")),
        ("Release", release("stickiness: {query: ''}, steps: [{weight: 5%}]")),
        ("Release", release("stickiness: {cookie: {name: 'a b;c'}}, steps: [{weight: 5%}]")),
    ] {
        let parsed = parse("f", &rule(kind, &spec));
        assert!(
            parsed.documents.is_empty() && parsed.broken.len() == 1,
            "{kind} {}",
            spec.chars().take(90).collect::<String>()
        );
    }
    let sound = release("stickiness: {header: x-user}, steps: [{weight: 5%, bake: 1m}]");
    let parsed = parse("f", &rule("Release", &sound));
    assert_eq!(parsed.documents.len(), 1, "{:?}", parsed.diagnostics);
    let any_port = format!("{{hosts: [a], http: [{{match: [{{port: 0}}], {route}}}]}}");
    assert_eq!(parse("f", &rule("VirtualService", &any_port)).documents.len(), 1);
}

/// Servers of one port of which a later one does nothing.
#[test]
fn servers_that_do_nothing_are_told() {
    let server = |protocol: &str, hosts: &str| {
        let tls = if protocol == "HTTPS" { ", tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}" } else { "" };
        format!("{{port: {{number: 443, name: NAME, protocol: {protocol}}}, hosts: [{hosts}]{tls}}}")
    };
    let (http, https) = (server("HTTP", "a.b"), server("HTTPS", "a.b"));
    for (servers, told) in [
        (vec![https.clone(), server("HTTPS", "c.d")], None),
        (vec![https.clone(), server("HTTPS", "c.d, a.b")], Some("'a.b' is not served here")),
        (vec![https.clone(), http.clone()], Some("speaks TLS")),
        (vec![http.clone(), https], Some("speaks no TLS")),
        (vec![http.clone(), http.clone()], None),
        (vec![http.clone(), http], Some("a port of the name")),
    ] {
        let named = servers.iter().enumerate().map(|(i, server)| server.replace("NAME", &format!("p{i}")));
        let servers: Vec<String> = if told == Some("a port of the name") { servers } else { named.collect() };
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec: {{servers: [{}]}}\n",
            servers.join(", ")
        );
        let parsed = parse("f", &text);
        let found: Vec<&str> = parsed.diagnostics.iter().map(|d| d.message.as_str()).collect();
        match told {
            None => assert!(found.is_empty(), "{text}{found:?}"),
            Some(told) => assert!(matches!(found.as_slice(), [one] if one.contains(told)), "{text}{found:?}"),
        }
    }
}
