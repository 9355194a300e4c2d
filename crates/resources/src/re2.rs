//! What RE2, whose language Envoy's patterns are in, refuses or reads otherwise than the `regex` crate does.
//! Source: RE2 wiki, "Syntax"; `re2::RE2::Options::max_repeat` is 1000.

use regex_syntax::ast::{self, Ast, ClassSet, ClassSetItem, Flag, FlagsItemKind, RepetitionKind, RepetitionRange};

/// RE2's limit on counted repetitions, nested ones multiplied.
const MOST_REPETITIONS: u64 = 1000;

/// Says what is wrong with a pattern that compiles here and does not there, or means something else.
///
/// # Errors
/// With the construct.
pub fn check(pattern: &str) -> Result<(), String> {
    let ast = ast::parse::Parser::new().parse(pattern).map_err(|e| format!("does not parse: {e}"))?;
    let repeated = visit(&ast, pattern)?;
    if repeated > MOST_REPETITIONS {
        return Err("its repetitions multiply to more than 1000, which RE2 refuses".to_owned());
    }
    Ok(())
}

/// The largest product of nested counted repetitions.
fn visit(ast: &Ast, pattern: &str) -> Result<u64, String> {
    match ast {
        Ast::Repetition(repetition) => {
            if matches!(*repetition.ast, Ast::Repetition(_)) {
                return Err("RE2 has no repetition of a repetition".to_owned());
            }
            let operator = pattern.get(repetition.op.span.start.offset..repetition.op.span.end.offset);
            if operator.is_some_and(|o| o.starts_with("{,")) {
                return Err("'{,n}' is literal text in RE2".to_owned());
            }
            let count = match &repetition.op.kind {
                RepetitionKind::Range(RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n)) => *n,
                RepetitionKind::Range(RepetitionRange::Bounded(_, n)) => *n,
                _ => 1,
            };
            Ok(u64::from(count.max(1)).saturating_mul(visit(&repetition.ast, pattern)?))
        }
        Ast::Group(group) => {
            if let ast::GroupKind::NonCapturing(flags) = &group.kind {
                check_flags(flags)?;
            }
            visit(&group.ast, pattern)
        }
        Ast::Literal(literal) => check_literal(literal).map(|()| 1),
        Ast::Flags(flags) => check_flags(&flags.flags).map(|()| 1),
        Ast::Alternation(list) => most(&list.asts, pattern),
        Ast::Concat(list) => most(&list.asts, pattern),
        Ast::ClassBracketed(class) => check_class(&class.kind).map(|()| 1),
        Ast::Assertion(assertion) => match assertion.kind {
            ast::AssertionKind::WordBoundaryStart
            | ast::AssertionKind::WordBoundaryEnd
            | ast::AssertionKind::WordBoundaryStartAngle
            | ast::AssertionKind::WordBoundaryEndAngle
            | ast::AssertionKind::WordBoundaryStartHalf
            | ast::AssertionKind::WordBoundaryEndHalf => Err("RE2 has no half word boundaries".to_owned()),
            _ => Ok(1),
        },
        _ => Ok(1),
    }
}

fn most(list: &[Ast], pattern: &str) -> Result<u64, String> {
    let mut most = 1;
    for ast in list {
        most = most.max(visit(ast, pattern)?);
    }
    Ok(most)
}

fn check_flags(flags: &ast::Flags) -> Result<(), String> {
    let unknown = flags.items.iter().find_map(|item| match item.kind {
        FlagsItemKind::Flag(Flag::Unicode) => Some('u'),
        FlagsItemKind::Flag(Flag::IgnoreWhitespace) => Some('x'),
        FlagsItemKind::Flag(Flag::CRLF) => Some('R'),
        _ => None,
    });
    match unknown {
        Some(flag) => Err(format!("RE2 has no flag '{flag}'")),
        None => Ok(()),
    }
}

fn check_class(class: &ClassSet) -> Result<(), String> {
    match class {
        ClassSet::BinaryOp(_) => Err("RE2 has no operations on classes".to_owned()),
        ClassSet::Item(ClassSetItem::Union(union)) => union.items.iter().try_for_each(check_item),
        ClassSet::Item(item) => check_item(item),
    }
}

fn check_literal(literal: &ast::Literal) -> Result<(), String> {
    use ast::{HexLiteralKind as H, LiteralKind as L};
    match literal.kind {
        L::HexFixed(H::UnicodeShort | H::UnicodeLong) | L::HexBrace(H::UnicodeShort | H::UnicodeLong) => {
            Err("RE2 has no \\u and \\U".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_item(item: &ClassSetItem) -> Result<(), String> {
    match item {
        ClassSetItem::Literal(literal) => check_literal(literal),
        ClassSetItem::Bracketed(_) => Err("RE2 has no classes inside classes".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_re2_does_not_know_is_refused() {
        for pattern in [r"/v[0-9]+/(a|b)", r"(?i)abc", r"[[:alpha:]]+", r"a{1000}", r"\bword\b", r"(?P<n>x)", r"[\w-]*"]
        {
            assert_eq!(super::check(pattern), Ok(()), "{pattern}");
        }
        for pattern in [
            "a**",
            "a*+",
            "a{2}{3}",
            r"\u0061",
            r"[\u0061]",
            "(?x)a",
            "(?u)a",
            "[a&&b]",
            "[a[b]]",
            "a{1001}",
            "(a{50}){30}",
            r"\<a",
            "(?R)$",
        ] {
            assert!(super::check(pattern).is_err(), "{pattern}");
        }
    }
}
