//! A lookup must stay small however large the file is: bounds are counted in bytes read, not in time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, EntryKind, FileLayer};

/// Counts the bytes that are read.
struct Counting {
    file: MemFile,
    read: Arc<AtomicU64>,
}

impl FileLayer for Counting {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self, metadata: bool) -> io::Result<()> {
        self.file.sync(metadata)
    }
}

/// Opening a large file and reading one key touches a handful of pages; walking keys skips large values.
#[test]
fn a_lookup_reads_only_its_path() {
    let file = MemFile::default();
    let mut batch = Batch::new();
    batch.create_bucket(&[b"Version"]).unwrap();
    batch.put(&[b"Version"], b"Stamp", b"a stamp").unwrap();
    batch.create_bucket(&[b"ImageMeta"]).unwrap();
    for n in 0..30_000_u32 {
        let len = if n % 100 == 0 { 100_000 } else { 1_000 };
        batch.put(&[b"ImageMeta"], format!("sha256:{n:064}").as_bytes(), vec![1; len]).unwrap();
    }
    writer(&file).commit(&batch).unwrap();
    let size = file.len().unwrap();
    assert!(size > 50 << 20);
    let read = Arc::new(AtomicU64::new(0));
    let counting = Counting { file, read: Arc::clone(&read) };
    let database = Database::with_layer(Path::new("image"), Box::new(counting)).unwrap();
    let stamp = database
        .snapshot(&Cancel::default(), |tx| tx.bucket(&[b"Version"])?.map_or(Ok(None), |bucket| bucket.get(b"Stamp")))
        .unwrap();
    assert_eq!(stamp.as_deref(), Some(&b"a stamp"[..]));
    let used = read.swap(0, Ordering::Relaxed);
    assert!(used < 16 * 4096, "{used} bytes for one key of the root");
    let key = format!("sha256:{:064}", 12_345);
    database
        .snapshot(&Cancel::default(), |tx| {
            assert_eq!(tx.bucket(&[b"ImageMeta"])?.unwrap().get(key.as_bytes())?.unwrap().len(), 1_000);
            Ok::<_, BoltError>(())
        })
        .unwrap();
    let used = read.swap(0, Ordering::Relaxed);
    assert!(used < 16 * 4096, "{used} bytes for one key of a large bucket");
    let keys = database
        .snapshot(&Cancel::default(), |tx| {
            let mut keys = 0;
            tx.bucket(&[b"ImageMeta"])?.unwrap().for_each_key(|_, kind| {
                assert!(matches!(kind, EntryKind::Value { .. }));
                keys += 1;
                Ok::<_, BoltError>(std::ops::ControlFlow::Continue(()))
            })?;
            Ok::<_, BoltError>(keys)
        })
        .unwrap();
    assert_eq!(keys, 30_000);
    let used = read.swap(0, Ordering::Relaxed);
    assert!(used < size - (28 << 20), "{used} of {size} bytes: the 30 MB of large values are not read");
}
