//! Filters that let requests in or not: cors, csrf, rbac.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::rbac::v3 as pb_rules;
use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as pbm;

use crate::convert;
use crate::matcher::{HeaderMatcher, StringMatch, StringMatcher};
use crate::network::Network;
use crate::{Audit, Error, Path};

/// The other sites that may make browsers send requests here, and see the responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Their origins.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; empty is none.
    pub methods: String,
    /// `access-control-allow-headers`.
    pub headers: String,
    /// `access-control-expose-headers`.
    pub expose: String,
    /// `access-control-max-age`.
    pub max_age: String,
    /// True when cookies may be sent.
    pub credentials: Option<bool>,
    /// True when requests into a private network may be made.
    pub private_network: Option<bool>,
    /// True when a preflight from elsewhere goes on to the upstream, as it does when nothing is said.
    pub forward_others: Option<bool>,
    /// Share of requests that this is for, in parts of a million.
    pub enabled: u32,
}

impl Cors {
    /// Takes from a less specific policy what this one says nothing about.
    pub fn inherit(&mut self, other: &Self) {
        if self.origins.is_empty() {
            self.origins.clone_from(&other.origins);
        }
        for (own, theirs) in [
            (&mut self.methods, &other.methods),
            (&mut self.headers, &other.headers),
            (&mut self.expose, &other.expose),
            (&mut self.max_age, &other.max_age),
        ] {
            if own.is_empty() {
                own.clone_from(theirs);
            }
        }
        self.credentials = self.credentials.or(other.credentials);
        self.private_network = self.private_network.or(other.private_network);
        self.forward_others = self.forward_others.or(other.forward_others);
    }

    pub(super) fn decode(value: &pb::cors::v3::CorsPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::cors::v3::CorsPolicy;
        audit!(value, CorsPolicy as CorsPolicy, audit, path;
            supported: allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age,
                allow_credentials, filter_enabled, allow_private_network_access, forward_not_matching_preflights;
            ignored: shadow_enabled;
            refused: );
        let origins_path = path.field("allow_origin_string_match");
        let origins = value.allow_origin_string_match.iter().enumerate();
        Ok(Self {
            origins: origins
                .map(|(i, m)| StringMatcher::decode(m, &origins_path.index(i)))
                .collect::<Result<_, _>>()?,
            methods: value.allow_methods.clone(),
            headers: value.allow_headers.clone(),
            expose: value.expose_headers.clone(),
            max_age: value.max_age.clone(),
            credentials: value.allow_credentials.as_ref().map(|v| v.value),
            private_network: value.allow_private_network_access.as_ref().map(|v| v.value),
            forward_others: value.forward_not_matching_preflights.as_ref().map(|v| v.value),
            enabled: enabled(value.filter_enabled.as_ref(), audit, path)?,
        })
    }

    pub(super) fn encode(&self) -> pb::cors::v3::CorsPolicy {
        pb::cors::v3::CorsPolicy {
            allow_origin_string_match: self.origins.iter().map(StringMatcher::encode).collect(),
            allow_methods: self.methods.clone(),
            allow_headers: self.headers.clone(),
            expose_headers: self.expose.clone(),
            max_age: self.max_age.clone(),
            allow_credentials: self.credentials.map(convert::wrap_bool),
            forward_not_matching_preflights: self.forward_others.map(convert::wrap_bool),
            allow_private_network_access: self.private_network.map(convert::wrap_bool),
            filter_enabled: (self.enabled != 1_000_000).then(|| convert::proto_share(self.enabled)),
            ..Default::default()
        }
    }
}

/// A share; all when nothing is said.
fn enabled(value: Option<&core::RuntimeFractionalPercent>, audit: &Audit, path: &Path<'_>) -> Result<u32, Error> {
    match value {
        None => Ok(1_000_000),
        Some(f) => convert::runtime_share(f, audit, &path.field("filter_enabled")),
    }
}

