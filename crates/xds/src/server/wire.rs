//! Responses as gRPC messages, encoded piece by piece.
//!
//! A first configuration may have megabytes. Only a piece of it stands in memory for each client: the rest are shared resources until
//! the connection takes more. The messages are those of `envoy.service.discovery.v3`; protobuf lets the fields of a message follow each
//! other in any order.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::message::Resource;
use crate::server::session::{Mode, Response};

/// Size of a piece in bytes; one resource that is larger makes a larger piece.
const PIECE: usize = 32 * 1024;

/// A response on its way.
pub(super) struct Outgoing {
    mode: Mode,
    type_url: Cow<'static, str>,
    /// The prefix of the message and all fields but the resources, until they are sent.
    head: Option<BytesMut>,
    resources: std::vec::IntoIter<Arc<Resource>>,
    /// Bytes that are left.
    left: usize,
}

/// Numbers of the fields of a response in either variant.
struct Fields {
    version: u32,
    type_url: u32,
    nonce: u32,
    removed: u32,
}

const DELTA: Fields = Fields { version: 1, type_url: 4, nonce: 5, removed: 6 };
const SOTW: Fields = Fields { version: 1, type_url: 4, nonce: 5, removed: 0 };
/// `resources`, in both variants.
const RESOURCES: u32 = 2;

impl Outgoing {
    /// Begins a response.
    pub(super) fn new(mode: Mode, response: Response) -> Self {
        let Response { type_url, nonce, version, resources, removed } = response;
        let fields = match mode {
            Mode::Delta => DELTA,
            Mode::Sotw => SOTW,
        };
        let mut head = BytesMut::with_capacity(256);
        // Uncompressed; the length follows below (gRPC over HTTP/2, Length-Prefixed-Message).
        head.put_slice(&[0; 5]);
        put_field(&mut head, fields.version, version.as_bytes());
        put_field(&mut head, fields.type_url, type_url.as_bytes());
        put_field(&mut head, fields.nonce, nonce.as_bytes());
        if mode == Mode::Delta {
            removed.iter().for_each(|name| put_always(&mut head, fields.removed, name.as_bytes()));
        }
        let of_resource = |resource: &Arc<Resource>| always_len(resource_len(mode, &type_url, resource));
        let left = head.len() + resources.iter().map(of_resource).sum::<usize>();
        let length = u32::try_from(left - 5).unwrap_or(u32::MAX);
        if let Some(prefix) = head.get_mut(1..5) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        Self { mode, type_url, head: Some(head), resources: resources.into_iter(), left }
    }

    /// The next piece; `None` after the last.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        let mut piece = match self.head.take() {
            Some(head) => head,
            None if self.left == 0 => return None,
            None => BytesMut::new(),
        };
        piece.reserve(self.left.min(PIECE + 4096).saturating_sub(piece.len()));
        while piece.len() < PIECE {
            let Some(resource) = self.resources.next() else { break };
            put_resource(&mut piece, self.mode, &self.type_url, &resource);
        }
        self.left = self.left.saturating_sub(piece.len());
        Some(piece.freeze())
    }
}

/// The size of the message of a resource: `Resource` (delta) or `Any`.
fn resource_len(mode: Mode, type_url: &str, resource: &Resource) -> usize {
    let any = field_len(type_url.len()) + field_len(resource.body.len());
    match mode {
        Mode::Sotw => any,
        Mode::Delta => field_len(resource.version.len()) + always_len(any) + field_len(resource.name.len()),
    }
}

fn put_resource(out: &mut BytesMut, mode: Mode, type_url: &str, resource: &Resource) {
    put_length(out, RESOURCES, resource_len(mode, type_url, resource));
    if mode == Mode::Delta {
        put_field(out, 1, resource.version.as_bytes());
        put_field(out, 3, resource.name.as_bytes());
        put_length(out, 2, field_len(type_url.len()) + field_len(resource.body.len()));
    }
    put_field(out, 1, type_url.as_bytes());
    put_field(out, 2, &resource.body);
}

