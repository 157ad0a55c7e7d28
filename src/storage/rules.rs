//! Pure rules shared by all stores: repository names, skipped directories, digests (spec: "Storage" §1.2, §1.5, §1.8).

/// Largest `index.json`, manifest or config that is read into memory: 256 MiB.
///
/// zot has no limit; a real document of this kind stays below a few MiB. The bound keeps a layer (or a sparse file)
/// that somebody lists as a manifest from taking all memory: it becomes an error of that repo instead.
pub const MAX_DOCUMENT: u64 = 256 << 20;

/// Digest algorithms that zot accepts, with the length of their hex form and the digest of zero bytes.
const ALGORITHMS: [(&str, usize, &str); 3] = [
    ("sha256", 64, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("sha384", 96, "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"),
    (
        "sha512",
        128,
        "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ),
];

/// Whether zot accepts `name` as a repository name (spec §1.2). No length limit applies.
#[must_use]
pub fn valid_repo_name(name: &str) -> bool {
    name.split('/').all(|component| valid_component(component.as_bytes()))
}

/// One `/`-separated part of a repository name: runs of `a-z0-9` joined by `.`, `_`, `__` or any number of `-`.
///
/// Every prefix of a valid name is valid, so a directory whose own component fails hides everything beneath it.
#[must_use]
pub fn valid_component(component: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !component.first().is_some_and(word) || !component.last().is_some_and(word) {
        return false;
    }
    component
        .split(word)
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

/// Whether zot's walk skips a directory of this base name with everything beneath (spec §1.5, step 1).
///
/// It is a test on the *end* of the path, so a repository called `myblobs` is accepted at push time but never listed.
#[must_use]
pub fn skipped_directory(base: &[u8]) -> bool {
    [b".sync".as_slice(), b"blobs", b".uploads"].iter().any(|suffix| base.ends_with(suffix))
}

/// Split a digest into algorithm and hex part if zot accepts it (spec §1.8): `sha256`, `sha384` or `sha512`, then
/// exactly as many lower-case hex digits as the algorithm has.
#[must_use]
pub fn parse_digest(digest: &str) -> Option<(&str, &str)> {
    let (algorithm, hex) = digest.split_once(':')?;
    let (_, length, _) = ALGORITHMS.iter().find(|(name, ..)| *name == algorithm)?;
    let valid = hex.len() == *length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some((algorithm, hex))
}

/// Whether zot accepts `digest`; see [`parse_digest`].
#[must_use]
pub fn valid_digest(digest: &str) -> bool {
    parse_digest(digest).is_some()
}

/// Whether `digest` is the hash of zero bytes, so that an empty file is its genuine content and no dedupe placeholder.
#[must_use]
pub fn is_empty_digest(digest: &str) -> bool {
    parse_digest(digest)
        .is_some_and(|(algorithm, hex)| ALGORITHMS.iter().any(|(name, _, empty)| *name == algorithm && *empty == hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256, Sha384, Sha512};

    #[test]
    fn repository_names() {
        for name in ["a", "0", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a----b", "a.b_c__d-e", "team/x.uploads", "blobs"]
        {
            assert!(valid_repo_name(name), "{name}");
        }
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "aB", "a..b", "a___b", "a._b", "a-.b", "_a", "a_", ".a", "a.", "-a",
            "a-", "a/.sync", "a/..", "..", "a b", "a\n", "ä", "a/B/c", "a_-b", "a:b", "a\0b",
        ] {
            assert!(!valid_repo_name(name), "{name:?}");
        }
    }

    #[test]
    fn skipped_by_the_end_of_the_name() {
        for base in ["blobs", "myblobs", ".sync", "x.sync", ".uploads", "x.uploads"] {
            assert!(skipped_directory(base.as_bytes()), "{base}");
        }
        for base in ["blobs2", "sync", "uploads", ".sync2", "blob", ""] {
            assert!(!skipped_directory(base.as_bytes()), "{base}");
        }
    }

    #[test]
    fn digests() {
        let hex = "0123456789abcdef".repeat(8);
        for (algorithm, length) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let good = format!("{algorithm}:{}", &hex[..length]);
            assert_eq!(parse_digest(&good), Some((algorithm, &hex[..length])));
            assert!(valid_digest(&good));
            for bad in [
                format!("{algorithm}:{}", &hex[..length - 1]),
                format!("{algorithm}:{}0", &hex[..length]),
                format!("{algorithm}:{}", hex[..length].to_uppercase()),
                format!("{algorithm}:../{}", &hex[..length - 3]),
                format!("{algorithm}{}", &hex[..length]),
                format!(" {algorithm}:{}", &hex[..length]),
                format!("{}:{}", algorithm.to_uppercase(), &hex[..length]),
            ] {
                assert!(!valid_digest(&bad), "{bad}");
            }
        }
        for bad in ["", ":", "sha256", "sha256:", &format!("md5:{}", &hex[..32]), &format!("sha1:{}", &hex[..40])] {
            assert!(!valid_digest(bad), "{bad}");
        }
    }

    #[test]
    fn digests_of_nothing() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(is_empty_digest(&format!("sha256:{}", hex(&Sha256::digest([])))));
        assert!(is_empty_digest(&format!("sha384:{}", hex(&Sha384::digest([])))));
        assert!(is_empty_digest(&format!("sha512:{}", hex(&Sha512::digest([])))));
        assert!(!is_empty_digest(&format!("sha256:{}", hex(&Sha256::digest([0])))));
        assert!(!is_empty_digest("sha256:"));
    }
}
