//! The contenders' configurations for the same job: keep-alive on both sides, no access log, one worker.

pub(crate) mod caddy;
pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod traefik;
