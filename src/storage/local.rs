//! Image store in a local directory (spec: "Storage" §1.4 local, §1.5, §1.6, §1.8).
//!
//! Listing follows zot's walk: pre-order, children in byte order, symbolic links followed. It never enters `blobs`, so
//! its cost grows with the number of directories, not of blobs. Where metactl is safely better than zot:
//!
//! * nothing beneath a directory whose name no repository can have is looked at;
//! * a directory that vanishes during the walk costs its own subtree, not all that follows;
//! * "not found" is only ENOENT and ENOTDIR; a blob that cannot be looked at is an error, where zot takes it for missing.

use super::cache::{BlobCache, resolve};
use super::rules::{MAX_DOCUMENT, is_empty_digest, parse_digest, skipped_directory, valid_component, valid_repo_name};
use super::{Blob, ImageStore, IndexStat, StorageError};
use crate::cancel::Cancel;
use crate::parallel::processors;
use jiff::Timestamp;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Directories behind symbolic links that one listing visits at most.
///
/// The kernel ends a cycle at 40 links, but links that fan out without a cycle (each of 30 directories holding two links
/// to the next) have a billion paths. zot would walk them all; metactl says so and stops.
const MAX_LINKED_DIRECTORIES: usize = 1_000_000;

/// Blobs that are read before the first of them is decoded: so few that they are still in the processor's cache then.
const TOGETHER: usize = 32;

/// A store whose root is a local directory, which need not exist.
#[derive(Clone)]
pub struct LocalStore {
    root: PathBuf,
    cache: Option<Arc<dyn BlobCache>>,
    residency: Arc<Residency>,
}

/// How many of the files that were asked about are in memory.
#[derive(Default)]
struct Residency {
    asked: AtomicUsize,
    missing: AtomicUsize,
}

impl Residency {
    /// Files that are read and decoded while a disk gives one.
    const WAIT: usize = 20;
    /// Files in memory to begin with, so that the first few decide nothing.
    const BEFORE: usize = 32;

    fn note(&self, in_memory: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.missing.fetch_add(usize::from(!in_memory), Ordering::Relaxed);
    }

    /// How many readers keep so many processors busy.
    fn readers(&self, processors: usize) -> usize {
        let (asked, missing) = (self.asked.load(Ordering::Relaxed), self.missing.load(Ordering::Relaxed));
        processors + processors * Self::WAIT * missing / (asked + Self::BEFORE)
    }
}

/// What one directory holds, as far as a walk cares.
struct Directory {
    /// Subdirectories (links resolved) that could hold repositories, in byte order, with "reached over a link".
    children: Vec<(OsString, bool)>,
    /// Passes zot's layout check, apart from the name.
    is_repo: bool,
}

/// What a listing looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Repositories as zot's walk finds them.
    Listed,
    /// Repositories that zot's walk skips although they could have been pushed.
    Skipped,
}

