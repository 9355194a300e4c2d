//! Compares a mirror's response with the one that the client got: status, headers, and the places of JSON bodies.
//!
//! Paths are JSONPath's (RFC 9535): `$.reviews[0].stars`; in a path to be ignored `[*]` and `.*` stand for any one step.

use serde_json::Value;
use serin_resources::route::Comparison;

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Headers that are compared, those that are there.
    pub headers: Vec<(String, String)>,
    /// Its body, unless it was too long to keep.
    pub body: Option<Vec<u8>>,
}

/// Something that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `status`, `header NAME`, `body`, or a JSON path.
    pub place: String,
    /// The client's value and the mirror's; `None` where there is none.
    pub values: [Option<String>; 2],
}

/// Differences that are listed at most.
const MOST: usize = 50;

/// Longest text of a value.
const LONGEST: usize = 200;

/// All differences, up to [`MOST`].
#[must_use]
pub fn differences(config: &Comparison, primary: &Answered, mirror: &Answered) -> Vec<Difference> {
    let mut found = Found { config, list: Vec::new() };
    let (a, b) = (primary.status.to_string(), mirror.status.to_string());
    found.note("status".to_owned(), Some(a), Some(b));
    for name in &config.headers {
        let of = |answer: &Answered| answer.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        found.note(format!("header {name}"), of(primary), of(mirror));
    }
    if let (Some(one), Some(other)) = (&primary.body, &mirror.body) {
        let json = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
        match (json(one), json(other)) {
            (Some(one), Some(other)) => found.values("$", Some(&one), Some(&other)),
            _ => {
                let text = |body: &[u8]| Some(String::from_utf8_lossy(body).into_owned());
                found.note("body".to_owned(), text(one), text(other));
            }
        }
    }
    found.list
}

struct Found<'a> {
    config: &'a Comparison,
    list: Vec<Difference>,
}

impl Found<'_> {
    fn note(&mut self, place: String, one: Option<String>, other: Option<String>) {
        if one != other && self.list.len() < MOST {
            let short = |text: String| text.chars().take(LONGEST).collect();
            self.list.push(Difference { place, values: [one.map(short), other.map(short)] });
        }
    }

    fn values(&mut self, path: &str, one: Option<&Value>, other: Option<&Value>) {
        if one == other || self.config.ignored.iter().any(|pattern| covers(pattern, path)) {
            return;
        }
        match (one, other) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                let new = other.keys().filter(|key| !one.contains_key(*key));
                for key in one.keys().chain(new) {
                    self.values(&format!("{path}.{key}"), one.get(key), other.get(key));
                }
            }
            (Some(Value::Array(one)), Some(Value::Array(other))) => {
                for place in 0..one.len().max(other.len()) {
                    self.values(&format!("{path}[{place}]"), one.get(place), other.get(place));
                }
            }
            _ => self.note(path.to_owned(), one.map(ToString::to_string), other.map(ToString::to_string)),
        }
    }
}

/// Returns true when a pattern covers a path, or something above it.
fn covers(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (steps(pattern), steps(path));
    loop {
        match (pattern.next(), path.next()) {
            (None, _) => return true,
            (Some(_), None) => return false,
            (Some("*" | "*]"), Some(_)) => {}
            (Some(wanted), Some(step)) if wanted == step => {}
            _ => return false,
        }
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).filter(|step| !step.is_empty() && *step != "$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answered {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Answered { status, headers, body: Some(body.as_bytes().to_vec()) }
    }

    fn places(config: &Comparison, one: &Answered, other: &Answered) -> Vec<String> {
        differences(config, one, other).into_iter().map(|d| d.place).collect()
    }

    #[test]
    fn every_place_is_named() {
        let config = Comparison { headers: vec!["content-type".to_owned(), "etag".to_owned()], ignored: Vec::new() };
        let one = answer(200, r#"{"id": 1, "reviews": [{"stars": 5, "at": 1}, {"stars": 3}], "old": true}"#);
        let other = answer(200, r#"{"id": 1, "reviews": [{"stars": 4, "at": 2}], "new": null}"#);
        assert_eq!(places(&config, &one, &one), Vec::<String>::new());
        let mut found = places(&config, &one, &other);
        found.sort();
        assert_eq!(found, ["$.new", "$.old", "$.reviews[0].at", "$.reviews[0].stars", "$.reviews[1]"]);
        let ignoring = Comparison {
            ignored: vec!["$.reviews[*].at".to_owned(), "$.old".to_owned(), "$.new".to_owned()],
            ..config.clone()
        };
        assert_eq!(places(&ignoring, &one, &other), ["$.reviews[0].stars", "$.reviews[1]"]);
        let broken = Answered { headers: Vec::new(), ..answer(500, "no json") };
        assert_eq!(places(&config, &one, &broken), ["status", "header content-type", "body"]);
        let long = Answered { body: None, ..answer(200, "") };
        assert_eq!(places(&config, &one, &long), Vec::<String>::new());
    }
}
