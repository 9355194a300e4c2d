//! A file's text becomes documents, each with its object or its diagnostics.

use std::sync::Arc;

use serin_model::{Kind, Object, ObjectKey, ObjectName, Provenance, ROOT_NAMESPACE};

use crate::closing;
use crate::cursor::{Context, Cursor};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::kind::{known_instead, known_kind, probable_kind, unknown_severity};
use crate::lower::lower;
use crate::node::{self, Node, Position};
use crate::outline::{self, Entry};
use crate::reference::Reference;

/// Largest file that is read: beyond any set of rules, and small enough to parse in a moment.
pub const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// One object with what it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its identity.
    pub key: ObjectKey,
    /// Its content.
    pub object: Arc<Object>,
    /// Names of others that it uses.
    pub references: Vec<Reference>,
    /// Which file it stands in.
    pub file: Arc<str>,
    /// Where it starts.
    pub at: Position,
    /// Its place among others of its kind.
    pub provenance: Provenance,
}

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Objects that are sound in themselves.
    pub documents: Vec<Document>,
    /// Keys of objects that are there but not sound.
    pub broken: Vec<ObjectKey>,
    /// The first error of each of them.
    pub faults: Vec<(ObjectKey, Diagnostic)>,
    /// What stands for unsound objects that guard something, as long as no sound version of them is known: they close it.
    pub closing: Vec<Document>,
    /// Whether something is there of which not even the name can be told.
    pub nameless: bool,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the whole file could not be read, so that nothing is known about what it meant.
    pub unreadable: bool,
    /// The number of objects that stand before in the same file.
    pub(crate) before: u32,
}

impl Parsed {
    /// The number of objects in the file up to the end of this.
    pub(crate) fn end(&self) -> u32 {
        self.before + (self.documents.len() + self.broken.len()) as u32
    }
}

/// Parses a file as a whole.
pub(crate) fn parse_whole(file: &str, text: &str) -> Parsed {
    let file: Arc<str> = file.into();
    let mut parsed = Parsed::default();
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_FILE_BYTES}", text.len());
        parsed = close_unreadable(&file, text);
        parsed.diagnostics.push(whole_file(&file, Code::Unreadable, message, "split it into several files"));
        return parsed;
    }
    match node::parse_stream(text) {
        Ok(documents) => {
            for document in &documents {
                parse_document(&file, document, &mut parsed);
            }
        }
        Err(error) => {
            parsed = close_unreadable(&file, text);
            parsed.diagnostics.push(Diagnostic {
                at: error.at,
                ..whole_file(&file, Code::Syntax, error.message, "objects that it had stay as they were")
            });
        }
    }
    parsed
}

/// What an unreadable file may guard stays closed until it can be read: policies in its readable parts as they are, and of the other
/// parts what their lines name.
#[must_use]
pub fn close_unreadable(file: &str, text: &str) -> Parsed {
    let file: Arc<str> = file.into();
    let mut parsed = Parsed { unreadable: true, ..Parsed::default() };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let outlines = outline::documents(text);
    let ends = outlines.iter().skip(1).map(|(line, _)| *line as usize - 1).chain([lines.len()]);
    for ((line, entries), end) in outlines.iter().zip(ends) {
        let part: String = lines.get(*line as usize..end).unwrap_or_default().concat();
        match node::parse_stream(&part) {
            Ok(documents) if text.len() <= MAX_FILE_BYTES => {
                let mut readable = Parsed::default();
                for mut document in documents {
                    document.shift(*line);
                    parse_document(&file, &document, &mut readable);
                }
                let guards = readable.documents.into_iter().filter(|d| closing::guards(&d.object));
                parsed.closing.extend(guards.chain(readable.closing));
                parsed.diagnostics.extend(readable.diagnostics.into_iter().filter(|d| d.code == Code::NotEnforced));
            }
            _ => close_outlined(&file, line + 1, entries, &mut parsed),
        }
    }
    parsed
}

