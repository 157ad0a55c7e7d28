//! Walks in this process, and the recorded cases.

use super::driver::{Driver, Raw};
use super::records::unbase64;
use metactl::cancel::Cancel;
use metactl::metadb::{MetaDbError, MetaDbWriter, Place, WriteToken};
use metactl::progress::{Progress, Silent};
use metactl::records::fold::Rules;
use metactl::storage::routing::{StoreKind, StoreSpec, Stores};
use metactl::walk::plan::{Scope, plan};
use metactl::walk::{Walk, WalkError, WalkReport};
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The stamp of every walk in the tests.
pub const STAMP: &str = "v2.1.20+v2.1.20-0-g3b5796d|0123456789abcdef";

/// The local store at `root`.
pub fn stores(root: &Path) -> Stores {
    Stores::open(&[StoreSpec { route: None, kind: StoreKind::Local { root: root.to_owned() }, cache: None }]).unwrap()
}

/// Plan and walk with an open writer.
pub fn walk_with(root: &Path, writer: &mut dyn MetaDbWriter, force: bool) -> Result<WalkReport, WalkError> {
    run(root, writer, &Scope { repos: None, force }, false, &Silent)
}

/// Plan and walk some repos only, or remove afterwards what no repo reaches.
pub fn walk_scoped(place: &Place, root: &Path, scope: &Scope, prune: bool) -> Result<WalkReport, WalkError> {
    run(root, &mut *open_writer(place)?, scope, prune, &Silent)
}

/// Plan and walk; `progress` is told.
pub fn walk_told(root: &Path, writer: &mut dyn MetaDbWriter, progress: &dyn Progress) -> Result<WalkReport, WalkError> {
    run(root, writer, &Scope::default(), false, progress)
}

fn run(
    root: &Path,
    writer: &mut dyn MetaDbWriter,
    scope: &Scope,
    prune: bool,
    progress: &dyn Progress,
) -> Result<WalkReport, WalkError> {
    let (stores, cancel) = (stores(root), Cancel::default());
    let plan = plan(&stores, Some(writer.reader()), scope, 2, progress, &cancel)?;
    let walk = Walk {
        stores: &stores,
        scope,
        rules: Rules::default(),
        jobs: 2,
        prune,
        stamp: Ok(STAMP),
        progress,
        cancel: &cancel,
    };
    walk.run(writer, plan)
}

/// Walk the store at `root` into the metaDB at its usual place.
pub fn walk(driver: Driver<'_>, root: &Path, force: bool) -> WalkReport {
    walk_at(&driver.place(root), root, force).unwrap()
}

/// Walk the store at `root` into the metaDB at `place`.
pub fn walk_at(place: &Place, root: &Path, force: bool) -> Result<WalkReport, WalkError> {
    walk_with(root, &mut *open_writer(place)?, force)
}

/// Open a metaDB for writing; others may hold it for five seconds.
pub fn open_writer(place: &Place) -> Result<Box<dyn MetaDbWriter>, MetaDbError> {
    place.open_writer(WriteToken::for_writing_command(), Duration::from_secs(5), &Cancel::default())
}

/// A recorded walk of zot's.
pub struct Case {
    pub name: String,
    pub files: Value,
    /// BoltDB file before the walk.
    pub before: Option<Vec<u8>>,
    /// Decoded metaDB after the walk.
    pub after: Value,
    pub failed: u64,
    pub partial: u64,
    /// Whether zot's walk was complete and stamped.
    pub complete: bool,
}

impl Case {
    fn read(path: &Path) -> Option<Self> {
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if case["command"] != "walk" {
            return None;
        }
        let (failed, partial) = (case["failed_repos"].as_u64().unwrap(), case["partial_repos"].as_u64().unwrap());
        Some(Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            files: case["files"].clone(),
            before: case["before_bolt_gz_b64"].as_str().filter(|text| !text.is_empty()).map(|text| {
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(unbase64(text).as_slice()).read_to_end(&mut bytes).unwrap();
                bytes
            }),
            complete: case["stamp_after"].as_str().is_some_and(|stamp| !stamp.is_empty()) && failed + partial == 0,
            after: case["after"].clone(),
            failed,
            partial,
        })
    }

    /// All recorded walks, in name order.
    pub fn all() -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/walk");
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().filter_map(|path| Self::read(path)).collect()
    }

    /// Lay the store and the prior metaDB out below `root`. Returns that metaDB's content.
    pub fn set_up(&self, driver: Driver<'_>, root: &Path) -> Raw {
        super::store::lay_out(root, &self.files);
        let Some(file) = &self.before else { return Raw::default() };
        let path = root.join("meta.db");
        std::fs::write(&path, file).unwrap();
        let before = Driver::Bolt.dump(root);
        if !matches!(driver, Driver::Bolt) {
            std::fs::remove_file(path).unwrap();
            driver.restore(root, &before);
        }
        before
    }
}
