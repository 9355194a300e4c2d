//! YAML as a tree that remembers where every value stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_saphyr::Spanned;

/// Line and column, counted from one; zero when unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: clamp(location.line()), column: clamp(location.column()) }
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A key with its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) name: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Value {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    fn field(&self, name: &str) -> Option<&Self> {
        let Value::Map(fields) = &self.value else { return None };
        fields.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// A field that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.field(name)?.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a field that is a list, or null.
    pub(crate) fn items(&self, name: &str) -> Option<&[Self]> {
        match &self.field(name)?.value {
            Value::List(items) => Some(items),
            Value::Null => Some(&[]),
            _ => None,
        }
    }

    /// The same map with a field, unless it has it.
    pub(crate) fn with(&self, name: &str, text: &str) -> Self {
        let mut map = self.clone();
        if let Value::Map(fields) = &mut map.value
            && self.field(name).is_none()
        {
            let value = Self { at: self.at, value: Value::String(text.to_owned()) };
            fields.push((Key { at: self.at, name: name.to_owned() }, value));
        }
        map
    }

    /// Moves the places in it down by so many lines: it stands in a text inside another.
    pub(crate) fn shift(&mut self, lines: u32) {
        self.at.line = self.at.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(fields) => fields.iter_mut().for_each(|(key, value)| {
                key.at.line = key.at.line.saturating_add(lines);
                value.shift(lines);
            }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {}
        }
    }
}

/// Why text is no YAML, and where.
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Every document of a stream. Aliases and nesting are bounded, so hostile input costs little.
pub(crate) fn parse_stream(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let budget = serde_saphyr::budget! {
        max_depth: 32,
        flow_nesting_limit: 32,
        max_aliases: 1_000,
        max_anchors: 1_000,
        // Every node is a character at least; aliases that expand to more are no rules.
        max_nodes: 10_000 + text.len(),
        max_events: 20_000 + 2 * text.len(),
        max_documents: 50_000,
    };
    let options = serde_saphyr::options! {
        budget: budget,
    };
    serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options)
        .map(|documents| documents.into_iter().map(Node::from).collect())
        .map_err(|error| {
            let plain = error.without_snippet();
            let message = plain.to_string();
            let first = message.lines().next().unwrap_or("not valid YAML");
            let first = first.split(" at line ").next().unwrap_or(first);
            SyntaxError { at: plain.location().map(Position::from).unwrap_or_default(), message: in_words(first) }
        })
}

/// The parser's message without the parser's own terms.
fn in_words(message: &str) -> String {
    if message.starts_with("budget breached") {
        let what = [
            ("Depth", "nested more than 32 deep"),
            ("FlowNesting", "nested more than 32 deep"),
            ("Alias", "too many aliases"),
            ("Anchor", "aliases that expand to too much"),
            ("Nodes", "aliases that expand to too much"),
            ("Events", "aliases that expand to too much"),
            ("Documents", "more than 50,000 documents"),
        ];
        let found =
            what.iter().find(|(term, _)| message.contains(term)).map_or("too much in one file", |(_, text)| text);
        return format!("{found}: this is beyond any set of rules");
    }
    match message.split_once(", set DuplicateKeyPolicy") {
        Some((plain, _)) => plain.replace("duplicate mapping key: ", "the same key twice: "),
        None => message.to_owned(),
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { at: spanned.referenced.into(), value: spanned.value }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i128(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::List(list) => serializer.collect_seq(list.iter().map(|node| &node.value)),
            Self::Map(fields) => serializer.collect_map(fields.iter().map(|(key, node)| (&key.name, &node.value))),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
        Ok(Value::Int(v))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key::<Spanned<Value>>()? {
            let name = match &key.value {
                Value::String(s) => s.clone(),
                Value::Bool(b) => b.to_string(),
                Value::Int(i) => i.to_string(),
                Value::Float(f) => f.to_string(),
                other => {
                    return Err(serde::de::Error::custom(format!("a key must be a string, not {}", other.type_name())));
                }
            };
            let value = access.next_value::<Spanned<Value>>()?;
            fields.push((Key { at: key.referenced.into(), name }, value.into()));
        }
        Ok(Value::Map(fields))
    }
}
