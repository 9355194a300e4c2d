//! `reviews`: v1 shows no stars, v2 black ones, v3 red ones. v2 waits ten seconds for ratings, v3 two and a half.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};

use super::{App, json as reply};

pub(super) fn router() -> Router<App> {
    Router::new().route("/reviews/{id}", get(reviews))
}

const TEXTS: [(&str, &str); 2] = [
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
];

async fn reviews(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> impl IntoResponse {
    let Ok(number) = id.parse::<u32>() else {
        return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product id"}));
    };
    let style = match &*app.version {
        "v2" => Some(("black", Duration::from_secs(10))),
        "v3" => Some(("red", Duration::from_millis(2500))),
        _ => None,
    };
    let stars = match style {
        None => None,
        Some((color, limit)) => Some((color, stars(&app, number, &headers, limit).await)),
    };
    let list: Vec<Value> = TEXTS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            if let Some((color, stars)) = &stars {
                review["rating"] = match stars {
                    Some(stars) => json!({"stars": stars[reviewer], "color": color}),
                    None => json!({"error": "Ratings service is currently unavailable"}),
                };
            }
            review
        })
        .collect();
    reply(StatusCode::OK, &json!({"id": id, "podname": &*app.name, "clustername": "serin-demo", "reviews": list}))
}

async fn stars(app: &App, id: u32, headers: &HeaderMap, limit: Duration) -> Option<Value> {
    let (status, body) = app.call("ratings", &format!("/ratings/{id}"), headers, limit).await.ok()?;
    let value: Value = serde_json::from_slice(&body).ok().filter(|_| status.is_success())?;
    value.get("ratings").cloned()
}
