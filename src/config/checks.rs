//! zot's semantic validation: configs it can parse but refuses to start with (spec §2.3, §6.3), and those it panics on
//! when it opens the metaDB (§6.4, §6.5). Nothing here changes the fingerprint.

use super::blob_cache::BlobCacheChoice;
use super::driver::DriverParams;
use super::metadb_choice::{MetaDb, MetaDbChoice};
use super::pattern;
use super::roots;
use super::sections::Sections;
use super::storage::{EffectiveStorage, Store};
use super::tree::Tree;

/// Tables the metaDB needs, besides `endpoint` and `region`.
const DYNAMODB_REQUIRED: [&str; 8] = [
    "endpoint",
    "region",
    "repometatablename",
    "repoblobsinfotablename",
    "imagemetatablename",
    "userdatatablename",
    "apikeytablename",
    "versiontablename",
];

/// Everything found, one sentence each.
pub(super) fn problems(sections: &Sections, storage: &EffectiveStorage, metadb: &MetaDb) -> Vec<String> {
    let mut out = Vec::new();
    let mut refuse = |text: String| out.push(refusal(&text));

    if storage.root_directory.is_empty() {
        refuse("storage.rootDirectory is empty".into());
    }
    if storage.gc_delay < 0 {
        refuse("storage.gcDelay is negative".into());
    }
    if storage.gc_interval < 0 {
        refuse("storage.gcInterval is negative".into());
    }
    for (name, store) in storage.sub_paths().into_iter().flatten() {
        if store.gc && store.gc_delay <= 0 {
            refuse(format!("storage.subPaths[{name:?}].gcDelay must be above 0 when gc is on"));
        }
        if store.root_directory.is_empty()
            && (store.storage_driver.is_none() || matches!(BlobCacheChoice::of(store), BlobCacheChoice::Bolt { .. }))
        {
            refuse(format!("storage.subPaths[{name:?}].rootDirectory is empty"));
        }
    }
    for (name, store) in storage.stores() {
        patterns(&name, store, &mut refuse);
        drivers(&name, store, &mut refuse);
    }
    roots::shared(storage, &mut refuse);
    remote_caches(storage, &mut refuse);

    let remote = storage.stores().any(|(_, store)| store.storage_driver.is_some());
    if remote && sections.sync == Some(false) {
        refuse("sync with a storage driver needs extensions.sync.downloadDir".into());
    }
    if remote && sections.cve {
        refuse("CVE scanning (extensions.search.cve) does not work with a storage driver".into());
    }
    if sections.ui && !sections.search {
        refuse("extensions.ui needs extensions.search".into());
    }
    if let Some(level) = &sections.log_level
        && !log_level(level)
    {
        refuse(format!("{level:?} is no log level (log.level)"));
    }
    if let Some(port) = &sections.http.port
        && !(port.is_empty() || port.parse::<i64>().is_ok_and(|port| (0..=65_535).contains(&port)))
    {
        refuse(format!("{port:?} is no port (http.port)"));
    }
    if metadb.used {
        opening_the_metadb(&metadb.choice, &mut refuse);
    }
    out
}

/// A problem as a sentence.
pub(super) fn refusal(text: &str) -> String {
    format!("zot would refuse to start: {text}")
}

fn log_level(level: &str) -> bool {
    const LEVELS: [&str; 8] = ["debug", "trace", "info", "warn", "warning", "error", "fatal", "panic"];
    LEVELS.contains(&level.to_lowercase().as_str())
}

fn patterns(name: &str, store: &Store, refuse: &mut dyn FnMut(String)) {
    for (index, policy) in store.retention.policies.iter().flatten().enumerate() {
        let at = format!("{name}.retention.policies[{index}]");
        for glob in policy.repositories.iter().flatten() {
            if let Some(why) = pattern::glob_problem(glob) {
                refuse(format!("repository glob {glob:?} {why} ({at}.repositories)"));
            }
        }
        for (index, keep) in policy.keep_tags.iter().flatten().enumerate() {
            for regex in keep.patterns.iter().flatten() {
                if let Some(why) = pattern::regex_problem(regex) {
                    refuse(format!("tag pattern {regex:?} {why} ({at}.keepTags[{index}].patterns)"));
                }
            }
        }
    }
}

fn drivers(name: &str, store: &Store, refuse: &mut dyn FnMut(String)) {
    match &store.storage_driver {
        None if store.redirect_blob_url => refuse(format!("{name}.redirectBlobURL needs a storageDriver")),
        Some(driver) if !matches!(driver.name(), Some("s3" | "gcs" | "azure")) => {
            refuse(format!("{name}.storageDriver.name is none of s3, gcs, azure"));
        }
        _ => {}
    }
}

/// Spec §6.3.
fn remote_caches(storage: &EffectiveStorage, refuse: &mut dyn FnMut(String)) {
    for (name, store) in storage.stores() {
        let global = name == "storage";
        let cache = store.cache_driver.as_ref();
        let cache_name = cache.and_then(DriverParams::name);
        let remote_storage = store.storage_driver.is_some();
        if store.dedupe && remote_storage && store.remote_cache && cache.is_none() {
            refuse(format!(
                "{name}: dedupe set to true with remote storage and database, but no remote database configured \
                 (add a cacheDriver, or set dedupe or remoteCache to false)"
            ));
        }
        if !store.remote_cache || cache.is_none() {
            continue;
        }
        match (global, remote_storage, cache_name) {
            (true, false, Some("redis")) => {}
            (_, false, _) => refuse(format!("{name}: cannot have local storage driver with remote database!")),
            (true, true, Some("redis")) | (_, true, Some("dynamodb")) => {}
            (_, true, _) => refuse(format!("{name}: unsupported database driver in cacheDriver.name")),
        }
    }
}

fn opening_the_metadb(choice: &MetaDbChoice, refuse: &mut dyn FnMut(String)) {
    match choice {
        MetaDbChoice::Bolt { .. } | MetaDbChoice::Redb { .. } => {}
        MetaDbChoice::Invalid { reason } => refuse(reason.clone()),
        MetaDbChoice::Redis(params) => {
            match params.get("keyprefix") {
                None => {}
                Some(Tree::Text(prefix)) if !prefix.is_empty() => {}
                Some(_) => refuse("storage.cacheDriver.keyprefix must be a non-empty string".into()),
            }
            if params.get("url").is_some_and(|url| url.as_text().is_none()) {
                refuse("storage.cacheDriver.url must be a string".into());
            }
        }
        MetaDbChoice::DynamoDb(params) => {
            for key in DYNAMODB_REQUIRED {
                if params.text(key).is_none_or(str::is_empty) {
                    refuse(format!("storage.cacheDriver.{key} must be a non-empty string"));
                }
            }
            if params.text("cachetablename").is_none() {
                refuse("storage.cacheDriver.cachetablename must be a string".into());
            }
        }
    }
}
