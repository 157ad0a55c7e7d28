//! What metactl needs from the sections other than `storage`: the conditions of the metaDB (spec §6.1), the address
//! zot listens at, and the settings that the validation of storage looks at (§2.3).

use super::decode;
use super::tree::{Tree, lookup};

/// Where zot listens, as configured. Weakly typed: a number is as good as a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpAddress {
    /// `http.address`.
    pub address: Option<String>,
    /// `http.port`.
    pub port: Option<String>,
    /// Whether `http.tls` is configured.
    pub tls: bool,
}

impl HttpAddress {
    /// Where a zot of this config answers on its own host; `None` if it takes a random port.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let port = self.port.as_deref().unwrap_or("8080");
        if matches!(port, "" | "0") {
            return None;
        }
        let host = match self.address.as_deref().unwrap_or("127.0.0.1") {
            "" | "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" | "[::]" => "[::1]".to_owned(),
            bare if bare.contains(':') && !bare.starts_with('[') => format!("[{bare}]"),
            other => other.to_owned(),
        };
        Some(format!("{}://{host}:{port}", if self.tls { "https" } else { "http" }))
    }
}

/// The settings used.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) http: HttpAddress,
    pub(super) release_tag: Option<String>,
    pub(super) commit: Option<String>,
    pub(super) log_level: Option<String>,
    /// Names of the basic-style logins that are on.
    pub(super) logins: Vec<&'static str>,
    pub(super) search: bool,
    pub(super) trust: bool,
    pub(super) ui: bool,
    pub(super) cve: bool,
    /// Sync is on; whether it has a `downloadDir`.
    pub(super) sync: Option<bool>,
}

/// A non-null value below a section, by folded keys.
pub(super) fn at<'a>(section: &'a Tree, path: &[&str]) -> Option<&'a Tree> {
    let found = path.iter().try_fold(section, |section, key| section.as_map()?.get(*key))?;
    (*found != Tree::Null).then_some(found)
}

/// The text of a field that has been checked; empty if it is missing.
pub(super) fn text_at(section: &Tree, path: &[&str]) -> String {
    optional_text(section, path).unwrap_or_default()
}

fn optional_text(section: &Tree, path: &[&str]) -> Option<String> {
    at(section, path).and_then(|value| decode::text(value).ok())
}

/// A switch that has been checked, if it is given.
pub(super) fn switch_at(section: &Tree, path: &[&str]) -> Option<bool> {
    at(section, path).and_then(|value| decode::boolean(value).ok())
}

impl Sections {
    /// `others`: all but storage as the decoder sees it, checked. `folded`: the tree before rebuilding.
    pub(super) fn read(others: &Tree, folded: &Tree) -> Self {
        let named = |key| {
            // Nothing survived: zot switches on what was at least named.
            at(others, &["extensions"]).is_none()
                && lookup(folded, "extensions").and_then(Tree::as_map).is_some_and(|map| map.contains_key(key))
        };
        let on = |key| match at(others, &["extensions", key]) {
            Some(extension) => switch_at(extension, &["enable"]).unwrap_or(true),
            None => named(key),
        };
        let auth = |path: &[&str]| at(others, &["http", "auth"]).and_then(|auth| at(auth, path));
        let mut logins = Vec::new();
        if auth(&["htpasswd"]).is_some_and(|htpasswd| !text_at(htpasswd, &["path"]).is_empty()) {
            logins.push("htpasswd");
        }
        if auth(&["ldap"]).is_some() {
            logins.push("LDAP");
        }
        if auth(&["openid"]).is_some() {
            logins.push("OpenID");
        }
        if switch_at(others, &["http", "auth", "apikey"]) == Some(true) {
            logins.push("API keys");
        }
        let sync = at(others, &["extensions", "sync"]).filter(|_| on("sync"));
        Self {
            http: HttpAddress {
                address: optional_text(others, &["http", "address"]),
                port: optional_text(others, &["http", "port"]),
                tls: at(others, &["http", "tls"]).is_some(),
            },
            release_tag: optional_text(others, &["releasetag"]),
            commit: optional_text(others, &["commit"]),
            log_level: optional_text(others, &["log", "level"]),
            logins,
            search: on("search"),
            trust: on("trust"),
            ui: on("ui"),
            cve: on("search") && at(others, &["extensions", "search", "cve"]).is_some(),
            sync: sync.map(|sync| !text_at(sync, &["downloaddir"]).is_empty()),
        }
    }
}
