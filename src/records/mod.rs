//! zot's records: from decoded documents to the bytes that the metaDB keeps (spec: "Record semantics").
//!
//! ```text
//! documents ─► image (ImageMeta, facts for the fold)  ┐
//! documents ─► signature (which image, which layers)  ├─► fold over one repo's prior state ─► RepoChange
//! metaDB    ─► RepoState (raw bytes)                  ┘
//! ```
//!
//! Everything here is pure: the same inputs give the same bytes. Encodings are deterministic (maps in key order), so an
//! unchanged record is also byte-for-byte unchanged.

pub mod blob_list;
pub mod blobs;
pub mod fold;
pub mod image;
mod image_info;
pub mod meta;
mod parts;
#[rustfmt::skip]
#[expect(missing_docs, reason = "generated; documented by proto/zot.proto")]
pub mod proto;
pub mod signature;
pub mod sums;
pub mod wire;

use crate::oci::time::Time;
use prost::Message as _;

/// One repo's records as the metaDB holds them, undecoded. `None` means the key is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoState {
    /// `RepoMeta` record.
    pub meta: Option<Vec<u8>>,
    /// `RepoBlobs` record.
    pub blobs: Option<Vec<u8>>,
    /// `RepoLastUpdated` time stamp.
    pub last_updated: Option<Vec<u8>>,
}

impl RepoState {
    /// RepoLastUpdated as zot reads it: absent, empty, undecodable and 1970 all count as Go's zero time.
    #[must_use]
    pub fn last_updated(&self) -> Time {
        self.last_updated.as_deref().map_or(Time::ZERO, decode_last_updated)
    }
}

/// RepoLastUpdated from its bytes, as [`RepoState::last_updated`].
#[must_use]
pub fn decode_last_updated(bytes: &[u8]) -> Time {
    match proto::Timestamp::decode(bytes) {
        Ok(at) if (at.seconds, at.nanos) != (0, 0) => at.into(),
        _ => Time::ZERO,
    }
}

/// What a walk does to one repo's records, all of it in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepoChange {
    /// Leave everything as it is.
    Keep,
    /// Remove RepoMeta, RepoBlobs and RepoLastUpdated.
    Delete,
    /// Write what is `Some`; `None` leaves that record as it is.
    Write {
        /// New RepoMeta.
        meta: Option<Vec<u8>>,
        /// New RepoBlobs.
        blobs: Option<Vec<u8>>,
        /// New RepoLastUpdated.
        last_updated: Option<Vec<u8>>,
    },
}

impl RepoChange {
    /// Without the records that `prior` has already: after most forced walks all but the time stamp.
    #[must_use]
    pub fn since(self, prior: &RepoState) -> Self {
        let Self::Write { meta, blobs, last_updated } = self else { return self };
        let new = |record: Option<Vec<u8>>, prior: &Option<Vec<u8>>| record.filter(|new| prior.as_ref() != Some(new));
        Self::Write {
            meta: new(meta, &prior.meta),
            blobs: new(blobs, &prior.blobs),
            last_updated: new(last_updated, &prior.last_updated),
        }
    }
}

impl From<Time> for proto::Timestamp {
    fn from(at: Time) -> Self {
        Self { seconds: at.seconds, nanos: at.nanos }
    }
}

impl From<proto::Timestamp> for Time {
    fn from(at: proto::Timestamp) -> Self {
        Self { seconds: at.seconds, nanos: at.nanos }
    }
}

/// Bytes of a time stamp record.
#[must_use]
pub fn encode_time(at: Time) -> Vec<u8> {
    proto::Timestamp::from(at).encode_to_vec()
}
