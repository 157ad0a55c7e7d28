//! Whether hard links work below the root directory (spec §2.4.3).
//!
//! zot probes at every start and turns dedupe off, fingerprint included, when the probe fails. metactl either assumes
//! from what can be read without writing ([`assume`]) or tries with files of its own ([`probe`]).

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// File that zot's probe leaves behind when it dies half-way; its presence makes every later probe fail.
const LEFT_OVER: &str = "duphardlinkcheck.txt";

/// What zot's hard-link probe of the global root directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DedupeProbe {
    /// Links work: the file's `dedupe` stands.
    Works,
    /// Links do not work: zot sets `dedupe` to false.
    Broken(
        /// Why, for people.
        String,
    ),
    /// Could not be tried, and nothing speaks against links: taken as working.
    Untried(
        /// Why, for people.
        String,
    ),
}

/// Judge without writing: links are taken as working unless a left-over file or the file system says otherwise.
/// A root that does not exist yet is judged by its nearest existing ancestor, where zot would create it.
#[must_use]
pub fn assume(root: &Path) -> DedupeProbe {
    if let Some(broken) = left_over(root) {
        return broken;
    }
    let existing = root.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some((ancestor, found)) = existing.filter_map(|path| Some((path, rustix::fs::statfs(path).ok()?))).next()
    else {
        return DedupeProbe::Works;
    };
    // Magic numbers of linux/magic.h and the file systems' own sources; the field's width differs between targets.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let name = match found.f_type as u32 {
        0x4d44 => "FAT",
        0x2011_bab0 => "exFAT",
        0x786f_4256 => "VirtualBox shared folder",
        _ => return DedupeProbe::Works,
    };
    DedupeProbe::Broken(format!("{} is on a {name} file system, which has no hard links", ancestor.display()))
}

fn left_over(root: &Path) -> Option<DedupeProbe> {
    let path = root.join(LEFT_OVER);
    path.symlink_metadata().ok().map(|_| {
        DedupeProbe::Broken(format!("{} is left over from an earlier start and fails zot's probe", path.display()))
    })
}

/// Try it as zot does: create a file, a hard link to it, and remove both. Only the file names are our own, and they are
/// removed on failure too. zot would also create a missing root; that is left to zot, so such a root is judged by
/// [`assume`].
#[must_use]
pub fn probe(root: &Path) -> DedupeProbe {
    if !root.is_dir() {
        return assume(root);
    }
    if let Some(broken) = left_over(root) {
        return broken;
    }
    verdict(root, try_link(root))
}

/// Missing rights are metactl's, not zot's, which may run as another user or in another mount.
fn verdict(root: &Path, tried: io::Result<()>) -> DedupeProbe {
    let rights = [rustix::io::Errno::ACCESS, rustix::io::Errno::ROFS].map(rustix::io::Errno::raw_os_error);
    match tried {
        Ok(()) => DedupeProbe::Works,
        Err(error) if error.raw_os_error().is_some_and(|code| rights.contains(&code)) => match assume(root) {
            DedupeProbe::Works => DedupeProbe::Untried(format!(
                "hard links could not be tried in {} ({error}); taking them as working",
                root.display()
            )),
            told => told,
        },
        Err(error) => DedupeProbe::Broken(format!("hard links do not work in {}: {error}", root.display())),
    }
}

/// Removes its file when dropped.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; `try_link` reports those that matter.
        let _ = fs::remove_file(&self.0);
    }
}

fn try_link(root: &Path) -> io::Result<()> {
    let unique = format!(
        ".metactl-hardlink-{}-{}",
        std::process::id(),
        std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.subsec_nanos())
    );
    let original = root.join(format!("{unique}.a"));
    let link = root.join(format!("{unique}.b"));
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&original)?;
    let original = Remove(original);
    fs::hard_link(&original.0, &link)?;
    let link = Remove(link);
    fs::remove_file(&link.0)?;
    fs::remove_file(&original.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        assert_eq!(assume(&root), DedupeProbe::Works);
        assert_eq!(probe(&root), DedupeProbe::Works);
        assert!(!root.exists(), "a missing root is zot's to make");
        fs::create_dir_all(&root).unwrap();
        assert_eq!(probe(&root), DedupeProbe::Works);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn a_left_over_file_breaks_both() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LEFT_OVER), "").unwrap();
        assert!(matches!(assume(dir.path()), DedupeProbe::Broken(_)));
        assert!(matches!(probe(dir.path()), DedupeProbe::Broken(_)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_rights_are_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let judged = |code: rustix::io::Errno| verdict(dir.path(), Err(code.into()));
        for code in [rustix::io::Errno::ACCESS, rustix::io::Errno::ROFS] {
            assert!(matches!(judged(code), DedupeProbe::Untried(_)), "{code}");
        }
        // A file system without links says EPERM.
        for code in [rustix::io::Errno::PERM, rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::MLINK] {
            assert!(matches!(judged(code), DedupeProbe::Broken(_)), "{code}");
        }
        fs::write(dir.path().join(LEFT_OVER), "").unwrap();
        assert!(matches!(judged(rustix::io::Errno::ACCESS), DedupeProbe::Broken(_)));
    }

    #[test]
    fn odd_roots_do_not_hang() {
        for root in ["", "/", "relative/does/not/exist", ".", "\0", "/proc/self/nothing"] {
            let _ = assume(Path::new(root));
        }
    }
}
