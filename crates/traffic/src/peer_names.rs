//! Which names a peer's certificate must have. Source: Envoy, `match_typed_subject_alt_names` and `DefaultCertValidator`.

use std::net::IpAddr;

use serin_resources::matcher::StringMatch;
use serin_resources::tls::{NameKind, NameMatcher};

use crate::predicate::Text;

/// Compiled matchers, one of which a certificate must satisfy.
#[derive(Debug)]
pub struct PeerNames(Vec<(NameKind, Text, Option<String>)>);

/// The alternative names of a certificate's subject.
#[derive(Debug, Clone, Copy)]
pub struct SubjectNames<'a> {
    /// Host names.
    pub dns: &'a [String],
    /// URIs.
    pub uris: &'a [String],
    /// Addresses of mail.
    pub emails: &'a [String],
    /// Addresses.
    pub ips: &'a [IpAddr],
    /// Others: the object identifier, and the text.
    pub others: &'a [(String, String)],
}

impl PeerNames {
    /// Compiles matchers.
    #[must_use]
    pub fn new(matchers: &[NameMatcher]) -> Self {
        let compiled = matchers.iter().map(|matcher| {
            let exact = match (&matcher.kind, &matcher.matcher.pattern) {
                (NameKind::Dns, StringMatch::Exact(name)) => Some(name.to_ascii_lowercase()),
                _ => None,
            };
            (matcher.kind.clone(), Text::compile(&matcher.matcher), exact)
        });
        Self(compiled.collect())
    }

    /// Returns true when one of the names satisfies one of the matchers.
    #[must_use]
    pub fn matches(&self, names: &SubjectNames<'_>) -> bool {
        self.0.iter().any(|(kind, text, exact)| {
            let any = |list: &[String]| list.iter().any(|name| text.matches(name.as_bytes()));
            match kind {
                NameKind::Dns => match exact {
                    Some(wanted) => names.dns.iter().any(|name| stands_for(name, wanted)),
                    None => any(names.dns),
                },
                NameKind::Uri => any(names.uris),
                NameKind::Email => any(names.emails),
                NameKind::Ip => names.ips.iter().any(|ip| text.matches(ip.to_string().as_bytes())),
                NameKind::Other(oid) => {
                    names.others.iter().any(|(own, name)| own == oid && text.matches(name.as_bytes()))
                }
            }
        })
    }
}

/// Returns true when the host name of a certificate, which may begin with a wildcard for one label, stands for that one.
#[must_use]
pub fn stands_for(name: &str, wanted: &str) -> bool {
    if name.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let (Some(below), Some((first, rest))) = (name.strip_prefix("*."), wanted.split_once('.')) else { return false };
    !first.is_empty() && !below.is_empty() && below.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use serin_resources::matcher::StringMatcher;

    use super::*;

    #[test]
    fn names_of_each_kind_are_matched_as_their_kind() {
        let dns = ["*.wild.example".to_owned(), "one.example".to_owned()];
        let uris = ["spiffe://x/ns/a".to_owned()];
        let ips = ["10.0.0.1".parse().unwrap()];
        let others = [("1.2.3".to_owned(), "text".to_owned())];
        let names = SubjectNames { dns: &dns, uris: &uris, emails: &[], ips: &ips, others: &others };
        let has = |kind: NameKind, pattern: StringMatch| {
            PeerNames::new(&[NameMatcher { kind, matcher: StringMatcher::new(pattern) }]).matches(&names)
        };
        let exact = |text: &str| StringMatch::Exact(text.to_owned());
        for (kind, pattern, expected) in [
            (NameKind::Dns, exact("one.example"), true),
            (NameKind::Dns, exact("a.wild.example"), true),
            (NameKind::Dns, exact("a.b.wild.example"), false),
            (NameKind::Dns, exact("wild.example"), false),
            (NameKind::Dns, StringMatch::Suffix(".example".to_owned()), true),
            (NameKind::Uri, exact("spiffe://x/ns/a"), true),
            (NameKind::Uri, exact("one.example"), false),
            (NameKind::Uri, StringMatch::Regex("spiffe://x/ns/.*".to_owned()), true),
            (NameKind::Email, exact("one.example"), false),
            (NameKind::Ip, exact("10.0.0.1"), true),
            (NameKind::Other("1.2.3".to_owned()), exact("text"), true),
            (NameKind::Other("1.2.4".to_owned()), exact("text"), false),
        ] {
            assert_eq!(has(kind.clone(), pattern.clone()), expected, "{kind:?} {pattern:?}");
        }
    }
}
