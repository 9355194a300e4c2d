//! Envoy's bootstrap: who the proxy is, what it runs by itself, and where the rest comes from.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message as _;

use crate::cluster::{Cluster, Discovery, Names};
use crate::convert;
use crate::endpoint::Endpoint;
use crate::listener::Listener;
use crate::tls::{Secret, UpstreamTls};
use crate::{Audit, Error, Path, Runtime, RuntimeValue};

/// A decoded bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The node message as bytes, for the discovery protocol.
    pub node: Vec<u8>,
    /// The node's id.
    pub node_id: String,
    /// The node's cluster.
    pub node_cluster: String,
    /// Clusters that need no control plane.
    pub clusters: Vec<Fixed<Cluster>>,
    /// Listeners that need no control plane.
    pub listeners: Vec<Fixed<Listener>>,
    /// Secrets that need no control plane.
    pub secrets: Vec<Fixed<Secret>>,
    /// The aggregated stream, when there is one.
    pub ads: Option<Ads>,
    /// The address of the admin interface.
    pub admin: Option<SocketAddr>,
    /// `host:port` of the servers that loads are reported to; empty when they are not.
    pub loads: Vec<String>,
    /// The TLS of servers of `ads` and `loads`, by `host:port`; those that are not here are spoken to in plain text.
    pub secured: BTreeMap<String, UpstreamTls>,
    /// The cluster of proxies like this one, for zone awareness; may be empty.
    pub local_cluster: String,
    /// Values that stand in its runtime layers, later layers first.
    pub runtime: Runtime,
    /// The node's locality: region, zone and sub-zone joined by slashes; empty when unknown.
    pub locality: String,
}

/// A resource of the bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixed<T> {
    /// The resource.
    pub value: T,
    /// The resource as it stands in the bootstrap, with all its fields.
    pub body: Vec<u8>,
    /// Paths of fields that are set and have no effect.
    pub ignored: Vec<String>,
}

/// The server of the aggregated discovery stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ads {
    /// True when the incremental protocol is spoken.
    pub delta: bool,
    /// `host:port` of the servers, in order of preference.
    pub servers: Vec<String>,
}

impl Bootstrap {
    /// Decodes the bytes of an `envoy.config.bootstrap.v3.Bootstrap`.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    #[expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("Bootstrap");
        let value = pb::Bootstrap::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        audit!(&value, pb::Bootstrap as pb::Bootstrap, audit, &path;
            supported: node, static_resources, dynamic_resources, admin, cluster_manager, layered_runtime;
            ignored: node_context_params, flags_path, stats_sinks, deferred_stat_options, stats_config,
                stats_flush_interval, watchdog, watchdogs, tracing, enable_dispatcher_stats,
                stats_server_version_override, use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config,
                fatal_actions, default_regex_engine, xds_config_tracker_extension, listener_manager,
                application_log_config, grpc_async_client_manager_config, memory_allocator_manager,
                enable_worker_cpu_affinity, stats_flush, stats_eviction, perf_tracing_file_path, inline_headers,
                bootstrap_extensions;
            refused: hds_config, overload_manager, header_prefix, config_sources, default_config_source,
                default_socket_interface, certificate_provider_instances, xds_delegate_extension);
        audit.runtime = runtime(value.layered_runtime.as_ref(), &path.field("layered_runtime"))?;
        let resources = value.static_resources.clone().unwrap_or_default();
        let static_path = path.field("static_resources");
        let mut clusters = Vec::new();
        for (i, cluster) in resources.clusters.iter().enumerate() {
            let before = audit.ignored.len();
            let value = Cluster::from_proto(cluster, audit, &static_path.field("clusters").index(i))?;
            clusters.push(fixed(value, cluster, audit, before));
        }
        let mut listeners = Vec::new();
        for (i, listener) in resources.listeners.iter().enumerate() {
            let before = audit.ignored.len();
            let value = Listener::from_proto(listener, audit, &static_path.field("listeners").index(i))?;
            listeners.push(fixed(value, listener, audit, before));
        }
        let of_secrets = static_path.field("secrets");
        let mut secrets = Vec::new();
        for (i, secret) in resources.secrets.iter().enumerate() {
            let before = audit.ignored.len();
            let value = Secret::from_proto(secret, audit, &of_secrets.index(i))?;
            if secrets.iter().any(|before: &Fixed<Secret>| before.value.name == value.name) {
                return Err(of_secrets.index(i).field("name").error("is that of another secret"));
            }
            secrets.push(fixed(value, secret, audit, before));
        }
        if let Some(admin) = &value.admin {
            audit!(admin, pb::Admin as pb::Admin, audit, &path.field("admin");
                supported: address;
                ignored: access_log, access_log_path, profile_path, socket_options, ignore_global_conn_limit;
                refused: allow_paths);
        }
        let manager = value.cluster_manager.clone().unwrap_or_default();
        let manager_path = path.field("cluster_manager");
        audit!(&manager, pb::ClusterManager as pb::ClusterManager, audit, &manager_path;
            supported: local_cluster_name, load_stats_config;
            ignored: outlier_detection, enable_deferred_cluster_creation;
            refused: upstream_bind_config);
        let loads = match &manager.load_stats_config {
            Some(config) => grpc_servers(config, &clusters, &manager_path.field("load_stats_config"))?.servers,
            None => Vec::new(),
        };
        let ads = ads(value.dynamic_resources.as_ref(), &clusters, &path.field("dynamic_resources"))?;
        let of_ads = ads.iter().flat_map(|ads| &ads.servers);
        let secured = of_ads.chain(&loads).filter_map(|server| Some((server.address.clone(), server.tls.clone()?)));
        let secured = secured.collect();
        let addresses = |servers: Vec<GrpcServer>| servers.into_iter().map(|server| server.address).collect();
        let node = value.node.clone().unwrap_or_default();
        Ok(Self {
            loads: addresses(loads),
            secured,
            runtime: audit.runtime.clone(),
            local_cluster: manager.local_cluster_name,
            locality: node.locality.as_ref().map(convert::locality).unwrap_or_default(),
            node: node.encode_to_vec(),
            node_id: node.id,
            node_cluster: value.node.as_ref().map(|n| n.cluster.clone()).unwrap_or_default(),
            ads: ads.map(|GrpcServers { delta, servers }| Ads { delta, servers: addresses(servers) }),
            admin: match value.admin.as_ref().and_then(|a| a.address.as_ref()) {
                Some(address) => Some(convert::socket_address(Some(address), &path.field("admin").field("address"))?),
                None => None,
            },
            clusters,
            listeners,
            secrets,
        })
    }
}

