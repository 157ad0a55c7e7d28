//! The fast-restart stamp: `<identity>|<fingerprint>` (spec: "configuration, fingerprint and binary identity", intro).
//!
//! [`Stamp`] is what zot would write now; [`StoredStamp`] is what the metaDB holds, which may be any bytes at all. Equality
//! is zot's: the two texts byte by byte. The parts serve people only, who want to know *what* differs.

use crate::identity::Identity;
use std::borrow::Cow;

/// Longest part of a stored stamp that is shown, in characters; a genuine one has less than 150.
const SHOWN: usize = 512;

/// The stamp of a known binary and a known storage config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Identity of the zot binary.
    pub identity: Identity,
    /// Lower-case hex SHA-256 of the storage config.
    pub fingerprint: String,
}

impl Stamp {
    /// The text zot stores. Empty if either part is: zot then neither skips a walk nor stores anything.
    #[must_use]
    pub fn text(&self) -> String {
        let identity = self.identity.text();
        if identity.is_empty() || self.fingerprint.is_empty() {
            return String::new();
        }
        format!("{identity}|{}", self.fingerprint)
    }

    /// Split a stamp's text at its last `|` (a fingerprint never contains one). `None` unless both parts are there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (identity, fingerprint) = text.rsplit_once('|')?;
        if identity.is_empty() || fingerprint.is_empty() {
            return None;
        }
        Some(Self { identity: Identity::parse(identity), fingerprint: fingerprint.to_owned() })
    }
}

/// The stamp as a metaDB holds it: arbitrary bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredStamp {
    raw: Vec<u8>,
}

impl StoredStamp {
    /// From the stored value; no value and an empty value are the same to zot.
    #[must_use]
    pub fn new(raw: impl Into<Vec<u8>>) -> Self {
        Self { raw: raw.into() }
    }

    /// Whether zot would find no stamp.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The stored bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The whole text; bytes that are not UTF-8 are replaced, control characters are *not* escaped.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.raw)
    }

    /// The text before the last `|`, if there is a well-formed one: the identity of the binary that wrote the stamp.
    #[must_use]
    pub fn identity_text(&self) -> Option<&str> {
        let (identity, fingerprint) = self.split();
        let identity = std::str::from_utf8(identity).ok()?;
        (!identity.is_empty() && !fingerprint.is_empty()).then_some(identity)
    }

    /// The text after the last `|`; empty if there is none.
    #[must_use]
    pub fn fingerprint(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.split().1)
    }

    /// Identity and fingerprint. Without any `|` all of it counts as identity.
    fn split(&self) -> (&[u8], &[u8]) {
        match memchr::memrchr(b'|', &self.raw) {
            Some(at) => (self.raw.get(..at).unwrap_or_default(), self.raw.get(at + 1..).unwrap_or_default()),
            None => (&self.raw, &[]),
        }
    }

    /// Compare with the stamp that zot would compute, part by part.
    #[must_use]
    pub fn compare(&self, expected: &Stamp) -> Comparison {
        let text = expected.text();
        let verdict = match (self.is_empty(), text.is_empty()) {
            (_, true) => Verdict::NothingExpected,
            (true, false) => Verdict::Absent,
            _ if self.raw == text.as_bytes() => Verdict::Current,
            _ => Verdict::Stale,
        };
        let (identity, fingerprint) = self.split();
        let identity = String::from_utf8_lossy(identity);
        // An identity that equals the expected text is split like it, whatever `+` it contains.
        let stored =
            if identity == expected.identity.text() { expected.identity.clone() } else { Identity::parse(&identity) };
        let part = |part, stored: &str, expected: &str| PartComparison {
            part,
            equal: stored == expected,
            stored: shorten(stored),
            expected: shorten(expected),
        };
        let parts = [
            part(Part::ReleaseTag, &stored.release_tag, &expected.identity.release_tag),
            part(Part::Commit, &stored.commit, &expected.identity.commit),
            part(Part::Fingerprint, &String::from_utf8_lossy(fingerprint), &expected.fingerprint),
        ];
        Comparison { verdict, parts }
    }
}

/// What a comparison says as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both texts are equal: a zot that is told to will skip its walk.
    Current,
    /// There is a stamp and it is not the expected one.
    Stale,
    /// No stamp is stored.
    Absent,
    /// zot would compute an empty stamp and never look at the stored one.
    NothingExpected,
}

/// One of the three parts of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Release tag of the binary.
    ReleaseTag,
    /// Commit of the binary.
    Commit,
    /// Fingerprint of the storage config.
    Fingerprint,
}

/// Stored and expected value of one part. Texts are cut after 512 characters, not escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartComparison {
    /// Which part.
    pub part: Part,
    /// Value in the metaDB.
    pub stored: String,
    /// Value that zot would compute.
    pub expected: String,
    /// Whether the full values are equal.
    pub equal: bool,
}

