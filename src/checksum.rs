//! Checksums: whether bytes are still those that were seen before. They tell changes that happen, not those that somebody
//! makes up: what must withstand that is a digest.

/// 128 bits, so that no two records of any registry have the same by chance.
pub type Checksum = u128;

/// The checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> Checksum {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

/// The checksum of a list of which each part may be absent. Absent and empty parts differ.
#[must_use]
pub fn of_all(parts: impl Iterator<Item = Option<Checksum>>) -> Checksum {
    let bytes: Vec<u8> = parts
        .flat_map(|part| {
            let [present, sum] = [u128::from(part.is_some()), part.unwrap_or_default()].map(u128::to_le_bytes);
            [present, sum].into_iter().flatten()
        })
        .collect();
    checksum(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_parts_differ() {
        let all = |parts: &[Option<&[u8]>]| of_all(parts.iter().map(|part| part.map(checksum)));
        let lists: [&[Option<&[u8]>]; 6] =
            [&[], &[None], &[Some(b"")], &[None, Some(b"a")], &[Some(b"a"), None], &[Some(b""), Some(b"a")]];
        let sums: std::collections::BTreeSet<Checksum> = lists.into_iter().map(all).collect();
        assert_eq!(sums.len(), lists.len());
    }
}
