//! What the BoltDB suites share: a reproducible random source, an in-memory file that records and injects faults,
//! a model to compare with, and files of any page size.
#![allow(dead_code, reason = "every suite uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy does not see that this is test code")]

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Bucket, Database, FileLayer, OpenOptions, Tx, Value, Writer};

/// xorshift64*: small, reproducible, good enough to shuffle tests.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 11) % end as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// Mostly small, sometimes around a page, rarely 100 KB.
    pub fn value(&mut self) -> Vec<u8> {
        let len = match self.below(100) {
            0 => self.below(100_000),
            1..=4 => self.below(10_000),
            5..=30 => self.below(1_500),
            31..=35 => 0,
            _ => self.below(80),
        };
        self.bytes(len)
    }

    pub fn key(&mut self, space: usize) -> Vec<u8> {
        let n = self.below(space);
        // A fixed key always has the same length; a few are long.
        let pad = if n % 97 == 13 { 700 } else { n % 23 };
        let mut key = format!("{n:06}").into_bytes();
        key.resize(key.len() + pad, b'k');
        key
    }
}

/// What a bucket holds.
pub type Tree = BTreeMap<Vec<u8>, Item>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Value(Vec<u8>),
    Bucket(Tree),
}

/// Everything in a transaction.
pub fn dump(tx: &Tx<'_>) -> Result<Tree, BoltError> {
    dump_bucket(&tx.root(), &mut { usize::MAX })
}

/// The same for a damaged file, in which buckets may contain each other: gives up after many entries.
pub fn dump_some(tx: &Tx<'_>) -> Result<Tree, BoltError> {
    dump_bucket(&tx.root(), &mut 5_000)
}

fn dump_bucket(bucket: &Bucket<'_>, budget: &mut usize) -> Result<Tree, BoltError> {
    let mut tree = Tree::new();
    let mut last: Option<Vec<u8>> = None;
    bucket.for_each(|key, value| {
        *budget = budget.checked_sub(1).ok_or(BoltError::Cancelled)?;
        assert!(last.as_deref().is_none_or(|last| last < key), "keys ascend");
        last = Some(key.to_vec());
        let item = match value {
            Value::Bytes(bytes) => Item::Value(bytes.to_vec()),
            Value::Bucket => match bucket.bucket(key)? {
                Some(inner) => Item::Bucket(dump_bucket(&inner, budget)?),
                // Separators that lie: `check` finds them too.
                None => {
                    let detail = "the walk saw a bucket that the search does not find".to_owned();
                    return Err(BoltError::Damaged { path: "image".into(), page: 0, detail });
                }
            },
        };
        tree.insert(key.to_vec(), item);
        Ok::<_, BoltError>(ControlFlow::Continue(()))
    })?;
    Ok(tree)
}

/// Dump through a fresh [`Database`] and require a clean check.
pub fn dump_image(bytes: Vec<u8>) -> Tree {
    let database = Database::with_layer(Path::new("image"), Box::new(MemFile::new(bytes))).unwrap();
    database
        .snapshot(&Cancel::default(), |tx| {
            let report = tx.check()?;
            assert!(report.is_clean(), "{report:#?}");
            dump(tx)
        })
        .unwrap()
}

pub fn bucket_mut<'m>(tree: &'m mut Tree, path: &[Vec<u8>]) -> Option<&'m mut Tree> {
    let mut tree = tree;
    for name in path {
        match tree.get_mut(name) {
            Some(Item::Bucket(inner)) => tree = inner,
            _ => return None,
        }
    }
    Some(tree)
}

pub fn as_path(path: &[Vec<u8>]) -> Vec<&[u8]> {
    path.iter().map(Vec::as_slice).collect()
}

/// Buckets the random transactions work in: two at the top, two inside the first, one inside that.
pub fn bucket_paths() -> Vec<Vec<Vec<u8>>> {
    let path = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    vec![
        path(&["A"]),
        path(&["B"]),
        path(&["A", "000500-inner"]),
        path(&["A", "000900-inner"]),
        path(&["A", "000500-inner", "000100-deep"]),
        path(&["empty"]),
    ]
}

/// Make one random transaction, as a batch and in the model.
pub fn random_batch(rng: &mut Rng, model: &mut Tree, space: usize, most: usize) -> Batch<'static> {
    let mut batch = Batch::new();
    if rng.chance(25) {
        let path = bucket_paths()[rng.below(5)].clone();
        if let Some((name, parent)) = path.split_last()
            && let Some(tree) = bucket_mut(model, parent)
        {
            tree.remove(name);
            batch.delete_bucket(&as_path(&path)).unwrap();
        }
    }
    for path in bucket_paths() {
        if !rng.chance(3) || path[0] == b"empty" {
            create(model, &path);
            batch.create_bucket(&as_path(&path)).unwrap();
        }
        let Some(tree) = bucket_mut(model, &path) else { continue };
        if path[0] == b"empty" {
            continue;
        }
        // Runs of adjacent keys and scattered ones; sometimes nearly all keys go.
        let wipe = rng.chance(12);
        let count = rng.below(most) + 1;
        for _ in 0..if wipe { count * 4 } else { count } {
            let key = rng.key(space);
            if wipe || rng.chance(3) {
                tree.remove(&key);
                batch.delete(&as_path(&path), &key).unwrap();
            } else {
                let value = rng.value();
                tree.insert(key.clone(), Item::Value(value.clone()));
                batch.put(&as_path(&path), &key, value).unwrap();
            }
        }
    }
    batch
}

