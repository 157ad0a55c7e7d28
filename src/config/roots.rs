//! Root directories that zot refuses to use side by side (spec §2.3): those of stores of the same kind that are the
//! same or nested.
//!
//! zot makes paths absolute in its own working directory, which is unknown here. So an absolute path is never compared
//! with a relative one, and one that leaves the working directory with none.

use std::collections::HashMap;

use super::driver::DriverParams;
use super::storage::EffectiveStorage;

/// One store's root directory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Root<'a> {
    /// Name of the storage driver, `None` for the local disk.
    driver: Option<&'a str>,
    absolute: bool,
    parts: Vec<&'a str>,
    store: String,
}

impl Root<'_> {
    /// zot takes a path for nested unless the way down to it begins with `..`, as that to `..x` does.
    fn holds(&self, other: &Self) -> bool {
        let below = other.parts.strip_prefix(self.parts.as_slice()).and_then(<[_]>::first);
        self.comparable(other) && below.is_some_and(|first| !first.starts_with(".."))
    }

    /// One directory spelt in two ways passes zot's comparison of paths, but local stores are compared again, as files,
    /// with the global one, when it has been opened.
    fn is_local_global_of(&self, other: &Self) -> bool {
        let global = self.store == GLOBAL || other.store == GLOBAL;
        global && self.driver.is_none() && self.comparable(other) && self.parts == other.parts
    }

    fn comparable(&self, other: &Self) -> bool {
        self.driver == other.driver && self.absolute == other.absolute
    }
}

/// The global store's key.
const GLOBAL: &str = "storage";

/// Report stores of the same kind that share or nest their root directories.
pub(super) fn shared(storage: &EffectiveStorage, refuse: &mut dyn FnMut(String)) {
    let mut as_written: HashMap<(Option<&str>, String), String> = HashMap::new();
    let mut roots = Vec::new();
    for (store, settings) in storage.stores() {
        let driver = settings.storage_driver.as_ref().map(|driver| DriverParams::name(driver).unwrap_or(""));
        let text = settings.root_directory.as_str();
        // Case is ignored only between paths as they are written.
        if let Some(other) = as_written.get(&(driver, text.to_lowercase())) {
            refuse(format!("the root directories of {other} and {store} are the same"));
            continue;
        }
        as_written.insert((driver, text.to_lowercase()), store.clone());
        roots.extend(clean(text).map(|parts| Root { driver, absolute: text.starts_with('/'), parts, store }));
    }
    // In path order every root comes after those that hold it; these are on the stack, the innermost last.
    roots.sort();
    let mut above: Vec<Root<'_>> = Vec::new();
    for root in roots {
        while above.pop_if(|holder| !holder.comparable(&root) || !root.parts.starts_with(&holder.parts)).is_some() {}
        if let Some(holder) = above.iter().rev().find(|holder| holder.holds(&root)) {
            refuse(format!("the root directories of {} and {} are nested", holder.store, root.store));
        } else if let Some(same) = above.iter().rev().find(|same| same.is_local_global_of(&root)) {
            refuse(format!("the root directories of {} and {} are the same", same.store, root.store));
        }
        // The global store sorts before others of the same directory, so it is the one that is kept.
        if above.last().is_none_or(|last| last.parts != root.parts) {
            above.push(root);
        }
    }
}

/// The parts of a path without `.` and `..`; `None` if it leaves the working directory.
fn clean(path: &str) -> Option<Vec<&str>> {
    let mut out = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            out.push(part);
        } else if out.pop().is_none() && !path.starts_with('/') {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{config, storage};

    #[test]
    fn as_zot_compares_them() {
        for (global, sub, found) in [
            ("/tmp/A", "/tmp/a", "the same"),
            ("data", "DATA", "the same"),
            ("/tmp/b", "/tmp/b/", "the same"),
            ("data", "./data", "the same"),
            ("/tmp/b", "/tmp/b/c", "nested"),
            ("/tmp/b/c", "/tmp/b", "nested"),
            ("/tmp/b", "/tmp/x/../b/c", "nested"),
            ("/", "/tmp", "nested"),
            (".", "data", "nested"),
            ("data/a", "data", "nested"),
            ("/tmp/b", "/tmp/b/.x", "nested"),
            ("/tmp/A", "/tmp/a/b", ""),
            ("/tmp/ab", "/tmp/a", ""),
            (".", "/tmp/b", ""),
            ("data", "/data", ""),
            ("..", "data", ""),
            ("/tmp/b", "/tmp/b/..x", ""),
            ("/tmp/b", "/tmp/b/..x/y", ""),
        ] {
            let config =
                config(&json!({"storage": {"rootDirectory": global, "subPaths": {"/a": {"rootDirectory": sub}}}}));
            let problems = config.problems(&storage(&config));
            let want = match found {
                "" => Vec::new(),
                how => vec![format!(
                    "zot would refuse to start: the root directories of storage and storage.subPaths[\"/a\"] are {how}"
                )],
            };
            let named: Vec<String> = problems
                .iter()
                .map(|text| {
                    text.replace(
                        "of storage.subPaths[\"/a\"] and storage are",
                        "of storage and storage.subPaths[\"/a\"] are",
                    )
                })
                .collect();
            assert_eq!(named, want, "{global} {sub}");
        }
    }

    #[test]
    fn between_subpaths_and_kinds() {
        let s3 = json!({"name": "s3"});
        for (a, b, problems) in [
            (json!({"rootDirectory": "/a"}), json!({"rootDirectory": "/a/b"}), 1),
            (json!({"rootDirectory": "/a", "storageDriver": s3}), json!({"rootDirectory": "/a/b"}), 0),
            (json!({"rootDirectory": "/a"}), json!({"rootDirectory": "/a/"}), 0),
            (json!({"rootDirectory": "/a"}), json!({"rootDirectory": "/A"}), 1),
            // The root of an object store matters only where a cache is opened in it.
            (
                json!({"storageDriver": s3, "remoteCache": true, "cacheDriver": {"name": "dynamodb"}}),
                json!({"rootDirectory": "/a"}),
                0,
            ),
            (json!({"storageDriver": s3, "remoteCache": false}), json!({"rootDirectory": "/a"}), 1),
            (json!({"gc": false}), json!({"rootDirectory": "/a"}), 1),
        ] {
            let sub = json!({"rootDirectory": "/r", "subPaths": {"/a": a, "/b": b}});
            let config = config(&json!({"storage": sub}));
            let found = config.problems(&storage(&config));
            assert_eq!(found.len(), problems, "{sub}: {found:?}");
        }
    }
}
