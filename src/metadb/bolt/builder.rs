//! Building trees bottom-up into free pages.
//!
//! [`Output`] hands out pages the committed tree does not use and writes them in large pieces. [`TreeBuilder`]
//! takes sorted entries and untouched subtrees and makes pages of them, level by level, keeping no more than
//! about two pages of each level in memory.

use std::path::Path;

use super::BoltError;
use super::file::{FileLayer, write_full};
use super::freelist::Freelist;
use super::page::{BRANCH, BUCKET, ELEMENT, HEADER, LEAF, Meta, push_header};

/// Dirty pages are written once this much has gathered, or when the next page lies elsewhere.
const WRITE_SIZE: usize = 1 << 20;
/// Largest step by which the file grows ahead of need, as bbolt does.
const GROWTH_STEP: u64 = 16 << 20;

/// The pages one transaction takes, gives back and writes.
pub(super) struct Output<'a> {
    layer: &'a dyn FileLayer,
    path: &'a Path,
    pub page_size: usize,
    /// High-water mark of the committed tree; what lies below and is not free belongs to that tree.
    committed: u64,
    pub high_water: u64,
    free: &'a mut Freelist,
    /// Pages taken from `free` by this transaction.
    taken: Freelist,
    /// Pages of the committed tree this one no longer uses. They stay untouched until it is committed.
    freed: Freelist,
    buffer: Vec<u8>,
    /// Page id of the start of `buffer`.
    buffer_at: u64,
    pub file_len: u64,
    pub grew: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        layer: &'a dyn FileLayer,
        path: &'a Path,
        meta: &Meta,
        free: &'a mut Freelist,
        file_len: u64,
    ) -> Self {
        Self {
            layer,
            path,
            page_size: meta.page_size as usize,
            committed: meta.high_water,
            high_water: meta.high_water,
            free,
            taken: Freelist::default(),
            freed: Freelist::default(),
            buffer: Vec::new(),
            buffer_at: 0,
            file_len,
            grew: false,
        }
    }

    /// Take `pages` adjacent pages.
    pub(super) fn allocate(&mut self, pages: u64) -> Result<u64, BoltError> {
        if let Some(id) = self.free.take(pages) {
            if !self.taken.insert(id, pages) {
                return Err(BoltError::damaged(self.path, id, "handed out twice"));
            }
            return Ok(id);
        }
        let id = self.high_water;
        self.high_water += pages;
        Ok(id)
    }

    /// Give back pages of the committed tree. Pages that were free all along show that the freelist or the tree
    /// is damaged, and that writing on would destroy data.
    pub(super) fn release(&mut self, id: u64, pages: u64) -> Result<(), BoltError> {
        let end = id.saturating_add(pages);
        if id < 2 || end > self.committed {
            return Err(BoltError::damaged(self.path, id, "used by the tree, and outside the file"));
        }
        if self.free.overlaps(id, pages) || self.taken.overlaps(id, pages) {
            return Err(BoltError::damaged(self.path, id, "used by the tree, and listed as free"));
        }
        if !self.freed.insert(id, pages) {
            return Err(BoltError::damaged(self.path, id, "used twice by the tree"));
        }
        Ok(())
    }

    /// Pages needed for `len` bytes.
    pub(super) fn pages_for(&self, len: usize) -> u64 {
        len.div_ceil(self.page_size).max(1) as u64
    }

    /// The buffer from which page `id` will be written. The caller must append whole pages, by hand what is small and by
    /// [`Output::append`] what may be large.
    pub(super) fn page_buffer(&mut self, id: u64) -> Result<&mut Vec<u8>, BoltError> {
        let next = self.buffer_at + (self.buffer.len() / self.page_size) as u64;
        if next != id || self.buffer.len() >= WRITE_SIZE {
            self.flush()?;
            self.buffer_at = id;
        }
        Ok(&mut self.buffer)
    }

    /// Go on with a page. What is large passes through piece by piece.
    fn append(&mut self, bytes: &[u8]) -> Result<(), BoltError> {
        for piece in bytes.chunks(WRITE_SIZE) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() >= 2 * WRITE_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fill the last page with zeros.
    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(self.page_size), 0);
    }

    /// Write the whole pages that have gathered, growing the file first where it ends too early.
    pub(super) fn flush(&mut self) -> Result<(), BoltError> {
        let pages = self.buffer.len() / self.page_size;
        let whole = self.buffer.get(..pages * self.page_size).unwrap_or_default();
        if whole.is_empty() {
            return Ok(());
        }
        let page_size = self.page_size as u64;
        let start = self.buffer_at * page_size;
        let end = start + whole.len() as u64;
        if end > self.file_len {
            let ahead = self.file_len.saturating_mul(2).min(self.file_len.saturating_add(GROWTH_STEP));
            let len = end.max(ahead).next_multiple_of(page_size);
            self.layer.set_len(len).map_err(|error| BoltError::io("grow", self.path, error))?;
            self.file_len = len;
            self.grew = true;
        }
        write_full(self.layer, whole, start).map_err(|error| BoltError::io("write", self.path, error))?;
        self.buffer.drain(..pages * self.page_size);
        self.buffer_at += pages as u64;
        Ok(())
    }

    /// Number of pages that will be free once this transaction is committed.
    pub(super) fn free_count(&self) -> u64 {
        self.free.count() + self.freed.count()
    }

    /// Those pages, ascending.
    pub(super) fn free_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.free.ids().chain(self.freed.ids()).collect();
        ids.sort_unstable();
        ids
    }

    /// The transaction is committed: what it freed may be written over from now on.
    pub(super) fn committed(self) -> bool {
        self.freed.runs().all(|(start, len)| self.free.insert(start, len))
    }

    /// The transaction failed: what it took is free again.
    pub(super) fn abandon(self) -> bool {
        self.taken.runs().all(|(start, len)| self.free.insert(start, len))
    }
}

