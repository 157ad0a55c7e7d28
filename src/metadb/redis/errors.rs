//! The one place where failures of Redis become [`MetaDbError`]s, and where it is decided which pass by themselves.
//!
//! Messages are made from error codes and from what was sent, never from what a login said: no password gets into them.

use crate::metadb::MetaDbError;
use redis::{RedisError, ServerError};
use std::time::Duration;

/// Why one exchange with a server failed.
#[derive(Debug, Clone)]
pub enum Fault {
    /// No connection, or it broke, or it was too slow.
    Link(String),
    /// The server is up but cannot serve now, or is no longer the one to ask: code and text.
    Passing(String, String),
    /// The server demotes itself: it is a replica.
    ReadOnly,
    /// Name or password is wrong.
    Login(String),
    /// A command is not allowed.
    Denied {
        /// The command.
        command: String,
        /// What the server said.
        detail: String,
    },
    /// No memory left for data.
    Full,
    /// Keys are of another kind than zot's.
    WrongType(&'static str),
    /// Keys in several slots, or in a slot of another node.
    Slots(String),
    /// A setting makes a connection impossible.
    Setting(String),
    /// The server is no Redis, or speaks another dialect.
    Protocol(String),
    /// Any other answer.
    Other(String),
    /// The walk lock is gone, or what was written under it.
    Lost(&'static str),
    /// Asked to stop.
    Cancelled,
}

impl Fault {
    /// Whether trying again, perhaps on a new connection, can help.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Passing(..) | Self::ReadOnly)
    }

    /// What happened to a connection.
    pub fn link(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Link("the server did not answer in time".into());
        }
        if let Some(code) = error.code().filter(|code| *code != "ERR") {
            return Self::server(code, error.detail().unwrap_or_default(), "AUTH");
        }
        match error.kind() {
            redis::ErrorKind::AuthenticationFailed => Self::login(error.detail().unwrap_or_default()),
            redis::ErrorKind::InvalidClientConfig => Self::Setting(error.to_string()),
            redis::ErrorKind::Parse => Self::Protocol("what answers does not speak Redis' protocol".into()),
            redis::ErrorKind::UnexpectedReturnType => Self::Protocol("unexpected reply".into()),
            redis::ErrorKind::Io => {
                let text = error.to_string();
                // A certificate stays wrong however often it is looked at.
                if ["certificate", "InvalidContentType", "HandshakeFailure", "corrupt message"]
                    .iter()
                    .any(|mark| text.contains(mark))
                {
                    return Self::Setting(format!("TLS: {text}"));
                }
                Self::Link(text)
            }
            _ => Self::Link(error.category().to_owned()),
        }
    }

    fn login(detail: &str) -> Self {
        // redis-rs puts the server's words here; only known ones are passed on.
        let known = ["WRONGPASS", "invalid username-password", "without any password", "NOAUTH", "NOPERM"];
        match known.iter().find(|mark| detail.contains(**mark)) {
            Some(&"without any password") => Self::Login("the server has no password set for this user".into()),
            _ => Self::Login("user name or password is wrong, or the user is disabled".into()),
        }
    }

    /// What a server answered to `command`.
    pub fn reply(error: &ServerError, command: &str) -> Self {
        Self::server(error.code(), error.details().unwrap_or_default(), command)
    }

