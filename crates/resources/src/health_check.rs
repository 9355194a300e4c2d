//! Active health checks: what is asked, how often, and what is made of the responses.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::health_check as pbh;

use serin_http1::Codec;

use crate::convert;
use crate::header::HeaderEdits;
use crate::matcher::{StringMatch, StringMatcher};
use crate::{Audit, Error, Path};

/// One way of checking endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The probe.
    pub probe: Probe,
    /// Time for a response.
    pub timeout: Duration,
    /// Time between checks.
    pub interval: Duration,
    /// Time between checks of an endpoint that fails.
    pub unhealthy_interval: Duration,
    /// Time to the next check after the one that made it fail.
    pub unhealthy_edge_interval: Duration,
    /// Time to the next check after the one that made it well.
    pub healthy_edge_interval: Duration,
    /// Time between checks while the cluster has had no traffic.
    pub no_traffic_interval: Duration,
    /// The same for endpoints that are well.
    pub no_traffic_healthy_interval: Duration,
    /// Most that chance adds to the first wait.
    pub initial_jitter: Duration,
    /// Most that chance adds to a wait.
    pub jitter: Duration,
    /// Most that chance adds, in per cent of the wait.
    pub jitter_percent: u32,
    /// Failures in a row that make an endpoint fail.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it well.
    pub healthy_threshold: u32,
    /// Another port.
    pub port: Option<u16>,
    /// A file that changes are written to, as lines of JSON.
    pub event_log: Option<String>,
    /// True when every failure is written.
    pub log_failures: bool,
}

/// The request of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A connection, perhaps with bytes to send and to wait for.
    Tcp {
        /// The bytes to send.
        send: Vec<u8>,
        /// The bytes that must be received, in order, perhaps with other bytes between.
        receive: Vec<Vec<u8>>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked about; empty is the whole server.
        service: String,
        /// The authority; the cluster's name when empty.
        authority: String,
    },
}

/// An HTTP request and what is made of its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Authority; the cluster's name when empty.
    pub host: String,
    /// Path.
    pub path: String,
    /// Method.
    pub method: String,
    /// The codec.
    pub codec: Codec,
    /// Edits to its headers.
    pub headers: HeaderEdits,
    /// Statuses that mean well, as ranges without their ends.
    pub expected: Vec<(u16, u16)>,
    /// Statuses that count as one failure of several.
    pub retriable: Vec<(u16, u16)>,
    /// The value that `x-envoy-upstream-healthchecked-cluster` must have.
    pub service: Option<StringMatcher>,
}

