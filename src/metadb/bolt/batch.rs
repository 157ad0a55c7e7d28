//! What one transaction is to change, grouped by bucket and sorted by key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::page::{MAX_DEPTH, MAX_KEY, MAX_VALUE};
use super::{BoltError, printable};

/// A set of changes that is committed as one transaction. Later calls for the same key win. Values may stay where they are: there are
/// tens of megabytes of them in a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch<'v> {
    pub(super) root: BucketOps<'v>,
}

/// Changes to one bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BucketOps<'v> {
    /// Make the bucket if it is absent; otherwise its absence is an error.
    pub create: bool,
    /// Drop what the bucket holds first.
    pub clear: bool,
    pub keys: BTreeMap<Vec<u8>, Op<'v>>,
}

/// Change to what stands under one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op<'v> {
    Put(Cow<'v, [u8]>),
    Delete,
    Bucket(BucketOps<'v>),
    DeleteBucket,
}

impl<'v> Batch<'v> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether committing would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.keys.is_empty()
    }

    /// Make sure the bucket at `path` exists, and every bucket around it.
    ///
    /// # Errors
    /// [`BoltError::Invalid`] or [`BoltError::TooLarge`] for names the format does not allow.
    pub fn create_bucket(&mut self, path: &[&[u8]]) -> Result<(), BoltError> {
        self.bucket(path, true).map(|_| ())
    }

    /// Set `key` in the bucket at `path`, which must exist by then.
    ///
    /// # Errors
    /// [`BoltError::Invalid`] or [`BoltError::TooLarge`] for keys and values the format does not allow.
    pub fn put(&mut self, path: &[&[u8]], key: &[u8], value: impl Into<Cow<'v, [u8]>>) -> Result<(), BoltError> {
        let value = value.into();
        if value.len() > MAX_VALUE {
            return Err(BoltError::TooLarge { what: "value", size: value.len(), limit: MAX_VALUE });
        }
        self.plain(path, key, Op::Put(value))
    }

    /// Remove `key` from the bucket at `path`, which must exist by then; the key need not.
    ///
    /// # Errors
    /// [`BoltError::Invalid`] or [`BoltError::TooLarge`] for keys the format does not allow.
    pub fn delete(&mut self, path: &[&[u8]], key: &[u8]) -> Result<(), BoltError> {
        self.plain(path, key, Op::Delete)
    }

    /// Remove the bucket at `path` with all it holds; it need not exist, the bucket around it must.
    ///
    /// # Errors
    /// [`BoltError::Invalid`] or [`BoltError::TooLarge`] for names the format does not allow.
    pub fn delete_bucket(&mut self, path: &[&[u8]]) -> Result<(), BoltError> {
        let Some((name, parent)) = path.split_last() else {
            return Err(BoltError::invalid("the root bucket cannot be deleted"));
        };
        check_key(name)?;
        self.bucket(parent, false)?.set(name, Op::DeleteBucket, |known| matches!(known, Op::Put(_) | Op::Delete))
    }

    fn plain(&mut self, path: &[&[u8]], key: &[u8], op: Op<'v>) -> Result<(), BoltError> {
        check_key(key)?;
        if path.is_empty() {
            // bbolt has no way to write this, and zot none to read it.
            return Err(BoltError::invalid("the root bucket holds buckets only"));
        }
        self.bucket(path, false)?.set(key, op, |known| matches!(known, Op::Bucket(_) | Op::DeleteBucket))
    }

    fn bucket(&mut self, path: &[&[u8]], create: bool) -> Result<&mut BucketOps<'v>, BoltError> {
        if path.len() >= MAX_DEPTH {
            return Err(BoltError::invalid(format!("buckets nested deeper than {MAX_DEPTH}")));
        }
        let mut ops = &mut self.root;
        for name in path {
            check_key(name)?;
            let op = match ops.keys.entry(name.to_vec()) {
                Entry::Occupied(slot) => slot.into_mut(),
                Entry::Vacant(slot) => slot.insert(Op::Bucket(BucketOps::default())),
            };
            if matches!(op, Op::DeleteBucket) && create {
                *op = Op::Bucket(BucketOps { create: true, clear: true, keys: BTreeMap::new() });
            }
            match op {
                Op::Bucket(inner) => {
                    inner.create |= create;
                    ops = inner;
                }
                Op::DeleteBucket => {
                    return Err(BoltError::invalid(format!("bucket {} is used after it was deleted", printable(name))));
                }
                Op::Put(_) | Op::Delete => return Err(conflict(name)),
            }
        }
        Ok(ops)
    }
}

impl<'v> BucketOps<'v> {
    /// Replace what is to become of `key`, unless it is the name of something else.
    fn set(&mut self, key: &[u8], op: Op<'v>, conflicts: impl Fn(&Op<'v>) -> bool) -> Result<(), BoltError> {
        match self.keys.entry(key.to_vec()) {
            Entry::Occupied(slot) if conflicts(slot.get()) => return Err(conflict(key)),
            Entry::Occupied(mut slot) => drop(slot.insert(op)),
            Entry::Vacant(slot) => drop(slot.insert(op)),
        }
        Ok(())
    }
}

fn conflict(key: &[u8]) -> BoltError {
    BoltError::invalid(format!("{} is used as a key and as a bucket", printable(key)))
}

fn check_key(key: &[u8]) -> Result<(), BoltError> {
    if key.is_empty() {
        return Err(BoltError::invalid("a key or bucket name is empty"));
    }
    if key.len() > MAX_KEY {
        return Err(BoltError::TooLarge { what: "key", size: key.len(), limit: MAX_KEY });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_the_format_cannot_hold() {
        let mut batch = Batch::new();
        assert!(matches!(batch.put(&[b"b"], b"", b"v"), Err(BoltError::Invalid { .. })));
        assert!(matches!(batch.put(&[], b"k", b"v"), Err(BoltError::Invalid { .. })));
        assert!(matches!(batch.put(&[b"b", b""], b"k", b"v"), Err(BoltError::Invalid { .. })));
        assert!(matches!(
            batch.put(&[b"b"], &[7; MAX_KEY + 1], b"v"),
            Err(BoltError::TooLarge { what: "key", size, .. }) if size == MAX_KEY + 1
        ));
        assert!(batch.put(&[b"b"], &[7; MAX_KEY], b"v").is_ok());
    }

    #[test]
    fn a_key_is_either_a_value_or_a_bucket() {
        let mut batch = Batch::new();
        batch.put(&[b"b"], b"k", b"v").unwrap();
        assert!(matches!(batch.create_bucket(&[b"b", b"k"]), Err(BoltError::Invalid { .. })));
        assert!(matches!(batch.delete_bucket(&[b"b", b"k"]), Err(BoltError::Invalid { .. })));
        batch.create_bucket(&[b"b", b"n"]).unwrap();
        assert!(matches!(batch.delete(&[b"b"], b"n"), Err(BoltError::Invalid { .. })));
        batch.delete_bucket(&[b"b"]).unwrap();
        assert!(matches!(batch.put(&[b"b"], b"k", b"v"), Err(BoltError::Invalid { .. })));
        batch.create_bucket(&[b"b"]).unwrap();
        batch.put(&[b"b"], b"k", b"v").unwrap();
    }
}
