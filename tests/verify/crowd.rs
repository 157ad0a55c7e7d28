//! How many repos are looked at at once: as many as memory has room for, and as storage keeps waiting.

use super::run::verify_with;
use super::support::driver::Driver;
use super::support::walk::open_writer;
use metactl::cancel::Cancel;
use metactl::oci;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::Depth;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const REPOS: usize = 12;
const JOBS: usize = 6;

/// Repos of one manifest each, which is missing.
struct Crowd {
    /// Bytes of an index.
    length: usize,
    /// How many readers storage says are of use, by how many have come by then.
    useful: fn(usize) -> usize,
    /// Whoever reads a manifest waits until so many do, by how many have come by then.
    together: fn(usize) -> usize,
    present: Mutex<Present>,
    changed: Condvar,
}

#[derive(Default)]
struct Present {
    now: usize,
    most: usize,
    came: usize,
}

impl Crowd {
    fn new(length: usize, useful: fn(usize) -> usize, together: fn(usize) -> usize) -> Arc<Self> {
        Arc::new(Self { length, useful, together, present: Mutex::default(), changed: Condvar::new() })
    }

    /// The most that read at once.
    fn verify(self: &Arc<Self>) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let place = Driver::Bolt.place(dir.path());
        drop(open_writer(&place).unwrap());
        let db = place.open(&Cancel::default()).unwrap();
        let stores = Stores::new(Arc::clone(self) as Arc<dyn ImageStore>, Vec::new());
        let report = verify_with(&stores, db.as_ref(), Depth::Deep, JOBS).unwrap();
        assert_eq!(report.checked, REPOS);
        let present = self.present.lock().unwrap();
        assert_eq!(present.came, REPOS);
        present.most
    }
}

impl ImageStore for Crowd {
    fn location(&self) -> String {
        "(memory)".into()
    }

    fn useful(&self, threads: usize) -> usize {
        threads.min((self.useful)(self.present.lock().unwrap().came))
    }

    fn list_repos(&self, _cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        Ok((0..REPOS).map(|repo| format!("r{repo}")).collect())
    }

    fn stat_index(&self, _repo: &str) -> Result<IndexStat, StorageError> {
        Ok(IndexStat { size: self.length as u64, mtime: jiff::Timestamp::UNIX_EPOCH, tag: None })
    }

    fn read_index(&self, _repo: &str) -> Result<Vec<u8>, StorageError> {
        let manifest =
            serde_json::json!({"mediaType": oci::MANIFEST, "digest": format!("sha256:{:064}", 0), "size": 2});
        let mut text = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().into_bytes();
        text.resize(self.length, b' ');
        Ok(text)
    }

    fn read_blobs(&self, _repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let Self { together, present, changed, .. } = self;
        let mut here = present.lock().unwrap();
        (here.now, here.came) = (here.now + 1, here.came + 1);
        here.most = here.most.max(here.now);
        changed.notify_all();
        let expected = together(here.came);
        let (here, _) = changed.wait_timeout_while(here, Duration::from_secs(60), |here| here.most < expected).unwrap();
        // Time to come for those who should not.
        let (mut here, _) =
            changed.wait_timeout_while(here, Duration::from_millis(20), |here| here.most < JOBS).unwrap();
        here.now -= 1;
        digests.iter().map(|digest| Err(StorageError::NotFound { what: (*digest).to_owned() })).collect()
    }
}

#[test]
fn huge_repos_are_looked_at_one_by_one() {
    assert_eq!(Crowd::new(1000, |_| JOBS, |_| JOBS).verify(), JOBS);
    assert_eq!(Crowd::new(12 << 20, |_| JOBS, |_| 1).verify(), 1);
}

#[test]
fn readers_come_as_storage_keeps_them_waiting() {
    assert_eq!(Crowd::new(1000, |_| 2, |_| 2).verify(), 2);
    let as_time_goes_by = |came| if came < 4 { 2 } else { 5 };
    assert_eq!(Crowd::new(1000, as_time_goes_by, as_time_goes_by).verify(), 5);
}