/// The same of a part of which there is only an outline.
fn close_outlined(file: &Arc<str>, line: u32, entries: &[Entry], parsed: &mut Parsed) {
    let at = Position { line, column: 1 };
    for (key, object, whom) in closing::named_in(entries, &format!("{file}:{line}")) {
        let kind = key.kind;
        let message = match &object {
            Some(_) => format!(
                "the file cannot be read, and it holds a {kind}: requests to {whom} are refused (503) until it can be, unless an \
                 earlier version of the file is in force"
            ),
            None => format!(
                "the file cannot be read, and it holds a {kind} of which the host cannot be told: nothing is done for it, and requests \
                 go out without it"
            ),
        };
        let said = whole_file(file, Code::NotEnforced, message, "mend the file");
        parsed.diagnostics.push(Diagnostic { at, severity: Severity::Warning, ..said });
        parsed.closing.extend(object.map(|object| Document {
            key,
            object: Arc::new(object),
            references: Vec::new(),
            file: file.clone(),
            at,
            provenance: Provenance { created: None, file: file.clone(), number: 0 },
        }));
    }
}

fn whole_file(file: &Arc<str>, code: Code, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        code,
        severity: Severity::Error,
        file: file.clone(),
        at: Position::default(),
        path: String::new(),
        message,
        help: help.to_owned(),
    }
}

pub(crate) fn parse_document(file: &Arc<str>, node: &Node, parsed: &mut Parsed) {
    if let Some(items) = list_items(node) {
        // Lists may stand in lists; their nesting is bounded where the text is parsed.
        return items.iter().for_each(|item| parse_document(file, item, parsed));
    }
    let context = Context::new(file.clone());
    let cursor = Cursor::root(&context, node);
    if !cursor.is_null() {
        parse_one(file, &cursor, parsed);
    }
}

/// The items of a Kubernetes list: of a `List`, or of one kind (`ServiceList`), whose items need not say it again.
fn list_items(node: &Node) -> Option<Vec<Node>> {
    let kind = node.text("kind").filter(|kind| kind.ends_with("List"))?;
    let items = node.items("items")?;
    let of = kind.strip_suffix("List").filter(|of| !of.is_empty());
    let typed = |item: &Node| match of {
        Some(of) => item.with("kind", of).with("apiVersion", node.text("apiVersion").unwrap_or_default()),
        None => item.clone(),
    };
    Some(items.iter().map(typed).collect())
}

fn parse_one(file: &Arc<str>, cursor: &Cursor<'_>, parsed: &mut Parsed) {
    let context = Context::new(file.clone());
    let cursor = cursor.within(&context);
    let at = cursor.at();
    let outcome = read_object(&context, &cursor);
    let failed = context.failed();
    let number = parsed.end();
    let provenance = match created(&cursor) {
        None => Provenance { created: None, file: file.clone(), number },
        created => Provenance { created, ..Provenance::default() },
    };
    let document = |key, object, references| Document {
        key,
        object: Arc::new(object),
        references,
        file: file.clone(),
        at,
        provenance: provenance.clone(),
    };
    match outcome {
        (Some(key), Some(object)) if !failed => {
            let (diagnostics, references) = context.finish();
            parsed.diagnostics.extend(diagnostics);
            parsed.documents.push(document(key, object, references));
        }
        (Some(key), _) => {
            let closing = closing::closing(file, &key, &cursor);
            let own = context.finish().0;
            if let Some((object, said)) = closing {
                parsed.closing.push(document(key.clone(), object, Vec::new()));
                // That requests are refused is said once.
                let is_said = own.iter().any(|d| d.code == Code::NotEnforced);
                parsed.diagnostics.extend(said.into_iter().filter(|_| !is_said));
            }
            let first = own.iter().find(|d| d.severity == Severity::Error).cloned();
            parsed.faults.extend(first.map(|first| (key.clone(), first)));
            parsed.diagnostics.extend(own);
            parsed.broken.push(key);
        }
        (None, _) => {
            let closing = anonymous(file, &cursor).filter(|_| failed).and_then(|key| {
                let (object, said) = closing::closing(file, &key, &cursor)?;
                Some((document(key, object, Vec::new()), said))
            });
            parsed.diagnostics.extend(context.finish().0);
            if let Some((document, said)) = closing {
                parsed.closing.push(document);
                parsed.diagnostics.extend(said);
            }
            parsed.nameless |= failed;
        }
    }
}

