//! Kafka's codecs over whole payloads, bounded.
//!
//! Each as Java writes it, because Java reads it: snappy in the framing of snappy-java (raw snappy is read too, as librdkafka
//! writes it), LZ4 as frames of independent blocks.

use std::io::{self, Read, Write as _};

use super::Codec;

/// How much may come out of a compressed payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes at most.
    pub bytes: usize,
    /// Bytes at most for each byte that goes in; payloads up to [`Limits::FLOOR`] are let through whatever the ratio.
    pub ratio: usize,
}

impl Limits {
    /// Below this the ratio is not looked at: a batch of zeros honestly shrinks ten-thousandfold.
    pub const FLOOR: usize = 4 << 20;

    fn cap(self, compressed: usize) -> usize {
        self.bytes.min(compressed.saturating_mul(self.ratio).max(Self::FLOOR))
    }
}

impl Default for Limits {
    /// 128 MiB, 1,100 to one (DEFLATE's own bound is 1,032).
    fn default() -> Self {
        Self { bytes: 128 << 20, ratio: 1_100 }
    }
}

/// Why a payload cannot be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Attributes name codec 5, 6 or 7.
    #[error("codec {0} is unknown")]
    Unknown(u8),
    /// More came out than allowed.
    #[error("{compressed} bytes open to more than the limit of {limit}")]
    TooLarge {
        /// Bytes that went in.
        compressed: usize,
        /// Bytes that may come out.
        limit: usize,
    },
    /// The codec says no.
    #[error("{codec:?}: {detail}")]
    Corrupt {
        /// Which.
        codec: Codec,
        /// What it said.
        detail: String,
    },
}

/// Opens a payload.
pub(super) fn open(codec: Codec, payload: &[u8], limits: Limits) -> Result<Vec<u8>, CodecError> {
    let limit = limits.cap(payload.len());
    let corrupt = |error: io::Error| CodecError::Corrupt { codec, detail: error.to_string() };
    let read = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        reader.take(limit as u64 + 1).read_to_end(&mut out).map_err(corrupt)?;
        if out.len() > limit {
            return Err(CodecError::TooLarge { compressed: payload.len(), limit });
        }
        Ok(out)
    };
    match codec {
        Codec::None => Ok(payload.to_vec()),
        Codec::Gzip => read(&mut flate2::bufread::MultiGzDecoder::new(payload)),
        Codec::Snappy => open_snappy(payload, limit),
        Codec::Lz4 => read(&mut lz4_flex::frame::FrameDecoder::new(payload)),
        Codec::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(payload).map_err(corrupt)?;
            reader.window_log_max(ZSTD_WINDOW_LOG).map_err(corrupt)?;
            read(&mut reader)
        }
    }
}

/// Closes a payload.
pub(super) fn close(codec: Codec, payload: Vec<u8>) -> Vec<u8> {
    const MEMORY: &str = "compressing into memory does not fail";
    match codec {
        Codec::None => payload,
        Codec::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(&payload).expect(MEMORY);
            writer.finish().expect(MEMORY)
        }
        Codec::Snappy => close_snappy(&payload),
        Codec::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            writer.write_all(&payload).expect(MEMORY);
            writer.finish().expect(MEMORY)
        }
        Codec::Zstd => zstd::stream::encode_all(&payload[..], 3).expect(MEMORY),
    }
}

/// What Java's reader takes: frames with windows up to 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// How snappy-java begins: its name, version 1, compatible from 1.
const XERIAL: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// snappy-java's own block size.
const XERIAL_BLOCK: usize = 32 * 1024;

fn open_snappy(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let corrupt = |detail: String| CodecError::Corrupt { codec: Codec::Snappy, detail };
    let mut out = Vec::new();
    let mut block = |bytes: &[u8]| {
        let length = snap::raw::decompress_len(bytes).map_err(|error| corrupt(error.to_string()))?;
        // No snappy block opens to more than 64 bytes for each 3 (a copy of 64 in 3 bytes), so a larger claim is a lie.
        if length > bytes.len().saturating_mul(64) || out.len() + length > limit {
            return Err(CodecError::TooLarge { compressed: payload.len(), limit });
        }
        let start = out.len();
        out.resize(start + length, 0);
        snap::raw::Decoder::new()
            .decompress(bytes, &mut out[start..])
            .map_err(|error| corrupt(error.to_string()))
            .map(drop)
    };
    if !payload.starts_with(&XERIAL[..8]) {
        block(payload)?;
        return Ok(out);
    }
    let mut rest = payload.get(XERIAL.len()..).ok_or_else(|| corrupt("the stream header is cut short".to_owned()))?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > after.len() {
            return Err(corrupt(format!("a block of {length} bytes with {} left", after.len())));
        }
        let (bytes, after) = after.split_at(length);
        block(bytes)?;
        rest = after;
    }
    if rest.is_empty() { Ok(out) } else { Err(corrupt(format!("{} bytes after the last block", rest.len()))) }
}

fn close_snappy(payload: &[u8]) -> Vec<u8> {
    let mut out = XERIAL.to_vec();
    for block in payload.chunks(XERIAL_BLOCK) {
        let bytes = snap::raw::Encoder::new().compress_vec(block).expect("a block of 32 KiB is within snappy's limit");
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_gives_back_what_went_in() {
        for size in [0, 1, 100, 32 * 1024, 32 * 1024 + 1, 300_000] {
            let payload: Vec<u8> = (0..size).map(|n: u32| (n / 7) as u8).collect();
            for codec in ALL {
                let closed = close(codec, payload.clone());
                assert_eq!(open(codec, &closed, Limits::default()), Ok(payload.clone()), "{codec:?} {size}");
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 32 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = close(codec, zeros.clone());
            let limits = Limits { bytes: 8 << 20, ratio: 1_000_000 };
            let limit = 8 << 20;
            assert_eq!(
                open(codec, &bomb, limits),
                Err(CodecError::TooLarge { compressed: bomb.len(), limit }),
                "{codec:?}"
            );
        }
        let bomb = close(Codec::Zstd, zeros);
        let limit = (bomb.len() * 100).max(Limits::FLOOR);
        assert_eq!(
            open(Codec::Zstd, &bomb, Limits { bytes: usize::MAX, ratio: 100 }),
            Err(CodecError::TooLarge { compressed: bomb.len(), limit })
        );
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"as librdkafka writes it").expect("small");
        assert_eq!(open(Codec::Snappy, &raw, Limits::default()), Ok(b"as librdkafka writes it".to_vec()));
    }

    #[test]
    fn a_snappy_block_cannot_claim_memory() {
        // A varint of 2^32 - 1 and nothing behind it.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let limits = Limits { bytes: usize::MAX, ratio: usize::MAX };
        assert!(matches!(open(Codec::Snappy, &claim, limits), Err(CodecError::TooLarge { .. })));
    }
}
