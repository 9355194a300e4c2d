//! The identity of this proxy and the source of its configuration: an Envoy bootstrap file, or the command line.
//!
//! A file is read as the JSON form of `envoy.config.bootstrap.v3.Bootstrap` (in YAML or JSON), exactly as Envoy
//! reads it: unknown fields are errors. The descriptors for that are only unpacked when a file is read or dumped.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serin_resources::bootstrap::{Ads, Bootstrap};
use serin_resources::{Audit, Runtime};

use crate::options::{ProxyOptions, XdsMode};

/// Descriptors of the messages that can appear in bootstraps and resources; made by `cargo xtask descriptors`.
const DESCRIPTORS: &[u8] = include_bytes!("../descriptors.bin");

/// Unpacks the descriptors.
pub(crate) fn descriptors() -> anyhow::Result<DescriptorPool> {
    DescriptorPool::decode(DESCRIPTORS).context("the built-in descriptors are damaged")
}

/// The bootstrap that the options ask for.
pub(crate) fn load(options: &ProxyOptions) -> anyhow::Result<Bootstrap> {
    match &options.bootstrap {
        // The descriptors take megabytes for a moment. What a thread freed goes back to the system when the thread ends.
        Some(file) => std::thread::scope(|scope| scope.spawn(|| read(file)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        None => Ok(from_options(options)),
    }
}

fn read(file: &Path) -> anyhow::Result<Bootstrap> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pool = descriptors()?;
    let Some(descriptor) = pool.get_message_by_name("envoy.config.bootstrap.v3.Bootstrap") else {
        bail!("the built-in descriptors lack the bootstrap");
    };
    // The file is the operator's own: however many routes it has, it is read.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 50_000_000, max_events: 100_000_000 },
    };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(&text, options, |de| {
        DynamicMessage::deserialize(descriptor.clone(), de)
    });
    let message = parsed.with_context(|| format!("{}: not an Envoy bootstrap", file.display()))?;
    let mut audit = Audit::default();
    let bootstrap = Bootstrap::decode(&message.encode_to_vec(), &mut audit)
        .with_context(|| format!("{}: cannot be run", file.display()))?;
    for field in &audit.ignored {
        tracing::warn!("{}: {field} is set and has no effect", file.display());
    }
    Ok(bootstrap)
}

fn from_options(options: &ProxyOptions) -> Bootstrap {
    let text = |s: &str| Value { kind: Some(Kind::StringValue(s.to_owned())) };
    let workload = options.workload.clone().unwrap_or_default();
    let role = if options.gateway { "router" } else { "sidecar" };
    let namespace = &options.namespace;
    let labels = options.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let metadata = [
        ("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(Struct { fields: labels })) }),
        ("NAMESPACE".to_owned(), text(namespace)),
        ("WORKLOAD_NAME".to_owned(), text(&workload)),
    ];
    let app = options.labels.iter().find(|(key, _)| key == "app").map_or(workload.as_str(), |(_, value)| value);
    let node = core::Node {
        id: format!("{role}~{}~{workload}.{namespace}~{namespace}.svc.cluster.local", options.ip),
        cluster: format!("{app}.{namespace}"),
        metadata: Some(Struct { fields: metadata.into() }),
        user_agent_name: "serin".to_owned(),
        ..Default::default()
    };
    Bootstrap {
        node: node.encode_to_vec(),
        node_id: node.id,
        node_cluster: node.cluster,
        clusters: Vec::new(),
        listeners: Vec::new(),
        secrets: Vec::new(),
        ads: Some(Ads { delta: options.xds_mode == XdsMode::Delta, servers: options.xds.clone() }),
        admin: None,
        loads: options.xds.clone(),
        secured: BTreeMap::new(),
        runtime: Runtime::default(),
        local_cluster: String::new(),
        locality: String::new(),
    }
}
