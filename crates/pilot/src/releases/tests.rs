//! Several releases beside each other, their state and their log, without proxies.

use std::time::Duration;

use serin_delivery::DOCUMENT_GONE;
use serin_ingest::parse;
use serin_model::Labels;

use super::*;

const SERVICES: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME}
spec:
  hosts: [NAME.default.svc.cluster.local]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, labels: {version: v1}}, {address: 10.0.0.2, labels: {version: v2}}]
---
";

fn document(name: &str, host: &str, more: &str) -> String {
    format!(
        "---\napiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {name}}}\nspec:\n  host: {host}\n  \
         stable: {{labels: {{version: v1}}}}\n  candidate: {{labels: {{version: v2}}}}\n  guard: 0s\n  \
         analysis: {{warmup: 0s, onDeadline: promote}}\n  steps: [{{weight: 10%, bake: 0s{more}\n"
    )
}

fn mesh(releases: &str) -> MeshSnapshot {
    let services: String = ["one", "two"].iter().map(|name| SERVICES.replace("NAME", name)).collect();
    let parsed = parse("t.yaml", &format!("{services}{releases}"));
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    MeshSnapshot::build(
        parsed.documents.iter().map(|d| (d.key.clone(), (d.object.clone(), d.provenance.clone()))).collect(),
    )
}

struct Bench {
    releases: Releases,
    mesh: MeshSnapshot,
    fleet: Fleet,
    loads: Loads,
}

impl Bench {
    fn new(documents: &str, state: Option<&Path>) -> Self {
        let bench = Self {
            releases: Releases::open(state.map(|path| (path, StateLock::take(path).unwrap()))).unwrap(),
            mesh: mesh(documents),
            fleet: Fleet::default(),
            loads: Loads::default(),
        };
        bench.releases.sync(&bench.mesh, true);
        bench
    }