/// A finished tree.
pub(super) enum Built {
    /// Root page.
    Page(u64),
    /// The leaf page of an inline bucket.
    Inline(Vec<u8>),
}

/// A child of a branch page to be.
struct Child {
    key: Vec<u8>,
    id: u64,
}

/// Sizes of a leaf entry whose bytes lie in the leaf's arena.
#[derive(Clone, Copy)]
struct Entry {
    flags: u32,
    key: usize,
    value: usize,
}

impl Entry {
    fn size(self) -> usize {
        ELEMENT + self.key + self.value
    }
}

impl Child {
    fn size(&self) -> usize {
        ELEMENT + self.key.len()
    }
}

/// Makes one tree out of entries and subtrees that arrive in key order.
pub(super) struct TreeBuilder {
    page_size: usize,
    entries: Vec<Entry>,
    /// Keys and values of `entries`, one after another, as they will stand in the page. While an entry is added its value is
    /// not there yet.
    arena: Vec<u8>,
    /// Bytes of those keys and values.
    bytes: usize,
    has_bucket: bool,
    /// Children waiting for a branch page, by level; index 0 holds leaves. A level exists once it had a child.
    branches: Vec<Vec<Child>>,
}

impl TreeBuilder {
    pub(super) fn new(page_size: usize) -> Self {
        Self { page_size, entries: Vec::new(), arena: Vec::new(), bytes: 0, has_bucket: false, branches: Vec::new() }
    }

    fn leaf_size(&self) -> usize {
        HEADER + self.entries.len() * ELEMENT + self.bytes
    }

    /// Add an entry above all earlier ones.
    pub(super) fn push(&mut self, out: &mut Output<'_>, flags: u32, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
        self.entries.push(Entry { flags, key: key.len(), value: value.len() });
        self.arena.extend_from_slice(key);
        self.bytes += key.len() + value.len();
        self.has_bucket |= flags & BUCKET != 0;
        // Two pages are held back so that the last two can share what is left evenly.
        while self.leaf_size() > 2 * self.page_size {
            self.emit_leaf_child(out, self.page_size, value)?;
        }
        // A large value went out with its page and is never copied as a whole.
        if !self.entries.is_empty() {
            self.arena.extend_from_slice(value);
        }
        Ok(())
    }

    /// Whether so little waits at `level` (0: leaves) or below that the next page of that level should be opened
    /// and merged instead of being adopted. Keeps pages from staying nearly empty for ever.
    pub(super) fn is_hungry(&self, level: usize) -> bool {
        let scant = self.page_size / 4;
        if !self.entries.is_empty() && self.leaf_size() < scant {
            return true;
        }
        self.branches.iter().take(level).any(|children| {
            let size = HEADER + children.iter().map(Child::size).sum::<usize>();
            children.len() == 1 || (!children.is_empty() && size < scant)
        })
    }

