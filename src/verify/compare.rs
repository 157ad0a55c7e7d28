//! ImageMeta: from the record to the facts that a repo's records are made of, and equality as zot sees it (spec §6).

use crate::oci::{self, time::Time};
use crate::records::image::{Content, ImageEntry, Referrer, vendor};
use crate::records::proto;
use prost::Message as _;
use std::fmt::Debug;

/// What a walk would take from the image that `record` describes, found as `reference` under `digest`. `None` if the
/// record is not one of that digest.
#[must_use]
pub fn entry(reference: &str, digest: &str, record: &proto::ImageMeta) -> Option<ImageEntry> {
    let reference = reference.to_owned();
    let is_tag = !crate::storage::valid_digest(&reference);
    let common = |media_type, size, content, referrer: Option<Referrer>| ImageEntry {
        reference,
        is_tag,
        digest: digest.to_owned(),
        media_type,
        meta: Vec::new(),
        size,
        content,
        referrer: referrer.map(Box::new),
        pushed: None,
    };
    if let Some(found) = record.index.as_ref().filter(|_| record.media_type == oci::INDEX) {
        let index = found.index.as_ref().filter(|_| found.digest == digest)?;
        let content = Content::Index { children: index.manifests.iter().map(|child| child.digest.clone()).collect() };
        let referrer = index.subject.as_ref().map(|subject| Referrer {
            subject: subject.digest.clone(),
            artifact_type: index.artifact_type.clone().unwrap_or_default(),
            annotations: index.annotations.clone(),
        });
        return Some(common(oci::INDEX, found.size, content, referrer));
    }
    let [found] = record.manifests.as_slice() else { return None };
    let manifest = found.manifest.as_ref().filter(|_| found.digest == digest && record.media_type == oci::MANIFEST)?;
    let config = found.config.as_ref()?;
    let own = manifest.config.clone().unwrap_or_default();
    let blobs = std::iter::once((own.digest.as_str(), own.size))
        .chain(manifest.layers.iter().map(|layer| (layer.digest.as_str(), layer.size)));
    let content = Content::Manifest {
        blobs: blobs.collect(),
        vendor: vendor(&manifest.annotations),
        platform: platform(config),
        last_updated: last_updated(config),
    };
    let referrer = manifest.subject.as_ref().map(|subject| Referrer {
        subject: subject.digest.clone(),
        artifact_type: manifest.artifact_type.clone().filter(|kind| !kind.is_empty()).unwrap_or(own.media_type),
        annotations: manifest.annotations.clone(),
    });
    Some(common(oci::MANIFEST, found.size, content, referrer))
}

fn platform(config: &proto::Image) -> Option<proto::Platform> {
    let own = config.platform.clone().unwrap_or_default();
    let architecture = match own.variant.as_deref().unwrap_or_default() {
        "" => own.architecture,
        variant => format!("{}/{variant}", own.architecture),
    };
    if own.os.is_empty() && architecture.is_empty() {
        return None;
    }
    Some(proto::Platform { architecture, os: own.os, ..Default::default() })
}

fn last_updated(config: &proto::Image) -> Time {
    match config.created.map(Time::from) {
        Some(created) if !created.is_zero() => created,
        _ => config.history.last().and_then(|step| step.created).map_or(Time::ZERO, Time::from),
    }
}

/// Where two records of one image differ: part, expected, found. `None` if zot cannot tell them apart.
///
/// # Errors
/// If `found` cannot be decoded.
pub fn difference(expected: &[u8], found: &[u8]) -> Result<Option<(&'static str, String, String)>, prost::DecodeError> {
    if expected == found {
        return Ok(None);
    }
    let mut wanted = proto::ImageMeta::decode(expected)?;
    let mut got = proto::ImageMeta::decode(found)?;
    // The commonest difference (bytes written by Go, in another order) ends here.
    if wanted == got {
        return Ok(None);
    }
    normalise(&mut wanted);
    normalise(&mut got);
    if wanted == got {
        return Ok(None);
    }
    let mut parts = Parts(None);
    parts.compare("media type", &wanted.media_type, &got.media_type);
    parts.compare("number of manifests", &wanted.manifests.len(), &got.manifests.len());
    for (wanted, got) in wanted.manifests.iter().zip(&got.manifests) {
        parts.compare("digest", &wanted.digest, &got.digest);
        parts.compare("size", &wanted.size, &got.size);
        let (wanted_manifest, got_manifest) =
            (wanted.manifest.clone().unwrap_or_default(), got.manifest.clone().unwrap_or_default());
        parts.compare("manifest config", &wanted_manifest.config, &got_manifest.config);
        parts.compare("manifest layers", &wanted_manifest.layers, &got_manifest.layers);
        parts.compare("manifest subject", &wanted_manifest.subject, &got_manifest.subject);
        parts.compare("manifest annotations", &wanted_manifest.annotations, &got_manifest.annotations);
        parts.compare("manifest", &wanted.manifest, &got.manifest);
        let (wanted_config, got_config) =
            (wanted.config.clone().unwrap_or_default(), got.config.clone().unwrap_or_default());
        parts.compare("config created", &wanted_config.created, &got_config.created);
        parts.compare("config platform", &wanted_config.platform, &got_config.platform);
        parts.compare("config settings", &wanted_config.config, &got_config.config);
        parts.compare("config history", &wanted_config.history, &got_config.history);
        parts.compare("config", &wanted.config, &got.config);
    }
    parts.compare("index", &wanted.index, &got.index);
    Ok(Some(parts.0.unwrap_or_else(|| ("record", String::new(), String::new()))))
}

/// The first difference met.
struct Parts(Option<(&'static str, String, String)>);

impl Parts {
    fn compare<T: PartialEq + Debug>(&mut self, part: &'static str, wanted: &T, got: &T) {
        if self.0.is_none() && wanted != got {
            self.0 = Some((part, text(wanted), text(got)));
        }
    }
}

/// A value for people, cut to what a line bears.
pub fn text(value: &impl Debug) -> String {
    const SHOWN: usize = 200;
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Absent and empty optional strings read the same to zot.
fn normalise(record: &mut proto::ImageMeta) {
    for manifest in &mut record.manifests {
        if let Some(manifest) = &mut manifest.manifest {
            empty(&mut manifest.media_type);
            empty(&mut manifest.artifact_type);
            manifest.config.iter_mut().chain(&mut manifest.layers).chain(&mut manifest.subject).for_each(descriptor);
        }
        if let Some(config) = &mut manifest.config {
            empty(&mut config.author);
            config.platform.iter_mut().for_each(platform_texts);
            if let Some(settings) = &mut config.config {
                empty(&mut settings.working_dir);
                empty(&mut settings.stop_signal);
            }
            for step in &mut config.history {
                [&mut step.created_by, &mut step.author, &mut step.comment].into_iter().for_each(empty);
                step.empty_layer = step.empty_layer.filter(|empty| *empty);
            }
        }
    }
    if let Some(index) = record.index.as_mut().and_then(|index| index.index.as_mut()) {
        empty(&mut index.media_type);
        empty(&mut index.artifact_type);
        index.manifests.iter_mut().chain(&mut index.subject).for_each(descriptor);
    }
}

fn descriptor(found: &mut proto::Descriptor) {
    empty(&mut found.artifact_type);
    found.platform.iter_mut().for_each(platform_texts);
}

fn platform_texts(found: &mut proto::Platform) {
    empty(&mut found.os_version);
    empty(&mut found.variant);
}

fn empty(text: &mut Option<String>) {
    if text.as_deref() == Some("") {
        *text = None;
    }
}
