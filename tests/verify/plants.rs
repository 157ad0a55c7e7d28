//! Every kind of drift, planted one at a time.

use super::support::driver::Driver;
use super::support::store::{Repo, blob_path, sha256, write_at};
use super::world::{World, descriptor, image};
use metactl::records::proto;
use std::time::{Duration, SystemTime};

/// One way to spoil a healthy registry, and the ids that each depth must then report (sorted, with repetitions).
pub struct Plant {
    pub name: &'static str,
    pub spoil: fn(&mut World),
    pub quick: Vec<&'static str>,
    pub default: Vec<&'static str>,
    pub deep: Vec<&'static str>,
    /// Whether the commands that the findings name put it right.
    pub repairable: bool,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn sorted(mut ids: Vec<&'static str>) -> Vec<&'static str> {
    ids.sort_unstable();
    ids
}

/// Found at every depth.
fn always(name: &'static str, ids: &[&'static str], spoil: fn(&mut World)) -> Plant {
    let ids = sorted(ids.to_vec());
    Plant { name, spoil, quick: ids.clone(), default: ids.clone(), deep: ids, repairable: true }
}

/// Found by default and by `--deep`.
fn records(name: &'static str, ids: &[&'static str], spoil: fn(&mut World)) -> Plant {
    Plant { quick: Vec::new(), ..always(name, ids, spoil) }
}

/// Found by `--deep` alone.
fn deep(name: &'static str, ids: &[&'static str], spoil: fn(&mut World)) -> Plant {
    Plant { default: Vec::new(), ..records(name, ids, spoil) }
}

impl Plant {
    /// Whether it is drift with this driver. A metaDB on a server that says no schema gets the one that zot knows.
    pub fn applies(&self, driver: Driver<'_>) -> bool {
        self.name != "no schema" || !matches!(driver, Driver::Redis(_) | Driver::DynamoDb(_))
    }

    /// No command puts it right.
    fn stays(self) -> Self {
        Self { repairable: false, ..self }
    }

    /// As drift behind an index that zot's walk does not look at, under a current stamp.
    fn hidden(self) -> Self {
        self.with(&["repo-hidden", "stamp-premature"])
    }

    /// As drift that zot's walk would repair if the stamp did not keep it from walking.
    fn due(self) -> Self {
        self.with(&["repo-due", "stamp-premature"])
    }

    /// As drift that says itself that it is due.
    fn premature(self) -> Self {
        self.with(&["stamp-premature"])
    }

    fn with(mut self, more: &[&'static str]) -> Self {
        for list in [&mut self.quick, &mut self.default, &mut self.deep] {
            if !list.is_empty() {
                list.extend(more);
                list.sort_unstable();
            }
        }
        self
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn at(seconds: i64) -> Vec<u8> {
    metactl::records::encode_time(metactl::oci::time::Time { seconds, nanos: 0 })
}

fn unknown_field(world: &World, bucket: &str, key: &str) {
    world.edit(|raw| {
        let mut bytes = raw.get(bucket, key).unwrap().to_vec();
        bytes.extend([0x90, 0x03, 0x07]);
        raw.put(bucket, key, &bytes);
    });
}

fn statistics_gone(world: &World, digest: &str) {
    world.meta("alpine", |meta| assert!(meta.statistics.remove(digest).is_some()));
}

fn signature_gone(world: &World, signature: &str) {
    world.meta("alpine", |meta| {
        let lists = meta.signatures.values_mut().flat_map(|signatures| signatures.map.values_mut());
        lists.for_each(|list| list.list.retain(|found| found.signature_manifest_digest != signature));
    });
}

fn signature<'m>(meta: &'m mut proto::RepoMeta, signature: &str) -> &'m mut proto::SignatureInfo {
    let lists = meta.signatures.values_mut().flat_map(|signatures| signatures.map.values_mut());
    lists.flat_map(|list| &mut list.list).find(|found| found.signature_manifest_digest == signature).unwrap()
}

fn referrer<'m>(meta: &'m mut proto::RepoMeta, digest: &str) -> &'m mut proto::ReferrerInfo {
    meta.referrers.values_mut().flat_map(|list| &mut list.list).find(|found| found.digest == digest).unwrap()
}

