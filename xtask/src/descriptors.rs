//! Cuts the descriptors of what a bootstrap or resource can hold out of the set that ships with envoy-types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Files whose messages can be named in `Any` fields that the proxy reads or shows.
const ROOTS: [&str; 46] = [
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/filters/http/csrf/v3/csrf.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/compressor/v3/compressor.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/adaptive_concurrency/v3/adaptive_concurrency.proto",
    "envoy/extensions/filters/http/admission_control/v3/admission_control.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/compression/gzip/compressor/v3/gzip.proto",
    "envoy/extensions/compression/brotli/compressor/v3/brotli.proto",
    "envoy/extensions/compression/zstd/compressor/v3/zstd.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/subset/v3/subset.proto",
    "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto",
    "envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto",
    "envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided.proto",
    "envoy/extensions/load_balancing_policies/pick_first/v3/pick_first.proto",
    "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.proto",
    "envoy/extensions/internal_redirect/previous_routes/v3/previous_routes_config.proto",
    "envoy/extensions/internal_redirect/safe_cross_scheme/v3/safe_cross_scheme_config.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/http/original_ip_detection/custom_header/v3/custom_header.proto",
    "envoy/extensions/http/original_ip_detection/xff/v3/xff.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.proto",
];

/// Rebuilds the file.
pub(crate) fn run() -> anyhow::Result<()> {
    let bytes = std::fs::read(source()?).context("cannot read the descriptor set of envoy-types")?;
    let all = FileDescriptorSet::decode(bytes.as_slice())?;
    let by_name: BTreeMap<&str, &FileDescriptorProto> = all.file.iter().map(|f| (f.name(), f)).collect();
    let mut wanted = BTreeSet::new();
    let mut queue: Vec<&str> = ROOTS.to_vec();
    while let Some(name) = queue.pop() {
        let file = by_name.get(name).with_context(|| format!("{name} is not in the set"))?;
        if wanted.insert(name) {
            queue.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let known = all.file.iter().filter(|f| wanted.contains(f.name())).cloned().map(strip);
    let file = known.chain([peak_ewma()]).collect();
    let out = FileDescriptorSet { file }.encode_to_vec();
    ensure!(out.len() < 2 << 20, "the cut set has {} bytes", out.len());
    std::fs::write("crates/proxy/descriptors.bin", &out)?;
    eprintln!("crates/proxy/descriptors.bin: {} files, {} bytes", wanted.len(), out.len());
    Ok(())
}

/// Envoy's contributed policy of that name, which envoy-types leaves out; the field that Serin reads.
fn peak_ewma() -> FileDescriptorProto {
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FieldDescriptorProto};
    let decay = FieldDescriptorProto {
        name: Some("decay_time".to_owned()),
        json_name: Some("decayTime".to_owned()),
        number: Some(1),
        label: Some(Label::Optional as i32),
        r#type: Some(Type::Message as i32),
        type_name: Some(".google.protobuf.Duration".to_owned()),
        ..Default::default()
    };
    FileDescriptorProto {
        name: Some("envoy/extensions/load_balancing_policies/peak_ewma/v3alpha/peak_ewma.proto".to_owned()),
        package: Some("envoy.extensions.load_balancing_policies.peak_ewma.v3alpha".to_owned()),
        dependency: vec!["google/protobuf/duration.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("PeakEwma".to_owned()),
            field: vec![decay],
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn strip(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.source_code_info = None;
    file
}

fn source() -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo").args(["metadata", "--format-version", "1", "--locked"]).output()?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|p| p["name"] == "envoy-types").context("envoy-types is not a dependency")?;
    let manifest = package["manifest_path"].as_str().context("no manifest path")?;
    Ok(PathBuf::from(manifest).with_file_name("src/generated/types.bin"))
}
