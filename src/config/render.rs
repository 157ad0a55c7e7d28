//! The two texts of an effective storage config: the one that is hashed (spec §3.1, §3.2) and the redacted one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::FieldSet;
use super::driver::DriverParams;
use super::storage::{EffectiveStorage, KeepTags, Limits, Policy, Store};
use crate::gojson;

/// A Go struct being written: names need no escaping.
struct Object<'o> {
    out: &'o mut String,
    first: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    fn name(&mut self, name: &str) -> &mut String {
        if !std::mem::take(&mut self.first) {
            self.out.push(',');
        }
        let _ = write!(self.out, "\"{name}\":");
        self.out
    }

    fn bool(&mut self, name: &str, value: bool) {
        self.name(name).push_str(if value { "true" } else { "false" });
    }

    fn int(&mut self, name: &str, value: i64) {
        let _ = write!(self.name(name), "{value}");
    }

    fn optional_int(&mut self, name: &str, value: Option<i64>) {
        match value {
            Some(value) => self.int(name, value),
            None => self.null(name),
        }
    }

    fn null(&mut self, name: &str) {
        self.name(name).push_str("null");
    }

    fn string(&mut self, name: &str, value: &str) {
        gojson::push_string(self.name(name), value);
    }

    fn list<T>(&mut self, name: &str, items: Option<&Vec<T>>, push: impl Fn(&mut String, &T)) {
        let Some(items) = items else { return self.null(name) };
        gojson::push_list(self.name(name), items, push);
    }

    fn driver(&mut self, name: &str, driver: Option<&DriverParams>) {
        match driver {
            Some(driver) => driver.push_hashed(self.name(name)),
            None => self.null(name),
        }
    }

    fn close(self) {
        self.out.push('}');
    }
}

/// Append the hashed text of the whole section.
pub(super) fn push_hashed(
    out: &mut String,
    global: &Store,
    sub_paths: Option<&BTreeMap<String, Store>>,
    fields: FieldSet,
) {
    let mut object = Object::open(out);
    push_store(&mut object, global, fields);
    match sub_paths {
        None => object.null("SubPaths"),
        Some(stores) => {
            let out = object.name("SubPaths");
            out.push('{');
            for (index, (name, store)) in stores.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                gojson::push_string(out, name);
                out.push(':');
                let mut object = Object::open(out);
                push_store(&mut object, store, fields);
                object.close();
            }
            out.push('}');
        }
    }
    // Whether to look at the stamp must not change the stamp.
    object.null("FastRestart");
    object.close();
}

fn push_store(object: &mut Object<'_>, store: &Store, fields: FieldSet) {
    object.string("RootDirectory", &store.root_directory);
    object.int("MaxRepos", store.max_repos);
    object.bool("Dedupe", store.dedupe);
    object.bool("RemoteCache", store.remote_cache);
    if fields.redirect_blob_url {
        object.bool("RedirectBlobURL", store.redirect_blob_url);
    }
    object.bool("GC", store.gc);
    object.bool("Commit", store.commit);
    object.int("GCDelay", store.gc_delay);
    object.int("GCInterval", store.gc_interval);
    if fields.gc_time_window {
        object.string("GCTimeWindow", &store.gc_time_window);
    }
    let mut retention = Object::open(object.name("Retention"));
    retention.bool("DryRun", store.retention.dry_run);
    retention.int("Delay", store.retention.delay);
    retention.list("Policies", store.retention.policies.as_ref(), |out, policy| push_policy(out, policy, fields));
    retention.close();
    object.driver("StorageDriver", store.storage_driver.as_ref());
    object.driver("CacheDriver", store.cache_driver.as_ref());
    // Excluded from the fingerprint by being zeroed.
    object.int("GCMaxSchedulerDelay", 0);
}

