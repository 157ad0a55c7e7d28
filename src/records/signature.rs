//! Which manifests are signatures, and of what (spec §2.7, §2.8).

use super::fold::Rules;
use crate::oci;

/// Media or artifact type of notation signatures.
const NOTATION: &str = "application/vnd.cncf.notary.signature";
/// Artifact types of cosign signatures that name their image by `subject`.
const COSIGN: [&str; 2] =
    ["application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json"];
/// Layer annotation that carries cosign's signature.
pub const COSIGN_KEY: &str = "dev.cosignproject.cosign/signature";

/// Signature systems that zot knows; the text is the key of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// cosign, by tag or by subject.
    Cosign,
    /// notation, by subject.
    Notation,
}

impl Kind {
    /// Key in `ManifestSignatures.map`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Cosign => "cosign",
            Self::Notation => "notation",
        }
    }
}

/// One layer of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the layer.
    pub digest: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// cosign: the signature annotation; notation: the layer's media type.
    pub key: String,
}

/// A signature manifest, ready to be folded into the repo's records.
#[derive(Debug, Clone)]
pub struct SignatureEntry {
    /// Tag or digest under which the signature is listed.
    pub reference: String,
    /// Digest of the signature manifest.
    pub digest: String,
    /// System.
    pub kind: Kind,
    /// Digest of the signed image, unchecked.
    pub signed: String,
    /// Layers in order.
    pub layers: Vec<Layer>,
}

/// What the manifest listed as `reference` signs, if it is a signature.
#[must_use]
pub fn signed_by(reference: &str, manifest: &oci::Manifest, rules: Rules) -> Option<(Kind, String)> {
    let artifact_type =
        if manifest.artifact_type.is_empty() { &manifest.config.media_type } else { &manifest.artifact_type };
    if let Some(subject) = &manifest.subject {
        if artifact_type == NOTATION {
            return Some((Kind::Notation, subject.digest.clone()));
        }
        if COSIGN.contains(&artifact_type.as_str()) {
            return Some((Kind::Cosign, subject.digest.clone()));
        }
    }
    cosign_tag_digest(reference, rules).map(|signed| (Kind::Cosign, signed))
}

/// Digest of the image that a cosign signature tag (`sha256-<64 hex>.sig`) belongs to.
fn cosign_tag_digest(reference: &str, rules: Rules) -> Option<String> {
    if rules.lax_cosign_tags {
        // v2.1.18 takes these bytes unchecked from any tag that looks like a signature's (and crashes on shorter tags).
        return is_cosign_tag(reference, false)
            .then(|| reference.get(7..71).map(|text| format!("sha256:{text}")))
            .flatten();
    }
    let hex = reference.strip_prefix("sha256-")?.strip_suffix(".sig")?;
    let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| format!("sha256:{hex}"))
}

/// zot's unanchored test for cosign tags when it files a signature: `sha256-`, at least one character, `.sig`; on Redis
/// `.sbom` counts too.
#[must_use]
pub fn is_cosign_tag(reference: &str, sbom_counts: bool) -> bool {
    let Some((_, rest)) = reference.split_once("sha256-") else { return false };
    // The pattern's "any character" does not match a line feed; only what is on one line can match.
    rest.split('\n').next().is_some_and(|line| ends_in(line, sbom_counts))
        || rest.split_once('\n').is_some_and(|(_, more)| is_cosign_tag(more, sbom_counts))
}

fn ends_in(line: &str, sbom_counts: bool) -> bool {
    let after_one = line.char_indices().nth(1).and_then(|(at, _)| line.get(at..)).unwrap_or_default();
    after_one.contains(".sig") || (sbom_counts && after_one.contains(".sbom"))
}

/// Whether zot ignores a descriptor with this tag as a referrers index: `sha256-` followed by nothing but ASCII letters
/// and digits up to the end, anywhere in the tag.
#[must_use]
pub fn is_referrers_tag(tag: &str) -> bool {
    tag.rmatch_indices("sha256-")
        .next()
        .and_then(|(at, found)| tag.get(at + found.len()..))
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_tags_are_not_anchored_at_the_start() {
        for tag in ["sha256-", "sha256-abc", "build-sha256-deadbeef", "sha256-sha256-0A"] {
            assert!(is_referrers_tag(tag), "{tag}");
        }
        for tag in ["", "sha256", "sha256-abc.sig", "sha256-a-b", "v1", "sha256-é"] {
            assert!(!is_referrers_tag(tag), "{tag}");
        }
    }

    #[test]
    fn cosign_tags_for_filing_are_unanchored() {
        for tag in ["sha256-a.sig", "x-sha256-a.sig.old", "sha256-.sig.sig", "a\nsha256-b.sig"] {
            assert!(is_cosign_tag(tag, false), "{tag:?}");
        }
        for tag in ["sha256-.sig", "sha256-\n.sig", "sha256-a.sbom", "sha255-a.sig", ""] {
            assert!(!is_cosign_tag(tag, false), "{tag:?}");
        }
        assert!(is_cosign_tag("sha256-a.sbom", true));
    }

    #[test]
    fn only_exact_tags_name_a_signed_image() {
        let hex = "ab".repeat(32);
        let rules = Rules::default();
        assert_eq!(cosign_tag_digest(&format!("sha256-{hex}.sig"), rules), Some(format!("sha256:{hex}")));
        for tag in
            [format!("x-sha256-{hex}.sig"), format!("sha256-{hex}.sig2"), format!("sha256-{}.sig", "zz".repeat(32))]
        {
            assert_eq!(cosign_tag_digest(&tag, rules), None, "{tag}");
        }
        let old = Rules { lax_cosign_tags: true, ..rules };
        assert_eq!(cosign_tag_digest("sha256-abc.sig", old), None);
        assert!(cosign_tag_digest(&format!("sha256-{}.sig", "zz".repeat(32)), old).is_some());
    }
}
