//! The page's HTML. Everything that came over the wire is escaped.

use serde_json::Value;

/// A part of the page.
pub(super) enum Part {
    Found(Value),
    Sorry(&'static str),
}

pub(super) const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#222;background:#fafaf7}\
header{display:flex;justify-content:space-between;align-items:center;background:#2d4a3e;color:#fff;padding:.75rem 2rem}\
header a{color:#fff;margin-left:1rem}main{max-width:64rem;margin:2rem auto;padding:0 1rem}\
.columns{display:grid;grid-template-columns:1fr 1fr;gap:2rem}blockquote{border-left:4px solid #cdd8d2;margin:1rem 0;padding:.25rem 1rem}\
.black{color:#222}.red{color:#c0392b}.error{color:#a33}dt{font-weight:600;float:left;width:7rem}dd{margin:0 0 0 7rem}\
.served{color:#666;font-size:.875rem}input,button{font:inherit;padding:.25rem .5rem}@media(max-width:40rem){.columns{grid-template-columns:1fr}}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(value: &Value) -> String {
    escape(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn shell(title: &str, right: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"stylesheet\" href=\"/static/style.css\"></head>\n\
         <body><header><strong>BookInfo Sample</strong><span>{right}</span></header>\n<main>\n{body}\n</main></body></html>\n"
    )
}

pub(super) fn index() -> String {
    shell(
        "Simple Bookstore App",
        "",
        "<h1>Hello! This is a simple bookstore application consisting of three services</h1>\n<ul>\
         <li><a href=\"/productpage?u=normal\">Normal user</a></li><li><a href=\"/productpage?u=test\">Test user</a></li></ul>",
    )
}

pub(super) fn product(book: &Value, details: &Part, reviews: &Part, user: Option<&str>) -> String {
    let right = match user {
        Some(name) => format!("{} <a href=\"/logout\">sign out</a>", escape(name)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"user name\" aria-label=\"user name\">\
                 <input name=\"passwd\" type=\"password\" placeholder=\"any password\" aria-label=\"password\"> <button>Sign in</button></form>"
            .to_owned(),
    };
    let body = format!(
        "<h1>{}</h1>\n<p>Summary: {}</p>\n<div class=\"columns\">\n<section>\n{}</section>\n<section>\n{}</section>\n</div>",
        text(&book["title"]),
        book["descriptionHtml"].as_str().unwrap_or_default(),
        details_html(details),
        reviews_html(reviews)
    );
    shell("Simple Bookstore App", &right, &body)
}

fn details_html(part: &Part) -> String {
    match part {
        Part::Sorry(sorry) => format!("<h4>Error fetching product details!</h4>\n<p class=\"error\">{sorry}</p>\n"),
        Part::Found(details) => {
            let rows = ["type", "pages", "publisher", "language", "ISBN-10", "ISBN-13"]
                .map(|field| format!("<dt>{field}</dt><dd>{}</dd>\n", text(&details[field])));
            format!("<h4>Book Details</h4>\n<dl>\n{}</dl>\n", rows.concat())
        }
    }
}

fn reviews_html(part: &Part) -> String {
    let reviews = match part {
        Part::Sorry(sorry) => {
            return format!("<h4>Error fetching product reviews!</h4>\n<p class=\"error\">{sorry}</p>\n");
        }
        Part::Found(reviews) => reviews,
    };
    let list = reviews["reviews"].as_array().map(Vec::as_slice).unwrap_or_default();
    let quotes: String = list.iter().map(review_html).collect();
    format!(
        "<h4>Book Reviews</h4>\n{quotes}<p class=\"served\">Reviews served by: <u>{}</u> on cluster <u>{}</u></p>\n",
        text(&reviews["podname"]),
        text(&reviews["clustername"])
    )
}

fn review_html(review: &Value) -> String {
    let rating = &review["rating"];
    let stars = match (rating["stars"].as_u64(), rating["error"].as_str()) {
        (Some(n), _) => {
            let n = n.min(5) as usize;
            let color = if rating["color"] == "red" { "red" } else { "black" };
            format!("<div class=\"{color}\" aria-label=\"{n} stars\">{}{}</div>\n", "★".repeat(n), "☆".repeat(5 - n))
        }
        (None, Some(error)) => format!("<p class=\"error\"><i>{}</i></p>\n", escape(error)),
        (None, None) => String::new(),
    };
    format!(
        "<blockquote><p>{}</p><small>{}</small>\n{stars}</blockquote>\n",
        text(&review["text"]),
        text(&review["reviewer"])
    )
}
