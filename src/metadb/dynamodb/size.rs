//! DynamoDB's limit for one item: 400 KB, names and key included. What comes near is warned of, what exceeds it is refused
//! before it is sent, with what makes it so large and what zot would do.

use super::items::{Item, KEY};
use crate::records::proto;
use aws_sdk_dynamodb::types::AttributeValue;
use prost::Message as _;

/// Most bytes of an item.
pub const LIMIT: usize = 400 << 10;
/// Bytes from which on it is time to do something about it.
pub const WARN: usize = 350 << 10;

/// Which record makes an item large.
#[derive(Debug, Clone, Copy)]
pub enum Large<'a> {
    /// A repo's tags, statistics and signatures.
    RepoMeta(&'a [u8]),
    /// A repo's blobs.
    RepoBlobs(&'a [u8]),
    /// One image, by its digest.
    ImageMeta(&'a str),
}

/// What an item of this key takes once these attributes are set.
pub fn after(item: &Item, key: &str, set: &[(&str, usize)]) -> usize {
    let kept = item.iter().filter(|(name, _)| *name != KEY && set.iter().all(|(new, _)| new != name));
    let kept: usize = kept.map(|(name, value)| name.len() + size(value)).sum();
    KEY.len() + key.len() + kept + set.iter().map(|(name, length)| name.len() + length).sum::<usize>()
}

/// What a value takes, by AWS's rules.
fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number.len().div_ceil(2) + 1,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(set) => set.iter().map(String::len).sum(),
        AttributeValue::Ns(set) => set.iter().map(|number| number.len().div_ceil(2) + 1).sum(),
        AttributeValue::Bs(set) => set.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(list) => 3 + list.iter().map(|inner| 1 + size(inner)).sum::<usize>(),
        AttributeValue::M(map) => 3 + map.iter().map(|(name, inner)| 1 + name.len() + size(inner)).sum::<usize>(),
        _ => 1,
    }
}

/// Complain of an item of `bytes`: `Err` if it cannot be stored.
pub fn check(repo: &str, large: Large<'_>, bytes: usize) -> Result<(), String> {
    if bytes > LIMIT {
        return Err(refused(large, bytes));
    }
    if bytes >= WARN {
        let (what, because) = described(large);
        tracing::warn!(
            "{repo}: {what} takes {} of the {} KB that DynamoDB allows ({because}); beyond that, neither zot nor metactl can record it",
            bytes.div_ceil(1024),
            LIMIT >> 10
        );
    }
    Ok(())
}

/// Why a record of `bytes` is not stored.
pub fn refused(large: Large<'_>, bytes: usize) -> String {
    let (what, because) = described(large);
    // zot advances RepoLastUpdated in the same write as RepoBlobs, and before RepoMeta.
    let zot = match large {
        Large::RepoMeta(_) => {
            "zot fails at the same size, with RepoLastUpdated already advanced: it stops there, and takes the repo for \
             done at its next start"
        }
        Large::RepoBlobs(_) | Large::ImageMeta(_) => {
            "zot fails at the same size: it stops there, leaves out the rest of the index, and takes the repo for done \
             at its next start if it had recorded anything of it"
        }
    };
    format!("{what} would take {} KB, and DynamoDB allows {}: {because}; {zot}", bytes.div_ceil(1024), LIMIT >> 10)
}

/// The item, and what makes it large.
fn described(large: Large<'_>) -> (String, String) {
    match large {
        Large::RepoMeta(record) => {
            let meta = proto::RepoMeta::decode(record).unwrap_or_default();
            let named = |key: &&String| !key.is_empty();
            let layers = meta.signatures.values().flat_map(|signed| signed.map.values()).flat_map(|list| &list.list);
            let content: usize =
                layers.flat_map(|signature| &signature.layers_info).map(|layer| layer.layer_content.len()).sum();
            let because = format!(
                "{} tags, {} images, {} KB of signatures",
                meta.tags.keys().filter(named).count(),
                meta.statistics.keys().filter(named).count(),
                content.div_ceil(1024)
            );
            ("its RepoMeta item".into(), because)
        }
        Large::RepoBlobs(record) => {
            let blobs = proto::RepoBlobs::decode(record).unwrap_or_default().blobs;
            let parts: usize = blobs.values().map(|blob| blob.sub_blobs.len()).sum();
            let blobs = blobs.keys().filter(|digest| !digest.is_empty()).count();
            ("its RepoBlobsInfo item".into(), format!("{blobs} blobs, {parts} references between them"))
        }
        Large::ImageMeta(digest) => {
            (format!("the ImageMeta item of {digest}"), "its manifest and config are that long".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn an_item_is_as_large_as_aws_says() {
        // 8 for the key's name, 3 for the key.
        assert_eq!(after(&Item::new(), "key", &[("Attr", 100)]), 8 + 3 + 4 + 100);
        let item = HashMap::from([
            (KEY.to_owned(), AttributeValue::S("key".into())),
            ("Attr".to_owned(), AttributeValue::S("replaced".into())),
            ("kept".to_owned(), AttributeValue::Bool(true)),
            ("list".to_owned(), AttributeValue::L(vec![AttributeValue::S("ab".into())])),
        ]);
        assert_eq!(after(&item, "key", &[("Attr", 100)]), 8 + 3 + 4 + 100 + (4 + 1) + (4 + 3 + 1 + 2));
    }

    #[test]
    fn a_refusal_names_size_cause_and_consequence() {
        let mut meta = proto::RepoMeta::default();
        for number in 0..3 {
            meta.tags.insert(format!("t{number}"), proto::TagDescriptor::default());
        }
        meta.tags.insert(String::new(), proto::TagDescriptor::default());
        let record = meta.encode_to_vec();
        let text = check("r", Large::RepoMeta(&record), LIMIT + 1).unwrap_err();
        assert!(text.contains("401 KB") && text.contains("3 tags") && text.contains("zot"), "{text}");
        assert_eq!(check("r", Large::RepoMeta(&record), LIMIT), Ok(()));
        let text = check("r", Large::ImageMeta("sha256:x"), 2 * LIMIT).unwrap_err();
        assert!(text.contains("sha256:x") && text.contains("800 KB"), "{text}");
    }
}
