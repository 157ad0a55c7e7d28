//! What is remembered of one verified repo, and its compact encoding.

use super::Digests;
use crate::checksum::{Checksum, checksum, of_all};
use crate::records::RepoState;
use crate::storage::IndexStat;
use crate::verify::Depth;
use jiff::Timestamp;

/// Version of the encoding and of what "verified" means; entries of another version are as good as none.
const VERSION: u8 = 3;

/// A repo that was found to be as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoMemory {
    /// How deep it was looked at.
    pub depth: Depth,
    /// The version of its index.
    pub index: IndexStat,
    /// [`records_checksum`] of its own records.
    pub records: Checksum,
    /// [`images_checksum`] of the image records of `digests`.
    pub images: Checksum,
    /// When it was looked at, in seconds since 1970.
    pub verified_at: i64,
    /// Every digest that the index lists or a tag names, sorted.
    pub digests: Digests,
}

impl RepoMemory {
    /// What there is to remember now. `images`: checksums of the image records of `digests`, in their order.
    #[must_use]
    pub fn new(
        depth: Depth,
        index: &IndexStat,
        records: &RepoState,
        digests: &[String],
        stars: Option<i32>,
        images: impl Iterator<Item = Option<Checksum>>,
    ) -> Self {
        Self {
            depth,
            index: index.clone(),
            records: records_checksum(records),
            images: images_checksum(stars, images),
            verified_at: Timestamp::now().as_second(),
            digests: Digests::new(digests.iter().map(String::as_str)),
        }
    }

    /// What to remember in place of `known`: a shallower look at the same repo does not undo a deeper one.
    #[must_use]
    pub fn over(self, known: Option<Self>) -> Self {
        match known {
            Some(known)
                if known.depth > self.depth
                    && known.index == self.index
                    && known.records == self.records
                    && (self.depth == Depth::Quick || known.images == self.images) =>
            {
                known
            }
            _ => self,
        }
    }

    /// Bytes for the state file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.depth as u8];
        let mtime = self.index.mtime.as_nanosecond();
        out.extend(self.index.size.to_le_bytes());
        out.extend(mtime.to_le_bytes());
        out.push(u8::from(self.index.tag.is_some()));
        push_text(&mut out, self.index.tag.as_deref().unwrap_or_default());
        out.extend(self.records.to_le_bytes());
        out.extend(self.images.to_le_bytes());
        out.extend(self.verified_at.to_le_bytes());
        out.extend(self.digests.as_bytes());
        out
    }

    /// From [`RepoMemory::encode`]; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let depth = Depth::from_number(from.byte()?)?;
        let size = u64::from_le_bytes(from.array()?);
        let mtime = Timestamp::from_nanosecond(i128::from_le_bytes(from.array()?)).ok()?;
        let tagged = match from.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let tag = from.text()?;
        if !tagged && !tag.is_empty() {
            return None;
        }
        let index = IndexStat { size, mtime, tag: tagged.then_some(tag) };
        let (records, images) = (Checksum::from_le_bytes(from.array()?), Checksum::from_le_bytes(from.array()?));
        let verified_at = i64::from_le_bytes(from.array()?);
        Some(Self { depth, index, records, images, verified_at, digests: Digests::from_bytes(from.0)? })
    }
}

/// Checksum of a repo's own records.
#[must_use]
pub fn records_checksum(records: &RepoState) -> Checksum {
    let parts = [&records.meta, &records.blobs, &records.last_updated];
    of_all(parts.into_iter().map(|record| record.as_deref().map(checksum)))
}

/// Checksum of image records, each given by its own, in the order of their digests, and of how often the repo is starred.
#[must_use]
pub fn images_checksum(stars: Option<i32>, images: impl Iterator<Item = Option<Checksum>>) -> Checksum {
    let stars = stars.map(|stars| checksum(&stars.to_le_bytes()));
    of_all(std::iter::once(stars).chain(images))
}

/// Append a text and its length.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    // Index tags and digests are short; what is not cannot be remembered and is simply verified again.
    let length = u16::try_from(text.len()).unwrap_or_default();
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn memory()(
            depth in 0..3_u8,
            size in any::<u64>(),
            nanos in -377_705_023_201_000_000_000_i128..253_402_207_200_000_000_000_i128,
            tag in proptest::option::of(".{0,20}"),
            (records, images) in any::<(u128, u128)>(),
            verified_at in any::<i64>(),
            digests in proptest::collection::vec("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|.{0,9}", 0..5),
        ) -> RepoMemory {
            RepoMemory {
                depth: Depth::from_number(depth).unwrap(),
                index: IndexStat { size, mtime: Timestamp::from_nanosecond(nanos).unwrap(), tag },
                records,
                images,
                verified_at,
                digests: Digests::new(digests.iter().map(String::as_str)),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(memory in memory()) {
            prop_assert_eq!(RepoMemory::decode(&memory.encode()), Some(memory));
        }

        #[test]
        fn hostile_bytes_are_no_memory_or_a_whole_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(memory) = RepoMemory::decode(&bytes) {
                prop_assert_eq!(RepoMemory::decode(&memory.encode()), Some(memory));
            }
        }

        #[test]
        fn cut_or_flipped_memories_never_panic(memory in memory(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = memory.encode();
            let at = at.index(bytes.len());
            let _ = RepoMemory::decode(&bytes[..at]);
            bytes[at] ^= 1_u8 << bit;
            let _ = RepoMemory::decode(&bytes);
        }
    }
}
