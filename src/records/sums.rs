//! What a repo's tags amount to: size, platforms and vendors (spec §3.5).

use super::proto;
use std::collections::{BTreeMap, BTreeSet};

/// Sums over the blobs that a repo's tags reach, each blob once.
#[derive(Debug, Default)]
pub struct Sums<'r> {
    /// Bytes of all blobs.
    pub size: i64,
    /// By OS and architecture; of equal ones the first is kept.
    pub platforms: BTreeMap<(&'r str, &'r str), &'r proto::Platform>,
    /// Vendors.
    pub vendors: BTreeSet<&'r str>,
}

impl<'r> Sums<'r> {
    /// Those of `blobs`, as far as `tags` reach them through `counted` ones.
    #[must_use]
    pub fn reached(
        tags: &'r BTreeMap<String, proto::TagDescriptor>,
        blobs: &'r proto::RepoBlobs,
        mut counted: impl FnMut(&str) -> bool,
    ) -> Self {
        let mut sums = Self::default();
        let mut seen = BTreeSet::new();
        let mut queue: Vec<&str> =
            tags.values().map(|tag| tag.digest.as_str()).filter(|digest| !digest.is_empty()).collect();
        while let Some(digest) = queue.pop() {
            let Some(blob) = blobs.blobs.get(digest).filter(|_| counted(digest)) else { continue };
            if !seen.insert(digest) {
                continue;
            }
            sums.size = sums.size.wrapping_add(blob.size);
            sums.add(&blob.platforms, &blob.vendors);
            queue.extend(blob.sub_blobs.iter().map(String::as_str));
        }
        sums
    }

    /// Those that a record states.
    #[must_use]
    pub fn stated(meta: &'r proto::RepoMeta) -> Self {
        let mut sums = Self { size: meta.size, ..Self::default() };
        sums.add(&meta.platforms, &meta.vendors);
        sums
    }

    fn add(&mut self, platforms: &'r [proto::Platform], vendors: &'r [String]) {
        for platform in platforms {
            self.platforms.entry((&platform.os, &platform.architecture)).or_insert(platform);
        }
        self.vendors.extend(vendors.iter().map(String::as_str));
    }
}

/// As zot compares them: platforms by OS and architecture alone, and in any order (spec §6).
impl PartialEq for Sums<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.vendors == other.vendors && self.platforms.keys().eq(other.platforms.keys())
    }
}
