//! What zot will do at its next start, and why: a pure function of facts (spec: config-and-stamp, intro and §6).

use crate::stamp::{Comparison, Part, Verdict};

/// What zot does with its metaDB when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Trusts the metaDB as it is.
    Skip,
    /// Walks storage, repo by repo, those whose index is not older than their records.
    Walk,
    /// Opens no metaDB, or another one than this.
    NoMetaDb,
    /// Cannot be told without knowing which build of zot will start.
    Unknown,
}

impl Action {
    /// Stable word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Walk => "walk",
            Self::NoMetaDb => "no-metadb",
            Self::Unknown => "unknown",
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The stamp matches and fastRestart is on.
    StampCurrent,
    /// The stamp matches, but `fastRestart` is off: it is not even read.
    FastRestartOff,
    /// No stamp is stored.
    StampAbsent,
    /// Another build of zot, or another version, wrote it.
    IdentityChanged,
    /// The storage section of the config changed.
    ConfigChanged,
    /// Both changed.
    IdentityAndConfigChanged,
    /// The build has no identity, so it neither reads nor writes stamps.
    NoIdentity,
    /// It is not known which build will start.
    IdentityUnknown,
    /// The release is older than v2.1.18, which brought stamps.
    ReleaseWithoutStamp,
    /// Nothing in the config needs a metaDB.
    MetaDbUnused,
    /// zot never opens a redb file.
    NotZotsMetaDb,
}

impl Reason {
    /// Stable word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::StampCurrent => "stamp-current",
            Self::FastRestartOff => "fast-restart-off",
            Self::StampAbsent => "stamp-absent",
            Self::IdentityChanged => "identity-changed",
            Self::ConfigChanged => "config-changed",
            Self::IdentityAndConfigChanged => "identity-and-config-changed",
            Self::NoIdentity => "no-identity",
            Self::IdentityUnknown => "identity-unknown",
            Self::ReleaseWithoutStamp => "release-without-stamp",
            Self::MetaDbUnused => "metadb-unused",
            Self::NotZotsMetaDb => "not-zots-metadb",
        }
    }
}

/// Everything the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whether the config makes zot open a metaDB.
    pub metadb_used: bool,
    /// Whether the metaDB looked at is one that zot could open.
    pub zots_metadb: bool,
    /// `storage.fastRestart`.
    pub fast_restart: bool,
    /// Whether the release knows stamps at all.
    pub release_has_stamp: bool,
    /// Stored against expected; `None` if the identity is not known.
    pub comparison: Option<&'a Comparison>,
    /// Whether a stamp is stored.
    pub stamped: bool,
}

/// What zot will do, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// Decide.
#[must_use]
pub fn decide(facts: Facts<'_>) -> Decision {
    let because = |action, reason| Decision { action, reason };
    if !facts.zots_metadb {
        return because(Action::NoMetaDb, Reason::NotZotsMetaDb);
    }
    if !facts.metadb_used {
        return because(Action::NoMetaDb, Reason::MetaDbUnused);
    }
    if !facts.release_has_stamp {
        return because(Action::Walk, Reason::ReleaseWithoutStamp);
    }
    if !facts.fast_restart {
        return because(Action::Walk, Reason::FastRestartOff);
    }
    let Some(comparison) = facts.comparison else {
        return if facts.stamped {
            because(Action::Unknown, Reason::IdentityUnknown)
        } else {
            because(Action::Walk, Reason::StampAbsent)
        };
    };
    match comparison.verdict {
        Verdict::Current => because(Action::Skip, Reason::StampCurrent),
        Verdict::Absent => because(Action::Walk, Reason::StampAbsent),
        Verdict::NothingExpected => because(Action::Walk, Reason::NoIdentity),
        Verdict::Stale => because(Action::Walk, stale(comparison)),
    }
}

fn stale(comparison: &Comparison) -> Reason {
    let differs = |wanted: fn(Part) -> bool| comparison.parts.iter().any(|found| wanted(found.part) && !found.equal);
    match (differs(|part| part != Part::Fingerprint), differs(|part| part == Part::Fingerprint)) {
        (true, true) => Reason::IdentityAndConfigChanged,
        (false, true) => Reason::ConfigChanged,
        // Parts can agree while the texts differ (a `+` elsewhere): still another identity.
        (_, false) => Reason::IdentityChanged,
    }
}

impl Decision {
    /// One sentence for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self.reason {
            Reason::StampCurrent => "zot will skip its walk: fastRestart is on and the stamp matches",
            Reason::FastRestartOff => {
                "zot will walk: storage.fastRestart is not true, so it does not look at the stamp"
            }
            Reason::StampAbsent => "zot will walk: there is no stamp",
            Reason::IdentityChanged => "zot will walk: the stamp was written by another build of zot",
            Reason::ConfigChanged => "zot will walk: the storage config is not the one the stamp was written under",
            Reason::IdentityAndConfigChanged => {
                "zot will walk: the stamp was written by another build of zot and under another storage config"
            }
            Reason::NoIdentity => "zot will walk: its build has no release tag and no commit, so it uses no stamp",
            Reason::IdentityUnknown => "what zot will do depends on its build, which is not known",
            Reason::ReleaseWithoutStamp => "zot will walk: releases before v2.1.18 know no stamp",
            Reason::MetaDbUnused => "zot opens no metaDB: nothing in this config needs one",
            Reason::NotZotsMetaDb => "zot never opens this metaDB: a stamp in redb does not speed up a zot restart",
        }
    }
}
