//! Which digests are reached: all that verify keeps of every image of a registry.

use std::collections::HashSet;

/// A set of digests, 16 bytes each: what collides hides an orphan, which hurts nobody.
#[derive(Debug, Default)]
pub struct Reached {
    keys: HashSet<u128>,
    /// Keys of all image records, if a pass over them was made anyway.
    pub recorded: Option<HashSet<u128>>,
}

impl Reached {
    /// Add digests.
    pub fn extend<'d>(&mut self, digests: impl IntoIterator<Item = &'d String>) {
        self.keys.extend(digests.into_iter().map(|digest| key(digest)));
    }

    /// Whether a digest is in it.
    #[must_use]
    pub fn contains(&self, digest: &str) -> bool {
        self.keys.contains(&key(digest))
    }

    /// Whether it is known already that every image record is in this set or in `other`.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        self.recorded
            .as_ref()
            .is_some_and(|all| all.iter().all(|key| self.keys.contains(key) || other.keys.contains(key)))
    }
}

/// 16 bytes that stand for a digest.
#[must_use]
pub fn key(digest: &str) -> u128 {
    let hex = digest.split_once(':').and_then(|(_, hex)| hex.get(..32));
    hex.and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_else(|| {
        // Not a digest that zot accepts: any stable key will do.
        digest
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |key: u128, byte| (key ^ u128::from(byte)).wrapping_mul(0x100_0000_01b3))
    })
}
