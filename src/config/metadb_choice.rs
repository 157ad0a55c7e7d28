//! Whether a config uses a metaDB, and which one (spec §6.1, §6.2).

use std::fmt;
use std::path::{Path, PathBuf};

use super::driver::DriverParams;
use super::sections::Sections;
use super::storage::{EffectiveStorage, Store};
use crate::secret;

/// The metaDB of a config.
#[derive(Debug)]
pub struct MetaDb {
    /// Whether zot opens it at all with this config.
    pub used: bool,
    /// Which conditions hold, or why none does.
    pub reasons: Vec<String>,
    /// Which one it is (or would be, if unused).
    pub choice: MetaDbChoice,
    /// What might surprise about the choice.
    pub notices: Vec<String>,
}

/// The driver and what it needs.
#[derive(Debug)]
pub enum MetaDbChoice {
    /// BoltDB file; a relative path is relative to zot's working directory.
    Bolt {
        /// `<rootDirectory>/meta.db`.
        path: PathBuf,
    },
    /// metactl's own embedded database. zot ignores the name and opens BoltDB.
    Redb {
        /// `<rootDirectory>/meta.redb`.
        path: PathBuf,
    },
    /// Redis, with the `cacheDriver` parameters (spec §6.4).
    Redis(DriverParams),
    /// DynamoDB, with the `cacheDriver` parameters (spec §6.5).
    DynamoDb(DriverParams),
    /// zot refuses to start.
    Invalid {
        /// Why.
        reason: String,
    },
}

impl MetaDbChoice {
    /// Driver name: `bolt`, `redb`, `redis`, `dynamodb`, `invalid`.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Bolt { .. } => "bolt",
            Self::Redb { .. } => "redb",
            Self::Redis(_) => "redis",
            Self::DynamoDb(_) => "dynamodb",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Bolt { path } | Self::Redb { path } => path.display().to_string(),
            Self::Redis(params) => redis_location(params),
            Self::DynamoDb(params) => {
                let part = |key| params.text(key).unwrap_or("?");
                crate::metadb::dynamodb::location(part("endpoint"), part("region"), part("versiontablename"))
            }
            Self::Invalid { reason } => reason.clone(),
        }
    }
}

impl fmt::Display for MetaDbChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.driver(), self.location())
    }
}

pub(super) fn redis_location(params: &DriverParams) -> String {
    use super::tree::Tree;
    if let Some(url) = params.text("url") {
        return secret::redact_url(url);
    }
    let addresses: Vec<String> = match params.get("addr") {
        Some(Tree::Text(text)) => text.split_whitespace().map(secret::redact_text).collect(),
        Some(Tree::List(items)) => items.iter().filter_map(Tree::as_text).map(secret::redact_text).collect(),
        _ => Vec::new(),
    };
    let default = if params.text("master_name").is_some() { "127.0.0.1:26379" } else { "127.0.0.1:6379" };
    if addresses.is_empty() { default.into() } else { addresses.join(" ") }
}

impl MetaDb {
    pub(super) fn choose(sections: &Sections, storage: &EffectiveStorage) -> Self {
        let mut reasons = conditions(sections, storage);
        let used = !reasons.is_empty();
        if !used {
            reasons.push(
                "none of search, a login with htpasswd, LDAP, OpenID or API keys, image trust, retention by pull or \
                 push statistics, or maxRepos is configured"
                    .into(),
            );
        }
        let (choice, notices) = choice(storage);
        Self { used, reasons, choice, notices }
    }
}

/// Spec §6.1: every condition that holds.
fn conditions(sections: &Sections, storage: &EffectiveStorage) -> Vec<String> {
    let mut out = Vec::new();
    if sections.search {
        out.push("search is on (extensions.search)".into());
    }
    out.extend(sections.logins.iter().map(|login| format!("login with {login} is on (http.auth)")));
    if sections.trust {
        out.push("image trust is on (extensions.trust)".into());
    }
    for (name, store) in storage.stores() {
        if let Some(index) = first_statistical_policy(store) {
            out.push(format!("retention looks at statistics ({name}.retention.policies[{index}])"));
        }
    }
    if storage.max_repos > 0 {
        out.push("a quota is set (storage.maxRepos)".into());
    }
    out
}

fn first_statistical_policy(store: &Store) -> Option<usize> {
    store.retention.policies.iter().flatten().position(|policy| {
        let tags = policy.keep_tags.iter().flatten().any(|keep| keep.limits.any());
        let untagged = policy.keep_untagged.as_ref().is_some_and(super::Limits::any);
        tags || (untagged && policy.delete_untagged != Some(false))
    })
}

/// Spec §6.2, plus metactl's own `redb`.
fn choice(storage: &EffectiveStorage) -> (MetaDbChoice, Vec<String>) {
    let root = Path::new(&storage.root_directory);
    let cache = storage.cache_driver.as_ref();
    let name = cache.and_then(DriverParams::name);
    let mut notices = Vec::new();
    let choice = match (storage.remote_cache, cache, name) {
        (false, _, Some("redb")) => {
            notices.push("zot does not know the redb metaDB and opens BoltDB instead: a redb stamp never speeds up a zot restart".into());
            MetaDbChoice::Redb { path: root.join("meta.redb") }
        }
        (false, cache, name) => {
            if cache.is_some_and(|cache| cache.get("name").is_some()) && name != Some("cache") {
                notices.push("storage.cacheDriver is ignored because remoteCache is off; zot uses BoltDB".into());
            }
            MetaDbChoice::Bolt { path: root.join("meta.db") }
        }
        (true, Some(cache), Some("redis")) => MetaDbChoice::Redis(cache.duplicate()),
        (true, Some(cache), Some("dynamodb")) => MetaDbChoice::DynamoDb(cache.duplicate()),
        (true, _, name) => MetaDbChoice::Invalid {
            reason: match name {
                Some(name) => format!("remoteCache is on but cacheDriver {name:?} is neither redis nor dynamodb"),
                None => "remoteCache is on but no cacheDriver with a name is configured".into(),
            },
        },
    };
    (choice, notices)
}
