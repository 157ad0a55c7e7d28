//! What metactl needs from the sections other than `storage`: the conditions of the metaDB (spec §6.1), the address
//! zot listens at, and the settings that semantic validation looks at (§2.3).
//!
//! Keys that metactl does not use are not checked: their field lists are not part of the specification.

use super::SECTIONS;
use super::decode::{self, At as _, Bad};
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

/// A non-null member that must be a section.
fn child<'a>(parent: &'a Tree, key: &str, shown: &str) -> Result<Option<&'a Tree>, Bad> {
    match member(parent, key) {
        None => Ok(None),
        Some(value) => decode::section(value).at(shown).map(|_| Some(value)),
    }
}

/// A non-null member of a map.
fn member<'a>(parent: &'a Tree, key: &str) -> Option<&'a Tree> {
    parent.as_map()?.get(key).filter(|value| **value != Tree::Null)
}

impl Sections {
    /// `rebuilt`: the tree the decoder sees, without storage. `folded`: the tree before rebuilding.
    pub(super) fn decode(rebuilt: &Tree, folded: &Tree) -> Result<Self, Bad> {
        let mut out = Self::default();
        for (name, value) in decode::fields(rebuilt, &SECTIONS)? {
            match name {
                "distSpecVersion" | "goVersion" | "binaryType" => drop(decode::text(value).at(name)?),
                "commit" => out.commit = Some(decode::text(value).at(name)?),
                "releaseTag" => out.release_tag = Some(decode::text(value).at(name)?),
                _ => {
                    decode::section(value).at(name)?;
                    match name {
                        "http" => out.http(value).at(name)?,
                        "extensions" => out.extensions(value).at(name)?,
                        "log" => {
                            if let Some(level) = member(value, "level") {
                                out.log_level = Some(decode::text(level).at("level").at(name)?);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        if member(rebuilt, "extensions").is_none() {
            // Nothing survived: zot switches on what was at least named.
            let named =
                |key| lookup(folded, "extensions").and_then(Tree::as_map).is_some_and(|map| map.contains_key(key));
            out.search = named("search");
            out.trust = named("trust");
            out.ui = named("ui");
        }
        Ok(out)
    }

    fn http(&mut self, http: &Tree) -> Result<(), Bad> {
        let text = |key| member(http, key).map(|value| decode::text(value).at(key)).transpose();
        self.http.address = text("address")?;
        self.http.port = text("port")?;
        self.http.tls = child(http, "tls", "tls")?.is_some();
        let Some(auth) = child(http, "auth", "auth")? else { return Ok(()) };
        self.auth(auth).at("auth")
    }

    fn auth(&mut self, auth: &Tree) -> Result<(), Bad> {
        if let Some(htpasswd) = child(auth, "htpasswd", "htpasswd")? {
            let path = member(htpasswd, "path").map(|path| decode::text(path).at("path").at("htpasswd")).transpose()?;
            if path.is_some_and(|path| !path.is_empty()) {
                self.logins.push("htpasswd");
            }
        }
        if child(auth, "ldap", "ldap")?.is_some() {
            self.logins.push("LDAP");
        }
        if child(auth, "openid", "openid")?.is_some() {
            self.logins.push("OpenID");
        }
        if let Some(api_key) = member(auth, "apikey")
            && decode::boolean(api_key).at("apikey")?
        {
            self.logins.push("API keys");
        }
        Ok(())
    }

    fn extensions(&mut self, extensions: &Tree) -> Result<(), Bad> {
        /// Present and not switched off.
        fn on(extensions: &Tree, key: &str) -> Result<bool, Bad> {
            let Some(extension) = child(extensions, key, key)? else { return Ok(false) };
            match member(extension, "enable") {
                Some(enable) => decode::boolean(enable).at("enable").at(key),
                None => Ok(true),
            }
        }
        self.search = on(extensions, "search")?;
        self.trust = on(extensions, "trust")?;
        self.ui = on(extensions, "ui")?;
        if let Some(search) = member(extensions, "search") {
            self.cve = self.search && child(search, "cve", "cve").at("search")?.is_some();
        }
        if on(extensions, "sync")? {
            let dir = member(extensions, "sync").and_then(|sync| member(sync, "downloaddir"));
            let dir = dir.map(|dir| decode::text(dir).at("downloadDir").at("sync")).transpose()?;
            self.sync = Some(dir.is_some_and(|dir| !dir.is_empty()));
        }
        Ok(())
    }
}
