//! What must stay fast and small. Bounds are counted in pages and bytes where that can be done; the timing test is for
//! optimised builds on a quiet machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, EntryKind, FileLayer, Writer};

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

/// The bulk load of a first walk: 200,000 sorted records of 2 KB in one batch.
#[test]
#[ignore = "measures time: cargo test --release --test bolt_speed -- --ignored --nocapture"]
fn bulk_load() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let mut batch = Batch::new();
    batch.create_bucket(&[b"ImageMeta"]).unwrap();
    for n in 0..200_000_u32 {
        batch.put(&[b"ImageMeta"], format!("sha256:{n:064}").as_bytes(), vec![n as u8; 2_000]).unwrap();
    }
    let mut writer = Writer::open(&path, &options(true)).unwrap();
    let started = Instant::now();
    writer.commit(&batch).unwrap();
    let committed = started.elapsed();
    let started = Instant::now();
    let report = writer.tx().check().unwrap();
    let checked = started.elapsed();
    assert!(report.is_clean() && report.keys == 200_000);
    drop(batch);
    let started = Instant::now();
    let mut batch = Batch::new();
    for n in (0..200_000_u32).step_by(997) {
        batch.put(&[b"ImageMeta"], format!("sha256:{n:064}").as_bytes(), vec![9; 2_100]).unwrap();
    }
    writer.commit(&batch).unwrap();
    eprintln!("load {committed:.2?}, check {checked:.2?}, 200 scattered updates {:.2?}", started.elapsed());
    // 820 MB go to the disk, and how fast that is says little about us. The bound notices quadratic behaviour.
    assert!(committed < Duration::from_secs(60), "{committed:?}");
}