fn create(model: &mut Tree, path: &[Vec<u8>]) {
    let mut tree = model;
    for name in path {
        let item = tree.entry(name.clone()).or_insert_with(|| Item::Bucket(Tree::new()));
        match item {
            Item::Bucket(inner) => tree = inner,
            Item::Value(_) => unreachable!("bucket names are no keys"),
        }
    }
}

/// What a power cut after the first `done` events can leave. With `lost`, everything after the last sync may also be
/// lost or torn at sectors, in any combination, as a disk's cache does; without it, exactly those events happened.
pub fn after_crash(base: &[u8], log: &[Event], done: usize, lost: Option<&mut Rng>) -> Vec<u8> {
    let synced = match &lost {
        Some(_) => log[..done].iter().rposition(|event| *event == Event::Sync).map_or(0, |at| at + 1),
        None => done,
    };
    let mut image = base.to_vec();
    let mut rng = lost;
    for (index, event) in log[..done].iter().enumerate() {
        let certain = index < synced;
        match event {
            Event::Sync => {}
            Event::SetLen(len) => {
                if certain || !rng.as_mut().unwrap().chance(3) {
                    image.resize(image.len().max(*len as usize), 0);
                }
            }
            Event::Write { offset, bytes } => {
                for (part, sector) in bytes.chunks(512).enumerate() {
                    let at = *offset as usize + part * 512;
                    let kept = certain || !rng.as_mut().unwrap().chance(3);
                    if kept && let Some(target) = image.get_mut(at..at + sector.len()) {
                        target.copy_from_slice(sector);
                    }
                }
            }
        }
    }
    image
}

/// What happened to a [`MemFile`], in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

#[derive(Default)]
pub struct MemState {
    pub bytes: Vec<u8>,
    pub log: Vec<Event>,
    pub record: bool,
    /// Fail with this error once so many more writes, growths or syncs were done.
    pub fail_after: Option<(usize, io::ErrorKind)>,
    /// Take at most so many bytes per write and read.
    pub short: Option<usize>,
    /// Largest size the disk has room for.
    pub room: Option<u64>,
}

/// A file in memory that records what is done to it and fails on demand. Clones share the file.
#[derive(Clone, Default)]
pub struct MemFile(pub Arc<Mutex<MemState>>);

impl MemFile {
    pub fn new(bytes: Vec<u8>) -> Self {
        let file = Self::default();
        file.0.lock().unwrap().bytes = bytes;
        file
    }

    pub fn recording(bytes: Vec<u8>) -> Self {
        let file = Self::new(bytes);
        file.0.lock().unwrap().record = true;
        file
    }

    pub fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub fn log(&self) -> Vec<Event> {
        self.0.lock().unwrap().log.clone()
    }

    pub fn clear_log(&self) {
        self.0.lock().unwrap().log.clear();
    }
}

impl MemState {
    fn step(&mut self) -> io::Result<()> {
        if let Some((left, kind)) = &mut self.fail_after {
            if *left == 0 {
                return Err((*kind).into());
            }
            *left -= 1;
        }
        Ok(())
    }
}

impl FileLayer for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.lock().unwrap();
        // No damaged length may make us allocate much more memory than there is file.
        assert!(buf.len() <= state.bytes.len().max(1 << 20), "a read of {} bytes", buf.len());
        let Some(rest) = state.bytes.get(offset as usize..) else { return Ok(0) };
        let len = buf.len().min(rest.len()).min(state.short.unwrap_or(usize::MAX));
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        let len = buf.len().min(state.short.unwrap_or(usize::MAX));
        let start = offset as usize;
        let end = start + len;
        assert!(end <= state.bytes.len(), "the file is grown before it is written beyond its end");
        if state.room.is_some_and(|room| end as u64 > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.bytes[start..end].copy_from_slice(&buf[..len]);
        if state.record {
            state.log.push(Event::Write { offset, bytes: buf[..len].to_vec() });
        }
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        assert!(len >= state.bytes.len() as u64, "the file never shrinks");
        state.bytes.resize(len as usize, 0);
        if state.record {
            state.log.push(Event::SetLen(len));
        }
        Ok(())
    }

    fn sync(&self, _metadata: bool) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        if state.record {
            state.log.push(Event::Sync);
        }
        Ok(())
    }
}

pub fn options(create: bool) -> OpenOptions {
    OpenOptions { create, ..OpenOptions::default() }
}

pub fn writer(file: &MemFile) -> Writer {
    Writer::with_layer(Path::new("image"), Box::new(file.clone()), &options(true)).unwrap()
}

/// An empty bolt file of any page size, put together here byte by byte; without a stored freelist on demand.
pub fn blank(page_size: u32, stored_freelist: bool) -> Vec<u8> {
    let size = page_size as usize;
    let mut file = vec![0_u8; 4 * size];
    for slot in 0..2_usize {
        let at = slot * size;
        file[at..at + 8].copy_from_slice(&(slot as u64).to_le_bytes());
        file[at + 8] = 4;
        let freelist = if stored_freelist { 2 } else { u64::MAX };
        let mut meta = Vec::new();
        for word in [0xED0C_DAED_u32, 2, page_size, 0] {
            meta.extend_from_slice(&word.to_le_bytes());
        }
        for long in [3_u64, 0, freelist, 4, slot as u64] {
            meta.extend_from_slice(&long.to_le_bytes());
        }
        let mut sum = 0xCBF2_9CE4_8422_2325_u64;
        for byte in &meta {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
        meta.extend_from_slice(&sum.to_le_bytes());
        file[at + 16..at + 16 + meta.len()].copy_from_slice(&meta);
    }
    for (id, flags) in [(2_usize, 16_u8), (3, 2)] {
        file[id * size] = id as u8;
        file[id * size + 8] = flags;
    }
    file
}
