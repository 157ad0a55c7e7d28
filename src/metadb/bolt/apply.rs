//! Applying a batch to a tree: touched leaves are merged with their part of the batch and written anew, branches
//! are rebuilt over them, everything else keeps its pages. The cost grows with what is touched, not with the file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::batch::{BucketOps, Op};
use super::builder::{Built, Output, TreeBuilder};
use super::page::{BUCKET, BucketHeader, Element, MAX_DEPTH, Node};
use super::tree::{Root, Tx, Walk};
use super::{BoltError, printable};

/// Changes to a range of keys, sorted.
type Ops<'b> = [(&'b [u8], &'b Op<'b>)];

/// One page of the committed tree with the key range its parent gives it.
struct Place<'p> {
    id: u64,
    /// 0 for a leaf.
    level: usize,
    lower: Option<&'p [u8]>,
    upper: Option<&'p [u8]>,
}

/// Applies a batch to the tree of `tx`, writing to `out`.
pub(super) struct Apply<'t, 'a, 'o> {
    pub tx: &'t Tx<'a>,
    pub out: &'t mut Output<'o>,
}

impl Apply<'_, '_, '_> {
    /// Apply `ops` to the root bucket and return its new root page.
    pub(super) fn root(&mut self, ops: &BucketOps<'_>) -> Result<u64, BoltError> {
        match self.tree(Some(&Root::Page(self.tx.meta.root)), &ops.keys, None, 0)? {
            Built::Page(id) => Ok(id),
            Built::Inline(_) => Err(self.tx.pager.damaged(self.tx.meta.root, "the root bucket became inline")),
        }
    }

    /// Rebuild one bucket's tree, from nothing if `root` is `None`.
    fn tree(
        &mut self,
        root: Option<&Root>,
        ops: &BTreeMap<Vec<u8>, Op<'_>>,
        inline_limit: Option<usize>,
        nesting: usize,
    ) -> Result<Built, BoltError> {
        let mut builder = TreeBuilder::new(self.out.page_size);
        let ops: Vec<(&[u8], &Op<'_>)> = ops.iter().map(|(key, op)| (key.as_slice(), op)).collect();
        match root {
            None => self.merge(&mut builder, None, &ops, nesting)?,
            Some(Root::Inline(node)) => self.merge(&mut builder, Some(node), &ops, nesting)?,
            Some(Root::Page(id)) => {
                let place = Place { id: *id, level: self.height(*id)?, lower: None, upper: None };
                self.open(&mut builder, &place, &ops, nesting)?;
            }
        }
        builder.finish(self.out, inline_limit)
    }

    /// Levels of branches above the leaves of the tree at `id`.
    fn height(&self, id: u64) -> Result<usize, BoltError> {
        let pager = self.tx.pager;
        let mut id = id;
        for height in 0..MAX_DEPTH {
            let node = pager.node(id)?;
            if node.is_leaf {
                return Ok(height);
            }
            id = pager.element(&node, 0)?.child;
        }
        Err(pager.damaged(id, format!("it lies deeper than {MAX_DEPTH} levels")))
    }

    /// Feed the content of a page, changed by `ops`, to the builder, and give the page back.
    fn open(
        &mut self,
        builder: &mut TreeBuilder,
        place: &Place<'_>,
        ops: &Ops<'_>,
        nesting: usize,
    ) -> Result<(), BoltError> {
        self.tx.check_cancel()?;
        let pager = self.tx.pager;
        let node = pager.whole_node(place.id)?;
        if node.is_leaf != (place.level == 0) {
            return Err(pager.damaged(place.id, "leaves of one bucket lie at different depths"));
        }
        if let Some(end) = node.len().checked_sub(1) {
            let below = place.lower.is_some_and(|lower| pager.key(&node, 0).is_ok_and(|key| *key < *lower));
            let above = place.upper.is_some_and(|upper| pager.key(&node, end).is_ok_and(|key| *key >= *upper));
            if below || above {
                return Err(pager.damaged(place.id, "it has keys outside its branch's range"));
            }
        }
        self.out.release(node.id, u64::from(node.overflow) + 1)?;
        if node.is_leaf {
            return self.merge(builder, Some(&node), ops, nesting);
        }
        if node.len() == 0 {
            return Err(pager.damaged(place.id, "a branch without children"));
        }
        let mut rest = ops;
        for index in 0..node.len() {
            let key = pager.key(&node, index)?;
            let next = if index + 1 < node.len() { Some(pager.key(&node, index + 1)?) } else { None };
            let count = next.as_ref().map_or(rest.len(), |next| rest.partition_point(|(key, _)| *key < &**next));
            let (here, after) = rest.split_at(count);
            rest = after;
            let child = Place {
                id: pager.element(&node, index)?.child,
                level: place.level - 1,
                lower: Some(&key),
                upper: next.as_deref().or(place.upper),
            };
            let stays =
                if here.is_empty() { !self.should_absorb(builder, &child)? } else { self.lies_below(&child, here)? };
            if stays {
                builder.adopt(self.out, child.level, key.to_vec(), child.id)?;
                for (new, op) in here {
                    self.add(builder, new, op, nesting)?;
                }
            } else {
                self.open(builder, &child, here, nesting)?;
            }
        }
        Ok(())
    }

    /// Whether an untouched page should be merged with the little that waits before it. Leaves with overflow
    /// pages stay where they are: rewriting a large value to fill a page would cost more than it gives.
    fn should_absorb(&self, builder: &TreeBuilder, place: &Place<'_>) -> Result<bool, BoltError> {
        Ok(builder.is_hungry(place.level) && (place.level > 0 || self.tx.pager.node(place.id)?.overflow == 0))
    }

    /// Whether all that is new in the range of a leaf comes after a leaf with overflow pages, which then stays where it is
    /// too: records larger than a page have a leaf each, and a new one would cost its neighbour to be written again.
    fn lies_below(&self, place: &Place<'_>, ops: &Ops<'_>) -> Result<bool, BoltError> {
        if place.level > 0 {
            return Ok(false);
        }
        let pager = self.tx.pager;
        let node = pager.node(place.id)?;
        let (Some(last), Some((first, _))) = (node.len().checked_sub(1), ops.first()) else { return Ok(false) };
        Ok(node.is_leaf && node.overflow > 0 && *pager.key(&node, last)? < **first)
    }

    /// Merge a leaf with its part of the batch.
    fn merge(
        &mut self,
        builder: &mut TreeBuilder,
        node: Option<&Node>,
        ops: &Ops<'_>,
        nesting: usize,
    ) -> Result<(), BoltError> {
        let pager = self.tx.pager;
        let mut rest = ops;
        if let Some(node) = node {
            for index in 0..node.len() {
                let element = pager.element(node, index)?;
                let key = pager.key(node, index)?;
                while let Some(((new, op), after)) = rest.split_first()
                    && **new < *key
                {
                    self.add(builder, new, op, nesting)?;
                    rest = after;
                }
                match rest.split_first() {
                    Some(((same, op), after)) if **same == *key => {
                        self.change(builder, node, (&key, element), op, nesting)?;
                        rest = after;
                    }
                    _ => builder.push(self.out, element.flags, &key, &pager.value(node, element)?)?,
                }
            }
        }
        for (new, op) in rest {
            self.add(builder, new, op, nesting)?;
        }
        Ok(())
    }

    /// Apply `op` to a key that is not there yet.
    fn add(&mut self, builder: &mut TreeBuilder, key: &[u8], op: &Op<'_>, nesting: usize) -> Result<(), BoltError> {
        match op {
            Op::Put(value) => builder.push(self.out, 0, key, value),
            Op::Delete | Op::DeleteBucket => Ok(()),
            Op::Bucket(ops) if ops.create => {
                let value = self.bucket(None, 0, ops, nesting)?;
                builder.push(self.out, BUCKET, key, &value)
            }
            Op::Bucket(_) => Err(BoltError::invalid(format!("there is no bucket {}", printable(key)))),
        }
    }

    /// Apply `op` to a key that is there: in `node`, with this element. A value that is replaced is not read.
    fn change(
        &mut self,
        builder: &mut TreeBuilder,
        node: &Node,
        (key, element): (&[u8], Element),
        op: &Op<'_>,
        nesting: usize,
    ) -> Result<(), BoltError> {
        let tx = self.tx;
        let value = || tx.pager.value(node, element);
        match (op, element.is_bucket()) {
            (Op::Put(new), false) => builder.push(self.out, 0, key, new),
            (Op::Delete, false) => Ok(()),
            (Op::DeleteBucket, true) => {
                let (root, _) = tx.open_bucket(node.id, &value()?)?;
                self.drop_tree(root, nesting + 1)
            }
            (Op::Bucket(ops), true) if ops.clear => {
                let (root, _) = tx.open_bucket(node.id, &value()?)?;
                self.drop_tree(root, nesting + 1)?;
                let value = self.bucket(None, 0, ops, nesting)?;
                builder.push(self.out, BUCKET, key, &value)
            }
            (Op::Bucket(ops), true) if ops.keys.is_empty() => builder.push(self.out, element.flags, key, &value()?),
            (Op::Bucket(ops), true) => {
                let (root, sequence) = tx.open_bucket(node.id, &value()?)?;
                let value = self.bucket(Some(&root), sequence, ops, nesting)?;
                builder.push(self.out, BUCKET, key, &value)
            }
            (Op::Put(_) | Op::Delete, true) => {
                Err(BoltError::invalid(format!("{} is a bucket, not a key", printable(key))))
            }
            (Op::Bucket(_) | Op::DeleteBucket, false) => {
                Err(BoltError::invalid(format!("{} is a key, not a bucket", printable(key))))
            }
        }
    }

    /// Rebuild a nested bucket and return the value that stands for it in its parent's leaf.
    fn bucket(
        &mut self,
        root: Option<&Root>,
        sequence: u64,
        ops: &BucketOps<'_>,
        nesting: usize,
    ) -> Result<Vec<u8>, BoltError> {
        // bbolt's own limit: a bucket up to a quarter page lives inside its parent.
        let inline_limit = Some(self.out.page_size / 4);
        match self.tree(root, &ops.keys, inline_limit, nesting + 1)? {
            Built::Page(id) => Ok(BucketHeader::encode(id, sequence)),
            Built::Inline(page) => {
                let mut value = BucketHeader::encode(0, sequence);
                value.extend_from_slice(&page);
                Ok(value)
            }
        }
    }

    /// Give back all pages of a bucket and of the buckets inside it.
    fn drop_tree(&mut self, root: Root, nesting: usize) -> Result<(), BoltError> {
        if nesting > MAX_DEPTH {
            return Err(BoltError::invalid(format!("buckets nested deeper than {MAX_DEPTH}")));
        }
        let tx = self.tx;
        let mut inner = Vec::new();
        let out = &mut *self.out;
        let mut give_back = |node: &Node, _: usize| out.release(node.id, u64::from(node.overflow) + 1);
        Walk::new(tx, root).run(&[], &mut give_back, &mut |node, element, _| {
            if element.is_bucket() {
                inner.push((node.id, tx.pager.value(node, element)?.into_owned()));
            }
            Ok::<_, BoltError>(ControlFlow::Continue(()))
        })?;
        for (page, value) in inner {
            let (root, _) = tx.open_bucket(page, &value)?;
            self.drop_tree(root, nesting + 1)?;
        }
        Ok(())
    }
}
