//! The worked example: one small repo whose records are known to the byte, and what becomes of them when one thing is
//! different.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::walk::WalkReport;
use serde_json::{Value, json};
use std::path::Path;
use support::driver::{Driver, Raw};
use support::equality::{differences, strict};
use support::records::{decode, hex, timestamp};
use support::store::{Repo, blob_path};
use support::walk::walk;
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

const CONFIG: &str = r#"{"created":"2024-01-02T03:04:05.5Z","architecture":"arm64","variant":"v8","os":"linux","config":{"Env":["A=b"],"Labels":{"l":"v"}},"rootfs":{"type":"layers","diff_ids":["sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]},"history":[{"created_by":"RUN x"}]}"#;
const CONFIG_DIGEST: &str = "sha256:5df60360ec08e235eb1055947ff49f393ca70295e85a8e84a593384a8beb9163";
const LAYER: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const PAYLOAD: &str = "sha256:39a046f1e0078959a6b16296eac96ad6da16ed5e79c69d398bfe11d975e9afaf";
/// The image.
const M: &str = "sha256:7f2984fea71680964ce86f087ca3f8de87726329c575f0ec53d7d32903d28a28";
const M_TEXT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:5df60360ec08e235eb1055947ff49f393ca70295e85a8e84a593384a8beb9163","size":280},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}],"annotations":{"org.opencontainers.image.vendor":"acme"}}"#;
/// The index over it.
const I: &str = "sha256:5a41ac904b2f7d3bff4afa8dee6b59e1ae60de6f53fa6250d18bce8a9a3cfa0a";
const I_TEXT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:7f2984fea71680964ce86f087ca3f8de87726329c575f0ec53d7d32903d28a28","size":451,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}"#;
/// An artifact that refers to the index.
const A: &str = "sha256:8aac34d03610d52e987cf73799f459c2dbc0be73b6c330323b6a1a898aed0203";
const A_TEXT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x.note","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}],"subject":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:5a41ac904b2f7d3bff4afa8dee6b59e1ae60de6f53fa6250d18bce8a9a3cfa0a","size":304}}"#;
/// A cosign signature of the index.
const S: &str = "sha256:9109fcd71fc939170eec4253cbb8ef6cb43d6e1733c5e480bff79523174b7afe";
const S_TEXT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:39a046f1e0078959a6b16296eac96ad6da16ed5e79c69d398bfe11d975e9afaf","size":15,"annotations":{"dev.cosignproject.cosign/signature":"c2ln"}}]}"#;
const S_TAG: &str = "sha256-5a41ac904b2f7d3bff4afa8dee6b59e1ae60de6f53fa6250d18bce8a9a3cfa0a.sig";

/// ImageMeta of M as zot's protobuf library encodes it deterministically.
const M_RECORD: &str = "0a2a6170706c69636174696f6e2f766e642e6f63692e696d6167652e6d616e69666573742e76312b6a736f6e12b7040a477368613235363a3766323938346665613731363830393634636538366630383763613366386465383737323633323963353735663065633533643764333239303364323861323810c3031aca020a020802122a6170706c69636174696f6e2f766e642e6f63692e696d6167652e6d616e69666573742e76312b6a736f6e1a0022760a286170706c69636174696f6e2f766e642e6f63692e696d6167652e636f6e6669672e76312b6a736f6e12477368613235363a356466363033363065633038653233356562313035353934376666343966333933636137303239356538356138653834613539333338346138626562393136331898022a750a266170706c69636174696f6e2f766e642e6f63692e696d6167652e6c617965722e76312e74617212477368613235363a3263663234646261356662306133306532366538336232616335623965323965316231363165356331666137343235653733303433333632393338623938323418053a003a270a1f6f72672e6f70656e636f6e7461696e6572732e696d6167652e76656e646f72120461636d65229b010a0c08a5facdac061080cab5ee0112001a140a0561726d363412056c696e75781a002a02763822111a060a016c1201762a03413d6242004a002a510a066c617965727312477368613235363a32643731313634326237323662303434303136323763613966626163333266356338353330666231393033636334646230323235383731373932316134383831320d120552554e20781a0022002800";

/// Modification time of the first file; every further file is a millisecond younger.
const T0: i64 = 1_704_164_645_123_456_789;