fn config(record: &mut proto::ImageMeta) -> &mut proto::Image {
    record.manifests[0].config.as_mut().unwrap()
}

fn manifest(record: &mut proto::ImageMeta) -> &mut proto::Manifest {
    record.manifests[0].manifest.as_mut().unwrap()
}

/// Overwrite a blob and keep its time.
pub fn corrupt(world: &World, digest: &str, change: impl FnOnce(String) -> String) {
    let path = world.blob(digest);
    let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
    let text = change(std::fs::read_to_string(&path).unwrap());
    std::fs::write(&path, text).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
}

fn lose(world: &World, digest: &str) {
    std::fs::remove_file(world.blob(digest)).unwrap();
}

fn new_repo(world: &World, name: &str) {
    let mut repo = Repo::new(&world.root(), name, 1_704_067_200_000_000_000);
    let (digest, _) = image(&mut repo, "new", "amd64", 7);
    repo.index(&[descriptor(MANIFEST, &digest, Some("new"))]);
}

fn new_tag(world: &World, newer: bool) {
    let mut repo = Repo::new(&world.root(), "alpine", 1_704_067_200_000_000_000);
    let (digest, _) = image(&mut repo, "pushed behind the back", "amd64", 25);
    world.reindex(newer, |list| list.push(descriptor(MANIFEST, &digest, Some("v3"))));
}

/// A push as it is between storage and metaDB: the index is of this moment.
pub fn push_a_tag(world: &World) {
    new_tag(world, false);
    std::fs::File::options().write(true).open(world.index()).unwrap().set_modified(SystemTime::now()).unwrap();
}

/// All of them.
pub fn plants() -> Vec<Plant> {
    let mut plants = tags();
    plants.extend(images());
    plants.extend(signatures());
    plants.extend(referrers());
    plants.extend(sums());
    plants.extend(undecodable());
    plants.extend(stamps());
    plants.extend(storage());
    plants.extend(repos());
    plants
}

fn tags() -> Vec<Plant> {
    vec![
        always("tag lost", &["tag-missing"], |w| w.meta("alpine", |m| drop(m.tags.remove("v1")))).hidden(),
        always("tag lost, due", &["tag-missing"], |w| {
            w.meta("alpine", |m| drop(m.tags.remove("v1")));
            w.make_due();
        })
        .due(),
        always("tag of an index lost", &["tag-missing"], |w| w.meta("alpine", |m| drop(m.tags.remove("multi"))))
            .hidden(),
        always("tag that is not there", &["tag-extra"], |w| {
            w.meta("alpine", |m| drop(m.tags.insert("ghost".into(), m.tags["v1"].clone())));
        })
        .hidden(),
        always("tag that is not there, due", &["tag-extra"], |w| {
            w.meta("alpine", |m| drop(m.tags.insert("ghost".into(), m.tags["v1"].clone())));
            w.make_due();
        })
        .due(),
        always("tag of another image", &["tag-digest"], |w| {
            w.meta("alpine", |m| m.tags.get_mut("v1").unwrap().digest = m.tags["v2"].digest.clone());
        })
        .hidden(),
        always("tag of another image, due", &["tag-digest"], |w| {
            w.meta("alpine", |m| m.tags.get_mut("v1").unwrap().digest = m.tags["v2"].digest.clone());
            w.make_due();
        })
        .due(),
        records("tag of another media type", &["tag-digest"], |w| {
            w.meta("alpine", |m| m.tags.get_mut("multi").unwrap().media_type = MANIFEST.into());
        })
        .hidden(),
        always("tags swapped", &["tag-digest", "tag-digest"], |w| {
            w.meta("alpine", |m| {
                let (one, two) = (m.tags["v1"].digest.clone(), m.tags["v2"].digest.clone());
                m.tags.get_mut("v1").unwrap().digest = two;
                m.tags.get_mut("v2").unwrap().digest = one;
            });
        })
        .hidden(),
        always("statistics of a tag lost", &["statistics-missing"], |w| statistics_gone(w, &w.digests.v1)).hidden(),
        always("statistics of an index lost", &["statistics-missing"], |w| statistics_gone(w, &w.digests.multi))
            .hidden(),
        always("statistics lost, due", &["statistics-missing"], |w| {
            statistics_gone(w, &w.digests.v1);
            w.make_due();
        })
        .due(),
        records("push times lost", &["push-time-cluster"], |w| {
            // In a bucket blobs are of this moment.
            let later = now() + 3600;
            w.meta("alpine", |m| {
                for (at, known) in (0..).zip(m.statistics.values_mut()) {
                    known.push_timestamp = Some(proto::Timestamp { seconds: later - at % 3, nanos: 5 });
                }
            });
        })
        .stays(),
        records("star lost", &["stars-differ"], |w| w.meta("alpine", |m| m.stars = 0)).stays(),
        records("star never given", &["stars-differ"], |w| w.meta("team/app", |m| m.stars = 3)).stays(),
    ]
}

