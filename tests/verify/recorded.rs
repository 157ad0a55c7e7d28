//! What zot's own walk left behind is clean at every depth, on every driver.

use super::encode::metadb;
use super::run::{DEPTHS, Options, verify};
use super::support::driver::Driver;
use super::support::dynamodb::Server;
use super::support::records::decode;
use super::support::setups;
use super::support::walk::Case;
use jiff::Timestamp;
use metactl::verify::{Depth, Finding, Severity};
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// zot skipped the only repo of this walk and left it unrecorded for good, see below.
const HIDDEN: &str = "state-019-e2";

/// zot's own result of a recorded walk, in a store of its own.
fn laid_out(case: &Case, driver: Driver<'_>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    super::support::store::lay_out(&root, &case.files);
    driver.restore(&root, &metadb(&case.after));
    (dir, root)
}

/// Findings of some weight, but those about the stamp: the recorded one names no build.
fn findings(driver: Driver<'_>, root: &Path, depth: Depth) -> Vec<Finding> {
    let report = verify(driver, root, Options { expected: "STAMP|x", ..Options::at(depth) });
    let of_weight = |found: &Finding| found.severity() > Severity::Info && !found.id.text().starts_with("stamp-");
    report.findings.into_iter().filter(of_weight).collect()
}

fn every_complete_walk_but_one_is_clean(driver: Driver<'_>) {
    let (mut problems, mut runs) = (Vec::new(), 0);
    for case in Case::all().into_iter().filter(|case| case.complete && case.name != HIDDEN) {
        let (_dir, root) = laid_out(&case, driver);
        for depth in DEPTHS {
            runs += 1;
            let found = findings(driver, &root, depth);
            if !found.is_empty() {
                problems.push(format!("{} {driver:?} {}: {found:?}", case.name, depth.word()));
            }
        }
    }
    assert!(problems.is_empty(), "{} of {runs}:\n{}", problems.len(), problems.join("\n"));
    assert!(runs > 250, "only {runs}");
}

#[test]
fn walks_that_zot_completed_verify_clean_against_zots_own_result() {
    Driver::BOTH.into_iter().for_each(every_complete_walk_but_one_is_clean);
}

#[test]
fn walks_that_zot_completed_verify_clean_in_dynamodb() {
    every_complete_walk_but_one_is_clean(Driver::DynamoDb(&Server::start()));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn walks_that_zot_completed_verify_clean_in_redis() {
    every_complete_walk_but_one_is_clean(Driver::Redis(&setups::plain()));
}

/// The one recorded walk that zot completed and that does not verify clean: an image in storage, a RepoLastUpdated that
/// is newer than its index, and no RepoMeta, neither before the walk nor after it. zot skipped the repo and wrote its
/// stamp. That is what `repo-hidden` is for.
#[test]
fn a_repo_that_zots_walk_left_unrecorded_is_hidden() {
    let case = Case::all().into_iter().find(|case| case.name == HIDDEN).unwrap();
    for driver in Driver::BOTH {
        let before = tempfile::tempdir().unwrap();
        let before = case.set_up(driver, before.path());
        assert_eq!(decode(&before)["RepoBlobsMeta"], case.after["RepoBlobsMeta"]);
        assert!(before.bucket("RepoMeta").is_empty() && case.after["RepoMeta"] == json!({}));
        let recorded: Timestamp =
            case.after["RepoBlobsMeta"]["<bucket>RepoLastUpdated"]["r"].as_str().unwrap().parse().unwrap();
        let index = i128::from(case.files["r/index.json"]["mtime_ns"].as_i64().unwrap());
        assert!(index < recorded.as_nanosecond() && case.complete);

        let (_dir, root) = laid_out(&case, driver);
        for depth in DEPTHS {
            let ids: Vec<&str> = findings(driver, &root, depth).iter().map(|found| found.id.text()).collect();
            assert_eq!(ids, ["repo-missing", "repo-hidden"], "{driver:?} {}", depth.word());
        }
    }
}
