//! What verify can find: stable ids, how grave each is and what repairs it, in one table.

/// How grave a finding is. The gravest finding of a run decides over its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing, nothing to do.
    Info,
    /// Wrong, and a walk (or a hand) can put it right before it hurts.
    Warning,
    /// Data is lost or unreadable, or zot serves wrong data and will go on doing so.
    Critical,
}

impl Severity {
    /// All, the mildest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Stable word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What puts a finding right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// No command does.
    None,
    /// A walk of everything that changed.
    Walk,
    /// A walk of everything, whatever the stamp and the times say.
    WalkAll,
    /// A walk of this repo, forced where an ordinary walk would not look at it.
    WalkRepo,
    /// The same, always forced: its index does not tell that anything is wrong.
    ForceRepo,
    /// A walk that also removes image records without a repo.
    Prune,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $text:literal $severity:ident $drift:literal $repair:ident;)*) => {
        /// Kinds of findings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id {
            $($(#[$doc])* $name,)*
        }

        impl Id {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Stable text.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How grave it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// Whether it means that the metaDB does not say what storage says, so that a stamp over it lies.
            #[must_use]
            pub fn is_drift(self) -> bool {
                match self { $(Self::$name => $drift,)* }
            }

            fn repair(self) -> Repair {
                match self { $(Self::$name => Repair::$repair,)* }
            }
        }
    };
}

ids! {
    /// The metaDB has a schema that this version does not know; its records were not looked at.
    VersionUnknown "version-unknown" Critical false None;
    /// The store has a layout that this version does not know; it was not looked at.
    LayoutUnknown "layout-unknown" Critical false None;
    /// The stamp matches although there is drift: zot will skip its walk and serve wrong data.
    StampPremature "stamp-premature" Critical false WalkAll;
    /// fastRestart is on and no stamp is stored: zot will walk.
    StampAbsent "stamp-absent" Warning false Walk;
    /// fastRestart is on and another build of zot wrote the stamp: zot will walk.
    StampIdentity "stamp-identity" Warning false Walk;
    /// fastRestart is on and the stamp was written under another storage config: zot will walk.
    StampConfig "stamp-config" Warning false Walk;
    /// `storage.fastRestart` is not on: zot never looks at the stamp.
    FastRestartOff "fast-restart-off" Info false None;
    /// Nothing in the config makes zot open a metaDB.
    MetaDbUnused "metadb-unused" Info false None;
    /// Storage has a repo with images, the metaDB has no record of it.
    RepoMissing "repo-missing" Warning true WalkRepo;
    /// The metaDB has a repo that storage no longer lists.
    RepoGone "repo-gone" Warning true Walk;
    /// The repo has drift, and zot's next walk will repair it.
    RepoDue "repo-due" Warning true WalkRepo;
    /// The repo has drift behind an index that is older than its records: zot never repairs it.
    RepoHidden "repo-hidden" Critical true ForceRepo;
    /// The repo's directory lies in a store that zot never asks for it; zot counts it as failed at every start.
    RepoUnroutable "repo-unroutable" Warning false None;
    /// The repo's name makes zot drop its records at every restart.
    RepoUnlistable "repo-unlistable" Warning false None;
    /// The repo's index cannot be read or decoded.
    IndexUnreadable "index-unreadable" Critical false None;
    /// A manifest, its config or a signature's layer is not in storage.
    BlobMissing "blob-missing" Critical false None;
    /// A blob is there and cannot be read.
    BlobUnreadable "blob-unreadable" Critical false None;
    /// A blob's content does not have its digest.
    BlobDigest "blob-digest" Critical false None;
    /// A document that zot's decoder refuses; zot fails the repo at every start.
    DocumentInvalid "document-invalid" Critical false None;
    /// A tag of the index is not recorded.
    TagMissing "tag-missing" Warning true WalkRepo;
    /// A recorded tag is not in the index.
    TagExtra "tag-extra" Warning true WalkRepo;
    /// A tag is recorded with another digest or media type.
    TagDigest "tag-digest" Warning true WalkRepo;
    /// An image of the index has no ImageMeta record.
    ImageMissing "image-missing" Warning true WalkRepo;
    /// An ImageMeta record does not say what the documents say.
    ImageDiffers "image-differs" Warning true WalkRepo;
    /// A signature in storage is not recorded.
    SignatureMissing "signature-missing" Warning true WalkRepo;
    /// A recorded signature is not in storage.
    SignatureExtra "signature-extra" Warning true WalkRepo;
    /// A recorded signature has other layers than in storage.
    SignatureDiffers "signature-differs" Warning true WalkRepo;
    /// A subject's list of referrers is not what storage says.
    ReferrerDiffers "referrer-differs" Warning true WalkRepo;
    /// An image has no download statistics record; retention then never removes it.
    StatisticsMissing "statistics-missing" Warning true WalkRepo;
    /// Size, platforms, vendors or last update of a repo, or of one of its blobs, is not what storage says.
    AggregateDiffers "aggregate-differs" Warning true WalkRepo;
    /// Many push times lie within the same seconds, long after the blobs were written: the real ones were lost.
    PushTimeCluster "push-time-cluster" Warning false None;
    /// The number of stars is not the number of users who starred the repo. zot itself loses count when a starred repo is
    /// removed and pushed anew, and nothing depends on it.
    StarsDiffer "stars-differ" Info false None;
    /// A user's record cannot be decoded.
    UserRecordUndecodable "user-record-undecodable" Critical false None;
    /// A RepoMeta or RepoBlobs record cannot be decoded; zot fails the repo at every start.
    RecordUndecodable "record-undecodable" Critical false None;
    /// A record has fields that this version does not know: a newer zot wrote it.
    RecordUnknownFields "record-unknown-fields" Warning false None;
    /// Something lies in the future: a repo's index, or the time of its records.
    ClockSkew "clock-skew" Warning false None;
    /// An ImageMeta record that no repo's index names. zot never removes these.
    OrphanImage "orphan-image" Info false Prune;
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// What [`Finding::reference`] says of ImageMeta records.
const IMAGE_META: &str = "ImageMeta";
/// What [`Finding::reference`] says of the time of a repo's records.
pub(super) const LAST_UPDATED: &str = "RepoLastUpdated";

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The repo, if it is about one.
    pub repo: Option<String>,
    /// What kind.
    pub id: Id,
    /// Tag, or what part of the record.
    pub reference: Option<String>,
    /// The digest it is about.
    pub digest: Option<String>,
    /// What there should be.
    pub expected: Option<String>,
    /// What there is.
    pub found: Option<String>,
    /// The command that puts it right, if one does.
    pub repair: Option<String>,
}