fn fixed<T>(value: T, body: &impl prost::Message, audit: &Audit, before: usize) -> Fixed<T> {
    let ignored = audit.ignored.get(before..).unwrap_or_default().to_vec();
    Fixed { value, body: body.encode_to_vec(), ignored }
}

/// The values of static layers. A layer for the admin page stays empty, because there is none; layers from elsewhere would change
/// what is decided here.
fn runtime(value: Option<&pb::LayeredRuntime>, path: &Path<'_>) -> Result<Runtime, Error> {
    use envoy_types::pb::google::protobuf::{Struct, value::Kind};
    use pb::runtime_layer::LayerSpecifier as L;
    fn put(prefix: &str, fields: &Struct, found: &mut BTreeMap<String, RuntimeValue>) {
        let number = |fields: &Struct, key: &str| match fields.fields.get(key).and_then(|v| v.kind.as_ref()) {
            Some(Kind::NumberValue(number)) => Some(*number),
            _ => None,
        };
        for (key, value) in &fields.fields {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match &value.kind {
                Some(Kind::NumberValue(number)) => _ = found.insert(name, RuntimeValue::Number(*number)),
                Some(Kind::BoolValue(on)) => _ = found.insert(name, RuntimeValue::Flag(*on)),
                Some(Kind::StructValue(inner)) => match number(inner, "numerator") {
                    Some(numerator) => {
                        let scale = match inner.fields.get("denominator").and_then(|v| v.kind.as_ref()) {
                            Some(Kind::StringValue(d)) if d == "TEN_THOUSAND" => 100.0,
                            Some(Kind::StringValue(d)) if d == "MILLION" => 1.0,
                            _ => 10_000.0,
                        };
                        let parts = (numerator * scale).clamp(0.0, 1_000_000.0) as u32;
                        found.insert(name, RuntimeValue::Share(parts));
                    }
                    None => put(&name, inner, found),
                },
                _ => {}
            }
        }
    }
    let mut found = BTreeMap::new();
    let layers = value.map(|v| v.layers.as_slice()).unwrap_or_default();
    for (i, layer) in layers.iter().enumerate() {
        match &layer.layer_specifier {
            Some(L::StaticLayer(fields)) => put("", fields, &mut found),
            Some(L::AdminLayer(_)) | None => {}
            Some(L::DiskLayer(_)) => return Err(Audit::refuse(&path.field("layers").index(i), "disk_layer")),
            Some(L::RtdsLayer(_)) => return Err(Audit::refuse(&path.field("layers").index(i), "rtds_layer")),
        }
    }
    Ok(found.into())
}

