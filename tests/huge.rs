//! A repo so large that records of its images are written while it is still being read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::metadb::{Refusal, RepoWork};
use metactl::records::{RepoChange, RepoState};
use metactl::walk::StampOutcome;
use serde_json::Value;
use std::path::Path;
use support::driver::Driver;
use support::records::visible;
use support::walk::{open_writer, walk};
use support::work::{all, done, repos};

/// More than one batch of blobs would be if the sizes in `index.json` were true.
const ANNOUNCED: u64 = 5 << 20;
const IMAGES: usize = 24;

/// A repo of a few images, and one whose descriptors say that it is huge: the batches are made by what they say.
fn store(root: &Path, huge: bool) {
    support::work::store(root, 2, IMAGES);
    if huge {
        edit_index(root, |descriptor| descriptor["size"] = ANNOUNCED.into());
    }
}

fn edit_index(root: &Path, edit: impl Fn(&mut Value)) {
    let path = root.join("team/repo-1/index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().iter_mut().for_each(edit);
    support::store::write_at(&path, index.to_string().as_bytes(), 1_700_000_000_000_000_000);
}

#[test]
fn its_records_are_those_of_any_repo() {
    for driver in Driver::BOTH {
        let (plain, huge) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dumps = [(&plain, false), (&huge, true)].map(|(dir, is_huge)| {
            let root = dir.path().join("zot");
            store(&root, is_huge);
            let report = walk(driver, &root, false);
            assert!(report.complete() && report.stamp.is_there(), "{report:?}");
            assert_eq!(report.manifests, 2 * IMAGES as u64);
            visible(&driver.dump(&root))
        });
        assert_eq!(dumps[0], dumps[1], "{driver:?}");
        assert_eq!(dumps[1]["ImageMeta"].as_object().unwrap().len(), 2 * IMAGES);

        // Once more over its own records, and over records of which one is missing and one is spoilt.
        let root = huge.path().join("zot");
        assert!(walk(driver, &root, true).complete());
        assert_eq!(visible(&driver.dump(&root)), dumps[1], "{driver:?}");
        let mut raw = driver.dump(&root);
        let images = raw.0.get_mut("ImageMeta").unwrap();
        let digests: Vec<Vec<u8>> = images.keys().cloned().collect();
        images.remove(&digests[0]);
        images.insert(digests[1].clone(), vec![0xff]);
        driver.restore(&root, &raw);
        assert!(walk(driver, &root, true).complete());
        assert_eq!(visible(&driver.dump(&root)), dumps[1], "{driver:?}");
    }
}

/// Images of a huge repo on their way, before the rest of it.
struct Ahead;

impl RepoWork for Ahead {
    fn repo(&self) -> &str {
        "repo-0"
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        vec![("sha256:a", b"record")]
    }

    fn is_images_only(&self) -> bool {
        true
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        assert_eq!(*prior, RepoState::default(), "as large as the repo is wide, and read for every batch of it");
        Ok(RepoChange::Keep)
    }
}

#[test]
fn images_are_written_without_a_look_at_the_records_of_their_repo() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open_writer(&driver.place(dir.path())).unwrap();
        assert!(done(&writer.write(&all(&repos(1))).unwrap()));
        let before = writer.reader().repo("repo-0").unwrap();
        assert_ne!(before, RepoState::default());
        assert!(done(&writer.write(&[&Ahead]).unwrap()));
        assert_eq!(writer.reader().images(&["sha256:a"]).unwrap(), [Some(b"record".to_vec())], "{driver:?}");
        assert_eq!(writer.reader().repo("repo-0").unwrap(), before, "{driver:?}");
    }
}

#[test]
fn an_image_record_that_cannot_be_replaced_fails_it_and_nothing_else() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        store(&root, true);
        walk(driver, &root, false);
        let index: Value =
            serde_json::from_slice(&std::fs::read(root.join("team/repo-1/index.json")).unwrap()).unwrap();
        let digest = index["manifests"][3]["digest"].as_str().unwrap();
        let mut raw = driver.dump(&root);
        let mut record = raw.get("ImageMeta", digest).unwrap().to_vec();
        // A field of a later zot's.
        record.extend([0x90, 0x03, 0x07]);
        raw.put("ImageMeta", digest, &record);
        driver.restore(&root, &raw);

        let report = walk(driver, &root, true);
        assert!(matches!(&report.stamp, StampOutcome::Absent(_)), "{driver:?} {report:?}");
        let failed: Vec<(&str, bool)> = report
            .failed
            .iter()
            .map(|problem| {
                (problem.repo.as_str(), problem.reason.contains("unknown fields") && problem.reason.contains(digest))
            })
            .collect();
        assert_eq!(failed, [("team/repo-1", true)], "{report:?}");
        let after = driver.dump(&root);
        assert_eq!(after.get("ImageMeta", digest).unwrap(), record, "{driver:?}");
        assert_eq!(
            after.bucket("RepoMeta")[&b"team/repo-1"[..]],
            raw.bucket("RepoMeta")[&b"team/repo-1"[..]],
            "{driver:?}"
        );
        let updated = &after.bucket("RepoLastUpdated")[&b"team/repo-1"[..]];
        assert_eq!(*updated, metactl::records::encode_time(metactl::oci::time::Time::ZERO), "it is due: {driver:?}");
    }
}

/// Four times the images: neither time nor memory of a wide repo may grow out of proportion.
#[test]
#[ignore = "takes a minute and needs Python: run tests/run"]
fn time_and_memory_grow_with_what_there_is() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/walk");
    let ran = std::process::Command::new("python3")
        .args([bench.as_os_str(), "--shape".as_ref(), "--metactl".as_ref(), env!("CARGO_BIN_EXE_metactl").as_ref()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    // Many repos and a wide one, on two drivers.
    assert_eq!(said.matches(": verify --deep").count(), 4, "{said}");
}