impl HealthCheck {
    pub(crate) fn decode(value: &pb::HealthCheck, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::HealthCheck as pb::HealthCheck, audit, path;
            supported: timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold,
                healthy_threshold, alt_port, no_traffic_interval, no_traffic_healthy_interval, unhealthy_interval,
                unhealthy_edge_interval, healthy_edge_interval, event_log_path, always_log_health_check_failures,
                health_checker;
            ignored: reuse_connection, event_logger, event_service, always_log_health_check_success;
            refused: tls_options, transport_socket_match_criteria);
        let read = |field: &'static str, v: &Option<envoy_types::pb::google::protobuf::Duration>| {
            convert::optional_duration(v.as_ref(), &path.field(field))
        };
        let needed = |field: &'static str, v| match read(field, v)? {
            Some(time) if !time.is_zero() => Ok(time),
            _ => Err(path.field(field).error("is required and must be longer than 0 s")),
        };
        let interval = needed("interval", &value.interval)?;
        let unhealthy_interval = read("unhealthy_interval", &value.unhealthy_interval)?.unwrap_or(interval);
        let no_traffic = read("no_traffic_interval", &value.no_traffic_interval)?.unwrap_or(Duration::from_secs(60));
        let threshold = |field: &'static str, v: &Option<envoy_types::pb::google::protobuf::UInt32Value>| {
            v.as_ref().map(|v| v.value.max(1)).ok_or_else(|| path.field(field).error("is required"))
        };
        let port = value.alt_port.as_ref().map_or(0, |p| p.value);
        let port = u16::try_from(port).map_err(|_| path.field("alt_port").error("must be at most 65535"))?;
        Ok(Self {
            probe: probe(value, audit, path)?,
            timeout: needed("timeout", &value.timeout)?,
            interval,
            unhealthy_interval,
            unhealthy_edge_interval: read("unhealthy_edge_interval", &value.unhealthy_edge_interval)?
                .unwrap_or(unhealthy_interval),
            healthy_edge_interval: read("healthy_edge_interval", &value.healthy_edge_interval)?.unwrap_or(interval),
            no_traffic_interval: no_traffic,
            no_traffic_healthy_interval: read("no_traffic_healthy_interval", &value.no_traffic_healthy_interval)?
                .unwrap_or(no_traffic),
            initial_jitter: read("initial_jitter", &value.initial_jitter)?.unwrap_or_default(),
            jitter: read("interval_jitter", &value.interval_jitter)?.unwrap_or_default(),
            jitter_percent: value.interval_jitter_percent,
            unhealthy_threshold: threshold("unhealthy_threshold", &value.unhealthy_threshold)?,
            healthy_threshold: threshold("healthy_threshold", &value.healthy_threshold)?,
            port: (port != 0).then_some(port),
            event_log: (!value.event_log_path.is_empty()).then(|| value.event_log_path.clone()),
            log_failures: value.always_log_health_check_failures,
        })
    }

    pub(crate) fn encode(&self) -> pb::HealthCheck {
        let time = |t| Some(convert::proto_duration(t));
        pb::HealthCheck {
            timeout: time(self.timeout),
            interval: time(self.interval),
            initial_jitter: time(self.initial_jitter),
            interval_jitter: time(self.jitter),
            interval_jitter_percent: self.jitter_percent,
            unhealthy_threshold: Some(convert::wrap_u32(self.unhealthy_threshold)),
            healthy_threshold: Some(convert::wrap_u32(self.healthy_threshold)),
            alt_port: self.port.map(|p| convert::wrap_u32(p.into())),
            no_traffic_interval: time(self.no_traffic_interval),
            no_traffic_healthy_interval: time(self.no_traffic_healthy_interval),
            unhealthy_interval: time(self.unhealthy_interval),
            unhealthy_edge_interval: time(self.unhealthy_edge_interval),
            healthy_edge_interval: time(self.healthy_edge_interval),
            event_log_path: self.event_log.clone().unwrap_or_default(),
            always_log_health_check_failures: self.log_failures,
            health_checker: Some(self.probe.encode()),
            ..Default::default()
        }
    }
}

impl Probe {
    fn encode(&self) -> pbh::HealthChecker {
        let range = |(start, end): &(u16, u16)| envoy_types::pb::envoy::r#type::v3::Int64Range {
            start: (*start).into(),
            end: (*end).into(),
        };
        let binary = |bytes: &Vec<u8>| pbh::Payload { payload: Some(pbh::payload::Payload::Binary(bytes.clone())) };
        match self {
            Self::Http(http) => pbh::HealthChecker::HttpHealthCheck(pbh::HttpHealthCheck {
                host: http.host.clone(),
                path: http.path.clone(),
                request_headers_to_add: http.headers.encode_add(),
                request_headers_to_remove: http.headers.remove.clone(),
                expected_statuses: http.expected.iter().map(range).collect(),
                retriable_statuses: http.retriable.iter().map(range).collect(),
                codec_client_type: i32::from(http.codec == Codec::Http2),
                service_name_matcher: http.service.as_ref().map(StringMatcher::encode),
                method: match pb::RequestMethod::from_str_name(&http.method) {
                    Some(method) if http.method != "GET" => method as i32,
                    _ => 0,
                },
                ..Default::default()
            }),
            Self::Tcp { send, receive } => pbh::HealthChecker::TcpHealthCheck(pbh::TcpHealthCheck {
                send: (!send.is_empty()).then(|| binary(send)),
                receive: receive.iter().map(binary).collect(),
                ..Default::default()
            }),
            Self::Grpc { service, authority } => pbh::HealthChecker::GrpcHealthCheck(pbh::GrpcHealthCheck {
                service_name: service.clone(),
                authority: authority.clone(),
                ..Default::default()
            }),
        }
    }
}

