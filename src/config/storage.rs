//! The storage section as zot holds it when it computes the fingerprint: typed fields (spec §3.1), built-in values
//! (§1.5), default filling (§2.1, §2.2) and what opening the stores changes (§2.4).
//!
//! An [`EffectiveStorage`] is immutable once made, so its hashed text always belongs to its fields.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

use super::FieldSet;
use super::decode::{self, At as _, Bad, Reason};
use super::driver::DriverParams;
use super::hardlink::DedupeProbe;
use super::tree::{Tree, lookup};

/// One hour in nanoseconds.
const HOUR: i64 = 3_600_000_000_000;

/// One store: the global one or a subpath. Durations are nanoseconds.
#[derive(Debug, Default, PartialEq)]
pub struct Store {
    /// Local directory; for remote drivers too (the metaDB may live there).
    pub root_directory: String,
    /// Quota; above 0 it needs a metaDB.
    pub max_repos: i64,
    /// Whether equal blobs are stored once.
    pub dedupe: bool,
    /// Whether the cache (and for the global store the metaDB) is the `cacheDriver`'s.
    pub remote_cache: bool,
    /// Redirect clients to the storage driver's URLs.
    pub redirect_blob_url: bool,
    /// Garbage collection.
    pub gc: bool,
    /// Sync written blobs to disk.
    pub commit: bool,
    /// Age at which garbage is collected.
    pub gc_delay: i64,
    /// Pause between collections.
    pub gc_interval: i64,
    /// `HH:MM-HH:MM` or empty.
    pub gc_time_window: String,
    /// What to keep.
    pub retention: Retention,
    /// Remote storage; `None` is the local disk.
    pub storage_driver: Option<DriverParams>,
    /// Remote cache.
    pub cache_driver: Option<DriverParams>,
    /// Undocumented, and left out of the fingerprint.
    pub gc_max_scheduler_delay: i64,
}

/// `retention`.
#[derive(Debug, Default, PartialEq)]
pub struct Retention {
    /// Only log what would be deleted.
    pub dry_run: bool,
    /// Age at which untagged images and referrers go.
    pub delay: i64,
    /// Rules, first match wins.
    pub policies: Option<Vec<Policy>>,
}

/// One element of `retention.policies`.
#[derive(Debug, Default, PartialEq)]
pub struct Policy {
    /// Globs.
    pub repositories: Option<Vec<String>>,
    /// Delete referrers without subject.
    pub delete_referrers: bool,
    /// Delete untagged manifests; filled with `true`.
    pub delete_untagged: Option<bool>,
    /// Tags to keep.
    pub keep_tags: Option<Vec<KeepTags>>,
    /// Untagged manifests to keep (v2.1.19 and later).
    pub keep_untagged: Option<Limits>,
}

/// One element of `keepTags`.
#[derive(Debug, Default, PartialEq)]
pub struct KeepTags {
    /// Regular expressions on tags.
    pub patterns: Option<Vec<String>>,
    /// What of them to keep.
    pub limits: Limits,
}

/// Retention criteria that look at statistics, hence at the metaDB.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Pulled within this time.
    pub pulled_within: Option<i64>,
    /// Pushed within this time.
    pub pushed_within: Option<i64>,
    /// That many of the most recently pushed.
    pub most_recently_pushed_count: i64,
    /// That many of the most recently pulled.
    pub most_recently_pulled_count: i64,
}

impl Limits {
    /// Whether any criterion is set: a non-zero count or a present time, even `0s`.
    #[must_use]
    pub fn any(&self) -> bool {
        self.pulled_within.is_some()
            || self.pushed_within.is_some()
            || self.most_recently_pushed_count != 0
            || self.most_recently_pulled_count != 0
    }
}

/// Names of the fields of a store as people write them.
fn store_fields(fields: FieldSet, global: bool) -> Vec<&'static str> {
    let mut names = vec!["rootDirectory", "maxRepos", "dedupe", "remoteCache"];
    if fields.redirect_blob_url {
        names.push("redirectBlobURL");
    }
    names.extend(["gc", "commit", "gcDelay", "gcInterval"]);
    if fields.gc_time_window {
        names.push("gcTimeWindow");
    }
    names.extend(["retention", "storageDriver", "cacheDriver", "gcMaxSchedulerDelay"]);
    if global {
        names.extend(["subPaths", "fastRestart"]);
    }
    names
}

