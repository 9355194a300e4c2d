//! Header edits as Envoy's header parser makes them: first what is removed, then every value is worked out from the head as it
//! is by then, then what overwrites, then what is added. (Source: `HeaderParser::evaluateHeaders`.)

use std::borrow::Cow;

use serin_http1::{HeaderBlock, RequestHead, ResponseHead};
use serin_resources::header::{AppendAction, HeaderEdits, HeaderValue, Mutation};
use serin_resources::substitution::{Format, FormatContext};

use crate::predicate::text_matches;

/// Provides the commands of format strings that do not come from the heads.
pub trait CommandSource {
    /// The value of a command, such as `UPSTREAM_CLUSTER`.
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String>;
}

/// Heads and facts together, as formats ask for them.
pub struct HeaderContext<'a> {
    /// The request.
    pub request: &'a RequestHead,
    /// The response, once there is one.
    pub response: Option<&'a ResponseHead>,
    /// The rest.
    pub facts: &'a dyn CommandSource,
}

impl FormatContext for HeaderContext<'_> {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        self.facts.command(name, argument)
    }

    fn request_header(&self, name: &str) -> Option<String> {
        let head = self.request;
        let value = match name {
            ":method" => Some(head.method()),
            ":path" => Some(head.target()),
            ":scheme" => Some(head.scheme.as_str().as_bytes()),
            ":authority" => head.fields.get("host"),
            name => head.fields.get(name),
        };
        value.map(|v| String::from_utf8_lossy(v).into_owned())
    }

    fn response_header(&self, name: &str) -> Option<String> {
        let head = self.response?;
        if name == ":status" {
            return Some(head.status.to_string());
        }
        head.fields.get(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }
}

/// Applies one level of edits to a request.
pub fn to_request(edits: &HeaderEdits, head: &mut RequestHead, facts: &dyn CommandSource) {
    if edits.is_empty() {
        return;
    }
    edits.remove.iter().for_each(|name| _ = head.fields.remove(name));
    let puts = worked_out(edits, &head.fields, &HeaderContext { request: head, response: None, facts });
    put(&puts, &mut head.fields);
}

/// Applies one level of edits to a response.
pub fn to_response(edits: &HeaderEdits, head: &mut ResponseHead, request: &RequestHead, facts: &dyn CommandSource) {
    if edits.is_empty() {
        return;
    }
    edits.remove.iter().for_each(|name| _ = head.fields.remove(name));
    let puts = worked_out(edits, &head.fields, &HeaderContext { request, response: Some(head), facts });
    put(&puts, &mut head.fields);
}

/// Makes changes of a request, one after the other.
pub fn mutate_request(mutations: &[Mutation], head: &mut RequestHead, facts: &dyn CommandSource) {
    for mutation in mutations {
        match mutation {
            Mutation::Put(edit) => {
                let known = HeaderContext { request: head, response: None, facts };
                if let Some(found) = one(edit, &head.fields, &known) {
                    put(&[found], &mut head.fields);
                }
            }
            removal => remove(removal, &mut head.fields),
        }
    }
}

/// Makes changes of a response, one after the other.
pub fn mutate_response(
    mutations: &[Mutation],
    head: &mut ResponseHead,
    request: &RequestHead,
    facts: &dyn CommandSource,
) {
    for mutation in mutations {
        match mutation {
            Mutation::Put(edit) => {
                let known = HeaderContext { request, response: Some(head), facts };
                if let Some(found) = one(edit, &head.fields, &known) {
                    put(&[found], &mut head.fields);
                }
            }
            removal => remove(removal, &mut head.fields),
        }
    }
}

/// Works the values of changes out, for trailers that come when nobody knows the rest any more.
#[must_use]
pub fn resolved(mutations: &[Mutation], known: &HeaderContext<'_>) -> Vec<Mutation> {
    let resolve = |mutation: &Mutation| match mutation {
        Mutation::Put(edit) if edit.value.as_literal().is_none() => {
            let mut text = String::new();
            edit.value.write(known, "", &mut text);
            Mutation::Put(HeaderValue { value: Format::literal(&text), ..edit.clone() })
        }
        other => other.clone(),
    };
    mutations.iter().map(resolve).collect()
}

/// Makes changes of trailers whose values are [worked out](resolved).
pub fn mutate_trailers(mutations: &[Mutation], fields: &mut HeaderBlock) {
    struct Nothing;
    impl CommandSource for Nothing {
        fn command(&self, _: &str, _: Option<&str>) -> Option<String> {
            None
        }
    }
    let request = RequestHead::default();
    let known = HeaderContext { request: &request, response: None, facts: &Nothing };
    for mutation in mutations {
        match mutation {
            Mutation::Put(edit) => {
                if let Some(found) = one(edit, fields, &known) {
                    put(&[found], fields);
                }
            }
            removal => remove(removal, fields),
        }
    }
}

fn remove(mutation: &Mutation, fields: &mut HeaderBlock) {
    match mutation {
        Mutation::Remove(name) => _ = fields.remove(name),
        Mutation::RemoveMatching(matcher) => {
            let matching = fields.iter().filter(|(name, _)| text_matches(matcher, name));
            let names: Vec<String> =
                matching.map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
            names.iter().for_each(|name| _ = fields.remove(name));
        }
        Mutation::Put(_) => {}
    }
}

/// A header to put: name, value, and true when it overwrites.
type Put<'a> = (&'a str, Cow<'a, str>, bool);

fn worked_out<'a>(edits: &'a HeaderEdits, fields: &HeaderBlock, known: &HeaderContext<'_>) -> Vec<Put<'a>> {
    edits.add.iter().filter_map(|edit| one(edit, fields, known)).collect()
}

fn one<'a>(edit: &'a HeaderValue, fields: &HeaderBlock, known: &HeaderContext<'_>) -> Option<Put<'a>> {
    let value = match edit.value.as_literal() {
        Some(text) => Cow::Borrowed(text),
        None => {
            let mut text = String::new();
            edit.value.write(known, "", &mut text);
            Cow::Owned(text)
        }
    };
    if value.is_empty() && !edit.keep_empty {
        return None;
    }
    let there = fields.contains(&edit.name);
    let overwrites = match edit.action {
        AppendAction::Append => false,
        AppendAction::AddIfAbsent if !there => false,
        AppendAction::Overwrite => true,
        AppendAction::OverwriteIfExists if there => true,
        AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => return None,
    };
    Some((&edit.name, value, overwrites))
}

fn put(puts: &[Put<'_>], fields: &mut HeaderBlock) {
    for (name, value, _) in puts.iter().filter(|(_, _, overwrites)| *overwrites) {
        fields.set(name, value.as_bytes());
    }
    for (name, value, _) in puts.iter().filter(|(_, _, overwrites)| !overwrites) {
        fields.append(name.as_bytes(), value.as_bytes());
    }
}
