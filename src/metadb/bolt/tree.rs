//! Read access to one committed tree: transactions, buckets, walks in key order.

use std::ops::{ControlFlow, Range};

use super::BoltError;
use super::ahead::ReadAhead;
use super::page::{Element, MAX_DEPTH, Meta, Node};
use super::pager::Pager;
use crate::cancel::Cancel;

/// One committed state of the file. Cheap, and usable from several threads at once.
pub struct Tx<'a> {
    pub(super) pager: Pager<'a>,
    pub(super) meta: Meta,
    pub(super) cancel: Cancel,
}

/// What a walk over a bucket finds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'v> {
    /// A plain value.
    Bytes(&'v [u8]),
    /// A nested bucket; open it with [`Bucket::bucket`].
    Bucket,
}

/// What a walk over the keys of a bucket learns about each without reading its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain value of so many bytes.
    Value {
        /// Length of the value in bytes.
        len: u64,
    },
    /// A nested bucket.
    Bucket,
}

/// A bucket of a [`Tx`].
pub struct Bucket<'t> {
    tx: &'t Tx<'t>,
    root: Root,
    sequence: u64,
    /// How many buckets are around this one.
    nesting: usize,
}

/// Where the tree of a bucket starts.
#[derive(Clone)]
pub(super) enum Root {
    Page(u64),
    Inline(Node),
}

impl<'a> Tx<'a> {
    /// Transaction id: grows by one with every commit.
    #[must_use]
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.meta.page_size
    }

    /// Number of pages the file has ever used (the high-water mark).
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.meta.high_water
    }

    /// The bucket that holds all others.
    #[must_use]
    pub fn root(&self) -> Bucket<'_> {
        Bucket { tx: self, root: Root::Page(self.meta.root), sequence: self.meta.sequence, nesting: 0 }
    }

    /// The bucket at `path`, outermost name first; `None` if any part is absent or not a bucket. The empty path
    /// names the root bucket.
    ///
    /// # Errors
    /// [`BoltError::Damaged`] or [`BoltError::Io`].
    pub fn bucket(&self, path: &[&[u8]]) -> Result<Option<Bucket<'_>>, BoltError> {
        let mut bucket = self.root();
        for name in path {
            let Some(inner) = bucket.bucket(name)? else { return Ok(None) };
            bucket = inner;
        }
        Ok(Some(bucket))
    }

    /// This state, read in larger pieces: for walks over much of it.
    pub fn ahead<T>(&self, read: impl FnOnce(&Tx<'_>) -> T) -> T {
        let layer = ReadAhead::new(self.pager.layer);
        let pager = Pager { layer: &layer, ..self.pager };
        read(&Tx { pager, meta: self.meta.clone(), cancel: self.cancel.clone() })
    }

    pub(super) fn check_cancel(&self) -> Result<(), BoltError> {
        if self.cancel.is_cancelled() { Err(BoltError::Cancelled) } else { Ok(()) }
    }

    /// Where the bucket in `value`, found in page `page`, has its tree, and its sequence.
    pub(super) fn open_bucket(&self, page: u64, value: &[u8]) -> Result<(Root, u64), BoltError> {
        let header = self.pager.bucket_header(page, value)?;
        let root = if header.root == 0 {
            Root::Inline(self.pager.inline_node(page, header.inline)?)
        } else {
            Root::Page(header.root)
        };
        Ok((root, header.sequence))
    }
}

