//! What a repo's tags amount to: size, platforms and vendors (spec §3.5).

use super::blobs::{Blob, Blobs};
use super::proto;
use foldhash::{HashSet, HashSetExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// Sums over the blobs that a repo's tags reach, each blob once.
#[derive(Debug, Default)]
pub struct Sums {
    /// Bytes of all blobs.
    pub size: i64,
    /// By OS, then by architecture; of equal ones the first is kept.
    platforms: BTreeMap<String, BTreeMap<String, proto::Platform>>,
    /// Vendors.
    pub vendors: BTreeSet<String>,
}

impl Sums {
    /// Those of `blobs`, as far as `tags` reach them through `counted` ones.
    #[must_use]
    pub fn reached<'t>(
        tags: impl Iterator<Item = &'t proto::TagDescriptor>,
        blobs: &Blobs<'_>,
        mut counted: impl FnMut(&str) -> bool,
    ) -> Self {
        let mut sums = Self::default();
        let mut seen = HashSet::with_capacity(blobs.len());
        let mut queue: Vec<_> =
            tags.filter(|tag| !tag.digest.is_empty()).filter_map(|tag| blobs.entry(&tag.digest)).collect();
        while let Some((digest, blob)) = queue.pop() {
            if !counted(digest) || !seen.insert(digest) {
                continue;
            }
            match blob {
                Blob::Part(size) => sums.size = sums.size.wrapping_add(size),
                Blob::Image(image, _) => {
                    sums.size = sums.size.wrapping_add(image.size);
                    sums.add(image.content.platforms(), image.content.vendors());
                    queue.extend(image.content.digests().filter_map(|part| blobs.entry(part)));
                }
                Blob::Recorded(_) => {
                    let info = blob.info();
                    sums.size = sums.size.wrapping_add(info.size);
                    sums.add(&info.platforms, &info.vendors);
                    queue.extend(info.sub_blobs.iter().filter_map(|part| blobs.entry(part)));
                }
            }
        }
        sums
    }

    /// Those that a record states.
    #[must_use]
    pub fn stated(size: i64, platforms: &[proto::Platform], vendors: &[String]) -> Self {
        let mut sums = Self { size, ..Self::default() };
        sums.add(platforms, vendors);
        sums
    }

    fn add<'p>(
        &mut self,
        platforms: impl IntoIterator<Item = &'p proto::Platform>,
        vendors: impl IntoIterator<Item = &'p String>,
    ) {
        for platform in platforms {
            // Nearly always one that is known.
            let known =
                self.platforms.get(&platform.os).is_some_and(|known| known.contains_key(&platform.architecture));
            if !known {
                let of_os = self.platforms.entry(platform.os.clone()).or_default();
                of_os.insert(platform.architecture.clone(), platform.clone());
            }
        }
        for vendor in vendors {
            if !self.vendors.contains(vendor) {
                self.vendors.insert(vendor.clone());
            }
        }
    }

    /// Platforms by OS and architecture.
    #[must_use]
    pub fn platforms(&self) -> BTreeSet<(&str, &str)> {
        self.platforms
            .iter()
            .flat_map(|(os, known)| known.keys().map(|architecture| (os.as_str(), architecture.as_str())))
            .collect()
    }

    /// Size, vendors and platforms as RepoMeta has them.
    #[must_use]
    pub fn into_lists(self) -> (i64, Vec<String>, Vec<proto::Platform>) {
        let platforms = self.platforms.into_values().flat_map(BTreeMap::into_values).collect();
        (self.size, self.vendors.into_iter().collect(), platforms)
    }
}

/// As zot compares them: platforms by OS and architecture alone, and in any order (spec §6).
impl PartialEq for Sums {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.vendors == other.vendors && self.platforms() == other.platforms()
    }
}