fn images() -> Vec<Plant> {
    vec![
        records("image record lost", &["image-missing"], |w| w.remove("ImageMeta", &w.digests.v1)).hidden(),
        records("image record of an index lost", &["image-missing"], |w| w.remove("ImageMeta", &w.digests.multi))
            .hidden(),
        records("image record of a child lost", &["image-missing"], |w| w.remove("ImageMeta", &w.digests.child))
            .hidden(),
        records("image record of a referrer lost", &["image-missing"], |w| w.remove("ImageMeta", &w.digests.sbom))
            .hidden(),
        records("image record lost, due", &["image-missing"], |w| {
            w.remove("ImageMeta", &w.digests.untagged);
            w.make_due();
        })
        .due(),
        records("image of another size", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| i.manifests[0].size += 1);
        })
        .hidden(),
        records("image of other layers", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| manifest(i).layers[1].digest = sha256(b"else"));
        })
        .hidden(),
        records("image of another day", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| config(i).created = Some(proto::Timestamp { seconds: 5, nanos: 0 }));
        })
        .hidden(),
        records("image of another platform", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| config(i).platform.as_mut().unwrap().architecture = "mips".into());
        })
        .hidden(),
        records("index of other children", &["image-differs"], |w| {
            w.image(&w.digests.multi, |i| drop(i.index.as_mut().unwrap().index.as_mut().unwrap().manifests.pop()));
        })
        .hidden(),
        records("record of another image", &["image-differs"], |w| {
            let other = w.raw().get("ImageMeta", &w.digests.v2).unwrap().to_vec();
            w.edit(|raw| raw.put("ImageMeta", &w.digests.v1, &other));
        })
        .hidden(),
        deep("image of another author", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| config(i).author = Some("them".into()));
        })
        .hidden(),
        deep("image of other annotations", &["image-differs"], |w| {
            w.image(&w.digests.v1, |i| drop(manifest(i).annotations.insert("extra".into(), "1".into())));
        })
        .hidden(),
        deep("image of another environment", &["image-differs"], |w| {
            w.image(&w.digests.v2, |i| config(i).config.as_mut().unwrap().env.push("A=B".into()));
        })
        .hidden(),
        deep("child of another platform in its index", &["image-differs"], |w| {
            w.image(&w.digests.multi, |i| {
                i.index.as_mut().unwrap().index.as_mut().unwrap().manifests[0].platform = None;
            });
        })
        .hidden(),
        records("image that nothing names", &["orphan-image"], |w| {
            let bytes = w.raw().get("ImageMeta", &w.digests.v2).unwrap().to_vec();
            w.edit(|raw| raw.put("ImageMeta", &sha256(b"nobody"), &bytes));
        }),
    ]
}

