//! What cannot be read is a finding of its own, and everything else is still looked at.

use super::run::verify_with;
use super::support::driver::Driver;
use super::world::World;
use metactl::cancel::Cancel;
use metactl::metadb::{MetaDb, MetaDbError};
use metactl::oci::time::Time;
use metactl::records::RepoState;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::{Depth, Report, VerifyError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A store that cannot read some digests.
struct Failing {
    store: LocalStore,
    digests: Vec<String>,
    index: bool,
}

fn denied(what: &str) -> StorageError {
    let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    StorageError::Io { action: "read", what: what.to_owned(), source }
}

impl ImageStore for Failing {
    fn location(&self) -> String {
        self.store.location()
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.store.list_repos(cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.store.stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        if self.index && repo == "alpine" { Err(denied(repo)) } else { self.store.read_index(repo) }
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let blobs = self.store.read_blobs(repo, digests);
        let one = |(digest, blob): (&&str, _)| {
            if self.digests.iter().any(|bad| bad == digest) { Err(denied(digest)) } else { blob }
        };
        digests.iter().zip(blobs).map(one).collect()
    }
}

/// A metaDB with bad pages.
struct Rotten {
    db: Box<dyn MetaDb>,
    repo: Option<MetaDbErrorKind>,
    image: String,
}

#[derive(Clone, Copy)]
enum MetaDbErrorKind {
    Damaged,
    Io,
}

impl MetaDbErrorKind {
    fn error(self) -> MetaDbError {
        let location = "meta".to_owned();
        match self {
            Self::Damaged => MetaDbError::Damaged { location, detail: "page 7".into() },
            Self::Io => MetaDbError::Io { action: "read", location, source: "gone".into() },
        }
    }
}

impl MetaDb for Rotten {
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        self.db.version()
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        self.db.stamp()
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        self.db.repo_names()
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        self.db.last_updated()
    }

    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError> {
        match self.repo {
            Some(kind) if name == "alpine" => Err(kind.error()),
            _ => self.db.repo(name),
        }
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        if digests.iter().any(|digest| *digest == self.image) {
            return Err(MetaDbErrorKind::Damaged.error());
        }
        self.db.images(digests)
    }

    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        self.db.image_digests(visit)
    }

    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        self.db.users(visit)
    }
}

fn run(stores: &Stores, db: &dyn MetaDb, depth: Depth) -> Result<Report, VerifyError> {
    verify_with(stores, db, depth, 2)
}

fn ids(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|found| found.id.text()).collect()
}

#[test]
fn unreadable_blobs_and_indexes_are_findings() {
    let world = World::new(Driver::Bolt);
    let db = world.driver.place(&world.root()).open(&Cancel::default()).unwrap();
    let stores = |digests: &[&String], index| {
        let digests = digests.iter().map(|digest| (*digest).clone()).collect();
        Stores::new(Arc::new(Failing { store: LocalStore::new(world.root()), digests, index }), Vec::new())
    };
    let d = &world.digests;
    let report =
        run(&stores(&[&d.v1, &d.config, &d.signature_layer, &d.multi], false), db.as_ref(), Depth::Deep).unwrap();
    assert_eq!(ids(&report), ["blob-unreadable"; 4], "{report:#?}");
    let report = run(&stores(&[], true), db.as_ref(), Depth::Quick).unwrap();
    assert_eq!(ids(&report), ["index-unreadable"]);
    // Without a look at every repo nobody can say what is an orphan.
    world.edit(|raw| raw.put("ImageMeta", &format!("sha256:{}", "1".repeat(64)), b""));
    let db = world.driver.place(&world.root()).open(&Cancel::default()).unwrap();
    assert_eq!(ids(&run(&stores(&[], true), db.as_ref(), Depth::Records).unwrap()), ["index-unreadable"]);
}

#[test]
fn bad_pages_cost_their_own_records_alone() {
    let world = World::new(Driver::Bolt);
    let stores = super::support::walk::stores(&world.root());
    let rotten = |repo, image: &str| Rotten {
        db: world.driver.place(&world.root()).open(&Cancel::default()).unwrap(),
        repo,
        image: image.to_owned(),
    };
    for depth in super::run::DEPTHS {
        let report = run(&stores, &rotten(Some(MetaDbErrorKind::Damaged), ""), depth).unwrap();
        assert_eq!(ids(&report), ["record-undecodable"], "{report:#?}");
        assert_eq!(report.listed, 3);
        // A metaDB that does not answer is another matter: nothing is learned.
        assert!(matches!(run(&stores, &rotten(Some(MetaDbErrorKind::Io), ""), depth), Err(VerifyError::MetaDb(_))));
    }
    let report = run(&stores, &rotten(None, &world.digests.v1), Depth::Deep).unwrap();
    assert_eq!(ids(&report), ["repo-hidden", "record-undecodable"]);
    assert_eq!(report.findings[1].digest.as_deref(), Some(world.digests.v1.as_str()));
}

#[test]
fn a_cancelled_run_learns_nothing() {
    let world = World::new(Driver::Redb);
    let output = world.metactl(&["--timeout", "0", "verify", "--deep"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stdout.is_empty());
}
