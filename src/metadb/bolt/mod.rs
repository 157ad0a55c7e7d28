//! An embedded key-value layer over BoltDB files (page format 2), the format of zot's `meta.db`.
//!
//! It knows buckets, keys and values and nothing of zot's records. Go's bbolt is the reference: whatever it
//! writes is read here, and whatever is written here passes its `Check` and is written on by it.
//!
//! * [`Database`] reads. It never locks and never writes, so it can look at the file of a running zot: see
//!   [`Database::snapshot`] for why what it returns is consistent all the same.
//! * [`Writer`] writes. It holds the exclusive `flock` that zot itself takes, for as long as it lives, and turns
//!   each [`Batch`] into one transaction.
//!
//! What the modules promise each other:
//!
//! | module | promise |
//! |---|---|
//! | `page` | no byte of a file is believed before it is checked; no input panics |
//! | `file` | every access is positioned; the trait is where tests inject faults |
//! | `pager`, `tree` | a lookup reads only the pages on its path; no walk visits more pages than the file has |
//! | `ahead` | what a walk reads ahead is forgotten with its snapshot |
//! | `freelist` | a page is free or used, never both, and never handed out twice |
//! | `builder`, `apply` | pages of the committed tree are never written over |
//! | `writer` | data is durable before the meta page that makes it visible |

#![deny(clippy::indexing_slicing)]

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod ahead;
mod apply;
mod batch;
mod builder;
mod check;
mod file;
mod freelist;
mod lock;
pub mod metadb;
mod page;
mod pager;
mod reader;
mod tree;
mod writer;

pub use batch::Batch;
pub use check::CheckReport;
pub use file::FileLayer;
pub use page::{MAX_KEY, MAX_VALUE};
pub use reader::Database;
pub use tree::{Bucket, EntryKind, Tx, Value};
pub use writer::{OpenOptions, Writer};

/// Who holds the lock of a file, as far as the system tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id of the holder.
    pub pid: u32,
    /// Its command name (at most 15 bytes, as the kernel keeps it), if it could be read.
    pub command: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.command {
            Some(command) => write!(f, "process {} ({command})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// What can go wrong with a BoltDB file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// No file of that name.
    #[error("{path}: no such file", path = path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// Something is there, and it is not a BoltDB file.
    #[error("{path}: not a BoltDB file: {detail}", path = path.display())]
    NotBolt {
        /// The file.
        path: PathBuf,
        /// What it is instead, or what is missing.
        detail: String,
    },
    /// A BoltDB file whose content contradicts itself.
    #[error("{path}: page {page} is damaged: {detail}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The page in which the contradiction was seen.
        page: u64,
        /// What is wrong.
        detail: String,
    },
    /// A live writer changed the file during every attempt to read it.
    #[error("{path}: changed by its writer during each of {attempts} attempts to read it", path = path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How often it was tried.
        attempts: u32,
    },
    /// Another process holds the exclusive lock.
    #[error("{path}: locked by {who}, waited {waited:.1?}", path = path.display(),
            who = holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string))]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long the lock was waited for.
        waited: Duration,
        /// The process that holds it, if known.
        holder: Option<Holder>,
    },
    /// The path names another file than the one that was opened.
    #[error("{path}: replaced by another file while it was open", path = path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// An earlier commit failed so late that its outcome is unknown; the file must be opened again.
    #[error("{path}: not written, because an earlier commit ended in an unknown state", path = path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// A commit failed so late that the file may hold the state before it or after it; opening it again tells.
    #[error("{path}: a commit failed at its last step: it may have taken place or not", path = path.display())]
    Unsettled {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A key or a value beyond what the format holds.
    #[error("{what} of {size} bytes is larger than the {limit} bytes the format allows")]
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A batch asks for something the format or the file's content does not allow.
    #[error("invalid batch: {detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried: "open", "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl BoltError {
    /// Missing permission is the cause.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::PermissionDenied)
    }

    /// A file system mounted read-only is the cause.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::ReadOnlyFilesystem)
    }

    /// A full disk or an exhausted quota is the cause.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self.io_kind(), Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } | Self::Unsettled { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    fn damaged(path: &Path, page: u64, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), page, detail: detail.into() }
    }

    fn not_bolt(path: &Path, detail: impl Into<String>) -> Self {
        Self::NotBolt { path: path.to_owned(), detail: detail.into() }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }
}

/// A key as text for messages: control characters escaped, long ones cut.
fn printable(key: &[u8]) -> String {
    const LONGEST: usize = 80;
    let text = key.get(..LONGEST).unwrap_or(key).escape_ascii().to_string();
    if key.len() > LONGEST { format!("{text}...") } else { text }
}