/// Refuses requests with effects that another site makes a browser send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csrf {
    /// Share of requests that are looked at, in parts of a million.
    pub enabled: u32,
    /// Sites that may.
    pub origins: Vec<StringMatcher>,
}

impl Csrf {
    pub(super) fn decode(value: &pb::csrf::v3::CsrfPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::csrf::v3::CsrfPolicy;
        audit!(value, CsrfPolicy as CsrfPolicy, audit, path;
            supported: filter_enabled, additional_origins; ignored: shadow_enabled; refused: );
        if value.filter_enabled.is_none() {
            return Err(path.field("filter_enabled").error("is required"));
        }
        let list = path.field("additional_origins");
        let origins = value.additional_origins.iter().enumerate();
        Ok(Self {
            enabled: enabled(value.filter_enabled.as_ref(), audit, path)?,
            origins: origins.map(|(i, m)| StringMatcher::decode(m, &list.index(i))).collect::<Result<_, _>>()?,
        })
    }
}

impl Csrf {
    pub(super) fn encode(&self) -> pb::csrf::v3::CsrfPolicy {
        pb::csrf::v3::CsrfPolicy {
            filter_enabled: Some(convert::proto_share(self.enabled)),
            additional_origins: self.origins.iter().map(StringMatcher::encode).collect(),
            ..Default::default()
        }
    }
}

/// Access rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rbac {
    /// The rules that are enforced; without rules everybody is let in.
    pub rules: Option<RbacRules>,
    /// The rules that are only counted.
    pub shadow: Option<RbacRules>,
    /// Prefix of what is counted.
    pub prefix: String,
}

/// Policies and what they do to who fits any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbacRules {
    /// See there.
    pub action: RbacAction,
    /// By name, in the order of names.
    pub policies: Vec<(String, RbacPolicy)>,
}

/// The action on a request that fits a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacAction {
    /// They alone may.
    Allow,
    /// They may not.
    Deny,
    /// Everybody may.
    Log,
}

/// The permissions and principals of a policy; any of each list must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbacPolicy {
    /// The permissions.
    pub permissions: Vec<RbacRule>,
    /// By whom.
    pub principals: Vec<RbacRule>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RbacRule {
    /// Always.
    Any,
    /// All of these.
    And(Vec<Self>),
    /// Any of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// A header fits.
    Header(HeaderMatcher),
    /// The path without its query fits.
    Path(StringMatcher),
    /// The local address is in this network.
    LocalIp(Network),
    /// The local port is from here to before there.
    LocalPort(u16, u32),
    /// The peer is in this network.
    Peer(Network),
    /// The client, as far as it is known, is in this network.
    Client(Network),
    /// The TLS server name fits; there is no TLS, so it is empty.
    ServerName(StringMatcher),
    /// Somebody who proved who they are: nobody, without TLS.
    Authenticated,
}

impl Rbac {
    pub(crate) fn decode(value: &pb::rbac::v3::Rbac, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::rbac::v3::Rbac as pb::rbac::v3::Rbac, audit, path;
            supported: rules, shadow_rules, rules_stat_prefix;
            ignored: shadow_rules_stat_prefix, track_per_rule_stats;
            refused: matcher, shadow_matcher);
        let rules = value.rules.as_ref().map(|r| RbacRules::decode(r, audit, &path.field("rules")));
        let shadow = value.shadow_rules.as_ref().map(|r| RbacRules::decode(r, audit, &path.field("shadow_rules")));
        Ok(Self { rules: rules.transpose()?, shadow: shadow.transpose()?, prefix: value.rules_stat_prefix.clone() })
    }
}

impl Rbac {
    pub(super) fn encode(&self) -> pb::rbac::v3::Rbac {
        pb::rbac::v3::Rbac {
            rules: self.rules.as_ref().map(RbacRules::encode),
            shadow_rules: self.shadow.as_ref().map(RbacRules::encode),
            rules_stat_prefix: self.prefix.clone(),
            ..Default::default()
        }
    }
}

