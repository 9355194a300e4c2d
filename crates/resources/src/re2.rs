//! Refuses patterns that RE2, whose language Envoy's patterns are in, refuses or reads otherwise than the `regex` crate does.
//! Source: RE2 wiki, "Syntax"; `re2::RE2::Options::max_repeat` is 1000.

use regex_syntax::ast::{self, Ast, ClassSet, ClassSetItem, Flag, FlagsItemKind, RepetitionKind, RepetitionRange};

/// RE2's limit on counted repetitions, nested ones multiplied.
const MOST_REPETITIONS: u64 = 1000;

/// A construct that RE2 does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The pattern is no regular expression.
    #[error("does not parse: {0}")]
    Syntax(Box<ast::Error>),
    /// More repetitions than RE2 allows.
    #[error("its repetitions multiply to more than {MOST_REPETITIONS}, which RE2 refuses")]
    TooManyRepetitions,
    /// As in `a**`.
    #[error("RE2 has no repetition of a repetition")]
    NestedRepetition,
    /// As in `a{,3}`.
    #[error("'{{,n}}' is literal text in RE2")]
    RepetitionWithoutMinimum,
    /// As in `\<`.
    #[error("RE2 has no half word boundaries")]
    HalfWordBoundary,
    /// As in `(?x)`.
    #[error("RE2 has no flag '{0}'")]
    Flag(char),
    /// As in `[a&&b]`.
    #[error("RE2 has no operations on classes")]
    ClassOperation,
    /// As in `\u0061`.
    #[error("RE2 has no \\u and \\U")]
    UnicodeEscape,
    /// As in `[a[b]]`.
    #[error("RE2 has no classes inside classes")]
    NestedClass,
}

/// Refuses a pattern that compiles here and does not in RE2, or means something else there.
///
/// # Errors
/// With the construct.
pub fn check(pattern: &str) -> Result<(), Unsupported> {
    let ast = ast::parse::Parser::new().parse(pattern).map_err(|error| Unsupported::Syntax(Box::new(error)))?;
    let repeated = visit(&ast, pattern)?;
    if repeated > MOST_REPETITIONS {
        return Err(Unsupported::TooManyRepetitions);
    }
    Ok(())
}

/// The largest product of nested counted repetitions.
fn visit(ast: &Ast, pattern: &str) -> Result<u64, Unsupported> {
    match ast {
        Ast::Repetition(repetition) => {
            if matches!(*repetition.ast, Ast::Repetition(_)) {
                return Err(Unsupported::NestedRepetition);
            }
            let operator = pattern.get(repetition.op.span.start.offset..repetition.op.span.end.offset);
            if operator.is_some_and(|o| o.starts_with("{,")) {
                return Err(Unsupported::RepetitionWithoutMinimum);
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
            | ast::AssertionKind::WordBoundaryEndHalf => Err(Unsupported::HalfWordBoundary),
            _ => Ok(1),
        },
        _ => Ok(1),
    }
}

fn most(list: &[Ast], pattern: &str) -> Result<u64, Unsupported> {
    let mut most = 1;
    for ast in list {
        most = most.max(visit(ast, pattern)?);
    }
    Ok(most)
}

fn check_flags(flags: &ast::Flags) -> Result<(), Unsupported> {
    let unknown = flags.items.iter().find_map(|item| match item.kind {
        FlagsItemKind::Flag(Flag::Unicode) => Some('u'),
        FlagsItemKind::Flag(Flag::IgnoreWhitespace) => Some('x'),
        FlagsItemKind::Flag(Flag::CRLF) => Some('R'),
        _ => None,
    });
    match unknown {
        Some(flag) => Err(Unsupported::Flag(flag)),
        None => Ok(()),
    }
}

fn check_class(class: &ClassSet) -> Result<(), Unsupported> {
    match class {
        ClassSet::BinaryOp(_) => Err(Unsupported::ClassOperation),
        ClassSet::Item(ClassSetItem::Union(union)) => union.items.iter().try_for_each(check_item),
        ClassSet::Item(item) => check_item(item),
    }
}

fn check_literal(literal: &ast::Literal) -> Result<(), Unsupported> {
    use ast::{HexLiteralKind as H, LiteralKind as L};
    match literal.kind {
        L::HexFixed(H::UnicodeShort | H::UnicodeLong) | L::HexBrace(H::UnicodeShort | H::UnicodeLong) => {
            Err(Unsupported::UnicodeEscape)
        }
        _ => Ok(()),
    }
}

fn check_item(item: &ClassSetItem) -> Result<(), Unsupported> {
    match item {
        ClassSetItem::Literal(literal) => check_literal(literal),
        ClassSetItem::Bracketed(_) => Err(Unsupported::NestedClass),
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
