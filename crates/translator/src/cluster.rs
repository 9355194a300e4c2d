//! Clusters and endpoints: one cluster for each service port, and one more for each subset of it.

use std::net::SocketAddr;
use std::time::Duration;

use serin_model::{
    Guarded, HashTable, IngressListener, Labels, MeshSnapshot, Port, Protocol, ProxyIdentity, Resolution, Service,
    TrafficPolicy,
};
use serin_resources::cluster::{
    Balancer, Breakers, Cluster, Codec, Discovery, LookupFamily, Names, RetryBudget, SlowStart, UpstreamCodec,
};
use serin_resources::endpoint::{Endpoint, Health, LoadAssignment};
use serin_resources::outlier::{Compared, Consecutive, OutlierDetection};

use crate::{ResourceSet, naming, policy as translated, release, scope, tls};

/// Adds the clusters towards a service, with their endpoints.
pub(crate) fn outbound(mesh: &MeshSnapshot, proxy: &ProxyIdentity, service: &Service, set: &mut ResourceSet) {
    // A proxy reaches addresses of its own family (Istio: `dns_lookup_family` follows from the proxy's addresses).
    let family = if proxy.ip.is_ipv4() { LookupFamily::V4Only } else { LookupFamily::V6Only };
    let rules = scope::backend_policies(mesh, proxy, service);
    for port in service.ports.iter().filter(|p| p.protocol.is_http()) {
        let upstream = Upstream { mesh, service, port, family };
        let wide = rules.policy_of(port.number, None);
        upstream.push("", &Labels::new(), &wide, set);
        for subset in rules.subsets() {
            let narrow = rules.policy_of(port.number, Some(&subset.name));
            upstream.push(&subset.name, &subset.labels, &narrow, set);
        }
        for made in release::subsets(mesh, proxy, service) {
            let policy = rules.policy_of(port.number, made.like.as_deref());
            upstream.push(&made.name, &made.labels, &policy, set);
        }
    }
}

/// One port of a service.
struct Upstream<'a> {
    mesh: &'a MeshSnapshot,
    service: &'a Service,
    port: &'a Port,
    /// Which addresses of names the proxy reaches.
    family: LookupFamily,
}

impl Upstream<'_> {
    /// Adds the cluster of a subset; the empty name is all of it.
    fn push(&self, subset: &str, labels: &Labels, policy: &TrafficPolicy, set: &mut ResourceSet) {
        let Self { mesh, service, port, .. } = self;
        let name = naming::outbound(port.number, subset, &service.host);
        let found: Vec<(&serin_model::Endpoint, u16)> = mesh.endpoints(&service.host, port, labels).collect();
        let open = |(endpoint, number): &&(&serin_model::Endpoint, u16)| self.closed_by(endpoint, *number).is_none();
        let endpoints: Vec<Endpoint> = found
            .iter()
            .filter(open)
            .map(|(endpoint, number)| Endpoint {
                weight: endpoint.weight,
                locality: endpoint.locality.clone(),
                workload: workload(&service.namespace, &endpoint.labels),
                health: if endpoint.ready { Health::Unknown } else { Health::Unhealthy },
                ..Endpoint::new(endpoint.address.clone(), *number)
            })
            .collect();
        // Where every instance is closed it is said which policy does so.
        let closed = found.iter().find_map(|(e, n)| self.closed_by(e, *n)).filter(|_| endpoints.is_empty());
        let named = mesh.closes_service(&service.host);
        let policy_says = mesh.not_carried_out(policy).map(str::to_owned);
        if let Some(reason) = policy_says.or(named).or(closed) {
            refuse(name, reason, set);
            return;
        }
        let assignment = LoadAssignment { cluster: name.clone(), endpoints, ..LoadAssignment::default() };
        let discovery = match service.resolution {
            Resolution::Static => Discovery::Eds(name.clone()),
            Resolution::Dns => Discovery::Dns(Names { family: self.family, ..Names::new(assignment.clone()) }),
        };
        if service.resolution == Resolution::Static {
            set.endpoints.push(assignment);
        }
        let mut cluster = Cluster::new(name, discovery);
        apply(policy, port.protocol, &service.certificate_names, &mut cluster);
        set.clusters.push(cluster);
    }

    /// The policy that closes an instance, if one does.
    fn closed_by(&self, endpoint: &serin_model::Endpoint, port: u16) -> Option<String> {
        if self.service.external {
            return None;
        }
        let (namespace, labels) = (self.service.namespace.as_str(), &endpoint.labels);
        let (is_partly_known, root) = (endpoint.is_partly_known, self.mesh.root_namespace());
        let guarded = Guarded { namespace, labels, port: Some(port), is_gateway: false, is_partly_known, root };
        self.mesh.closed_by(&guarded).map(ToString::to_string)
    }
}