impl RbacRules {
    pub(crate) fn encode(&self) -> pb_rules::Rbac {
        let policy = |policy: &RbacPolicy| pb_rules::Policy {
            permissions: policy.permissions.iter().map(RbacRule::permission).collect(),
            principals: policy.principals.iter().map(RbacRule::principal).collect(),
            ..Default::default()
        };
        pb_rules::Rbac {
            action: match self.action {
                RbacAction::Allow => 0,
                RbacAction::Deny => 1,
                RbacAction::Log => 2,
            },
            policies: self.policies.iter().map(|(name, p)| (name.clone(), policy(p))).collect(),
            ..Default::default()
        }
    }

    pub(crate) fn decode(value: &pb_rules::Rbac, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb_rules::Rbac as pb_rules::Rbac, audit, path;
            supported: action, policies; ignored: audit_logging_options; refused: );
        let list = path.field("policies");
        let mut policies = Vec::new();
        for (name, policy) in &value.policies {
            let here = list.field(name);
            audit!(policy, pb_rules::Policy as pb_rules::Policy, audit, &here;
                supported: permissions, principals; ignored: ; refused: condition, checked_condition, cel_config);
            let permissions = policy.permissions.iter().map(|p| permission(p, &here.field("permissions")));
            let principals = policy.principals.iter().map(|p| principal(p, &here.field("principals")));
            let policy = RbacPolicy {
                permissions: permissions.collect::<Result<_, _>>()?,
                principals: principals.collect::<Result<_, _>>()?,
            };
            policies.push((name.clone(), policy));
        }
        policies.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self {
            action: match value.action {
                0 => RbacAction::Allow,
                1 => RbacAction::Deny,
                2 => RbacAction::Log,
                _ => return Err(path.field("action").error("is no known action")),
            },
            policies,
        })
    }
}

impl RbacRule {
    /// As what is asked for. Who asks is no part of that: such a condition never holds.
    fn permission(&self) -> pb_rules::Permission {
        use pb_rules::permission::{Rule as R, Set};
        let set = |rules: &[Self]| Set { rules: rules.iter().map(Self::permission).collect() };
        let rule = match self {
            Self::Any => R::Any(true),
            Self::And(rules) => R::AndRules(set(rules)),
            Self::Or(rules) => R::OrRules(set(rules)),
            Self::Not(rule) => R::NotRule(Box::new(rule.permission())),
            Self::Header(matcher) => R::Header(matcher.encode()),
            Self::Path(matcher) => R::UrlPath(proto_path(matcher)),
            Self::LocalIp(network) => R::DestinationIp(network.encode()),
            Self::LocalPort(start, end) if u32::from(*start) + 1 == *end => R::DestinationPort((*start).into()),
            Self::LocalPort(start, end) => R::DestinationPortRange(envoy_types::pb::envoy::r#type::v3::Int32Range {
                start: (*start).into(),
                end: i32::try_from(*end).unwrap_or(i32::MAX),
            }),
            Self::ServerName(matcher) => R::RequestedServerName(matcher.encode()),
            Self::Peer(_) | Self::Client(_) | Self::Authenticated => R::NotRule(Box::new(Self::Any.permission())),
        };
        pb_rules::Permission { rule: Some(rule) }
    }

    /// As who asks. What is asked for is no part of that: such a condition never holds.
    fn principal(&self) -> pb_rules::Principal {
        use pb_rules::principal::{Authenticated, Identifier as I, Set};
        let set = |rules: &[Self]| Set { ids: rules.iter().map(Self::principal).collect() };
        let identifier = match self {
            Self::Any => I::Any(true),
            Self::And(rules) => I::AndIds(set(rules)),
            Self::Or(rules) => I::OrIds(set(rules)),
            Self::Not(rule) => I::NotId(Box::new(rule.principal())),
            Self::Header(matcher) => I::Header(matcher.encode()),
            Self::Path(matcher) => I::UrlPath(proto_path(matcher)),
            Self::Peer(network) => I::DirectRemoteIp(network.encode()),
            Self::Client(network) => I::RemoteIp(network.encode()),
            Self::Authenticated => I::Authenticated(Authenticated::default()),
            Self::LocalIp(_) | Self::LocalPort(..) | Self::ServerName(_) => I::NotId(Box::new(Self::Any.principal())),
        };
        pb_rules::Principal { identifier: Some(identifier) }
    }
}