impl Finding {
    /// A finding about nothing in particular yet.
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self { id, repo: None, reference: None, digest: None, expected: None, found: None, repair: None }
    }

    /// About this repo.
    #[must_use]
    pub fn repo(mut self, repo: &str) -> Self {
        self.repo = Some(repo.to_owned());
        self
    }

    /// About this tag or part.
    #[must_use]
    pub fn reference(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
        self
    }

    /// About this digest.
    #[must_use]
    pub fn digest(mut self, digest: &str) -> Self {
        self.digest = Some(digest.to_owned()).filter(|text| !text.is_empty());
        self
    }

    /// What there should be.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// What there is.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// How grave it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.id.severity()
    }

    /// An ImageMeta record that cannot be decoded: unlike a repo's own records it is derived from storage alone.
    #[must_use]
    pub fn undecodable_image(digest: &str) -> Self {
        Self::new(Id::RecordUndecodable).reference(IMAGE_META).digest(digest).found("ImageMeta cannot be decoded")
    }

    /// Whether the metaDB does not say what storage says, and a walk that looks would put it right.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        self.id.is_drift() || self.is_undecodable_image()
    }

    /// Whether a stamp must not be written over it: drift, or what makes zot fail the repo at every walk.
    #[must_use]
    pub fn forbids_stamp(&self) -> bool {
        self.is_drift()
            || matches!(
                self.id,
                Id::VersionUnknown
                    | Id::LayoutUnknown
                    | Id::RepoUnroutable
                    | Id::IndexUnreadable
                    | Id::BlobMissing
                    | Id::BlobUnreadable
                    | Id::BlobDigest
                    | Id::DocumentInvalid
                    | Id::RecordUndecodable
            )
    }

    fn is_undecodable_image(&self) -> bool {
        self.id == Id::RecordUndecodable && self.reference.as_deref() == Some(IMAGE_META)
    }

    /// Records from the future: they hide every change until then, and a walk that looks all the same dates them anew.
    fn is_recorded_ahead(&self) -> bool {
        self.id == Id::ClockSkew && self.reference.as_deref() == Some(LAST_UPDATED)
    }

    /// Fill in the command that puts it right. `forced`: an ordinary walk would not look at this repo.
    pub fn settle_repair(&mut self, forced: bool) {
        let walk_repo = |repo: &Option<String>| {
            // Only names that storage lists come here; none of their characters means anything to a shell or a glob.
            let name = repo.as_deref().filter(|name| crate::storage::valid_repo_name(name));
            name.map(|name| format!("metactl walk --force --repo {name}"))
        };
        self.repair = match self.id.repair() {
            _ if self.is_undecodable_image() || self.is_recorded_ahead() => walk_repo(&self.repo),
            Repair::None => None,
            Repair::Walk if forced => Some("metactl walk --force".into()),
            Repair::WalkRepo if forced => walk_repo(&self.repo),
            Repair::ForceRepo => walk_repo(&self.repo),
            Repair::Walk | Repair::WalkRepo => Some("metactl walk".into()),
            Repair::WalkAll => Some("metactl walk --force".into()),
            Repair::Prune => Some("metactl walk --prune".into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_words() {
        let mut texts: Vec<&str> = Id::ALL.iter().map(|id| id.text()).collect();
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Id::ALL.len());
    }

    #[test]
    fn a_repair_never_holds_hostile_text() {
        for name in ["a; rm -rf /", "*", "a\nb", "A"] {
            let mut finding = Finding::new(Id::RepoHidden).repo(name);
            finding.settle_repair(true);
            assert_eq!(finding.repair, None, "{name:?}");
        }
    }
}
