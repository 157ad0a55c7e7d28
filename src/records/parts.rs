//! Large records piece by piece: RepoMeta and RepoBlobs of a repo with a hundred thousand images take several times their
//! own length when they are decoded as a whole.

use super::wire::{Malformed, length_delimited, map_entry, next_field};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// One field of a record.
pub struct Part<'a, T> {
    /// Its number.
    pub number: u32,
    /// The bytes of this field: a record that has nothing else.
    pub raw: &'a [u8],
    /// That record, decoded.
    pub record: T,
    payload: &'a [u8],
}

impl<'a, T> Part<'a, T> {
    /// The key, if the field is an entry of a map.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn key(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(map_entry(self.payload)?.0).map_err(|_| Malformed)
    }
}

/// Decode a record field by field. If a field that is no list, or a key of a map, comes several times, the last one counts.
///
/// # Errors
/// [`Malformed`] where decoding the record as a whole would fail, or what `visit` returned.
pub fn parts<'a, T: Message + Default>(
    record: &'a [u8],
    mut visit: impl FnMut(Part<'a, T>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut rest = record;
    while let Some(field) = next_field(&mut rest)? {
        let record = T::decode(field.raw).map_err(|_| Malformed)?;
        visit(Part { number: field.number, raw: field.raw, record, payload: field.payload })?;
    }
    Ok(())
}

/// What a map entry can hold.
pub trait Value {
    /// Length of what [`Value::put`] appends.
    fn length(&self) -> usize;

    /// Append it.
    fn put(&self, out: &mut Vec<u8>);
}

impl<M: Message> Value for &M {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.encode_raw(out);
    }
}

/// Length of a field that tells its length.
pub fn delimited(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

/// Append a map field as prost encodes it: empty keys and values are left out.
pub fn put_map<'k>(out: &mut Vec<u8>, number: u32, entries: impl Iterator<Item = (&'k str, impl Value)> + Clone) {
    let present = |number, length| if length == 0 { 0 } else { delimited(number, length) };
    let body = |key: &str, length: usize| present(1, key.len()) + present(2, length);
    // Room for all of it at once: growing bit by bit would need it twice.
    out.reserve_exact(entries.clone().map(|(key, value)| delimited(number, body(key, value.length()))).sum());
    for (key, value) in entries {
        let length = value.length();
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(body(key, length) as u64, out);
        if !key.is_empty() {
            length_delimited(out, 1, &[key.as_bytes()]);
        }
        if length > 0 {
            encode_key(2, WireType::LengthDelimited, out);
            encode_varint(length as u64, out);
            value.put(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::proto::{BlobInfo, RepoBlobs};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn blobs() -> impl Strategy<Value = BTreeMap<String, BlobInfo>> {
        let info = (any::<i64>(), proptest::collection::vec(".{0,3}", 0..3)).prop_map(|(size, sub_blobs)| BlobInfo {
            // Often what is left out of a message.
            size: if size % 3 == 0 { 0 } else { size },
            sub_blobs,
            ..Default::default()
        });
        proptest::collection::btree_map(".{0,200}", info, 0..6)
    }

    proptest! {
        #[test]
        fn maps_are_written_as_prost_writes_them(blobs in blobs()) {
            let mut out = Vec::new();
            put_map(&mut out, 2, blobs.iter().map(|(key, value)| (key.as_str(), value)));
            prop_assert_eq!(out.capacity(), out.len());
            prop_assert_eq!(out, RepoBlobs { name: String::new(), blobs }.encode_to_vec());
        }

        #[test]
        fn parts_make_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..60), blobs in blobs(), cut in any::<bool>()) {
            let record = if cut { bytes } else { RepoBlobs { name: "r".into(), blobs }.encode_to_vec() };
            let mut built = RepoBlobs::default();
            let outcome = parts::<RepoBlobs>(&record, |part| {
                if part.number == 2 {
                    assert!(part.record.blobs.contains_key(part.key()?));
                    built.blobs.extend(part.record.blobs);
                } else if part.number == 1 {
                    built.name = part.record.name;
                }
                Ok(())
            });
            // What is no message need not be refused by both.
            if outcome.is_ok() || !cut {
                prop_assert_eq!(Ok(built), RepoBlobs::decode(record.as_slice()));
            }
        }
    }
}
