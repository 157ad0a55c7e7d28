//! What a running zot leaves is clean: random pushes, re-pushes, moved and deleted tags and untagged manifests, written to
//! storage and to the metaDB as zot does it at run time (no reset, one reference at a time), with walks in between.

use super::run::{Options, verify};
use super::support::driver::{Driver, Raw};
use super::support::model::Model;
use super::support::store::{Repo, sha256, write_at};
use super::world::descriptor;
use metactl::cancel::Cancel;
use metactl::oci::time::Time;
use metactl::progress::Silent;
use metactl::records::RepoState;
use metactl::records::encode_time;
use metactl::records::fold::{Clock, Entry, Rules};
use metactl::records::proto::{BlobInfo, RepoBlobs, RepoLastUpdatedImage, RepoMeta};
use metactl::verify::{Depth, Finding, Severity};
use metactl::walk::read::read_repo;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NOW: i64 = 1_704_067_200;

/// What a client does. Numbers pick images, tags and subjects out of a few.
#[derive(Debug, Clone)]
enum Event {
    /// Push an image, with or without a tag.
    Image { image: u8, tag: Option<u8> },
    /// Push an index of some images (pushed or not), with or without a tag.
    Index { children: Vec<u8>, tag: Option<u8> },
    /// Attach an artifact, a notation signature or a sigstore bundle by subject.
    Referrer { kind: u8, subject: u8 },
    /// Attach an artifact that has a tag, which moves to the next one.
    Tagged { subject: u8, round: u8 },
    /// Sign by tag; signing again moves the tag.
    Sign { subject: u8, round: u8 },
    /// Delete a tag.
    Untag { tag: u8 },
    /// Delete the tag of a signature.
    Unsign { subject: u8 },
    /// Delete an untagged manifest by digest, as garbage collection does.
    Collect { pick: u8 },
    /// zot restarts without fastRestart: it walks.
    Walk,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let tag = || proptest::option::weighted(0.7, 0..3_u8);
    let event = prop_oneof![
        4 => (0..5_u8, tag()).prop_map(|(image, tag)| Event::Image { image, tag }),
        2 => (proptest::collection::vec(0..5_u8, 1..3), tag()).prop_map(|(children, tag)| Event::Index { children, tag }),
        2 => (0..4_u8, 0..5_u8).prop_map(|(kind, subject)| Event::Referrer { kind, subject }),
        1 => (0..5_u8, 0..3_u8).prop_map(|(subject, round)| Event::Tagged { subject, round }),
        2 => (0..5_u8, 0..2_u8).prop_map(|(subject, round)| Event::Sign { subject, round }),
        2 => (0..4_u8).prop_map(|tag| Event::Untag { tag }),
        1 => (0..5_u8).prop_map(|subject| Event::Unsign { subject }),
        1 => any::<u8>().prop_map(|pick| Event::Collect { pick }),
        1 => Just(Event::Walk),
    ];
    proptest::collection::vec(event, 1..25)
}

/// A repo and its records, side by side.
struct Registry<'a> {
    root: &'a Path,
    repo: Repo,
    list: Vec<Value>,
    model: Model<'a>,
    last_updated: Option<i64>,
    now: i64,
    /// Images that were deleted. Their signatures and referrers stay in storage and are forgotten by the metaDB; zot does
    /// not notice when the image comes back, which is drift, so here it does not come back before a walk.
    deleted: BTreeSet<String>,
    /// Digests with an image record. Nothing at run time takes one away.
    images: BTreeSet<String>,
}

fn clock() -> Clock {
    let now = Time { seconds: NOW, nanos: 0 };
    Clock { index_read: now, now }
}

fn config(image: u8) -> Value {
    json!({"created": format!("2023-03-0{}T10:00:00Z", image + 1), "architecture": format!("arch{}", image % 3), "os": "linux"})
}

fn manifest(image: u8) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config(image).to_string().as_bytes()), "size": 100},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(&[image % 2]), "size": 10 + i64::from(image % 2)}],
        "annotations": {"org.opencontainers.image.vendor": format!("vendor {}", image % 2)}})
}

