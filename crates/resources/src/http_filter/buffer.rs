//! Configuration of the buffer filter (`envoy.filters.http.buffer`). Source: Envoy, "Buffer".

use envoy_types::pb::envoy::extensions::filters::http::buffer::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use super::{FilterMessage, PerRoute};
use crate::convert;
use crate::{Audit, Error, Path};

/// Waits for the whole body of a request before it goes on, and refuses longer bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// The longest body, in bytes.
    pub max_request_bytes: u64,
}

impl Buffer {
    fn encode(self) -> pb::Buffer {
        let most = u32::try_from(self.max_request_bytes).unwrap_or(u32::MAX);
        pb::Buffer { max_request_bytes: Some(convert::wrap_u32(most)) }
    }
}

impl FilterMessage for Buffer {
    const NAME: &'static str = "envoy.filters.http.buffer";

    fn from_any(any: &Any, _: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let Some(message) = super::message::<pb::Buffer>(any, path)? else { return Ok(None) };
        let most = message.max_request_bytes.as_ref().map(|v| u64::from(v.value)).filter(|n| *n > 0);
        let most = most.ok_or_else(|| path.field("max_request_bytes").error("is required"))?;
        Ok(Some(Self { max_request_bytes: most }))
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }

    fn from_route_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute<Self>>, Error> {
        use pb::buffer_per_route::Override;
        let message: Option<pb::BufferPerRoute> = super::message(any, path)?;
        let Some(message) = message else { return super::from_same_message(any, audit, path) };
        match &message.r#override {
            Some(Override::Disabled(true)) => Ok(Some(PerRoute::Off)),
            Some(Override::Buffer(b)) => {
                let most = b.max_request_bytes.as_ref().map_or(0, |v| v.value.into());
                Ok(Some(PerRoute::Config(Self { max_request_bytes: most })))
            }
            _ => Err(path.error("needs disabled or buffer")),
        }
    }

    fn to_route_any(&self) -> Any {
        use pb::buffer_per_route::Override;
        convert::any(&pb::BufferPerRoute { r#override: Some(Override::Buffer(self.encode())) })
    }
}