fn signatures() -> Vec<Plant> {
    vec![
        always("signature by tag lost", &["signature-missing"], |w| signature_gone(w, &w.digests.cosign)).hidden(),
        always("signature by subject lost", &["signature-missing"], |w| signature_gone(w, &w.digests.bundle)).hidden(),
        always("notation signature lost", &["signature-missing"], |w| signature_gone(w, &w.digests.notation)).hidden(),
        always("signature lost, due", &["signature-missing"], |w| {
            signature_gone(w, &w.digests.cosign);
            w.make_due();
        })
        .due(),
        always("all signatures of an image lost", &["signature-missing", "signature-missing"], |w| {
            w.meta("alpine", |m| assert!(m.signatures.remove(&w.digests.v1).is_some()));
        })
        .hidden(),
        records("signature that is not there", &["signature-extra"], |w| {
            let ghost = proto::SignatureInfo { signature_manifest_digest: sha256(b"ghost"), ..Default::default() };
            w.meta("alpine", |m| {
                m.signatures.get_mut(&w.digests.v1).unwrap().map.get_mut("cosign").unwrap().list.push(ghost);
            });
        })
        .hidden(),
        deep("signature of another image", &["signature-extra", "signature-missing"], |w| {
            w.meta("alpine", |m| {
                let moved = m.signatures.get_mut(&w.digests.v2).unwrap().map.remove("notation").unwrap();
                m.signatures.get_mut(&w.digests.v1).unwrap().map.insert("notation".into(), moved);
            });
        })
        .hidden(),
        deep("signature of other content", &["signature-differs"], |w| {
            w.meta("alpine", |m| signature(m, &w.digests.cosign).layers_info[0].layer_content.push(0));
        })
        .hidden(),
        deep("signature of another key", &["signature-differs"], |w| {
            w.meta("alpine", |m| signature(m, &w.digests.cosign).layers_info[0].signature_key.push('x'));
        })
        .hidden(),
        deep("signature of other layers", &["signature-differs"], |w| {
            w.meta("alpine", |m| signature(m, &w.digests.notation).layers_info.clear());
        })
        .hidden(),
    ]
}

fn referrers() -> Vec<Plant> {
    vec![
        records("referrer lost", &["referrer-differs"], |w| {
            w.meta("alpine", |m| m.referrers.get_mut(&w.digests.v1).unwrap().list.clear());
        })
        .hidden(),
        records("list of referrers lost", &["referrer-differs"], |w| {
            w.meta("alpine", |m| drop(m.referrers.remove(&w.digests.v1)));
        })
        .hidden(),
        records("referrer that is not there", &["referrer-differs"], |w| {
            let ghost = proto::ReferrerInfo { digest: sha256(b"ghost"), count: 1, ..Default::default() };
            w.meta("alpine", |m| m.referrers.get_mut(&w.digests.v2).unwrap().list.push(ghost));
        })
        .hidden(),
        records("referrer of another type", &["referrer-differs"], |w| {
            w.meta("alpine", |m| referrer(m, &w.digests.sbom).artifact_type.push('x'));
        })
        .hidden(),
        records("referrer of another size", &["referrer-differs"], |w| {
            w.meta("alpine", |m| referrer(m, &w.digests.sbom).size += 1);
        })
        .hidden(),
        records("referrer of other annotations, due", &["referrer-differs"], |w| {
            w.meta("alpine", |m| referrer(m, &w.digests.sbom).annotations.clear());
            w.make_due();
        })
        .due(),
    ]
}

