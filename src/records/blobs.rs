//! RepoBlobs while it is read, folded and compared: keys and contents stay in the record and in the entries that they come
//! from. Decoded, the record of a repo with many tags would take three times its length.

use super::fold::{FoldError, decoded};
use super::image::ImageEntry;
use super::image_info::ImageInfo;
use super::parts::{Value, parts, with_map};
use super::proto;
use super::wire::{Carry, Malformed, Record};
use crate::oci::time::Time;
use foldhash::HashMap;
use prost::Message as _;
use prost::bytes::BufMut;

/// One blob's record.
#[derive(Debug, Clone, Copy)]
pub enum Blob<'a> {
    /// A map entry of a RepoBlobs record, alone.
    Recorded(&'a [u8]),
    /// A config or layer: its size.
    Part(i64),
    /// An image; of an index also the time of the newest of its children.
    Image(&'a ImageEntry, Time),
}

/// Whether they say the same.
impl PartialEq for Blob<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Recorded(own), Self::Recorded(other)) if own == other => true,
            _ => self.info() == other.info(),
        }
    }
}

impl Blob<'_> {
    /// The record.
    #[must_use]
    pub fn info(&self) -> proto::BlobInfo {
        match self {
            Self::Recorded(entry) => recorded(entry),
            Self::Part(size) => proto::BlobInfo { size: *size, ..Default::default() },
            Self::Image(image, newest) => image.blob_info(|_| *newest),
        }
    }

    fn last_updated(&self) -> Option<proto::Timestamp> {
        match self {
            Self::Recorded(entry) => recorded(entry).last_updated,
            Self::Part(_) => None,
            Self::Image(image, newest) => Some(image.last_updated(|_| *newest).into()),
        }
    }
}

/// As its record, without copying what an image has of digests.
impl Value for Blob<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Image(image, newest) => ImageInfo::of(image, *newest).length(),
            Self::Recorded(_) | Self::Part(_) => self.info().encoded_len(),
        }
    }

    fn put(&self, out: &mut impl BufMut) {
        match self {
            Self::Image(image, newest) => ImageInfo::of(image, *newest).put(out),
            Self::Recorded(_) | Self::Part(_) => self.info().encode_raw(out),
        }
    }
}

fn recorded(entry: &[u8]) -> proto::BlobInfo {
    // It was decoded before.
    let found = proto::RepoBlobs::decode(entry).unwrap_or_default();
    found.blobs.into_values().next().unwrap_or_default()
}

/// A RepoBlobs record.
#[derive(Debug, Default)]
pub struct Blobs<'a> {
    name: String,
    blobs: HashMap<&'a str, Blob<'a>>,
    carry: Carry,
}

impl<'a> Blobs<'a> {
    /// What `record` holds, if it can be decoded.
    ///
    /// # Errors
    /// [`Malformed`] if it cannot.
    pub fn recorded(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut out = Self::default();
        parts::<proto::RepoBlobs>(record, |part| {
            match part.number {
                1 => out.name = part.record.name,
                2 => drop(out.blobs.insert(part.key()?, Blob::Recorded(part.raw))),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// What so many images are added to: the prior record, or a new one.
    pub(super) fn prior(repo: &str, record: Option<&'a [u8]>, images: usize) -> Result<Self, FoldError> {
        let mut out = match record {
            Some(bytes) => {
                let (blobs, carry) = decoded(Record::RepoBlobs, bytes, Self::recorded)?;
                Self { carry, ..blobs }
            }
            None => Self { name: repo.to_owned(), ..Self::default() },
        };
        // One for the image, one for its config; layers are shared as a rule.
        out.blobs.reserve(2 * images);
        if out.blobs.is_empty() {
            out.blobs.insert("", Blob::Part(0));
        }
        Ok(out)
    }

    /// `AddImageMetaToRepoMeta`, as far as RepoBlobs goes.
    pub(super) fn add(&mut self, image: &'a ImageEntry) {
        for (digest, size) in image.content.blobs() {
            // Overwrites even a richer entry, as zot does.
            self.blobs.insert(digest, Blob::Part(size));
        }
        let times = image.content.children().iter().filter_map(|child| self.get(child)?.last_updated());
        let newest = times.map(Time::from).fold(Time::ZERO, Time::max);
        self.blobs.insert(&image.digest, Blob::Image(image, newest));
    }

    /// The record of a blob.
    #[must_use]
    pub fn get(&self, digest: &str) -> Option<Blob<'a>> {
        self.blobs.get(digest).copied()
    }

    /// As the record has it: the key itself, and the blob.
    pub(super) fn entry(&self, digest: &str) -> Option<(&'a str, Blob<'a>)> {
        self.blobs.get_key_value(digest).map(|(digest, blob)| (*digest, *blob))
    }

    /// When the image was last updated; `None` if the record does not say.
    #[must_use]
    pub fn last_updated(&self, digest: &str) -> Option<proto::Timestamp> {
        self.blobs.get(digest)?.last_updated()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Blob<'a>)> {
        self.blobs.iter().map(|(digest, blob)| (*digest, *blob))
    }

    /// The bytes of the record. `large`: worth another thread.
    pub(super) fn encode(self, large: bool) -> Result<Vec<u8>, FoldError> {
        let Self { name, blobs, carry } = self;
        let mut all: Vec<_> = blobs.into_iter().map(|(digest, blob)| (start_of(digest), digest, blob)).collect();
        all.sort_unstable_by_key(|(start, digest, _)| (*start, *digest));
        let all: Vec<(&str, Blob<'_>)> = all.into_iter().map(|(_, digest, blob)| (digest, blob)).collect();
        let head = proto::RepoBlobs { name, ..Default::default() }.encode_to_vec();
        let out = with_map(&head, 2, &all, large);
        carry.attach(out).map_err(|Malformed| FoldError::Undecodable { record: "RepoBlobs" })
    }
}

/// Bytes that nearly always decide which of two digests comes first, without looking where these lie.
fn start_of(digest: &str) -> u128 {
    let mut start = [0; 16];
    start.iter_mut().zip(digest.bytes()).for_each(|(to, from)| *to = from);
    u128::from_be_bytes(start)
}
