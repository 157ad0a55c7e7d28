//! The identity of a zot binary, read from the file (spec: "Binary identity" §5.3).
//!
//! Evidence in falling weight: the recorded linker flags (builds without `-trimpath`); strings that the linker planted;
//! version and revision of the main module, which only make candidates. Evidence that disagrees is never weighed
//! silently: it makes candidates, and only the stored stamp may decide between them.

use super::buildinfo::{self, BuildInfo, Program};
use super::commit::{Commit, parse_commit};
use super::scan::{self, Hit};
use super::{Candidate, Found, Identity, IdentityError, cannot_read, confirmed_by_stamp};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::path::Path;

/// Read the identity of the binary at `path`. `stored`: identity part of the stored stamp.
///
/// # Errors
/// All of [`IdentityError`] but those of servers.
pub(super) fn identify(path: &Path, stored: Option<&str>) -> Result<Found, IdentityError> {
    let file = open(path)?;
    let info = match buildinfo::read(&file).map_err(cannot_read("binary", path))? {
        Program::Unknown => return Err(IdentityError::NotExecutable { path: path.to_owned() }),
        Program::Executable(info) => info,
    };
    let main = info.as_ref().map(|info| info.path.as_str()).unwrap_or_default();
    let command = main.rsplit('/').next().unwrap_or_default();
    let not_zot = || IdentityError::NotZot { path: path.to_owned(), detail: format!("its main package is {main:?}") };
    // The companions carry zot's commit, but no release tag, and never write a stamp.
    if matches!(command, "zli" | "zb" | "zxp") {
        return Err(not_zot());
    }
    let evidence = Evidence { path, file: &file, info: info.as_ref(), stored };
    let mut found = match evidence.weigh() {
        Err(IdentityError::NotIdentified { .. }) if !matches!(command, "" | "zot") => return Err(not_zot()),
        found => found?,
    };
    if !matches!(command, "" | "zot") {
        if found.identity.is_empty() {
            return Err(not_zot());
        }
        found.notices.push(format!("its main package is {main:?}, not zot's own"));
    }
    if info.is_none() {
        found.notices.push(format!("{} has no readable Go build information", path.display()));
    }
    Ok(found)
}

/// All there is to go by.
struct Evidence<'a> {
    path: &'a Path,
    file: &'a File,
    info: Option<&'a BuildInfo>,
    stored: Option<&'a str>,
}

impl Evidence<'_> {
    fn weigh(&self) -> Result<Found, IdentityError> {
        if let Some((tag, commit)) = self.info.and_then(BuildInfo::linked) {
            let evidence = vec!["linker flags recorded by Go".to_owned()];
            return Ok(Found { identity: Identity::new(tag, commit), evidence, ..Found::default() });
        }
        let hits = scan::commits(self.file).map_err(cannot_read("binary", self.path))?;
        if hits.is_empty() {
            return self.without_commit();
        }
        let (candidates, uncertain) =
            with_tags(self.file, &hits, self.stored).map_err(cannot_read("binary", self.path))?;
        let setting = |key| self.info.and_then(|info| info.setting(key)).filter(|value| !value.is_empty());
        let revision = setting("vcs.revision");
        // Other programs' commits may be in the file by accident; that of the revision it was built from is its own.
        let own: Vec<&Candidate> = candidates.iter().filter(|candidate| agrees(candidate, revision)).collect();
        let mut notices = Vec::new();
        let chosen = match own.as_slice() {
            [only] if uncertain.contains(&only.identity.commit) => {
                return self.ambiguous("it is not clear where the commit begins", candidates);
            }
            [only] => (*only).clone(),
            [] => return self.ambiguous("the recorded revision contradicts the commit", candidates),
            _ => return self.ambiguous("it holds more than one commit", candidates),
        };
        if candidates.len() > 1 {
            let commits = candidates.iter().map(|candidate| candidate.identity.commit.as_str());
            let others: Vec<&str> = commits.filter(|commit| *commit != chosen.identity.commit).collect();
            notices.push(format!("also holds {others:?}, which do not belong to the recorded revision"));
        }
        let module = self.info.map(|info| info.module.1.as_str()).unwrap_or_default();
        if contradicts(module, &chosen.identity) {
            let reason = format!("the recorded module version {module:?} contradicts the tag");
            return self.ambiguous(&reason, candidates);
        }
        let mut evidence = vec![chosen.evidence];
        evidence.extend(revision.map(|_| "agrees with the revision recorded by Go".to_owned()));
        Ok(Found { identity: chosen.identity, evidence, notices })
    }

    fn without_commit(&self) -> Result<Found, IdentityError> {
        let candidates = candidates_without_commit(self.file, self.info, self.stored);
        match candidates.map_err(cannot_read("binary", self.path))? {
            Guess::Nothing => Err(IdentityError::NotIdentified { path: self.path.to_owned() }),
            Guess::Certain(candidate) => {
                Ok(Found { identity: candidate.identity, evidence: vec![candidate.evidence], ..Found::default() })
            }
            Guess::Possible(candidates) => self.ambiguous("it holds no commit of a known form", candidates),
        }
    }

    fn ambiguous(&self, reason: &str, candidates: Vec<Candidate>) -> Result<Found, IdentityError> {
        confirmed_by_stamp(&candidates, self.stored).ok_or_else(|| IdentityError::Ambiguous {
            subject: self.path.display().to_string(),
            reason: reason.to_owned(),
            candidates,
        })
    }
}

