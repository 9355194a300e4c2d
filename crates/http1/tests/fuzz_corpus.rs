//! Replays the committed fuzz corpora: what a fuzzer once found stays found.

#[path = "../fuzz/properties.rs"]
mod properties;

fn replay(target: &str, property: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is committed") {
        let path = entry.expect("an entry").path();
        property(&std::fs::read(path).expect("a readable input"));
        files += 1;
    }
    assert!(files > 10, "only {files} inputs");
}

#[test]
fn requests() {
    replay("request", properties::request);
}

#[test]
fn responses() {
    replay("response", properties::response);
}

#[test]
fn bodies() {
    replay("body", properties::body);
}