/// Result of [`StoredStamp::compare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// What zot would conclude.
    pub verdict: Verdict,
    /// Release tag, commit, fingerprint, in this order.
    pub parts: [PartComparison; 3],
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(tag: &str, commit: &str, fingerprint: &str) -> Stamp {
        Stamp { identity: Identity::new(tag, commit), fingerprint: fingerprint.into() }
    }

    #[test]
    fn text_is_empty_if_either_part_is() {
        assert_eq!(stamp("v2.1.20", "v2.1.20-0-g3b5796d", "ab").text(), "v2.1.20+v2.1.20-0-g3b5796d|ab");
        assert_eq!(stamp("v2.1.20", "", "ab").text(), "v2.1.20|ab");
        assert_eq!(stamp("", "3b5796d", "ab").text(), "dev-3b5796d|ab");
        assert_eq!(stamp("", "", "ab").text(), "");
        assert_eq!(stamp("v2.1.20", "", "").text(), "");
    }

    #[test]
    fn parse_splits_at_the_last_bar() {
        for text in ["v1+v1-0-gabcd|ff", "v1|ff", "dev-abcd|ff", "a|b+c|ff"] {
            assert_eq!(Stamp::parse(text).unwrap().text(), text);
        }
        assert_eq!(Stamp::parse("a|b+c|ff").unwrap().fingerprint, "ff");
        for bad in ["", "|", "|ff", "v1|", "v1"] {
            assert_eq!(Stamp::parse(bad), None, "{bad}");
            assert_eq!(StoredStamp::new(bad).identity_text(), None, "{bad}");
        }
    }

    #[test]
    fn comparison_tells_which_part_differs() {
        let expected = stamp("v2.1.20", "v2.1.20-0-g3b5796d", "ff");
        let compare = |stored: &str| {
            let comparison = StoredStamp::new(stored).compare(&expected);
            (comparison.verdict, comparison.parts.map(|part| part.equal))
        };
        assert_eq!(compare("v2.1.20+v2.1.20-0-g3b5796d|ff"), (Verdict::Current, [true, true, true]));
        assert_eq!(compare("v2.1.20+v2.1.20-0-g3b5796d|fe"), (Verdict::Stale, [true, true, false]));
        assert_eq!(compare("v2.1.20+v2.1.20-0-g3b5796e|ff"), (Verdict::Stale, [true, false, true]));
        assert_eq!(compare("v2.1.18+v2.1.20-0-g3b5796d|ff"), (Verdict::Stale, [false, true, true]));
        assert_eq!(compare("v2.1.20|ff"), (Verdict::Stale, [true, false, true]));
        assert_eq!(compare("dev-v2.1.20-0-g3b5796d|ff"), (Verdict::Stale, [false, true, true]));
        assert_eq!(compare(""), (Verdict::Absent, [false, false, false]));
        assert_eq!(compare("rubbish"), (Verdict::Stale, [false, false, false]));
        assert_eq!(compare("|"), (Verdict::Stale, [false, false, false]));
        let nothing = StoredStamp::new("x|y").compare(&stamp("", "", "ff"));
        assert_eq!(nothing.verdict, Verdict::NothingExpected);
    }

    #[test]
    fn a_plus_in_the_tag_does_not_hide_equality() {
        let expected = stamp("v1+x", "y+z", "ff");
        let same = StoredStamp::new(expected.text()).compare(&expected);
        assert!(same.verdict == Verdict::Current && same.parts.iter().all(|part| part.equal));
    }

    #[test]
    fn huge_values_are_cut_for_show() {
        let comparison = StoredStamp::new("é".repeat(1 << 20)).compare(&stamp("v1", "", "ff"));
        assert_eq!(comparison.parts[0].stored.chars().count(), SHOWN + 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_bearable(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let expected = stamp("v1", "c", "ff");
            let stored = StoredStamp::new(raw.clone());
            prop_assert_eq!(stored.compare(&expected).verdict == Verdict::Current, raw == expected.text().as_bytes());
            let _ = (stored.text(), stored.identity_text(), stored.fingerprint());
        }

        #[test]
        fn a_written_stamp_is_current(tag in ".{0,8}", commit in ".{0,8}", fingerprint in "[0-9a-f]{64}") {
            let expected = stamp(&tag, &commit, &fingerprint);
            prop_assume!(!expected.text().is_empty());
            let comparison = StoredStamp::new(expected.text()).compare(&expected);
            prop_assert_eq!(comparison.verdict, Verdict::Current);
            prop_assert!(comparison.parts.iter().all(|part| part.equal));
        }
    }
}
