//! The walk's pipeline, between a store and a metaDB made for this: reading goes on while records are committed, what is in
//! flight is bounded by bytes, and nothing that goes wrong leaves anybody waiting.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::{MANY_BATCHES, MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork};
use metactl::oci::time::Time;
use metactl::progress::{Progress, Silent};
use metactl::records::RepoState;
use metactl::records::fold::Rules;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::walk::plan::{Scope, plan};
use metactl::walk::{Walk, WalkReport};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use support::store::sha256;

const MIB: usize = 1 << 20;
/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What moves between store and metaDB.
#[derive(Default)]
struct Flow {
    state: Mutex<Moved>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Moved {
    batches: usize,
    read: usize,
    committed: usize,
    /// Most bytes that were read and not yet committed.
    peak: usize,
    /// Indexes being read at once, and the most of them.
    open: usize,
    most_open: usize,
}

impl Flow {
    fn update(&self, change: impl FnOnce(&mut Moved)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        state.peak = state.peak.max(state.read.saturating_sub(state.committed));
        state.most_open = state.most_open.max(state.open);
        self.changed.notify_all();
    }

    fn now(&self) -> Moved {
        *self.state.lock().unwrap()
    }

    /// Wait until it is so; `false` if that takes too long.
    fn until(&self, within: Duration, mut so: impl FnMut(&Moved) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        let (_state, timeout) = self.changed.wait_timeout_while(state, within, |moved| !so(moved)).unwrap();
        !timeout.timed_out()
    }

    /// Wait until nothing has been read for a while.
    fn until_quiet(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.now().batches;
            if !self.until(Duration::from_millis(150), |moved| moved.batches > before) {
                return;
            }
            assert!(Instant::now() < deadline, "reading does not end");
        }
    }
}

/// Repos of manifests that are large because of one annotation.
struct Big {
    flow: Arc<Flow>,
    indexes: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, (usize, usize)>,
    readers: Option<usize>,
}

fn manifest(number: usize, length: usize) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"sha256:{number:064x}","size":2}},"layers":[],"annotations":{{"n":"{number}","a":"{}"}}}}"#,
        "a".repeat(length)
    )
    .into_bytes()
}

impl Big {
    /// `repos`: how many manifests each has, all of `length` bytes.
    fn new(flow: &Arc<Flow>, repos: &[usize], length: usize) -> Self {
        let mut store =
            Self { flow: Arc::clone(flow), indexes: BTreeMap::new(), blobs: BTreeMap::new(), readers: None };
        let mut number = 0;
        for (repo, tags) in repos.iter().enumerate() {
            let mut descriptors = Vec::new();
            for tag in 0..*tags {
                let content = manifest(number, length);
                let digest = sha256(&content);
                descriptors.push(serde_json::json!({
                    "mediaType": metactl::oci::MANIFEST, "digest": digest, "size": content.len(),
                    "annotations": {metactl::oci::REF_NAME: format!("t{tag}")},
                }));
                store.blobs.insert(digest, (number, length));
                number += 1;
            }
            let index = serde_json::json!({"schemaVersion": 2, "manifests": descriptors}).to_string();
            store.indexes.insert(format!("r{repo:04}"), index.into_bytes());
        }
        store
    }

    fn index(&self, repo: &str) -> Result<&Vec<u8>, StorageError> {
        self.indexes.get(repo).ok_or_else(|| StorageError::NotFound { what: repo.to_owned() })
    }
}

impl ImageStore for Big {
    fn location(&self) -> String {
        "(memory)".into()
    }

    fn readers(&self, jobs: usize) -> usize {
        self.readers.unwrap_or(jobs)
    }

    fn list_repos(&self, _cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        Ok(self.indexes.keys().cloned().collect())
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        let size = self.index(repo)?.len() as u64;
        Ok(IndexStat { size, mtime: jiff::Timestamp::UNIX_EPOCH, tag: None })
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        if let Some(readers) = self.readers {
            self.flow.update(|moved| moved.open += 1);
            // Nobody goes on before all are here.
            self.flow.until(PATIENCE, |moved| moved.most_open >= readers);
            self.flow.update(|moved| moved.open -= 1);
        }
        self.index(repo).cloned()
    }

    fn read_blobs(&self, _repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let read = |digest: &&str| {
            let (number, length) =
                self.blobs.get(*digest).ok_or_else(|| StorageError::NotFound { what: (*digest).to_owned() })?;
            Ok(Blob { content: manifest(*number, *length), mtime: None })
        };
        let blobs: Vec<_> = digests.iter().map(read).collect();
        let bytes: usize = blobs.iter().flatten().map(|blob: &Blob| blob.content.len()).sum();
        self.flow.update(|moved| (moved.read, moved.batches) = (moved.read + bytes, moved.batches + 1));
        blobs
    }
}

