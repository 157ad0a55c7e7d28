//! A walk over the whole tree that accounts for every page, as bbolt's `Check` does.

use std::ops::ControlFlow;

use super::page::{MAX_DEPTH, NO_FREELIST, Node};
use super::tree::{Root, Tx, Walk};
use super::{BoltError, printable};

/// Problems kept for the report; a badly damaged file must not fill the memory with sentences.
const MAX_PROBLEMS: usize = 100;

/// What a check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Transaction that was checked.
    pub txid: u64,
    /// Pages up to the high-water mark.
    pub pages: u64,
    /// Pages holding branches, without overflow.
    pub branch_pages: u64,
    /// Pages holding leaves, without overflow.
    pub leaf_pages: u64,
    /// Pages that continue another one.
    pub overflow_pages: u64,
    /// Pages in the freelist; pages not reachable if the file stores no freelist.
    pub free_pages: u64,
    /// Buckets, inline ones included, without the root bucket.
    pub buckets: u64,
    /// Buckets stored inside their parent's leaf.
    pub inline_buckets: u64,
    /// Keys with plain values.
    pub keys: u64,
    /// Everything found wrong, at most the first hundred findings.
    pub problems: Vec<String>,
}

impl CheckReport {
    /// Nothing was found wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, text: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text.into());
        }
    }
}

/// One bit for every page.
pub(super) struct PageSet {
    bits: Vec<u64>,
}

impl PageSet {
    /// A set for page ids below `pages`, which must not be more than the file holds.
    pub(super) fn new(pages: u64) -> Self {
        Self { bits: vec![0; usize::try_from(pages / 64 + 1).unwrap_or(0)] }
    }

    /// Add a page; false if it was there already or lies outside.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        let Some(word) = usize::try_from(id / 64).ok().and_then(|index| self.bits.get_mut(index)) else { return false };
        let bit = 1 << (id % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        let word = usize::try_from(id / 64).ok().and_then(|index| self.bits.get(index));
        word.is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

impl Tx<'_> {
    /// Walk all buckets and account for every page: each reachable exactly once or free, types, ranges, order of
    /// keys, leaves of a bucket at one depth, the freelist. Reads every page, but no value in overflow pages.
    ///
    /// # Errors
    /// Damage is reported in [`CheckReport::problems`]; an error is returned only if the file could not be read
    /// or the check was cancelled.
    pub fn check(&self) -> Result<CheckReport, BoltError> {
        let (mut report, used) = self.check_tree()?;
        self.check_freelist(&mut report, used)?;
        Ok(report)
    }

    /// The tree part of [`Tx::check`], with the set of pages the tree uses.
    pub(super) fn check_tree(&self) -> Result<(CheckReport, PageSet), BoltError> {
        let mut report = CheckReport { txid: self.txid(), pages: self.page_count(), ..CheckReport::default() };
        let len = self.pager.layer.len().map_err(|error| BoltError::io("stat", self.pager.path, error))?;
        let in_file = len / self.pager.page_size;
        if in_file < self.page_count() {
            report.problem(format!("the file has {in_file} pages of the {} in its meta page", self.page_count()));
        }
        let mut used = PageSet::new(self.page_count().min(in_file));
        used.insert(0);
        used.insert(1);
        self.check_bucket("/", Root::Page(self.meta.root), 0, &mut report, &mut used)?;
        Ok((report, used))
    }

    fn check_bucket(
        &self,
        name: &str,
        root: Root,
        nesting: usize,
        report: &mut CheckReport,
        used: &mut PageSet,
    ) -> Result<(), BoltError> {
        if nesting > MAX_DEPTH {
            report.problem(format!("bucket {name}: nested deeper than {MAX_DEPTH}"));
            return Ok(());
        }
        let is_inline = matches!(root, Root::Inline(_));
        let mut leaf_depth = None;
        let mut inner: Vec<(u64, Vec<u8>, Vec<u8>)> = Vec::new();
        let mut keys = 0;
        let mut claim = |node: &Node, depth: usize| {
            if node.is_leaf && *leaf_depth.get_or_insert(depth) != depth {
                return Err(self.pager.damaged(node.id, "leaves of one bucket lie at different depths"));
            }
            for id in node.id..=node.id.saturating_add(node.overflow.into()) {
                if !used.insert(id) {
                    return Err(self.pager.damaged(id, "it is used twice or lies beyond the end of the file"));
                }
            }
            *(if node.is_leaf { &mut report.leaf_pages } else { &mut report.branch_pages }) += 1;
            report.overflow_pages += u64::from(node.overflow);
            Ok(())
        };
        let mut walk = Walk::new(self, root);
        let result = walk.run(&[], &mut claim, &mut |node, element, key| {
            if element.is_bucket() {
                inner.push((node.id, key.to_vec(), self.pager.value(node, element)?.into_owned()));
            } else {
                keys += 1;
            }
            Ok::<_, BoltError>(ControlFlow::Continue(()))
        });
        self.note(result, name, report)?;
        report.keys += keys;
        for (page, key, value) in inner {
            let path = format!("{name}{}/", printable(&key));
            report.buckets += 1;
            if is_inline {
                report.problem(format!("bucket {path}: lies in an inline bucket"));
                continue;
            }
            match self.open_bucket(page, &value) {
                Ok((root, _)) => {
                    report.inline_buckets += u64::from(matches!(root, Root::Inline(_)));
                    self.check_bucket(&path, root, nesting + 1, report, used)?;
                }
                Err(error) => self.note(Err(error), &path, report)?,
            }
        }
        Ok(())
    }

    fn check_freelist(&self, report: &mut CheckReport, mut used: PageSet) -> Result<(), BoltError> {
        let listed = match self.pager.freelist(self.meta.freelist) {
            Ok(listed) => listed,
            Err(error) => return self.note(Err(error), "freelist", report),
        };
        // A damaged high-water mark can be far beyond the file.
        let in_file = self.page_count().min((used.bits.len() as u64).saturating_mul(64));
        let Some((ids, pages)) = listed else {
            report.free_pages = (0..in_file).filter(|id| !used.contains(*id)).count() as u64;
            return Ok(());
        };
        debug_assert_ne!(self.meta.freelist, NO_FREELIST);
        for id in self.meta.freelist..self.meta.freelist.saturating_add(pages) {
            if !used.insert(id) {
                report.problem(format!("page {id}: belongs to the freelist and to something else"));
            }
        }
        for id in &ids {
            if !used.insert(*id) {
                report.problem(format!("page {id}: free and in use"));
            }
        }
        report.free_pages = ids.len() as u64;
        let mut lost = (0..in_file).filter(|id| !used.contains(*id));
        if let Some(first) = lost.next() {
            report.problem(format!("{} pages are neither reachable nor free, the first is {first}", lost.count() + 1));
        }
        Ok(())
    }

    /// Turn damage into a finding; pass on what says nothing about the file.
    fn note(&self, result: Result<(), BoltError>, name: &str, report: &mut CheckReport) -> Result<(), BoltError> {
        match result {
            Err(BoltError::Damaged { page, detail, .. }) => {
                report.problem(format!("bucket {name}: page {page}: {detail}"));
                Ok(())
            }
            other => other,
        }
    }
}