fn signature_layer(subject: u8, round: u8) -> String {
    format!("signature {subject} {round}")
}

fn signature(subject: u8, round: u8) -> Value {
    let layer = sha256(signature_layer(subject, round).as_bytes());
    json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
        "layers": [{"mediaType": "x", "digest": layer, "size": 3, "annotations": {"dev.cosignproject.cosign/signature": "s"}}]})
}

fn signature_tag(subject: u8) -> String {
    format!("{}.sig", digest(&manifest(subject)).replace(':', "-"))
}

fn digest(value: &Value) -> String {
    sha256(value.to_string().as_bytes())
}

fn tag_of(descriptor: &Value) -> Option<&str> {
    descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str()
}

impl<'a> Registry<'a> {
    fn new(root: &'a Path) -> Self {
        let mut repo = Repo::new(root, "r", NOW * 1_000_000_000);
        repo.write("index.json", br#"{"schemaVersion":2,"manifests":null}"#);
        let model = Model::new("r", clock(), Rules::default());
        Self {
            root,
            repo,
            list: Vec::new(),
            model,
            last_updated: None,
            now: NOW,
            deleted: BTreeSet::new(),
            images: BTreeSet::new(),
        }
    }

    /// `index.json` as zot writes it: a moved tag, and an untagged manifest that gets a tag, go to the end.
    fn list(&mut self, media_type: &str, digest: &str, tag: Option<&str>) {
        let same = |found: &Value| found["digest"] == digest;
        if self.list.iter().any(|found| same(found) && (tag.is_none() || tag_of(found) == tag)) {
            return;
        }
        self.list.retain(|found| !(tag.is_some() && tag_of(found) == tag || same(found) && tag_of(found).is_none()));
        self.list.push(descriptor(media_type, digest, tag));
        self.write();
    }

    fn write(&mut self) {
        self.now += 1;
        let text = json!({"schemaVersion": 2, "manifests": self.list}).to_string();
        write_at(&self.root.join("r/index.json"), text.as_bytes(), self.now * 1_000_000_000);
    }

    /// Storage first, then the metaDB.
    fn push(&mut self, media_type: &str, content: &Value, tag: Option<&str>) {
        if self.deleted.contains(&digest(content)) {
            return;
        }
        let digest = self.repo.blob(content.to_string().as_bytes());
        self.list(media_type, &digest, tag);
        // What the library makes of the manifest alone; the model does the bookkeeping.
        let alone = tempfile::tempdir().unwrap();
        let mut copy = Repo::new(alone.path(), "r", NOW * 1_000_000_000);
        copy.index(&[descriptor(media_type, &digest, tag)]);
        std::fs::remove_dir_all(alone.path().join("r/blobs")).unwrap();
        std::os::unix::fs::symlink(self.root.join("r/blobs"), alone.path().join("r/blobs")).unwrap();
        let stores = super::support::walk::stores(alone.path());
        let read = read_repo(&stores, "r", Rules::default(), 1, &Silent, &Cancel::default()).unwrap();
        for entry in &read.entries.entries {
            match entry {
                Entry::Image(image) => {
                    self.model.set_repo_reference(image).unwrap();
                    self.images.insert(image.digest.clone());
                    self.now += 1;
                    self.last_updated = Some(self.now);
                }
                Entry::Signature(signature) => self.model.add_manifest_signature(signature).unwrap(),
            }
        }
    }

    fn delete(&mut self, reference: &str, digest: &str, by_tag: bool) {
        self.deleted.insert(digest.to_owned());
        let subject = std::fs::read(super::support::store::blob_path(self.root, "r", digest))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .and_then(|manifest| manifest["subject"]["digest"].as_str().map(str::to_owned));
        let named = |found: &Value| if by_tag { tag_of(found) == Some(reference) } else { found["digest"] == digest };
        let media_type = self.list.iter().find(|found| named(found)).map(|found| found["mediaType"].clone());
        self.list.retain(|found| !named(found));
        // A manifest that loses its last tag stays, for garbage collection or retention to find.
        if let Some(media_type) =
            media_type.filter(|_| by_tag && self.list.iter().all(|found| found["digest"] != digest))
        {
            self.list.push(descriptor(media_type.as_str().unwrap(), digest, None));
        }
        self.write();
        if let Some(signed) = self.signature_of(digest) {
            self.edit(|meta, _| {
                for list in meta.signatures.get_mut(&signed).into_iter().flat_map(|found| found.map.values_mut()) {
                    list.list.retain(|found| found.signature_manifest_digest != digest);
                }
            });
            return;
        }
        self.edit(|meta, blobs| remove_reference(meta, blobs, reference, digest, by_tag, subject.as_deref()));
        self.now += 1;
        self.last_updated = Some(self.now);
    }

    fn untag(&mut self, tag: &str) {
        let found = self.list.iter().find(|found| tag_of(found) == Some(tag));
        if let Some(digest) = found.map(|found| found["digest"].as_str().unwrap().to_owned()) {
            self.delete(tag, &digest, true);
        }
    }

    fn signature_of(&self, digest: &str) -> Option<String> {
        let meta = RepoMeta::decode(self.model.meta.as_deref()?).ok()?;
        let mut lists =
            meta.signatures.iter().flat_map(|(signed, found)| found.map.values().map(move |list| (signed, list)));
        let found = lists.find(|(_, list)| list.list.iter().any(|found| found.signature_manifest_digest == digest));
        found.map(|(signed, _)| signed.clone())
    }

    fn edit(&mut self, change: impl FnOnce(&mut RepoMeta, &mut RepoBlobs)) {
        let Some(mut meta) = self.model.meta.as_deref().map(|bytes| RepoMeta::decode(bytes).unwrap()) else { return };
        let mut blobs = RepoBlobs::decode(self.model.blobs.as_deref().unwrap_or_default()).unwrap();
        change(&mut meta, &mut blobs);
        self.model.meta = Some(meta.encode_to_vec());
        self.model.blobs = self.model.blobs.is_some().then(|| blobs.encode_to_vec());
    }

    fn walk(&mut self) {
        let stores = super::support::walk::stores(self.root);
        let read = read_repo(&stores, "r", Rules::default(), 1, &Silent, &Cancel::default()).unwrap();
        let prior =
            RepoState { meta: self.model.meta.clone(), blobs: self.model.blobs.clone(), ..RepoState::default() };
        let (meta, blobs) = super::support::model::walk("r", &prior, &read.entries, clock(), Rules::default()).unwrap();
        (self.model.meta, self.model.blobs) = (meta, blobs);
        self.deleted.clear();
        self.images.extend(read.entries.entries.iter().filter_map(Entry::image).map(|image| image.digest.clone()));
        self.now += 1;
        if read.entries.entries.iter().any(|entry| matches!(entry, Entry::Image(_))) {
            self.last_updated = Some(self.now);
        }
    }

    fn attach(&mut self, artifact_type: &str, subject: u8, layer: &str, tag: Option<&str>) {
        let layer = self.repo.blob(layer.as_bytes());
        let artifact = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [{"mediaType": "x", "digest": layer, "size": 3}],
            "subject": {"mediaType": MANIFEST, "digest": digest(&manifest(subject)), "size": 4}});
        self.push(MANIFEST, &artifact, tag);
    }

    fn apply(&mut self, event: &Event) {
        let tag_name = |tag: &Option<u8>| tag.map(|tag| format!("t{tag}"));
        match event {
            Event::Image { image, tag } => {
                // Clients ask first, and push nothing by digest that is there.
                let known = digest(&manifest(*image));
                if tag.is_none() && self.list.iter().any(|found| found["digest"] == known.as_str()) {
                    return;
                }
                self.repo.blob(config(*image).to_string().as_bytes());
                self.push(MANIFEST, &manifest(*image), tag_name(tag).as_deref());
            }
            Event::Index { children, tag } => {
                let list: Vec<Value> =
                    children.iter().map(|child| descriptor(MANIFEST, &digest(&manifest(*child)), None)).collect();
                self.push(INDEX, &json!({"schemaVersion": 2, "manifests": list}), tag_name(tag).as_deref());
            }
            Event::Referrer { kind, subject } => {
                let kinds = [
                    "application/spdx+json",
                    "application/vnd.cncf.notary.signature",
                    "application/vnd.dev.sigstore.bundle.v0.3+json",
                    "application/vnd.dev.cosign.artifact.sig.v1+json",
                ];
                self.attach(kinds[usize::from(*kind)], *subject, &format!("layer {kind} {subject}"), None);
            }
            Event::Tagged { subject, round } => {
                self.attach("application/spdx+json", *subject, &format!("layer {subject}, {round}"), Some("t3"));
            }
            Event::Sign { subject, round } => {
                self.repo.blob(signature_layer(*subject, *round).as_bytes());
                self.push(MANIFEST, &signature(*subject, *round), Some(&signature_tag(*subject)));
            }
            Event::Untag { tag } => self.untag(&format!("t{tag}")),
            Event::Unsign { subject } => {
                self.untag(&signature_tag(*subject));
                // To sign again would displace a bundle that took the signature's place in the list, which is drift.
                self.deleted.extend((0..2).map(|round| digest(&signature(*subject, round))));
            }
            Event::Collect { pick } => {
                let untagged: Vec<String> = self
                    .list
                    .iter()
                    .filter(|found| tag_of(found).is_none())
                    .map(|found| found["digest"].as_str().unwrap().to_owned())
                    .collect();
                if !untagged.is_empty() {
                    let digest = untagged[usize::from(*pick) % untagged.len()].clone();
                    self.delete(&digest, &digest, false);
                }
            }
            Event::Walk => self.walk(),
        }
    }
}

