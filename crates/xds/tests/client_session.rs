//! Transcripts against the asking session.

use serin_xds::client::{Session, Update, Wanted};
use serin_xds::server::Mode;

fn names(list: &[&str]) -> Wanted {
    Wanted::Names(list.iter().map(|n| (*n).to_owned()).collect())
}

fn update(kind: &str, nonce: &str, changed: &[(&str, &str)], removed: &[&str]) -> Update {
    Update {
        type_url: kind.into(),
        changed: changed.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned(), bytes::Bytes::new())).collect(),
        removed: removed.iter().map(|n| (*n).to_owned()).collect(),
        full: false,
        nonce: nonce.into(),
        version: "v1".into(),
    }
}

#[test]
fn delta_asks_for_what_is_new_and_gives_up_what_is_old() {
    let mut session = Session::new(Mode::Delta);
    let requests = session.subscribe(&[("C", Wanted::All), ("E", names(&[]))]);
    assert_eq!(requests.len(), 1, "nothing is asked for before there is something to ask for");
    let requests = session.subscribe(&[("C", Wanted::All), ("E", names(&["a", "b"]))]);
    assert_eq!(requests[0].subscribe, ["a", "b"]);
    let requests = session.subscribe(&[("C", Wanted::All), ("E", names(&["b", "c"]))]);
    assert_eq!(
        (requests[0].subscribe.as_slice(), requests[0].unsubscribe.as_slice()),
        (&["c".to_owned()][..], &["a".to_owned()][..])
    );
}

#[test]
fn a_reconnect_tells_what_is_still_known() {
    let mut session = Session::new(Mode::Delta);
    session.subscribe(&[("C", Wanted::All)]);
    let mut first = update("C", "1", &[("a", "7"), ("b", "8")], &[]);
    session.on_response(&mut first);
    assert_eq!(session.answer(&first, Ok(())).error, None);
    session.on_response(&mut update("C", "2", &[], &["b"]));
    session.on_connect();
    let requests = session.subscribe(&[("C", Wanted::All)]);
    assert_eq!(requests[0].initial_versions.iter().collect::<Vec<_>>(), [(&"a".to_owned(), &"7".to_owned())]);
    assert_eq!(requests[0].nonce, "");
}

#[test]
fn a_rejection_keeps_the_last_good_version() {
    let mut session = Session::new(Mode::Sotw);
    session.subscribe(&[("R", names(&["r"]))]);
    let mut good = update("R", "1", &[], &[]);
    session.on_response(&mut good);
    session.answer(&good, Ok(()));
    assert_eq!(session.version("R"), "v1");
    let mut bad = Update { version: "v2".into(), ..update("R", "2", &[], &[]) };
    session.on_response(&mut bad);
    let answer = session.answer(&bad, Err(serin_xds::Error::Rejected("no".into())));
    assert_eq!(
        (answer.nonce.as_str(), answer.error.as_deref(), answer.names.as_slice()),
        ("2", Some("no"), &["r".to_owned()][..])
    );
    assert_eq!(session.version("R"), "v1");
}