impl<'t> Bucket<'t> {
    /// The bucket's sequence number, which only its users give a meaning.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The value of `key`; `None` if it is absent or names a nested bucket. Reads only the pages on the way to it.
    ///
    /// # Errors
    /// [`BoltError::Damaged`] or [`BoltError::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
        self.lookup().get(key)
    }

    /// What stands under `key`, without reading a value.
    ///
    /// # Errors
    /// [`BoltError::Damaged`] or [`BoltError::Io`].
    pub fn kind(&self, key: &[u8]) -> Result<Option<EntryKind>, BoltError> {
        Ok(self.lookup().find(key)?.map(|(_, element)| element.into()))
    }

    /// The nested bucket `name`; `None` if it is absent or a plain value.
    ///
    /// # Errors
    /// [`BoltError::Damaged`], also for more than 64 buckets inside each other, or [`BoltError::Io`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'t>>, BoltError> {
        match self.lookup().find(name)? {
            Some((node, element)) if element.is_bucket() => {
                // In a damaged file a bucket may contain itself; callers that recurse must come to an end.
                let nesting = self.nesting.saturating_add(1);
                if nesting > MAX_DEPTH {
                    return Err(self.tx.pager.damaged(node.id, format!("buckets nested deeper than {MAX_DEPTH}")));
                }
                let value = self.tx.pager.value(node, element)?;
                let (root, sequence) = self.tx.open_bucket(node.id, &value)?;
                Ok(Some(Bucket { tx: self.tx, root, sequence, nesting }))
            }
            _ => Ok(None),
        }
    }

    /// Call `f` with every key and value in key order, until it breaks or fails.
    ///
    /// # Errors
    /// [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Cancelled`], or what `f` returned.
    pub fn for_each<E: From<BoltError>>(
        &self,
        f: impl FnMut(&[u8], Value<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.for_each_from(&[], f)
    }

    /// Like [`Bucket::for_each`], starting at the first key not below `start`. To page through a bucket, break
    /// after enough keys and start again at the last key with a zero byte appended.
    ///
    /// # Errors
    /// [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Cancelled`], or what `f` returned.
    pub fn for_each_from<E: From<BoltError>>(
        &self,
        start: &[u8],
        mut f: impl FnMut(&[u8], Value<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let pager = &self.tx.pager;
        let mut walk = Walk::new(self.tx, self.root.clone());
        walk.run(start, &mut ignore_pages, &mut |node, element, key| {
            if element.is_bucket() {
                return f(key, Value::Bucket);
            }
            f(key, Value::Bytes(&pager.value(node, element)?))
        })
    }

    /// Call `f` with every key in key order, until it breaks or fails. Values in overflow pages are not read.
    ///
    /// # Errors
    /// [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Cancelled`], or what `f` returned.
    pub fn for_each_key<E: From<BoltError>>(
        &self,
        f: impl FnMut(&[u8], EntryKind) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.for_each_key_from(&[], f)
    }

    /// Like [`Bucket::for_each_key`], starting at the first key not below `start`.
    ///
    /// # Errors
    /// [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Cancelled`], or what `f` returned.
    pub fn for_each_key_from<E: From<BoltError>>(
        &self,
        start: &[u8],
        mut f: impl FnMut(&[u8], EntryKind) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut walk = Walk::new(self.tx, self.root.clone());
        walk.run(start, &mut ignore_pages, &mut |_, element, key| f(key, element.into()))
    }

    /// To look up many keys; those that ascend share the pages on the way to them.
    #[must_use]
    pub fn lookup(&self) -> Lookup<'t> {
        Lookup { walk: Walk::new(self.tx, self.root.clone()), last: Vec::new() }
    }

    /// Keys that cut the bucket into parts of about the same number of pages; none if it is small.
    ///
    /// # Errors
    /// [`BoltError::Damaged`] or [`BoltError::Io`].
    pub fn cuts(&self) -> Result<Vec<Vec<u8>>, BoltError> {
        let pager = &self.tx.pager;
        let Root::Page(id) = self.root else { return Ok(Vec::new()) };
        let node = pager.node(id)?;
        let branches = if node.is_leaf { 0 } else { node.len() };
        (1..branches).map(|index| Ok(pager.key(&node, index)?.into_owned())).collect()
    }
}

/// See [`Bucket::lookup`].
pub struct Lookup<'t> {
    walk: Walk<'t, 't>,
    last: Vec<u8>,
}

impl Lookup<'_> {
    /// As [`Bucket::get`].
    ///
    /// # Errors
    /// [`BoltError::Damaged`] or [`BoltError::Io`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
        let pager = self.walk.tx.pager;
        match self.find(key)? {
            Some((node, element)) if !element.is_bucket() => {
                pager.value(node, element).map(|value| Some(value.into_owned()))
            }
            _ => Ok(None),
        }
    }

    /// The leaf and element of `key`.
    fn find(&mut self, key: &[u8]) -> Result<Option<(&Node, Element)>, BoltError> {
        let pager = self.walk.tx.pager;
        if *key < *self.last {
            self.walk.stack.clear();
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.walk.go_on(key)?;
        let Some(Frame { node, .. }) = self.walk.stack.last() else { return Ok(None) };
        match pager.search(node, key)? {
            (index, true) => pager.element(node, index).map(|element| Some((node, element))),
            (_, false) => Ok(None),
        }
    }
}

impl From<Element> for EntryKind {
    fn from(element: Element) -> Self {
        if element.is_bucket() { Self::Bucket } else { Self::Value { len: element.value_len } }
    }
}

fn ignore_pages(_: &Node, _: usize) -> Result<(), BoltError> {
    Ok(())
}

/// One page on the way down, and where to go on in it.
struct Frame {
    node: Node,
    next: usize,
    /// Keys below this page are below this one.
    upper: Option<Vec<u8>>,
}

/// Sees every page of a walk, with its depth, before the page's content is used.
type OnPage<'f> = &'f mut dyn FnMut(&Node, usize) -> Result<(), BoltError>;
/// Sees every leaf element of a walk, with its key.
type OnEntry<'f, E> = &'f mut dyn FnMut(&Node, Element, &[u8]) -> Result<ControlFlow<()>, E>;

/// A walk over one bucket in key order, with the checks that make it end on any input: keys ascend, stay inside
/// the bounds their branches set, the depth is bounded, and no more pages are visited than the file has.
pub(super) struct Walk<'t, 'a> {
    tx: &'t Tx<'a>,
    root: Root,
    stack: Vec<Frame>,
    visited: u64,
    /// Pages that were said to be read soon.
    expected: Range<u64>,
}

impl<'t, 'a> Walk<'t, 'a> {
    pub(super) fn new(tx: &'t Tx<'a>, root: Root) -> Self {
        Self { tx, root, stack: Vec::new(), visited: 0, expected: 0..0 }
    }

