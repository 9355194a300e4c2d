//! Configuration of the rbac filter, of requests and of connections (`envoy.filters.http.rbac`). Source: Envoy, "Role Based
//! Access Control (RBAC) Filter".

use envoy_types::pb::envoy::config::rbac::v3 as pb_rules;
use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as pbm;
use envoy_types::pb::google::protobuf::Any;

use super::{FilterMessage, PerRoute};
use crate::convert;
use crate::matcher::{HeaderMatcher, StringMatch, StringMatcher};
use crate::network::Network;
use crate::{Audit, Error, Path};

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
    /// The TLS server name fits; it is empty where nobody has looked.
    ServerName(StringMatcher),
    /// Somebody who came over TLS; with a matcher, with a certificate that has such a name.
    Authenticated(Option<StringMatcher>),
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

    fn encode(&self) -> pb::rbac::v3::Rbac {
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
            Self::Peer(_) | Self::Client(_) | Self::Authenticated(_) => R::NotRule(Box::new(Self::Any.permission())),
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
            Self::Authenticated(name) => {
                I::Authenticated(Authenticated { principal_name: name.as_ref().map(StringMatcher::encode) })
            }
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
        Some(I::Authenticated(who)) => {
            let here = path.field("authenticated");
            let name = who.principal_name.as_ref();
            let name = name.map(|name| StringMatcher::decode(name, &here.field("principal_name")));
            RbacRule::Authenticated(name.transpose()?)
        }
        _ => return Err(path.error("a principal of this kind is not supported")),
    })
}

fn url_path(value: &pbm::PathMatcher, path: &Path<'_>) -> Result<StringMatcher, Error> {
    match &value.rule {
        Some(pbm::path_matcher::Rule::Path(m)) => StringMatcher::decode(m, path),
        None => Ok(StringMatcher::new(StringMatch::Prefix(String::new()))),
    }
}

impl FilterMessage for Rbac {
    const NAME: &'static str = "envoy.filters.http.rbac";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::rbac::v3::Rbac> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }

    fn from_route_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute<Self>>, Error> {
        let message: Option<pb::rbac::v3::RbacPerRoute> = super::message(any, path)?;
        let Some(message) = message else { return super::from_same_message(any, audit, path) };
        Ok(Some(match &message.rbac {
            None => PerRoute::Off,
            Some(rbac) => PerRoute::Config(Self::decode(rbac, audit, path)?),
        }))
    }

    fn to_route_any(&self) -> Any {
        convert::any(&pb::rbac::v3::RbacPerRoute { rbac: Some(self.encode()) })
    }
}
