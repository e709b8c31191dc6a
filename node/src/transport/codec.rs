//! Frames on a byte stream: a length of four bytes, big end first, then so many bytes.
//! A frame of no bytes means nothing; the dialling side sends one to open its stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest frame on a stream, in bytes without its length.
pub const MAX_FRAME: usize = 256 << 10;

const HEADER: usize = 4;
/// Frames up to this size are copied into one buffer, larger ones travel as they are.
const COPY_LIMIT: usize = 8 << 10;

/// A frame longer than [`MAX_FRAME`] was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oversized(pub(crate) u32);

/// Frames that are written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Batch {
    /// Adds one frame of at most [`MAX_FRAME`] bytes.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.tail.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        if frame.len() <= COPY_LIMIT {
            self.tail.put_slice(&frame);
        } else {
            self.chunks.push(self.tail.split().freeze());
            self.chunks.push(frame);
        }
    }

    /// Bytes of the frames, without their lengths.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What goes on the wire.
    pub(crate) fn into_chunks(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.freeze());
        }
        self.chunks
    }
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Takes what arrived.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, if it is here. Empty ones are skipped.
    ///
    /// # Errors
    /// [`Oversized`] as soon as the length is known, before room is made for the frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, Oversized> {
        while let Some(header) = self.buffer.first_chunk::<HEADER>() {
            let announced = u32::from_be_bytes(*header);
            let length = usize::try_from(announced).unwrap_or(usize::MAX);
            if length > MAX_FRAME {
                return Err(Oversized(announced));
            }
            if self.buffer.len() < HEADER + length {
                self.buffer.reserve(HEADER + length - self.buffer.len());
                return Ok(None);
            }
            self.buffer.advance(HEADER);
            if length > 0 {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_frames_survive_any_cutting(
            sizes in proptest::collection::vec(prop_oneof![0_usize..40, 8_000_usize..8_400], 0..12),
            cut in 1_usize..3_000,
        ) {
            let frames: Vec<Bytes> =
                sizes.iter().enumerate().map(|(i, n)| Bytes::from(vec![u8::try_from(i).unwrap(); *n])).collect();
            let mut batch = Batch::default();
            frames.iter().for_each(|frame| batch.push(frame.clone()));
            prop_assert_eq!(batch.bytes(), sizes.iter().sum::<usize>());
            let wire = batch.into_chunks().concat();
            let mut reader = FrameReader::default();
            let mut out = Vec::new();
            for chunk in wire.chunks(cut) {
                reader.push(chunk);
                while let Some(frame) = reader.next_frame().unwrap() {
                    out.push(frame);
                }
            }
            let expected: Vec<Bytes> = frames.into_iter().filter(|frame| !frame.is_empty()).collect();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn any_bytes_are_frames_or_oversized(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(frame)) = reader.next_frame() {
                prop_assert!(frame.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_length_alone() {
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_be_bytes());
        assert_eq!(reader.next_frame(), Err(Oversized(u32::MAX)));
        assert!(reader.buffer.capacity() < 4_096);
    }
}
