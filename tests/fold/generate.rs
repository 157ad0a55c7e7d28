//! Storage and prior records at random: few names, so that everything collides.

use super::{REPO, digest_of};
use metactl::oci::time::Time;
use metactl::oci::{INDEX, MANIFEST};
use metactl::records::fold::{Entry, RepoEntries, Rules};
use metactl::records::image::{Content, ImageEntry, Referrer};
use metactl::records::proto::{self, RepoBlobs, RepoMeta, Timestamp};
use metactl::records::signature::{Kind, Layer, SignatureEntry};
use metactl::records::{RepoState, encode_time};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

/// Digest of an image or blob; sometimes none at all.
fn digest() -> impl Strategy<Value = String> {
    prop_oneof![20 => (0_u8..8).prop_map(digest_of), 1 => Just(String::new())]
}

fn image_digest() -> impl Strategy<Value = String> {
    (0_u8..8).prop_map(digest_of)
}

fn signature_digest() -> impl Strategy<Value = String> {
    (20_u8..24).prop_map(digest_of)
}

fn tag() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-e]", 1 => Just("x-sha256-a.sig".to_owned()), 1 => (30_u8..32).prop_map(digest_of)]
}

fn instant() -> impl Strategy<Value = Time> {
    prop_oneof![
        2 => Just(Time::ZERO),
        1 => Just(Time { seconds: 0, nanos: 0 }),
        4 => (-5_i64..5, 0_i32..3).prop_map(|(seconds, nanos)| Time { seconds, nanos }),
        1 => Just(Time { seconds: -70_000_000_000, nanos: 0 }),
    ]
}

fn timestamp() -> impl Strategy<Value = Option<Timestamp>> {
    prop_oneof![1 => Just(None), 5 => instant().prop_map(|at| Some(at.into()))]
}

fn size() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0_i64..1000, 1 => Just(i64::MAX), 1 => Just(-7)]
}

fn platform() -> impl Strategy<Value = proto::Platform> {
    (select(vec!["", "amd64", "arm/v7"]), select(vec!["linux", "windows"])).prop_map(|(architecture, os)| {
        proto::Platform { architecture: architecture.into(), os: os.into(), ..Default::default() }
    })
}

fn text() -> impl Strategy<Value = String> {
    "[xyz]{0,2}"
}

fn content() -> impl Strategy<Value = Content> {
    let manifest = (vec((digest(), size()), 1..4), prop::option::of(text()), prop::option::of(platform()), instant());
    prop_oneof![
        3 => manifest.prop_map(|(blobs, vendor, platform, last_updated)| {
            Content::Manifest { blobs: blobs.into_iter().collect(), vendor, platform, last_updated }
        }),
        2 => vec(digest(), 0..4).prop_map(|children| Content::Index { children }),
    ]
}

fn image() -> impl Strategy<Value = Entry> {
    let place = (prop::option::weighted(0.6, tag()), image_digest(), content(), size());
    let about = (prop::option::weighted(0.4, digest()), text(), btree_map(text(), text(), 0..2));
    (place, about, prop::option::of(instant())).prop_map(|((tag, digest, content, size), about, pushed)| {
        let (subject, artifact_type, annotations) = about;
        let referrer = subject.map(|subject| Box::new(Referrer { subject, artifact_type, annotations }));
        let reference = tag.unwrap_or_else(|| digest.clone());
        Entry::Image(Box::new(ImageEntry {
            is_tag: !reference.starts_with("sha256:"),
            reference,
            digest,
            media_type: if matches!(content, Content::Index { .. }) { INDEX } else { MANIFEST },
            meta: Vec::new(),
            size,
            content,
            referrer,
            pushed,
        }))
    })
}

fn signature() -> impl Strategy<Value = Entry> {
    let reference = prop_oneof![
        image_digest().prop_map(|signed| signed.replacen(':', "-", 1) + ".sig"),
        signature_digest(),
        select(vec!["x-sha256-a.sig.old", "sha256-.sig", "sha256-a.sbom", "sha256-\n.sig", "plain"])
            .prop_map(str::to_owned),
    ];
    let layer =
        (digest(), vec(any::<u8>(), 0..3), text()).prop_map(|(digest, content, key)| Layer { digest, content, key });
    let kind = select(vec![Kind::Cosign, Kind::Cosign, Kind::Notation]);
    (reference, signature_digest(), kind, digest(), vec(layer, 0..3)).prop_map(
        |(reference, digest, kind, signed, layers)| {
            Entry::Signature(SignatureEntry { reference, digest, kind, signed, layers })
        },
    )
}