/// Decode one field of a store that both kinds share.
fn store_field(store: &mut Store, name: &str, value: &Tree, fields: FieldSet) -> Result<(), Bad> {
    match name {
        "rootDirectory" => store.root_directory = decode::text(value)?,
        "maxRepos" => store.max_repos = decode::int(value)?,
        "dedupe" => store.dedupe = decode::boolean(value)?,
        "remoteCache" => store.remote_cache = decode::boolean(value)?,
        "redirectBlobURL" => store.redirect_blob_url = decode::boolean(value)?,
        "gc" => store.gc = decode::boolean(value)?,
        "commit" => store.commit = decode::boolean(value)?,
        "gcDelay" => store.gc_delay = decode::duration(value)?,
        "gcInterval" => store.gc_interval = decode::duration(value)?,
        "gcTimeWindow" => store.gc_time_window = decode::time_window(value)?,
        "gcMaxSchedulerDelay" => store.gc_max_scheduler_delay = decode::duration(value)?,
        "storageDriver" => store.storage_driver = driver(value)?,
        "cacheDriver" => store.cache_driver = driver(value)?,
        "retention" => retention(&mut store.retention, value, fields)?,
        _ => {}
    }
    Ok(())
}

fn driver(value: &Tree) -> Result<Option<DriverParams>, Bad> {
    Ok(decode::map_of(value, &|value| Ok(value.clone()))?.map(DriverParams))
}

fn retention(retention: &mut Retention, value: &Tree, fields: FieldSet) -> Result<(), Bad> {
    for (name, value) in decode::fields(value, &["dryRun", "delay", "policies"])? {
        match name {
            "dryRun" => retention.dry_run = decode::boolean(value).at(name)?,
            "delay" => retention.delay = decode::duration(value).at(name)?,
            _ => retention.policies = Some(decode::list(value, |value| policy(value, fields)).at(name)?),
        }
    }
    Ok(())
}

fn policy(value: &Tree, fields: FieldSet) -> Result<Policy, Bad> {
    const NAMES: [&str; 5] = ["repositories", "deleteReferrers", "deleteUntagged", "keepTags", "keepUntagged"];
    let known = if fields.keep_untagged { NAMES.as_slice() } else { NAMES.split_at(4).0 };
    let mut policy = Policy::default();
    for (name, value) in decode::fields(value, known)? {
        match name {
            "repositories" => policy.repositories = Some(decode::list(value, decode::text).at(name)?),
            "deleteReferrers" => policy.delete_referrers = decode::boolean(value).at(name)?,
            "deleteUntagged" => policy.delete_untagged = Some(decode::boolean(value).at(name)?),
            "keepTags" => policy.keep_tags = Some(decode::list(value, keep_tags).at(name)?),
            _ => policy.keep_untagged = Some(keep_untagged(value).at(name)?),
        }
    }
    Ok(policy)
}

const LIMITS: [&str; 4] = ["pulledWithin", "pushedWithin", "mostRecentlyPushedCount", "mostRecentlyPulledCount"];

fn limit(limits: &mut Limits, name: &str, value: &Tree) -> Result<(), Bad> {
    match name {
        "pulledWithin" => limits.pulled_within = Some(decode::duration(value)?),
        "pushedWithin" => limits.pushed_within = Some(decode::duration(value)?),
        "mostRecentlyPushedCount" => limits.most_recently_pushed_count = decode::int(value)?,
        "mostRecentlyPulledCount" => limits.most_recently_pulled_count = decode::int(value)?,
        _ => {}
    }
    Ok(())
}

fn keep_tags(value: &Tree) -> Result<KeepTags, Bad> {
    let mut out = KeepTags::default();
    let [a, b, c, d] = LIMITS;
    for (name, value) in decode::fields(value, &["patterns", a, b, c, d])? {
        if name == "patterns" {
            out.patterns = Some(decode::list(value, decode::text).at(name)?);
        } else {
            limit(&mut out.limits, name, value).at(name)?;
        }
    }
    Ok(out)
}

fn keep_untagged(value: &Tree) -> Result<Limits, Bad> {
    let mut out = Limits::default();
    for (name, value) in decode::fields(value, &LIMITS)? {
        limit(&mut out, name, value).at(name)?;
    }
    Ok(out)
}

