//! Protobuf messages built from shared pieces, so that the bytes of a module are never copied.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// A protobuf message as a list of byte slices. Appending fields is concatenation, as protobuf allows.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    segments: Vec<Bytes>,
    len: usize,
}

/// Pieces shorter than this are copied into their neighbour: a separate frame would cost more.
const SHARE_FROM: usize = 1024;
/// Pieces from this size on are never copied: the larger part of a module.
const NEVER_COPIED: usize = 4096;

impl Rope {
    pub fn new() -> Self {
        Self::default()
    }

    /// The fields of `message`, encoded now.
    pub fn encode(message: &impl Message) -> Self {
        let mut rope = Self::new();
        rope.push(message.encode_to_vec().into());
        rope
    }

    /// A `google.protobuf.Any` of that type.
    pub fn any(type_url: &str, value: &Rope) -> Self {
        let mut any = Self::new();
        any.string(1, type_url);
        any.message(2, value);
        any
    }

    /// Length of the whole in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in order.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Appends a string field; an empty string is the default and is left out.
    pub fn string(&mut self, tag: u32, value: &str) {
        if !value.is_empty() {
            self.bytes(tag, Bytes::copy_from_slice(value.as_bytes()));
        }
    }

    /// Appends a bytes field.
    pub fn bytes(&mut self, tag: u32, value: Bytes) {
        self.header(tag, value.len());
        self.push(value);
    }

    /// Appends a message field (or any other length-delimited one).
    pub fn message(&mut self, tag: u32, value: &Rope) {
        self.header(tag, value.len);
        self.append(value);
    }

    /// Appends the fields of `other`.
    pub fn append(&mut self, other: &Rope) {
        for segment in &other.segments {
            self.push(segment.clone());
        }
    }

    /// Appends encoded fields.
    pub fn push(&mut self, segment: Bytes) {
        self.len += segment.len();
        match self.segments.last_mut() {
            Some(last) if last.len() + segment.len() <= SHARE_FROM => {
                let mut joined = BytesMut::with_capacity(last.len() + segment.len());
                joined.extend_from_slice(last);
                joined.extend_from_slice(&segment);
                *last = joined.freeze();
            }
            _ if segment.is_empty() => {}
            _ => self.segments.push(segment),
        }
    }

    /// The same bytes in as few slices as can be without copying large ones. Each slice costs every connection that it
    /// is sent on a write of its own.
    pub fn packed(&self) -> Self {
        let mut segments: Vec<Bytes> = Vec::new();
        for run in self.segments.chunk_by(|one, other| one.len().max(other.len()) < NEVER_COPIED) {
            match run {
                [alone] => segments.push(alone.clone()),
                _ => segments.push(run.concat().into()),
            }
        }
        Self { segments, len: self.len }
    }

    /// One contiguous copy.
    pub fn to_bytes(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len);
        for segment in &self.segments {
            whole.put_slice(segment);
        }
        whole.freeze()
    }

    fn header(&mut self, tag: u32, len: usize) {
        let mut header = BytesMut::with_capacity(12);
        encode_key(tag, WireType::LengthDelimited, &mut header);
        encode_varint(len as u64, &mut header);
        self.push(header.freeze());
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{AsyncDataSource, DataSource, async_data_source, data_source};

    use super::*;

    #[test]
    fn a_rope_equals_what_prost_encodes_and_shares_large_pieces() {
        let module = Bytes::from(vec![7; 5000]);
        let mut local = Rope::new();
        local.bytes(2, module.clone());
        let mut source = Rope::new();
        source.message(1, &local);

        let expected = AsyncDataSource {
            specifier: Some(async_data_source::Specifier::Local(DataSource {
                specifier: Some(data_source::Specifier::InlineBytes(module.to_vec())),
                ..Default::default()
            })),
        };
        assert_eq!(source.to_bytes(), expected.encode_to_vec());
        assert!(source.segments().iter().any(|segment| segment.as_ptr() == module.as_ptr()));
    }

    #[test]
    fn a_packed_rope_has_the_same_bytes_and_still_shares_large_pieces() {
        let module = Bytes::from(vec![7; 5000]);
        let mut rope = Rope::new();
        for size in [900, 900, 900] {
            rope.bytes(1, vec![1; size].into());
        }
        rope.bytes(2, module.clone());
        rope.string(3, "end");

        let packed = rope.packed();

        assert_eq!((packed.to_bytes(), packed.len()), (rope.to_bytes(), rope.len()));
        assert_eq!((rope.segments().len(), packed.segments().len()), (5, 3));
        assert_eq!(packed.segments()[1].as_ptr(), module.as_ptr());
    }
}
