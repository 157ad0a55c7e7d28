//! Who the zot binary is: release tag and commit, the first half of the stamp (spec: "Binary identity").
//!
//! [`resolve`] tries what it is given in this order: explicit tag and commit, a binary (read, never run), a server, a
//! `zot` on `PATH` (read), the stored stamp's own identity. A wrong identity only makes a stamp that zot ignores, but a
//! guess would cost its owner the skipped walk without a word. So nothing is guessed: where the evidence allows more
//! than one answer, [`IdentityError::Ambiguous`] carries them all.

pub mod binary;
pub mod buildinfo;
pub mod commit;
mod scan;
pub mod server;

pub use commit::{Release, release_of, tag_of_commit};
pub use server::{ServerRequest, answers};

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The two strings that are linked into a zot binary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `ReleaseTag`, for example `v2.1.20`; may be empty.
    pub release_tag: String,
    /// `Commit`, for example `v2.1.20-0-g3b5796d`; may be empty.
    pub commit: String,
}

impl Identity {
    /// From the two strings.
    #[must_use]
    pub fn new(release_tag: impl Into<String>, commit: impl Into<String>) -> Self {
        Self { release_tag: release_tag.into(), commit: commit.into() }
    }

    /// Text as it stands in the stamp: `tag+commit`, `tag`, `dev-commit`, or nothing.
    #[must_use]
    pub fn text(&self) -> String {
        match (self.release_tag.as_str(), self.commit.as_str()) {
            ("", "") => String::new(),
            ("", commit) => format!("dev-{commit}"),
            (tag, "") => tag.to_owned(),
            (tag, commit) => format!("{tag}+{commit}"),
        }
    }

    /// Whether zot would compute no stamp at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.release_tag.is_empty() && self.commit.is_empty()
    }

    /// Take a stamp's text apart. Both parts may contain `+`: a split where the tag is the commit's own comes first, else the
    /// last `+` counts. [`Identity::text`] of the result is `text` again.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let splits = || text.match_indices('+').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let agrees = |&(tag, commit): &(&str, &str)| !tag.is_empty() && tag_of_commit(commit) == Some(tag);
        // Long rubbish must not be tried at every plus sign.
        let tries = if text.len() <= 4096 { 64 } else { 0 };
        if let Some((tag, commit)) = splits().take(tries).find(agrees) {
            return Self::new(tag, commit);
        }
        if let Some(commit) = text.strip_prefix("dev-").filter(|commit| !commit.is_empty()) {
            return Self::new("", commit);
        }
        match text.rsplit_once('+') {
            Some((tag, commit)) if !tag.is_empty() && !commit.is_empty() => Self::new(tag, commit),
            _ => Self::new(text, ""),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text())
    }
}

/// What is known about the binary. Plain data; every field may be missing.
#[derive(Debug, Clone, Default)]
pub struct IdentityRequest {
    /// `--release-tag`; empty on purpose says that the binary has none.
    pub release_tag: Option<String>,
    /// `--commit`; likewise.
    pub commit: Option<String>,
    /// `--zot-binary`.
    pub zot_binary: Option<PathBuf>,
    /// `--zot-url` with what belongs to it.
    pub server: Option<ServerRequest>,
    /// Value of `PATH` to look for a `zot` in; `None` does not look.
    pub search_path: Option<OsString>,
    /// Identity part of the stored stamp ([`crate::stamp::StoredStamp::identity_text`]). It decides between candidates, and
    /// is the last resort.
    pub stored_identity: Option<String>,
}

/// Where an identity comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// Given by the user.
    Explicit,
    /// Read from the binary the user named.
    Binary(PathBuf),
    /// Told by a server.
    Server(String),
    /// Read from the first `zot` on `PATH`.
    PathBinary(PathBuf),
    /// Taken from the stamp in the metaDB: the binary that wrote it, which need not be the one that starts next.
    StoredStamp,
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit => formatter.write_str("given"),
            Self::Binary(path) => write!(formatter, "binary {}", path.display()),
            Self::Server(url) => write!(formatter, "server {url}"),
            Self::PathBinary(path) => write!(formatter, "binary {} on PATH", path.display()),
            Self::StoredStamp => formatter.write_str("stored stamp"),
        }
    }
}

