//! The file layer: positioned reads and writes behind a trait, so that tests can cut the power.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::BoltError;

/// What the reader and the writer need of a file. Implemented for [`File`]; tests wrap it to inject crashes,
/// full disks and short writes. No operation moves a shared position, so `&self` is enough for all of them.
pub trait FileLayer: Send + Sync {
    /// Read up to `buf.len()` bytes at `offset`; 0 means end of file.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Take notice of what will be read soon, in pieces.
    fn expect(&self, range: Range<u64>) {
        let _ = range;
    }
    /// Write up to `buf.len()` bytes at `offset` and say how many were taken.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no content.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Grow the file to `len` bytes, the new part reading as zeros.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Return once everything written is on stable storage; `metadata` asks for the file's length and times too.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync(&self, metadata: bool) -> io::Result<()>;
}

impl FileLayer for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self, metadata: bool) -> io::Result<()> {
        if metadata { self.sync_all() } else { self.sync_data() }
    }
}

/// Fill `buf` from `offset`, stopping early only at the end of the file; returns the bytes read.
pub(super) fn read_full(layer: &dyn FileLayer, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0_usize;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match layer.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Write all of `buf` at `offset`.
pub(super) fn write_full(layer: &dyn FileLayer, buf: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0_usize;
    while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
        match layer.write_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done = done.saturating_add(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What tells one file from another, whatever its name: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    pub(super) fn of_file(file: &File, path: &Path) -> Result<Self, BoltError> {
        file.metadata().map(|metadata| Self::of(&metadata)).map_err(|error| BoltError::io("stat", path, error))
    }

    /// Whether `path` still names the file with this identity.
    pub(super) fn is_still_at(self, path: &Path) -> Result<bool, BoltError> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Self::of(&metadata) == self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BoltError::io("stat", path, error)),
        }
    }
}

/// Refuse whatever is not a regular file before it is opened: opening a FIFO would hang.
pub(super) fn require_regular(path: &Path) -> Result<(), BoltError> {
    let metadata = std::fs::metadata(path).map_err(|error| open_error(path, error))?;
    if metadata.is_dir() {
        return Err(BoltError::not_bolt(path, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(BoltError::not_bolt(path, "it is not a regular file"));
    }
    Ok(())
}

/// The error for a file that could not be opened.
pub(super) fn open_error(path: &Path, error: io::Error) -> BoltError {
    if error.kind() == io::ErrorKind::NotFound {
        BoltError::NotFound { path: path.to_owned() }
    } else {
        BoltError::io("open", path, error)
    }
}