    fn server(code: &str, detail: &str, command: &str) -> Self {
        // Scripts wrap the code of the command that failed.
        let inner = ["NOPERM", "OOM", "READONLY", "WRONGTYPE", "MISCONF", "NOREPLICAS"]
            .into_iter()
            .find(|word| code == *word || detail.contains(word));
        if detail.contains("ACL failure in script") || detail.contains("can't run this command or subcommand") {
            return Self::denied(detail, command);
        }
        match inner.unwrap_or(code) {
            "NOPERM" => Self::denied(detail, command),
            "OOM" => Self::Full,
            "READONLY" => Self::ReadOnly,
            "WRONGTYPE" => Self::WrongType("a key is not of the type that zot gives it"),
            "NOAUTH" => Self::Login("the server asks for a password, and none is configured".into()),
            "WRONGPASS" => Self::Login("user name or password is wrong, or the user is disabled".into()),
            "CROSSSLOT" => Self::Slots("its keys fall into several slots".into()),
            "MOVED" | "ASK" => Self::Passing(code.into(), "the keys are on another node".into()),
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS" => {
                Self::Passing(inner.unwrap_or(code).into(), detail.to_owned())
            }
            _ if detail.contains("max number of clients") => Self::Passing(code.into(), detail.to_owned()),
            _ if command == "AUTH" => Self::login(detail),
            _ => Self::Other(format!("{command}: {code} {detail}")),
        }
    }

    fn denied(detail: &str, command: &str) -> Self {
        // `... to run the 'hset' command`, with subcommands as `client|setname`.
        let quoted = detail.split('\'').nth(1).filter(|name| {
            !name.is_empty() && name.len() < 40 && name.chars().all(|c| c.is_ascii_lowercase() || "|_-".contains(c))
        });
        let detail =
            if quoted.is_none() && detail.contains("key") { "the keys are not allowed" } else { "not allowed" };
        Self::Denied {
            command: quoted.map_or_else(|| command.to_lowercase(), str::to_owned),
            detail: detail.to_owned(),
        }
    }

    /// The failure of a whole operation on the metaDB at `location`, after `tried` time of trying.
    pub fn into_error(self, action: &'static str, location: &str, tried: Option<Duration>) -> MetaDbError {
        let location = location.to_owned();
        let after = |text: String| match tried.filter(|time| time.as_secs() > 0) {
            Some(time) => format!("{text} (tried for {} s)", time.as_secs()),
            None => text,
        };
        match self {
            Self::Link(detail) => MetaDbError::Unreachable { location, detail: after(detail) },
            Self::Setting(detail) | Self::Protocol(detail) => MetaDbError::Unreachable { location, detail },
            Self::Passing(code, detail) if code == "MOVED" || code == "ASK" => {
                MetaDbError::Cluster { location, detail: after(detail) }
            }
            Self::Passing(code, detail) => {
                MetaDbError::Unreachable { location, detail: after(format!("{code} {detail}")) }
            }
            Self::ReadOnly => MetaDbError::ReadOnly { location },
            Self::Login(detail) => MetaDbError::Login { location, detail },
            Self::Denied { command, detail } => MetaDbError::Denied { location, command, detail },
            Self::Full => MetaDbError::Full { location },
            Self::WrongType(detail) => MetaDbError::Damaged { location, detail: detail.into() },
            Self::Slots(detail) => MetaDbError::Cluster { location, detail },
            Self::Lost(detail) => MetaDbError::Lost { location, detail: detail.into() },
            Self::Cancelled => MetaDbError::Cancelled,
            Self::Other(detail) => MetaDbError::Io { action, location, source: detail.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classed(code: &str, detail: &str) -> Fault {
        Fault::server(code, detail, "HSET")
    }

    #[test]
    fn denials_name_the_command() {
        for (code, detail, command) in [
            ("NOPERM", "User zot has no permissions to run the 'hget' command", "hget"),
            ("NOPERM", "this user has no permissions to run the 'client|setname' command", "client|setname"),
            ("NOPERM", "this user has no permissions to access one of the keys used as arguments", "hset"),
            ("NOPERM", "No permissions to access a key", "hset"),
            ("ERR", "ACL failure in script: User zot has no permissions to run the 'del' command script: x", "del"),
        ] {
            match classed(code, detail) {
                Fault::Denied { command: found, .. } => assert_eq!(found, command, "{detail}"),
                other => panic!("{detail}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for (code, detail, passes) in [
            ("LOADING", "Redis is loading the dataset in memory", true),
            ("READONLY", "You can't write against a read only replica.", true),
            ("ERR", "Error running script: @user_script:1: READONLY You can't write", true),
            ("ERR", "max number of clients reached", true),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", false),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", false),
            ("MISCONF", "Redis is configured to save RDB snapshots", false),
            ("CROSSSLOT", "Keys in request don't hash to the same slot", false),
        ] {
            assert_eq!(classed(code, detail).passes(), passes, "{code} {detail}");
        }
        assert!(matches!(classed("ERR", "x: OOM command not allowed"), Fault::Full));
    }
}
