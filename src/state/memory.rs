//! What is remembered of one verified repo, and its compact encoding.

use crate::hex::hex;
use crate::records::RepoState;
use crate::storage::{IndexStat, parse_digest};
use crate::verify::Depth;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// Version of the encoding and of what "verified" means; entries of another version are as good as none.
const VERSION: u8 = 2;

/// A short hash: changes by accident are what it must tell, not by design.
pub type ShortHash = [u8; 16];

/// A repo that was found to be as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoMemory {
    /// How deep it was looked at.
    pub depth: Depth,
    /// The version of its index.
    pub index: IndexStat,
    /// SHA-256 of its index.
    pub index_hash: [u8; 32],
    /// SHA-256 of its RepoMeta, RepoBlobs and RepoLastUpdated.
    pub records_hash: [u8; 32],
    /// SHA-256 of the image records of `digests`, and of the number of stars.
    pub images_hash: [u8; 32],
    /// Hash of the metaDB's generation when its records were last found to be these; `None` if the driver has none.
    pub generation: Option<ShortHash>,
    /// When it was looked at, in seconds since 1970.
    pub verified_at: i64,
    /// Every digest that the index lists or a tag names, sorted.
    pub digests: Vec<String>,
}

impl RepoMemory {
    /// What there is to remember now, of no generation yet. `image` gives the record of a digest.
    #[must_use]
    pub fn new<'i>(
        depth: Depth,
        index: &IndexStat,
        text: &[u8],
        records: &RepoState,
        digests: &[String],
        stars: Option<i32>,
        image: impl Fn(&str) -> Option<&'i [u8]>,
    ) -> Self {
        Self {
            depth,
            index: index.clone(),
            index_hash: Sha256::digest(text).into(),
            records_hash: records_hash(records),
            images_hash: images_hash(stars, digests.iter().map(|digest| image(digest).map(short_hash))),
            generation: None,
            verified_at: Timestamp::now().as_second(),
            digests: digests.to_vec(),
        }
    }

    /// What to remember in place of `known`: a shallower look at the same repo does not undo a deeper one.
    #[must_use]
    pub fn over(self, known: Option<Self>) -> Self {
        match known {
            Some(known) if known.depth > self.depth && known.index == self.index => {
                let quick = self.depth == Depth::Quick;
                let same = known.records_hash == self.records_hash && (quick || known.images_hash == self.images_hash);
                match (same, quick) {
                    (false, _) => self,
                    (true, true) => known,
                    (true, false) => Self { generation: self.generation, ..known },
                }
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
        text(&mut out, self.index.tag.as_deref().unwrap_or_default());
        for hash in [&self.index_hash, &self.records_hash, &self.images_hash] {
            out.extend(hash);
        }
        out.push(u8::from(self.generation.is_some()));
        out.extend(self.generation.unwrap_or_default());
        out.extend(self.verified_at.to_le_bytes());
        for digest in &self.digests {
            match sha256(digest) {
                Some(bytes) => {
                    out.push(0);
                    out.extend(bytes);
                }
                None => {
                    out.push(1);
                    text(&mut out, digest);
                }
            }
        }
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
        let (index_hash, records_hash, images_hash) = (from.array()?, from.array()?, from.array()?);
        let generation = match (from.byte()?, from.array::<16>()?) {
            (1, found) => Some(found),
            (0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => None,
            _ => return None,
        };
        let verified_at = i64::from_le_bytes(from.array()?);
        let mut digests = Vec::new();
        while !from.0.is_empty() {
            digests.push(match from.byte()? {
                0 => format!("sha256:{}", hex(&from.array::<32>()?)),
                1 => from.text()?,
                _ => return None,
            });
        }
        let index = IndexStat { size, mtime, tag: tagged.then_some(tag) };
        Some(Self { depth, index, index_hash, records_hash, images_hash, generation, verified_at, digests })
    }
}

/// Hash of a repo's own records.
#[must_use]
pub fn records_hash(records: &RepoState) -> [u8; 32] {
    let mut hash = Sha256::new();
    for record in [&records.meta, &records.blobs, &records.last_updated] {
        part(&mut hash, record.as_deref());
    }
    hash.finalize().into()
}

/// Hash of image records (each hashed by [`short_hash`]) in the order of their digests, and of how often the repo is starred.
#[must_use]
pub fn images_hash(stars: Option<i32>, images: impl Iterator<Item = Option<ShortHash>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    part(&mut hash, stars.map(i32::to_le_bytes).as_ref().map(<[u8; 4]>::as_slice));
    images.for_each(|image| part(&mut hash, image.as_ref().map(<[u8; 16]>::as_slice)));
    hash.finalize().into()
}

/// The beginning of a SHA-256.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> ShortHash {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Absent and empty parts differ, and no part runs into the next.
fn part(hash: &mut Sha256, part: Option<&[u8]>) {
    match part {
        None => hash.update(u64::MAX.to_le_bytes()),
        Some(bytes) => {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Index tags and digests are short; what is not cannot be remembered and is simply verified again.
    let length = u16::try_from(text.len()).unwrap_or_default();
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

/// The bytes of a canonical sha256 digest.
fn sha256(digest: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = parse_digest(digest)?;
    let mut out = [0; 32];
    for (to, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *to = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (algorithm == "sha256").then_some(out)
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
            hashes in any::<([u8; 32], [u8; 32], [u8; 32])>(),
            generation in any::<Option<[u8; 16]>>(),
            verified_at in any::<i64>(),
            digests in proptest::collection::vec("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|.{0,9}", 0..5),
        ) -> RepoMemory {
            RepoMemory {
                depth: Depth::from_number(depth).unwrap(),
                index: IndexStat { size, mtime: Timestamp::from_nanosecond(nanos).unwrap(), tag },
                index_hash: hashes.0,
                records_hash: hashes.1,
                images_hash: hashes.2,
                generation,
                verified_at,
                digests,
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

    #[test]
    fn absent_and_empty_records_hash_differently() {
        let empty = RepoState { meta: Some(Vec::new()), ..RepoState::default() };
        assert_ne!(records_hash(&empty), records_hash(&RepoState::default()));
        let later = RepoState { blobs: Some(Vec::new()), ..RepoState::default() };
        assert_ne!(records_hash(&empty), records_hash(&later));
    }
}
