//! Stores and records that no registry makes by itself, and that zot takes all the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "shared with the suite of verify")]
#[path = "verify/run.rs"]
mod run;
mod support;

use metactl::oci;
use metactl::verify::Depth;
use serde_json::{Value, json};
use std::path::Path;
use support::driver::Driver;
use support::records::decode;
use support::store::{Repo, blob_path, write_at};
use support::walk::walk;

const LONG_AGO: i64 = 1_700_000_000_000_000_000;

fn manifest(repo: &mut Repo, author: &str) -> (String, usize) {
    let config = json!({"architecture": "amd64", "os": "linux", "author": author, "config": {},
        "rootfs": {"type": "layers", "diff_ids": []}})
    .to_string();
    let digest = repo.blob(config.as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "layers": [], "manifests": [],
        "config": {"mediaType": oci::CONFIG, "digest": digest, "size": config.len()}})
    .to_string();
    (repo.blob(manifest.as_bytes()), manifest.len())
}

fn descriptor(media_type: &str, digest: &str, size: usize, tag: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size, "annotations": {oci::REF_NAME: tag}})
}

/// A repo that lists one blob under these media types, each with a tag.
fn repo(root: &Path, name: &str, media_types: &[&str]) -> String {
    let mut repo = Repo::new(root, name, LONG_AGO);
    let (digest, size) = manifest(&mut repo, "same");
    let tagged = media_types.iter().enumerate();
    let index: Vec<Value> =
        tagged.map(|(tag, media_type)| descriptor(media_type, &digest, size, &format!("t{tag}"))).collect();
    repo.index(&index);
    digest
}

fn recorded_type(driver: Driver<'_>, root: &Path, digest: &str) -> String {
    let state = decode(&driver.dump(root));
    state["ImageMeta"][digest]["MediaType"].as_str().unwrap_or_else(|| panic!("{state:#}")).to_owned()
}

#[test]
fn of_a_digest_under_several_media_types_the_last_record_stays() {
    for driver in Driver::BOTH {
        for order in [[oci::MANIFEST, oci::INDEX], [oci::INDEX, oci::MANIFEST]] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("zot");
            let digest = repo(&root, "r", &order);
            assert!(walk(driver, &root, false).complete());
            assert_eq!(recorded_type(driver, &root, &digest), order[1], "{driver:?}");
            // verify agrees with what zot would have written.
            let report = run::verify(driver, &root, run::Options::at(Depth::Deep));
            assert!(report.findings.iter().all(|finding| finding.repo.is_none()), "{driver:?} {:?}", report.findings);
        }
    }
}

#[test]
fn of_two_repos_the_later_one_has_the_last_word() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        let digest = repo(&root, "b", &[oci::INDEX]);
        assert!(walk(driver, &root, false).complete());
        // What `b` says is recorded already, and still `a` comes before it.
        repo(&root, "a", &[oci::MANIFEST]);
        assert!(walk(driver, &root, true).complete());
        assert_eq!(recorded_type(driver, &root, &digest), oci::INDEX, "{driver:?}");
    }
}

#[test]
fn a_new_repo_has_the_last_word_only_where_it_is_listed_last() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        repo(&root, "b", &[oci::MANIFEST]);
        assert!(walk(driver, &root, false).complete());
        // zot reads `a`, which is new, before `b`, which is changed.
        let digest = repo(&root, "a", &[oci::INDEX]);
        let index = std::fs::read(root.join("b/index.json")).unwrap();
        std::fs::write(root.join("b/index.json"), &index).unwrap();
        assert_eq!(walk(driver, &root, false).parsed, 2);
        assert_eq!(recorded_type(driver, &root, &digest), oci::MANIFEST, "{driver:?}");
        // … and `c` after it.
        repo(&root, "c", &[oci::INDEX]);
        std::fs::write(root.join("b/index.json"), &index).unwrap();
        assert_eq!(walk(driver, &root, false).parsed, 2);
        assert_eq!(recorded_type(driver, &root, &digest), oci::INDEX, "{driver:?}");
    }
}

