//! Messages on connections, towards clients and upstreams alike: reading and writing, HTTP/1 and HTTP/2.

pub(crate) mod buffers;
mod driver;
mod frame;
mod reader;
mod writer;

pub(crate) use buffers::READ_SIZE;
pub(crate) use driver::{Driven, Driver};
pub(crate) use frame::{BodyError, Frame, Take};
pub(crate) use reader::{H1Reader, H2Reader};
pub(crate) use writer::{H1Writer, H2Writer, Sink};
