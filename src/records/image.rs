//! Documents → `ImageMeta`, and the facts about an image that the fold needs (spec §3.3, §3.5).

use super::blob_list::BlobList;
use super::proto;
use crate::oci::{self, time::Time};
use prost::Message as _;
use std::collections::BTreeMap;

/// One image (manifest or index) of a repo, ready to be folded into the repo's records.
#[derive(Debug, Clone)]
pub struct ImageEntry {
    /// Tag, or the digest if the descriptor has no tag.
    pub reference: String,
    /// Whether `reference` is a tag (a tag whose text is a digest is not).
    pub is_tag: bool,
    /// Digest of the descriptor.
    pub digest: String,
    /// [`oci::MANIFEST`] or [`oci::INDEX`]; Docker types are recorded as these.
    pub media_type: &'static str,
    /// Encoded `ImageMeta`; empty if it was taken out, which the fold does not mind.
    pub meta: Vec<u8>,
    /// Length of the manifest or index in bytes.
    pub size: i64,
    /// What it is made of.
    pub content: Content,
    /// If it has a subject.
    pub referrer: Option<Box<Referrer>>,
    /// Push-time hint: modification time of the blob in storage.
    pub pushed: Option<Time>,
}

/// What a list of referrers says of one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Referrer {
    /// Digest of the subject.
    pub subject: String,
    /// Artifact type, or the config's media type.
    pub artifact_type: String,
    /// Annotations of the manifest or index.
    pub annotations: oci::Annotations,
}

/// What contributes to a repo's blob records.
#[derive(Debug, Clone)]
pub enum Content {
    /// A manifest.
    Manifest {
        /// Config first, then the layers: digest and descriptor size. Duplicates kept.
        blobs: BlobList,
        /// Vendor annotation.
        vendor: Option<String>,
        /// `os` and `architecture[/variant]`, unless both are empty.
        platform: Option<proto::Platform>,
        /// When the image was built, or Go's zero time.
        last_updated: Time,
    },
    /// An index: digests of the children in order.
    Index {
        /// Child digests.
        children: Vec<String>,
    },
}

impl Content {
    /// Digests and sizes of a manifest's config and layers, in this order.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, i64)> {
        let blobs = match self {
            Self::Manifest { blobs, .. } => Some(blobs),
            Self::Index { .. } => None,
        };
        blobs.into_iter().flat_map(BlobList::iter)
    }

    /// Digests of an index's children.
    #[must_use]
    pub fn children(&self) -> &[String] {
        match self {
            Self::Manifest { .. } => &[],
            Self::Index { children } => children,
        }
    }

    /// Digests of config and layers, or of the children.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.blobs().map(|(digest, _)| digest).chain(self.children().iter().map(String::as_str))
    }

    /// What the vendor annotation names.
    #[must_use]
    pub fn vendors(&self) -> &[String] {
        match self {
            Self::Manifest { vendor, .. } => vendor.as_slice(),
            Self::Index { .. } => &[],
        }
    }

    /// What a manifest is for; an index has its children.
    #[must_use]
    pub fn platforms(&self) -> &[proto::Platform] {
        match self {
            Self::Manifest { platform, .. } => platform.as_slice(),
            Self::Index { .. } => &[],
        }
    }
}

/// Where an image was found.
pub struct Source<'a> {
    /// Tag, or the digest.
    pub reference: &'a str,
    /// Digest of the descriptor.
    pub digest: &'a str,
    /// Length of the blob in bytes.
    pub size: usize,
    /// Push-time hint.
    pub pushed: Option<Time>,
}

impl ImageEntry {
    /// Record a manifest with its config (all-default when the config is of a type that zot does not read).
    #[must_use]
    pub fn from_manifest(source: &Source<'_>, manifest: oci::Manifest, config: oci::Image) -> Self {
        let blobs = std::iter::once(&manifest.config).chain(manifest.layers.iter());
        let content = Content::Manifest {
            blobs: blobs.map(|blob| (blob.digest.as_str(), blob.size)).collect(),
            vendor: vendor(&manifest.annotations),
            platform: platform(&config),
            last_updated: last_updated(&config),
        };
        let referrer = manifest.subject.as_ref().map(|subject| Referrer {
            subject: subject.digest.clone(),
            artifact_type: if manifest.artifact_type.is_empty() {
                manifest.config.media_type.clone()
            } else {
                manifest.artifact_type.clone()
            },
            annotations: manifest.annotations.clone(),
        });
        let meta = proto::ImageMeta {
            media_type: oci::MANIFEST.to_owned(),
            manifests: vec![proto::ManifestMeta {
                digest: source.digest.to_owned(),
                size: length(source.size),
                manifest: Some(manifest_record(manifest)),
                config: Some(config_record(config)),
            }],
            index: None,
        };
        Self::new(source, oci::MANIFEST, &meta, content, referrer)
    }

    /// Record a multi-platform image.
    #[must_use]
    pub fn from_index(source: &Source<'_>, index: oci::Index) -> Self {
        let content = Content::Index { children: index.manifests.iter().map(|child| child.digest.clone()).collect() };
        let referrer = index.subject.as_ref().map(|subject| Referrer {
            subject: subject.digest.clone(),
            artifact_type: index.artifact_type.clone(),
            annotations: index.annotations.clone(),
        });
        let meta = proto::ImageMeta {
            media_type: oci::INDEX.to_owned(),
            manifests: Vec::new(),
            index: Some(proto::IndexMeta {
                digest: source.digest.to_owned(),
                size: length(source.size),
                index: Some(index_record(index)),
            }),
        };
        Self::new(source, oci::INDEX, &meta, content, referrer)
    }

