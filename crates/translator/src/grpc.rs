//! A gRPC client without a proxy: for every name of a service one listener, and the same routes and clusters as a sidecar's, as
//! far as gRPC knows them.
//!
//! gRPC rejects a cluster whose balancer it does not have, and leaves out localities without weight (gRFC A27, A42).

use serin_model::{MeshSnapshot, ProxyIdentity, Service};
use serin_resources::ApiListener;
use serin_resources::cluster::Balancer;
use serin_resources::connection_manager::RouteSource;
use serin_resources::http_filter::HttpFilter;
use serin_resources::route::{Action, RouteConfiguration};

use crate::cluster::refuse;
use crate::virtual_host::{self, Target};
use crate::{ResourceSet, naming, sidecar};

/// Makes clusters and endpoints such as gRPC takes them.
///
/// gRPC takes no certificates by file (gRFC A29): it gets no endpoints where TLS is wanted, not plain text.
pub(crate) fn adapt(set: &mut ResourceSet) {
    let secured: Vec<String> = set.clusters.extract_if(.., |c| c.tls.is_some()).map(|cluster| cluster.name).collect();
    set.endpoints.retain(|assignment| !secured.contains(&assignment.cluster));
    for name in secured {
        refuse(name, "TLS by files is not carried out for gRPC clients without a proxy".to_owned(), set);
    }
    for cluster in &mut set.clusters {
        cluster.reports_loads = true;
        cluster.balancer = match cluster.balancer {
            ring @ Balancer::RingHash { .. } => ring,
            Balancer::Maglev { .. } => Balancer::RingHash { least: 1024, most: 8_388_608, murmur: false },
            _ => Balancer::RoundRobin,
        };
    }
    for assignment in &mut set.endpoints {
        let all = assignment.endpoints.clone();
        for endpoint in &mut assignment.endpoints {
            let mates = all.iter().filter(|e| e.locality == endpoint.locality && e.priority == endpoint.priority);
            endpoint.locality_weight = Some(mates.map(|e| e.weight).sum());
        }
    }
}

/// Adds the targets of a service: for each of its ports a route configuration, and a listener for each name.
pub(crate) fn targets(mesh: &MeshSnapshot, client: &ProxyIdentity, service: &Service, set: &mut ResourceSet) {
    for port in service.ports.iter().filter(|p| p.protocol.is_http()) {
        let routes = naming::outbound(port.number, "", &service.host);
        let target = Target { service, port: port.number, any_port: false };
        // Whoever has this route configuration has asked for the service: its authority need not say so again.
        let mut host = virtual_host::service_host(mesh, client, target, vec!["*".to_owned()]);
        // gRPC knows the newer of Envoy's time limits alone (gRFC A31).
        for route in &mut host.routes {
            if let Action::Forward(forward) = &mut route.action {
                forward.grpc_timeout = None;
                forward.max_stream.limit = Some(forward.timeout).filter(|limit| !limit.is_zero());
            }
        }
        set.routes.push(RouteConfiguration {
            name: routes.clone(),
            virtual_hosts: vec![host],
            ..RouteConfiguration::default()
        });
        for alias in naming::aliases(&service.host, &client.name.namespace) {
            let mut manager = sidecar::manager(routes.clone(), RouteSource::Rds(routes.clone()));
            manager.filters = vec![HttpFilter::fault()];
            set.api_listeners.push(ApiListener { name: format!("{alias}:{}", port.number), manager });
        }
    }
}
