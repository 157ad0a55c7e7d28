//! The only map from outcomes to exit codes, reasons and hints. One table for every command, so that cron and Nagios
//! read them alike.

use metactl::cancel::Cancel;
use metactl::config::{ConfigError, ConfigErrorKind};
use metactl::error::chain;
use metactl::identity::IdentityError;
use metactl::metadb::MetaDbError;
use metactl::storage::StorageError;
use metactl::walk::WalkError;
use std::process::ExitCode;

/// Exit status of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done; consistent; stamp current.
    Ok,
    /// Stamp absent or stale, walk partial, drift that `walk` repairs.
    Warning,
    /// metaDB wrong or unreadable, records lost, walk failed midway.
    Critical,
    /// Nothing learned, nothing changed: usage, config, locked, unreachable, timeout, declined.
    Unknown,
}

/// What `--help` says about exit codes.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  done; consistent; stamp current
  1  warning: stamp absent or stale (stamp show --check), walk partial, drift that walk repairs
  2  critical: metaDB wrong or unreadable, records lost, walk failed midway
  3  unknown: nothing learned, nothing changed (usage, config, locked, unreachable, timeout, declined)";

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// Nagios' word for it.
    pub fn nagios(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub exit: Exit,
    /// Stable word for machines.
    pub reason: &'static str,
    /// What happened, with causes, on one line.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure after which nothing is learned and nothing is changed.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { exit: Exit::Unknown, reason, message: message.into(), hint: None }
    }

    /// The same, with the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = match &error.kind {
            ConfigErrorKind::NotFound => "name the registry's config with --config or METACTL_CONFIG",
            ConfigErrorKind::PermissionDenied => "run as the user that zot runs as",
            ConfigErrorKind::IsDirectory => "name the file in it",
            ConfigErrorKind::UnknownKey { .. } => "zot refuses unknown keys: correct or remove it",
            ConfigErrorKind::AmbiguousKey => "keep one of the two",
            ConfigErrorKind::Syntax { .. } | ConfigErrorKind::WrongType => {
                "zot would not start with it either: correct it; `zot verify FILE` is a second opinion"
            }
            ConfigErrorKind::Empty | ConfigErrorKind::TooLarge => {
                "is this the registry's config? name it with --config"
            }
            ConfigErrorKind::UnusableExtension => "zot tells the format by the name: .json, .yaml, .yml or .toml",
            ConfigErrorKind::Io => "check the file system that the config is on",
        };
        Self::unknown("config", chain(&error)).hint(hint)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::unknown("identity", chain(&error))
            .hint("name zot's build with --release-tag and --commit, or point --zot-binary at its executable")
    }
}