impl LocalStore {
    /// A store at `root`. Nothing is opened or created.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cache: None, residency: Arc::default() }
    }

    /// With the blob cache that zot asks where the content of a zero-length blob is.
    ///
    /// zot deduplicates local blobs by hard links and leaves no placeholders, but files that came from an object store, or
    /// lost their content, look like them.
    #[must_use]
    pub fn with_cache(self, cache: Option<Arc<dyn BlobCache>>) -> Self {
        Self { cache, ..self }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn walk(&self, want: Want, linked_bound: usize, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        let mut found = Vec::new();
        let Some(top) = self.read_root()? else { return Ok(found) };
        let mut linked_directories = 0_usize;
        // An explicit stack: the depth of a tree on disk must not decide over the depth of ours.
        let mut stack = vec![(Node::default(), top.children.into_iter())];
        while let Some((parent, children)) = stack.last_mut() {
            let Some((base, over_link)) = children.next() else {
                stack.pop();
                continue;
            };
            let Some(node) = parent.child(&base, over_link) else { continue };
            if node.skipped && want == Want::Listed {
                continue;
            }
            if cancel.is_cancelled() {
                return Err(StorageError::Cancelled);
            }
            let path = self.root.join(&node.name);
            if node.linked {
                linked_directories += 1;
                if linked_directories > linked_bound {
                    return Err(StorageError::UnsupportedLayout {
                        root: self.location(),
                        detail: format!("more than {linked_bound} directories behind symbolic links"),
                    });
                }
            }
            let Some(directory) = read_directory(&path, base == "blobs")? else { continue };
            if directory.is_repo && node.skipped == (want == Want::Skipped) {
                found.push(node.name.clone());
            }
            stack.push((node, directory.children.into_iter()));
        }
        Ok(found)
    }

    /// The root's content; `None` if there is no root.
    fn read_root(&self) -> Result<Option<Directory>, StorageError> {
        let marker = self.root.join("_blobstore");
        // Whatever else is wrong with the root (missing, a file, unreadable) shows when it is listed.
        if rustix::fs::lstat(&marker).is_ok() {
            return Err(StorageError::UnsupportedLayout {
                root: self.location(),
                detail: "found _blobstore: blobs are kept in a layout that this version does not know".into(),
            });
        }
        let content = read_directory(&self.root, false)?;
        // A link to nowhere is a disk that is not mounted, not an empty store.
        if content.is_none() && rustix::fs::lstat(&self.root).is_ok() {
            return Err(io_error("list", &self.root, Errno::NOENT.into()));
        }
        Ok(content)
    }

    fn index_path(&self, repo: &str) -> Result<PathBuf, StorageError> {
        Ok(self.repo_path(repo)?.join("index.json"))
    }

    /// Names from a metaDB end up here too: nothing that could leave the root becomes a path.
    fn repo_path(&self, repo: &str) -> Result<PathBuf, StorageError> {
        if valid_repo_name(repo) {
            return Ok(self.root.join(repo));
        }
        Err(invalid_repo(repo))
    }

    /// A blob of a repo; `None` for a placeholder.
    fn read_blob(blobs: &Blobs, digest: &str, probe: Option<&Residency>) -> Result<Option<Blob>, StorageError> {
        let (algorithm, hex) =
            parse_digest(digest).ok_or_else(|| StorageError::InvalidDigest { digest: digest.to_owned() })?;
        let found = match &blobs.directory {
            Ok(directory) => read_file(directory, Path::new(&format!("{algorithm}/{hex}")), probe),
            Err(errno) => Err((*errno).into()),
        };
        let (content, stat) = found.map_err(|error| io_error("read", &blobs.path_of(digest), error))?;
        let empty = is_file(&stat) && stat.st_size == 0 && is_empty_digest(digest);
        Ok(if empty { Some(Blob { content, mtime: Some(mtime(&stat)) }) } else { with_content(content, &stat) })
    }

    /// The first of several files that has content.
    fn read_first(&self, candidates: &[String]) -> Result<Option<Blob>, StorageError> {
        for path in candidates.iter().map(|path| self.root.join(path)) {
            match read_file(CWD, &path, None).map_err(|error| io_error("read", &path, error)) {
                Err(StorageError::NotFound { .. }) => {}
                found => {
                    let (content, stat) = found?;
                    if let Some(blob) = with_content(content, &stat) {
                        return Ok(Some(blob));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// What zot takes for a blob; directories and pipes have no size for it, like placeholders.
fn with_content(content: Vec<u8>, stat: &Stat) -> Option<Blob> {
    (is_file(stat) && stat.st_size != 0).then(|| Blob { content, mtime: Some(mtime(stat)) })
}

/// The `blobs` directory of a repo, opened once for a batch.
struct Blobs {
    path: PathBuf,
    directory: Result<OwnedFd, Errno>,
}

impl Blobs {
    fn path_of(&self, digest: &str) -> PathBuf {
        self.path.join(digest.replacen(':', "/", 1))
    }
}

/// A directory on the way of the walk.
#[derive(Default)]
struct Node {
    /// Path relative to the root: the repository name.
    name: String,
    /// Reached over a symbolic link, here or further up.
    linked: bool,
    /// Its own name or one further up makes zot skip it.
    skipped: bool,
}

impl Node {
    /// The child `base`, unless no repository can be called so.
    fn child(&self, base: &OsStr, over_link: bool) -> Option<Self> {
        let text = base.to_str().filter(|text| valid_component(text.as_bytes()))?;
        let name = if self.name.is_empty() { text.to_owned() } else { format!("{}/{text}", self.name) };
        let skipped = self.skipped || skipped_directory(base.as_bytes());
        Some(Self { name, linked: self.linked || over_link, skipped })
    }
}

impl ImageStore for LocalStore {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn useful(&self, threads: usize) -> usize {
        threads.min(self.residency.readers(processors()))
    }

    fn together(&self, _repo: &str) -> usize {
        TOGETHER
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.walk(Want::Listed, MAX_LINKED_DIRECTORIES, cancel)
    }

    fn list_unlistable(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.walk(Want::Skipped, MAX_LINKED_DIRECTORIES, cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        let path = self.index_path(repo)?;
        let stat = rustix::fs::stat(&path).map_err(|errno| io_error("stat", &path, errno.into()))?;
        Ok(index_stat(&stat))
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        let path = self.index_path(repo)?;
        let (content, stat) =
            read_file(CWD, &path, Some(&self.residency)).map_err(|error| io_error("read", &path, error))?;
        if !is_file(&stat) {
            return Err(io_error("read", &path, io::Error::new(io::ErrorKind::InvalidData, "not a regular file")));
        }
        Ok(content)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let Ok(path) = self.repo_path(repo).map(|path| path.join("blobs")) else {
            return digests.iter().map(|_| Err(invalid_repo(repo))).collect();
        };
        let blobs = Blobs { directory: open_directory(&path), path };
        // One in so many is enough.
        let mut probe = Some(&*self.residency);
        let found = digests.iter().map(|digest| Self::read_blob(&blobs, digest, probe.take())).collect();
        let place = |digest: &str| blobs.path_of(digest).display().to_string();
        resolve(self.cache.as_deref(), digests, found, place, |candidates| {
            candidates.iter().map(|paths| self.read_first(paths)).collect()
        })
    }
}

/// List `path`; `None` if it does not exist (any more).
///
/// `holds_blobs`: the directory may be the `blobs` of a repo, whose algorithm directories hold files by the thousand.
fn read_directory(path: &Path, holds_blobs: bool) -> Result<Option<Directory>, StorageError> {
    let listing = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        listing => listing.map_err(|error| io_error("list", path, error))?,
    };
    let (mut entries, mut has_index, mut has_layout, mut has_blobs) = (0_usize, false, false, false);
    let mut children = Vec::new();
    for entry in listing {
        let entry = match entry {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entry => entry.map_err(|error| io_error("list", path, error))?,
        };
        entries += 1;
        let base = entry.file_name();
        has_index |= base == "index.json";
        has_layout |= base.as_bytes().ends_with(b"oci-layout");
        let is_blobs = base == "blobs";
        if !is_blobs && !base.to_str().is_some_and(|text| valid_component(text.as_bytes())) {
            continue;
        }
        // The type comes with the listing on any usual file system; only links (and old file systems) cost a call.
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind.map_err(|error| io_error("stat", &entry.path(), error))?,
        };
        let is_directory = if kind.is_symlink() {
            match std::fs::metadata(entry.path()) {
                Ok(target) => target.is_dir(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(io_error("stat", &entry.path(), error)),
            }
        } else {
            kind.is_dir()
        };
        if !is_directory {
            continue;
        }
        has_blobs |= is_blobs;
        if !(holds_blobs && matches!(base.as_bytes(), b"sha256" | b"sha384" | b"sha512")) {
            children.push((base, kind.is_symlink()));
        }
    }
    children.sort();
    Ok(Some(Directory { children, is_repo: entries >= 2 && has_index && has_layout && has_blobs }))
}

/// Flags for every file that is opened: a pipe in place of a blob must not block, a terminal must not take us over.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Open a directory to resolve names in; it need not be readable for that.
fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    let access = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlags::RDONLY;
    rustix::fs::open(path, access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Read a whole file in four calls (open, stat, read, close). What is not a regular file comes back empty. `probe` is told
/// whether it is in memory.
fn read_file(directory: impl AsFd, path: &Path, probe: Option<&Residency>) -> io::Result<(Vec<u8>, Stat)> {
    let file = retry(|| rustix::fs::openat(&directory, path, READ, Mode::empty()))?;
    let stat = rustix::fs::fstat(&file)?;
    if !is_file(&stat) {
        return Ok((Vec::new(), stat));
    }
    if let Some(residency) = probe {
        residency.note(in_memory(&file));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let too_large = || {
        let detail = format!("larger than {} MiB, which no manifest, config or index is", MAX_DOCUMENT >> 20);
        io::Error::new(io::ErrorKind::FileTooLarge, detail)
    };
    if size > MAX_DOCUMENT {
        return Err(too_large());
    }
    let size = usize::try_from(size).map_err(|_| too_large())?;
    // One byte more than the size: a read that leaves it free has seen the end of the file.
    let mut content = Vec::with_capacity(size.saturating_add(1));
    loop {
        let count = retry(|| rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)))?;
        // Shrunk meanwhile (end before `size`) or grown (no free byte): what counts is where the file ends now.
        if count == 0 || (content.len() == size && content.capacity() > size) {
            return Ok((content, stat));
        }
        if content.len() as u64 > MAX_DOCUMENT {
            return Err(too_large());
        }
        if content.len() == content.capacity() {
            content.reserve(content.len().max(4096));
        }
    }
}

/// Whether the file's first byte can be read without waiting. `false` where nobody can tell, as over a network.
#[cfg(target_os = "linux")]
fn in_memory(file: &OwnedFd) -> bool {
    let mut byte = [0];
    rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], 0, rustix::io::ReadWriteFlags::NOWAIT).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_file: &OwnedFd) -> bool {
    false
}

/// Repeat a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn index_stat(stat: &Stat) -> IndexStat {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    // zot rewrites an index in place or renames a new one over it; the change time and the inode tell either,
    // even where somebody set the modification time back.
    let tag = format!("{}-{}.{:09}", stat.st_ino, stat.st_ctime, stat.st_ctime_nsec);
    IndexStat { size, mtime: mtime(stat), tag: Some(tag) }
}

/// Modification time; years beyond ±9999, which some file systems can hold, count as the nearest that fits.
#[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "widths differ by platform")]
fn mtime(stat: &Stat) -> Timestamp {
    let seconds: i64 = stat.st_mtime;
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let limit = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::new(seconds, nanoseconds).unwrap_or(limit)
}

fn invalid_repo(repo: &str) -> StorageError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, "not a valid repository name");
    StorageError::Io { action: "open", what: format!("repo {repo:?}"), source }
}

/// ENOENT and ENOTDIR mean "is not there"; everything else means "could not look".
fn io_error(action: &'static str, path: &Path, source: io::Error) -> StorageError {
    let what = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    match (action, source.kind()) {
        ("stat" | "read", io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => StorageError::NotFound { what },
        _ => StorageError::Io { action, what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_that_fan_out_end_at_the_bound() {
        let root = tempfile::tempdir().unwrap();
        for level in 0..30 {
            let directory = root.path().join(format!("d{level}"));
            fs::create_dir(&directory).unwrap();
            for link in ["x", "y"] {
                std::os::unix::fs::symlink(format!("../d{}", level + 1), directory.join(link)).unwrap();
            }
        }
        fs::create_dir(root.path().join("d30")).unwrap();
        let store = LocalStore::new(root.path());
        let error = store.walk(Want::Listed, 1000, &Cancel::default()).unwrap_err();
        assert!(matches!(error, StorageError::UnsupportedLayout { .. }), "{error}");
        assert!(error.to_string().contains("more than 1000 directories behind symbolic links"), "{error}");
    }

    #[test]
    fn readers_follow_the_share_of_files_that_are_not_in_memory() {
        let readers = |asked: usize, missing: usize| {
            let residency = Residency::default();
            (0..asked).for_each(|at| residency.note(at >= missing));
            residency.readers(4)
        };
        assert_eq!([readers(0, 0), readers(1000, 0), readers(1000, 10), readers(1, 1)], [4, 4, 4, 6]);
        assert_eq!([readers(1000, 30), readers(32, 32), readers(1000, 1000)], [6, 44, 81]);
    }

    #[test]
    fn a_directory_that_vanished_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        assert!(read_directory(&root.path().join("gone"), false).unwrap().is_none());
    }

    #[test]
    fn times_that_no_calendar_holds_are_the_nearest_that_fits() {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_mtime = i64::MAX;
        assert_eq!(mtime(&stat), Timestamp::MAX);
        stat.st_mtime = i64::MIN;
        assert_eq!(mtime(&stat), Timestamp::MIN);
    }
}
