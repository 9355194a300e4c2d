//! Reading a tree field by field, with a diagnostic for everything that is not as it should be.
//!
//! An [`Object`] remembers which of its fields were asked for; those that nobody asked for are unknown and are
//! reported when it is dropped, so no reader can forget to look.

mod context;
mod objects;

use std::cell::RefCell;
use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::duration::parse_duration;
use crate::node::{Key, Node, Position, Value};
use crate::spelling::{camel_case, distance, is_slip};
pub use context::Context;
use objects::OBJECTS;

/// A value at a place.
#[derive(Clone)]
pub struct Cursor<'a> {
    pub(crate) context: &'a Context,
    node: &'a Node,
    path: String,
}

/// A map whose unasked fields are reported when it goes.
pub(crate) struct Object<'a> {
    context: &'a Context,
    fields: &'a [(Key, Node)],
    asked: RefCell<Vec<String>>,
    path: String,
    at: Position,
    /// Errors of the context when it was opened.
    errors: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn root(context: &'a Context, node: &'a Node) -> Self {
        Self { context, node, path: String::new() }
    }

    /// A value in a text that stands at that path.
    pub(crate) fn nested(context: &'a Context, node: &'a Node, path: &str) -> Self {
        Self { context, node, path: path.to_owned() }
    }

    pub(crate) fn at(&self) -> Position {
        self.node.at
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn report(&self, code: Code, severity: Severity, message: impl Into<String>, help: impl Into<String>) {
        self.context.report(Diagnostic {
            code,
            severity,
            file: self.context.file.clone(),
            at: self.node.at,
            path: self.path.clone(),
            message: message.into(),
            help: help.into(),
        });
    }

    pub(crate) fn invalid(&self, message: impl Into<String>, help: impl Into<String>) {
        self.report(Code::InvalidValue, Severity::Error, message, help);
    }

    fn wrong_type(&self, expected: &str) {
        let message = format!("expected {expected}, found {}", self.node.value.type_name());
        self.report(Code::WrongType, Severity::Error, message, "");
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// What is written here, as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(&self.node.value).unwrap_or_default()
    }

    /// The same value with findings going to another context.
    pub(crate) fn within<'b>(&self, context: &'b Context) -> Cursor<'b>
    where
        'a: 'b,
    {
        Cursor { context, node: self.node, path: self.path.clone() }
    }

    /// A field, without claiming it and without a diagnostic.
    pub(crate) fn peek(&self, name: &str) -> Option<Self> {
        let Value::Map(fields) = &self.node.value else { return None };
        let (_, node) = fields.iter().find(|(key, _)| self.context.means(&key.name, name))?;
        Some(Self { context: self.context, node, path: below(&self.path, name) })
    }

    /// The string, without a diagnostic when it is none.
    pub(crate) fn peek_text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The port, without a diagnostic when it is none.
    pub(crate) fn peek_port(&self) -> Option<u16> {
        match self.node.value {
            Value::Int(number) => u16::try_from(number).ok().filter(|n| *n > 0),
            _ => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn object(&self) -> Option<Object<'a>> {
        let fields: &'a [(Key, Node)] = match &self.node.value {
            Value::Map(fields) => fields,
            _ => {
                self.wrong_type("a map");
                return None;
            }
        };
        Some(Object {
            context: self.context,
            fields,
            asked: RefCell::default(),
            path: self.path.clone(),
            at: self.node.at,
            errors: self.context.errors.get(),
        })
    }

    pub(crate) fn list(&self) -> Vec<Self> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, node)| Self { context: self.context, node, path: format!("{}[{i}]", self.path) })
                .collect(),
            _ => {
                self.wrong_type("a list");
                Vec::new()
            }
        }
    }

    pub(crate) fn entries(&self) -> Vec<(String, Self)> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::Map(fields) => fields
                .iter()
                .map(|(key, node)| {
                    let path = below(&self.path, &key.name);
                    (key.name.clone(), Self { context: self.context, node, path })
                })
                .collect(),
            _ => {
                self.wrong_type("a map");
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::String(s) => Some(s.clone()),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(b) => Some(*b),
            _ => {
                self.wrong_type("a boolean");
                None
            }
        }
    }

    pub(crate) fn integer(&self) -> Option<i128> {
        match &self.node.value {
            Value::Int(i) => Some(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => Some(*f as i128),
            _ => {
                self.wrong_type("an integer");
                None
            }
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match &self.node.value {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => {
                self.wrong_type("a number");
                None
            }
        }
    }

    /// An integer in `low..=high`.
    pub(crate) fn bounded(&self, low: u32, high: u32) -> Option<u32> {
        let number = self.integer()?;
        match u32::try_from(number).ok().filter(|n| (low..=high).contains(n)) {
            Some(n) => Some(n),
            None => {
                self.invalid(format!("{number} is not between {low} and {high}"), "");
                None
            }
        }
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.bounded(1, 65_535).and_then(|n| u16::try_from(n).ok())
    }

    /// A duration as Istio's validation takes it: at least 1 ms, in whole milliseconds.
    pub(crate) fn milliseconds(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration < Duration::from_millis(1) || duration.subsec_nanos() % 1_000_000 != 0 {
            self.invalid("this duration is below 1 ms, or no whole number of milliseconds", "Istio refuses it too");
            return None;
        }
        Some(duration)
    }

    /// A text that becomes part of a message's head: one line, without control characters.
    pub(crate) fn line(&self) -> Option<String> {
        let text = self.text()?;
        if text.chars().any(char::is_control) {
            self.invalid("this text has control characters, such as the end of a line", "");
            return None;
        }
        Some(text)
    }

    /// A Go-style duration such as `1h`, `1.5s`, `250ms`.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let parsed = parse_duration(&text);
        if parsed.is_none() {
            self.invalid(format!("'{text}' is not a duration"), "write a number with a unit: 500ms, 2s, 1m30s, 1h");
        }
        parsed
    }
}