fn proto_path(matcher: &StringMatcher) -> pbm::PathMatcher {
    pbm::PathMatcher { rule: Some(pbm::path_matcher::Rule::Path(matcher.encode())) }
}

fn permission(value: &pb_rules::Permission, path: &Path<'_>) -> Result<RbacRule, Error> {
    use pb_rules::permission::Rule as R;
    let all = |set: &pb_rules::permission::Set| set.rules.iter().map(|p| permission(p, path)).collect::<Result<_, _>>();
    Ok(match &value.rule {
        Some(R::Any(_)) => RbacRule::Any,
        Some(R::AndRules(set)) => RbacRule::And(all(set)?),
        Some(R::OrRules(set)) => RbacRule::Or(all(set)?),
        Some(R::NotRule(inner)) => RbacRule::Not(Box::new(permission(inner, path)?)),
        Some(R::Header(m)) => RbacRule::Header(HeaderMatcher::decode(m, &path.field("header"))?),
        Some(R::UrlPath(m)) => RbacRule::Path(url_path(m, &path.field("url_path"))?),
        Some(R::DestinationIp(range)) => RbacRule::LocalIp(Network::decode(range, &path.field("destination_ip"))?),
        Some(R::DestinationPort(port)) => {
            let port =
                u16::try_from(*port).map_err(|_| path.field("destination_port").error("must be at most 65535"))?;
            RbacRule::LocalPort(port, u32::from(port) + 1)
        }
        Some(R::DestinationPortRange(range)) => {
            let start = u16::try_from(range.start).ok().zip(u32::try_from(range.end).ok());
            let (start, end) = start.ok_or_else(|| path.field("destination_port_range").error("must be ports"))?;
            RbacRule::LocalPort(start, end)
        }
        Some(R::RequestedServerName(m)) => {
            RbacRule::ServerName(StringMatcher::decode(m, &path.field("requested_server_name"))?)
        }
        _ => return Err(path.error("a rule of this kind is not supported")),
    })
}

fn principal(value: &pb_rules::Principal, path: &Path<'_>) -> Result<RbacRule, Error> {
    use pb_rules::principal::Identifier as I;
    let all = |set: &pb_rules::principal::Set| set.ids.iter().map(|p| principal(p, path)).collect::<Result<_, _>>();
    Ok(match &value.identifier {
        Some(I::Any(_)) => RbacRule::Any,
        Some(I::AndIds(set)) => RbacRule::And(all(set)?),
        Some(I::OrIds(set)) => RbacRule::Or(all(set)?),
        Some(I::NotId(inner)) => RbacRule::Not(Box::new(principal(inner, path)?)),
        Some(I::Header(m)) => RbacRule::Header(HeaderMatcher::decode(m, &path.field("header"))?),
        Some(I::UrlPath(m)) => RbacRule::Path(url_path(m, &path.field("url_path"))?),
        Some(I::DirectRemoteIp(range)) => RbacRule::Peer(Network::decode(range, &path.field("direct_remote_ip"))?),
        Some(I::RemoteIp(range)) => RbacRule::Client(Network::decode(range, &path.field("remote_ip"))?),
        Some(I::Authenticated(_)) => RbacRule::Authenticated,
        _ => return Err(path.error("a principal of this kind is not supported")),
    })
}

fn url_path(value: &pbm::PathMatcher, path: &Path<'_>) -> Result<StringMatcher, Error> {
    match &value.rule {
        Some(pbm::path_matcher::Rule::Path(m)) => StringMatcher::decode(m, path),
        None => Ok(StringMatcher::new(StringMatch::Prefix(String::new()))),
    }
}
