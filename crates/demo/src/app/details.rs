//! `details`: facts about the book.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;

use super::{App, json as reply};

pub(super) fn router() -> Router<App> {
    Router::new().route("/details/{id}", get(details))
}

async fn details(Path(id): Path<String>) -> impl IntoResponse {
    let Ok(id) = id.parse::<u32>() else {
        return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product id"}));
    };
    reply(
        StatusCode::OK,
        &json!({
            "id": id,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }),
    )
}
