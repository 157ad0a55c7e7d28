//! The fold over one repo: equal to zot's step-by-step bookkeeping for any storage and any prior records, and careful with
//! what exists only in the metaDB.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod generate;
#[path = "../support/mod.rs"]
mod support;

use generate::{prior, prior_blobs, prior_meta, rules, storage};
use metactl::oci::INDEX;
use metactl::oci::time::Time;
use metactl::records::fold::{Clock, Entry, FoldError, RepoEntries, Rules, fold};
use metactl::records::image::{Content, ImageEntry};
use metactl::records::proto::{self, RepoBlobs, RepoMeta, Timestamp};
use metactl::records::signature::{Kind, Layer, SignatureEntry};
use metactl::records::{RepoChange, RepoState, encode_time};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;
use std::collections::BTreeMap;
use support::model;
use support::records::message;

const REPO: &str = "team/app";
const CLOCK: Clock = Clock { index_read: Time { seconds: 1_000, nanos: 1 }, now: Time { seconds: 2_000, nanos: 2 } };
const ZERO: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

fn digest_of(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

// ---------------------------------------------------------------- the fold against the model

type Folded = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

fn folded(prior: &RepoState, storage: &RepoEntries, rules: Rules) -> Result<Folded, FoldError> {
    match fold(REPO, prior, storage, CLOCK, rules)? {
        RepoChange::Write { meta, blobs, last_updated } => Ok((meta, blobs, last_updated)),
        other => panic!("{other:?}"),
    }
}

/// The record with what has no order in order.
fn meta_of(bytes: Option<&[u8]>) -> Option<RepoMeta> {
    bytes.map(|bytes| {
        let mut meta = RepoMeta::decode(bytes).unwrap();
        meta.vendors.sort();
        meta.platforms.sort_by(|left, right| (&left.os, &left.architecture).cmp(&(&right.os, &right.architecture)));
        meta
    })
}

fn blobs_of(bytes: Option<&[u8]>) -> Option<RepoBlobs> {
    bytes.map(|bytes| RepoBlobs::decode(bytes).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn equal_to_every_step_of_zot(prior in prior(), storage in storage(), rules in rules()) {
        compare(&prior, &storage, rules)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// A repo of so many entries that its records are made on several threads.
    #[test]
    fn equal_to_every_step_of_zot_in_a_huge_repo(prior in prior(), mut storage in storage(), rules in rules()) {
        const HUGE: usize = 5_000;
        storage.entries = storage.entries.iter().cycle().take(HUGE).cloned().collect();
        compare(&prior, &storage, rules)?;
    }
}

/// The fold against the model.
fn compare(prior: &RepoState, storage: &RepoEntries, rules: Rules) -> Result<(), TestCaseError> {
    let (meta, blobs, last_updated) = folded(prior, storage, rules).unwrap();
    let (expected_meta, expected_blobs) = model::walk(REPO, prior, storage, CLOCK, rules).unwrap();
    prop_assert_eq!(meta_of(meta.as_deref()), meta_of(expected_meta.as_deref()));
    // Without a stored reference zot does not touch this record.
    let images = storage.entries.iter().any(|entry| matches!(entry, Entry::Image(_)));
    prop_assert_eq!(blobs.is_some(), images);
    if images {
        let found = blobs_of(blobs.as_deref());
        prop_assert_eq!(&found, &blobs_of(expected_blobs.as_deref()));
        // Written piece by piece, and yet as any encoder writes it.
        prop_assert_eq!(found.map(|found| found.encode_to_vec()), blobs);
    }
    let expected = match (storage.partial, images) {
        (true, _) => Some(encode_time(Time::ZERO)),
        (false, true) => Some(encode_time(CLOCK.index_read)),
        (false, false) => None,
    };
    prop_assert_eq!(last_updated, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    /// A walk over its own result: only what the order of the index hid the first time may still change, and after the
    /// records have settled nothing does.
    #[test]
    fn settles(prior in prior(), storage in storage()) {
        let mut state = prior;
        let mut states = Vec::new();
        // An index sees its children one level deeper with every walk.
        for _ in 0..storage.entries.len() + 3 {
            let (meta, blobs, _) = folded(&state, &storage, Rules::default()).unwrap();
            state = RepoState { meta, blobs: blobs.or(state.blobs), last_updated: None };
            states.push(state.clone());
        }
        let last = states.pop().unwrap();
        prop_assert_eq!(states.pop().unwrap(), last);
    }

    #[test]
    fn only_the_metadb_knows_statistics_stars_and_tag_times(prior in prior_meta(), storage in storage()) {
        let state = RepoState { meta: Some(prior.encode_to_vec()), ..RepoState::default() };
        let (meta, ..) = folded(&state, &storage, Rules::default()).unwrap();
        let meta = meta_of(meta.as_deref()).unwrap();
        prop_assert_eq!(meta.stars, prior.stars);
        for (digest, old) in &prior.statistics {
            let new = &meta.statistics[digest];
            prop_assert_eq!(
                (new.download_count, new.last_pull_timestamp, &new.pushed_by),
                (old.download_count, old.last_pull_timestamp, &old.pushed_by)
            );
            if old.push_timestamp != Some(ZERO) {
                prop_assert_eq!(new.push_timestamp, old.push_timestamp);
            }
        }
        for (tag, new) in &meta.tags {
            let expected = match prior.tags.get(tag) {
                Some(old) => old.tagged_timestamp,
                None if tag.is_empty() => None,
                None => Some(CLOCK.now.into()),
            };
            prop_assert_eq!(new.tagged_timestamp, expected, "{}", tag);
        }
    }

    #[test]
    fn unknown_fields_survive(meta in prior_meta(), blobs in prior_blobs(), storage in storage()) {
        let plain = RepoState {
            meta: Some(meta.encode_to_vec()),
            blobs: Some(blobs.encode_to_vec()),
            last_updated: None,
        };
        let newer = RepoState {
            meta: Some(with_unknown(plain.meta.as_ref().unwrap(), &[2, 3])),
            blobs: Some(with_unknown(plain.blobs.as_ref().unwrap(), &[2])),
            last_updated: None,
        };
        let (old_meta, old_blobs, _) = folded(&plain, &storage, Rules::default()).unwrap();
        let (new_meta, new_blobs, _) = folded(&newer, &storage, Rules::default()).unwrap();
        prop_assert_eq!(meta_of(new_meta.as_deref()), meta_of(old_meta.as_deref()));
        prop_assert_eq!(blobs_of(new_blobs.as_deref()), blobs_of(old_blobs.as_deref()));
        let record = message("RepoMeta", &new_meta.unwrap()).unwrap();
        prop_assert_eq!(&record["?99"], 7);
        for (map, known) in [("Tags", keys(&meta.tags)), ("Statistics", keys(&meta.statistics))] {
            unknown_only_under(&known, &record[map])?;
        }
        if let Some(bytes) = new_blobs {
            let record = message("RepoBlobs", &bytes).unwrap();
            prop_assert_eq!(&record["?99"], 7);
            unknown_only_under(&keys(&blobs.blobs), &record["Blobs"])?;
        }
    }

    #[test]
    fn any_prior_bytes_are_survived(meta in vec(any::<u8>(), 0..40), blobs in vec(any::<u8>(), 0..40), storage in storage()) {
        let prior = RepoState { meta: Some(meta), blobs: Some(blobs), last_updated: None };
        let _ = folded(&prior, &storage, Rules::default());
    }
}

// ---------------------------------------------------------------- unknown fields

/// Field 99, a number.
const UNKNOWN: [u8; 3] = [0x98, 0x06, 0x07];

fn keys<T>(map: &BTreeMap<String, T>) -> Vec<String> {
    map.keys().cloned().collect()
}

fn unknown_only_under(known: &[String], map: &Value) -> Result<(), TestCaseError> {
    for (key, entry) in map.as_object().into_iter().flatten() {
        prop_assert_eq!(entry.get("?99").is_some(), known.contains(key), "{}", key);
    }
    Ok(())
}

/// The record with an unknown field of its own, and one in every entry of these maps.
fn with_unknown(record: &[u8], maps: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = record;
    while !rest.is_empty() {
        let start = rest;
        let (number, wire) = prost::encoding::decode_key(&mut rest).unwrap();
        if wire == prost::encoding::WireType::LengthDelimited && maps.iter().any(|map| u32::from(*map) == number) {
            let length = usize::try_from(prost::encoding::decode_varint(&mut rest).unwrap()).unwrap();
            let (entry, after) = rest.split_at(length);
            rest = after;
            let (key, value) = key_and_value(entry);
            let body = [field(1, &key), field(2, &[value.as_slice(), &UNKNOWN].concat())].concat();
            out.extend(field(number, &body));
        } else {
            let context = prost::encoding::DecodeContext::default();
            prost::encoding::skip_field(wire, number, &mut rest, context).unwrap();
            out.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    out.extend(UNKNOWN);
    out
}

fn key_and_value(mut entry: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts = [Vec::new(), Vec::new()];
    while !entry.is_empty() {
        let (number, _) = prost::encoding::decode_key(&mut entry).unwrap();
        let length = usize::try_from(prost::encoding::decode_varint(&mut entry).unwrap()).unwrap();
        let (value, rest) = entry.split_at(length);
        parts[number as usize - 1] = value.to_vec();
        entry = rest;
    }
    let [key, value] = parts;
    (key, value)
}

/// A length-delimited field.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// A field inside a map's value: map `number`, key `k`, then the fields on the way down.
fn inside(number: u32, way: &[u32]) -> Vec<u8> {
    let value = way.iter().rev().fold(UNKNOWN.to_vec(), |inner, number| field(*number, &inner));
    field(number, &[field(1, b"k"), field(2, &value)].concat())
}

fn one_image() -> RepoEntries {
    let image = ImageEntry {
        reference: "a".into(),
        is_tag: true,
        digest: digest_of(1),
        media_type: INDEX,
        meta: Vec::new(),
        size: 1,
        content: Content::Index { children: Vec::new() },
        referrer: None,
        pushed: None,
    };
    RepoEntries { tags: ["a".to_owned()].into(), entries: vec![Entry::Image(Box::new(image))], partial: false }
}

#[test]
fn unknown_fields_that_a_rewrite_would_lose_fail_the_repo() {
    let meta = RepoMeta { name: REPO.into(), stars: 3, ..Default::default() }.encode_to_vec();
    for (part, path) in [
        (inside(2, &[3]), "2.3.99"),
        (inside(3, &[2]), "3.2.99"),
        (inside(3, &[3]), "3.3.99"),
        (inside(4, &[]), "4.99"),
        (inside(5, &[]), "5.99"),
        (inside(5, &[1]), "5.1.99"),
        (field(12, &UNKNOWN), "12.99"),
        (field(13, &UNKNOWN), "13.99"),
        (field(13, &field(1, &UNKNOWN)), "13.1.99"),
    ] {
        let prior = RepoState { meta: Some([meta.clone(), part].concat()), ..RepoState::default() };
        let expected = FoldError::UnknownFields { record: "RepoMeta", path: path.into() };
        assert_eq!(folded(&prior, &one_image(), Rules::default()).unwrap_err(), expected);
        // Whatever storage holds: even an empty index makes zot rewrite the record.
        assert_eq!(folded(&prior, &RepoEntries::default(), Rules::default()).unwrap_err(), expected);
    }
    for (part, path) in [(inside(2, &[4]), "2.4.99"), (inside(2, &[5]), "2.5.99")] {
        let prior = RepoState { blobs: Some(part), ..RepoState::default() };
        let expected = FoldError::UnknownFields { record: "RepoBlobs", path: path.into() };
        assert_eq!(folded(&prior, &one_image(), Rules::default()).unwrap_err(), expected);
        assert!(folded(&prior, &RepoEntries::default(), Rules::default()).is_ok());
    }
}

#[test]
fn undecodable_records_fail_the_repo_only_where_zot_reads_them() {
    let broken = Some(vec![0xff, 0xff]);
    let meta = RepoState { meta: broken.clone(), ..RepoState::default() };
    let blobs = RepoState { blobs: broken, ..RepoState::default() };
    let undecodable = |record| Err(FoldError::Undecodable { record });
    assert_eq!(folded(&meta, &RepoEntries::default(), Rules::default()), undecodable("RepoMeta"));
    assert_eq!(folded(&blobs, &one_image(), Rules::default()), undecodable("RepoBlobs"));
    assert_eq!(folded(&blobs, &RepoEntries::default(), Rules::default()), Ok((None, None, None)));
}

#[test]
fn a_verdict_stays_with_its_very_layer() {
    let signature = |digest: u8, layer: u8| {
        Entry::Signature(SignatureEntry {
            reference: digest_of(digest),
            digest: digest_of(digest),
            kind: Kind::Notation,
            signed: digest_of(1),
            layers: vec![Layer { digest: digest_of(layer), content: vec![layer], key: String::new() }],
        })
    };
    let storage = |entries| RepoEntries { entries, ..RepoEntries::default() };
    let (meta, ..) = folded(&RepoState::default(), &storage(vec![signature(20, 5)]), Rules::default()).unwrap();
    let mut meta = meta_of(meta.as_deref()).unwrap();
    let date = Some(Timestamp { seconds: 9, nanos: 9 });
    for list in meta.signatures.get_mut(&digest_of(1)).unwrap().map.values_mut() {
        let layer = &mut list.list[0].layers_info[0];
        (layer.signer, layer.date) = ("CN=somebody".into(), date);
    }
    let prior = RepoState { meta: Some(meta.encode_to_vec()), ..RepoState::default() };
    for (entries, kept) in
        [(vec![signature(20, 5)], true), (vec![signature(20, 6)], false), (vec![signature(21, 5)], false)]
    {
        let (meta, ..) = folded(&prior, &storage(entries), Rules::default()).unwrap();
        let meta = meta_of(meta.as_deref()).unwrap();
        let layer = &meta.signatures[&digest_of(1)].map["notation"].list[0].layers_info[0];
        let expected = if kept { ("CN=somebody", date) } else { ("", Some(ZERO)) };
        assert_eq!((layer.signer.as_str(), layer.date), expected);
    }
}

#[test]
fn the_push_time_is_storage_s_unless_the_release_says_otherwise() {
    let pushed = |hint: Option<Time>, prior: Option<Option<Timestamp>>, rules: Rules| {
        let mut storage = one_image();
        if let Entry::Image(image) = &mut storage.entries[0] {
            image.pushed = hint;
        }
        let meta = prior.map(|push_timestamp| {
            let statistics = proto::DescriptorStatistics { push_timestamp, download_count: 4, ..Default::default() };
            RepoMeta { statistics: [(digest_of(1), statistics)].into(), ..Default::default() }.encode_to_vec()
        });
        let (meta, ..) = folded(&RepoState { meta, ..RepoState::default() }, &storage, rules).unwrap();
        meta_of(meta.as_deref()).unwrap().statistics[&digest_of(1)].push_timestamp
    };
    let (hint, now) = (Time { seconds: 77, nanos: 7 }, Some(CLOCK.now.into()));
    let (new, old) = (Rules::default(), Rules { push_time_is_now: true, ..Rules::default() });
    assert_eq!(pushed(Some(hint), None, new), Some(hint.into()));
    assert_eq!(pushed(Some(hint), None, old), now);
    assert_eq!(pushed(None, None, new), now);
    assert_eq!(pushed(Some(Time::ZERO), None, new), now);
    // Only Go's zero time is repaired.
    assert_eq!(pushed(Some(hint), Some(Some(ZERO)), new), Some(hint.into()));
    assert_eq!(pushed(Some(hint), Some(Some(Timestamp::default())), new), Some(Timestamp::default()));
    assert_eq!(pushed(Some(hint), Some(None), new), None);
}