fn sub_path(value: &Tree, fields: FieldSet) -> Result<Store, Bad> {
    let mut store = Store::default();
    if *value != Tree::Null {
        for (name, value) in decode::fields(value, &store_fields(fields, false))? {
            store_field(&mut store, name, value, fields).at(name)?;
        }
    }
    Ok(store)
}

/// The text that is hashed. It holds secrets in the clear: never log or print it.
#[derive(PartialEq, Eq)]
pub struct HashedText(String);

impl HashedText {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for HashedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes, not shown)", self.0.len())
    }
}

/// The storage config at the moment zot takes the fingerprint. Dereferences to the global [`Store`].
#[derive(Debug)]
pub struct EffectiveStorage {
    global: Store,
    sub_paths: Option<BTreeMap<String, Store>>,
    fast_restart: Option<bool>,
    fields: FieldSet,
    text: HashedText,
    notices: Vec<String>,
}

impl Deref for EffectiveStorage {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.global
    }
}

impl EffectiveStorage {
    /// Stores mounted under a repository prefix (folded to lower case).
    #[must_use]
    pub fn sub_paths(&self) -> Option<&BTreeMap<String, Store>> {
        self.sub_paths.as_ref()
    }

    /// The global store and all subpaths, with the key of each as people write it.
    pub fn stores(&self) -> impl Iterator<Item = (String, &Store)> {
        let sub_paths = self.sub_paths.iter().flatten();
        std::iter::once(("storage".to_owned(), &self.global))
            .chain(sub_paths.map(|(name, store)| (format!("storage.subPaths[{name:?}]"), store)))
    }

    /// Whether zot looks at the stamp at all. Not part of the fingerprint.
    #[must_use]
    pub fn fast_restart(&self) -> Option<bool> {
        self.fast_restart
    }

    /// The release's field list this was decoded with.
    #[must_use]
    pub fn fields(&self) -> FieldSet {
        self.fields
    }

    /// The exact text zot hashes (spec §3). Secret.
    #[must_use]
    pub fn text(&self) -> &HashedText {
        &self.text
    }

    /// What was assumed or changed on the way and might surprise: the hard-link verdict, a stale `cache.db`.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The same shape as the hashed text, secrets redacted, fit for output.
    #[must_use]
    pub fn redacted_json(&self) -> serde_json::Value {
        super::render::redacted(self)
    }

    /// Decode and complete the section. Recurses as deep as the config is nested.
    pub(super) fn build(tree: &Tree, folded: &Tree, fields: FieldSet, dedupe: &DedupeProbe) -> Result<Self, Bad> {
        let mut out = EffectiveStorage {
            global: Store { dedupe: true, gc: true, gc_delay: HOUR, gc_interval: HOUR, ..Store::default() },
            sub_paths: None,
            fast_restart: None,
            fields,
            text: HashedText(String::new()),
            notices: Vec::new(),
        };
        if *tree != Tree::Null {
            for (name, value) in decode::fields(tree, &store_fields(fields, true))? {
                match name {
                    "subPaths" => out.sub_paths = decode::map_of(value, &|value| sub_path(value, fields)).at(name)?,
                    "fastRestart" => out.fast_restart = Some(decode::boolean(value).at(name)?),
                    _ => store_field(&mut out.global, name, value, fields).at(name)?,
                }
            }
        }
        out.fill_defaults(&|key: &str| lookup(folded, &format!("storage::{key}")).is_some());
        out.open_stores(dedupe);
        for (prefix, store) in std::iter::once((None, &out.global))
            .chain(out.sub_paths.iter().flatten().map(|(name, store)| (Some(name), store)))
        {
            for (field, driver) in [("storageDriver", &store.storage_driver), ("cacheDriver", &store.cache_driver)] {
                if driver.as_ref().is_some_and(DriverParams::has_non_finite) {
                    let bad: Result<(), Bad> = Err(Bad::non_finite()).at(field);
                    match prefix {
                        None => bad?,
                        Some(name) => bad.at(name).at("subPaths")?,
                    }
                }
            }
        }
        let mut text = String::new();
        super::render::push_hashed(&mut text, &out.global, out.sub_paths.as_ref(), fields);
        out.text = HashedText(text);
        Ok(out)
    }

