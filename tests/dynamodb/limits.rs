//! Items near DynamoDB's limit: that repo fails and says why, the others are recorded.

use super::{P, Stage};
use crate::support::store::Repo;
use crate::support::walk::walk_at;
use crate::support::work::store;
use serde_json::{Value, json};
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A repo of one image under many tags, with many layers.
pub fn wide(root: &Path, name: &str, tags: usize, layers: usize) {
    let mut repo = Repo::new(root, name, 1_700_000_000_000_000_000);
    let layers: Vec<Value> = (0..layers)
        .map(|number| json!({"mediaType": "x", "digest": format!("sha256:{number:064x}"), "size": number}))
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:44", "size": 2}})
    .to_string();
    let digest = repo.blob(manifest.as_bytes());
    let descriptors: Vec<Value> = (0..tags)
        .map(|tag| {
            json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": format!("v{tag}")}})
        })
        .collect();
    repo.index(&descriptors);
}

#[test]
fn what_is_too_large_fails_with_its_size_and_cause_and_the_rest_goes_on() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 3, 2);
    wide(dir.path(), "many-tags", 3500, 1);
    wide(dir.path(), "many-layers", 1, 2800);
    wide(dir.path(), "huge-image", 1, 6000);
    wide(dir.path(), "large", 2500, 1);
    let report = walk_at(&stage.place(), dir.path(), false).unwrap();
    assert_eq!(report.parsed, 4, "{:?}", report.failed);
    assert!(!report.complete() && !report.stamp.is_there());
    let reason = |repo: &str| {
        let found = report.failed.iter().find(|found| found.repo == repo);
        found.unwrap_or_else(|| panic!("{repo} did not fail: {:?}", report.failed)).reason.clone()
    };
    let tags = reason("many-tags");
    assert!(tags.contains("RepoMeta item would take") && tags.contains("3500 tags") && tags.contains("zot"), "{tags}");
    let blobs = reason("many-layers");
    assert!(blobs.contains("RepoBlobsInfo item would take") && blobs.contains("2802 blobs"), "{blobs}");
    let image = reason("huge-image");
    assert!(image.contains("ImageMeta item of sha256:") && image.contains("KB"), "{image}");
    assert_eq!(report.failed.len(), 3);
    let raw = stage.server.dump(P);
    assert_eq!(raw.bucket("RepoMeta").len(), 4, "only whole repos are recorded");
    // They stay due: the next walk tries again, and fails alike.
    let again = walk_at(&stage.place(), dir.path(), false).unwrap();
    assert_eq!((again.unchanged, again.failed.len()), (4, 3));
}
