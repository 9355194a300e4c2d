//! Messages on connections, towards clients and upstreams alike: reading and writing, HTTP/1 and HTTP/2.

mod message_h2;
mod reader;
mod writer;

pub(crate) use message_h2::{request_from_h2, request_to_h2, response_from_h2, response_to_h2};
pub(crate) use reader::{BodyError, Frame, H1Reader, H2Reader, READ_SIZE, Take};
pub(crate) use writer::{H1Writer, H2Writer, Sink};