    /// What RepoBlobs keeps of the manifest or index itself. `newest` gives the time of the newest of an index's children.
    #[must_use]
    pub fn blob_info(&self, newest: impl FnOnce(&[String]) -> Time) -> proto::BlobInfo {
        proto::BlobInfo {
            size: self.size,
            vendors: self.content.vendors().to_vec(),
            sub_blobs: self.content.digests().map(str::to_owned).collect(),
            platforms: self.content.platforms().to_vec(),
            last_updated: Some(self.last_updated(newest).into()),
        }
    }

    /// When it was last updated, `newest` as in [`ImageEntry::blob_info`].
    #[must_use]
    pub fn last_updated(&self, newest: impl FnOnce(&[String]) -> Time) -> Time {
        match &self.content {
            Content::Manifest { last_updated, .. } => *last_updated,
            Content::Index { children } => newest(children),
        }
    }

    fn new(
        source: &Source<'_>,
        media_type: &'static str,
        meta: &proto::ImageMeta,
        content: Content,
        referrer: Option<Referrer>,
    ) -> Self {
        Self {
            reference: source.reference.to_owned(),
            is_tag: !crate::storage::valid_digest(source.reference),
            digest: source.digest.to_owned(),
            media_type,
            meta: meta.encode_to_vec(),
            size: length(source.size),
            content,
            referrer: referrer.map(Box::new),
            pushed: source.pushed,
        }
    }
}

fn length(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The vendor that annotations name.
#[must_use]
pub fn vendor(annotations: &oci::Annotations) -> Option<String> {
    ["org.opencontainers.image.vendor", "org.label-schema.vendor"]
        .iter()
        .filter_map(|key| annotations.get(*key))
        .find(|vendor| !vendor.is_empty())
        .cloned()
}

fn platform(config: &oci::Image) -> Option<proto::Platform> {
    let architecture = if config.variant.is_empty() {
        config.architecture.clone()
    } else {
        format!("{}/{}", config.architecture, config.variant)
    };
    if config.os.is_empty() && architecture.is_empty() {
        return None;
    }
    Some(proto::Platform { architecture, os: config.os.clone(), ..Default::default() })
}

fn last_updated(config: &oci::Image) -> Time {
    match config.created {
        Some(created) if !created.is_zero() => created,
        _ => config.history.last().and_then(|step| step.created).unwrap_or(Time::ZERO),
    }
}

fn manifest_record(manifest: oci::Manifest) -> proto::Manifest {
    let config = manifest.config;
    proto::Manifest {
        versioned: Some(versioned(manifest.schema_version)),
        media_type: Some(oci::MANIFEST.to_owned()),
        artifact_type: Some(manifest.artifact_type),
        // zot keeps only these three members of the config's descriptor.
        config: Some(proto::Descriptor {
            media_type: config.media_type,
            digest: config.digest,
            size: config.size,
            ..Default::default()
        }),
        layers: descriptors(manifest.layers),
        subject: manifest.subject.map(descriptor),
        annotations: manifest.annotations,
    }
}

fn index_record(index: oci::Index) -> proto::Index {
    proto::Index {
        versioned: Some(versioned(index.schema_version)),
        media_type: Some(oci::INDEX.to_owned()),
        artifact_type: Some(index.artifact_type),
        manifests: descriptors(index.manifests),
        subject: index.subject.map(descriptor),
        annotations: index.annotations,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "zot keeps the low 32 bits")]
fn versioned(schema_version: i64) -> proto::Versioned {
    proto::Versioned { schema_version: schema_version as i32 }
}

fn descriptors(list: oci::json::List<oci::Descriptor>) -> Vec<proto::Descriptor> {
    list.into_vec().into_iter().map(descriptor).collect()
}

fn descriptor(from: oci::Descriptor) -> proto::Descriptor {
    proto::Descriptor {
        media_type: from.media_type,
        digest: from.digest,
        size: from.size,
        urls: from.urls.into_vec(),
        data: from.data.0,
        platform: from.platform.map(|platform| proto::Platform {
            architecture: platform.architecture,
            os: platform.os,
            os_version: Some(platform.os_version),
            os_features: platform.os_features.into_vec(),
            variant: Some(platform.variant),
        }),
        artifact_type: Some(from.artifact_type),
        annotations: from.annotations,
    }
}

fn config_record(image: oci::Image) -> proto::Image {
    let config = image.config;
    let keys = |map: BTreeMap<String, oci::Empty>| map.into_keys().map(|key| (key, proto::EmptyMessage {})).collect();
    proto::Image {
        created: image.created.map(Into::into),
        author: Some(image.author),
        platform: Some(proto::Platform {
            architecture: image.architecture,
            os: image.os,
            os_version: Some(image.os_version),
            os_features: image.os_features.into_vec(),
            variant: Some(image.variant),
        }),
        config: Some(proto::ImageConfig {
            exposed_ports: keys(config.exposed_ports),
            volumes: keys(config.volumes),
            labels: config.labels,
            user: config.user,
            env: config.env.into_vec(),
            entrypoint: config.entrypoint.into_vec(),
            cmd: config.cmd.into_vec(),
            working_dir: Some(config.working_dir),
            stop_signal: Some(config.stop_signal),
            args_escaped: false,
        }),
        root_fs: Some(proto::RootFs { r#type: image.rootfs.kind, diff_ids: image.rootfs.diff_ids.into_vec() }),
        history: image
            .history
            .into_vec()
            .into_iter()
            .map(|step| proto::History {
                created: step.created.map(Into::into),
                created_by: Some(step.created_by),
                author: Some(step.author),
                comment: Some(step.comment),
                empty_layer: Some(step.empty_layer),
            })
            .collect(),
    }
}
