//! The names of what is counted, which are Envoy's, with the index of each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serin_http1::Version;

macro_rules! metrics {
    ($(#[$doc:meta])* $module:ident: $($constant:ident = $name:literal),* $(,)?) => {
        $(#[$doc])*
        pub(crate) mod $module {
            metrics!(@number 0usize; $($constant)*);
            /// All names, each at the index of its constant.
            pub(crate) const NAMES: &[&str] = {
                const LENGTH: usize = [$($name),*].len();
                const NAMED: [(usize, &str); LENGTH] = [$(($constant, $name)),*];
                const LIST: [&str; LENGTH] = {
                    let mut list = [""; LENGTH];
                    let mut at = 0;
                    while at < LENGTH {
                        list[NAMED[at].0] = NAMED[at].1;
                        at += 1;
                    }
                    list
                };
                &LIST
            };
        }
    };
    (@number $index:expr;) => {};
    (@number $index:expr; $first:ident $($rest:ident)*) => {
        pub(crate) const $first: usize = $index;
        metrics!(@number $first + 1; $($rest)*);
    };
}

metrics! {
    /// `cluster.NAME.*`.
    cluster:
    CX_TOTAL = "upstream_cx_total",
    CX_ACTIVE = "upstream_cx_active",
    CX_DESTROY = "upstream_cx_destroy",
    CX_DESTROY_LOCAL = "upstream_cx_destroy_local",
    CX_DESTROY_REMOTE = "upstream_cx_destroy_remote",
    CX_DESTROY_BUSY = "upstream_cx_destroy_with_active_rq",
    CX_DESTROY_LOCAL_BUSY = "upstream_cx_destroy_local_with_active_rq",
    CX_DESTROY_REMOTE_BUSY = "upstream_cx_destroy_remote_with_active_rq",
    CX_PROTOCOL_ERROR = "upstream_cx_protocol_error",
    CX_CLOSE_NOTIFY = "upstream_cx_close_notify",
    CX_RX_BYTES = "upstream_cx_rx_bytes_total",
    CX_TX_BYTES = "upstream_cx_tx_bytes_total",
    CX_CONNECT_FAIL = "upstream_cx_connect_fail",
    CX_CONNECT_TIMEOUT = "upstream_cx_connect_timeout",
    CX_NONE_HEALTHY = "upstream_cx_none_healthy",
    CX_CONNECT_ATTEMPTS_EXCEEDED = "upstream_cx_connect_attempts_exceeded",
    RQ_TOTAL = "upstream_rq_total",
    RQ_ACTIVE = "upstream_rq_active",
    RQ_COMPLETED = "upstream_rq_completed",
    RQ_1XX = "upstream_rq_1xx",
    RQ_2XX = "upstream_rq_2xx",
    RQ_3XX = "upstream_rq_3xx",
    RQ_4XX = "upstream_rq_4xx",
    RQ_5XX = "upstream_rq_5xx",
    RQ_TIMEOUT = "upstream_rq_timeout",
    RQ_PER_TRY_TIMEOUT = "upstream_rq_per_try_timeout",
    RQ_PER_TRY_IDLE_TIMEOUT = "upstream_rq_per_try_idle_timeout",
    RQ_RETRY = "upstream_rq_retry",
    RQ_RETRY_BACKOFF = "upstream_rq_retry_backoff_exponential",
    RQ_RETRY_LIMITED = "upstream_rq_retry_backoff_ratelimited",
    RQ_RETRY_SUCCESS = "upstream_rq_retry_success",
    RQ_RETRY_LIMIT_EXCEEDED = "upstream_rq_retry_limit_exceeded",
    RQ_RETRY_OVERFLOW = "upstream_rq_retry_overflow",
    RETRY_ABANDONED = "retry_or_shadow_abandoned",
    RQ_REFUSED = "upstream_rq_refused_by_policy",
    RQ_PENDING_TOTAL = "upstream_rq_pending_total",
    RQ_PENDING_ACTIVE = "upstream_rq_pending_active",
    CX_OVERFLOW = "upstream_cx_overflow",
    REDIRECT_SUCCEEDED = "upstream_internal_redirect_succeeded_total",
    REDIRECT_FAILED = "upstream_internal_redirect_failed_total",
    RQ_PENDING_OVERFLOW = "upstream_rq_pending_overflow",
    RQ_PENDING_EJECT = "upstream_rq_pending_failure_eject",
    CX_HTTP1_TOTAL = "upstream_cx_http1_total",
    CX_HTTP2_TOTAL = "upstream_cx_http2_total",
    RQ_RX_RESET = "upstream_rq_rx_reset",
    RQ_CANCELLED = "upstream_rq_cancelled",
    HC_ATTEMPT = "health_check.attempt",
    HC_SUCCESS = "health_check.success",
    HC_FAILURE = "health_check.failure",
    HC_NETWORK_FAILURE = "health_check.network_failure",
    SSL_HANDSHAKE = "ssl.handshake",
    SSL_CONNECTION_ERROR = "ssl.connection_error",
    SSL_NO_CERTIFICATE = "ssl.no_certificate",
    SSL_SESSION_REUSED = "ssl.session_reused",
    SSL_FAIL_NO_CERTIFICATE = "ssl.fail_verify_no_cert",
    SSL_FAIL_CHAIN = "ssl.fail_verify_error",
    SSL_FAIL_NAME = "ssl.fail_verify_san",
    SSL_FAIL_HASH = "ssl.fail_verify_cert_hash",
    SSL_NOT_READY = "client_ssl_socket_factory.upstream_context_secrets_not_ready",
    EJECTIONS_ACTIVE = "outlier_detection.ejections_active",
    EJECTIONS_ENFORCED = "outlier_detection.ejections_enforced_total",
    EJECTIONS_OVERFLOW = "outlier_detection.ejections_overflow",
    DETECTED_5XX = "outlier_detection.ejections_detected_consecutive_5xx",
    ENFORCED_5XX = "outlier_detection.ejections_enforced_consecutive_5xx",
    DETECTED_GATEWAY = "outlier_detection.ejections_detected_consecutive_gateway_failure",
    ENFORCED_GATEWAY = "outlier_detection.ejections_enforced_consecutive_gateway_failure",
    DETECTED_LOCAL = "outlier_detection.ejections_detected_consecutive_local_origin_failure",
    ENFORCED_LOCAL = "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
    DETECTED_RATE = "outlier_detection.ejections_detected_success_rate",
    ENFORCED_RATE = "outlier_detection.ejections_enforced_success_rate",
    DETECTED_PERCENTAGE = "outlier_detection.ejections_detected_failure_percentage",
    ENFORCED_PERCENTAGE = "outlier_detection.ejections_enforced_failure_percentage",
}

metrics! {
    /// Of one endpoint, as `/clusters` prints them.
    host:
    CX_TOTAL = "cx_total",
    CX_ACTIVE = "cx_active",
    CX_CONNECT_FAIL = "cx_connect_fail",
    RQ_TOTAL = "rq_total",
    RQ_ACTIVE = "rq_active",
    RQ_SUCCESS = "rq_success",
    RQ_ERROR = "rq_error",
    RQ_TIMEOUT = "rq_timeout",
}

metrics! {
    /// `http.PREFIX.*`; those of HTTP filters follow, which stand with the filters.
    http:
    CX_TOTAL = "downstream_cx_total",
    CX_ACTIVE = "downstream_cx_active",
    CX_DESTROY = "downstream_cx_destroy",
    CX_DESTROY_LOCAL = "downstream_cx_destroy_local",
    CX_DESTROY_REMOTE = "downstream_cx_destroy_remote",
    CX_DESTROY_BUSY = "downstream_cx_destroy_active_rq",
    CX_DESTROY_LOCAL_BUSY = "downstream_cx_destroy_local_active_rq",
    CX_DESTROY_REMOTE_BUSY = "downstream_cx_destroy_remote_active_rq",
    CX_RX_BYTES = "downstream_cx_rx_bytes_total",
    CX_TX_BYTES = "downstream_cx_tx_bytes_total",
    RQ_HTTP1 = "downstream_rq_http1_total",
    RQ_HTTP2 = "downstream_rq_http2_total",
    CX_HTTP1_TOTAL = "downstream_cx_http1_total",
    CX_HTTP2_TOTAL = "downstream_cx_http2_total",
    CX_SSL_TOTAL = "downstream_cx_ssl_total",
    CX_SSL_ACTIVE = "downstream_cx_ssl_active",
    CX_PROTOCOL_ERROR = "downstream_cx_protocol_error",
    CX_FLOOD = "downstream_cx_http2_flood",
    TX_BUFFERED = "downstream_cx_tx_bytes_buffered",
    CX_IDLE_TIMEOUT = "downstream_cx_idle_timeout",
    CX_MAX_REQUESTS = "downstream_cx_max_requests_reached",
    CX_MAX_DURATION = "downstream_cx_max_duration_reached",
    RQ_TOTAL = "downstream_rq_total",
    RQ_ACTIVE = "downstream_rq_active",
    RQ_COMPLETED = "downstream_rq_completed",
    RQ_1XX = "downstream_rq_1xx",
    RQ_2XX = "downstream_rq_2xx",
    RQ_3XX = "downstream_rq_3xx",
    RQ_4XX = "downstream_rq_4xx",
    RQ_5XX = "downstream_rq_5xx",
    RQ_RX_RESET = "downstream_rq_rx_reset",
    RQ_TIMEOUT = "downstream_rq_timeout",
    RQ_IDLE_TIMEOUT = "downstream_rq_idle_timeout",
    RQ_EARLY_RESPONSE = "downstream_rq_response_before_rq_complete",
    RQ_NON_RELATIVE = "downstream_rq_non_relative_path",
    RQ_MAX_DURATION = "downstream_rq_max_duration_reached",
    RQ_OVERLOAD = "downstream_rq_overload_close",
    RQ_HEADER_TIMEOUT = "downstream_rq_header_timeout",
    NO_ROUTE = "no_route",
    NO_CLUSTER = "no_cluster",
    RQ_REDIRECT = "rq_redirect",
    RQ_DIRECT_RESPONSE = "rq_direct_response",
    RQ_NORMALISATION_FAILED = "downstream_rq_failed_path_normalization",
    RQ_NORMALISED_REDIRECT = "downstream_rq_redirected_with_normalized_path",
    RQ_DETECTION_REJECTED = "downstream_rq_rejected_via_ip_detection",
    RQ_WS_ON_NON_WS = "downstream_rq_ws_on_non_ws_route",
    CX_UPGRADES_TOTAL = "downstream_cx_upgrades_total",
    CX_UPGRADES_ACTIVE = "downstream_cx_upgrades_active",
    REDIRECT_BAD_LOCATION = "passthrough_internal_redirect_bad_location",
    REDIRECT_UNSAFE_SCHEME = "passthrough_internal_redirect_unsafe_scheme",
    REDIRECT_TOO_MANY = "passthrough_internal_redirect_too_many_redirects",
    REDIRECT_NO_ROUTE = "passthrough_internal_redirect_no_route",
    REDIRECT_PREDICATE = "passthrough_internal_redirect_predicate",
}

metrics! {
    /// `listener.NAME.*` and `cluster.NAME.*`: handshakes of TLS.
    tls:
    HANDSHAKE = "ssl.handshake",
    CONNECTION_ERROR = "ssl.connection_error",
    NO_CERTIFICATE = "ssl.no_certificate",
    SESSION_REUSED = "ssl.session_reused",
    FAIL_NO_CERTIFICATE = "ssl.fail_verify_no_cert",
    FAIL_CHAIN = "ssl.fail_verify_error",
    FAIL_NAME = "ssl.fail_verify_san",
    FAIL_HASH = "ssl.fail_verify_cert_hash",
    TIMEOUT = "downstream_cx_transport_socket_connect_timeout",
    NOT_READY = "server_ssl_socket_factory.downstream_context_secrets_not_ready",
}

/// Counters that all workers share, for what is rare.
#[derive(Debug)]
pub(crate) struct Shared<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Shared<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What TLS inspectors have found.
pub(crate) static INSPECTED: Shared<{ inspector::NAMES.len() }> = Shared::new();

impl<const N: usize> Shared<N> {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    pub(crate) fn add(&self, index: usize) {
        if let Some(count) = self.0.get(index) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// All counts, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|count| count.load(Relaxed))
    }
}

metrics! {
    /// `http1.*` and `http2.*`, of clients' connections.
    codec:
    UNDERSCORES_DROPPED = "dropped_headers_with_underscores",
    UNDERSCORES_REJECTED = "requests_rejected_with_underscores_in_headers",
}

/// Counts of one codec.
pub(crate) type CodecCounts = [AtomicU64; codec::NAMES.len()];

/// Counts of HTTP/1 and of HTTP/2: events so rare that all workers share them.
pub(crate) static CODECS: [(&str, CodecCounts); 2] = [
    ("http1", [const { AtomicU64::new(0) }; codec::NAMES.len()]),
    ("http2", [const { AtomicU64::new(0) }; codec::NAMES.len()]),
];

/// Counts an event of a codec.
pub(crate) fn count_codec(version: Version, index: usize, number: u64) {
    let (_, counts) = &CODECS[usize::from(version == Version::Http2)];
    if let Some(count) = counts.get(index) {
        count.fetch_add(number, Relaxed);
    }
}

metrics! {
    /// `tcp.PREFIX.*`. The first two stand where those of HTTP do.
    tcp:
    CX_TOTAL = "downstream_cx_total",
    CX_ACTIVE = "downstream_cx_active",
    CX_NO_ROUTE = "downstream_cx_no_route",
    RECEIVED = "downstream_cx_rx_bytes_total",
    SENT = "downstream_cx_tx_bytes_total",
    IDLE_TIMEOUT = "idle_timeout",
    MAX_DURATION = "max_downstream_connection_duration",
}

metrics! {
    /// `tls_inspector.*`.
    inspector:
    TLS_FOUND = "tls_found",
    TLS_NOT_FOUND = "tls_not_found",
    SNI_FOUND = "sni_found",
    SNI_NOT_FOUND = "sni_not_found",
    ALPN_FOUND = "alpn_found",
    ALPN_NOT_FOUND = "alpn_not_found",
}

/// Who ended a connection, and whether something was going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) by_remote: bool,
    pub(crate) is_busy: bool,
}

impl End {
    /// The counters of it, from the index of the first of them.
    pub(crate) fn counters(self, first: usize) -> impl Iterator<Item = usize> {
        let who = if self.by_remote { 2 } else { 1 };
        let busy = if self.is_busy { [Some(3), Some(3 + who)] } else { [None, None] };
        [Some(0), Some(who)].into_iter().chain(busy).flatten().map(move |offset| first + offset)
    }
}

const _: () = assert!(cluster::CX_DESTROY_REMOTE_BUSY == cluster::CX_DESTROY + 5);
const _: () = assert!(http::CX_DESTROY_REMOTE_BUSY == http::CX_DESTROY + 5);

/// The counter of a cluster for one of a handshake.
pub(crate) fn of_handshake(index: usize) -> usize {
    cluster::SSL_HANDSHAKE + index
}

const _: () = assert!(cluster::SSL_FAIL_HASH - cluster::SSL_HANDSHAKE == tls::FAIL_HASH);
const _: () = assert!(tcp::CX_TOTAL == http::CX_TOTAL && tcp::CX_ACTIVE == http::CX_ACTIVE);

/// Names that can go down.
pub(crate) fn is_gauge(name: &str) -> bool {
    name.ends_with("_active") || name.ends_with("_buffered")
}

/// The index of the counter for a status's class, from the index of the 1xx counter.
pub(crate) fn class(first: usize, status: u16) -> usize {
    first + usize::from(status / 100).clamp(1, 5) - 1
}