fn probe(value: &pb::HealthCheck, audit: &mut Audit, path: &Path<'_>) -> Result<Probe, Error> {
    match &value.health_checker {
        Some(pbh::HealthChecker::HttpHealthCheck(http)) => {
            Ok(Probe::Http(http_probe(http, audit, &path.field("http_health_check"))?))
        }
        Some(pbh::HealthChecker::TcpHealthCheck(tcp)) => {
            let here = path.field("tcp_health_check");
            audit!(tcp, pbh::TcpHealthCheck as pbh::TcpHealthCheck, audit, &here;
                supported: send, receive; ignored: ; refused: proxy_protocol_config);
            Ok(Probe::Tcp {
                send: tcp.send.as_ref().map(|p| payload(p, &here)).transpose()?.unwrap_or_default(),
                receive: tcp.receive.iter().map(|p| payload(p, &here)).collect::<Result<_, _>>()?,
            })
        }
        Some(pbh::HealthChecker::GrpcHealthCheck(grpc)) => {
            let here = path.field("grpc_health_check");
            audit!(grpc, pbh::GrpcHealthCheck as pbh::GrpcHealthCheck, audit, &here;
                supported: service_name, authority; ignored: ; refused: initial_metadata);
            Ok(Probe::Grpc { service: grpc.service_name.clone(), authority: grpc.authority.clone() })
        }
        Some(pbh::HealthChecker::CustomHealthCheck(custom)) => {
            Err(path.field("custom_health_check").error(format!("'{}' is not supported", custom.name)))
        }
        None => Err(path.error("needs http_health_check, tcp_health_check or grpc_health_check")),
    }
}

fn http_probe(value: &pbh::HttpHealthCheck, audit: &mut Audit, path: &Path<'_>) -> Result<HttpProbe, Error> {
    audit!(value, pbh::HttpHealthCheck as pbh::HttpHealthCheck, audit, path;
        supported: host, path, request_headers_to_add, request_headers_to_remove, expected_statuses,
            retriable_statuses, codec_client_type, service_name_matcher, method;
        ignored: response_buffer_size;
        refused: send, receive);
    let ranges = |list: &[envoy_types::pb::envoy::r#type::v3::Int64Range], field: &'static str| {
        let range = |r: &envoy_types::pb::envoy::r#type::v3::Int64Range| {
            let (start, end) = (u16::try_from(r.start).ok(), u16::try_from(r.end).ok());
            let pair = start.zip(end).filter(|(s, e)| s < e && *s >= 100 && *e <= 600);
            pair.ok_or_else(|| path.field(field).error("must be ranges within 100 to 600"))
        };
        list.iter().map(range).collect::<Result<Vec<_>, _>>()
    };
    let expected = ranges(&value.expected_statuses, "expected_statuses")?;
    let service = value.service_name_matcher.as_ref();
    let method = pb::RequestMethod::try_from(value.method).map_or("GET", |m| m.as_str_name());
    Ok(HttpProbe {
        host: value.host.clone(),
        path: value.path.clone(),
        method: if method == "METHOD_UNSPECIFIED" { "GET".to_owned() } else { method.to_owned() },
        codec: match value.codec_client_type {
            0 => Codec::Http1,
            1 => Codec::Http2,
            _ => return Err(path.field("codec_client_type").error("HTTP3 is not supported")),
        },
        headers: HeaderEdits::decode(&value.request_headers_to_add, &value.request_headers_to_remove, path)?,
        expected: if expected.is_empty() { vec![(200, 201)] } else { expected },
        retriable: ranges(&value.retriable_statuses, "retriable_statuses")?,
        service: service.map(|m| StringMatcher::decode(m, &path.field("service_name_matcher"))).transpose()?,
    })
}

fn payload(value: &pbh::Payload, path: &Path<'_>) -> Result<Vec<u8>, Error> {
    match &value.payload {
        Some(pbh::payload::Payload::Binary(bytes)) => Ok(bytes.clone()),
        Some(pbh::payload::Payload::Text(hex)) => {
            let digits: Option<Vec<u8>> =
                hex.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
            let digits = digits.filter(|d| d.len() % 2 == 0);
            let digits = digits.ok_or_else(|| path.error("'text' must be hexadecimal"))?;
            Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect())
        }
        None => Err(path.error("needs a payload")),
    }
}

impl HttpProbe {
    /// Returns true when the service that answers is the one that was meant.
    #[must_use]
    pub fn is_meant(&self, service: Option<&str>) -> bool {
        let Some(matcher) = &self.service else { return true };
        let (service, fold) = (service.unwrap_or_default(), matcher.ignore_case);
        let same = |a: &str, b: &str| if fold { a.eq_ignore_ascii_case(b) } else { a == b };
        match &matcher.pattern {
            StringMatch::Exact(text) => same(service, text),
            StringMatch::Prefix(text) => service.get(..text.len()).is_some_and(|s| same(s, text)),
            StringMatch::Suffix(text) => {
                service.len().checked_sub(text.len()).and_then(|at| service.get(at..)).is_some_and(|s| same(s, text))
            }
            StringMatch::Contains(text) => service.contains(text.as_str()),
            StringMatch::Regex(text) => regex::Regex::new(&format!("^(?:{text})$")).is_ok_and(|r| r.is_match(service)),
        }
    }
}