    /// Spec §2.1 and §2.2.
    fn fill_defaults(&mut self, is_set: &dyn Fn(&str) -> bool) {
        let store = &mut self.global;
        if store.gc {
            if !is_set("retention::delay") {
                store.retention.delay = store.gc_delay;
            }
        } else {
            if !is_set("gcdelay") {
                store.gc_delay = 0;
            }
            if !is_set("retention::delay") {
                store.retention.delay = 0;
            }
            if !is_set("gcinterval") {
                store.gc_interval = 0;
            }
        }
        fill_delete_untagged(store, "", is_set);
        fill_remote_cache(store, "storage", "", is_set, &mut self.notices);
        if let Some(driver) = &mut store.storage_driver
            && driver.name() == Some("s3")
            && driver.get("regionendpoint").is_some()
            && driver.get("forcepathstyle").is_none()
        {
            driver.0.insert("forcepathstyle".into(), Tree::Bool(true));
        }

        for (name, store) in self.sub_paths.iter_mut().flatten() {
            let at = format!("subpaths::{name}::");
            fill_remote_cache(store, &format!("storage.subPaths[{name:?}]"), &at, is_set, &mut self.notices);
            if store.gc {
                if !is_set(&format!("{at}gcdelay")) {
                    store.gc_delay = HOUR;
                }
                if !is_set(&format!("{at}retention::delay")) {
                    store.retention.delay = store.gc_delay;
                }
                if !is_set(&format!("{at}gcinterval")) {
                    store.gc_interval = HOUR;
                }
            }
            fill_delete_untagged(store, &at, is_set);
        }
    }

    /// Spec §2.4: the hard-link probe changes the global store only; `/zot` is filled in for all.
    fn open_stores(&mut self, dedupe: &DedupeProbe) {
        if self.global.dedupe && self.global.storage_driver.is_none() {
            match dedupe {
                DedupeProbe::Works => {}
                DedupeProbe::Broken(reason) => {
                    self.global.dedupe = false;
                    self.notices.push(format!("zot turns dedupe off for storage.rootDirectory: {reason}"));
                }
                DedupeProbe::Untried(reason) => self.notices.push(reason.clone()),
            }
        }
        let sub_paths = self.sub_paths.iter_mut().flatten().map(|(_, store)| store);
        for store in std::iter::once(&mut self.global).chain(sub_paths) {
            if let Some(driver) = &mut store.storage_driver
                && matches!(driver.name(), Some("gcs" | "azure"))
                && matches!(driver.get("rootdirectory"), None | Some(Tree::Null))
                    | matches!(driver.text("rootdirectory"), Some("" | "/"))
            {
                driver.0.insert("rootdirectory".into(), Tree::Text("/zot".into()));
            }
        }
    }
}

/// `policies` given as a single map makes the index lookup fail, so the file's `false` is overridden, as in zot.
fn fill_delete_untagged(store: &mut Store, at: &str, is_set: &dyn Fn(&str) -> bool) {
    for (index, policy) in store.retention.policies.iter_mut().flatten().enumerate() {
        if !is_set(&format!("{at}retention::policies::{index}::deleteuntagged")) {
            policy.delete_untagged = Some(true);
        }
    }
}

fn fill_remote_cache(
    store: &mut Store,
    shown: &str,
    at: &str,
    is_set: &dyn Fn(&str) -> bool,
    notices: &mut Vec<String>,
) {
    let Some(driver) = &store.storage_driver else { return };
    if store.dedupe {
        if !is_set(&format!("{at}remotecache")) {
            store.remote_cache = true;
        }
    } else {
        // The driver's root, on the local disk: that is where zot looks for the cache of earlier days.
        let stale = Path::new(driver.text("rootdirectory").unwrap_or("")).join("cache.db");
        if stale.exists() && store.remote_cache {
            store.remote_cache = false;
            notices.push(format!("{shown}: zot takes remoteCache as false because {} exists", stale.display()));
        }
    }
}

impl Bad {
    fn non_finite() -> Self {
        let mut bad = Bad::wrong(&Tree::Null, "");
        bad.reason = Reason::WrongType("holds NaN or an infinity: zot panics when it logs such a config".into());
        bad
    }
}
