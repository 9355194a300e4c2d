//! The page: all its parts, the login, the header rule.

use super::*;

#[test]
fn the_page_shows_all_parts_and_follows_the_user() {
    let demo = demo().start().unwrap();
    let mut client = demo.client().unwrap();
    let page = client.get("/productpage", &[]).unwrap();
    assert_eq!(page.status, 200);
    for part in ["The Comedy of Errors", "Book Details", "ISBN-10", "Book Reviews", "Reviewer1", "reviews-v1-"] {
        assert!(page.text().contains(part), "{part} not in {}", page.text());
    }
    assert!(!page.text().contains('★'), "v1 shows no stars");
    let jasons = client.get("/productpage", &[("end-user", "jason")]).unwrap().text();
    assert!(jasons.contains("reviews-v2-") && jasons.contains("class=\"black\""), "{jasons}");

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = client.request("POST", "/login", &form, b"username=jason&passwd=x").unwrap();
    assert_eq!((login.status, login.header("location")), (303, Some("/productpage")));
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let page = client.get("/productpage", &[("cookie", &cookie)]).unwrap().text();
    assert!(page.contains("jason") && page.contains("reviews-v2-"), "{page}");
    assert_eq!(client.get("/static/style.css", &[]).unwrap().status, 200);
    assert_eq!(client.get("/nowhere", &[]).unwrap().status, 404);

    let reviews: serde_json::Value = serde_json::from_slice(&client.get(REVIEWS, &[]).unwrap().body).unwrap();
    assert_eq!(reviews["reviews"][1]["reviewer"], "Reviewer2");
    assert!(reviews["podname"].as_str().unwrap().starts_with("reviews-v1-"));
    demo.end().unwrap();
}

#[test]
fn a_busy_port_names_the_flag() {
    let socket = std::net::TcpListener::bind("127.0.0.1:15014");
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_serin")).args(["demo", "--for", "1s"]).output().unwrap();
    drop(socket);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("15014") && text.contains("--free-ports"), "{text}");
}
