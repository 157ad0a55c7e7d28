//! Lists of digests, packed.

use crate::hex::hex;
use crate::storage::parse_digest;

/// Stands before the 32 bytes of a sha256 digest.
const SHA256: u8 = 0;
/// Stands before the length and the text of any other.
const TEXT: u8 = 1;

/// Digests as the state file keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(Vec<u8>);

/// One digest of a list.
enum Packed<'a> {
    Sha256([u8; 32]),
    Text(&'a str),
}

impl Digests {
    /// Pack them.
    #[must_use]
    pub fn new<'d>(digests: impl IntoIterator<Item = &'d str>) -> Self {
        let mut out = Vec::new();
        for digest in digests {
            match sha256(digest) {
                Some(bytes) => {
                    out.push(SHA256);
                    out.extend(bytes);
                }
                None => {
                    out.push(TEXT);
                    super::memory::push_text(&mut out, digest);
                }
            }
        }
        Self(out)
    }

    /// From [`Digests::as_bytes`]; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = first(rest)?.1;
        }
        Some(Self(bytes.to_vec()))
    }

    /// Bytes for the state file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn iter(&self) -> impl Iterator<Item = Packed<'_>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (packed, after) = first(rest)?;
            rest = after;
            Some(packed)
        })
    }

    /// Their texts.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let text = |packed| match packed {
            Packed::Sha256(bytes) => format!("sha256:{}", hex(&bytes)),
            Packed::Text(text) => text.to_owned(),
        };
        self.iter().map(text).collect()
    }

    /// Their [`short`] keys.
    pub fn shorts(&self) -> impl Iterator<Item = u128> {
        self.iter().map(|packed| match packed {
            Packed::Sha256(bytes) => u128::from_be_bytes(*bytes.first_chunk().unwrap_or(&[0; 16])),
            Packed::Text(text) => short(text),
        })
    }
}

/// 16 bytes that stand for a digest.
#[must_use]
pub fn short(digest: &str) -> u128 {
    let hex = digest.split_once(':').and_then(|(_, hex)| hex.get(..32));
    // Not a digest that zot accepts: any stable key will do.
    let other = || crate::checksum::checksum(digest.as_bytes());
    hex.and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_else(other)
}

/// The bytes of a canonical sha256 digest.
fn sha256(digest: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = parse_digest(digest)?;
    let mut out = [0; 32];
    for (to, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *to = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (algorithm == "sha256").then_some(out)
}

/// The first of a packed list, and the others.
fn first(list: &[u8]) -> Option<(Packed<'_>, &[u8])> {
    let (kind, rest) = list.split_first()?;
    match *kind {
        SHA256 => rest.split_first_chunk().map(|(bytes, rest)| (Packed::Sha256(*bytes), rest)),
        TEXT => {
            let (length, rest) = rest.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
            Some((Packed::Text(std::str::from_utf8(text).ok()?), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_digests_are_the_same(
            texts in proptest::collection::vec("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|.{0,40}", 0..9),
        ) {
            let packed = Digests::new(texts.iter().map(String::as_str));
            prop_assert_eq!(packed.texts(), texts.clone());
            prop_assert_eq!(packed.shorts().collect::<Vec<_>>(), texts.iter().map(|text| short(text)).collect::<Vec<_>>());
            prop_assert_eq!(Digests::from_bytes(packed.as_bytes()), Some(packed));
        }

        #[test]
        fn hostile_bytes_are_no_list_or_a_whole_one(bytes in proptest::collection::vec(0..40_u8, 0..200)) {
            if let Some(digests) = Digests::from_bytes(&bytes) {
                let texts = digests.texts();
                prop_assert_eq!(digests.shorts().count(), texts.len());
            }
        }
    }
}