/// The key of an object whose version, kind or name cannot be read, where it may guard something: that must not open it.
fn anonymous(file: &str, cursor: &Cursor<'_>) -> Option<ObjectKey> {
    let text = |name: &str| cursor.peek(name).and_then(|c| c.peek_text());
    let (version, kind) = (text("apiVersion").unwrap_or_default(), text("kind").unwrap_or_default());
    let kind = probable_kind(version, kind).filter(|kind| closing::may_close(*kind))?;
    let metadata = cursor.peek("metadata");
    let part = |name: &str| metadata.as_ref().and_then(|m| m.peek(name)).and_then(|c| c.peek_text());
    let namespace = part("namespace").unwrap_or("default").to_owned();
    // No object that can be read has such a name.
    let name = format!("({file}:{}) {}", cursor.at().line, part("name").unwrap_or_default());
    Some(ObjectKey { kind, name: ObjectName { namespace, name: name.trim_end().to_owned() } })
}

/// When an object was made, as the API server says it; what cannot be read is as if it were not said.
fn created(cursor: &Cursor<'_>) -> Option<i64> {
    timestamp(&cursor.peek("metadata")?.peek("creationTimestamp")?)
}

fn timestamp(cursor: &Cursor<'_>) -> Option<i64> {
    cursor.peek_text()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn read_object(context: &Context, cursor: &Cursor<'_>) -> (Option<ObjectKey>, Option<Object>) {
    let Some(root) = cursor.object() else { return (None, None) };
    let (version, kind) = (root.required("apiVersion"), root.required("kind"));
    let (Some(version), Some(kind_cursor)) = (version, kind) else {
        root.skip_rest();
        return (None, None);
    };
    let (Some(version), Some(kind)) = (version.text(), kind_cursor.text()) else {
        root.skip_rest();
        return (None, None);
    };
    let text = kind;
    let kind =
        known_kind(&version, &text).or_else(|| is_mesh_config(cursor, &version, &text).then_some(Kind::MeshConfig));
    let Some(kind) = kind else {
        let message = format!("unknown kind '{text}' of '{version}'");
        let help = known_instead(&text);
        kind_cursor.report(Code::UnknownKind, unknown_severity(&version), message, help);
        root.skip_rest();
        return (None, None);
    };
    if version.contains("istio.io") || kind == Kind::MeshConfig {
        context.set_protobuf();
    }
    let Some(mut name) = root.required("metadata").and_then(|m| metadata(context, &m)) else {
        root.skip_rest();
        return (None, None);
    };
    if kind == Kind::SecurityPolicy {
        name.name = format!("{text}.{}", name.name);
    }
    let key = ObjectKey { kind, name };
    root.skip(&["status"]);
    let object = lower(kind, &text, &key.name, cursor, &root);
    (Some(key), object)
}

/// Whether an object is the ConfigMap that Istio has its settings in.
fn is_mesh_config(cursor: &Cursor<'_>, version: &str, kind: &str) -> bool {
    let part = |name: &str| cursor.peek("metadata").and_then(|m| m.peek(name)).and_then(|c| c.peek_text());
    version == "v1" && kind == "ConfigMap" && part("name") == Some("istio") && part("namespace") == Some(ROOT_NAMESPACE)
}

/// A name as Kubernetes allows it (RFC 1123 subdomain).
fn dns_name(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    if !plain || text.len() > 253 || !edge(text.as_bytes().first()) || !edge(text.as_bytes().last()) {
        cursor.invalid(format!("'{text}' is not a name"), "lower-case letters, digits, '-' and '.', at most 253");
        return None;
    }
    Some(text)
}

fn metadata(context: &Context, cursor: &Cursor<'_>) -> Option<ObjectName> {
    let object = cursor.object()?;
    let namespace = object.get("namespace").map_or(Some("default".to_owned()), |n| dns_name(&n))?;
    context.set_namespace(&namespace);
    let name = object.required("name").and_then(|n| dns_name(&n));
    object.skip(&["labels", "annotations"]);
    if let Some(created) = object.get("creationTimestamp").filter(|c| timestamp(c).is_none()) {
        created.report(
            Code::InvalidValue,
            Severity::Warning,
            "creationTimestamp is no time: the object is ordered as one that says none",
            "write it as the API server does: 2026-11-30T09:00:00Z",
        );
    }
    object.skip_rest();
    Some(ObjectName { namespace, name: name? })
}
