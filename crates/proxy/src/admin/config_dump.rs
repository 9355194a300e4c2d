//! `/config_dump`: every resource in the form in which it was received, as protobuf JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use serin_resources::connection_manager::RouteSource;
use serin_resources::{Listener, RouteConfiguration, type_url};

use super::pages::as_json;
use super::{Admin, Parameters};
use crate::bootstrap::descriptors;
use crate::discovery::{Held, Store};

pub(super) async fn page(Extract(admin): Extract<Admin>, Query(parameters): Parameters) -> Response {
    let pool = match descriptors() {
        Ok(pool) => pool,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let store = admin.lock();
    let mut configs = vec![clusters(&store, &pool), listeners(&store, &pool), routes(&store, &pool)];
    if parameters.contains_key("include_eds") {
        configs.push(endpoints(&store, &pool));
    }
    if let Some(resource) = parameters.get("resource") {
        configs =
            configs.iter().filter_map(|c| c.get(resource)).filter_map(Value::as_array).flatten().cloned().collect();
    }
    as_json(&json!({ "configs": configs }))
}

fn clusters(store: &Store, pool: &DescriptorPool) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "static_clusters": entries(&store.clusters, true, |h| dump("cluster", h, type_url::CLUSTER, pool)),
        "dynamic_active_clusters": entries(&store.clusters, false, |h| dump("cluster", h, type_url::CLUSTER, pool)),
    })
}

fn listeners(store: &Store, pool: &DescriptorPool) -> Value {
    let dynamic = |held: &Held<_>| {
        let held: &Held<Arc<Listener>> = held;
        json!({"name": held.value.name, "active_state": dump("listener", held, type_url::LISTENER, pool)})
    };
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "static_listeners": entries(&store.listeners, true, |h| dump("listener", h, type_url::LISTENER, pool)),
        "dynamic_listeners": entries(&store.listeners, false, dynamic),
    })
}

fn routes(store: &Store, pool: &DescriptorPool) -> Value {
    let inline: Vec<Value> = store.listeners.values().flat_map(|held| inline_routes(held, pool)).collect();
    let whole = |held: &Held<RouteConfiguration>| {
        dump_body("route_config", held, store.whole_routes(held), type_url::ROUTE, pool)
    };
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "static_route_configs": inline,
        "dynamic_route_configs": entries(&store.routes, false, whole),
    })
}

/// The routes that stand in a listener itself, in the form in which they were received.
fn inline_routes(held: &Held<Arc<Listener>>, pool: &DescriptorPool) -> Vec<Value> {
    if !held.value.route_sources().any(|routes| matches!(routes, RouteSource::Inline(_))) {
        return Vec::new();
    }
    let entry = dump("listener", held, type_url::LISTENER, pool);
    let listener = entry.get("listener").unwrap_or(&Value::Null);
    let chains = listener.get("filter_chains").and_then(Value::as_array).into_iter().flatten();
    let routes = |chain: &Value| {
        let last = chain.get("filters")?.as_array()?.last()?;
        let mut routes = last.get("typed_config")?.get("route_config")?.clone();
        routes.as_object_mut()?.insert("@type".to_owned(), type_url::ROUTE.into());
        Some(json!({ "last_updated": entry.get("last_updated")?, "route_config": routes }))
    };
    chains.chain(listener.get("default_filter_chain")).filter_map(routes).collect()
}

fn endpoints(store: &Store, pool: &DescriptorPool) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "dynamic_endpoint_configs": entries(&store.endpoints, false, |h| dump("endpoint_config", h, type_url::ENDPOINT, pool)),
    })
}

fn entries<T>(map: &BTreeMap<String, Held<T>>, fixed: bool, form: impl Fn(&Held<T>) -> Value) -> Vec<Value> {
    map.values().filter(|h| h.fixed == fixed).map(form).collect()
}

fn dump<T>(field: &str, held: &Held<T>, type_url: &str, pool: &DescriptorPool) -> Value {
    dump_body(field, held, held.body.clone(), type_url, pool)
}

fn dump_body<T>(field: &str, held: &Held<T>, body: Bytes, type_url: &str, pool: &DescriptorPool) -> Value {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    let message = pool.get_message_by_name(name).and_then(|d| DynamicMessage::decode(d, body).ok());
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut body = message
        .and_then(|m| m.serialize_with_options(serde_json::value::Serializer, &options).ok())
        .unwrap_or(Value::Null);
    if let Some(map) = body.as_object_mut() {
        map.insert("@type".to_owned(), type_url.into());
    }
    let since = jiff::Timestamp::try_from(held.since).map(|t| t.to_string()).unwrap_or_default();
    let mut entry = json!({ "last_updated": since, field: body });
    if let Some(map) = entry.as_object_mut() {
        if !held.version.is_empty() {
            map.insert("version_info".to_owned(), held.version.clone().into());
        }
        if !held.ignored.is_empty() {
            map.insert("ignored_fields".to_owned(), held.ignored.clone().into());
        }
    }
    entry
}