/// What a test does before every write, given how many there were.
type Before<'f> = dyn FnMut(&Flow, usize) -> Result<(), MetaDbError> + 'f;

/// A metaDB that keeps nothing but the number of images of every repo.
struct Void<'f> {
    flow: &'f Flow,
    images_ahead: Option<usize>,
    known: Known,
    before: Box<Before<'f>>,
    writes: usize,
}

#[derive(Default)]
struct Known {
    repos: BTreeMap<String, usize>,
    stamp: Option<Vec<u8>>,
}

impl MetaDb for Known {
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        Ok(Some("V1".into()))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        Ok(self.stamp.clone())
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        Ok(self.repos.keys().cloned().collect())
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        Ok(BTreeMap::new())
    }

    fn repo(&self, _name: &str) -> Result<RepoState, MetaDbError> {
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

impl MetaDbWriter for Void<'_> {
    fn images_ahead(&self) -> Option<usize> {
        self.images_ahead
    }

    fn reader(&self) -> &dyn MetaDb {
        &self.known
    }

    fn set_stamp(&mut self, _expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        self.known.stamp = new.map(<[u8]>::to_vec);
        Ok(())
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        if !work.is_empty() {
            (self.before)(self.flow, self.writes)?;
            self.writes += 1;
        }
        let mut outcomes = Vec::new();
        for one in work {
            let change = one.build(&RepoState::default());
            let bytes = one.images().iter().map(|(_, record)| record.len()).sum::<usize>();
            outcomes.push(match change {
                Ok(_) => {
                    *self.known.repos.entry(one.repo().to_owned()).or_default() += one.images().len();
                    self.flow.update(|moved| moved.committed += bytes);
                    Outcome::Done
                }
                Err(refusal) => Outcome::Refused(refusal),
            });
        }
        Ok(outcomes)
    }

    fn delete_images(&mut self, _digests: &[String]) -> Result<(), MetaDbError> {
        Ok(())
    }
}

/// Walk; what is done before every write is the test's to say. Returns the report and the manifests of every repo written.
fn walk<'f>(
    store: Big,
    flow: &'f Flow,
    cancel: &Cancel,
    jobs: usize,
    before: impl FnMut(&Flow, usize) -> Result<(), MetaDbError> + 'f,
) -> (WalkReport, BTreeMap<String, usize>) {
    let writer = Void { flow, images_ahead: None, known: Known::default(), before: Box::new(before), writes: 0 };
    walk_with(writer, store, cancel, jobs)
}

fn walk_with(writer: Void<'_>, store: Big, cancel: &Cancel, jobs: usize) -> (WalkReport, BTreeMap<String, usize>) {
    walk_told(writer, store, cancel, jobs, &Silent)
}

fn walk_told(
    mut writer: Void<'_>,
    store: Big,
    cancel: &Cancel,
    jobs: usize,
    progress: &dyn Progress,
) -> (WalkReport, BTreeMap<String, usize>) {
    let stores = Stores::new(Arc::new(store), Vec::new());
    let scope = Scope::default();
    let plan = plan(&stores, Some(writer.reader()), &scope, jobs, progress, cancel).unwrap();
    let walk = Walk {
        stores: &stores,
        scope: &scope,
        rules: Rules::default(),
        jobs,
        prune: false,
        stamp: Ok("stamp"),
        progress,
        cancel,
    };
    let report = walk.run(&mut writer, plan).unwrap();
    (report, writer.known.repos)
}

#[test]
fn reading_goes_on_during_a_commit() {
    let flow = Arc::new(Flow::default());
    let store = Big::new(&flow, &[10; 60], MIB / 8);
    let (report, repos) = walk(store, &flow, &Cancel::default(), 2, |flow, write| {
        if write == 0 {
            let before = flow.now().batches;
            let more = flow.until(PATIENCE, |moved| moved.batches >= before + 8);
            assert!(more, "nothing is read while records are being committed");
        }
        Ok(())
    });
    assert!(report.complete(), "{report:?}");
    assert_eq!(repos.len(), 60);
}

#[test]
fn what_is_in_flight_is_bounded_by_bytes() {
    for (repos, tags, length) in [(100, 16, MIB / 8), (1200, 16, 12_000), (12, 1600, 12_000)] {
        let flow = Arc::new(Flow::default());
        let store = Big::new(&flow, &vec![tags; repos], length);
        // A metaDB so slow that the readers always have to wait for it.
        let (report, written) = walk(store, &flow, &Cancel::default(), 4, |flow, _| {
            flow.until_quiet();
            Ok(())
        });
        assert!(report.complete(), "{report:?}");
        assert_eq!(written.len(), repos);
        let moved = flow.now();
        assert!(moved.read > 180 * MIB, "the test needs more than that: {}", moved.read);
        assert!(moved.peak < 112 * MIB, "{repos} repos: {} MiB were in flight", moved.peak / MIB);
        assert!(moved.peak > 24 * MIB, "{repos} repos: only {} MiB were in flight", moved.peak / MIB);
    }
}

