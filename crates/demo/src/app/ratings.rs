//! `ratings`: stars by reviewer.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;

use super::{App, json as reply};

pub(super) fn router() -> Router<App> {
    Router::new().route("/ratings/{id}", get(ratings))
}

async fn ratings(Path(id): Path<String>) -> impl IntoResponse {
    let Ok(id) = id.parse::<u32>() else {
        return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product ID"}));
    };
    reply(StatusCode::OK, &json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}))
}
