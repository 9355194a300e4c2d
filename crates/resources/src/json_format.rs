//! Access logs as lines of JSON. Source: Envoy, "Access logging", format dictionaries.

use std::fmt::Write as _;

use envoy_types::pb::google::protobuf as wkt;

use crate::substitution::{Format, FormatContext};
use crate::{Error, Path};

/// A value of the dictionary; keys in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonNode {
    /// An object.
    Object(Vec<(String, Self)>),
    /// A list.
    List(Vec<Self>),
    /// Text with commands; a command alone gives a number where it is one, and null where nothing is known.
    Format(Format),
    /// Always this JSON.
    Literal(String),
}

impl JsonNode {
    pub(crate) fn compile(value: &wkt::Struct, path: &Path<'_>) -> Result<Self, Error> {
        let mut fields: Vec<(&String, &wkt::Value)> = value.fields.iter().collect();
        fields.sort_by_key(|(key, _)| *key);
        let compiled = fields.into_iter().map(|(key, value)| Ok((key.clone(), node(value, &path.field(key))?)));
        Ok(Self::Object(compiled.collect::<Result<_, Error>>()?))
    }

    /// The dictionary; of anything that is none, an empty one.
    pub(crate) fn encode(&self) -> wkt::Struct {
        match self {
            Self::Object(fields) => {
                wkt::Struct { fields: fields.iter().map(|(key, value)| (key.clone(), value.value())).collect() }
            }
            Self::List(_) | Self::Format(_) | Self::Literal(_) => wkt::Struct::default(),
        }
    }

    fn value(&self) -> wkt::Value {
        use wkt::value::Kind;
        let kind = match self {
            Self::Object(_) => Kind::StructValue(self.encode()),
            Self::List(items) => Kind::ListValue(wkt::ListValue { values: items.iter().map(Self::value).collect() }),
            Self::Format(format) => Kind::StringValue(format.source().to_owned()),
            Self::Literal(json) => match json.as_str() {
                "true" => Kind::BoolValue(true),
                "false" => Kind::BoolValue(false),
                number => number.parse().map_or(Kind::NullValue(0), Kind::NumberValue),
            },
        };
        wkt::Value { kind: Some(kind) }
    }

    /// Appends what it gives for a record; with `omits_empty`, without fields of which nothing is known.
    pub fn write(&self, record: &dyn FormatContext, omits_empty: bool, out: &mut String) {
        match self {
            Self::Object(fields) => {
                out.push('{');
                let mut is_first = true;
                for (key, value) in fields {
                    let begin = out.len();
                    out.push_str(if is_first { "" } else { "," });
                    quote(key, out);
                    out.push(':');
                    is_first &= !value.write_member(begin, record, omits_empty, out);
                }
                out.push('}');
            }
            Self::List(items) => {
                out.push('[');
                let mut is_first = true;
                for value in items {
                    let begin = out.len();
                    out.push_str(if is_first { "" } else { "," });
                    is_first &= !value.write_member(begin, record, omits_empty, out);
                }
                out.push(']');
            }
            Self::Format(format) => write_format(format, record, omits_empty, out),
            Self::Literal(json) => out.push_str(json),
        }
    }

    /// Appends it as a member of an object or of a list. The text of the member begins at `begin`, with its comma and its key. Returns
    /// false for a member that is left out, whose text is removed.
    fn write_member(&self, begin: usize, record: &dyn FormatContext, omits_empty: bool, out: &mut String) -> bool {
        let at = out.len();
        self.write(record, omits_empty, out);
        let is_kept = !omits_empty || !matches!(out.get(at..), Some("null" | "{}"));
        if !is_kept {
            out.truncate(begin);
        }
        is_kept
    }
}

fn node(value: &wkt::Value, path: &Path<'_>) -> Result<JsonNode, Error> {
    use wkt::value::Kind;
    Ok(match &value.kind {
        Some(Kind::StructValue(fields)) => JsonNode::compile(fields, path)?,
        Some(Kind::ListValue(list)) => {
            let items = list.values.iter().enumerate().map(|(i, v)| node(v, &path.index(i)));
            JsonNode::List(items.collect::<Result<_, _>>()?)
        }
        Some(Kind::StringValue(text)) => {
            JsonNode::Format(Format::compile(text).map_err(|e| path.error(e.to_string()))?)
        }
        Some(Kind::NumberValue(number)) => JsonNode::Literal(number.to_string()),
        Some(Kind::BoolValue(on)) => JsonNode::Literal(on.to_string()),
        Some(Kind::NullValue(_)) | None => JsonNode::Literal("null".to_owned()),
    })
}

fn write_format(format: &Format, record: &dyn FormatContext, omits_empty: bool, out: &mut String) {
    /// Cannot come out of any command.
    const MISSING: &str = "\0";
    let mut text = String::new();
    format.write(record, MISSING, &mut text);
    let alone = format.is_single_command();
    if alone && text == MISSING {
        out.push_str("null");
    } else if alone && format.is_number() && text.parse::<i64>().is_ok() {
        out.push_str(&text);
    } else {
        quote(&text.replace(MISSING, if omits_empty { "" } else { "-" }), out);
    }
}

/// A JSON string (RFC 8259 §7).
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