/// The size of a field of this many bytes; an empty one is left out. Numbers of fields are below 16, so a tag is one byte.
fn field_len(content: usize) -> usize {
    if content == 0 { 0 } else { always_len(content) }
}

fn always_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

fn put_field(out: &mut BytesMut, number: u32, content: &[u8]) {
    if !content.is_empty() {
        put_always(out, number, content);
    }
}

fn put_always(out: &mut BytesMut, number: u32, content: &[u8]) {
    put_length(out, number, content.len());
    out.put_slice(content);
}

/// The tag and the length of a field.
fn put_length(out: &mut BytesMut, number: u32, length: usize) {
    // Wire type 2: length and bytes.
    encode_varint(u64::from(number << 3 | 2), out);
    encode_varint(length as u64, out);
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3 as pb;
    use prost::Message as _;

    use super::*;

    fn response(sizes: &[usize]) -> Response {
        let resource = |(number, size): (usize, &usize)| {
            let (name, version) = (format!("name-{number}").into(), format!("v{number}"));
            let body = vec![u8::try_from(number % 256).unwrap_or_default(); *size].into();
            Arc::new(Resource { name, version, body })
        };
        Response {
            type_url: Cow::Borrowed("type.googleapis.com/some.Type"),
            nonce: "7".to_owned(),
            version: "abc".into(),
            resources: sizes.iter().enumerate().map(resource).collect(),
            removed: vec!["gone".into(), "".into()],
        }
    }

    fn message(mode: Mode, response: Response) -> (Vec<usize>, Vec<u8>) {
        let mut outgoing = Outgoing::new(mode, response);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| outgoing.next_piece()).collect();
        let all = pieces.concat();
        let (prefix, message) = all.split_at(5);
        assert_eq!(prefix, [&[0], &u32::try_from(message.len()).unwrap_or_default().to_be_bytes()[..]].concat());
        (pieces.iter().map(Bytes::len).collect(), message.to_vec())
    }

    #[test]
    fn messages_are_those_of_the_protocol() {
        for sizes in [vec![], vec![0], vec![1, 0, 300], vec![20_000; 10], vec![100_000, 1, 100_000]] {
            let sent = response(&sizes);
            let (pieces, bytes) = message(Mode::Delta, sent.clone());
            let read = pb::DeltaDiscoveryResponse::decode(&bytes[..]);
            let read = read.unwrap_or_else(|error| panic!("{sizes:?}: {error}"));
            assert_eq!((read.nonce.as_str(), read.system_version_info.as_str()), ("7", "abc"));
            assert_eq!(read.type_url, sent.type_url);
            assert_eq!(read.removed_resources, ["gone", ""]);
            assert_eq!(read.resources.len(), sent.resources.len());
            for (read, sent) in read.resources.iter().zip(&sent.resources) {
                assert_eq!((read.name.as_str(), &read.version), (&*sent.name, &sent.version));
                assert_eq!(read.resource.as_ref().map(|any| any.value.as_slice()), Some(&sent.body[..]));
                assert_eq!(
                    read.resource.as_ref().map(|any| any.type_url.as_str()),
                    Some("type.googleapis.com/some.Type")
                );
            }
            assert!(pieces.iter().all(|size| *size < PIECE + 110_000), "{pieces:?}");

            let (_, bytes) = message(Mode::Sotw, sent.clone());
            let read = pb::DiscoveryResponse::decode(&bytes[..]);
            let read = read.unwrap_or_else(|error| panic!("{sizes:?}: {error}"));
            assert_eq!((read.nonce.as_str(), read.version_info.as_str()), ("7", "abc"));
            let bodies: Vec<&[u8]> = read.resources.iter().map(|any| any.value.as_slice()).collect();
            assert_eq!(bodies, sent.resources.iter().map(|r| &r.body[..]).collect::<Vec<_>>());
        }
    }
}