impl<'a> Object<'a> {
    /// The field, when it is there and not null. A null where an object must stand is an error, as in Istio's schemas.
    pub(crate) fn get(&self, name: &str) -> Option<Cursor<'a>> {
        let again = self.asked.borrow().iter().any(|asked| asked == name);
        self.asked.borrow_mut().push(name.to_owned());
        let cursor = self.find(name)?;
        if cursor.is_null() && !again && self.context.protobuf.get() && OBJECTS.contains(&name) {
            cursor.wrong_type("an object");
        }
        (!cursor.is_null()).then_some(cursor)
    }

    fn find(&self, name: &str) -> Option<Cursor<'a>> {
        let mut found = self.fields.iter().filter(|(key, _)| self.context.means(&key.name, name));
        let (_, node) = found.next()?;
        Some(Cursor { context: self.context, node, path: self.child(name) })
    }

    /// The items of a list that may be missing; null is one without items.
    pub(crate) fn list(&self, name: &str) -> Vec<Cursor<'a>> {
        self.asked.borrow_mut().push(name.to_owned());
        self.find(name).map(|list| list.list()).unwrap_or_default()
    }

    /// The items of a list, of which null is one without items; a diagnostic when it is missing.
    pub(crate) fn required_list(&self, name: &str) -> Option<Vec<Cursor<'a>>> {
        if self.find(name).is_some_and(|found| found.is_null()) {
            self.asked.borrow_mut().push(name.to_owned());
            return Some(Vec::new());
        }
        self.required(name).map(|list| list.list())
    }

    /// The field; a diagnostic when it is missing.
    pub(crate) fn required(&self, name: &str) -> Option<Cursor<'a>> {
        let found = self.get(name);
        if found.is_none() {
            self.error(Code::MissingField, format!("'{name}' is required"), "");
        }
        found
    }

    /// Fields that are valid but have no effect yet: a warning each.
    pub(crate) fn no_effect_yet(&self, names: &[&str]) {
        for name in names {
            if let Some(field) = self.get(name) {
                field.report(
                    Code::NoEffectYet,
                    Severity::Warning,
                    format!("'{name}' has no effect yet"),
                    "the rest of the object is used",
                );
            }
        }
    }

    /// Fields that are valid but must not be ignored: an error each.
    pub(crate) fn not_supported(&self, names: &[&str]) {
        for name in names {
            if let Some(field) = self.get(name) {
                field.report(
                    Code::NotSupported,
                    Severity::Error,
                    format!("'{name}' is not supported yet"),
                    "the object is not used, because ignoring the field would send traffic elsewhere",
                );
            }
        }
    }

    /// Fields that are read elsewhere or mean nothing here.
    pub(crate) fn skip(&self, names: &[&str]) {
        for name in names {
            let _ = self.get(name);
        }
    }

    /// Fields that nobody asked for are passed over, with a warning each.
    pub(crate) fn rest_is_ignored(&self) {
        let asked = self.asked.borrow().clone();
        for (key, node) in self.fields.iter().filter(|(key, _)| !asked.iter().any(|a| self.context.means(&key.name, a)))
        {
            let cursor = Cursor { context: self.context, node, path: self.child(&key.name) };
            let near = asked.iter().find(|name| is_slip(name, &key.name));
            let help = near.map(|name| format!("did you mean '{name}'?")).unwrap_or_default();
            let message = format!("unknown field '{}' has no effect", key.name);
            cursor.report(Code::UnknownField, Severity::Warning, message, help);
        }
        self.skip_rest();
    }

    /// Everything in here is somebody else's business.
    pub(crate) fn skip_rest(&self) {
        let mut asked = self.asked.borrow_mut();
        asked.extend(self.fields.iter().map(|(key, _)| key.name.clone()));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some_and(|found| !found.is_null())
    }

    /// Errors that were found so far.
    pub(crate) fn errors(&self) -> usize {
        self.context.errors.get()
    }

    /// Something about its fields that is good to know.
    pub(crate) fn note(&self, message: impl Into<String>) {
        self.report(Code::NoEffectYet, Severity::Info, message, "");
    }

    pub(crate) fn error(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.report(code, Severity::Error, message, help);
    }

    fn report(&self, code: Code, severity: Severity, message: impl Into<String>, help: impl Into<String>) {
        self.context.report(Diagnostic {
            code,
            severity,
            file: self.context.file.clone(),
            at: self.at,
            path: self.path.clone(),
            message: message.into(),
            help: help.into(),
        });
    }

    fn child(&self, name: &str) -> String {
        below(&self.path, name)
    }

    /// True when a field looks like one of these, misspelt. It is reported as unknown, so that nothing needs to be said of it twice.
    pub(crate) fn misspells(&self, names: &[&str]) -> bool {
        self.fields.iter().any(|(key, _)| names.iter().any(|name| *name != key.name && is_slip(name, &key.name)))
    }
}