/// An identity with its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedIdentity {
    /// The answer.
    pub identity: Identity,
    /// Where it comes from.
    pub source: IdentitySource,
    /// What it rests on, one sentence fragment each.
    pub evidence: Vec<String>,
    /// What the user should know before relying on it.
    pub notices: Vec<String>,
}

/// A possible identity and why it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The identity.
    pub identity: Identity,
    /// What speaks for it.
    pub evidence: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {what} {}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The file is not an executable.
    #[error("{} is not an executable that metactl can read (ELF, Mach-O or PE)", path.display())]
    NotExecutable {
        /// Its path.
        path: PathBuf,
    },
    /// An executable, but no zot server.
    #[error("{} is not a zot server: {detail}", path.display())]
    NotZot {
        /// Its path.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// The evidence allows several answers or contradicts itself.
    #[error("identity of {subject} is uncertain: {reason}{}", list(candidates))]
    Ambiguous {
        /// What was asked.
        subject: String,
        /// Why it is uncertain.
        reason: String,
        /// Every possible answer.
        candidates: Vec<Candidate>,
    },
    /// Nothing in a binary speaks for any identity.
    #[error("no identity found in {}", path.display())]
    NotIdentified {
        /// Its path.
        path: PathBuf,
    },
    /// One of tag and commit is given and the other one is not known from anywhere.
    #[error(
        "{given} alone does not make an identity: {missing} is unknown (an empty one says that the binary has none)"
    )]
    Incomplete {
        /// Option that was given.
        given: &'static str,
        /// Option to add.
        missing: &'static str,
    },
    /// A server cannot be asked, or does not tell.
    #[error("{url}: {detail}")]
    Server {
        /// What was requested.
        url: String,
        /// What happened.
        detail: String,
        /// Cause, if there is a deeper one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

fn list(candidates: &[Candidate]) -> String {
    let each = candidates.iter().map(|candidate| format!("; {:?}: {}", candidate.identity.text(), candidate.evidence));
    each.collect()
}

/// What a binary or a server said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    identity: Identity,
    evidence: Vec<String>,
    notices: Vec<String>,
}

/// Find the identity by the order of the module's header. `None` if nothing was given to go by.
///
/// # Errors
/// What was named explicitly must lead to an answer; it is never skipped for a weaker source. A file called `zot` on `PATH`
/// that is no zot server is passed over with a notice.
pub fn resolve(request: &IdentityRequest) -> Result<Option<ResolvedIdentity>, IdentityError> {
    if let (Some(tag), Some(commit)) = (&request.release_tag, &request.commit) {
        let found = Found { identity: Identity::new(tag, commit), ..Found::default() };
        return Ok(Some(resolved(found, IdentitySource::Explicit)));
    }
    let mut passed_over = Vec::new();
    let asked = ask(request, &mut passed_over);
    let answer = match (&request.release_tag, &request.commit) {
        (None, None) => asked?,
        (tag, commit) => Some(complete(asked, tag.as_deref(), commit.as_deref())?),
    };
    let mut answer = match (answer, request.stored_identity.as_deref()) {
        (Some((found, source)), _) => resolved(found, source),
        (None, Some(stored)) if !stored.is_empty() => {
            let notice = "identity taken from the stored stamp: it is that of the zot that wrote the stamp, \
                          which need not be the one that starts next";
            let found = Found { identity: Identity::parse(stored), notices: vec![notice.into()], ..Found::default() };
            resolved(found, IdentitySource::StoredStamp)
        }
        _ => return Ok(None),
    };
    answer.notices.splice(0..0, passed_over);
    Ok(Some(answer))
}

