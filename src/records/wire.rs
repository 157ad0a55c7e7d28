//! Protobuf at the wire level: finding, keeping and re-attaching fields that this version does not know (spec §3.1).
//!
//! The generated types drop unknown fields. zot itself carries them along inside Statistics entries, and a newer zot may
//! add some; losing them would lose data that exists nowhere else. So: unknown fields of a record and of its tag,
//! statistics and blob entries are carried over; unknown fields anywhere else make the record *not rewritable*
//! ([`lost_if_rewritten`]) because the parts around them are rebuilt from storage.

use prost::bytes::BufMut;
use std::collections::{BTreeMap, HashSet};

/// A malformed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record")]
pub struct Malformed;

/// One field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// Tag and value together, as they stand in the message.
    pub(super) raw: &'a [u8],
    /// Payload of a length-delimited field, else empty.
    pub(super) payload: &'a [u8],
}

/// Wire types of a group's two ends.
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    prost::encoding::decode_varint(bytes).map_err(|_| Malformed)
}

pub(super) fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<Field<'a>>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let start = *rest;
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
    let payload = match tag & 7 {
        GROUP => {
            skip_group(rest, number)?;
            &[]
        }
        wire => skip_value(rest, wire)?,
    };
    let raw = start.get(..start.len() - rest.len()).ok_or(Malformed)?;
    Ok(Some(Field { number, raw, payload }))
}

/// Step over a value; a length-delimited one has a payload.
fn skip_value<'a>(rest: &mut &'a [u8], wire: u64) -> Result<&'a [u8], Malformed> {
    let length = match wire {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).map_err(|_| Malformed)?,
        5 => 4,
        _ => return Err(Malformed),
    };
    let (value, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(if wire == 2 { value } else { &[] })
}

/// Step over the members of group `number` and its end. zot never writes groups, but keeps those that it finds.
fn skip_group(rest: &mut &[u8], number: u32) -> Result<(), Malformed> {
    let mut open = vec![number];
    while let Some(innermost) = open.last() {
        let tag = varint(rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        match tag & 7 {
            GROUP => open.push(number),
            GROUP_END if number == *innermost => drop(open.pop()),
            wire => drop(skip_value(rest, wire)?),
        }
    }
    Ok(())
}

/// What metactl knows about a message: its field numbers, and which of them are messages themselves.
struct Schema(&'static [(u32, Shape)]);

#[derive(Clone, Copy)]
enum Shape {
    /// A scalar, or a message without content of its own.
    Leaf,
    /// A message, or a list of them.
    Message(&'static Schema),
    /// A map whose values are messages.
    Map(&'static Schema),
}

use Shape::{Leaf, Map, Message};

static TIMESTAMP: Schema = Schema(&[(1, Leaf), (2, Leaf)]);
static PLATFORM: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Leaf), (4, Leaf), (5, Leaf)]);
static TAG: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Message(&TIMESTAMP))]);
static STATISTICS: Schema = Schema(&[(1, Leaf), (2, Message(&TIMESTAMP)), (3, Message(&TIMESTAMP)), (4, Leaf)]);
static LAYER: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Leaf), (4, Leaf), (5, Message(&TIMESTAMP))]);
static SIGNATURE: Schema = Schema(&[(1, Leaf), (2, Message(&LAYER))]);
static SIGNATURES: Schema = Schema(&[(1, Message(&SIGNATURE))]);
static MANIFEST_SIGNATURES: Schema = Schema(&[(1, Map(&SIGNATURES))]);
static REFERRER: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Leaf), (4, Leaf), (5, Leaf), (6, Leaf)]);
static REFERRERS: Schema = Schema(&[(1, Message(&REFERRER))]);
static LAST_IMAGE: Schema = Schema(&[(1, Message(&TIMESTAMP)), (2, Leaf), (3, Leaf), (4, Leaf)]);
static REPO_META: Schema = Schema(&[
    (1, Leaf),
    (2, Map(&TAG)),
    (3, Map(&STATISTICS)),
    (4, Map(&MANIFEST_SIGNATURES)),
    (5, Map(&REFERRERS)),
    (6, Leaf),
    (7, Leaf),
    (8, Leaf),
    (9, Leaf),
    (10, Leaf),
    (11, Leaf),
    (12, Message(&PLATFORM)),
    (13, Message(&LAST_IMAGE)),
    (14, Leaf),
]);
static BLOB: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Leaf), (4, Message(&PLATFORM)), (5, Message(&TIMESTAMP))]);
static REPO_BLOBS: Schema = Schema(&[(1, Leaf), (2, Map(&BLOB))]);
static VERSIONED: Schema = Schema(&[(1, Leaf)]);
static DESCRIPTOR: Schema =
    Schema(&[(1, Leaf), (2, Leaf), (3, Leaf), (4, Leaf), (5, Leaf), (6, Message(&PLATFORM)), (7, Leaf), (8, Leaf)]);
