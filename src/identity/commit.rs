//! What the text of a commit tells: tag, distance, hash (spec: "Binary identity" §5.1, §5.2).

/// Characters of a release tag as the scan of binaries knows them.
pub(super) fn is_tag_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-' | b'/')
}

/// Lower-case hex digit, as git writes hashes.
pub(super) fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// A commit taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit<'a> {
    /// Tag it names: the nearest one below the commit. `None` for a bare hash.
    pub tag: Option<&'a str>,
    /// Commits since that tag; 0 for the official images, which are built from tags.
    pub since: u64,
    /// Hash, possibly shortened.
    pub hash: &'a str,
    /// Built from a changed tree.
    pub dirty: bool,
}

/// Take a commit apart (spec §5.2). `None` if it has none of the known forms.
#[must_use]
pub fn parse_commit(commit: &str) -> Option<Commit<'_>> {
    let (text, dirty) = commit.strip_suffix("-dirty").map_or((commit, false), |text| (text, true));
    let hex = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(is_hex)
    };
    if let Some((tag, since, hash)) = describe(text)
        && hex(hash, 4..=40)
        && !tag.is_empty()
    {
        return Some(Commit { tag: Some(tag), since, hash, dirty });
    }
    if let Some((tag, hash)) = text.rsplit_once('-')
        && hex(hash, 40..=40)
        && !tag.is_empty()
    {
        return Some(Commit { tag: Some(tag), since: 0, hash, dirty });
    }
    hex(text, 4..=40).then_some(Commit { tag: None, since: 0, hash: text, dirty })
}

/// `T-N-gH` into T, N, H.
fn describe(text: &str) -> Option<(&str, u64, &str)> {
    let (rest, hash) = text.rsplit_once('-')?;
    let (tag, since) = rest.rsplit_once('-')?;
    let since = since.bytes().all(|byte| byte.is_ascii_digit()).then(|| since.parse().ok())??;
    Some((tag, since, hash.strip_prefix('g')?))
}

/// The release tag that goes with a commit: `Some("")` for a bare hash (such builds know no tag), `None` if the form is
/// unknown and the tag has to be asked for.
#[must_use]
pub fn tag_of_commit(commit: &str) -> Option<&str> {
    parse_commit(commit).map(|commit| commit.tag.unwrap_or_default())
}

/// A place in zot's (linear) history, in release order; decides which fields a fingerprint covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Major, minor and patch number of the tag.
    pub version: (u64, u64, u64),
    /// Commits since the tag.
    pub since: u64,
}

/// The release of a binary. The commit is the better witness, because a tag can be given freely at build time; without
/// a tag in the commit the tag itself is taken. `None` if neither is a version.
///
/// Whatever follows the patch number (`-rc1`, `+x`) is ignored.
#[must_use]
pub fn release_of(tag: &str, commit: &str) -> Option<Release> {
    let told = parse_commit(commit);
    if let Some((tag, since)) = told.and_then(|commit| Some((commit.tag?, commit.since)))
        && let Some(version) = version(tag)
    {
        return Some(Release { version, since });
    }
    version(tag).map(|version| Release { version, since: 0 })
}

fn version(tag: &str) -> Option<(u64, u64, u64)> {
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let core = tag.split(['-', '+']).next()?;
    let mut numbers = core
        .split('.')
        .map(|number| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok()).flatten());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "3b5796d834e8661ea661a5fcc47add8d4405aebf";

    #[test]
    fn tags_by_the_rule() {
        for (commit, tag) in [
            ("v2.1.20-0-g3b5796d", Some("v2.1.20")),
            ("v2.1.20-25-g6d19b445-dirty", Some("v2.1.20")),
            ("v2.1.20-rc1-3-gabcd", Some("v2.1.20-rc1")),
            (&format!("v2.1.20-{HASH}"), Some("v2.1.20")),
            (&format!("v2.1.20-{HASH}-dirty"), Some("v2.1.20")),
            ("3b5796d", Some("")),
            ("3b5796d-dirty", Some("")),
            (HASH, Some("")),
            ("", None),
            ("abc", None),
            ("v2.1.20", None),
            ("v2.1.20-0-g3b5", None),
            ("v2.1.20--g3b5796d", None),
            ("-0-g3b5796d", None),
            ("v2.1.20-x-g3b5796d", None),
            ("v2.1.20-0-g3B5796D", None),
            (&format!("v2.1.20-0-g{HASH}0"), None),
            (&format!("-{HASH}"), None),
            ("main", None),
        ] {
            assert_eq!(tag_of_commit(commit), tag, "{commit}");
        }
        let parsed = parse_commit("v2.1.20-25-g6d19b445-dirty").unwrap();
        assert_eq!((parsed.since, parsed.hash, parsed.dirty), (25, "6d19b445", true));
    }

    #[test]
    fn releases() {
        let release = |tag, commit| release_of(tag, commit).map(|release| (release.version, release.since));
        assert_eq!(release("v2.1.20", "v2.1.20-0-g3b5796d"), Some(((2, 1, 20), 0)));
        assert_eq!(release("v2.1.18", "v2.1.18-58-g3b5796d"), Some(((2, 1, 18), 58)));
        assert_eq!(release("", "v2.1.18-58-g3b5796d"), Some(((2, 1, 18), 58)));
        assert_eq!(release("mine", "v2.1.18-58-g3b5796d"), Some(((2, 1, 18), 58)));
        assert_eq!(release("v2.1.20", ""), Some(((2, 1, 20), 0)));
        assert_eq!(release("2.1.20-rc1+x", "3b5796d"), Some(((2, 1, 20), 0)));
        for tag in ["", "v2.1", "v2.1.x", "v2.1.20.1", "v2..20", "vv2.1.20", "v+2.1.20", "v99999999999999999999.0.0"] {
            assert_eq!(release(tag, "3b5796d"), None, "{tag}");
        }
        assert!(release_of("v2.1.18", "v2.1.18-70-g3b57") < release_of("v2.1.19", ""));
    }
}
