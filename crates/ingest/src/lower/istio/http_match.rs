//! `HTTPMatchRequest` and the string matches in it.

use serin_model::{HttpMatch, StringMatch};

use super::{gateway_ref, labels};
use crate::cursor::{Cursor, Object};
use crate::diagnostic::Code;
use crate::reference::Reference;

/// Reads one entry of `match`.
pub(crate) fn read(cursor: &Cursor<'_>) -> Option<HttpMatch> {
    let object = cursor.object()?;
    object.no_effect_yet(&["statPrefix"]);
    let one = |name: &str| object.get(name).and_then(|c| string_match(&c));
    let many = |name: &str| object.get(name).map(|c| string_matches(&c)).unwrap_or_default();
    let attachments = object.get("gateways").map(|list| {
        let mut refs = Vec::new();
        for item in list.list() {
            if let Some(reference) = gateway_ref(&item) {
                refer_gateway(&item, &reference);
                refs.push(reference);
            }
        }
        refs
    });
    Some(HttpMatch {
        name: object.get("name").and_then(|n| n.text()).unwrap_or_default(),
        uri: one("uri"),
        ignore_uri_case: object.get("ignoreUriCase").and_then(|c| c.boolean()).unwrap_or(false),
        scheme: one("scheme"),
        method: one("method"),
        authority: one("authority"),
        headers: header_keys(&object, "headers"),
        without_headers: header_keys(&object, "withoutHeaders"),
        query: many("queryParams"),
        // 0 is any, as in Istio.
        port: object
            .get("port")
            .and_then(|c| c.bounded(0, 65_535))
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0),
        source_labels: object.get("sourceLabels").map(|c| labels(&c)).unwrap_or_default(),
        source_namespace: object.get("sourceNamespace").and_then(|c| c.text()),
        attachments,
    })
}

/// Remembers a gateway so that a missing one can be pointed at.
pub(crate) fn refer_gateway(cursor: &Cursor<'_>, reference: &serin_model::Attachment) {
    if let serin_model::Attachment::Gateway(name) = reference {
        cursor.context.refer(Reference::Gateway { name: name.clone(), at: (cursor.at(), cursor.path().to_owned()) });
    }
}

/// Predicates on headers; their names in lower case.
fn header_keys(object: &Object<'_>, field: &str) -> Vec<(String, StringMatch)> {
    let Some(cursor) = object.get(field) else { return Vec::new() };
    let is_name = |name: &str| {
        let token = name.strip_prefix(':').unwrap_or(name);
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    for (name, value) in cursor.entries().iter().filter(|(name, _)| !name.is_empty() && !is_name(name)) {
        value.invalid(format!("'{name}' is no header name"), "a name has letters, digits and '-'");
    }
    string_matches(&cursor).into_iter().map(|(name, m)| (name.to_ascii_lowercase(), m)).collect()
}

fn string_matches(cursor: &Cursor<'_>) -> Vec<(String, StringMatch)> {
    cursor
        .entries()
        .into_iter()
        .filter_map(|(name, value)| {
            if name.is_empty() {
                value.invalid("a name is missing", "write the name of the header or parameter");
                return None;
            }
            let found = if value.is_null() { Some(StringMatch::Present) } else { string_match(&value) };
            found.map(|m| (name, m))
        })
        .collect()
}

/// `{exact|prefix|regex: …}`; an empty map and the regex `*` ask for presence.
pub(super) fn string_match(cursor: &Cursor<'_>) -> Option<StringMatch> {
    let object = cursor.object()?;
    let fields = [object.get("exact"), object.get("prefix"), object.get("regex")];
    if fields.iter().flatten().count() > 1 {
        object.error(Code::InvalidValue, "only one of exact, prefix and regex can be set", "");
        return None;
    }
    match fields {
        [Some(exact), _, _] => exact.text().map(StringMatch::Exact),
        [_, Some(prefix), _] => prefix.text().map(StringMatch::Prefix),
        [_, _, Some(regex)] => regex_match(&regex),
        _ => Some(StringMatch::Present),
    }
}

fn regex_match(cursor: &Cursor<'_>) -> Option<StringMatch> {
    let text = cursor.text()?;
    if text == "*" {
        return Some(StringMatch::Present);
    }
    check_regex(cursor).map(StringMatch::Regex)
}

/// A pattern in RE2's language.
pub(crate) fn check_regex(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    if text.len() > 1024 {
        cursor.invalid("a regular expression may have at most 1024 characters", "");
        return None;
    }
    if text.is_empty() {
        cursor
            .invalid("a regular expression cannot be empty", "use exact or prefix with an empty text, or leave it out");
        return None;
    }
    if let Some(why) = foreign(&text) {
        cursor.invalid(format!("not a regular expression of RE2: {why}"), "the syntax is RE2's");
        return None;
    }
    match regex::Regex::new(&text) {
        Ok(_) if repetitions(&text).is_none_or(|n| n > MOST_REPETITIONS) => {
            cursor.invalid(
                "the repetitions in this regular expression multiply to more than 1000",
                "RE2, which Envoy uses, refuses them",
            );
            None
        }
        Ok(_) => Some(text),
        Err(error) => {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or("it does not compile").trim().to_owned();
            cursor.invalid(format!("not a regular expression: {last}"), "the syntax is RE2's");
            None
        }
    }
}

/// RE2's limit on counted repetitions, nested ones multiplied.
const MOST_REPETITIONS: u64 = 1000;

/// The largest product of nested counted repetitions; `None` when the pattern cannot be parsed.
fn repetitions(pattern: &str) -> Option<u64> {
    use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, parse::Parser};
    fn of(ast: &Ast) -> u64 {
        match ast {
            Ast::Repetition(repetition) => {
                let count = match &repetition.op.kind {
                    RepetitionKind::Range(RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n)) => *n,
                    RepetitionKind::Range(RepetitionRange::Bounded(_, n)) => *n,
                    _ => 1,
                };
                u64::from(count.max(1)).saturating_mul(of(&repetition.ast))
            }
            Ast::Group(group) => of(&group.ast),
            Ast::Alternation(list) => list.asts.iter().map(of).max().unwrap_or(1),
            Ast::Concat(list) => list.asts.iter().map(of).max().unwrap_or(1),
            _ => 1,
        }
    }
    Some(of(&Parser::new().parse(pattern).ok()?))
}

