//! A small healthy registry, made by the binary itself: every kind of record that zot keeps is in it.

use super::readonly::everything;
use super::remote::{METADBS, Remote};
use super::run::{Options, verify};
use super::support::bucket::Bucket;
use super::support::driver::{Driver, Raw};
use super::support::store::{Repo, sha256};
use metactl::records::proto;
use metactl::verify::{Depth, Report};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// 2024-01-01, one day between repos.
const LONG_AGO: i64 = 1_704_067_200_000_000_000;
const DAY: i64 = 86_400_000_000_000;

/// Digests of the images in `alpine`.
#[derive(Debug, Clone, Default)]
pub struct Digests {
    pub v1: String,
    pub v2: String,
    pub untagged: String,
    pub multi: String,
    pub child: String,
    pub sbom: String,
    pub cosign: String,
    pub bundle: String,
    pub notation: String,
    pub config: String,
    pub layer: String,
    pub signature_layer: String,
}

/// A registry in a directory of its own.
pub struct World<'d> {
    pub dir: tempfile::TempDir,
    pub driver: Driver<'d>,
    pub digests: Digests,
    /// The stamp that the binary wrote.
    pub stamp: String,
    /// The healthy metaDB.
    pub healthy: Raw,
    pub options: WorldOptions,
    /// Where the store is, if not in the directory; what is there is its original.
    pub remote: Option<Remote<'d>>,
}

/// What a plant changes about the config.
#[derive(Clone, Copy)]
pub struct WorldOptions {
    pub fast_restart: bool,
    pub metadb_used: bool,
}

/// A descriptor of `index.json`.
pub fn descriptor(media_type: &str, digest: &str, tag: Option<&str>) -> Value {
    let mut out = json!({"mediaType": media_type, "digest": digest, "size": 1});
    if let Some(tag) = tag {
        out["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    }
    out
}

/// Store an image and return its digest and that of its config.
pub fn image(repo: &mut Repo, name: &str, arch: &str, day: u32) -> (String, String) {
    let config = json!({
        "created": format!("2023-03-{day:02}T10:00:00Z"), "author": "us", "architecture": arch, "os": "linux",
        "config": {"Env": [format!("NAME={name}")]}, "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = repo.blob(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 100},
        "layers": [
            {"mediaType": LAYER, "digest": sha256(b"base"), "size": 1000},
            {"mediaType": LAYER, "digest": sha256(name.as_bytes()), "size": 2000 + day},
        ],
        "annotations": {"org.opencontainers.image.vendor": format!("vendor of {arch}"), "name": name},
    });
    repo.mtime_ns += DAY;
    (repo.blob(manifest.to_string().as_bytes()), config)
}

fn artifact(repo: &mut Repo, kind: &str, subject: Option<&str>, layers: &[(&str, &[u8])]) -> String {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(media_type, content)| {
            let digest = repo.blob(content);
            json!({"mediaType": media_type, "digest": digest, "size": content.len(),
                "annotations": {"dev.cosignproject.cosign/signature": "MEUCIQ"}})
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
        "layers": layers, "annotations": {"made": "by hand"},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": 1});
    }
    repo.mtime_ns += DAY;
    repo.blob(manifest.to_string().as_bytes())
}

fn alpine(root: &Path) -> Digests {
    let mut repo = Repo::new(root, "alpine", LONG_AGO);
    let mut digests = Digests::default();
    let (child, _) = image(&mut repo, "child", "arm64", 9);
    let (other, _) = image(&mut repo, "other", "s390x", 8);
    (digests.v1, digests.config) = image(&mut repo, "one", "amd64", 1);
    (digests.v2, _) = image(&mut repo, "two", "amd64", 2);
    (digests.untagged, _) = image(&mut repo, "untagged", "riscv64", 3);
    let multi = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": child, "size": 1, "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": OCI_MANIFEST, "digest": other, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
    ]});
    digests.multi = repo.blob(multi.to_string().as_bytes());
    let simple = "application/vnd.dev.cosign.simplesigning.v1+json";
    digests.cosign = artifact(&mut repo, "", None, &[(simple, b"payload of v1")]);
    digests.bundle = artifact(
        &mut repo,
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        Some(&digests.v1),
        &[("application/vnd.dev.sigstore.bundle.v0.3+json", b"bundle of v1")],
    );
    digests.notation = artifact(
        &mut repo,
        "application/vnd.cncf.notary.signature",
        Some(&digests.v2),
        &[("application/jose+json", b"jws")],
    );
    digests.sbom = artifact(&mut repo, "application/spdx+json", Some(&digests.v1), &[("text/plain", b"sbom")]);
    digests.child = child;
    digests.layer = sha256(b"one");
    digests.signature_layer = sha256(b"payload of v1");
    let signature_tag = format!("{}.sig", digests.v1.replace(':', "-"));
    let mut list = vec![
        descriptor(OCI_MANIFEST, &digests.child, None),
        descriptor(OCI_MANIFEST, &other, None),
        descriptor(OCI_MANIFEST, &digests.v1, Some("v1")),
        descriptor(OCI_MANIFEST, &digests.v2, Some("v2")),
        descriptor(OCI_MANIFEST, &digests.untagged, None),
        descriptor(OCI_INDEX, &digests.multi, Some("multi")),
        descriptor(OCI_MANIFEST, &digests.cosign, Some(&signature_tag)),
        descriptor(OCI_MANIFEST, &digests.bundle, None),
        descriptor(OCI_MANIFEST, &digests.notation, None),
        descriptor(OCI_MANIFEST, &digests.sbom, None),
        descriptor("application/vnd.unknown+json", &digests.config, None),
    ];
    for at in 10..22 {
        let (digest, _) = image(&mut repo, &format!("series {at}"), "amd64", at);
        list.push(descriptor(OCI_MANIFEST, &digest, Some(&format!("s{at}"))));
    }
    repo.index(&list);
    digests
}

