//! Which storage fields a zot build knows (spec §3.1 and the end of §5.5).
//!
//! The hashed text lists every field of the build's types, so the release decides the fingerprint even for a config
//! that sets none of the newer fields.

use crate::identity::commit::{parse_commit, release_of};

/// Commits from v2.1.18 to v2.1.19, and to v2.1.20; the main branch is linear there.
const V2_1_19_AT: u64 = 70;
const V2_1_20_AT: u64 = 72;

/// The storage fields that differ between builds that stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldSet {
    /// `redirectBlobURL`.
    pub redirect_blob_url: bool,
    /// `retention.policies[].keepUntagged`.
    pub keep_untagged: bool,
    /// `gcTimeWindow`.
    pub gc_time_window: bool,
    /// Commits since v2.1.18 on the main branch, which decide what may stand in other sections.
    pub commits: u64,
}

impl FieldSet {
    /// Release v2.1.18, the first that stamps.
    pub const V2_1_18: Self = Self { redirect_blob_url: true, keep_untagged: false, gc_time_window: false, commits: 0 };
    /// Releases v2.1.19 and v2.1.20; in `storage` also the main branch up to August 2026.
    pub const V2_1_19: Self =
        Self { redirect_blob_url: true, keep_untagged: true, gc_time_window: true, commits: V2_1_19_AT };
    /// The newest layout known.
    pub const NEWEST: Self = Self { commits: u64::MAX, ..Self::V2_1_19 };

    /// Field set of a build by its release tag and commit text; either may be empty.
    ///
    /// # Errors
    /// [`NoStamp`] for builds that neither read nor write a stamp.
    pub fn for_release(tag: &str, commit: &str) -> Result<FieldSetChoice, NoStamp> {
        let described = parse_commit(commit).and_then(|found| Some((found.tag?, found.since)));
        // Anything may be given as a tag when zot is built; a commit that names a version then tells more.
        let told = described.map_or("", |(tag, _)| tag);
        let name = if !tag.is_empty() && (is_plain(tag) || release_of(told, "").is_none()) { tag } else { told };
        // The distance counts from the commit's own tag, which a make variable may have made another than `tag`.
        let distance = described.filter(|(tag, _)| *tag == name).map_or(0, |(_, since)| since);
        let newest = |notice: String| Ok(FieldSetChoice { fields: Self::NEWEST, notice: Some(notice) });
        let known = |fields| Ok(FieldSetChoice { fields, notice: None });
        let Some(release) = release_of(name, "") else {
            return newest(if name.is_empty() {
                "the release is unknown; assuming the storage fields of v2.1.19 and later".into()
            } else {
                format!("{name:?} is no release tag; assuming the storage fields of v2.1.19 and later")
            });
        };
        let pre_release = !is_plain(name);
        match (release.version, pre_release) {
            (version, true) if version > (2, 1, 18) => {
                newest(format!("{name} is a pre-release; assuming the storage fields of v2.1.19 and later"))
            }
            ((2, 1, 17), false) if distance >= 11 => known(Self { redirect_blob_url: distance >= 19, ..Self::V2_1_18 }),
            ((2, 1, 18), _) => {
                let (keep_untagged, gc_time_window) = (distance >= 11, distance >= 58);
                known(Self { keep_untagged, gc_time_window, commits: distance, ..Self::V2_1_18 })
            }
            ((2, 1, 19), _) => known(Self { commits: V2_1_19_AT.saturating_add(distance), ..Self::V2_1_19 }),
            ((2, 1, 20), _) => known(Self { commits: V2_1_20_AT.saturating_add(distance), ..Self::V2_1_19 }),
            (version, _) if version < (2, 1, 18) => Err(NoStamp { tag: name.to_owned() }),
            _ => newest(format!(
                "{name} is newer than the releases metactl knows (up to v2.1.20); assuming their storage fields"
            )),
        }
    }
}

/// Whether a tag is exactly a release's: `vX.Y.Z`.
fn is_plain(tag: &str) -> bool {
    tag.starts_with('v') && release_of(tag, "").is_some() && !tag.contains(['-', '+'])
}

/// A field set and what is uncertain about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSetChoice {
    /// The fields.
    pub fields: FieldSet,
    /// Why they are only an assumption.
    pub notice: Option<String>,
}