    /// Looks until it is as it should be.
    fn until(&self, name: &str, phase: Phase) {
        for _ in 0..400 {
            if self.phase(name) == phase {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
            self.releases.look(&self.mesh, &self.fleet, &self.loads);
        }
        panic!("{name} is {:?}: {}", self.phase(name), self.entry(name).status.reason);
    }

    fn entry(&self, name: &str) -> Entry {
        self.releases.each(Some(&object(name))).pop().unwrap()
    }

    fn phase(&self, name: &str) -> Phase {
        self.entry(name).status.phase
    }
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
}

#[test]
fn a_train_goes_in_order_and_back_together() {
    let approved = ", approval: {}}]\n  train: {name: t, order: 2}";
    let documents = document("first", "one", "}]\n  train: {name: t, order: 1}") + &document("second", "two", approved);
    let bench = Bench::new(&documents, None);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    assert!(
        bench.entry("second").status.reason.contains("waits for release default/first"),
        "{}",
        bench.entry("second").status.reason
    );
    bench.until("first", Phase::Promoted);
    bench.until("second", Phase::AwaitingApproval);
    bench.releases.command(&object("second"), Said::new("ann", Command::Abort("no".to_owned()))).unwrap();
    bench.until("second", Phase::RolledBack);
    bench.until("first", Phase::RolledBack);
    assert!(bench.entry("first").status.reason.contains("same train"), "{}", bench.entry("first").status.reason);
    assert!(bench.releases.audited(0).unwrap().entries > 0);
}

#[test]
fn of_one_host_one_release_goes_at_a_time() {
    let waiting = ", approval: {}}]";
    let queued =
        document("a", "one", waiting) + &document("b", "one", "}]") + &document("c", "one", "}]\n  supersede: refuse");
    let bench = Bench::new(&queued, None);
    bench.until("a", Phase::AwaitingApproval);
    assert_eq!((bench.phase("b"), bench.phase("c")), (Phase::Pending, Phase::RolledBack));
    assert!(bench.entry("c").status.reason.contains("refused"), "{}", bench.entry("c").status.reason);
    let replaced = document("a", "one", waiting) + &document("b", "one", "}]\n  supersede: replace");
    let bench = Bench::new(&replaced, None);
    bench.until("a", Phase::RolledBack);
    bench.until("b", Phase::Promoted);
    let overlays = bench.releases.overlays();
    assert_eq!(overlays.values().next().map(|o| (o.release.name.as_str(), o.weight.percent())), Some(("b", 100.0)));
}

/// The same document for the next version.
fn next(document: &str) -> String {
    document.replace(": v1}", ": vx}").replace(": v2}", ": v1}").replace(": vx}", ": v2}")
}

#[test]
fn the_next_in_the_queue_begins_where_the_traffic_is() {
    let first = document("a", "one", "}]");
    let waiting = document("b", "one", ", approval: {}}]");
    let bench = Bench::new(&(first.clone() + &waiting), None);
    bench.until("a", Phase::Promoted);
    bench.until("b", Phase::Pending);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    assert!(bench.entry("b").status.reason.contains("version=v2 has the traffic, by release default/a"));
    bench.releases.sync(&mesh(&(first + &next(&waiting))), true);
    bench.until("b", Phase::AwaitingApproval);
    let overlays = bench.releases.overlays();
    let (b, version) =
        (overlays.values().next().unwrap(), |v: &str| Labels::from([("version".to_owned(), v.to_owned())]));
    assert_eq!((b.release.name.as_str(), &b.stable, &b.former), ("b", &version("v2"), &vec![version("v1")]));
    let says = Command::Undo(String::new());
    assert!(
        bench
            .releases
            .command(&object("a"), Said::new("ann", says.clone()))
            .is_err_and(|e| format!("{e:?}").contains("default/b"))
    );
    // What went back left the traffic where the first one brought it: that can be undone, once.
    bench.releases.command(&object("b"), Said::new("ann", Command::Abort(String::new()))).unwrap();
    bench.until("b", Phase::RolledBack);
    assert_eq!(bench.releases.overlays().values().next().unwrap().stable, version("v2"));
    bench.releases.command(&object("a"), Said::new("ann", says.clone())).unwrap();
    bench.until("a", Phase::RolledBack);
    assert!(bench.releases.command(&object("b"), Said::new("ann", says)).is_err());
    let overlays = bench.releases.overlays();
    let overlay = overlays.values().next().unwrap();
    assert_eq!((overlay.release.name.as_str(), &overlay.stable, overlay.weight.percent()), ("a", &version("v1"), 0.0));
}

#[test]
fn a_train_that_has_arrived_is_not_called_back() {
    let train = "}]\n  train: {name: t, order: ";
    let (first, second) =
        (document("first", "one", &format!("{train}1}}")), document("second", "two", &format!("{train}2}}")));
    let bench = Bench::new(&(first.clone() + &second), None);
    bench.until("second", Phase::Promoted);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    let later = next(&first).replace("bake: 0s}", "bake: 0s, approval: {}}");
    bench.releases.sync(&mesh(&(later + &second)), true);
    bench.until("first", Phase::AwaitingApproval);
    bench.releases.command(&object("first"), Said::new("ann", Command::Abort(String::new()))).unwrap();
    bench.until("first", Phase::RolledBack);
    assert_eq!(bench.phase("second"), Phase::Promoted);
}

#[test]
fn the_state_outlives_the_pilot_and_a_release_without_document_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let documents = document("a", "one", ", approval: {}}]");
    let bench = Bench::new(&documents, Some(&state));
    bench.until("a", Phase::AwaitingApproval);
    let before = bench.entry("a").status;
    drop(bench);
    let bench = Bench::new(&documents, Some(&state));
    assert_eq!(bench.entry("a").status, before);
    bench.releases.command(&object("a"), Said::new("ann", Command::Approve("yes".to_owned()))).unwrap();
    bench.until("a", Phase::Promoted);
    assert_eq!(bench.releases.overlays().len(), 1);
    // Its document is gone: for a moment the traffic stays, and it goes on when the document is there again.
    bench.releases.sync(&mesh(""), true);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    assert_eq!((bench.releases.overlays().len(), bench.entry("a").status.paused.as_deref()), (1, Some(DOCUMENT_GONE)));
    bench.releases.sync(&bench.mesh, true);
    assert_eq!((bench.phase("a"), bench.entry("a").status.paused), (Phase::Promoted, None));
    bench.releases.sync(&mesh(""), true);
    bench.releases.lock().holds = Duration::ZERO;
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    assert!(bench.releases.overlays().is_empty() && bench.releases.each(None).is_empty());
    let entries = bench.releases.audited(0).unwrap().entries;
    assert!(entries > 5, "{entries}");
    // A document that comes back later has ended, for this pilot and for the next.
    bench.releases.sync(&bench.mesh, true);
    assert_eq!((bench.phase("a"), bench.releases.overlays().len()), (Phase::Promoted, 1));
    bench.releases.sync(&mesh(""), true);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    assert!(bench.releases.each(None).is_empty());
    drop(bench);
    let bench = Bench::new(&documents, Some(&state));
    assert_eq!(bench.phase("a"), Phase::Promoted);
    // One that was away when its pilot ended goes on with the next.
    bench.releases.sync(&mesh(""), true);
    bench.releases.look(&bench.mesh, &bench.fleet, &bench.loads);
    drop(bench);
    let bench = Bench::new(&documents, Some(&state));
    assert_eq!(bench.entry("a").status.paused, None);
    drop(bench);
    std::fs::write(&state, "not json").unwrap();
    assert!(Releases::open(Some((&state, StateLock::take(&state).unwrap()))).is_err());
}