    /// Walk from the first key not below `start`: `on_page` sees every page with its depth before its content is
    /// used, `f` every leaf element with its key.
    pub(super) fn run<E: From<BoltError>>(
        &mut self,
        start: &[u8],
        on_page: OnPage<'_>,
        f: OnEntry<'_, E>,
    ) -> Result<(), E> {
        let pager = self.tx.pager;
        self.descend(start, on_page)?;
        let mut last: Option<Vec<u8>> = None;
        while let Some(frame) = self.stack.last_mut() {
            let index = frame.next;
            if index >= frame.node.len() {
                self.stack.pop();
                continue;
            }
            frame.next = index.saturating_add(1);
            if !frame.node.is_leaf {
                let child = pager.element(&frame.node, index)?.child;
                if !self.expected.contains(&child) {
                    self.expected = pager.neighbours(&frame.node, index);
                    pager.expect(&self.expected);
                }
                self.enter(index, on_page)?;
                continue;
            }
            let key = pager.key(&frame.node, index)?;
            // Of a page in memory the order was checked; of keys in overflow pages, and of those beside them, it was not.
            if (index == 0 || frame.node.overflow > 0) && last.as_deref().is_some_and(|last| *key <= *last) {
                return Err(pager.damaged(frame.node.id, "its keys do not ascend").into());
            }
            if frame.next >= frame.node.len() || frame.node.overflow > 0 {
                last = Some(key.to_vec());
            }
            let element = pager.element(&frame.node, index)?;
            if f(&frame.node, element, &key)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Go down to the leaf that covers `key`, leaving the way on the stack.
    fn descend(&mut self, key: &[u8], on_page: OnPage<'_>) -> Result<(), BoltError> {
        self.stack.clear();
        self.begin(on_page)?;
        self.go_down(key, on_page)
    }

    /// As [`Walk::descend`], for a `key` that is not below those of the pages on the stack: whoever covers it stays there.
    fn go_on(&mut self, key: &[u8]) -> Result<(), BoltError> {
        let is_past = |frame: &Frame| frame.upper.as_deref().is_some_and(|upper| key >= upper);
        while self.stack.pop_if(|frame| is_past(frame)).is_some() {}
        self.visited = self.stack.len() as u64;
        if self.stack.is_empty() {
            self.begin(&mut ignore_pages)?;
        }
        self.go_down(key, &mut ignore_pages)
    }

    /// Put the root onto the empty stack.
    fn begin(&mut self, on_page: OnPage<'_>) -> Result<(), BoltError> {
        match self.root.clone() {
            Root::Page(id) => self.push(id, None, None, on_page)?,
            Root::Inline(node) => self.stack.push(Frame { node, next: 0, upper: None }),
        }
        Ok(())
    }

    fn go_down(&mut self, key: &[u8], on_page: OnPage<'_>) -> Result<(), BoltError> {
        let pager = self.tx.pager;
        while let Some(frame) = self.stack.last_mut() {
            if frame.node.is_leaf {
                frame.next = pager.search(&frame.node, key)?.0;
                break;
            }
            let index = pager.child_for(&frame.node, key)?;
            frame.next = index.saturating_add(1);
            self.enter(index, on_page)?;
        }
        Ok(())
    }

    /// Push child `index` of the branch on top of the stack.
    fn enter(&mut self, index: usize, on_page: OnPage<'_>) -> Result<(), BoltError> {
        let pager = self.tx.pager;
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let child = pager.element(&frame.node, index)?.child;
        let lower = pager.key(&frame.node, index)?.into_owned();
        let after = index.saturating_add(1);
        let upper = if after < frame.node.len() {
            Some(pager.key(&frame.node, after)?.into_owned())
        } else {
            frame.upper.clone()
        };
        self.push(child, Some(&lower), upper, on_page)
    }

    fn push(
        &mut self,
        id: u64,
        lower: Option<&[u8]>,
        upper: Option<Vec<u8>>,
        on_page: OnPage<'_>,
    ) -> Result<(), BoltError> {
        let pager = self.tx.pager;
        self.visited = self.visited.saturating_add(1);
        if self.visited > pager.high_water {
            return Err(pager.damaged(id, "its tree has more pages than the file"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(pager.damaged(id, format!("it lies deeper than {MAX_DEPTH} levels")));
        }
        if self.visited.is_multiple_of(64) {
            self.tx.check_cancel()?;
        }
        let node = pager.node(id)?;
        if !node.is_leaf && node.len() == 0 {
            return Err(pager.damaged(id, "a branch without children"));
        }
        if let Some(end) = node.len().checked_sub(1) {
            if let Some(lower) = lower
                && *pager.key(&node, 0)? < *lower
            {
                return Err(pager.damaged(id, "it has a key below its branch key"));
            }
            if let Some(upper) = &upper
                && *pager.key(&node, end)? >= **upper
            {
                return Err(pager.damaged(id, "it has a key above its branch's range"));
            }
        }
        on_page(&node, self.stack.len())?;
        self.stack.push(Frame { node, next: 0, upper });
        Ok(())
    }
}
