//! Digests and sizes of the blobs that a manifest names.

/// In the manifest's order, duplicates kept. All digests are one text: a repo with many tags has hundreds of thousands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobList {
    digests: String,
    /// Where its digest ends, and its size.
    blobs: Vec<(usize, i64)>,
}

impl BlobList {
    /// Digest and size of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let mut start = 0;
        self.blobs.iter().map(move |(end, size)| {
            let digest = self.digests.get(start..*end).unwrap_or_default();
            start = *end;
            (digest, *size)
        })
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.blobs.len()
    }
}

impl<D: AsRef<str>> FromIterator<(D, i64)> for BlobList {
    fn from_iter<I: IntoIterator<Item = (D, i64)>>(blobs: I) -> Self {
        /// Length of a digest as a rule.
        const DIGEST: usize = "sha256:".len() + 64;
        let blobs = blobs.into_iter();
        let count = blobs.size_hint().0;
        let mut out = Self { digests: String::with_capacity(count * DIGEST), blobs: Vec::with_capacity(count) };
        for (digest, size) in blobs {
            out.digests.push_str(digest.as_ref());
            out.blobs.push((out.digests.len(), size));
        }
        out
    }
}
