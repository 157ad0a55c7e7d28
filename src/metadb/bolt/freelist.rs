//! Which pages are free, as runs of adjacent pages.

use std::collections::{BTreeMap, BTreeSet};

/// Free pages. A page is in at most one run, and adjacent runs are one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Freelist {
    /// Length of each run by its first page.
    runs: BTreeMap<u64, u64>,
    /// The same runs as (length, first page), to find one that is long enough.
    by_length: BTreeSet<(u64, u64)>,
    count: u64,
}

impl Freelist {
    /// From ids in ascending order without duplicates.
    pub(super) fn from_sorted(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut list = Self::default();
        let mut run: Option<(u64, u64)> = None;
        for id in ids {
            run = match run {
                Some((start, len)) if start + len == id => Some((start, len + 1)),
                other => {
                    if let Some((start, len)) = other {
                        list.add_run(start, len);
                    }
                    Some((id, 1))
                }
            };
        }
        if let Some((start, len)) = run {
            list.add_run(start, len);
        }
        list
    }

    /// Number of free pages.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// All free page ids, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(start, len)| *start..start + len)
    }

    /// The runs as (first page, length), ascending.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(start, len)| (*start, *len))
    }

    /// Whether any of the `len` pages from `start` is free.
    pub(super) fn overlaps(&self, start: u64, len: u64) -> bool {
        let before = self.runs.range(..start.saturating_add(len)).next_back();
        before.is_some_and(|(first, run)| first + run > start)
    }

    /// Add pages; false (and nothing changed) if any of them is free already.
    #[must_use]
    pub(super) fn insert(&mut self, start: u64, len: u64) -> bool {
        if len == 0 {
            return true;
        }
        if self.overlaps(start, len) {
            return false;
        }
        let (mut start, mut len) = (start, len);
        if let Some((&first, &run)) = self.runs.range(..start).next_back()
            && first + run == start
        {
            self.remove_run(first, run);
            (start, len) = (first, run + len);
        }
        if let Some(&run) = self.runs.get(&(start + len)) {
            self.remove_run(start + len, run);
            len += run;
        }
        self.add_run(start, len);
        true
    }

    /// Take `len` adjacent pages. Single pages come in ascending order, so that pages written one after another
    /// lie side by side where possible; longer runs come from the tightest fit.
    pub(super) fn take(&mut self, len: u64) -> Option<u64> {
        let (start, run) = if len == 1 {
            self.runs.first_key_value().map(|(start, run)| (*start, *run))?
        } else {
            self.by_length.range((len, 0)..).next().map(|(run, start)| (*start, *run))?
        };
        self.remove_run(start, run);
        if run > len {
            self.add_run(start + len, run - len);
        }
        Some(start)
    }

    fn add_run(&mut self, start: u64, len: u64) {
        self.runs.insert(start, len);
        self.by_length.insert((len, start));
        self.count += len;
    }

    fn remove_run(&mut self, start: u64, len: u64) {
        self.runs.remove(&start);
        self.by_length.remove(&(len, start));
        self.count -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_and_split() {
        let mut list = Freelist::from_sorted([3, 4, 5, 9, 11, 12]);
        assert_eq!(list.count(), 6);
        assert!(list.insert(10, 1), "joins its neighbours");
        assert!(!list.insert(8, 2), "9 is free already");
        assert_eq!(list.ids().collect::<Vec<_>>(), [3, 4, 5, 9, 10, 11, 12]);
        assert_eq!(list.take(4), Some(9));
        assert_eq!(list.take(4), None);
        assert_eq!(list.take(1), Some(3));
        assert_eq!(list.take(2), Some(4));
        assert_eq!(list, Freelist::default());
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let list = Freelist::from_sorted([10, 11, 12]);
        for (start, len, expected) in [(9, 1, false), (9, 2, true), (12, 5, true), (13, 5, false), (5, 20, true)] {
            assert_eq!(list.overlaps(start, len), expected, "{start}+{len}");
        }
    }
}
