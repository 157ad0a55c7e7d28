//! The walk against zot's own, transcribed: `doWalk` and `directoryDiff` of distribution's S3 driver, `WalkFallback` for
//! the others, and the callback of zot's `GetRepositories`, over sets of keys.

use super::super::super::rules::valid_repo_name;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Keys = BTreeSet<String>;

/// Names of what lies directly in a directory: objects, then directories.
fn list(keys: &Keys, directory: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let (mut objects, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for rest in keys.iter().filter_map(|key| key.strip_prefix(&prefix)) {
        match rest.split_once('/') {
            Some((first, _)) => directories.insert(first.to_owned()),
            None => objects.insert(rest.to_owned()),
        };
    }
    (objects, directories)
}

fn validate(keys: &Keys, name: &str) -> bool {
    let (objects, directories) = list(keys, name);
    let mut entries = objects.iter().chain(&directories);
    valid_repo_name(name)
        && objects.len() + directories.len() >= 2
        && entries.clone().any(|entry| entry == "index.json")
        && entries.any(|entry| entry.ends_with("oci-layout"))
}

/// What zot's callback says of a directory: whether to skip it.
fn visit(keys: &Keys, path: &str, found: &mut Vec<String>) -> bool {
    if [".sync", "blobs", ".uploads"].iter().any(|suffix| path.ends_with(suffix)) {
        return true;
    }
    if validate(keys, path) {
        found.push(path.to_owned());
    }
    false
}

fn zots_s3_walk(keys: &Keys) -> Vec<String> {
    let mut found = Vec::new();
    let (mut previous, mut last_skipped) = (String::new(), String::new());
    for key in keys {
        let mut directories = Vec::new();
        let mut parent = key.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            parent = above;
            if parent == previous || format!("{previous}/").starts_with(&format!("{parent}/")) {
                break;
            }
            directories.push(parent.to_owned());
        }
        for directory in directories.into_iter().rev() {
            previous.clone_from(&directory);
            if !last_skipped.is_empty() && directory.starts_with(&last_skipped) {
                continue;
            }
            if visit(keys, &directory, &mut found) {
                last_skipped = directory;
            }
        }
    }
    found
}

fn zots_fallback_walk(keys: &Keys, from: &str, found: &mut Vec<String>) {
    let (objects, directories) = list(keys, from);
    for base in objects.union(&directories) {
        let path = if from.is_empty() { base.clone() } else { format!("{from}/{base}") };
        let is_directory = !keys.contains(&path);
        if is_directory && !visit(keys, &path, found) {
            zots_fallback_walk(keys, &path, found);
        }
    }
}

/// Our walk, and the directories it listed.
fn ours(driver: Driver, want: Want, keys: &Keys) -> (Vec<String>, Vec<String>) {
    let listed = std::cell::RefCell::new(Vec::new());
    let found = walk(driver, want, &Cancel::default(), &|names| {
        listed.borrow_mut().extend(names.iter().cloned());
        Ok(names
            .iter()
            .map(|name| {
                let (objects, directories) = list(keys, name);
                let entries = || objects.iter().chain(&directories);
                let is_repo = entries().any(|entry| entry == "index.json")
                    && entries().any(|entry| entry.ends_with("oci-layout"));
                Directory { directories, objects, is_repo: is_repo && !name.is_empty() }
            })
            .collect())
    });
    (found.unwrap(), listed.into_inner())
}

fn keys(paths: &[&str]) -> Keys {
    paths
        .iter()
        .flat_map(|path| ["index.json", "oci-layout", "blobs/sha256/00"].map(|name| format!("{path}/{name}")))
        .collect()
}

#[test]
fn names_that_begin_like_a_skipped_one_are_hidden_on_s3_only() {
    let keys = keys(&["foo", "foo/blobs2", "foo/blobsx/y", "foo/blobs-x", "foo/c", "foo-bar", "foo.bar"]);
    let (found, listed) = ours(Driver::S3, Want::Listed, &keys);
    assert_eq!(found, ["foo-bar", "foo.bar", "foo", "foo/blobs-x", "foo/c"]);
    assert!(listed.iter().all(|name| !name.ends_with("/blobs")), "{listed:?}");
    assert_eq!(ours(Driver::S3, Want::Skipped, &keys).0, ["foo/blobs2", "foo/blobsx/y"]);
    let (found, _) = ours(Driver::Gcs, Want::Listed, &keys);
    assert_eq!(found, ["foo", "foo/blobs-x", "foo/blobs2", "foo/blobsx/y", "foo/c", "foo-bar", "foo.bar"]);
}

