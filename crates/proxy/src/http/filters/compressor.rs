//! Compresses responses with gzip (`envoy.filters.http.compressor`). Source: Envoy, "Compressor".

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serin_http1::framing::{Declared, Framing};
use serin_resources::http_filter as resources;
use serin_traffic::filter;

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::alter::{BodyFilter, PacedChunk};
use crate::http::local_reply::Stop;

/// A request whose response may be compressed.
pub(super) struct Compressor<'a> {
    config: &'a resources::Compressor,
    /// True when the client accepts gzip.
    accepted: bool,
    /// True when the head of the response says that its body is compressed.
    applied: bool,
}

impl<'a> HttpFilter<'a> for Compressor<'a> {
    type Config = resources::Compressor;

    async fn request_head(
        setting: Setting<'a, resources::Compressor>,
        _context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let config = setting.config;
        kept.keep(Self { config, accepted: filter::takes_gzip(&request.head.fields), applied: false });
        filter::prepare_compression(config, request.head);
        Ok(())
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
        let Some((framing, declared)) = response.body else { return };
        let length = match (framing, declared) {
            (Framing::Length(n), _) | (_, Declared::Length(n)) => Some(n),
            _ => None,
        };
        let takes = self.accepted && framing != Framing::Empty;
        self.applied = filter::compress(self.config, response.head, takes, length);
    }

    fn response_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        self.applied.then(|| Box::new(Gzip::new(self.config.level)) as Box<dyn BodyFilter>)
    }
}

/// A body as one gzip stream.
struct Gzip(Option<GzEncoder<Vec<u8>>>);

impl Gzip {
    fn new(level: u32) -> Self {
        Self(Some(GzEncoder::new(Vec::new(), Compression::new(level))))
    }
}

impl BodyFilter for Gzip {
    fn changes_length(&self) -> bool {
        true
    }

    fn data(&mut self, data: Bytes, out: &mut Vec<PacedChunk>) {
        let Some(encoder) = &mut self.0 else { return };
        // Writing into memory does not fail.
        let _ = encoder.write_all(&data);
        // What has come goes on: more may take its time (so does Envoy).
        let _ = encoder.flush();
        out.push(PacedChunk::new(Duration::ZERO, std::mem::take(encoder.get_mut()).into()));
    }

    fn end(&mut self, out: &mut Vec<PacedChunk>) {
        let rest = self.0.take().and_then(|encoder| encoder.finish().ok()).unwrap_or_default();
        out.push(PacedChunk::new(Duration::ZERO, rest.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::alter::BodyTransform;
    use crate::wire::Frame;

    #[test]
    fn a_compressed_body_is_one_stream() {
        let mut alter = BodyTransform::new(vec![Box::new(Gzip::new(6))]);
        let text = "the same again and again ".repeat(400);
        let (mut packed, mut sent) = (Vec::new(), 0);
        for part in text.as_bytes().chunks(1000) {
            let pieces = alter.frame(Frame::Data(Bytes::copy_from_slice(part)));
            pieces.into_iter().for_each(|p| {
                if let Frame::Data(data) = p.frame {
                    packed.extend_from_slice(&data)
                }
            });
            // What went in so far can be read so far.
            sent += part.len();
            let mut plain = vec![0; sent];
            std::io::Read::read_exact(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut plain).unwrap();
            assert_eq!(plain, text.as_bytes()[..sent]);
        }
        alter.end().into_iter().for_each(|p| {
            if let Frame::Data(data) = p.frame {
                packed.extend_from_slice(&data)
            }
        });
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut plain).unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(plain, text);
    }
}
