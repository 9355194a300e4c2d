//! `serin analyze` on folders that are not as they should be.

use std::process::{Command, Output};

use super::SERIN;

fn analyze(path: &std::path::Path) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(SERIN).arg("analyze").arg(path).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A file that cannot be read is said, and the others are checked all the same.
#[test]
fn one_unreadable_file_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.path().join("gone.yaml")).unwrap();
    std::fs::write(
        folder.path().join("bad.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {portz: []}\n",
    )
    .unwrap();
    let (code, out, err) = analyze(folder.path());
    assert_eq!(code, Some(2), "{out}{err}");
    assert!(err.contains("gone.yaml") && out.contains("unknown field 'portz'"), "{out}{err}");
}

/// A folder without a document is a warning.
#[test]
fn nothing_to_check_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = analyze(folder.path());
    assert!(code == Some(0) && out.contains("there is no document"), "{code:?} {out}");
    std::fs::write(folder.path().join("empty.yaml"), "").unwrap();
    assert!(analyze(&folder.path().join("empty.yaml")).1.contains("there is no document"));
}
