//! String, header and query matchers. Regular expressions must match the whole string, as in Envoy's `safe_regex`.

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as pbm;

use crate::re2;
use crate::{Error, Path};

/// A predicate on a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole string.
    Exact(String),
    /// Its start.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Somewhere inside.
    Contains(String),
    /// A regular expression (RE2 syntax) for the whole string.
    Regex(String),
}

/// A [`StringMatch`] with its case rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    /// The predicate.
    pub pattern: StringMatch,
    /// True when ASCII case is ignored (not for regular expressions).
    pub ignore_case: bool,
}

/// The condition for a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderPredicate {
    /// Present (true) or absent (false).
    Present(bool),
    /// Matches a string matcher.
    Value(StringMatcher),
    /// Is an integer in `start..end`.
    Range(i64, i64),
}

/// A predicate on one header; of several values any may match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower-case header name, or `:method`, `:path`, `:authority`, `:scheme`.
    pub name: String,
    /// The condition.
    pub predicate: HeaderPredicate,
    /// True when the outcome is negated.
    pub invert: bool,
    /// True when a missing header counts as an empty one; otherwise a missing header matches nothing, inverted or not.
    pub missing_is_empty: bool,
}

/// A predicate on one query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatcher {
    /// The parameter's name.
    pub name: String,
    /// The condition for its value.
    pub value: QueryPredicate,
}

/// The condition for a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPredicate {
    /// Present (true) or absent (false).
    Present(bool),
    /// Matches.
    Value(StringMatcher),
}

/// A predicate on one cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMatcher {
    /// Its name.
    pub name: String,
    /// The condition for its value.
    pub value: StringMatcher,
    /// True when the outcome is negated.
    pub invert: bool,
}

impl CookieMatcher {
    pub(crate) fn decode(value: &pb::CookieMatcher, path: &Path<'_>) -> Result<Self, Error> {
        let matcher = value.string_match.as_ref().ok_or_else(|| path.field("string_match").error("is required"))?;
        Ok(Self {
            name: value.name.clone(),
            value: StringMatcher::decode(matcher, &path.field("string_match"))?,
            invert: value.invert_match,
        })
    }

    pub(crate) fn encode(&self) -> pb::CookieMatcher {
        pb::CookieMatcher {
            name: self.name.clone(),
            string_match: Some(self.value.encode()),
            invert_match: self.invert,
        }
    }
}

impl StringMatcher {
    /// A case-sensitive matcher.
    #[must_use]
    pub fn new(pattern: StringMatch) -> Self {
        Self { pattern, ignore_case: false }
    }

    pub(crate) fn decode(value: &pbm::StringMatcher, path: &Path<'_>) -> Result<Self, Error> {
        use pbm::string_matcher::MatchPattern as M;
        let pattern = match &value.match_pattern {
            Some(M::Exact(s)) => StringMatch::Exact(s.clone()),
            Some(M::Prefix(s)) => StringMatch::Prefix(s.clone()),
            Some(M::Suffix(s)) => StringMatch::Suffix(s.clone()),
            Some(M::Contains(s)) => StringMatch::Contains(s.clone()),
            Some(M::SafeRegex(r)) => StringMatch::Regex(regex(r, &path.field("safe_regex"))?),
            Some(M::Custom(_)) => return Err(path.field("custom").error("is not supported")),
            None => return Err(path.error("needs a match pattern")),
        };
        Ok(Self { pattern, ignore_case: value.ignore_case })
    }

    pub(crate) fn encode(&self) -> pbm::StringMatcher {
        use pbm::string_matcher::MatchPattern as M;
        let pattern = match &self.pattern {
            StringMatch::Exact(s) => M::Exact(s.clone()),
            StringMatch::Prefix(s) => M::Prefix(s.clone()),
            StringMatch::Suffix(s) => M::Suffix(s.clone()),
            StringMatch::Contains(s) => M::Contains(s.clone()),
            StringMatch::Regex(s) => M::SafeRegex(proto_regex(s)),
        };
        pbm::StringMatcher { ignore_case: self.ignore_case, match_pattern: Some(pattern) }
    }
}

/// Checks that a pattern compiles, here and in RE2, so that a bad one is refused where its path is known.
pub(crate) fn regex(value: &pbm::RegexMatcher, path: &Path<'_>) -> Result<String, Error> {
    if value.regex.is_empty() {
        return Err(path.field("regex").error("must not be empty"));
    }
    regex::Regex::new(&value.regex).map_err(|e| path.field("regex").error(format!("does not compile: {e}")))?;
    re2::check(&value.regex).map_err(|e| path.field("regex").error(e.to_string()))?;
    Ok(value.regex.clone())
}

pub(crate) fn proto_regex(pattern: &str) -> pbm::RegexMatcher {
    pbm::RegexMatcher { regex: pattern.to_owned(), engine_type: None }
}