static MANIFEST: Schema = Schema(&[
    (1, Message(&VERSIONED)),
    (2, Leaf),
    (3, Leaf),
    (4, Message(&DESCRIPTOR)),
    (5, Message(&DESCRIPTOR)),
    (6, Message(&DESCRIPTOR)),
    (7, Leaf),
]);
static INDEX: Schema = Schema(&[
    (1, Message(&VERSIONED)),
    (2, Leaf),
    (3, Leaf),
    (4, Message(&DESCRIPTOR)),
    (5, Message(&DESCRIPTOR)),
    (6, Leaf),
]);
static IMAGE_CONFIG: Schema = Schema(&[
    (1, Leaf),
    (2, Leaf),
    (3, Leaf),
    (4, Leaf),
    (5, Leaf),
    (6, Leaf),
    (7, Leaf),
    (8, Leaf),
    (9, Leaf),
    (10, Leaf),
]);
static ROOT_FS: Schema = Schema(&[(1, Leaf), (2, Leaf)]);
static HISTORY: Schema = Schema(&[(1, Message(&TIMESTAMP)), (2, Leaf), (3, Leaf), (4, Leaf), (5, Leaf)]);
static IMAGE: Schema = Schema(&[
    (1, Message(&TIMESTAMP)),
    (2, Leaf),
    (3, Message(&PLATFORM)),
    (4, Message(&IMAGE_CONFIG)),
    (5, Message(&ROOT_FS)),
    (6, Message(&HISTORY)),
]);
static MANIFEST_META: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Message(&MANIFEST)), (4, Message(&IMAGE))]);
static INDEX_META: Schema = Schema(&[(1, Leaf), (2, Leaf), (3, Message(&INDEX))]);
static IMAGE_META: Schema = Schema(&[(1, Leaf), (2, Message(&MANIFEST_META)), (3, Message(&INDEX_META))]);

/// Kinds of records that can carry unknown fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// RepoMeta.
    RepoMeta,
    /// RepoBlobs.
    RepoBlobs,
    /// ImageMeta.
    ImageMeta,
}

impl Record {
    fn schema(self) -> &'static Schema {
        match self {
            Self::RepoMeta => &REPO_META,
            Self::RepoBlobs => &REPO_BLOBS,
            Self::ImageMeta => &IMAGE_META,
        }
    }

    /// Map fields whose entries pass through a walk, and so carry their unknown fields along.
    fn carried_maps(self) -> &'static [u32] {
        match self {
            Self::RepoMeta => &[2, 3],
            Self::RepoBlobs => &[2],
            Self::ImageMeta => &[],
        }
    }
}