/// The path of a field.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        // After an error its reader may have stopped before it asked for everything: then only what looks like a slip
        // of a field that was asked for is certainly unknown.
        let stopped = self.context.errors.get() > self.errors;
        for (place, (key, _)) in self.fields.iter().enumerate() {
            if asked.iter().any(|asked| self.context.means(&key.name, asked)) {
                self.written_twice(place, key);
                continue;
            }
            let near = asked.iter().filter(|a| is_slip(a, &key.name)).min_by_key(|a| distance(a, &key.name));
            if stopped && near.is_none() {
                continue;
            }
            let help = near.map(|n| format!("did you mean '{n}'?")).unwrap_or_default();
            self.context.report(Diagnostic {
                code: Code::UnknownField,
                severity: Severity::Error,
                file: self.context.file.clone(),
                at: key.at,
                path: self.child(&key.name),
                message: format!("unknown field '{}'", key.name),
                help,
            });
        }
    }
}

impl Object<'_> {
    /// One field in both spellings of protobuf: it is not clear which of the two is meant.
    fn written_twice(&self, place: usize, key: &Key) {
        let name = camel_case(&key.name);
        let before = self.fields.iter().take(place).find(|(other, _)| self.context.means(&other.name, &name));
        if let Some((before, _)) = before.filter(|_| self.context.protobuf.get()) {
            self.context.report(Diagnostic {
                code: Code::Duplicate,
                severity: Severity::Error,
                file: self.context.file.clone(),
                at: key.at,
                path: self.child(&key.name),
                message: format!("'{}' and '{}' are the same field", before.name, key.name),
                help: "write it once".to_owned(),
            });
        }
    }
}