/// zot's `RemoveRepoReference`.
fn remove_reference(
    meta: &mut RepoMeta,
    blobs: &mut RepoBlobs,
    reference: &str,
    digest: &str,
    by_tag: bool,
    subject: Option<&str>,
) {
    if let Some(list) = subject.and_then(|subject| meta.referrers.get_mut(subject)) {
        if let Some(found) = list.list.iter_mut().find(|found| found.digest == digest) {
            found.count -= 1;
        }
        list.list.retain(|found| found.digest != digest || found.count > 0 && by_tag);
    }
    if by_tag {
        meta.tags.remove(reference);
    } else {
        meta.tags.retain(|_, tag| tag.digest != digest);
    }
    if !meta.tags.values().any(|tag| tag.digest == digest) {
        meta.statistics.remove(digest);
        meta.signatures.remove(digest);
        meta.referrers.remove(digest);
    }
    // Everything that no tag reaches goes, and the sums start from scratch.
    let mut kept = std::collections::BTreeMap::<String, BlobInfo>::new();
    let (mut size, mut vendors, mut platforms) = (0, BTreeSet::new(), Vec::new());
    let mut newest: Option<RepoLastUpdatedImage> = None;
    for (tag, descriptor) in meta.tags.iter().filter(|(_, descriptor)| !descriptor.digest.is_empty()) {
        let mut queue = vec![descriptor.digest.clone()];
        let at = |image: &RepoLastUpdatedImage| image.last_updated.map_or((0, 0), |at| (at.seconds, at.nanos));
        let candidate = RepoLastUpdatedImage {
            last_updated: blobs.blobs.get(&descriptor.digest).and_then(|blob| blob.last_updated),
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.clone(),
            tag: tag.clone(),
        };
        if newest.as_ref().is_none_or(|known| at(known) < at(&candidate)) {
            newest = Some(candidate);
        }
        while let Some(digest) = queue.pop() {
            let Some(blob) = blobs.blobs.get(&digest).filter(|_| !kept.contains_key(&digest)) else { continue };
            size += blob.size;
            vendors.extend(blob.vendors.iter().cloned());
            for platform in &blob.platforms {
                if !platforms.contains(platform) {
                    platforms.push(platform.clone());
                }
            }
            queue.extend(blob.sub_blobs.iter().cloned());
            kept.insert(digest, blob.clone());
        }
    }
    blobs.blobs = kept;
    (meta.size, meta.vendors, meta.platforms) = (size, vendors.into_iter().collect(), platforms);
    meta.last_updated_image = newest;
}

