//! Edits of files, one after the other, beside a store that finds everything anew each time.

use std::collections::BTreeMap;

use serin_folders::Unread;

use super::*;

/// A small generator of numbers (splitmix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn among<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// A document, sound or not, about few names, so that documents meet.
fn document(numbers: &mut Numbers) -> String {
    let name = numbers.among(&["a", "b", "c"]);
    let host = numbers.among(&["a", "b", "c", "nobody"]);
    let subset = numbers.among(&["v1", "v2", "v3"]);
    let number = numbers.below(5);
    let (kind, version, spec) = match numbers.below(14) {
        0..3 => (
            "Service",
            "v1",
            format!("  ports: [{{name: http, port: {}}}]\n  selector: {{app: {name}}}\n", 80 + number % 2),
        ),
        3 => (
            "DestinationRule",
            "networking.istio.io/v1",
            format!("  host: {host}\n  subsets: [{{name: {subset}, labels: {{version: x}}}}]\n"),
        ),
        4 => (
            "DestinationRule",
            "networking.istio.io/v1",
            format!("  host: {host}\n  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}\n"),
        ),
        5 | 6 => (
            "VirtualService",
            "networking.istio.io/v1",
            format!(
                "  hosts: [{host}]\n  http: [{{route: [{{destination: {{host: {name}{}}}, weight: {number}}}]}}]\n",
                if number == 0 { format!(", subset: {subset}") } else { String::new() }
            ),
        ),
        7 => (
            "AuthorizationPolicy",
            "security.istio.io/v1",
            format!("  selector: {{matchLabels: {{app: {host}}}}}\n  action: DENY\n  rules: [{{}}]\n"),
        ),
        8 => ("PeerAuthentication", "security.istio.io/v1", "  mtls: {mode: STRICT}\n".to_owned()),
        9 => (
            "WorkloadEntry",
            "networking.istio.io/v1",
            format!("  address: 10.0.0.{number}\n  labels: {{app: {name}, version: x}}\n"),
        ),
        10 => (
            "ServiceEntry",
            "networking.istio.io/v1",
            format!(
                "  hosts: [{host}.internal]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  \
                 endpoints: [{{address: 10.1.0.{number}}}]\n"
            ),
        ),
        11 => ("Sidecar", "networking.istio.io/v1", "  egress: [{hosts: ['./*']}]\n".to_owned()),
        12 => (
            "Release",
            "serin.dev/v1alpha1",
            format!(
                "  host: {name}\n  stable: {{labels: {{version: v1}}}}\n  candidate: {{labels: {{version: {subset}}}}}\n  \
                 steps: [{{weight: {number}%}}]\n"
            ),
        ),
        _ => (
            "Gateway",
            "networking.istio.io/v1",
            format!("  servers: [{{port: {{number: {}, name: http, protocol: HTTP}}, hosts: ['*']}}]\n", 8000 + number),
        ),
    };
    let broken = if numbers.below(12) == 0 { "  nonsense: [\n" } else { "" };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}{broken}")
}

/// An edit of a few files.
fn edit(numbers: &mut Numbers, identity: u64) -> Changes {
    let mut files = BTreeMap::new();
    for _ in 0..=numbers.below(2) {
        let name = format!("/x/{}.yaml", numbers.among(&["1", "2", "3", "4", "5", "6"]));
        let documents: Vec<String> = (0..numbers.below(3)).map(|_| document(numbers)).collect();
        let text = match numbers.below(12) {
            0 => None,
            1 => Some(Err(Unread::from("it is away".to_owned()))),
            _ => Some(Ok(documents.join("---\n"))),
        };
        let identity = if numbers.below(3) == 0 { 0 } else { identity };
        files.insert(name, text.map(|text| Found { text, identity: (0, identity) }));
    }
    let unreadable = match numbers.below(20) {
        0 => Some(BTreeMap::from([("/x/within".to_owned(), "it is closed".to_owned())])),
        1 => Some(BTreeMap::new()),
        _ => None,
    };
    Changes { files, unreadable }
}

/// Everything that a store says, findings in one order.
fn said(store: &Store) -> String {
    let mut findings: Vec<String> = store.diagnostics.iter().map(|finding| format!("{finding:?}")).collect();
    findings.sort();
    let good: Vec<String> = store.good.values().map(|d| format!("{:?} {:?} {:?}", d.file, d.at, d.object)).collect();
    let outdated: Vec<&ObjectKey> = store.outdated.keys().collect();
    let held: Vec<String> = store.mesh.outdated().iter().map(|held| format!("{:?}", held.key)).collect();
    format!("{findings:#?} {good:#?} {outdated:?} {held:?}")
}

#[test]
fn amended_is_what_is_built_anew() {
    let mut amended = 0;
    for seed in 0..30 {
        let unenforced = seed % 3 == 0;
        let grace = Duration::from_secs(seed % 2);
        let mut numbers = Numbers(seed);
        let (mut store, mut other) = (Store::new(unenforced, grace), Store::new(unenforced, grace));
        let begun = Instant::now();
        for step in 0..60 {
            let now = begun + Duration::from_millis(400) * step;
            let edit = edit(&mut numbers, u64::from(step));
            let copy = Changes { files: edit.files.clone(), unreadable: edit.unreadable.clone() };
            let built = store.update(edit, now);
            // Never amended.
            other.live = None;
            let anew = other.update(copy, now);
            amended += usize::from(built.as_ref().is_some_and(|built| built.edited.is_some()));
            assert_eq!(built.is_some(), anew.is_some(), "seed {seed}, step {step}");
            let news = |built: Option<Built>| {
                let mut news: Vec<String> =
                    built.into_iter().flat_map(|built| built.news).map(|finding| format!("{finding:?}")).collect();
                news.sort();
                news
            };
            assert_eq!(news(built), news(anew), "seed {seed}, step {step}");
            assert_eq!(said(&store), said(&other), "seed {seed}, step {step}");
            let placed = store.good.iter().map(|(key, d)| (key.clone(), (d.object.clone(), d.provenance.clone())));
            let anew = MeshSnapshot::build(placed.collect());
            let anew = if unenforced { anew.without_enforcement() } else { anew };
            let amended = store.mesh.clone().with_outdated(Vec::new());
            assert_eq!(format!("{amended:#?}"), format!("{anew:#?}"), "seed {seed}, step {step}");
        }
    }
    // Many edits are of the kind that this is for.
    assert!(amended > 150, "{amended}");
}

#[test]
fn a_file_that_is_gone_is_believed_after_a_while() {
    let mut store = Store::new(false, Duration::from_secs(1));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    let found = |text: &str| Some(Found { text: Ok(text.to_owned()), identity: (0, 1) });
    let change = |found| Changes { files: BTreeMap::from([("/x/a.yaml".to_owned(), found)]), unreadable: None };
    let begun = Instant::now();
    assert_eq!(store.update(change(found(service)), begun).unwrap().objects, 1);
    assert_eq!(store.update(change(None), begun).unwrap().objects, 1);
    assert!(store.update(Changes::default(), begun + Duration::from_millis(900)).is_none());
    let gone = store.update(Changes::default(), begun + Duration::from_millis(1100)).unwrap();
    assert_eq!((gone.objects, store.knows("/x/a.yaml")), (0, false));
    // One that comes back within that time never went.
    store.update(change(found(service)), begun);
    store.update(change(None), begun);
    let back = store.update(change(found(service)), begun + Duration::from_millis(500)).unwrap();
    assert_eq!((back.objects, store.outdated().len()), (1, 0));
    assert!(store.update(Changes::default(), begun + Duration::from_secs(9)).is_none());
}
