//! Answers health checks of this proxy (`envoy.filters.http.health_check`). Source: Envoy, "Health check".

use std::marker::PhantomData;

use serin_resources::http_filter as resources;
use serin_traffic::predicate::matches_headers;
use serin_traffic::response_flag::ResponseFlag;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};

/// The filter; it keeps nothing of a request.
pub(super) struct HealthCheck<'a>(PhantomData<&'a ()>);

impl<'a> HttpFilter<'a> for HealthCheck<'a> {
    type Config = resources::HealthCheck;

    async fn request_head(
        setting: Setting<'a, resources::HealthCheck>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        _kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let config = setting.config;
        if config.headers.is_empty() || !matches_headers(&config.headers, request.head) || config.pass_through {
            return Ok(());
        }
        request.record.is_health_check.set(true);
        let worker = &context.connection.worker;
        let failing = worker.state.is_failing();
        // The reasons of `HealthCheckFilter::onComplete`.
        let problem = |(name, percent): &(String, u32)| match context.view.named(name, worker) {
            None => Some("health_check_failed_no_cluster_found"),
            Some(cluster) if cluster.members.is_empty() => {
                (*percent > 0).then_some("health_check_failed_cluster_empty")
            }
            Some(cluster) => {
                let is_enough = cluster.healthy() * 100 >= *percent as usize * cluster.members.len();
                (!is_enough).then_some("health_check_failed_cluster_unhealthy")
            }
        };
        let problem = if failing { Some("health_check_failed") } else { config.clusters.iter().find_map(problem) };
        let well = if config.clusters.is_empty() { "health_check_ok" } else { "health_check_ok_cluster_healthy" };
        let mut reply = LocalReply::empty(
            if problem.is_none() { 200 } else { 503 },
            if problem.is_some() { ResponseFlag::FailedLocalHealthCheck } else { ResponseFlag::None },
        )
        .because(problem.unwrap_or(well));
        let cluster = worker.state.service_cluster();
        reply.head.fields.append(b"x-envoy-upstream-healthchecked-cluster", cluster.as_bytes());
        if failing {
            reply.head.fields.append(b"x-envoy-immediate-health-check-fail", b"true");
        }
        Err(Stop::Reply(reply))
    }
}