#[test]
fn repos_larger_than_all_memory_pass_one_by_one() {
    let flow = Arc::new(Flow::default());
    let store = Big::new(&flow, &[3, 1000, 3, 1000, 3], MIB / 8);
    let (report, repos) = walk(store, &flow, &Cancel::default(), 4, |flow, _| {
        flow.until_quiet();
        Ok(())
    });
    assert!(report.complete(), "{report:?}");
    assert_eq!(repos.values().sum::<usize>(), 2 * 1000 + 9);
    let peak = flow.now().peak;
    assert!(peak < (96 + 125 + 16) * MIB, "{} MiB were in flight", peak / MIB);
}

#[test]
fn images_of_a_huge_repo_do_not_wait_for_the_rest_of_it() {
    let flow = Arc::new(Flow::default());
    let store = Big::new(&flow, &[3, 3000, 3], MIB / 8);
    let before = Box::new(|flow: &Flow, _| {
        flow.until_quiet();
        Ok(())
    });
    let writer = Void { flow: &flow, images_ahead: Some(MANY_BATCHES), known: Known::default(), before, writes: 0 };
    let (report, repos) = walk_with(writer, store, &Cancel::default(), 4);
    assert!(report.complete(), "{report:?}");
    assert_eq!(repos.values().sum::<usize>(), 3000 + 6);
    let peak = flow.now().peak;
    assert!(peak < 112 * MIB, "{} MiB of 375 were in flight", peak / MIB);
}

/// What was told of a walk.
#[derive(Default)]
struct Told(Mutex<(Vec<(u64, f64)>, usize)>);

impl Progress for Told {
    fn part_read(&self, manifests: u64, _bytes: u64, share: f64) {
        self.0.lock().unwrap().0.push((manifests, share));
    }

    fn repo_done(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

#[test]
fn a_huge_repo_is_seen_to_go_on() {
    let flow = Arc::new(Flow::default());
    let told = Told::default();
    // The first commit, which is of images alone, comes long before the repo is done; planning has looked at it.
    let before = Box::new(|flow: &Flow, write| {
        flow.until_quiet();
        let (parts, done) = &*told.0.lock().unwrap();
        assert!(write > 0 || (parts.len() > 4 && *done == 1), "{} parts, {done} repos", parts.len());
        Ok(())
    });
    let writer = Void { flow: &flow, images_ahead: Some(MANY_BATCHES), known: Known::default(), before, writes: 0 };
    let (report, _) = walk_told(writer, Big::new(&flow, &[1500], MIB / 8), &Cancel::default(), 2, &told);
    assert!(report.complete(), "{report:?}");
    let (parts, done) = told.0.into_inner().unwrap();
    // Planning and rechecking look at it, too.
    assert_eq!(done, 3);
    assert_eq!(parts.iter().map(|(manifests, _)| manifests).sum::<u64>(), 1500);
    assert!((parts.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn a_failed_commit_ends_readers_that_wait_for_room() {
    let flow = Arc::new(Flow::default());
    let store = Big::new(&flow, &[10; 200], MIB / 8);
    let (report, repos) = walk(store, &flow, &Cancel::default(), 4, |flow, write| {
        flow.until_quiet();
        if write == 0 { Ok(()) } else { Err(MetaDbError::Full { location: "here".into() }) }
    });
    assert!(report.broken_off.is_some_and(|reason| reason.contains("is full")));
    assert!(!repos.is_empty() && repos.len() < 200, "{}", repos.len());
}

#[test]
fn being_asked_to_stop_ends_readers_that_wait_for_room() {
    let flow = Arc::new(Flow::default());
    let cancel = Cancel::default();
    let store = Big::new(&flow, &[10; 200], MIB / 8);
    let (report, repos) = walk(store, &flow, &cancel, 4, |flow, _| {
        flow.until_quiet();
        cancel.cancel();
        Ok(())
    });
    assert_eq!(report.broken_off.as_deref(), Some("cancelled"));
    assert!(!report.stamp.is_there());
    // What had been read by then is recorded all the same.
    assert!(!repos.is_empty() && repos.len() < 200, "{}", repos.len());
}

#[test]
fn a_far_away_store_says_how_many_repos_are_read_at_once() {
    const READERS: usize = 24;
    let flow = Arc::new(Flow::default());
    let mut store = Big::new(&flow, &[1; 100], 1);
    store.readers = Some(READERS);
    let (report, repos) = walk(store, &flow, &Cancel::default(), 1, |_, _| Ok(()));
    assert!(report.complete(), "{report:?}");
    assert_eq!(repos.len(), 100);
    assert_eq!(flow.now().most_open, READERS);
}