impl Schema {
    fn shape(&self, number: u32) -> Option<Shape> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, shape)| *shape)
    }

    /// Calls `found` with the path of every unknown field, outermost first.
    fn visit(&self, message: &[u8], path: &mut Vec<u32>, found: &mut dyn FnMut(&[u32])) -> Result<(), Malformed> {
        let mut rest = message;
        while let Some(field) = next_field(&mut rest)? {
            path.push(field.number);
            match self.shape(field.number) {
                None => found(path),
                Some(Leaf) => {}
                Some(Message(inner)) => inner.visit(field.payload, path, found)?,
                Some(Map(inner)) => inner.visit(map_entry(field.payload)?.1, path, found)?,
            }
            path.pop();
        }
        Ok(())
    }
}

/// Key and value of a map entry; absent parts are empty.
pub(super) fn map_entry(entry: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut rest = entry;
    while let Some(field) = next_field(&mut rest)? {
        match field.number {
            1 => key = field.payload,
            2 => value = field.payload,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Field paths (`4.2.9`) that this version does not know, each once.
///
/// # Errors
/// [`Malformed`] if the bytes are not a protobuf message.
pub fn unknown_fields(record: Record, bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    let (mut paths, mut seen) = (Vec::new(), HashSet::new());
    record.schema().visit(bytes, &mut Vec::new(), &mut |path| {
        // A hostile record can have a million different ones.
        if seen.insert(path.to_vec()) {
            paths.push(dotted(path));
        }
    })?;
    Ok(paths)
}

fn dotted(path: &[u32]) -> String {
    path.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

/// The first unknown field that a walk could not carry over, if there is one.
///
/// # Errors
/// [`Malformed`] if the bytes are not a protobuf message.
pub fn lost_if_rewritten(record: Record, bytes: &[u8]) -> Result<Option<String>, Malformed> {
    let mut lost = None;
    record.schema().visit(bytes, &mut Vec::new(), &mut |path| {
        let carried = match path {
            [_] => record != Record::ImageMeta,
            [map, _] => record.carried_maps().contains(map),
            _ => false,
        };
        if !carried && lost.is_none() {
            lost = Some(dotted(path));
        }
    })?;
    Ok(lost)
}

/// Unknown fields taken from a record, to be put back into its successor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carry {
    record: Vec<u8>,
    /// (map field, key) → unknown fields of that entry.
    entries: BTreeMap<(u32, Vec<u8>), Vec<u8>>,
}

impl Carry {
    /// Collect the unknown fields that can be carried over.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not a protobuf message.
    pub fn from_record(record: Record, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut carry = Self::default();
        let mut rest = bytes;
        while let Some(field) = next_field(&mut rest)? {
            match record.schema().shape(field.number) {
                None => carry.record.extend_from_slice(field.raw),
                Some(Map(inner)) if record.carried_maps().contains(&field.number) => {
                    let (key, value) = map_entry(field.payload)?;
                    let mut unknown = Vec::new();
                    let mut inside = value;
                    while let Some(member) = next_field(&mut inside)? {
                        if inner.shape(member.number).is_none() {
                            unknown.extend_from_slice(member.raw);
                        }
                    }
                    if !unknown.is_empty() {
                        carry.entries.insert((field.number, key.to_vec()), unknown);
                    }
                }
                Some(_) => {}
            }
        }
        Ok(carry)
    }

    /// Put the unknown fields back into an encoded successor record. Entries that no longer exist stay gone.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not a protobuf message.
    pub fn attach(&self, encoded: Vec<u8>) -> Result<Vec<u8>, Malformed> {
        if self.record.is_empty() && self.entries.is_empty() {
            return Ok(encoded);
        }
        let mut out = Vec::with_capacity(encoded.len() + self.record.len());
        let mut rest = encoded.as_slice();
        while let Some(field) = next_field(&mut rest)? {
            let entry = map_entry(field.payload).ok().and_then(|(key, value)| {
                let unknown = self.entries.get(&(field.number, key.to_vec()))?;
                Some((key, value, unknown))
            });
            let Some((key, value, unknown)) = entry else {
                out.extend_from_slice(field.raw);
                continue;
            };
            let mut body = Vec::new();
            length_delimited(&mut body, 1, &[key]);
            length_delimited(&mut body, 2, &[value, unknown]);
            length_delimited(&mut out, field.number, &[&body]);
        }
        out.extend_from_slice(&self.record);
        Ok(out)
    }
}

pub(super) fn length_delimited(out: &mut impl BufMut, number: u32, parts: &[&[u8]]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(parts.iter().map(|part| part.len() as u64).sum(), out);
    parts.iter().for_each(|part| out.put_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::proto;
    use prost::Message as _;

    fn sample() -> Vec<u8> {
        let mut meta = proto::RepoMeta { name: "r".into(), ..Default::default() };
        meta.statistics.insert("d".into(), proto::DescriptorStatistics { download_count: 3, ..Default::default() });
        meta.tags.insert("t".into(), proto::TagDescriptor { digest: "d".into(), ..Default::default() });
        meta.encode_to_vec()
    }

    /// `sample` with unknown field 50 in the record and 51 in its statistics entry.
    fn newer() -> Vec<u8> {
        let carry = Carry {
            record: vec![0x90, 0x03, 0x07],
            entries: BTreeMap::from([((3, b"d".to_vec()), vec![0x98, 0x03, 0x08])]),
        };
        carry.attach(sample()).unwrap()
    }

    #[test]
    fn a_known_record_has_nothing_to_carry() {
        assert_eq!(unknown_fields(Record::RepoMeta, &sample()).unwrap(), Vec::<String>::new());
        assert_eq!(Carry::from_record(Record::RepoMeta, &sample()).unwrap(), Carry::default());
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let bytes = newer();
        assert_eq!(unknown_fields(Record::RepoMeta, &bytes).unwrap(), ["3.51", "50"]);
        assert_eq!(lost_if_rewritten(Record::RepoMeta, &bytes).unwrap(), None);
        let decoded = proto::RepoMeta::decode(bytes.as_slice()).unwrap();
        let carry = Carry::from_record(Record::RepoMeta, &bytes).unwrap();
        assert_eq!(carry.attach(decoded.encode_to_vec()).unwrap(), bytes);
    }

    #[test]
    fn unknown_groups_survive_a_rewrite_too() {
        // Group 50 holds a number, a text and group 51 with field 50 in it; groups end where their own end stands.
        let group = [0x93, 0x03, 0x08, 0x07, 0x12, 0x01, 0x94, 0x9b, 0x03, 0x90, 0x03, 0x01, 0x9c, 0x03, 0x94, 0x03];
        let bytes = [sample(), group.to_vec()].concat();
        assert_eq!(unknown_fields(Record::RepoMeta, &bytes).unwrap(), ["50"]);
        let carry = Carry::from_record(Record::RepoMeta, &bytes).unwrap();
        assert_eq!(carry.attach(sample()).unwrap(), bytes);
        for malformed in [&group[..14], &[0x93, 0x03, 0x9c, 0x03], &[0x94, 0x03]] {
            assert_eq!(unknown_fields(Record::RepoMeta, malformed), Err(Malformed));
        }
    }

    #[test]
    fn unknown_fields_in_rebuilt_parts_are_reported() {
        let mut bytes = sample();
        // Referrers entry whose ReferrersInfo has field 9.
        let mut body = Vec::new();
        length_delimited(&mut body, 1, &[b"s"]);
        length_delimited(&mut body, 2, &[&[0x48, 0x01]]);
        length_delimited(&mut bytes, 5, &[&body]);
        assert_eq!(lost_if_rewritten(Record::RepoMeta, &bytes).unwrap().as_deref(), Some("5.9"));
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for record in [Record::RepoMeta, Record::RepoBlobs, Record::ImageMeta] {
                let _ = unknown_fields(record, &bytes);
                let _ = lost_if_rewritten(record, &bytes);
                if let Ok(carry) = Carry::from_record(record, &bytes) {
                    let _ = carry.attach(bytes.clone());
                }
            }
        }
    }
}