/// Adds a cluster without endpoints, because of a policy that is not carried out.
pub(crate) fn refuse(name: String, reason: String, set: &mut ResourceSet) {
    set.endpoints.push(LoadAssignment { cluster: name.clone(), ..LoadAssignment::default() });
    let mut cluster = Cluster::new(name.clone(), Discovery::Eds(name));
    // Nobody is there, and none may be chosen all the same.
    cluster.panic_threshold = 0;
    cluster.refused = Some(reason);
    set.clusters.push(cluster);
}

/// Who an endpoint is, for metrics, by Istio's canonical name and revision; an instance has no name of its own here.
fn workload(namespace: &str, labels: &Labels) -> String {
    let first = |keys: [&str; 3]| keys.into_iter().find_map(|key| labels.get(key)).map_or("", String::as_str);
    let app = first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let version = first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    if app.is_empty() && version.is_empty() {
        return String::new();
    }
    format!(";{namespace};{app};{version};")
}

/// Applies a policy; the names are those of servers' certificates where the policy has none.
fn apply(policy: &TrafficPolicy, protocol: Protocol, names: &[String], cluster: &mut Cluster) {
    cluster.connect_timeout = Duration::from_secs(10);
    cluster.panic_threshold = 0;
    cluster.codec = UpstreamCodec::Fixed(match protocol {
        Protocol::Http2 | Protocol::Grpc => Codec::Http2,
        Protocol::Http | Protocol::Tcp => Codec::Http1,
    });
    cluster.balancer = match &policy.balancer {
        None | Some(serin_model::Balancer::LeastRequest) => Balancer::LeastRequest { choices: 2, bias: 1000 },
        Some(serin_model::Balancer::RoundRobin) => Balancer::RoundRobin,
        Some(serin_model::Balancer::Random) => Balancer::Random,
        Some(serin_model::Balancer::Hash(hash)) => match hash.table {
            HashTable::Ring(least) => Balancer::RingHash { least, most: 8_388_608, murmur: false },
            HashTable::Maglev(size) => Balancer::Maglev { size },
        },
    };
    if let Some(serin_model::Tls::On(tls)) = &policy.tls {
        tls::apply(tls, names, cluster);
    }
    cluster.hash = translated::hash(policy).into_iter().collect();
    if let Some(pool) = &policy.connection_pool {
        cluster.connect_timeout = pool.connect_timeout.unwrap_or(cluster.connect_timeout);
        cluster.idle_timeout = pool.idle_timeout.unwrap_or(cluster.idle_timeout);
        cluster.max_requests_per_connection = pool.max_requests_per_connection;
        let breakers = Breakers {
            connections: pool.max_connections,
            pending: pool.max_pending,
            requests: pool.max_requests,
            retries: pool.max_retries,
            budget: None,
        };
        cluster.breakers = [breakers, Breakers::default()];
    }
    if let Some(budget) = policy.retry_budget {
        let [normal, _] = &mut cluster.breakers;
        normal.budget = Some(RetryBudget { share: budget.percent * 10_000, least: budget.least });
    }
    cluster.slow_start = policy.warmup.map(|w| SlowStart {
        window: w.duration,
        aggression: w.aggression,
        least_percent: w.least_percent,
    });
    if let Some(outlier) = &policy.outlier_detection {
        cluster.panic_threshold = u8::try_from(outlier.min_health_percent).unwrap_or(100);
        cluster.outlier = Some(ejection(outlier));
    }
}

/// Istio's rule in Envoy's terms: what is counted is enforced, success rates are not compared.
fn ejection(rule: &serin_model::OutlierDetection) -> OutlierDetection {
    let defaults = OutlierDetection::default();
    let counted = |failures: Option<u32>, default: Consecutive| match failures {
        None => default,
        Some(0) => Consecutive { failures: default.failures, enforced: 0 },
        Some(failures) => Consecutive { failures, enforced: 100 },
    };
    OutlierDetection {
        server_errors: counted(rule.server_errors, defaults.server_errors),
        gateway_failures: counted(rule.gateway_errors, defaults.gateway_failures),
        local_failures: counted(rule.local_failures, defaults.local_failures),
        success_rate: Compared { enforced: 0, ..defaults.success_rate },
        split_local: rule.split_local,
        interval: rule.interval.unwrap_or(defaults.interval),
        base_ejection_time: rule.base_ejection_time.unwrap_or(defaults.base_ejection_time),
        max_ejection_percent: rule.max_ejection_percent.unwrap_or(defaults.max_ejection_percent),
        ..defaults
    }
}

/// The cluster towards the application beside the proxy.
pub(crate) fn inbound(service: String, listener: &IngressListener) -> Cluster {
    let name = naming::inbound(listener.port);
    let application: SocketAddr = listener.application;
    let endpoint = Endpoint::new(application.ip().to_string(), application.port());
    let assignment = LoadAssignment { cluster: name.clone(), endpoints: vec![endpoint], ..LoadAssignment::default() };
    let mut cluster = Cluster::new(name, Discovery::Static(assignment));
    cluster.service = service;
    apply(&TrafficPolicy::default(), listener.protocol, &[], &mut cluster);
    cluster
}