fn push_policy(out: &mut String, policy: &Policy, fields: FieldSet) {
    let mut object = Object::open(out);
    object.list("Repositories", policy.repositories.as_ref(), |out, text| gojson::push_string(out, text));
    object.bool("DeleteReferrers", policy.delete_referrers);
    match policy.delete_untagged {
        Some(value) => object.bool("DeleteUntagged", value),
        None => object.null("DeleteUntagged"),
    }
    object.list("KeepTags", policy.keep_tags.as_ref(), push_keep_tags);
    if fields.keep_untagged {
        match &policy.keep_untagged {
            None => object.null("KeepUntagged"),
            Some(limits) => {
                let mut inner = Object::open(object.name("KeepUntagged"));
                push_limits(&mut inner, limits);
                inner.close();
            }
        }
    }
    object.close();
}

fn push_keep_tags(out: &mut String, keep: &KeepTags) {
    let mut object = Object::open(out);
    object.list("Patterns", keep.patterns.as_ref(), |out, text| gojson::push_string(out, text));
    push_limits(&mut object, &keep.limits);
    object.close();
}

fn push_limits(object: &mut Object<'_>, limits: &Limits) {
    object.optional_int("PulledWithin", limits.pulled_within);
    object.optional_int("PushedWithin", limits.pushed_within);
    object.int("MostRecentlyPushedCount", limits.most_recently_pushed_count);
    object.int("MostRecentlyPulledCount", limits.most_recently_pulled_count);
}

/// The section in the shape of the hashed text, with the values that the fingerprint leaves out, secrets redacted.
pub(super) fn redacted(storage: &EffectiveStorage) -> Value {
    let fields = storage.fields();
    let mut out = store_json(storage, fields);
    let sub_paths = storage
        .sub_paths()
        .map(|stores| stores.iter().map(|(name, store)| (name.clone(), store_json(store, fields))).collect::<Value>());
    if let Value::Object(map) = &mut out {
        map.insert("SubPaths".into(), sub_paths.unwrap_or_default());
        map.insert("FastRestart".into(), json!(storage.fast_restart()));
    }
    out
}

fn store_json(store: &Store, fields: FieldSet) -> Value {
    let policies = store
        .retention
        .policies
        .as_ref()
        .map(|policies| policies.iter().map(|policy| policy_json(policy, fields)).collect::<Vec<_>>());
    let mut out = json!({
        "RootDirectory": store.root_directory,
        "MaxRepos": store.max_repos,
        "Dedupe": store.dedupe,
        "RemoteCache": store.remote_cache,
        "GC": store.gc,
        "Commit": store.commit,
        "GCDelay": store.gc_delay,
        "GCInterval": store.gc_interval,
        "Retention": { "DryRun": store.retention.dry_run, "Delay": store.retention.delay, "Policies": policies },
        "StorageDriver": store.storage_driver.as_ref().map(DriverParams::redacted),
        "CacheDriver": store.cache_driver.as_ref().map(DriverParams::redacted),
        "GCMaxSchedulerDelay": store.gc_max_scheduler_delay,
    });
    if let Value::Object(map) = &mut out {
        if fields.redirect_blob_url {
            map.insert("RedirectBlobURL".into(), json!(store.redirect_blob_url));
        }
        if fields.gc_time_window {
            map.insert("GCTimeWindow".into(), json!(store.gc_time_window));
        }
    }
    out
}

fn policy_json(policy: &Policy, fields: FieldSet) -> Value {
    let keep_tags = policy.keep_tags.as_ref().map(|tags| {
        tags.iter()
            .map(|keep| {
                let mut out = limits_json(&keep.limits);
                if let Value::Object(map) = &mut out {
                    map.insert("Patterns".into(), json!(keep.patterns));
                }
                out
            })
            .collect::<Vec<_>>()
    });
    let mut out = json!({
        "Repositories": policy.repositories,
        "DeleteReferrers": policy.delete_referrers,
        "DeleteUntagged": policy.delete_untagged,
        "KeepTags": keep_tags,
    });
    if fields.keep_untagged
        && let Value::Object(map) = &mut out
    {
        map.insert("KeepUntagged".into(), policy.keep_untagged.as_ref().map(limits_json).unwrap_or_default());
    }
    out
}

fn limits_json(limits: &Limits) -> Value {
    json!({
        "PulledWithin": limits.pulled_within,
        "PushedWithin": limits.pushed_within,
        "MostRecentlyPushedCount": limits.most_recently_pushed_count,
        "MostRecentlyPulledCount": limits.most_recently_pulled_count,
    })
}
