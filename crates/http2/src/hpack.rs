//! HPACK (RFC 7541).

mod decoder;
mod encoder;
mod table;

pub(crate) use decoder::{Decoder, Undecodable};
pub(crate) use encoder::{encode_field, encode_status};
