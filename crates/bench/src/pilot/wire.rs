//! The parts of the xDS messages that the simulated proxies read and write, and the gRPC codec that carries them.
//!
//! Every message has only the fields that a client needs to go on; prost passes over the others. So a simulated proxy
//! costs far less than a real one. The numbers of the fields are those of Envoy's API.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) cluster: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) metadata: Option<Struct>,
    #[prost(string, tag = "6")]
    pub(crate) user_agent_name: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
    #[prost(string, tag = "2")]
    pub(crate) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) unsubscribe: Vec<String>,
    #[prost(string, tag = "6")]
    pub(crate) nonce: String,
}

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SotwRequest {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// `google.protobuf.Any` without its type.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Typed {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaResource {
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) body: Option<Body>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<DeltaResource>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed: Vec<String>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SotwResponse {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Body>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// Any resource that has its name in its first field, as clusters, listeners, routes and endpoints have.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Cluster {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) discovery: i32,
}

/// The value of a cluster's `type` that takes endpoints from EDS.
pub(crate) const BY_EDS: i32 = 3;

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Listener {
    #[prost(message, repeated, tag = "3")]
    pub(crate) chains: Vec<FilterChain>,
    #[prost(message, optional, tag = "25")]
    pub(crate) default_chain: Option<FilterChain>,
}

/// `envoy.config.listener.v3.FilterChain`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FilterChain {
    #[prost(message, repeated, tag = "3")]
    pub(crate) filters: Vec<Filter>,
}

/// `envoy.config.listener.v3.Filter`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Filter {
    #[prost(message, optional, tag = "4")]
    pub(crate) typed: Option<Typed>,
}

/// `HttpConnectionManager`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConnectionManager {
    #[prost(message, optional, tag = "3")]
    pub(crate) rds: Option<Rds>,
}

/// `HttpConnectionManager.Rds`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Rds {
    #[prost(string, tag = "2")]
    pub(crate) route_config_name: String,
}

/// `envoy.config.route.v3.RouteConfiguration`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Routes {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "9")]
    pub(crate) vhds: Option<Present>,
}

/// A message of which only the presence counts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Present {}

impl Node {
    /// Returns the node of a sidecar with a name, in the namespace and with the label of a class.
    pub(crate) fn of(index: usize, class: usize) -> Self {
        let text = |text: String| Value { kind: Some(value::Kind::StringValue(text)) };
        let labels = Struct { fields: BTreeMap::from([("app".to_owned(), text(format!("w{class}")))]) };
        let labels = Value { kind: Some(value::Kind::StructValue(labels)) };
        Self {
            id: format!("sidecar~127.0.0.1~w{index}.c{class}~c{class}.svc.cluster.local"),
            cluster: format!("w{class}.c{class}"),
            metadata: Some(Struct { fields: BTreeMap::from([("LABELS".to_owned(), labels)]) }),
            user_agent_name: "envoy".to_owned(),
        }
    }
}

impl Listener {
    /// Returns the names of the route configurations that the listener takes from RDS.
    pub(crate) fn routes(&self) -> Vec<String> {
        let filters = self.chains.iter().chain(&self.default_chain).flat_map(|chain| &chain.filters);
        let managers = filters
            .filter_map(|filter| filter.typed.as_ref())
            .filter(|typed| typed.type_url.ends_with(".HttpConnectionManager"));
        let decoded = managers.filter_map(|typed| ConnectionManager::decode(typed.value.clone()).ok());
        decoded.filter_map(|manager| manager.rds).map(|rds| rds.route_config_name).collect()
    }
}

/// A message with its encoded size.
#[derive(Debug)]
pub(crate) struct Sized<R> {
    pub(crate) bytes: usize,
    pub(crate) message: R,
}

/// The codec of a stream that sends `Q` and receives `R`.
pub(crate) struct Wire<Q, R>(PhantomData<(Q, R)>);

impl<Q, R> Default for Wire<Q, R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + 'static, R: Message + Default + 'static> Codec for Wire<Q, R> {
    type Encode = Q;
    type Decode = Sized<R>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<Q: Message, R> Encoder for Wire<Q, R> {
    type Item = Q;
    type Error = Status;

    fn encode(&mut self, item: Q, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<Q, R: Message + Default> Decoder for Wire<Q, R> {
    type Item = Sized<R>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Sized<R>>, Status> {
        let bytes = bytes::Buf::remaining(buffer);
        let message = R::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(Sized { bytes, message }))
    }
}
