//! Which requests an access log takes, or a local reply is changed for.

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::convert;
use crate::matcher::HeaderMatcher;
use crate::{Audit, Error, Path};

/// A condition on a request that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFilter {
    /// Its status; 0 when it was not answered.
    Status(Comparison),
    /// Its duration in milliseconds.
    Duration(Comparison),
    /// It is no health check of this proxy.
    NotHealthCheck,
    /// It is traced.
    Traced,
    /// It is one of this share, in parts of a million.
    Sample {
        /// The share.
        share: u32,
        /// True when the draw does not follow from its request id.
        is_independent: bool,
    },
    /// All of these.
    All(Vec<Self>),
    /// Any of these.
    Any(Vec<Self>),
    /// A header of it.
    Header(HeaderMatcher),
    /// Any of these response flags, in their short form; any flag at all when there is none.
    Flags(Vec<String>),
    /// Its gRPC status is one of these, or none of them.
    GrpcStatus {
        /// Numbers of statuses.
        statuses: Vec<i32>,
        /// True when it must be none of them.
        excludes: bool,
    },
    /// The log is written at one of these times, or at none of them; requests here are logged at their end only. Local replies are
    /// changed at no such time.
    Moment {
        /// Numbers of `AccessLogType`.
        moments: Vec<i32>,
        /// True when it must be none of them.
        excludes: bool,
    },
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The comparison operator.
    pub operator: Operator,
    /// The number.
    pub value: u32,
}

/// The comparison operators of Envoy's `ComparisonFilter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Equal,
    /// At least.
    AtLeast,
    /// At most.
    AtMost,
    /// Not equal.
    NotEqual,
}

impl Comparison {
    /// Returns true when it holds for a number.
    #[must_use]
    pub fn holds(self, number: u64) -> bool {
        let value = u64::from(self.value);
        match self.operator {
            Operator::Equal => number == value,
            Operator::AtLeast => number >= value,
            Operator::AtMost => number <= value,
            Operator::NotEqual => number != value,
        }
    }

    fn decode(value: Option<&pb::ComparisonFilter>, audit: &Audit, path: &Path<'_>) -> Result<Self, Error> {
        let path = path.field("comparison");
        let value = value.ok_or_else(|| path.error("is required"))?;
        let number = value.value.as_ref().ok_or_else(|| path.field("value").error("is required"))?;
        if number.runtime_key.is_empty() {
            return Err(path.field("value").field("runtime_key").error("is required"));
        }
        let operator = match value.op {
            0 => Operator::Equal,
            1 => Operator::AtLeast,
            2 => Operator::AtMost,
            3 => Operator::NotEqual,
            _ => return Err(path.field("op").error("is not known")),
        };
        Ok(Self { operator, value: convert::runtime_u32(number, audit) })
    }

    fn encode(self) -> Option<pb::ComparisonFilter> {
        let op = match self.operator {
            Operator::Equal => 0,
            Operator::AtLeast => 1,
            Operator::AtMost => 2,
            Operator::NotEqual => 3,
        };
        // Envoy wants a key, under which nothing stands.
        let runtime_key = "serin.access_log".to_owned();
        Some(pb::ComparisonFilter { op, value: Some(core::RuntimeUInt32 { default_value: self.value, runtime_key }) })
    }
}

/// The response flags that Envoy knows.
const FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH",
    "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