impl HeaderMatcher {
    pub(crate) fn decode(value: &pb::HeaderMatcher, path: &Path<'_>) -> Result<Self, Error> {
        use pb::header_matcher::HeaderMatchSpecifier as H;
        let text = |pattern| HeaderPredicate::Value(StringMatcher::new(pattern));
        #[expect(deprecated, reason = "older control planes still send the flat forms")]
        let predicate = match &value.header_match_specifier {
            None => HeaderPredicate::Present(true),
            Some(H::PresentMatch(present)) => HeaderPredicate::Present(*present),
            Some(H::ExactMatch(s)) => text(StringMatch::Exact(s.clone())),
            Some(H::PrefixMatch(s)) => text(StringMatch::Prefix(s.clone())),
            Some(H::SuffixMatch(s)) => text(StringMatch::Suffix(s.clone())),
            Some(H::ContainsMatch(s)) => text(StringMatch::Contains(s.clone())),
            Some(H::SafeRegexMatch(r)) => text(StringMatch::Regex(regex(r, path)?)),
            Some(H::RangeMatch(r)) => HeaderPredicate::Range(r.start, r.end),
            Some(H::StringMatch(m)) => HeaderPredicate::Value(StringMatcher::decode(m, &path.field("string_match"))?),
        };
        Ok(Self {
            name: value.name.to_ascii_lowercase(),
            predicate,
            invert: value.invert_match,
            missing_is_empty: value.treat_missing_header_as_empty,
        })
    }

    pub(crate) fn encode(&self) -> pb::HeaderMatcher {
        use pb::header_matcher::HeaderMatchSpecifier as H;
        let specifier = match &self.predicate {
            HeaderPredicate::Present(present) => H::PresentMatch(*present),
            HeaderPredicate::Value(m) => H::StringMatch(m.encode()),
            HeaderPredicate::Range(start, end) => {
                H::RangeMatch(envoy_types::pb::envoy::r#type::v3::Int64Range { start: *start, end: *end })
            }
        };
        pb::HeaderMatcher {
            name: self.name.clone(),
            invert_match: self.invert,
            treat_missing_header_as_empty: self.missing_is_empty,
            header_match_specifier: Some(specifier),
        }
    }
}

impl QueryMatcher {
    pub(crate) fn decode(value: &pb::QueryParameterMatcher, path: &Path<'_>) -> Result<Self, Error> {
        use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
        let matcher = match &value.query_parameter_match_specifier {
            None => QueryPredicate::Present(true),
            Some(Q::PresentMatch(present)) => QueryPredicate::Present(*present),
            Some(Q::StringMatch(m)) => QueryPredicate::Value(StringMatcher::decode(m, &path.field("string_match"))?),
        };
        Ok(Self { name: value.name.clone(), value: matcher })
    }

    pub(crate) fn encode(&self) -> pb::QueryParameterMatcher {
        use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
        let specifier = match &self.value {
            QueryPredicate::Present(present) => Q::PresentMatch(*present),
            QueryPredicate::Value(m) => Q::StringMatch(m.encode()),
        };
        pb::QueryParameterMatcher { name: self.name.clone(), query_parameter_match_specifier: Some(specifier) }
    }
}

pub(crate) fn decode_headers(values: &[pb::HeaderMatcher], path: &Path<'_>) -> Result<Vec<HeaderMatcher>, Error> {
    values.iter().enumerate().map(|(i, m)| HeaderMatcher::decode(m, &path.index(i))).collect()
}

pub(crate) fn decode_cookies(values: &[pb::CookieMatcher], path: &Path<'_>) -> Result<Vec<CookieMatcher>, Error> {
    values.iter().enumerate().map(|(i, m)| CookieMatcher::decode(m, &path.index(i))).collect()
}

pub(crate) fn decode_queries(
    values: &[pb::QueryParameterMatcher],
    path: &Path<'_>,
) -> Result<Vec<QueryMatcher>, Error> {
    values.iter().enumerate().map(|(i, m)| QueryMatcher::decode(m, &path.index(i))).collect()
}

/// `regex_rewrite`: what to find and what to put, with `\1` for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// The pattern to find, anywhere in the path.
    pub pattern: String,
    /// The substitution.
    pub substitution: String,
}

impl RegexRewrite {
    pub(crate) fn decode(value: &pbm::RegexMatchAndSubstitute, path: &Path<'_>) -> Result<Self, Error> {
        let pattern = value.pattern.as_ref().ok_or_else(|| path.field("pattern").error("is required"))?;
        crate::convert::line(&value.substitution, &path.field("substitution"))?;
        Ok(Self { pattern: regex(pattern, &path.field("pattern"))?, substitution: value.substitution.clone() })
    }

    pub(crate) fn encode(&self) -> pbm::RegexMatchAndSubstitute {
        pbm::RegexMatchAndSubstitute {
            pattern: Some(proto_regex(&self.pattern)),
            substitution: self.substitution.clone(),
        }
    }
}