#[test]
fn an_index_from_the_future_where_there_is_no_repo_keeps_no_records() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        for name in ["app", "x"] {
            repo(&root, name, &[oci::MANIFEST]);
        }
        assert!(walk(driver, &root, false).complete());
        std::fs::remove_file(root.join("app/oci-layout")).unwrap();
        let index = std::fs::read(root.join("app/index.json")).unwrap();
        write_at(&root.join("app/index.json"), &index, 4_000_000_000_000_000_000);
        let report = walk(driver, &root, false);
        assert!(report.complete() && report.stamp.is_there(), "{report:?}");
        assert_eq!(report.deleted, ["app"], "{driver:?}");
        let repos: Vec<Vec<u8>> = driver.dump(&root).bucket("RepoMeta").into_keys().collect();
        assert_eq!(repos, [b"x".to_vec()], "{driver:?}");
    }
}

#[test]
fn a_huge_blob_of_a_media_type_that_nobody_decodes_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("zot");
    let mut repo = Repo::new(&root, "r", LONG_AGO);
    let (good, size) = manifest(&mut repo, "good");
    let huge = repo.blob(b"to be replaced by something sparse");
    let layer = "application/vnd.oci.image.layer.v1.tar";
    repo.index(&[descriptor(layer, &huge, 300 << 20, "huge"), descriptor(oci::MANIFEST, &good, size, "a")]);
    std::fs::File::create(blob_path(&root, "r", &huge)).unwrap().set_len(300 << 20).unwrap();
    let report = walk(Driver::Bolt, &root, false);
    assert!(report.complete() && report.manifests == 1, "{report:?}");
}

#[test]
fn a_repos_record_gets_its_name_and_an_empty_one_is_none() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        repo(&root, "rr", &[oci::MANIFEST]);
        walk(driver, &root, false);
        let whole = driver.dump(&root);
        for (record, bytes) in [("RepoMeta", Vec::new()), ("RepoBlobsMeta", Vec::new()), ("RepoMeta", renamed(&whole))]
        {
            let mut raw = whole.clone();
            raw.put(record, "rr", &bytes);
            driver.restore(&root, &raw);
            assert!(walk(driver, &root, true).complete(), "{driver:?} {record}");
            let state = decode(&driver.dump(&root));
            assert_eq!(state["RepoMeta"]["rr"]["Name"], "rr", "{driver:?} {record}");
            assert_eq!(state["RepoBlobsMeta"]["rr"]["Name"], "rr", "{driver:?} {record}");
        }
    }
}

#[test]
fn records_under_what_is_no_name_of_a_repo_go() {
    for driver in Driver::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("zot");
        repo(&root, "rr", &[oci::MANIFEST]);
        walk(driver, &root, false);
        let mut raw = driver.dump(&root);
        let record = raw.get("RepoMeta", "rr").unwrap().to_vec();
        for name in ["Never There", "../rr", "rr/"] {
            raw.put("RepoMeta", name, &record);
        }
        driver.restore(&root, &raw);
        let report = walk(driver, &root, true);
        assert!(report.complete() && report.stamp.is_there(), "{driver:?} {report:?}");
        assert_eq!(report.deleted.len(), 3, "{driver:?} {report:?}");
        let left: Vec<Vec<u8>> = driver.dump(&root).bucket("RepoMeta").into_keys().collect();
        assert_eq!(left, [b"rr".to_vec()], "{driver:?}");
    }
}

/// The repo's RepoMeta under another name of the same length.
fn renamed(whole: &support::driver::Raw) -> Vec<u8> {
    let mut bytes = whole.get("RepoMeta", "rr").unwrap().to_vec();
    assert_eq!(bytes[..4], *b"\x0a\x02rr");
    bytes[2..4].copy_from_slice(b"zz");
    bytes
}