fn sums() -> Vec<Plant> {
    vec![
        records("another size", &["aggregate-differs"], |w| w.meta("alpine", |m| m.size += 1)).hidden(),
        records("a smaller size", &["aggregate-differs"], |w| w.meta("alpine", |m| m.size -= 1)).hidden(),
        records("another size, due", &["aggregate-differs"], |w| {
            w.meta("alpine", |m| m.size = 0);
            w.make_due();
        })
        .due(),
        records("a platform lost", &["aggregate-differs"], |w| w.meta("alpine", |m| drop(m.platforms.pop()))).hidden(),
        records("a vendor more", &["aggregate-differs"], |w| w.meta("alpine", |m| m.vendors.push("them".into())))
            .hidden(),
        records("no last update", &["aggregate-differs"], |w| w.meta("alpine", |m| m.last_updated_image = None))
            .hidden(),
        records("an older last update", &["aggregate-differs"], |w| {
            w.meta("alpine", |m| {
                m.last_updated_image.as_mut().unwrap().last_updated = Some(proto::Timestamp { seconds: 1, nanos: 0 });
            });
        })
        .hidden(),
        records("last update of an image that is not there", &["aggregate-differs"], |w| {
            w.meta("alpine", |m| m.last_updated_image.as_mut().unwrap().digest = sha256(b"ghost"));
        })
        .hidden(),
        records("a blob record lost", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| assert!(b.blobs.remove(&w.digests.v1).is_some()));
        })
        .hidden(),
        records("a layer's record lost", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| assert!(b.blobs.remove(&w.digests.layer).is_some()));
        })
        .hidden(),
        records("a blob of another size", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| b.blobs.get_mut(&w.digests.v1).unwrap().size += 1);
        })
        .hidden(),
        records("a layer of another size", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| b.blobs.get_mut(&w.digests.layer).unwrap().size += 1);
        })
        .hidden(),
        records("a blob of other parts", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| drop(b.blobs.get_mut(&w.digests.v2).unwrap().sub_blobs.pop()));
        })
        .hidden(),
        records("an index of another day", &["aggregate-differs"], |w| {
            w.blobs("alpine", |b| b.blobs.get_mut(&w.digests.multi).unwrap().last_updated = Some(Default::default()));
        })
        .hidden(),
    ]
}

fn undecodable() -> Vec<Plant> {
    vec![
        always("RepoMeta undecodable", &["record-undecodable", "stamp-premature"], |w| {
            w.edit(|raw| raw.put("RepoMeta", "alpine", &[0xff]));
        })
        .stays(),
        records("RepoBlobs undecodable", &["record-undecodable", "stamp-premature"], |w| {
            w.edit(|raw| raw.put("RepoBlobsMeta", "alpine", &[0xff]));
        })
        .stays(),
        records("ImageMeta undecodable", &["record-undecodable"], |w| {
            w.edit(|raw| raw.put("ImageMeta", &w.digests.v1, &[0xff]));
        })
        .hidden(),
        records("ImageMeta undecodable, due", &["record-undecodable"], |w| {
            w.edit(|raw| raw.put("ImageMeta", &w.digests.multi, b"\x0a\xff"));
            w.make_due();
        })
        .due(),
        records("unknown field in RepoMeta", &["record-unknown-fields"], |w| unknown_field(w, "RepoMeta", "alpine"))
            .stays(),
        records("unknown field in RepoBlobs", &["record-unknown-fields"], |w| {
            unknown_field(w, "RepoBlobsMeta", "alpine");
        })
        .stays(),
        records("unknown field in ImageMeta", &["record-unknown-fields"], |w| {
            unknown_field(w, "ImageMeta", &w.digests.v1);
        })
        .stays(),
        records("user record undecodable", &["user-record-undecodable"], |w| {
            w.edit(|raw| raw.put("UserData", "bob", b"{\"StarredRepos\": 7}"));
        })
        .stays(),
        records("user record cut off", &["stars-differ", "user-record-undecodable"], |w| {
            w.edit(|raw| raw.put("UserData", "alice", b"{\"StarredRepos\":[\"al"));
        })
        .stays(),
        always("another schema", &["version-unknown"], |w| w.edit(|raw| raw.put("Version", "DBVersion", b"V9")))
            .stays(),
        always("no schema", &["version-unknown"], |w| w.remove("Version", "DBVersion")).stays(),
    ]
}

