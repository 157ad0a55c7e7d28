//! Beside a live writer: the lock, snapshots without it, and files replaced under our hands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, OpenOptions, Tx, Value, Writer};

fn quick(timeout: Duration) -> OpenOptions {
    OpenOptions { lock_timeout: timeout, ..OpenOptions::default() }
}

fn put(writer: &mut Writer, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
    let mut batch = Batch::new();
    batch.create_bucket(&[b"b"]).unwrap();
    batch.put(&[b"b"], key, value).unwrap();
    writer.commit(&batch)
}

fn get(path: &Path, key: &[u8]) -> Option<Vec<u8>> {
    let database = Database::open(path).unwrap();
    let read = |tx: &Tx<'_>| tx.bucket(&[b"b"])?.map_or(Ok(None), |bucket| bucket.get(key));
    database.snapshot(&Cancel::default(), read).unwrap()
}

#[test]
fn the_types_cross_threads() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Writer>();
    send::<Database>();
    sync::<Database>();
    sync::<Tx<'_>>();
}

#[test]
fn a_new_file_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    drop(Writer::open(&path, &options(true)).unwrap());
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.len(), 4 * 4096);
}

#[test]
fn a_second_writer_is_told_who_holds_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let mut first = Writer::open(&path, &options(true)).unwrap();
    put(&mut first, b"k", b"v").unwrap();
    let started = Instant::now();
    let error = Writer::open(&path, &quick(Duration::from_millis(200))).unwrap_err();
    assert!((Duration::from_millis(200)..Duration::from_secs(5)).contains(&started.elapsed()));
    let BoltError::Locked { waited, holder, .. } = &error else { panic!("{error}") };
    assert!(*waited >= Duration::from_millis(200));
    assert_eq!(holder.as_ref().map(|holder| holder.pid), Some(std::process::id()), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    // Reading needs no lock.
    assert_eq!(get(&path, b"k"), Some(b"v".to_vec()));

    let waiting = thread::spawn({
        let path = path.clone();
        move || Writer::open(&path, &quick(Duration::from_secs(20))).map(drop)
    });
    thread::sleep(Duration::from_millis(120));
    drop(first);
    waiting.join().unwrap().unwrap();
}

#[test]
fn waiting_for_the_lock_can_be_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let _first = Writer::open(&path, &options(true)).unwrap();
    let cancel = Cancel::default();
    let waiting = thread::spawn({
        let options = OpenOptions { cancel: cancel.clone(), ..quick(Duration::from_secs(60)) };
        let path = path.clone();
        move || Writer::open(&path, &options).map(drop)
    });
    thread::sleep(Duration::from_millis(100));
    cancel.cancel();
    assert!(matches!(waiting.join().unwrap(), Err(BoltError::Cancelled)));
}

/// A writer that got the lock of a file that no longer has the name would write into the void.
#[test]
fn a_file_replaced_while_waiting_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("meta.db"), directory.path().join("other.db"));
    let first = Writer::open(&path, &options(true)).unwrap();
    drop(Writer::open(&other, &options(true)).unwrap());
    let waiting = thread::spawn({
        let path = path.clone();
        move || Writer::open(&path, &quick(Duration::from_secs(20))).map(drop)
    });
    thread::sleep(Duration::from_millis(150));
    std::fs::rename(&other, &path).unwrap();
    drop(first);
    assert!(matches!(waiting.join().unwrap(), Err(BoltError::Replaced { .. })));
}

#[test]
fn a_file_replaced_while_open_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("meta.db"), directory.path().join("other.db"));
    let mut first = Writer::open(&path, &options(true)).unwrap();
    put(&mut first, b"k", b"old").unwrap();
    let mut second = Writer::open(&other, &options(true)).unwrap();
    put(&mut second, b"k", b"new").unwrap();
    let database = Database::open(&path).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(matches!(put(&mut first, b"k", b"lost"), Err(BoltError::Replaced { .. })));
    // A reader follows the name.
    let read = |tx: &Tx<'_>| tx.bucket(&[b"b"])?.map_or(Ok(None), |bucket| bucket.get(b"k"));
    assert_eq!(database.snapshot(&Cancel::default(), read).unwrap(), Some(b"new".to_vec()));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(database.snapshot(&Cancel::default(), read), Err(BoltError::NotFound { .. })));
}

