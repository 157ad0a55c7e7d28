//! Which digests are reached: all that verify keeps of every image of a registry.

use crate::state::{Digests, short};
use std::collections::HashSet;

/// A set of digests, 16 bytes each: what collides hides an orphan, which hurts nobody.
#[derive(Debug, Default)]
pub struct Reached {
    keys: HashSet<u128>,
    /// Keys of all image records, if a pass over them was made anyway.
    pub recorded: Option<Vec<u128>>,
}

impl Reached {
    /// Add digests.
    pub fn extend<'d>(&mut self, digests: impl IntoIterator<Item = &'d String>) {
        self.keys.extend(digests.into_iter().map(|digest| short(digest)));
    }

    /// Add remembered digests.
    pub fn extend_packed(&mut self, digests: &Digests) {
        self.keys.extend(digests.shorts());
    }

    /// Whether a digest is in it.
    #[must_use]
    pub fn contains(&self, digest: &str) -> bool {
        self.keys.contains(&short(digest))
    }

    /// Whether it is known already that every image record is in this set or in `other`.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        self.recorded
            .as_ref()
            .is_some_and(|all| all.iter().all(|key| self.keys.contains(key) || other.keys.contains(key)))
    }
}
