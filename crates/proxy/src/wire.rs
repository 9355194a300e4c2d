//! Messages on connections, towards clients and upstreams alike: reading and writing, HTTP/1 and HTTP/2.

mod frame;
mod reader;
mod volume;
mod writer;

pub(crate) use frame::{BodyError, Frame, Take};
pub(crate) use reader::{BodySource, H1Reader, H2Reader, TrailerLimits};
pub(crate) use volume::WireBytes;
pub(crate) use writer::{BodySink, H1Writer, H2Writer};

#[cfg(test)]
mod tests;