fn entry(digest: &str, tag: Option<&str>) -> Value {
    let (media_type, text) = match digest {
        M => (MANIFEST, M_TEXT),
        I => (INDEX, I_TEXT),
        A => (MANIFEST, A_TEXT),
        _ => (MANIFEST, S_TEXT),
    };
    let mut entry = json!({"mediaType": media_type, "digest": digest, "size": text.len()});
    if let Some(tag) = tag {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    }
    entry
}

fn all() -> [Value; 4] {
    [entry(M, None), entry(I, Some("1.0")), entry(A, None), entry(S, Some(S_TAG))]
}

/// The repo `demo` with these descriptors in its index.
fn demo(descriptors: &[Value]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = Repo::new(dir.path(), "demo", T0);
    for (text, digest) in [
        (CONFIG, CONFIG_DIGEST),
        ("hello", LAYER),
        ("{}", EMPTY),
        (r#"{"critical":{}}"#, PAYLOAD),
        (M_TEXT, M),
        (I_TEXT, I),
        (A_TEXT, A),
        (S_TEXT, S),
    ] {
        assert_eq!(repo.blob(text.as_bytes()), digest);
    }
    repo.index(descriptors);
    dir
}

/// Modification time of the blob at this place of the list in [`demo`].
fn mtime(place: i64) -> String {
    let at = T0 + (place + 1) * 1_000_000;
    jiff::Timestamp::from_nanosecond(at.into()).unwrap().to_string()
}

fn remove(root: &Path, digest: &str) {
    std::fs::remove_file(blob_path(root, "demo", digest)).unwrap();
}

fn on_both(check: impl Fn(Driver)) {
    Driver::BOTH.into_iter().for_each(check);
}

fn walked(driver: Driver, root: &Path) -> (WalkReport, Raw, Value) {
    let before = decode(&driver.dump(root));
    let report = walk(driver, root, false);
    let raw = driver.dump(root);
    let decoded = strict(&decode(&raw), &before);
    (report, raw, decoded)
}

fn statistics(place: i64) -> Value {
    json!({"LastPullTimestamp": "1970-01-01T00:00:00Z", "PushTimestamp": mtime(place)})
}

const BUILT: &str = "2024-01-02T03:04:05.500Z";
const ZERO: &str = "0001-01-01T00:00:00Z";

fn signature() -> Value {
    let layer =
        json!({"LayerDigest": PAYLOAD, "LayerContent": "eyJjcml0aWNhbCI6e319", "SignatureKey": "c2ln", "Date": ZERO});
    json!({"list": [{"SignatureManifestDigest": S, "LayersInfo": [layer]}]})
}

fn repo_meta() -> Value {
    let platform = json!({"Architecture": "arm64/v8", "OS": "linux"});
    let referrer =
        json!({"Digest": A, "Count": "1", "MediaType": MANIFEST, "ArtifactType": "application/x.note", "Size": "576"});
    json!({
        "Name": "demo",
        "Tags": {"": {}, "1.0": {"MediaType": INDEX, "Digest": I, "TaggedTimestamp": "now"}},
        "Statistics": {"": {}, M: statistics(4), I: statistics(5), A: statistics(6)},
        "Signatures": {
            "": {},
            M: {"map": {"": {}}},
            I: {"map": {"": {}, "cosign": signature()}},
            A: {"map": {"": {}}},
        },
        "Referrers": {"": {}, M: {}, I: {"list": [referrer]}, A: {}},
        "Size": "1040",
        "Vendors": ["acme"],
        "Platforms": [platform],
        "LastUpdatedImage": {"LastUpdated": BUILT, "MediaType": INDEX, "Digest": I, "Tag": "1.0"},
    })
}

fn repo_blobs() -> Value {
    json!({"Name": "demo", "Blobs": {
        "": {},
        CONFIG_DIGEST: {"Size": "280"},
        LAYER: {"Size": "5"},
        M: {
            "Size": "451",
            "Vendors": ["acme"],
            "SubBlobs": [CONFIG_DIGEST, LAYER],
            "Platforms": [{"Architecture": "arm64/v8", "OS": "linux"}],
            "LastUpdated": BUILT,
        },
        I: {"Size": "304", "SubBlobs": [M], "LastUpdated": BUILT},
        EMPTY: {"Size": "2"},
        A: {"Size": "576", "SubBlobs": [EMPTY, EMPTY], "LastUpdated": ZERO},
    }})
}

fn index_image() -> Value {
    let platform = json!({"Architecture": "arm64", "OS": "linux", "OSVersion": "", "Variant": "v8"});
    let child = json!({"MediaType": MANIFEST, "Digest": M, "Size": "451", "Platform": platform, "ArtifactType": ""});
    let index =
        json!({"Versioned": {"SchemaVersion": 2}, "MediaType": INDEX, "ArtifactType": "", "Manifests": [child]});
    json!({"MediaType": INDEX, "Index": {"Digest": I, "Size": "304", "Index": index}})
}

fn artifact_image() -> Value {
    let empty = "application/vnd.oci.empty.v1+json";
    let manifest = json!({
        "Versioned": {"SchemaVersion": 2},
        "MediaType": MANIFEST,
        "ArtifactType": "application/x.note",
        "Config": {"MediaType": empty, "Digest": EMPTY, "Size": "2"},
        "Layers": [{"MediaType": empty, "Digest": EMPTY, "Size": "2", "ArtifactType": ""}],
        "Subject": {"MediaType": INDEX, "Digest": I, "Size": "304", "ArtifactType": ""},
    });
    let config = json!({
        "Author": "",
        "Platform": {"OSVersion": "", "Variant": ""},
        "Config": {"WorkingDir": "", "StopSignal": ""},
        "RootFS": {},
    });
    json!({"MediaType": MANIFEST, "Manifests": [{"Digest": A, "Size": "576", "Manifest": manifest, "Config": config}]})
}

#[track_caller]
fn assert_same(expected: &Value, got: &Value) {
    let found = differences(expected, got);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_record_is_as_worked_out() {
    on_both(|driver| {
        let dir = demo(&all());
        let (report, raw, got) = walked(driver, dir.path());
        assert!(report.complete());
        assert_eq!(hex(raw.get("ImageMeta", M).unwrap()), M_RECORD);
        let digests: Vec<_> = got["ImageMeta"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(digests, [I, M, A]);
        assert_same(&index_image(), &got["ImageMeta"][I]);
        assert_same(&artifact_image(), &got["ImageMeta"][A]);
        assert_same(&repo_meta(), &got["RepoMeta"]["demo"]);
        assert_same(&repo_blobs(), &got["RepoBlobsMeta"]["demo"]);
    });
}

#[test]
fn the_repo_counts_as_read_before_its_index_was_opened() {
    on_both(|driver| {
        let dir = demo(&all());
        let before = jiff::Timestamp::now();
        let (_, raw, _) = walked(driver, dir.path());
        let seen = timestamp(raw.get("RepoLastUpdated", "demo").unwrap()).unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(before <= seen && seen <= jiff::Timestamp::now());
    });
}

#[test]
fn an_index_before_its_child_is_incomplete_until_the_second_reading() {
    on_both(|driver| {
        let dir = demo(&[entry(I, Some("1.0")), entry(M, None), entry(A, None), entry(S, Some(S_TAG))]);
        let (_, _, got) = walked(driver, dir.path());
        let mut meta = repo_meta();
        let members = meta.as_object_mut().unwrap();
        members.remove("Vendors");
        members.remove("Platforms");
        members["Size"] = json!("304");
        members["LastUpdatedImage"]["LastUpdated"] = json!(ZERO);
        let mut blobs = repo_blobs();
        blobs["Blobs"][I]["LastUpdated"] = json!(ZERO);
        assert_same(&meta, &got["RepoMeta"]["demo"]);
        assert_same(&blobs, &got["RepoBlobsMeta"]["demo"]);

        // Made due again by the very record that says when the repo was last read.
        let mut state = driver.dump(dir.path());
        state.put("RepoLastUpdated", "demo", &metactl::records::encode_time(metactl::oci::time::Time::ZERO));
        let tagged = decode(&state)["RepoMeta"]["demo"]["Tags"]["1.0"]["TaggedTimestamp"].clone();
        std::fs::remove_file(driver.place(dir.path()).location()).unwrap();
        driver.restore(dir.path(), &state);
        let (_, _, again) = walked(driver, dir.path());
        let mut expected = repo_meta();
        expected["Tags"]["1.0"]["TaggedTimestamp"] = tagged;
        // A reset leaves another placeholder than a new record has.
        expected["Signatures"][""] = json!({"map": {"": {}}});
        assert_same(&expected, &again["RepoMeta"]["demo"]);
        assert_same(&repo_blobs(), &again["RepoBlobsMeta"]["demo"]);
    });
}

#[test]
fn a_signature_that_comes_first_starts_the_record() {
    on_both(|driver| {
        let dir = demo(&[entry(S, Some(S_TAG)), entry(M, None), entry(I, Some("1.0")), entry(A, None)]);
        let (_, _, got) = walked(driver, dir.path());
        let mut meta = repo_meta();
        meta["Signatures"].as_object_mut().unwrap().remove("");
        meta["Signatures"][I] = json!({"map": {"cosign": signature()}});
        assert_same(&meta, &got["RepoMeta"]["demo"]);
        assert_same(&repo_blobs(), &got["RepoBlobsMeta"]["demo"]);
    });
}

#[test]
fn a_missing_config_fails_the_repo_and_leaves_nothing() {
    on_both(|driver| {
        let dir = demo(&all());
        remove(dir.path(), CONFIG_DIGEST);
        let (report, raw, _) = walked(driver, dir.path());
        assert_eq!(report.failed.len(), 1);
        assert_eq!(report.failed[0].digest.as_deref(), Some(CONFIG_DIGEST));
        assert_eq!(raw, Raw::new_metadb());
    });
}

#[test]
fn a_missing_manifest_makes_the_repo_partial() {
    on_both(|driver| {
        let dir = demo(&all());
        remove(dir.path(), M);
        let (report, raw, got) = walked(driver, dir.path());
        assert_eq!((report.partial.len(), report.failed.len()), (1, 0));
        assert_eq!(report.partial[0].digest.as_deref(), Some(M));
        assert_eq!(raw.get("Version", "FastRestartStamp"), None);
        let meta = &got["RepoMeta"]["demo"];
        assert_eq!(meta["Tags"]["1.0"]["Digest"], I);
        assert_eq!(meta["Size"], "304");
        assert_eq!(meta["LastUpdatedImage"]["LastUpdated"], ZERO);
        // Left due: zot would forget that something is missing.
        assert_eq!(timestamp(raw.get("RepoLastUpdated", "demo").unwrap()).unwrap(), ZERO);
    });
}

#[test]
fn records_of_a_newer_zot_are_not_rewritten() {
    // Field 99, a number: in an image record, and in the signatures of an image.
    let image = |state: &mut Raw| {
        let record = [state.get("ImageMeta", M).unwrap(), &[0x98, 0x06, 0x07]].concat();
        state.put("ImageMeta", M, &record);
        "ImageMeta"
    };
    let signatures = |state: &mut Raw| {
        let entry = [0x22, 0x08, 0x0a, 0x01, b'k', 0x12, 0x03, 0x98, 0x06, 0x07];
        let record = [state.get("RepoMeta", "demo").unwrap(), &entry].concat();
        state.put("RepoMeta", "demo", &record);
        "RepoMeta"
    };
    for (age, path) in [(&image as &dyn Fn(&mut Raw) -> &'static str, "(99)"), (&signatures, "(4.99)")] {
        on_both(|driver| {
            let dir = demo(&all());
            walk(driver, dir.path(), false);
            let mut state = driver.dump(dir.path());
            let record = age(&mut state);
            std::fs::remove_file(driver.place(dir.path()).location()).unwrap();
            driver.restore(dir.path(), &state);
            let report = walk(driver, dir.path(), true);
            assert_eq!(report.failed.len(), 1);
            let reason = &report.failed[0].reason;
            assert!(reason.contains("unknown fields") && reason.contains(path) && reason.contains(record), "{reason}");
            let mut after = driver.dump(dir.path());
            assert_eq!(timestamp(after.get("RepoLastUpdated", "demo").unwrap()).unwrap(), ZERO);
            assert_eq!(after.get("Version", "FastRestartStamp"), None);
            for bucket in ["Version", "RepoLastUpdated"] {
                after.0.insert(bucket.into(), state.bucket(bucket));
            }
            assert_eq!(after, state);
        });
    }
}