fn stamps() -> Vec<Plant> {
    vec![
        always("no stamp", &["stamp-absent"], |w| w.remove("Version", "FastRestartStamp")),
        always("stamp of another build", &["stamp-identity"], |w| {
            let stamp = w.stamp.replace("v2.1.20", "v2.1.19");
            w.edit(|raw| raw.put("Version", "FastRestartStamp", stamp.as_bytes()));
        }),
        always("stamp of another config", &["stamp-config"], |w| {
            let stamp = format!("{}00", &w.stamp[..w.stamp.len() - 2]);
            w.edit(|raw| raw.put("Version", "FastRestartStamp", stamp.as_bytes()));
        }),
        always("stamp of another build and config", &["stamp-config", "stamp-identity"], |w| {
            w.edit(|raw| raw.put("Version", "FastRestartStamp", b"v1|00"));
        }),
        always("stamp that is none", &["stamp-config", "stamp-identity"], |w| {
            w.edit(|raw| raw.put("Version", "FastRestartStamp", b"\xff\x00rubbish"));
        }),
        always("no stamp, and drift that is due", &["repo-due", "stamp-absent", "tag-missing"], |w| {
            w.meta("alpine", |m| drop(m.tags.remove("v1")));
            w.make_due();
            w.remove("Version", "FastRestartStamp");
        }),
        always("no stamp, and drift that is hidden", &["repo-hidden", "stamp-absent", "tag-missing"], |w| {
            w.meta("alpine", |m| drop(m.tags.remove("v1")));
            w.remove("Version", "FastRestartStamp");
        }),
        always("fastRestart off", &["fast-restart-off"], |w| w.options.fast_restart = false).stays(),
        always("fastRestart off, and drift", &["fast-restart-off", "repo-hidden", "tag-missing"], |w| {
            w.options.fast_restart = false;
            w.meta("alpine", |m| drop(m.tags.remove("v1")));
        }),
    ]
}

fn storage() -> Vec<Plant> {
    vec![
        deep("manifest lost", &["blob-missing"], |w| lose(w, &w.digests.v1)).stays(),
        deep("index manifest lost", &["blob-missing"], |w| lose(w, &w.digests.multi)).stays(),
        deep("config lost", &["blob-missing"], |w| lose(w, &w.digests.config)).stays(),
        deep("signature lost in storage", &["blob-missing"], |w| lose(w, &w.digests.cosign)).stays(),
        deep("signature layer lost", &["blob-missing"], |w| lose(w, &w.digests.signature_layer)).stays(),
        deep("two manifests and a config lost", &["blob-missing", "blob-missing", "blob-missing"], |w| {
            lose(w, &w.digests.v2);
            lose(w, &w.digests.untagged);
            lose(w, &w.digests.config);
        })
        .stays(),
        deep("manifest altered", &["blob-digest"], |w| {
            corrupt(w, &w.digests.v1, |text| text.replace("amd64", "armv7"))
        })
        .stays(),
        deep("config altered", &["blob-digest"], |w| corrupt(w, &w.digests.config, |text| text.replace("us", "me")))
            .stays(),
        deep("signature layer altered", &["blob-digest"], |w| {
            corrupt(w, &w.digests.signature_layer, |text| text + " ")
        })
        .stays(),
        deep("manifest cut off", &["blob-digest", "document-invalid"], |w| {
            corrupt(w, &w.digests.v1, |text| text[..text.len() / 2].into());
        })
        .stays(),
        deep("config cut off", &["blob-digest", "document-invalid"], |w| {
            corrupt(w, &w.digests.config, |text| text[..text.len() / 2].into());
        })
        .stays(),
        deep("manifest is a directory", &["blob-missing"], |w| {
            lose(w, &w.digests.v1);
            std::fs::create_dir(w.blob(&w.digests.v1)).unwrap();
        })
        .stays(),
        always("index cut off", &["index-unreadable"], |w| {
            let text = std::fs::read(w.index()).unwrap();
            write_at(&w.index(), &text[..text.len() / 2], 1_704_067_200_000_000_000);
        })
        .stays(),
        always("index is a directory", &["index-unreadable"], |w| {
            std::fs::remove_file(w.index()).unwrap();
            std::fs::create_dir(w.index()).unwrap();
        })
        .stays(),
        always("index leads nowhere", &["index-unreadable"], |w| {
            std::fs::remove_file(w.index()).unwrap();
            std::os::unix::fs::symlink("nowhere", w.index()).unwrap();
        })
        .stays(),
        always("invalid digest in the index", &["document-invalid"], |w| {
            w.reindex(false, |list| list.push(descriptor(MANIFEST, "sha256:../../etc/passwd", None)));
        })
        .stays(),
        always("notation signature of two layers", &["document-invalid"], |w| {
            let text = std::fs::read_to_string(w.blob(&w.digests.notation)).unwrap();
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let layer = value["layers"][0].clone();
            value["layers"].as_array_mut().unwrap().push(layer);
            let text = value.to_string();
            let digest = sha256(text.as_bytes());
            write_at(&blob_path(&w.root(), "alpine", &digest), text.as_bytes(), 1_704_067_200_000_000_000);
            w.reindex(false, |list| list.push(descriptor(MANIFEST, &digest, None)));
        })
        .stays(),
        always("index from the future", &["clock-skew"], |w| {
            let file = std::fs::File::options().write(true).open(w.index()).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
        })
        .stays(),
        always("records from the future", &["clock-skew"], |w| {
            w.edit(|raw| raw.put("RepoLastUpdated", "alpine", &at(now() + 3600)));
        }),
        always("another layout", &["layout-unknown"], |w| {
            write_at(&w.root().join("_blobstore/index.json"), b"{}", 1_704_067_200_000_000_000);
        })
        .stays(),
    ]
}

