//! A repo of so many images that several threads look at their records.

use super::run::{DEPTHS, Options, verify};
use super::support::driver::Driver;
use super::support::walk::walk;
use metactl::state::State;
use metactl::verify::Depth;
use metactl::verify::findings::Id;

const IMAGES: usize = 1_300;

#[test]
fn it_is_judged_as_any_other() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        super::support::work::store(&root, 1, IMAGES);
        assert!(walk(driver, &root, false).complete());
        for depth in DEPTHS {
            let report = verify(driver, &root, Options::at(depth));
            assert!(report.findings.is_empty() && report.checked == 1, "{driver:?}: {report:?}");
        }
        // What is remembered of each record is what is there.
        let state = State::open(&dir.path().join("state.redb"), "registry").unwrap();
        let remembering = Options { state: Some(&state), ..Options::at(Depth::Records) };
        for unchanged in [0, 1] {
            assert_eq!(verify(driver, &root, remembering).unchanged, unchanged);
        }
        let whole = driver.dump(&root);
        for at in [0, IMAGES / 2, IMAGES - 1] {
            let mut raw = driver.dump(&root);
            let images = raw.0.get_mut("ImageMeta").unwrap();
            let digest = images.keys().nth(at).unwrap().clone();
            images.remove(&digest);
            driver.restore(&root, &raw);
            let findings = verify(driver, &root, remembering).findings;
            let missing: Vec<_> = findings.iter().filter(|found| found.id == Id::ImageMissing).collect();
            assert!(
                matches!(missing[..], [one] if one.digest.as_deref().map(str::as_bytes) == Some(&digest)),
                "{findings:?}"
            );
            driver.restore(&root, &whole);
        }
    }
}