    /// Take over an untouched page of `level` (0: a leaf) that lies above all earlier entries.
    pub(super) fn adopt(&mut self, out: &mut Output<'_>, level: usize, key: Vec<u8>, id: u64) -> Result<(), BoltError> {
        self.flush_leaves(out)?;
        for below in 0..level {
            self.flush_branches(out, below)?;
        }
        self.push_child(out, level, Child { key, id })
    }

    /// Write what is left. A tree that fits into `inline_limit` bytes, and has no nested bucket, becomes inline.
    pub(super) fn finish(mut self, out: &mut Output<'_>, inline_limit: Option<usize>) -> Result<Built, BoltError> {
        let one_leaf = self.leaf_size() <= self.page_size || self.entries.len() == 1;
        if self.branches.is_empty() && one_leaf {
            if inline_limit.is_some_and(|limit| self.leaf_size() <= limit) && !self.has_bucket {
                let mut page = Vec::with_capacity(self.leaf_size());
                self.encode_table(&mut page, 0, self.entries.len(), 0);
                page.extend_from_slice(&self.arena);
                return Ok(Built::Inline(page));
            }
            return self.emit_leaf(out, self.entries.len(), &[]).map(|child| Built::Page(child.id));
        }
        self.flush_leaves(out)?;
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.branches.len();
            if let (true, Some([only])) = (is_top, self.branches.get(level).map(Vec::as_slice)) {
                return Ok(Built::Page(only.id));
            }
            self.flush_branches(out, level)?;
            level += 1;
        }
    }

    fn flush_leaves(&mut self, out: &mut Output<'_>) -> Result<(), BoltError> {
        while !self.entries.is_empty() {
            let target = share(self.leaf_size(), self.page_size);
            self.emit_leaf_child(out, target, &[])?;
        }
        Ok(())
    }

    fn emit_leaf_child(&mut self, out: &mut Output<'_>, target: usize, last: &[u8]) -> Result<(), BoltError> {
        let count = cut(self.entries.iter().map(|entry| entry.size()), target, self.page_size);
        let child = self.emit_leaf(out, count, last)?;
        self.push_child(out, 0, child)
    }

    /// Write the first `count` entries as one leaf page, with overflow pages if they need it. `last`: the value of the last
    /// entry of all, if it is not in the arena.
    fn emit_leaf(&mut self, out: &mut Output<'_>, count: usize, last: &[u8]) -> Result<Child, BoltError> {
        let bytes: usize = self.entries.iter().take(count).map(|entry| entry.key + entry.value).sum();
        let pages = out.pages_for(HEADER + count * ELEMENT + bytes);
        let id = out.allocate(pages)?;
        self.encode_table(out.page_buffer(id)?, id, count, pages - 1);
        let in_arena = bytes.min(self.arena.len());
        out.append(self.arena.get(..in_arena).unwrap_or_default())?;
        out.append(last.get(..bytes - in_arena).unwrap_or_default())?;
        out.pad();
        let first_key = self.entries.first().map_or(0, |entry| entry.key);
        let key = self.arena.get(..first_key).unwrap_or_default().to_vec();
        self.entries.drain(..count);
        self.arena.drain(..in_arena);
        self.bytes -= bytes;
        Ok(Child { key, id })
    }

    /// Header and element table of a leaf; keys and values follow.
    fn encode_table(&self, buffer: &mut Vec<u8>, id: u64, count: usize, overflow: u64) {
        // Counts and sizes fit: `cut` bounds the count, the batch bounds keys and values.
        push_header(buffer, id, LEAF, count as u16, overflow as u32);
        let mut offset = count * ELEMENT;
        for (index, entry) in self.entries.iter().take(count).enumerate() {
            let pos = offset - index * ELEMENT;
            for word in [entry.flags, pos as u32, entry.key as u32, entry.value as u32] {
                buffer.extend_from_slice(&word.to_le_bytes());
            }
            offset += entry.key + entry.value;
        }
    }

    fn push_child(&mut self, out: &mut Output<'_>, level: usize, child: Child) -> Result<(), BoltError> {
        while self.branches.len() <= level {
            self.branches.push(Vec::new());
        }
        let Some(children) = self.branches.get_mut(level) else { return Ok(()) };
        children.push(child);
        while self.branch_size(level) > 2 * self.page_size && self.branches.get(level).is_some_and(|c| c.len() > 4) {
            self.emit_branch(out, level, self.page_size)?;
        }
        Ok(())
    }

    fn branch_size(&self, level: usize) -> usize {
        let children = self.branches.get(level);
        HEADER + children.map_or(0, |children| children.iter().map(Child::size).sum())
    }

    fn flush_branches(&mut self, out: &mut Output<'_>, level: usize) -> Result<(), BoltError> {
        while self.branches.get(level).is_some_and(|children| !children.is_empty()) {
            let target = share(self.branch_size(level), self.page_size);
            self.emit_branch(out, level, target)?;
        }
        Ok(())
    }

    /// Write a branch page of about `target` bytes and pass it up. A branch has two children at least, however
    /// large their keys: with one each, the tree would never come to a root.
    fn emit_branch(&mut self, out: &mut Output<'_>, level: usize, target: usize) -> Result<(), BoltError> {
        let Some(children) = self.branches.get_mut(level) else { return Ok(()) };
        let mut count = cut(children.iter().map(Child::size), target, self.page_size).max(2).min(children.len());
        if children.len() - count == 1 {
            count = if count > 2 { count - 1 } else { children.len() };
        }
        let group: Vec<Child> = children.drain(..count).collect();
        let size = HEADER + group.iter().map(Child::size).sum::<usize>();
        let pages = out.pages_for(size);
        let id = out.allocate(pages)?;
        let page_size = out.page_size;
        let buffer = out.page_buffer(id)?;
        let end = buffer.len() + pages as usize * page_size;
        push_header(buffer, id, BRANCH, count as u16, (pages - 1) as u32);
        let mut offset = count * ELEMENT;
        for (index, child) in group.iter().enumerate() {
            let pos = offset - index * ELEMENT;
            buffer.extend_from_slice(&(pos as u32).to_le_bytes());
            buffer.extend_from_slice(&(child.key.len() as u32).to_le_bytes());
            buffer.extend_from_slice(&child.id.to_le_bytes());
            offset += child.key.len();
        }
        for child in &group {
            buffer.extend_from_slice(&child.key);
        }
        buffer.resize(end, 0);
        let key = group.into_iter().next().map(|child| child.key).unwrap_or_default();
        self.push_child(out, level + 1, Child { key, id })
    }
}