impl<'d> World<'d> {
    /// A healthy registry: walked and stamped by the binary, one star given.
    pub fn new(driver: Driver<'d>) -> Self {
        Self::kept(driver, None)
    }

    /// The same with its store in a new bucket, where requests go to this port.
    pub fn in_bucket(driver: Driver<'d>, bucket: Bucket<'d>, port: u16) -> Self {
        Self::kept(driver, Some(Remote::new(bucket, port)))
    }

    fn kept(driver: Driver<'d>, remote: Option<Remote<'d>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let digests = alpine(&root);
        let mut app = Repo::new(&root, "team/app", LONG_AGO + 100 * DAY);
        let (digest, _) = image(&mut app, "app", "amd64", 5);
        app.index(&[descriptor(OCI_MANIFEST, &digest, Some("latest"))]);
        Repo::new(&root, "empty", LONG_AGO).write("index.json", br#"{"schemaVersion":2,"manifests":null}"#);
        let options = WorldOptions { fast_restart: true, metadb_used: true };
        let mut world = Self { dir, driver, digests, stamp: String::new(), healthy: Raw::default(), options, remote };
        world.write_config();
        if let Some(remote) = &world.remote {
            remote.load(&world.root());
        }
        if let Driver::DynamoDb(_) = driver {
            // zot's tables.
            driver.restore(&world.root(), &Raw::default());
        }
        // Twice, so that zot's placeholders are those of a record that was walked before.
        for force in [&["walk"][..], &["walk", "--force"]] {
            let output = world.metactl(force);
            assert!(output.status.success(), "{output:?}");
        }
        world.edit(|raw| {
            raw.put(
                "UserData",
                "alice",
                br#"{"StarredRepos":["alpine"],"BookmarkedRepos":null,"Groups":null,"APIKeys":null}"#,
            );
        });
        world.meta("alpine", |meta| meta.stars = 1);
        world.healthy = world.raw();
        world.stamp = String::from_utf8(world.healthy.get("Version", "FastRestartStamp").unwrap().to_vec()).unwrap();
        world
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn write_config(&self) {
        let mut storage = json!({"rootDirectory": "root", "fastRestart": self.options.fast_restart});
        // No zot is looked for beside DynamoDB, which zot refuses beside local storage.
        let port = if let Driver::DynamoDb(_) = self.driver { "0" } else { "5000" };
        if port == "5000" || self.remote.is_some() {
            self.driver.configure(&self.root(), &mut storage);
        }
        if let Some(remote) = &self.remote {
            storage["storageDriver"] = remote.driver();
            storage["dedupe"] = json!(false);
        }
        let mut config = json!({"storage": storage, "http": {"address": "127.0.0.1", "port": port}});
        if self.options.metadb_used {
            config["extensions"] = json!({"search": {"enable": true}});
        }
        std::fs::write(self.dir.path().join("config.json"), config.to_string()).unwrap();
    }

    /// Run the binary for this registry.
    pub fn metactl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&self.dir).env_clear().args(["--config", "config.json", "--no-state", "--yes"]);
        command.args(["--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d"]).args(args);
        self.driver.direct(&self.root(), &mut command);
        if let Some(remote) = &self.remote {
            command.envs(remote.environment());
        }
        command.output().unwrap()
    }