fn resolved(found: Found, source: IdentitySource) -> ResolvedIdentity {
    let Found { identity, evidence, mut notices } = found;
    if identity.is_empty() {
        notices.push("the binary has neither release tag nor commit: such a zot never skips its walk".into());
    }
    ResolvedIdentity { identity, source, evidence, notices }
}

type Answer = Option<(Found, IdentitySource)>;

/// Ask binary, server or `PATH`, whichever comes first.
fn ask(request: &IdentityRequest, passed_over: &mut Vec<String>) -> Result<Answer, IdentityError> {
    let stored = request.stored_identity.as_deref();
    if let Some(path) = &request.zot_binary {
        return Ok(Some((binary::identify(path, stored)?, IdentitySource::Binary(path.clone()))));
    }
    if let Some(server) = &request.server {
        return Ok(Some((server::ask(server, stored)?, IdentitySource::Server(server.url.clone()))));
    }
    let Some(path) = request.search_path.as_ref().and_then(find_on_path) else { return Ok(None) };
    match binary::identify(&path, stored) {
        Ok(found) => Ok(Some((found, IdentitySource::PathBinary(path)))),
        Err(error @ IdentityError::Ambiguous { .. }) => Err(error),
        // Nobody asked for this file in particular: it may be a wrapper script, or another program of that name.
        Err(error) => {
            passed_over.push(format!("passed over a zot on PATH: {error}"));
            Ok(None)
        }
    }
}

/// First regular file called `zot` in the directories of `path`; which of them may be executed is not asked.
fn find_on_path(path: &OsString) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("zot"))
        .find(|file| file.is_file())
}

/// One of tag and commit is given: the other one comes from what was asked, or from the commit's own text.
fn complete(
    asked: Result<Answer, IdentityError>,
    tag: Option<&str>,
    commit: Option<&str>,
) -> Result<(Found, IdentitySource), IdentityError> {
    let with =
        |identity: &Identity| Identity::new(tag.unwrap_or(&identity.release_tag), commit.unwrap_or(&identity.commit));
    match asked {
        Ok(Some((found, source))) => Ok((Found { identity: with(&found.identity), ..found }, source)),
        Ok(None) => match (tag, commit) {
            (None, Some(commit)) => {
                let known = if commit.is_empty() { None } else { tag_of_commit(commit) };
                let tag = known.ok_or(IdentityError::Incomplete { given: "--commit", missing: "--release-tag" })?;
                let notice = format!("release tag {tag:?} derived from the commit");
                let found = Found { identity: Identity::new(tag, commit), notices: vec![notice], ..Found::default() };
                Ok((found, IdentitySource::Explicit))
            }
            _ => Err(IdentityError::Incomplete { given: "--release-tag", missing: "--commit" }),
        },
        Err(IdentityError::Ambiguous { subject, reason, candidates }) => {
            let mut left: Vec<Candidate> = Vec::new();
            for candidate in candidates {
                let identity = with(&candidate.identity);
                if !left.iter().any(|other| other.identity == identity) {
                    left.push(Candidate { identity, ..candidate });
                }
            }
            match <[Candidate; 1]>::try_from(left) {
                Ok([only]) => {
                    let found = Found { identity: only.identity, evidence: vec![only.evidence], ..Found::default() };
                    Ok((found, IdentitySource::Explicit))
                }
                Err(candidates) => Err(IdentityError::Ambiguous { subject, reason, candidates }),
            }
        }
        Err(error) => Err(error),
    }
}

/// The candidate that the stored stamp names, if any: nothing else but such a binary writes it.
pub(crate) fn confirmed_by_stamp(candidates: &[Candidate], stored: Option<&str>) -> Option<Found> {
    let stored = stored.filter(|stored| !stored.is_empty())?;
    let candidate = candidates.iter().find(|candidate| candidate.identity.text() == stored)?;
    Some(Found {
        identity: candidate.identity.clone(),
        evidence: vec![candidate.evidence.clone(), "equals the identity in the stored stamp".into()],
        notices: vec!["the stored stamp decided between several possible identities".into()],
    })
}

pub(crate) fn cannot_read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { what, path, source }
}