/// What can be said of a binary without a commit of the usual forms.
enum Guess {
    Nothing,
    Certain(Candidate),
    Possible(Vec<Candidate>),
}

/// A regular file only: a pipe would block, a device never end.
fn open(path: &Path) -> Result<File, IdentityError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
    let file = File::from(opened.map_err(cannot_read("binary", path))?);
    if !file.metadata().map_err(cannot_read("binary", path))?.is_file() {
        return Err(IdentityError::NotExecutable { path: path.to_owned() });
    }
    Ok(file)
}

/// Candidates for planted commits, each with its tag if that is planted, too; and the commits whose beginning is unsure.
fn with_tags(file: &File, hits: &[Hit], stored: Option<&str>) -> io::Result<(Vec<Candidate>, Vec<String>)> {
    let stored = stored.map(Identity::parse).unwrap_or_default();
    let mut tags: Vec<&str> = hits.iter().flat_map(|hit| &hit.readings).map(|commit| tag(commit)).collect();
    tags.push(&stored.release_tag);
    tags.sort_unstable();
    tags.dedup();
    let planted = scan::planted(file, &tags)?;
    let planted = |tag: &str| tags.iter().zip(&planted).any(|(other, planted)| *other == tag && *planted);
    let (mut candidates, mut uncertain) = (Vec::<Candidate>::new(), Vec::new());
    let mut add = |identity: Identity, evidence: String| {
        if !candidates.iter().any(|other| other.identity == identity) {
            candidates.push(Candidate { identity, evidence });
        }
    };
    for hit in hits {
        // A reading whose tag is there as well is no accident. Shorter ones only find the end of that tag again.
        if let Some(commit) = hit.readings.iter().find(|commit| planted(tag(commit))) {
            add(Identity::new(tag(commit), commit), "commit and release tag are linked in".to_owned());
            continue;
        }
        let likely = if hit.whole { 1 } else { hit.readings.len() };
        for commit in hit.readings.iter().take(likely) {
            // A release tag that was chosen freely cannot be guessed, but it can be recognised.
            if stored.commit == *commit && planted(&stored.release_tag) {
                add(stored.clone(), "commit and the stored stamp's release tag are linked in".to_owned());
                continue;
            }
            if !hit.whole {
                uncertain.push(commit.clone());
            }
            let evidence = format!("commit is linked in, release tag {:?} is not", tag(commit));
            add(Identity::new("", commit), evidence);
        }
    }
    Ok((candidates, uncertain))
}