fn verdict(events: &[Event]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mut registry = Registry::new(&root);
    for event in events {
        registry.apply(event);
    }
    let mut raw = Raw::new_metadb();
    let records = [("RepoMeta", &registry.model.meta), ("RepoBlobsMeta", &registry.model.blobs)];
    for (bucket, record) in records {
        if let Some(record) = record {
            raw.put(bucket, "r", record);
        }
    }
    if let Some(seconds) = registry.last_updated {
        raw.put("RepoLastUpdated", "r", &encode_time(Time { seconds, nanos: 0 }));
    }
    // Image records depend on the documents alone; a walk into another metaDB gives those of what is listed.
    super::support::walk::walk(Driver::Redb, &root, true);
    let mut images = Driver::Redb.dump(&root).bucket("ImageMeta");
    images.retain(|digest, _| registry.images.contains(str::from_utf8(digest).unwrap()));
    raw.0.insert("ImageMeta".into(), images);
    std::fs::remove_file(root.join("meta.redb")).unwrap();
    Driver::Redb.restore(&root, &raw);
    for depth in [Depth::Quick, Depth::Records, Depth::Deep] {
        let report = verify(Driver::Redb, &root, Options { fast_restart: false, ..Options::at(depth) });
        let grave: Vec<&Finding> = report.findings.iter().filter(|found| found.severity() > Severity::Info).collect();
        if !grave.is_empty() {
            return Err(format!("{}: {grave:#?}\nindex {}", depth.word(), json!(registry.list)));
        }
    }
    Ok(())
}

