//! One verification in this process.

use super::support::driver::Driver;
use super::support::walk::{STAMP, stores};
use metactl::cancel::Cancel;
use metactl::decision::Facts;
use metactl::identity::Identity;
use metactl::metadb::MetaDb;
use metactl::progress::Silent;
use metactl::records::fold::Rules;
use metactl::stamp::{Stamp, StoredStamp};
use metactl::state::State;
use metactl::storage::routing::Stores;
use metactl::verify::{Depth, Report, StampFacts, Verify, VerifyError};
use std::path::Path;

pub const DEPTHS: [Depth; 3] = [Depth::Quick, Depth::Records, Depth::Deep];

/// What differs between runs.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub depth: Depth,
    pub fast_restart: bool,
    pub metadb_used: bool,
    /// Stamp that zot will compute.
    pub expected: &'a str,
    pub state: Option<&'a State>,
    pub full: bool,
    pub sample: Option<f64>,
}

impl Options<'_> {
    pub fn at(depth: Depth) -> Self {
        Self { depth, fast_restart: true, metadb_used: true, expected: STAMP, state: None, full: false, sample: None }
    }
}

/// Verify the store at `root` against the metaDB at its usual place.
pub fn verify(driver: Driver<'_>, root: &Path, options: Options<'_>) -> Report {
    verify_stores(driver, root, &stores(root), options)
}

pub fn verify_stores(driver: Driver<'_>, root: &Path, stores: &Stores, options: Options<'_>) -> Report {
    let cancel = Cancel::default();
    let place = driver.place(root);
    let db = place.open(&cancel).unwrap();
    let stored = StoredStamp::new(db.stamp().unwrap().unwrap_or_default());
    let expected =
        Stamp::parse(options.expected).unwrap_or(Stamp { identity: Identity::new("", ""), fingerprint: String::new() });
    let comparison = stored.compare(&expected);
    let facts = Facts {
        metadb_used: options.metadb_used,
        zots_metadb: place.is_zots(),
        fast_restart: options.fast_restart,
        release_has_stamp: true,
        comparison: Some(&comparison),
        stamped: !stored.is_empty(),
    };
    let verify = Verify {
        stores,
        db: db.as_ref(),
        repos: None,
        depth: options.depth,
        rules: Rules::default(),
        jobs: 2,
        stamp: StampFacts { facts, stored: &stored.text(), expected: options.expected },
        state: options.state,
        full: options.full,
        sample: options.sample,
        progress: &Silent,
        cancel: &cancel,
    };
    verify.run().unwrap()
}

/// Verify any stores against any metaDB, without a stamp.
pub fn verify_with(stores: &Stores, db: &dyn MetaDb, depth: Depth, jobs: usize) -> Result<Report, VerifyError> {
    let cancel = Cancel::default();
    let options = Options::at(depth);
    let facts = Facts {
        metadb_used: true,
        zots_metadb: true,
        fast_restart: options.fast_restart,
        release_has_stamp: true,
        comparison: None,
        stamped: true,
    };
    Verify {
        stores,
        db,
        repos: None,
        depth,
        rules: Rules::default(),
        jobs,
        stamp: StampFacts { facts, stored: "", expected: "" },
        state: None,
        full: false,
        sample: None,
        progress: &Silent,
        cancel: &cancel,
    }
    .run()
}