fn tag(commit: &str) -> &str {
    super::tag_of_commit(commit).unwrap_or_default()
}

/// Whether a candidate's hash is the beginning of the recorded revision. Without one, nothing speaks against it.
fn agrees(candidate: &Candidate, revision: Option<&str>) -> bool {
    let hash = parse_commit(&candidate.identity.commit).map(|commit| commit.hash);
    revision.is_none_or(|revision| hash.is_some_and(|hash| revision.starts_with(hash)))
}

/// Whether Go recorded a version of the main module that is another release than the identity's.
fn contradicts(module: &str, identity: &Identity) -> bool {
    let Some(release) = release_version(module) else { return false };
    !identity.release_tag.is_empty() && identity.release_tag != release
}

/// The release in a module version; `None` for `(devel)`, nothing, and pseudo-versions (which end in 12 hex digits).
fn release_version(module: &str) -> Option<&str> {
    let version = module.strip_suffix("+dirty").unwrap_or(module);
    let pseudo =
        version.rsplit_once('-').is_some_and(|(_, end)| end.len() == 12 && end.bytes().all(super::commit::is_hex));
    (version.starts_with('v') && !pseudo).then_some(version)
}

/// What version, revision and planted tags say where no commit is planted.
fn candidates_without_commit(file: &File, info: Option<&BuildInfo>, stored: Option<&str>) -> io::Result<Guess> {
    let Some(info) = info else { return Ok(Guess::Nothing) };
    let revision = info.setting("vcs.revision").unwrap_or_default();
    let mut candidates: Vec<Candidate> = Vec::new();
    for commit in scan::bare_commits(file, revision)? {
        let evidence = "a hash that begins the recorded revision is linked in".to_owned();
        candidates.push(Candidate { identity: Identity::new("", commit), evidence });
    }
    let release = release_version(&info.module.1).unwrap_or_default();
    let stored_tag = stored.map(Identity::parse).unwrap_or_default().release_tag;
    let tags = [release, &stored_tag];
    let planted = scan::planted(file, &tags)?;
    if let ([only], [false, false]) = (candidates.as_slice(), planted.as_slice()) {
        return Ok(Guess::Certain(only.clone()));
    }
    for (tag, _) in tags.into_iter().zip(planted).filter(|(_, planted)| *planted) {
        let bare: Vec<String> = candidates.iter().map(|candidate| candidate.identity.commit.clone()).collect();
        for commit in bare.into_iter().chain([String::new()]) {
            let identity = Identity::new(tag, commit);
            if !candidates.iter().any(|other| other.identity == identity) {
                candidates.push(Candidate {
                    identity,
                    evidence: "release tag is linked in, no commit that goes with it".into(),
                });
            }
        }
    }
    // Go records the linker flags of a build that has any, unless paths are trimmed.
    if candidates.is_empty() && info.setting("-trimpath") != Some("true") && info.setting("-compiler").is_some() {
        let evidence = "built without linker flags".to_owned();
        return Ok(Guess::Certain(Candidate { identity: Identity::default(), evidence }));
    }
    let dirty = if info.setting("vcs.modified") == Some("true") { "-dirty" } else { "" };
    if let (false, Some(Commit { tag: None, dirty: false, .. })) = (release.is_empty(), parse_commit(revision)) {
        let short = |length| revision.get(..length).unwrap_or(revision);
        for (commit, kind) in [
            (format!("{release}-{revision}{dirty}"), "an official image"),
            (format!("{release}-0-g{}{dirty}", short(7)), "a release asset"),
            (format!("{release}-0-g{}{dirty}", short(8)), "a build from a full clone"),
        ] {
            let evidence = format!("what {kind} of the recorded version and revision would have");
            candidates.push(Candidate { identity: Identity::new(release, commit), evidence });
        }
    }
    Ok(if candidates.is_empty() { Guess::Nothing } else { Guess::Possible(candidates) })
}
