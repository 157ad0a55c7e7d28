//! The cheap look: an index against one RepoMeta record. Reads nothing but these two.

use super::source::Listed;
use crate::records::{proto, signature};
use std::collections::{BTreeMap, BTreeSet};

/// Digests of all recorded signature manifests.
#[must_use]
pub fn signature_digests(meta: &proto::RepoMeta) -> BTreeSet<&str> {
    let lists = meta.signatures.values().flat_map(|signatures| signatures.map.values());
    lists.flat_map(|list| &list.list).map(|found| found.signature_manifest_digest.as_str()).collect()
}

/// Whether tags and digests agree as far as the index tells. `false` is a suspicion: only the documents tell what is a
/// signature and what is missing.
#[must_use]
pub fn agrees(meta: &proto::RepoMeta, listed: &[Listed]) -> bool {
    let signatures = signature_digests(meta);
    let keep: BTreeSet<&str> = listed.iter().map(|found| found.tag.as_str()).collect();
    if meta.tags.keys().any(|tag| !tag.is_empty() && !keep.contains(tag.as_str())) {
        return false;
    }
    let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
    for found in listed.iter().filter(|found| found.usable()) {
        let counted = meta.statistics.contains_key(&found.digest);
        if signatures.contains(found.digest.as_str()) && (!counted || signature::is_cosign_tag(&found.tag, false)) {
            continue;
        }
        if !counted {
            return false;
        }
        if found.is_tag() {
            tags.insert(&found.tag, &found.digest);
        }
    }
    tags.iter().all(|(tag, digest)| meta.tags.get(*tag).is_some_and(|known| known.digest == **digest))
}