/// The build is older than the stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("zot {tag} has no fast-restart stamp (the first release with one is v2.1.18)")]
pub struct NoStamp {
    /// Release tag.
    pub tag: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tag: &str, commit: &str) -> (bool, bool, bool, bool) {
        let choice = FieldSet::for_release(tag, commit).unwrap();
        let FieldSet { redirect_blob_url, keep_untagged, gc_time_window, .. } = choice.fields;
        (redirect_blob_url, keep_untagged, gc_time_window, choice.notice.is_some())
    }

    #[test]
    fn releases() {
        let old = (true, false, false, false);
        let new = (true, true, true, false);
        assert_eq!(set("v2.1.18", ""), old);
        assert_eq!(set("v2.1.18", "v2.1.18-0-g7bb211b"), old);
        assert_eq!(set("v2.1.18", "v2.1.18-7bb211bcd4352b90f3e99752607fbd1f050bf7ca"), old);
        assert_eq!(set("", "v2.1.18-7bb211bcd4352b90f3e99752607fbd1f050bf7ca"), old);
        assert_eq!(set("v2.1.19", ""), new);
        assert_eq!(set("v2.1.20", "v2.1.20-0-g3b5796d"), new);
        assert_eq!(set("v2.1.20", "v2.1.20-25-g6d19b445-dirty"), new);
    }

    #[test]
    fn main_builds_between_releases() {
        assert_eq!(set("v2.1.18", "v2.1.18-10-gabcdef0"), (true, false, false, false));
        assert_eq!(set("v2.1.18", "v2.1.18-11-gabcdef0"), (true, true, false, false));
        assert_eq!(set("v2.1.18", "v2.1.18-57-gabcdef0-dirty"), (true, true, false, false));
        assert_eq!(set("v2.1.18", "v2.1.18-58-gabcdef0"), (true, true, true, false));
        assert_eq!(set("v2.1.17", "v2.1.17-11-g273b1536"), (false, false, false, false));
        assert_eq!(set("v2.1.17", "v2.1.17-19-g273b1536"), (true, false, false, false));
        // The tag wins over a commit that talks of another tag.
        assert_eq!(set("v2.1.18", "v2.1.17-58-gabcdef0"), (true, false, false, false));
    }

    #[test]
    fn the_commit_dates_the_keys_of_other_sections() {
        for (tag, commit, want) in [
            ("v2.1.17", "v2.1.17-19-g273b1536", 0),
            ("v2.1.18", "v2.1.18-9-gabcdef0", 9),
            ("v2.1.19", "", 70),
            ("v2.1.20", "v2.1.20-0-g3b5796d", 72),
            ("v2.1.20", "v2.1.20-25-g6d19b445-dirty", 97),
            ("v2.1.21", "", u64::MAX),
            ("", "", u64::MAX),
        ] {
            assert_eq!(FieldSet::for_release(tag, commit).unwrap().fields.commits, want, "{tag} {commit}");
        }
    }

    #[test]
    fn a_tag_that_is_no_version_leaves_it_to_the_commit() {
        let old = (true, false, false, false);
        for (tag, commit, want) in [
            ("mine", "v2.1.18-0-g7bb211b", old),
            ("nightly", "v2.1.18-0-g7bb211b", old),
            ("v2.1.18-alpine1", "v2.1.18-0-g7bb211b", old),
            ("v2.1.18-alpine1", "", old),
            ("v2.1.18-rc1", "7bb211b", old),
            ("nightly", "v2.1.18-58-gabcdef0", (true, true, true, false)),
            ("v2.1.20+mine", "v2.1.19-0-gabcdef0", (true, true, true, false)),
            ("", "v2.1.18-rc1-0-gabcdef0", old),
            ("nightly", "mine-0-gabcdef0", (true, true, true, true)),
        ] {
            assert_eq!(set(tag, commit), want, "{tag} {commit}");
        }
    }

    #[test]
    fn unknown_and_newer_builds_get_the_newest_fields_with_a_notice() {
        for (tag, commit) in [
            ("", ""),
            ("", "abcdef0"),
            ("nightly", "x"),
            ("v2.1.21", ""),
            ("v3.0.0", ""),
            ("v2.1.19-rc1", ""),
            ("v2.2", ""),
        ] {
            assert_eq!(set(tag, commit), (true, true, true, true), "{tag} {commit}");
        }
    }

    #[test]
    fn older_builds_have_no_stamp() {
        for (tag, commit) in [("v2.1.17", ""), ("v2.1.17", "v2.1.17-10-gabcdef0"), ("v2.0.4", ""), ("v1.4.3", "")] {
            assert!(FieldSet::for_release(tag, commit).is_err(), "{tag} {commit}");
        }
    }
}
