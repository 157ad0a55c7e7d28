//! Which repositories zot's drivers enumerate (spec §1.4–§1.6), found by listing directories only.
//!
//! zot's S3 driver lists every object and infers directories; the others list directory by directory. Both come down to
//! the same walk with small differences, see [`Driver`]'s uses here. The content of `blobs` is never listed.

use super::super::StorageError;
use super::super::rules::{skipped_directory, valid_component};
use super::http::Trace;
use super::io::unless_cancelled;
use super::{Bucket, Driver};
use crate::cancel::Cancel;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a listing looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Repositories as zot's walk finds them.
    Listed,
    /// Repositories that zot's walk skips although they could have been pushed.
    Skipped,
}

/// One directory, as far as a walk cares.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// Names of all subdirectories.
    pub(super) directories: BTreeSet<String>,
    /// Names of objects that could be taken for a repository's name.
    pub(super) objects: BTreeSet<String>,
    /// Passes zot's layout check, apart from the name.
    pub(super) is_repo: bool,
}

/// A directory on the way of the walk.
struct Node {
    /// Path relative to the store: the repository name.
    name: String,
    /// Its own name or one further up makes zot skip it.
    skipped: bool,
    is_repo: bool,
    children: Vec<usize>,
}

/// Repositories in zot's order. `list` gives the directories of these names, in their order.
pub(super) fn walk(
    driver: Driver,
    want: Want,
    cancel: &Cancel,
    list: &dyn Fn(Vec<String>) -> Result<Vec<Directory>, StorageError>,
) -> Result<Vec<String>, StorageError> {
    let mut nodes = vec![Node { name: String::new(), skipped: false, is_repo: false, children: Vec::new() }];
    let mut level = 0..1;
    // Level by level, so that whole levels are asked for at once.
    while !level.is_empty() {
        if cancel.is_cancelled() {
            return Err(StorageError::Cancelled);
        }
        let names = nodes.get(level.clone()).unwrap_or_default().iter().map(|node| node.name.clone()).collect();
        let first_child = nodes.len();
        for (at, directory) in level.zip(list(names)?) {
            let Some(node) = nodes.get(at) else { break };
            let parent = if node.name.is_empty() { String::new() } else { format!("{}/", node.name) };
            let of_blobs = parent.ends_with("blobs/");
            let begin = nodes.len();
            let parent_skipped = node.skipped;
            for (base, skipped) in children(driver, &directory, of_blobs) {
                let skipped = skipped || parent_skipped;
                if want == Want::Skipped || !skipped {
                    let name = format!("{parent}{base}");
                    nodes.push(Node { name, skipped, is_repo: false, children: Vec::new() });
                }
            }
            let end = nodes.len();
            if let Some(node) = nodes.get_mut(at) {
                node.is_repo = directory.is_repo;
                node.children = (begin..end).collect();
            }
        }
        level = first_child..nodes.len();
    }
    // Parents before children, as zot's walk visits them; the store itself is never visited.
    let mut found = Vec::new();
    let mut stack: Vec<usize> =
        nodes.first().map(|root| root.children.iter().rev().copied().collect()).unwrap_or_default();
    while let Some(node) = stack.pop().and_then(|at| nodes.get(at)) {
        if node.is_repo && node.skipped == (want == Want::Skipped) {
            found.push(node.name.clone());
        }
        stack.extend(node.children.iter().rev());
    }
    Ok(found)
}

/// Subdirectories in which repositories can be, in zot's order, with "zot skips it".
fn children(driver: Driver, directory: &Directory, of_blobs: bool) -> Vec<(&str, bool)> {
    let mut bases: Vec<&str> = directory
        .directories
        .iter()
        .map(String::as_str)
        .filter(|base| valid_component(base.as_bytes()))
        .filter(|base| !(of_blobs && matches!(*base, "sha256" | "sha384" | "sha512")))
        // To the others a path with an object is a file, whatever else begins with it.
        .filter(|base| driver == Driver::S3 || !directory.objects.contains(*base))
        .collect();
    if driver == Driver::S3 {
        // Order of keys: the slash counts.
        bases.sort_by(|left, right| left.bytes().chain([b'/']).cmp(right.bytes().chain([b'/'])));
    }
    let mut last_skipped: Option<&str> = None;
    bases
        .into_iter()
        .map(|base| {
            // The driver forgets that a skipped path ends where a name ends.
            let hidden = driver == Driver::S3 && last_skipped.is_some_and(|skipped| base.starts_with(skipped));
            let skipped = skipped_directory(base.as_bytes());
            if skipped && !hidden {
                last_skipped = Some(base);
            }
            (base, hidden || skipped)
        })
        .collect()
}

impl Bucket {
    /// List a directory, named relative to the store.
    pub(super) async fn list(&self, name: &str, cancel: &Cancel) -> Result<Directory, StorageError> {
        let prefix = self.keys.directory(name);
        let key = prefix.trim_end_matches('/');
        let base =
            |path: &Path| path.as_ref().strip_prefix(&prefix).filter(|base| !base.contains('/')).map(str::to_owned);
        let mut directory = Directory::default();
        let (mut index, mut layouts) = (Found::No, BTreeSet::new());
        let mut page_token = None;
        loop {
            let trace = Trace::default();
            let mut options =
                PaginatedListOptions { delimiter: Some("/".into()), page_token, ..PaginatedListOptions::default() };
            options.extensions.insert(trace.clone());
            let listed = self
                .lists
                .list_paginated(Some(&prefix).filter(|prefix| !prefix.is_empty()).map(String::as_str), options);
            let listed = unless_cancelled(cancel, Duration::ZERO, listed)
                .await?
                .map_err(|error| self.error("list", key, &error, &trace))?;
            for base in listed.result.common_prefixes.iter().filter_map(base) {
                if base == "index.json" {
                    index = Found::Directory;
                }
                if base.ends_with("oci-layout") {
                    layouts.insert((base.clone(), Found::Directory));
                }
                directory.directories.insert(base);
            }
            for base in listed.result.objects.iter().filter_map(|object| base(&object.location)) {
                if base == "index.json" && index == Found::No {
                    index = Found::Object;
                }
                if base.ends_with("oci-layout") {
                    layouts.insert((base.clone(), Found::Object));
                }
                if valid_component(base.as_bytes()) {
                    directory.objects.insert(base);
                }
            }
            page_token = listed.page_token;
            if page_token.is_none() {
                break;
            }
        }
        if name.is_empty() && directory.directories.contains("_blobstore") {
            return Err(StorageError::UnsupportedLayout {
                root: self.location.clone(),
                detail: "found _blobstore: blobs are kept in a layout that this version does not know".into(),
            });
        }
        directory.is_repo = !name.is_empty()
            && self.visible(&format!("{prefix}index.json"), index).await?
            && self.any_visible(&prefix, layouts).await?;
        Ok(directory)
    }

    async fn any_visible(&self, prefix: &str, names: BTreeSet<(String, Found)>) -> Result<bool, StorageError> {
        for (base, found) in names {
            if self.visible(&format!("{prefix}{base}"), found).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether zot's driver lists what is there: GCS hides unfinished uploads, whose type a listing does not tell.
    async fn visible(&self, key: &str, found: Found) -> Result<bool, StorageError> {
        match found {
            Found::No => Ok(false),
            Found::Object if self.driver == Driver::Gcs => match self.get("stat", key, true, &Trace::default()).await {
                Ok(_) => Ok(true),
                Err(StorageError::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Found::Object | Found::Directory => Ok(true),
        }
    }
}

/// What a listing has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    No,
    Object,
    Directory,
}

#[cfg(test)]
mod tests;