fn repos() -> Vec<Plant> {
    vec![
        always("repo nobody knows", &["repo-missing"], |w| new_repo(w, "fresh")).premature(),
        always("two repos nobody knows", &["repo-missing", "repo-missing"], |w| {
            new_repo(w, "fresh/one");
            new_repo(w, "fresh/two");
        })
        .premature(),
        always("records of a repo lost", &["repo-missing"], |w| {
            w.remove("RepoMeta", "alpine");
            w.remove("RepoLastUpdated", "alpine");
        })
        .premature(),
        always("only RepoMeta lost", &["repo-missing"], |w| w.remove("RepoMeta", "alpine")).hidden(),
        always("repo removed", &["repo-gone"], |w| std::fs::remove_dir_all(w.root().join("team")).unwrap()).premature(),
        always("repo without its index", &["repo-gone"], |w| {
            std::fs::remove_file(w.root().join("team/app/index.json")).unwrap();
        })
        .premature(),
        always("repo called myblobs", &["repo-unlistable"], |w| new_repo(w, "myblobs")).stays(),
        always("repo beneath x.uploads", &["repo-unlistable"], |w| new_repo(w, "x.uploads/app")).stays(),
        always("repo called a.sync, with records", &["repo-unlistable"], |w| {
            new_repo(w, "a.sync");
            let bytes = w.raw().get("RepoMeta", "team/app").unwrap().to_vec();
            w.edit(|raw| raw.put("RepoMeta", "a.sync", &bytes));
        })
        .stays(),
        always(
            "tag pushed behind the back",
            &["aggregate-differs", "image-missing", "statistics-missing", "tag-missing"],
            |w| new_tag(w, true),
        )
        .due(),
        always(
            "tag pushed behind the back, dated back",
            &["aggregate-differs", "image-missing", "statistics-missing", "tag-missing"],
            |w| new_tag(w, false),
        )
        .hidden(),
        always("tag moved behind the back", &["aggregate-differs", "tag-digest"], |w| {
            let digest = w.digests.v2.clone();
            w.reindex(true, |list| list[2]["digest"] = digest.into());
        })
        .due(),
        always("tag deleted behind the back", &["aggregate-differs", "tag-extra"], |w| {
            w.reindex(true, |list| drop(list.remove(2)))
        })
        .due(),
        always("everything deleted behind the back", &["tag-extra"], |w| {
            let path = w.root().join("team/app/index.json");
            write_at(&path, br#"{"schemaVersion":2,"manifests":[]}"#, 1_704_067_200_000_000_000);
        })
        .hidden(),
    ]
}
