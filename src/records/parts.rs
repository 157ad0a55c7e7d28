//! Large records piece by piece: RepoMeta and RepoBlobs of a repo with a hundred thousand images take several times their
//! own length when they are decoded as a whole.

use super::wire::{Malformed, length_delimited, map_entry, next_field};
use crate::parallel::both;
use prost::Message;
use prost::bytes::BufMut;
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
    fn put(&self, out: &mut impl BufMut);
}

impl<M: Message> Value for &M {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn put(&self, out: &mut impl BufMut) {
        self.encode_raw(out);
    }
}

/// Length of a field that tells its length.
pub fn delimited(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

/// Length of what [`put_map`] appends.
pub fn map_length<'k>(number: u32, entries: impl Iterator<Item = (&'k str, impl Value)>) -> usize {
    entries.map(|(key, value)| delimited(number, entry_length(key, value.length()))).sum()
}

/// Append a map field as prost encodes it: empty keys and values are left out. The caller makes room for all of a record at once:
/// growing bit by bit would need it twice.
pub fn put_map<'k>(out: &mut impl BufMut, number: u32, entries: impl Iterator<Item = (&'k str, impl Value)>) {
    for (key, value) in entries {
        let length = value.length();
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(entry_length(key, length) as u64, out);
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

/// The record that begins with `head` and goes on with a map field, each half on a thread of its own if they are `large`.
pub fn with_map(head: &[u8], number: u32, entries: &[(&str, impl Value + Copy + Sync)], large: bool) -> Vec<u8> {
    let (first, second) = entries.split_at(entries.len() / 2);
    let lengths =
        both(large, || map_length(number, first.iter().copied()), || map_length(number, second.iter().copied()));
    // Zeros cost nothing here: the system has them ready, page by page, for who comes to write there.
    let mut out = vec![0; head.len() + lengths.0 + lengths.1];
    let (start, maps) = out.split_at_mut(head.len());
    start.copy_from_slice(head);
    let (mut one, mut other) = maps.split_at_mut(lengths.0);
    both(
        large,
        move || put_map(&mut one, number, first.iter().copied()),
        move || put_map(&mut other, number, second.iter().copied()),
    );
    out
}

/// Length of a map entry, without what says that it is one.
fn entry_length(key: &str, length: usize) -> usize {
    let present = |number, length| if length == 0 { 0 } else { delimited(number, length) };
    present(1, key.len()) + present(2, length)
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
            let entries = || blobs.iter().map(|(key, value)| (key.as_str(), value));
            put_map(&mut out, 2, entries());
            prop_assert_eq!(map_length(2, entries()), out.len());
            let entries: Vec<_> = entries().collect();
            for large in [false, true] {
                prop_assert_eq!(&with_map(b"head", 2, &entries, large), &[b"head", out.as_slice()].concat());
            }
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