impl From<MetaDbError> for Failure {
    fn from(error: MetaDbError) -> Self {
        let message = chain(&error);
        match error {
            MetaDbError::Absent { .. } => Self::unknown("metadb-absent", message)
                .hint(
                    "`metactl walk` creates and fills it (in DynamoDB with --create-tables); if it should exist, check \
                     the config and --metadb",
                ),
            MetaDbError::Locked { holder: Some(holder), .. } if holder.starts_with("metactl ") => Self::unknown(
                "locked", message,
            )
            .hint("wait for it, or wait longer with --lock-timeout; if it has died, its lock expires in a minute"),
            MetaDbError::Locked { .. } => Self::unknown("locked", message).hint(
                "zot holds its metaDB from start to stop: stop zot (or the other metactl), or wait longer with \
                 --lock-timeout; `metactl stamp show` works beside a running zot",
            ),
            MetaDbError::Busy { .. } => Self::unknown("busy", message).hint("try again in a moment"),
            MetaDbError::Damaged { .. } => Self { exit: Exit::Critical, ..Self::unknown("damaged", message) }.hint(
                "check that it is the right file: rootDirectory in the config, --metadb; if it is, keep a copy and restore a \
                 backup, or, if there is none, move it away and run `metactl walk`: statistics, stars and API keys are then \
                 lost",
            ),
            MetaDbError::Unclean { .. } => {
                Self::unknown("unclean", message).hint("nothing is lost: `metactl walk` repairs and completes it")
            }
            MetaDbError::Version { .. } => Self { exit: Exit::Critical, ..Self::unknown("version", message) }
                .hint("it was written by another zot; use a metactl that knows this version"),
            MetaDbError::StampChanged { .. } => Self::unknown("stamp-changed", message)
                .hint("somebody else wrote it: look again with `metactl stamp show`"),
            MetaDbError::Unreachable { .. } => Self::unknown("unreachable", message)
                .hint("check that the server runs, and cacheDriver in zot's config or --metadb"),
            MetaDbError::Login { .. } => Self::unknown("login", message)
                .hint("credentials come from the URL or from cacheDriver's username and password, as for zot"),
            MetaDbError::TablesMissing { .. } => Self::unknown("tables-missing", message).hint(
                "zot creates them at its start, and so does `metactl walk --create-tables`; if they should exist, check \
                 cacheDriver's endpoint, region and table names, and whose account the credentials are of",
            ),
            MetaDbError::Credentials { .. } => Self::unknown("credentials", message).hint(
                "they are found as AWS's tools find them: environment, profile, web identity, SSO, container, instance; \
                 the region is cacheDriver's",
            ),
            MetaDbError::Denied { ref command, .. } if command.starts_with("dynamodb:") => {
                Self::unknown("denied", message)
                    .hint("README, \"DynamoDB\", has the policies that reading and walking need")
            }
            MetaDbError::Denied { .. } => Self::unknown("denied", message)
                .hint("give the user these commands; README, \"Redis\", lists what reading and walking need"),
            MetaDbError::ReadOnly { .. } => Self::unknown("read-only", message)
                .hint("name the master; with fail-over, name the sentinels and master_name"),
            MetaDbError::Full { .. } => Self::unknown("full", message)
                .hint("raise maxmemory, or make room; what was written so far is sound, run the command again"),
            MetaDbError::Cluster { .. } => Self::unknown("cluster", message),
            MetaDbError::Lost { .. } => Self { exit: Exit::Critical, ..Self::unknown("lost", message) }
                .hint("run `metactl walk` again: it reads what is missing"),
            MetaDbError::Unsettled { ref source, .. } => {
                let kind = source.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                Self { exit: Exit::Critical, ..Self::unknown("unsettled", message) }.hint(io_hint(kind))
            }
            MetaDbError::Io { ref source, .. } => {
                let kind = source.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                Self::unknown("metadb-io", message).hint(io_hint(kind))
            }
            MetaDbError::Cancelled => Self::stopped(),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let message = chain(&error);
        match error {
            StorageError::Cancelled => Self::stopped(),
            StorageError::UnsupportedLayout { .. } => Self::unknown("storage-layout", message)
                .hint("nothing was changed; use a metactl that knows this layout, and check rootDirectory"),
            StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::unknown("storage", message).hint("nothing was changed; run as the user that zot runs as")
            }
            _ => Self::unknown("storage", message)
                .hint("nothing was changed; check rootDirectory or storageDriver, and that all of it may be read"),
        }
    }
}

impl From<WalkError> for Failure {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Storage(error) => error.into(),
            WalkError::MetaDb(error) => error.into(),
            WalkError::NoRepo => Self::unknown("no-repo", "no repo in storage or metaDB matches --repo").hint(
                "names are matched as a whole: `*` stops at `/`, `**` does not; `metactl walk --force --dry-run` lists all",
            ),
            WalkError::Cancelled => Self::stopped(),
        }
    }
}

/// What to do about a metaDB file that the system does not let us use.
fn io_hint(kind: Option<std::io::ErrorKind>) -> &'static str {
    use std::io::ErrorKind as Kind;
    match kind {
        Some(Kind::PermissionDenied) => "run as the user that zot runs as",
        Some(Kind::StorageFull | Kind::QuotaExceeded) => "make room on its file system and run it again",
        Some(Kind::ReadOnlyFilesystem) => {
            "remount its file system for writing; `stamp show`, `config show` and `walk --dry-run` only read"
        }
        Some(Kind::NotFound | Kind::NotADirectory) => "check the path, and that its file system is mounted",
        _ => "check the file system that it is on, then run it again",
    }
}

impl Failure {
    /// Stopped before the first write, by a signal or by --timeout.
    fn stopped() -> Self {
        Self::unknown("cancelled", "stopped before anything was changed")
    }

    /// As the token tells which of the two it was.
    pub fn cancelled(cancel: &Cancel) -> Self {
        Self::stopped().named(cancel)
    }

    /// With what every failure has: the cause, if it is about having been stopped, and a next step.
    pub fn completed(self, cancel: &Cancel) -> Self {
        let failure = self.named(cancel);
        if failure.hint.is_some() || failure.reason != "usage" {
            return failure;
        }
        failure.hint("`metactl --help` and `metactl COMMAND --help` list the options")
    }

    fn named(self, cancel: &Cancel) -> Self {
        if self.reason != "cancelled" || !cancel.timed_out() {
            return self;
        }
        Self { reason: "timeout", message: format!("{}: --timeout is over", self.message), ..self }
            .hint("give it more time, or less to do with --repo")
    }
}