/// What RE2 refuses or reads otherwise: flags but `i`, `m`, `s` and `U`, and set operations in classes.
fn foreign(pattern: &str) -> Option<&'static str> {
    use regex_syntax::ast::{
        Ast, ClassSet, ClassSetItem, Flag, Flags, FlagsItemKind, GroupKind, Literal, parse::Parser,
    };
    fn flags(flags: &Flags) -> Option<&'static str> {
        let known = |kind: &FlagsItemKind| {
            !matches!(kind, FlagsItemKind::Flag(Flag::IgnoreWhitespace | Flag::Unicode | Flag::CRLF))
        };
        (!flags.items.iter().all(|item| known(&item.kind))).then_some("it knows no flags x, u and R")
    }
    fn unicode(literal: &Literal) -> Option<&'static str> {
        use regex_syntax::ast::{HexLiteralKind as H, LiteralKind as L};
        let is_foreign = matches!(
            literal.kind,
            L::HexFixed(H::UnicodeShort | H::UnicodeLong) | L::HexBrace(H::UnicodeShort | H::UnicodeLong)
        );
        is_foreign.then_some("it knows no \\u and \\U: write \\x{…}")
    }
    fn class(set: &ClassSet) -> Option<&'static str> {
        match set {
            ClassSet::Item(ClassSetItem::Literal(literal)) => unicode(literal),
            ClassSet::BinaryOp(_) => Some("'&&', '--' and '~~' in a class are plain characters there: escape them"),
            ClassSet::Item(ClassSetItem::Bracketed(_)) => {
                Some("a '[' in a class is a plain character there: escape it")
            }
            ClassSet::Item(ClassSetItem::Union(union)) => {
                union.items.iter().find_map(|item| class(&ClassSet::Item(item.clone())))
            }
            ClassSet::Item(_) => None,
        }
    }
    fn of(ast: &Ast) -> Option<&'static str> {
        match ast {
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => {
                let own = if let GroupKind::NonCapturing(set) = &group.kind { flags(set) } else { None };
                own.or_else(|| of(&group.ast))
            }
            Ast::Repetition(repetition) if matches!(*repetition.ast, Ast::Repetition(_)) => {
                Some("a repetition of a repetition, such as 'a**', needs parentheses")
            }
            Ast::Repetition(repetition) => of(&repetition.ast),
            Ast::Literal(literal) => unicode(literal),
            Ast::Alternation(list) => list.asts.iter().find_map(of),
            Ast::Concat(list) => list.asts.iter().find_map(of),
            Ast::ClassBracketed(bracketed) => class(&bracketed.kind),
            _ => None,
        }
    }
    of(&Parser::new().parse(pattern).ok()?)
}