pub fn storage() -> impl Strategy<Value = RepoEntries> {
    let entries = vec(prop_oneof![3 => image(), 1 => signature()], 0..14);
    (entries, vec(tag(), 0..3), any::<bool>()).prop_map(|(entries, more_tags, partial)| {
        let tags = entries.iter().filter_map(|entry| match entry {
            Entry::Image(image) if image.reference != image.digest => Some(image.reference.clone()),
            Entry::Image(_) => None,
            Entry::Signature(signature) => Some(signature.reference.clone()),
        });
        // Tags of manifests that are missing or of no known type: records of these are kept as they are.
        RepoEntries { tags: tags.chain(more_tags).collect(), entries, partial }
    })
}

pub fn prior_meta() -> impl Strategy<Value = RepoMeta> {
    let tag_record = (digest(), timestamp()).prop_map(|(digest, tagged_timestamp)| proto::TagDescriptor {
        media_type: MANIFEST.into(),
        digest,
        tagged_timestamp,
    });
    let tag_name = prop_oneof![5 => tag(), 1 => Just(String::new())];
    let statistics = (0_i32..4, timestamp(), timestamp(), text()).prop_map(
        |(download_count, last_pull_timestamp, push_timestamp, pushed_by)| proto::DescriptorStatistics {
            download_count,
            last_pull_timestamp,
            push_timestamp,
            pushed_by,
        },
    );
    let layer = (digest(), text(), timestamp()).prop_map(|(layer_digest, signer, date)| proto::LayersInfo {
        layer_digest,
        signer,
        date,
        ..Default::default()
    });
    let info = (signature_digest(), vec(layer, 0..3)).prop_map(|(signature_manifest_digest, layers_info)| {
        proto::SignatureInfo { signature_manifest_digest, layers_info }
    });
    let kinds = btree_map(
        select(vec!["", "cosign", "notation"]).prop_map(str::to_owned),
        vec(info, 0..3).prop_map(|list| proto::SignaturesInfo { list }),
        0..3,
    );
    let referrer = (image_digest(), 0_i64..3).prop_map(|(digest, count)| proto::ReferrerInfo {
        digest,
        count,
        ..Default::default()
    });
    let referrers = vec(referrer, 0..2).prop_map(|list| proto::ReferrersInfo { list });
    let maps = (
        btree_map(tag_name, tag_record, 0..5),
        btree_map(digest(), statistics, 0..5),
        btree_map(digest(), kinds.prop_map(|map| proto::ManifestSignatures { map }), 0..4),
        btree_map(digest(), referrers, 0..3),
    );
    let rest = (0_i32..3, size(), vec(text(), 0..2), vec(platform(), 0..2), prop::option::of((timestamp(), digest())));
    (maps, rest, any::<bool>(), 0_i32..2).prop_map(|((tags, statistics, signatures, referrers), rest, flag, number)| {
        let (stars, size, vendors, platforms, last) = rest;
        let last_updated_image = last.map(|(last_updated, digest)| proto::RepoLastUpdatedImage {
            last_updated,
            digest,
            ..Default::default()
        });
        RepoMeta {
            name: REPO.into(),
            tags,
            statistics,
            signatures,
            referrers,
            is_starred: flag,
            is_bookmarked: flag,
            rank: number,
            stars,
            size,
            vendors,
            platforms,
            last_updated_image,
            downloads: number,
        }
    })
}

pub fn prior_blobs() -> impl Strategy<Value = RepoBlobs> {
    let blob = (size(), vec(text(), 0..2), vec(digest(), 0..3), vec(platform(), 0..2), timestamp()).prop_map(
        |(size, vendors, sub_blobs, platforms, last_updated)| proto::BlobInfo {
            size,
            vendors,
            sub_blobs,
            platforms,
            last_updated,
        },
    );
    btree_map(digest(), blob, 0..6).prop_map(|blobs| RepoBlobs { name: REPO.into(), blobs })
}

pub fn prior() -> impl Strategy<Value = RepoState> {
    (prop::option::of(prior_meta()), prop::option::of(prior_blobs()), prop::option::of(instant())).prop_map(
        |(meta, blobs, at)| RepoState {
            meta: meta.map(|meta| meta.encode_to_vec()),
            blobs: blobs.map(|blobs| blobs.encode_to_vec()),
            last_updated: at.map(encode_time),
        },
    )
}

pub fn rules() -> impl Strategy<Value = Rules> {
    any::<[bool; 2]>().prop_map(|[push_time_is_now, sbom_tags_file_signatures]| Rules {
        push_time_is_now,
        sbom_tags_file_signatures,
        lax_cosign_tags: false,
    })
}
