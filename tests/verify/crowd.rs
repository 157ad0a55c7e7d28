//! How many repos are looked at at once: as many as memory has room for, and as storage keeps waiting.

use super::run::Options;
use metactl::cancel::Cancel;
use metactl::decision::Facts;
use metactl::metadb::{MetaDb, MetaDbError};
use metactl::oci::time::Time;
use metactl::progress::Silent;
use metactl::records::RepoState;
use metactl::records::fold::Rules;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::{Depth, Report, StampFacts, Verify};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const REPOS: usize = 12;
const JOBS: usize = 6;

/// Repos with empty indexes, and records of them.
struct Crowd {
    /// Bytes of an index.
    length: usize,
    /// How many readers storage says are of use, by how many have come by then.
    useful: fn(usize) -> usize,
    /// Whoever looks at records waits until so many do, by how many have come by then.
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

    /// The most that looked at records at once.
    fn verify(self: &Arc<Self>) -> usize {
        let cancel = Cancel::default();
        let stores = Stores::new(Arc::clone(self) as Arc<dyn ImageStore>, Vec::new());
        let facts = Facts {
            metadb_used: true,
            zots_metadb: true,
            fast_restart: Options::at(Depth::Records).fast_restart,
            release_has_stamp: true,
            comparison: None,
            stamped: false,
        };
        let report: Report = Verify {
            stores: &stores,
            db: &Records(Arc::clone(self)),
            repos: None,
            depth: Depth::Records,
            rules: Rules::default(),
            jobs: JOBS,
            stamp: StampFacts { facts, stored: "", expected: "" },
            state: None,
            full: false,
            sample: None,
            progress: &Silent,
            cancel: &cancel,
        }
        .run()
        .unwrap();
        assert_eq!(report.checked, REPOS);
        self.present.lock().unwrap().most
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
        let mut text = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        text.resize(self.length, b' ');
        Ok(text)
    }

    fn read_blobs(&self, _repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        digests.iter().map(|digest| Err(StorageError::NotFound { what: (*digest).to_owned() })).collect()
    }
}

/// Counts who looks at once.
struct Records(Arc<Crowd>);

impl MetaDb for Records {
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        Ok(Some("V1".into()))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        Ok(None)
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        Ok(Vec::new())
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        Ok(BTreeMap::new())
    }

    fn repo(&self, _name: &str) -> Result<RepoState, MetaDbError> {
        let Crowd { together, present, changed, .. } = &*self.0;
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
        Ok(RepoState::default())
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        Ok(vec![None; digests.len()])
    }

    fn image_digests(&self, _visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        Ok(())
    }

    fn users(&self, _visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        Ok(())
    }
}

#[test]
fn huge_repos_are_looked_at_one_by_one() {
    assert_eq!(Crowd::new(100, |_| JOBS, |_| JOBS).verify(), JOBS);
    assert_eq!(Crowd::new(12 << 20, |_| JOBS, |_| 1).verify(), 1);
}

#[test]
fn readers_come_as_storage_keeps_them_waiting() {
    assert_eq!(Crowd::new(100, |_| 2, |_| 2).verify(), 2);
    let as_time_goes_by = |came| if came < 4 { 2 } else { 5 };
    assert_eq!(Crowd::new(100, as_time_goes_by, as_time_goes_by).verify(), 5);
}
