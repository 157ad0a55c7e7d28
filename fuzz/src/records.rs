//! Documents and records: what storage and metaDB hold, through decoding, fold and encoding.

use super::input::Input;
use metactl::oci::json::document;
use metactl::oci::time::Time;
use metactl::oci::{Image, Index, Manifest};
use metactl::records::fold::{Clock, Entry, RepoEntries, Rules, fold};
use metactl::records::image::{ImageEntry, Source};
use metactl::records::signature::{Kind, Layer, SignatureEntry, signed_by};
use metactl::records::wire::{Carry, Record, lost_if_rewritten, unknown_fields};
use metactl::records::{RepoChange, RepoState, decode_last_updated};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CLOCK: Clock =
    Clock { index_read: Time { seconds: 1_700_000_000, nanos: 5 }, now: Time { seconds: 1_700_000_001, nanos: 0 } };

/// What comes out of one fold goes into the next one, and from then on nothing changes.
fn settles(entries: &RepoEntries, prior: RepoState) {
    let Some(first) = folded(entries, prior) else { return };
    let second = folded(entries, first).expect("our own records can be built upon");
    let third = folded(entries, second.clone()).expect("our own records can be built upon");
    assert!(second == third, "folding twice gives something else");
}

fn folded(entries: &RepoEntries, prior: RepoState) -> Option<RepoState> {
    let change = fold("team/app", &prior, entries, CLOCK, Rules::default()).ok()?;
    Some(match change {
        RepoChange::Keep => prior,
        RepoChange::Delete => RepoState::default(),
        RepoChange::Write { meta, blobs, last_updated } => RepoState {
            meta: meta.or(prior.meta),
            blobs: blobs.or(prior.blobs),
            last_updated: last_updated.or(prior.last_updated),
        },
    })
}

/// An index, a manifest and a config, each with its length first.
pub fn documents(data: &[u8]) {
    let mut input = Input(data);
    let (index, manifest, config) = (input.piece(), input.piece(), input.piece());
    let source = |reference| Source { reference, digest: DIGEST, size: data.len(), pushed: None };
    let mut entries = RepoEntries::default();
    if let Ok(index) = document::<Index>(index) {
        entries.tags.insert("v1".into());
        entries.entries.push(Entry::Image(Box::new(ImageEntry::from_index(&source("v1"), index))));
    }
    if let Ok(manifest) = document::<Manifest>(manifest) {
        let config = document::<Image>(config).unwrap_or_default();
        if let Some((kind, signed)) = signed_by("v2", &manifest, Rules::default()) {
            let layers = vec![Layer { digest: DIGEST.into(), content: data.to_vec(), key: "k".into() }];
            let layers = if kind == Kind::Cosign { layers } else { Vec::new() };
            let (reference, digest) = ("v2".to_owned(), DIGEST.to_owned());
            entries.entries.push(Entry::Signature(SignatureEntry { reference, digest, kind, signed, layers }));
        }
        for reference in ["v2", DIGEST] {
            let image = ImageEntry::from_manifest(&source(reference), manifest.clone(), config.clone());
            assert_eq!(unknown_fields(Record::ImageMeta, &image.meta), Ok(Vec::new()), "our own record");
            entries.entries.push(Entry::Image(Box::new(image)));
        }
        entries.tags.insert("v2".into());
    }
    settles(&entries, RepoState::default());
}

/// Three prior records, each with its length first, and a small repo to fold over them.
pub fn records(data: &[u8]) {
    let mut input = Input(data);
    let (meta, blobs, image) = (input.piece(), input.piece(), input.piece());
    let _ = decode_last_updated(image);
    for (record, bytes) in [(Record::RepoMeta, meta), (Record::RepoBlobs, blobs), (Record::ImageMeta, image)] {
        let unknown = unknown_fields(record, bytes);
        let lost = lost_if_rewritten(record, bytes);
        assert_eq!(unknown.is_ok(), lost.is_ok());
        if let Ok(Some(lost)) = lost {
            assert!(unknown.expect("the same bytes").contains(&lost));
        }
        if let Ok(carry) = Carry::from_record(record, bytes)
            && let Ok(attached) = carry.attach(Vec::new())
        {
            assert_eq!(Carry::from_record(record, &attached).expect("our own record").attach(Vec::new()), Ok(attached));
        }
    }
    let source = Source { reference: "v1", digest: DIGEST, size: 7, pushed: None };
    let entry = ImageEntry::from_manifest(&source, Manifest::default(), Image::default());
    let entries =
        RepoEntries { tags: ["v1".to_owned()].into(), entries: vec![Entry::Image(Box::new(entry))], partial: false };
    let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    settles(&entries, RepoState { meta: some(meta), blobs: some(blobs), last_updated: some(image) });
}