/// Deleting a tag prunes the record of an untagged image; an index that names it comes later, and after that its other
/// child. zot counts neither, and only the second is recorded.
#[test]
fn an_index_whose_children_zot_does_not_count_is_clean() {
    let events = [
        Event::Image { image: 3, tag: None },
        Event::Image { image: 4, tag: Some(0) },
        Event::Untag { tag: 0 },
        Event::Index { children: vec![3, 2], tag: Some(1) },
        Event::Image { image: 2, tag: None },
    ];
    assert_eq!(verdict(&events), Ok(()));
}

/// It leaves the index for its successor, and stays in its subject's list.
#[test]
fn a_referrer_whose_tag_moved_on_is_clean() {
    let events = [
        Event::Image { image: 0, tag: Some(0) },
        Event::Tagged { subject: 0, round: 0 },
        Event::Tagged { subject: 0, round: 1 },
    ];
    assert_eq!(verdict(&events), Ok(()));
}

/// Its manifest stays in the index, where nothing but its layers tells what it was.
#[test]
fn a_signature_that_lost_its_tag_is_clean() {
    let signed = vec![Event::Image { image: 0, tag: Some(0) }, Event::Sign { subject: 0, round: 0 }];
    let unsign = vec![Event::Unsign { subject: 0 }];
    let pushed = vec![Event::Image { image: 1, tag: Some(1) }];
    for events in [[signed.clone(), unsign.clone()].concat(), [signed, unsign, pushed].concat()] {
        assert_eq!(verdict(&events), Ok(()));
    }
}

/// Its manifest stays in the index without a tag, and so do its signature and its referrers; their records go at once.
#[test]
fn an_image_that_lost_its_last_tag_is_clean() {
    let push = |tag| Event::Image { image: 0, tag: Some(tag) };
    let attached = [Event::Sign { subject: 0, round: 0 }, Event::Referrer { kind: 0, subject: 0 }];
    let untag = |tag| Event::Untag { tag };
    let one = [vec![push(0)], attached.to_vec(), vec![untag(0)]].concat();
    let one_of_two = [vec![push(0), push(1)], attached.to_vec(), vec![untag(0)]].concat();
    let walked = [one.clone(), vec![Event::Walk]].concat();
    for events in [one, one_of_two, walked] {
        assert_eq!(verdict(&events), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(60, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_a_running_zot_leaves_is_clean(events in events()) {
        if let Err(found) = verdict(&events) {
            prop_assert!(false, "{}", found);
        }
    }
}
