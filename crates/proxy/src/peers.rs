//! The labels of Istio's standard metrics: who sent a request to whom.
//!
//! The caller's proxy (`reporter="source"`) knows the endpoint from its metadata and the service from the cluster's name;
//! the proxy beside the application (`reporter="destination"`) knows itself, and not who called.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::{Struct, value::Kind};
use prost::Message as _;
use serin_telemetry::istio::Labels;

/// One side of a request; what is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    workload: String,
    namespace: String,
    app: String,
    version: String,
    cluster: String,
}

impl Peer {
    /// From the bytes of a node, with the metadata that Istio gives its proxies.
    pub(crate) fn of_node(node: &[u8]) -> Self {
        let metadata = core::Node::decode(node).ok().and_then(|node| node.metadata).unwrap_or_default();
        let labels = match metadata.fields.get("LABELS").and_then(|v| v.kind.as_ref()) {
            Some(Kind::StructValue(labels)) => labels.clone(),
            _ => Struct::default(),
        };
        let first = |keys: [&str; 3]| keys.into_iter().map(|key| text(&labels, key)).find(|v| !v.is_empty());
        Self {
            workload: text(&metadata, "WORKLOAD_NAME"),
            namespace: text(&metadata, "NAMESPACE"),
            app: first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]).unwrap_or_default(),
            version: first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
                .unwrap_or_default(),
            cluster: text(&metadata, "CLUSTER_ID"),
        }
    }

    /// From `workload;namespace;app;version;cluster`.
    fn of_endpoint(workload: &str) -> Self {
        let mut parts = workload.split(';').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { workload: next(), namespace: next(), app: next(), version: next(), cluster: next() }
    }

    /// As the labels of one side.
    fn labels(&self, names: [&'static str; 8], out: &mut Labels) {
        let Self { workload, namespace, app, version, cluster } = self;
        let values = [workload, namespace, app, version, app, version, cluster, ""].map(str::to_owned);
        out.extend(names.into_iter().zip(values));
    }
}

fn text(fields: &Struct, key: &str) -> String {
    match fields.fields.get(key).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// The labels of requests from this proxy to an endpoint of a cluster; `None` when Istio would not know the cluster.
pub(crate) fn labels(own: &Peer, cluster: &str, service: &str, workload: &str) -> Option<Labels> {
    let mut parts = cluster.split('|');
    let (direction, _port, _subset) = (parts.next()?, parts.next()?, parts.next()?);
    let named = parts.next()?;
    let service = if service.is_empty() { named } else { service };
    let (reporter, source, destination) = match direction {
        "outbound" => ("source", own.clone(), Peer::of_endpoint(workload)),
        "inbound" => ("destination", Peer::default(), own.clone()),
        _ => return None,
    };
    let mut names = service.split('.');
    let (name, namespace) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let is_kubernetes = names.next() == Some("svc");
    let (name, namespace) = if is_kubernetes { (name, namespace) } else { (service, destination.namespace.as_str()) };
    let mut labels = vec![("reporter", reporter.to_owned())];
    source.labels(
        [
            "source_workload",
            "source_workload_namespace",
            "source_app",
            "source_version",
            "source_canonical_service",
            "source_canonical_revision",
            "source_cluster",
            "source_principal",
        ],
        &mut labels,
    );
    destination.labels(
        [
            "destination_workload",
            "destination_workload_namespace",
            "destination_app",
            "destination_version",
            "destination_canonical_service",
            "destination_canonical_revision",
            "destination_cluster",
            "destination_principal",
        ],
        &mut labels,
    );
    labels.push(("destination_service", service.to_owned()));
    labels.push(("destination_service_name", name.to_owned()));
    labels.push(("destination_service_namespace", namespace.to_owned()));
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(labels: &Labels, name: &str) -> String {
        labels.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()).unwrap()
    }

    #[test]
    fn a_caller_names_the_endpoint_and_its_service() {
        let own = Peer { workload: "page-v1".to_owned(), namespace: "shop".to_owned(), ..Peer::default() };
        let cluster = "outbound|9080|v3|reviews.default.svc.cluster.local";
        let labels = labels(&own, cluster, "", "reviews-v3;default;reviews;v3;").unwrap();
        for (name, expected) in [
            ("reporter", "source"),
            ("source_workload", "page-v1"),
            ("source_workload_namespace", "shop"),
            ("destination_workload", "reviews-v3"),
            ("destination_version", "v3"),
            ("destination_canonical_service", "reviews"),
            ("destination_service", "reviews.default.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "default"),
        ] {
            assert_eq!(value(&labels, name), expected, "{name}");
        }
    }

    #[test]
    fn a_proxy_beside_its_application_names_itself() {
        let own = Peer { workload: "reviews-v3".to_owned(), version: "v3".to_owned(), ..Peer::default() };
        let found = labels(&own, "inbound|9080||", "reviews.shop.svc.cluster.local", "").unwrap();
        assert_eq!(value(&found, "reporter"), "destination");
        assert_eq!(value(&found, "destination_workload"), "reviews-v3");
        assert_eq!(value(&found, "source_workload"), "");
        assert_eq!(value(&found, "destination_service_name"), "reviews");
        assert_eq!(labels(&own, "some cluster", "", ""), None);
    }
}