impl LogFilter {
    pub(crate) fn decode(value: &pb::AccessLogFilter, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::access_log_filter::FilterSpecifier as F;
        let several = |filters: &[pb::AccessLogFilter], field: &'static str, audit: &mut Audit| {
            let here = path.field(field);
            let here = here.field("filters");
            if filters.len() < 2 {
                return Err(here.error("needs at least two filters"));
            }
            filters
                .iter()
                .enumerate()
                .map(|(i, f)| Self::decode(f, audit, &here.index(i)))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match &value.filter_specifier {
            None => return Err(path.error("needs a filter")),
            Some(F::StatusCodeFilter(f)) => {
                Self::Status(Comparison::decode(f.comparison.as_ref(), audit, &path.field("status_code_filter"))?)
            }
            Some(F::DurationFilter(f)) => {
                Self::Duration(Comparison::decode(f.comparison.as_ref(), audit, &path.field("duration_filter"))?)
            }
            Some(F::NotHealthCheckFilter(_)) => Self::NotHealthCheck,
            Some(F::TraceableFilter(_)) => Self::Traced,
            Some(F::RuntimeFilter(f)) => {
                let here = path.field("runtime_filter");
                if f.runtime_key.is_empty() {
                    return Err(here.field("runtime_key").error("is required"));
                }
                // The runtime has a numerator, to the denominator given here (Envoy: `RuntimeFilter::evaluate`).
                let mut percent = f.percent_sampled.unwrap_or_default();
                if let Some(numerator) = convert::runtime_number(&f.runtime_key, audit) {
                    percent.numerator = numerator as u32;
                }
                let share = convert::parts_per_million(Some(&percent), &here.field("percent_sampled"))?;
                Self::Sample { share, is_independent: f.use_independent_randomness }
            }
            Some(F::AndFilter(f)) => Self::All(several(&f.filters, "and_filter", audit)?),
            Some(F::OrFilter(f)) => Self::Any(several(&f.filters, "or_filter", audit)?),
            Some(F::HeaderFilter(f)) => {
                let here = path.field("header_filter");
                let here = here.field("header");
                let header = f.header.as_ref().ok_or_else(|| here.error("is required"))?;
                Self::Header(HeaderMatcher::decode(header, &here)?)
            }
            Some(F::ResponseFlagFilter(f)) => {
                let here = path.field("response_flag_filter");
                let unknown = f.flags.iter().position(|flag| !FLAGS.contains(&flag.as_str()));
                if let Some(i) = unknown {
                    return Err(here.field("flags").index(i).error("is no response flag"));
                }
                Self::Flags(f.flags.clone())
            }
            Some(F::GrpcStatusFilter(f)) => Self::GrpcStatus { statuses: f.statuses.clone(), excludes: f.exclude },
            Some(F::LogTypeFilter(f)) => Self::Moment { moments: f.types.clone(), excludes: f.exclude },
            Some(F::MetadataFilter(_)) => return Err(Audit::refuse(path, "metadata_filter")),
            Some(F::ExtensionFilter(_)) => return Err(Audit::refuse(path, "extension_filter")),
        })
    }

    pub(crate) fn encode(&self) -> pb::AccessLogFilter {
        use pb::access_log_filter::FilterSpecifier as F;
        let all = |filters: &[Self]| filters.iter().map(Self::encode).collect();
        let filter = match self {
            Self::Status(comparison) => F::StatusCodeFilter(pb::StatusCodeFilter { comparison: comparison.encode() }),
            Self::Duration(comparison) => F::DurationFilter(pb::DurationFilter { comparison: comparison.encode() }),
            Self::NotHealthCheck => F::NotHealthCheckFilter(pb::NotHealthCheckFilter {}),
            Self::Traced => F::TraceableFilter(pb::TraceableFilter {}),
            Self::Sample { share, is_independent } => F::RuntimeFilter(pb::RuntimeFilter {
                runtime_key: "serin.access_log".to_owned(),
                percent_sampled: Some(convert::proto_fraction(*share)),
                use_independent_randomness: *is_independent,
            }),
            Self::All(filters) => F::AndFilter(pb::AndFilter { filters: all(filters) }),
            Self::Any(filters) => F::OrFilter(pb::OrFilter { filters: all(filters) }),
            Self::Header(header) => F::HeaderFilter(pb::HeaderFilter { header: Some(header.encode()) }),
            Self::Flags(flags) => F::ResponseFlagFilter(pb::ResponseFlagFilter { flags: flags.clone() }),
            Self::GrpcStatus { statuses, excludes } => {
                F::GrpcStatusFilter(pb::GrpcStatusFilter { statuses: statuses.clone(), exclude: *excludes })
            }
            Self::Moment { moments, excludes } => {
                F::LogTypeFilter(pb::LogTypeFilter { types: moments.clone(), exclude: *excludes })
            }
        };
        pb::AccessLogFilter { filter_specifier: Some(filter) }
    }
}
