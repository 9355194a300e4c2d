//! Internal redirects: which redirects of upstreams are followed. Source: Envoy, "Internal redirects".

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use prost::Name as _;

use super::{InternalRedirect, RedirectPredicate};
use crate::convert;
use crate::{Audit, Error, Path};

pub(super) fn decode(
    value: &pb::InternalRedirectPolicy,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<InternalRedirect, Error> {
    audit!(value, pb::InternalRedirectPolicy as pb::InternalRedirectPolicy, audit, path;
        supported: max_internal_redirects, redirect_response_codes, allow_cross_scheme_redirect,
            response_headers_to_copy, predicates;
        ignored: ;
        refused: );
    let of_predicates = path.field("predicates");
    let predicates = value.predicates.iter().enumerate();
    let predicates = predicates.map(|(i, predicate)| redirect_predicate(predicate, &of_predicates.index(i)));
    if value.redirect_response_codes.len() > 5 {
        return Err(path.field("redirect_response_codes").error("has more than 5 codes"));
    }
    let copied = &value.response_headers_to_copy;
    for (i, name) in copied.iter().enumerate() {
        let here = path.field("response_headers_to_copy");
        let here = here.index(i);
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") || !serin_http1::is_field_name(name.as_bytes()) {
            return Err(here.error("is no header that may be copied"));
        }
        if copied.iter().take(i).any(|before| before == name) {
            return Err(here.error("stands there twice"));
        }
    }
    // Codes of other responses are passed over (Envoy: `InternalRedirectPolicyImpl::buildRedirectResponseCodes`).
    let given: Vec<u16> = value
        .redirect_response_codes
        .iter()
        .filter_map(|c| u16::try_from(*c).ok())
        .filter(|code| matches!(code, 301..=303 | 307 | 308))
        .collect();
    Ok(InternalRedirect {
        most: value.max_internal_redirects.as_ref().map_or(1, |v| v.value),
        statuses: if value.redirect_response_codes.is_empty() { vec![302] } else { given },
        cross_scheme: value.allow_cross_scheme_redirect,
        copy_headers: value.response_headers_to_copy.iter().map(|n| n.to_ascii_lowercase()).collect(),
        predicates: predicates.collect::<Result<_, _>>()?,
    })
}

fn redirect_predicate(value: &core::TypedExtensionConfig, path: &Path<'_>) -> Result<RedirectPredicate, Error> {
    use envoy_types::pb::envoy::extensions::internal_redirect as predicates;
    use predicates::allow_listed_routes::v3::AllowListedRoutesConfig;
    use predicates::previous_routes::v3::PreviousRoutesConfig;
    use predicates::safe_cross_scheme::v3::SafeCrossSchemeConfig;
    let Some(any) = &value.typed_config else { return Err(path.error("needs typed_config")) };
    if any.type_url == PreviousRoutesConfig::type_url() {
        return Ok(RedirectPredicate::NotPrevious);
    }
    if any.type_url == SafeCrossSchemeConfig::type_url() {
        return Ok(RedirectPredicate::SafeScheme);
    }
    if any.type_url == AllowListedRoutesConfig::type_url() {
        let config: AllowListedRoutesConfig = convert::from_any(any, &path.field("typed_config"))?;
        return Ok(RedirectPredicate::Allowed(config.allowed_route_names));
    }
    Err(path.error(format!("'{}' is not supported", value.name)))
}

pub(super) fn encode(r: &InternalRedirect) -> pb::InternalRedirectPolicy {
    // No code at all would be 302; one of no redirect is passed over.
    let none: &[u16] = &[200];
    let statuses = if r.statuses.is_empty() { none } else { &r.statuses };
    pb::InternalRedirectPolicy {
        max_internal_redirects: Some(convert::wrap_u32(r.most)),
        redirect_response_codes: statuses.iter().map(|s| u32::from(*s)).collect(),
        allow_cross_scheme_redirect: r.cross_scheme,
        response_headers_to_copy: r.copy_headers.clone(),
        predicates: r.predicates.iter().map(encode_predicate).collect(),
    }
}

fn encode_predicate(value: &RedirectPredicate) -> core::TypedExtensionConfig {
    use envoy_types::pb::envoy::extensions::internal_redirect as predicates;
    let (name, config) = match value {
        RedirectPredicate::NotPrevious => (
            "envoy.internal_redirect_predicates.previous_routes",
            convert::any(&predicates::previous_routes::v3::PreviousRoutesConfig {}),
        ),
        RedirectPredicate::SafeScheme => (
            "envoy.internal_redirect_predicates.safe_cross_scheme",
            convert::any(&predicates::safe_cross_scheme::v3::SafeCrossSchemeConfig {}),
        ),
        RedirectPredicate::Allowed(names) => {
            let config =
                predicates::allow_listed_routes::v3::AllowListedRoutesConfig { allowed_route_names: names.clone() };
            ("envoy.internal_redirect_predicates.allow_listed_routes", convert::any(&config))
        }
    };
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}
