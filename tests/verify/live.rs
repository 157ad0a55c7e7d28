//! Beside a zot that pushes: it writes storage first and its metaDB a moment later, and what lies between is no drift.

use super::plants::push_a_tag;
use super::run::{DEPTHS, Options, verify_stores};
use super::support::driver::Driver;
use super::support::dynamodb::Server;
use super::support::walk::walk;
use super::world::World;
use metactl::cancel::Cancel;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::Report;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store that tells how often the index of `alpine` was opened, before it is.
struct Watched<F>(LocalStore, AtomicUsize, F);

impl<F: Fn(usize) + Send + Sync> ImageStore for Watched<F> {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.0.list_repos(cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.0.stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.0.read_index(repo)
    }

    fn open_index(&self, repo: &str) -> Result<(IndexStat, Vec<u8>), StorageError> {
        if repo == "alpine" {
            (self.2)(self.1.fetch_add(1, Ordering::SeqCst) + 1);
        }
        self.0.open_index(repo)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        self.0.read_blobs(repo, digests)
    }
}

/// Verify just after a push to storage, whose records are written before the look of this number, if at all.
fn beside_a_push(driver: Driver<'_>, recorded: Option<usize>) -> Vec<(Report, usize)> {
    let one = |depth| {
        let world = World::new(driver);
        push_a_tag(&world);
        let (root, options) = (world.root(), Options { expected: &world.stamp, ..Options::at(depth) });
        let catch_up = root.clone();
        // The driver may borrow a server that ends with the test: the walk happens on a thread of its own scope.
        let (ask, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
        std::thread::scope(|threads| {
            threads.spawn(move || {
                for done in asked {
                    assert!(walk(driver, &catch_up, false).complete());
                    done.send(()).unwrap();
                }
            });
            let ask = std::sync::Mutex::new(ask);
            let looked = move |number| {
                if Some(number) == recorded {
                    let (done, wait) = std::sync::mpsc::channel();
                    ask.lock().unwrap().send(done).unwrap();
                    wait.recv().unwrap();
                }
            };
            let store = Arc::new(Watched(LocalStore::new(&root), AtomicUsize::new(0), looked));
            let stores = Stores::new(Arc::clone(&store) as Arc<dyn ImageStore>, Vec::new());
            let report = verify_stores(driver, &root, &stores, options);
            (report, store.1.load(Ordering::SeqCst))
        })
    };
    DEPTHS.into_iter().map(one).collect()
}

fn live(driver: Driver<'_>) {
    for (report, looks) in beside_a_push(driver, Some(2)) {
        assert!(report.findings.is_empty(), "{driver:?}: {:#?}", report.findings);
        assert_eq!(looks, 2);
    }
    // What stays is reported, after another look.
    for (report, looks) in beside_a_push(driver, None) {
        let mut ids: Vec<&str> = report.findings.iter().map(|found| found.id.text()).collect();
        ids.retain(|id| ["tag-missing", "repo-due", "stamp-premature"].contains(id));
        assert_eq!(ids.len(), 3, "{driver:?}: {:#?}", report.findings);
        assert_eq!(looks, 2);
    }
}

#[test]
fn a_push_under_way_is_no_drift() {
    live(Driver::Bolt);
}

#[test]
fn a_push_under_way_is_no_drift_in_dynamodb() {
    live(Driver::DynamoDb(&Server::start()));
}
