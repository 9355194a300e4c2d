//! Messages on connections, towards clients and upstreams alike: reading and writing, HTTP/1 and HTTP/2.

pub(crate) mod buffers;
mod driver;
mod reader;
mod writer;

pub(crate) use driver::{Driven, Driver};
pub(crate) use reader::{BodyError, Frame, H1Reader, H2Reader, READ_SIZE, Take};
pub(crate) use writer::{H1Writer, H2Writer, Sink};
