//! What zot's own walk left behind is clean at every depth, on both drivers.

use super::encode::metadb;
use super::run::{DEPTHS, Options, verify};
use super::support::driver::Driver;
use super::support::walk::Case;
use metactl::verify::{Finding, Severity};

/// The metaDB before this walk had a RepoLastUpdated and no RepoMeta for its repo; the index is older, so zot skipped the
/// repo, wrote its stamp and left it unrecorded for good. That is what `repo-hidden` is for, so here zot's own result is
/// *not* clean.
const HIDDEN: &str = "state-019-e2";

#[test]
fn every_walk_that_zot_completed_verifies_clean_against_zots_own_result() {
    let (mut problems, mut runs) = (Vec::new(), 0);
    for case in Case::all().into_iter().filter(|case| case.complete) {
        for driver in Driver::BOTH {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            super::support::store::lay_out(&root, &case.files);
            driver.restore(&root, &metadb(&case.after));
            for depth in DEPTHS {
                let report = verify(driver, &root, Options { expected: "STAMP|x", ..Options::at(depth) });
                runs += 1;
                let grave: Vec<&Finding> = report
                    .findings
                    .iter()
                    .filter(|found| found.severity() > Severity::Info && !found.id.text().starts_with("stamp-"))
                    .collect();
                if case.name == HIDDEN {
                    let ids: Vec<&str> = grave.iter().map(|found| found.id.text()).collect();
                    assert_eq!(ids, ["repo-missing", "repo-hidden"]);
                } else if !grave.is_empty() {
                    problems.push(format!("{} {driver:?} {}: {grave:?}", case.name, depth.word()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} of {runs}:\n{}", problems.len(), problems.join("\n"));
    assert!(runs > 300, "only {runs}");
}