fn ads(
    value: Option<&pb::bootstrap::DynamicResources>,
    clusters: &[Fixed<Cluster>],
    path: &Path<'_>,
) -> Result<Option<GrpcServers>, Error> {
    let Some(value) = value else { return Ok(None) };
    for (field, source) in [("lds_config", &value.lds_config), ("cds_config", &value.cds_config)] {
        if source.is_some() {
            convert::require_ads(source.as_ref(), &path.field(field))?;
        }
    }
    for (field, locator) in [
        ("lds_resources_locator", &value.lds_resources_locator),
        ("cds_resources_locator", &value.cds_resources_locator),
    ] {
        if !locator.is_empty() {
            return Err(Audit::refuse(path, field));
        }
    }
    let Some(config) = &value.ads_config else { return Ok(None) };
    grpc_servers(config, clusters, &path.field("ads_config")).map(Some)
}

/// The servers of a service that is spoken to over gRPC.
struct GrpcServers {
    /// True when the incremental protocol is spoken.
    delta: bool,
    servers: Vec<GrpcServer>,
}

/// One of them.
struct GrpcServer {
    /// `host:port`
    address: String,
    /// Its TLS; `None` is plain text.
    tls: Option<UpstreamTls>,
}

fn grpc_servers(
    config: &core::ApiConfigSource,
    clusters: &[Fixed<Cluster>],
    path: &Path<'_>,
) -> Result<GrpcServers, Error> {
    let delta = match core::api_config_source::ApiType::try_from(config.api_type) {
        Ok(core::api_config_source::ApiType::Grpc) => false,
        Ok(core::api_config_source::ApiType::DeltaGrpc) => true,
        _ => return Err(path.field("api_type").error("only GRPC and DELTA_GRPC are supported")),
    };
    let services_path = path.field("grpc_services");
    let mut servers = Vec::new();
    for (i, service) in config.grpc_services.iter().enumerate() {
        servers.extend(service_addresses(service, clusters, &services_path.index(i))?);
    }
    if servers.is_empty() {
        return Err(services_path.error("names no server"));
    }
    Ok(GrpcServers { delta, servers })
}

fn service_addresses(
    service: &core::GrpcService,
    clusters: &[Fixed<Cluster>],
    path: &Path<'_>,
) -> Result<Vec<GrpcServer>, Error> {
    use core::grpc_service::TargetSpecifier as T;
    match &service.target_specifier {
        Some(T::GoogleGrpc(google)) => {
            if google.channel_credentials.is_some() || !google.call_credentials.is_empty() {
                return Err(path
                    .field("google_grpc")
                    .error("credentials are not supported; use envoy_grpc and a cluster with TLS"));
            }
            Ok(vec![GrpcServer { address: google.target_uri.trim_start_matches("dns:///").to_owned(), tls: None }])
        }
        Some(T::EnvoyGrpc(envoy)) => {
            let cluster = clusters.iter().find(|c| c.value.name == envoy.cluster_name);
            let wrong = |message: String| path.field("envoy_grpc").field("cluster_name").error(message);
            let Some(cluster) = cluster.map(|c| &c.value) else {
                return Err(wrong(format!("'{}' is not a cluster of static_resources", envoy.cluster_name)));
            };
            if !cluster.tls_matches.is_empty() {
                let message = format!("'{}' has transport_socket_matches, which are not supported here", cluster.name);
                return Err(wrong(message));
            }
            match &cluster.discovery {
                Discovery::Static(a) | Discovery::Dns(Names { assignment: a, .. }) => {
                    Ok(a.endpoints.iter().map(|endpoint| grpc_server(endpoint, cluster)).collect())
                }
                Discovery::Eds(_) => Err(wrong(format!("'{}' is not a static or DNS cluster", cluster.name))),
            }
        }
        None => Err(path.error("needs envoy_grpc or google_grpc")),
    }
}

fn grpc_server(endpoint: &Endpoint, cluster: &Cluster) -> GrpcServer {
    let tls = cluster.tls.clone().map(|tls| match tls.names_host && !endpoint.hostname.is_empty() {
        true => UpstreamTls { server_name: endpoint.hostname.clone(), ..tls },
        false => tls,
    });
    GrpcServer { address: format!("{}:{}", bracket(&endpoint.host), endpoint.port), tls }
}

fn bracket(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
