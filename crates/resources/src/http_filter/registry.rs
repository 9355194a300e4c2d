//! The registry of HTTP filters: one line a filter, from which everything that must know all filters is expanded.
//!
//! Source: Envoy, "HTTP filters". No other list names the filters (`cargo xtask tidy` checks that). Expanded from it:
//!
//! - here, the modules with the configurations and their decoders, and [`FilterConfig`](super::FilterConfig);
//! - in `traffic`, the compiled filters (`filter::Filter`);
//! - in `proxy`, the modules with the filters themselves, and the calls of their hooks (`http::filters`).

/// Calls a macro with the list of all HTTP filters, each as `file: Type,` or `file: Type => State,`.
///
/// The file is that of the filter in `proxy/http/filters` and that of its configuration in `resources/http_filter`, the type has
/// the same name in both. The state is what `traffic/filter` makes of the configuration when the filter remembers something
/// between requests, or decides in another form; without one, the configuration is used as it is.
///
/// The order of the lines only matters to messages; filters run in the order that a listener configures.
#[macro_export]
macro_rules! http_filters {
    ($then:ident) => {
        $then! {
            fault: Fault,
            cors: Cors,
            csrf: Csrf,
            local_rate_limit: LocalRateLimit => Bucket,
            buffer: Buffer,
            health_check: HealthCheck,
            header_mutation: HeaderMutation,
            compressor: Compressor,
            rbac: Rbac => RbacGate,
            adaptive_concurrency: AdaptiveConcurrency => Concurrency,
            admission_control: AdmissionControl => Admission,
        }
    };
}