    /// Everything in the store, and when it changed.
    pub fn stored(&self) -> BTreeMap<PathBuf, String> {
        match &self.remote {
            Some(remote) => {
                let objects = remote.bucket.own_objects().into_iter();
                objects.map(|(key, stat)| (key.into(), format!("{stat:?}"))).collect()
            }
            None => {
                let mut found = everything(&self.root());
                // Whoever tries hard links there changes the root's own time.
                found.retain(|path, _| *path != self.root() && !METADBS.iter().any(|name| path.ends_with(name)));
                found
            }
        }
    }

    pub fn raw(&self) -> Raw {
        self.driver.dump(&self.root())
    }

    /// Change the metaDB behind everybody's back.
    pub fn edit(&self, change: impl FnOnce(&mut Raw)) {
        let mut raw = self.raw();
        change(&mut raw);
        self.driver.restore(&self.root(), &raw);
    }

    pub fn remove(&self, bucket: &str, key: &str) {
        self.edit(|raw| assert!(raw.0.get_mut(bucket).unwrap().remove(key.as_bytes()).is_some(), "{bucket} {key}"));
    }

    fn record<T: Message + Default>(&self, bucket: &str, key: &str, change: impl FnOnce(&mut T)) {
        self.edit(|raw| {
            let mut record = T::decode(raw.get(bucket, key).unwrap()).unwrap();
            change(&mut record);
            raw.put(bucket, key, &record.encode_to_vec());
        });
    }

    pub fn meta(&self, repo: &str, change: impl FnOnce(&mut proto::RepoMeta)) {
        self.record("RepoMeta", repo, change);
    }

    pub fn blobs(&self, repo: &str, change: impl FnOnce(&mut proto::RepoBlobs)) {
        self.record("RepoBlobsMeta", repo, change);
    }

    pub fn image(&self, digest: &str, change: impl FnOnce(&mut proto::ImageMeta)) {
        self.record("ImageMeta", digest, change);
    }

    /// Make zot's next walk look at `alpine`.
    pub fn make_due(&self) {
        self.edit(|raw| {
            raw.put(
                "RepoLastUpdated",
                "alpine",
                &metactl::records::encode_time(metactl::oci::time::Time { seconds: 1, nanos: 0 }),
            )
        });
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        super::support::store::blob_path(&self.root(), "alpine", digest)
    }

    pub fn index(&self) -> PathBuf {
        self.root().join("alpine/index.json")
    }

    /// Rewrite `alpine`'s index; `newer` than its records, or dated as before.
    pub fn reindex(&self, newer: bool, change: impl FnOnce(&mut Vec<Value>)) {
        let path = self.index();
        let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(index["manifests"].as_array_mut().unwrap());
        std::fs::write(&path, index.to_string()).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        if newer {
            // Long enough ago to be nobody's push under way.
            self.make_due();
        }
        file.set_modified(mtime).unwrap();
    }

    /// Verify in this process, or what is in a bucket by the binary.
    pub fn verify(&self, depth: Depth) -> Report {
        if self.remote.is_some() {
            return super::remote::verify(self, depth);
        }
        let options = Options {
            expected: &self.stamp,
            fast_restart: self.options.fast_restart,
            metadb_used: self.options.metadb_used,
            ..Options::at(depth)
        };
        verify(self.driver, &self.root(), options)
    }
}
