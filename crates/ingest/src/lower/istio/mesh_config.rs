//! MeshConfig: the YAML text under `mesh` in the ConfigMap `istio` of the root namespace.
//!
//! Source: Istio's reference page "Global Mesh Options".

use serin_model::{MeshConfig, Object};

use super::retries::read_retries;
use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};
use crate::node;

/// Reads the `data` of the ConfigMap.
pub(crate) fn read(data: &Cursor<'_>) -> Option<Object> {
    let object = data.object()?;
    object.no_effect_yet(&["meshNetworks"]);
    let mesh = object.required("mesh")?;
    let text = mesh.text()?;
    // The text of a block begins on the line after its key.
    let line = mesh.at().line;
    match node::parse_stream(&text) {
        Ok(documents) => {
            let mut config = MeshConfig::default();
            // Istio reads the first document, and no more.
            if let Some(mut document) = documents.into_iter().next() {
                document.shift(line);
                config = settings(&Cursor::nested(mesh.context, &document, mesh.path())).unwrap_or(config);
            }
            Some(Object::MeshConfig(Box::new(config)))
        }
        Err(error) => {
            mesh.report(Code::Syntax, Severity::Error, format!("this is no YAML: {}", error.message), "");
            None
        }
    }
}

fn settings(cursor: &Cursor<'_>) -> Option<MeshConfig> {
    if cursor.is_null() {
        return None;
    }
    let object = cursor.object()?;
    object.no_effect_yet(&OTHERS);
    let retries = object.get("defaultHttpRetryPolicy").and_then(|policy| {
        if let Some(timeout) = policy.peek("perTryTimeout") {
            timeout.invalid("the mesh's default has no perTryTimeout", "say it in the retries of a VirtualService");
        }
        read_retries(&policy)
    });
    let root_namespace = object.get("rootNamespace").and_then(|name| name.text());
    object.rest_is_ignored();
    Some(MeshConfig { default_retries: retries, root_namespace })
}

/// Fields that are not carried out.
const OTHERS: [&str; 53] = [
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "connectTimeout",
    "tcpKeepalive",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "defaultConfig",
    "outboundTrafficPolicy",
    "inboundTrafficPolicy",
    "configSources",
    "enableAutoMtls",
    "trustDomain",
    "trustDomainAliases",
    "caCertificates",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "defaultDestinationRuleExportTo",
    "defaultTrafficPolicy",
    "localityLbSetting",
    "dnsRefreshRate",
    "h2UpgradePolicy",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "enablePrometheusMerge",
    "verifyCertificateAtClient",
    "ca",
    "extensionProviders",
    "defaultProviders",
    "discoverySelectors",
    "pathNormalization",
    "defaultInboundHttpRetryPolicy",
    "meshMTLS",
    "tlsDefaults",
    "serviceSettings",
    "serviceScopeConfigs",
    "mixerCheckServer",
    "mixerReportServer",
    "policyCheckFailOpen",
    "protocolDetectionTimeout",
    "certificates",
    "thriftConfig",
    "hboneIdleTimeout",
    "gatewayClassDefaults",
    "multicluster",
];
