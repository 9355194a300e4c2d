//! `productpage`: the page, the login, and the API behind it.
//!
//! Its known bug is part of it: it waits three seconds for reviews and tries twice, which is shorter than what
//! reviews v2 waits for ratings. A forced delay of seven seconds brings that to light after six.

use std::time::Duration;

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, response::Redirect};
use serde_json::{Value, json};

use super::page::{self, Part};
use super::{App, json as reply};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(index))
        .route("/index.html", get(index))
        .route("/productpage", get(productpage))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/static/{*file}", get(asset))
        .route("/api/v1/products", get(products))
        .route("/api/v1/products/{id}", get(product))
        .route("/api/v1/products/{id}/reviews", get(product_reviews))
        .route("/api/v1/products/{id}/ratings", get(product_ratings))
}

const LIMIT: Duration = Duration::from_secs(3);

fn book() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia Summary</a>: The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, in addition to puns and word play.",
    })
}

/// The user: header `end-user`, or who logged in by the form (kept in the cookie `session`).
fn user(headers: &HeaderMap) -> Option<String> {
    if let Some(name) = headers.get("end-user").and_then(|v| v.to_str().ok()) {
        return Some(name.to_owned());
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let pairs = cookies.flat_map(|c| c.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, value)| *name == "session" && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
}

/// The headers to pass on, with the user's name as `end-user`.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    if let Some(name) = user(&headers).and_then(|n| HeaderValue::from_str(&n).ok()) {
        headers.insert("end-user", name);
    }
    headers
}

async fn fetch(app: &App, service: &str, path: &str, headers: &HeaderMap) -> (StatusCode, Option<Value>) {
    match app.call(service, path, headers, LIMIT).await {
        Ok((status, body)) if status.is_success() => (status, serde_json::from_slice(&body).ok()),
        Ok((status, _)) => (status, None),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

/// Twice, whatever the failure.
async fn reviews(app: &App, id: u32, headers: &HeaderMap) -> (StatusCode, Option<Value>) {
    let path = format!("/reviews/{id}");
    match fetch(app, "reviews", &path, headers).await {
        (_, None) => fetch(app, "reviews", &path, headers).await,
        found => found,
    }
}

async fn index() -> Html<String> {
    Html(page::index())
}

async fn productpage(State(app): State<App>, headers: HeaderMap) -> Html<String> {
    let passed = forwarded(&headers);
    let (details, reviews) = tokio::join!(fetch(&app, "details", "/details/0", &passed), reviews(&app, 0, &passed));
    let part =
        |(_, value): (StatusCode, Option<Value>), sorry: &'static str| value.map_or(Part::Sorry(sorry), Part::Found);
    let details = part(details, "Sorry, product details are currently unavailable for this book.");
    let reviews = part(reviews, "Sorry, product reviews are currently unavailable for this book.");
    Html(page::product(&book(), &details, &reviews, user(&headers).as_deref()))
}

#[derive(serde::Deserialize)]
struct Login {
    username: String,
}

async fn login(headers: HeaderMap, Form(form): Form<Login>) -> Response {
    let name: String =
        form.username.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.@".contains(*c)).take(64).collect();
    back(&headers, &format!("session={name}; Path=/; HttpOnly; SameSite=Lax"))
}

async fn logout(headers: HeaderMap) -> Response {
    back(&headers, "session=; Path=/; Max-Age=0")
}

fn back(headers: &HeaderMap, cookie: &str) -> Response {
    let referer = headers.get(header::REFERER).and_then(|v| v.to_str().ok());
    let path = referer.filter(|r| r.ends_with("/productpage")).map_or("/productpage", |_| "/productpage");
    ([(header::SET_COOKIE, cookie.to_owned())], Redirect::to(path)).into_response()
}

async fn asset(Path(file): Path<String>) -> Response {
    match file.as_str() {
        "style.css" => ([(header::CONTENT_TYPE, "text/css")], page::STYLE).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn products() -> impl IntoResponse {
    reply(StatusCode::OK, &json!([book()]))
}

async fn product(State(app): State<App>, Path(id): Path<u32>, headers: HeaderMap) -> impl IntoResponse {
    let (status, details) = fetch(&app, "details", &format!("/details/{id}"), &forwarded(&headers)).await;
    let sorry = json!({"error": "Sorry, product details are currently unavailable for this book."});
    reply(status, &details.unwrap_or(sorry))
}

async fn product_reviews(State(app): State<App>, Path(id): Path<u32>, headers: HeaderMap) -> impl IntoResponse {
    let (status, found) = reviews(&app, id, &forwarded(&headers)).await;
    let sorry = json!({"error": "Sorry, product reviews are currently unavailable for this book."});
    reply(status, &found.unwrap_or(sorry))
}

async fn product_ratings(State(app): State<App>, Path(id): Path<u32>, headers: HeaderMap) -> impl IntoResponse {
    let (status, found) = fetch(&app, "ratings", &format!("/ratings/{id}"), &forwarded(&headers)).await;
    let sorry = json!({"error": "Sorry, product ratings are currently unavailable for this book."});
    reply(status, &found.unwrap_or(sorry))
}
