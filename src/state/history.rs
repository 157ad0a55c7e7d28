//! Stamps that were written, and what changed between two storage configs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One stamp and the config under which it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StampRecord {
    /// The whole stamp.
    pub stamp: String,
    /// Its second half.
    pub fingerprint: String,
    /// When metactl last wrote it, in seconds since 1970.
    pub written_at: i64,
    /// The storage section that was hashed, redacted.
    pub config: Value,
}

impl StampRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// One key that differs between two configs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key as people write it: `storage.gcDelay`.
    pub key: String,
    /// Value then; `None` if the key was not there.
    pub before: Option<Value>,
    /// Value now.
    pub now: Option<Value>,
}

/// Every key whose value differs. Empty although the fingerprints differ: only a secret changed, or what metactl hashes.
#[must_use]
pub fn changes(before: &Value, now: &Value) -> Vec<Change> {
    let mut out = Vec::new();
    compare("storage", Some(before), Some(now), &mut out);
    out
}

fn compare(key: &str, before: Option<&Value>, now: Option<&Value>, out: &mut Vec<Change>) {
    if before == now {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(now))) = (before, now) {
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        for name in keys {
            compare(&format!("{key}.{}", spelled(name)), before.get(name), now.get(name), out);
        }
        return;
    }
    if let (Some(Value::Array(before)), Some(Value::Array(now))) = (before, now)
        && before.len() == now.len()
    {
        for (at, (before, now)) in before.iter().zip(now).enumerate() {
            compare(&format!("{key}[{at}]"), Some(before), Some(now), out);
        }
        return;
    }
    out.push(Change { key: key.to_owned(), before: before.cloned(), now: now.cloned() });
}

/// Go's field names (`GCDelay`) as configs spell them (`gcDelay`); other keys as they are.
fn spelled(name: &str) -> String {
    let capitals = name.bytes().take_while(u8::is_ascii_uppercase).count();
    let lower = if capitals == name.len() { capitals } else { capitals.saturating_sub(1).max(capitals.min(1)) };
    name.char_indices().map(|(at, c)| if at < lower { c.to_ascii_lowercase() } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_spelled_as_in_configs() {
        for (field, key) in [
            ("GC", "gc"),
            ("GCDelay", "gcDelay"),
            ("RootDirectory", "rootDirectory"),
            ("RedirectBlobURL", "redirectBlobURL"),
            ("bucket", "bucket"),
            ("/a", "/a"),
        ] {
            assert_eq!(spelled(field), key);
        }
    }

    #[test]
    fn changed_keys_are_named() {
        let before = json!({"GCDelay": 1, "Dedupe": true, "SubPaths": {"/a": {"GC": true}}, "Retention": {"Policies": [{"X": 1}]}});
        let now = json!({"GCDelay": 2, "Dedupe": true, "SubPaths": {"/a": {"GC": false}, "/b": {}}, "Retention": {"Policies": [{"X": 2}]}});
        let found: Vec<String> = changes(&before, &now).into_iter().map(|change| change.key).collect();
        assert_eq!(
            found,
            ["storage.gcDelay", "storage.retention.policies[0].x", "storage.subPaths./a.gc", "storage.subPaths./b"]
        );
        assert_eq!(changes(&now, &now), []);
    }
}