#[test]
fn reading_leaves_the_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    put(&mut Writer::open(&path, &options(true)).unwrap(), b"k", b"v").unwrap();
    let before = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().mtime_nsec());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    assert_eq!(get(&path, b"k"), Some(b"v".to_vec()));
    assert!(before == (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().mtime_nsec()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no file beside it");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One writer commits without pause, readers take snapshots. In every transaction all keys carry the same number, so
/// any page of another transaction shows.
#[test]
fn snapshots_beside_a_busy_writer_are_consistent() {
    const KEYS: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let commit = |writer: &mut Writer, round: u64, rng: &mut Rng| {
        let mut batch = Batch::new();
        batch.create_bucket(&[b"same", b"inner"]).unwrap();
        for n in 0..KEYS {
            let mut value = round.to_le_bytes().to_vec();
            value.resize(8 + rng.below(if n % 50 == 0 { 20_000 } else { 300 }), round as u8);
            batch.put(&[b"same"], format!("key{n:04}").as_bytes(), value).unwrap();
        }
        batch.put(&[b"same", b"inner"], b"round", round.to_le_bytes().to_vec()).unwrap();
        writer.commit(&batch).unwrap();
    };
    let mut writer = Writer::open(&path, &options(true)).unwrap();
    let mut rng = Rng::new(1);
    commit(&mut writer, 1, &mut rng);
    let stop = AtomicBool::new(false);
    let (mut consistent, mut busy, mut newest) = (0, 0, 0);
    thread::scope(|scope| {
        let rounds = scope.spawn(|| {
            let mut round = 1;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                commit(&mut writer, round, &mut rng);
                // Bursts with pauses, as pushes to a registry come.
                if round % 20 == 0 {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            round
        });
        // Also when an assertion fails, or the scope would wait for the writer for ever.
        let stopping = StopOnDrop(&stop);
        let database = Database::open(&path).unwrap();
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            let seen = database.snapshot(&Cancel::default(), |tx| {
                // It is always there, but a stale run may see anything; only what is accepted must be right.
                let Some(bucket) = tx.bucket(&[b"same"])? else { return Ok(Vec::new()) };
                let mut rounds = Vec::new();
                bucket.for_each(|_, value| {
                    if let Value::Bytes(bytes) = value {
                        // A damaged page may be short here; then the snapshot is stale and dropped.
                        rounds.push(bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
                    }
                    Ok::<_, BoltError>(ControlFlow::Continue(()))
                })?;
                let inner = bucket.bucket(b"inner")?.and_then(|inner| inner.get(b"round").transpose()).transpose()?;
                rounds.push(inner.and_then(|bytes| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))));
                Ok::<_, BoltError>(rounds)
            });
            match seen {
                Ok(rounds) => {
                    assert_eq!(rounds.len(), KEYS + 1);
                    assert!(rounds.iter().all(|round| *round == rounds[0] && round.is_some()), "{rounds:?}");
                    assert!(rounds[0] >= Some(newest), "time runs forward");
                    newest = rounds[0].unwrap();
                    consistent += 1;
                }
                Err(BoltError::Busy { .. }) => busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
        drop(stopping);
        let rounds = rounds.join().unwrap();
        assert!(consistent >= 5 && rounds > 50, "{consistent} snapshots, {busy} busy, {rounds} commits");
    });
}

/// An error raised in a snapshot that turned out stale is dropped; one that stands is returned at once.
#[test]
fn errors_of_stale_snapshots_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let mut writer = Writer::open(&path, &options(true)).unwrap();
    put(&mut writer, b"k", b"v").unwrap();
    let database = Database::open(&path).unwrap();
    let mut calls = 0;
    let result: Result<u64, BoltError> = database.snapshot(&Cancel::default(), |tx| {
        calls += 1;
        if calls < 3 {
            put(&mut writer, b"k", b"w").unwrap();
            return Err(BoltError::Damaged { path: path.clone(), page: 7, detail: "as if".to_owned() });
        }
        Ok(tx.txid())
    });
    assert_eq!((result.unwrap(), calls), (4, 3));
    let mut calls = 0;
    let result: Result<(), BoltError> = database.snapshot(&Cancel::default(), |_| {
        calls += 1;
        Err(BoltError::Damaged { path: path.clone(), page: 7, detail: "it stands".to_owned() })
    });
    assert!(matches!(result, Err(BoltError::Damaged { .. })));
    assert_eq!(calls, 1);
    let busy: Result<(), BoltError> = database.snapshot(&Cancel::default(), |_| put(&mut writer, b"k", b"x"));
    assert!(matches!(busy, Err(BoltError::Busy { .. })));
}