#[test]
fn an_object_hides_the_directory_of_its_name_except_on_s3() {
    let mut keys = keys(&["a", "a/b"]);
    keys.insert("a/b".to_owned());
    assert_eq!(ours(Driver::S3, Want::Listed, &keys).0, ["a", "a/b"]);
    assert_eq!(ours(Driver::Azure, Want::Listed, &keys).0, ["a"]);
}

#[test]
fn an_error_in_one_directory_is_an_error_of_all() {
    let failing = |names: Vec<String>| match names.iter().any(|name| name == "a") {
        true => Err(StorageError::NotFound { what: "a".into() }),
        false => Ok(vec![Directory { directories: ["a".to_owned()].into(), ..Directory::default() }]),
    };
    assert!(walk(Driver::S3, Want::Listed, &Cancel::default(), &failing).is_err());
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(matches!(walk(Driver::S3, Want::Listed, &cancel, &failing), Err(StorageError::Cancelled)));
}

/// Names that matter, and names that differ from them by little.
fn component() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "a-b",
        "a.b",
        "a0",
        "b",
        "blobs",
        "blobs2",
        "blobs-x",
        "blobs.y",
        "myblobs",
        "myblobsx",
        "myblobs-z",
        ".uploads",
        "x.uploads",
        "x.uploads2",
        "x.sync",
        "x.syncy",
        ".sync",
        "A",
        "_x",
        "index.json",
        "oci-layout",
        "sha256",
        "sha256x",
    ])
    .prop_map(str::to_owned)
}

fn key_set() -> impl Strategy<Value = Keys> {
    let path = prop::collection::vec(component(), 1..5).prop_map(|parts| parts.join("/"));
    let file = prop::sample::select(vec![
        &["index.json", "oci-layout"][..],
        &["index.json", "my-oci-layout"],
        &["index.json"],
        &["oci-layout", "x"],
        &["index.json/x", "oci-layout"],
        &["blobs/sha256/00", "index.json", "oci-layout"],
        &[],
    ]);
    prop::collection::vec((path, file), 0..12).prop_map(|entries| {
        let files = entries.into_iter().flat_map(|(path, files)| match files {
            [] => vec![path],
            files => files.iter().map(|file| format!("{path}/{file}")).collect(),
        });
        files.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn s3_is_walked_as_zot_walks_it(keys in key_set()) {
        prop_assert_eq!(ours(Driver::S3, Want::Listed, &keys).0, zots_s3_walk(&keys));
    }

    #[test]
    fn gcs_and_azure_are_walked_as_zot_walks_them(keys in key_set()) {
        let mut expected = Vec::new();
        zots_fallback_walk(&keys, "", &mut expected);
        prop_assert_eq!(&ours(Driver::Gcs, Want::Listed, &keys).0, &expected);
        prop_assert_eq!(&ours(Driver::Azure, Want::Listed, &keys).0, &expected);
    }

    #[test]
    fn what_zot_does_not_list_is_named_if_it_could_have_been_pushed(keys in key_set()) {
        let listed: BTreeSet<String> = ours(Driver::S3, Want::Listed, &keys).0.into_iter().collect();
        let skipped: BTreeSet<String> = ours(Driver::S3, Want::Skipped, &keys).0.into_iter().collect();
        prop_assert!(listed.is_disjoint(&skipped));
        let directories: BTreeSet<&str> =
            keys.iter().flat_map(|key| key.match_indices('/').map(|(at, _)| &key[..at])).collect();
        let of_blobs = |name: &str| ["sha256", "sha384", "sha512"].iter().any(|part| format!("/{name}/").contains(&format!("blobs/{part}/")));
        for name in directories.into_iter().filter(|name| validate(&keys, name) && !of_blobs(name)) {
            prop_assert!(listed.contains(name) || skipped.contains(name), "{}", name);
        }
    }
}