/// How large the next page should be when `size` bytes are left: full while there is plenty, then evenly.
fn share(size: usize, page_size: usize) -> usize {
    if size > page_size && size <= 2 * page_size { size.div_ceil(2) } else { page_size }
}

/// How many of the elements with these sizes go into the next page: about `target` bytes, at least one element.
/// A page that would stay nearly empty takes the large element that follows, overflow and all.
fn cut(sizes: impl Iterator<Item = usize>, target: usize, page_size: usize) -> usize {
    let mut size = HEADER;
    let mut count = 0;
    for element in sizes.take(usize::from(u16::MAX)) {
        let next = size + element;
        if count > 0 && next > target {
            let nearer = next <= page_size && next - target < target.saturating_sub(size);
            return if nearer || size < page_size / 4 { count + 1 } else { count };
        }
        size = next;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_cut_where_they_are_full() {
        assert_eq!(cut([1000; 10].into_iter(), 4096, 4096), 4, "16 + 4000 fits");
        assert_eq!(cut([5000, 10].into_iter(), 4096, 4096), 1, "an element larger than a page stands alone");
        assert_eq!(cut([100, 90_000, 10].into_iter(), 4096, 4096), 2, "a nearly empty page takes the large element");
        assert_eq!(cut([2000, 90_000].into_iter(), 4096, 4096), 1);
        assert_eq!(cut([500; 10].into_iter(), share(5016, 4096), 4096), 5, "two even halves");
        assert_eq!(cut(std::iter::repeat_n(1, 100_000), 1 << 20, 1 << 20), 65_535, "the count has 16 bits");
    }
}
