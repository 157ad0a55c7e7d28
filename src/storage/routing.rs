//! Which store a repository lives in: the default store or one of `subPaths` (spec: "Storage" §1.7).
//!
//! Names are never shortened: `a/x` in the store of route `/a` is the directory `<root>/a/x`. Whatever store lists a
//! name, every later operation goes to the store the name *routes* to. [`Listing::misrouted`] tells where they differ.

use super::cache::CacheSpec;
use super::local::LocalStore;
use super::object::{IO_CONCURRENCY, Io, ObjectOptions, ObjectStore};
use super::{Blob, ImageStore, IndexStat, Later, StorageError};
use crate::cancel::Cancel;
use jiff::Timestamp;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What it takes to open one store. Plain data, so that the config module stays apart.
#[derive(Debug, Clone)]
pub struct StoreSpec {
    /// Key of `subPaths` as configured (`/a`); `None` for the default store.
    pub route: Option<String>,
    /// Kind and place.
    pub kind: StoreKind,
    /// Where its deduplicated blobs are looked up.
    pub cache: Option<CacheSpec>,
}

/// Kind and place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// A local directory.
    Local {
        /// `rootDirectory`.
        root: PathBuf,
    },
    /// A bucket or container.
    Object(Box<ObjectOptions>),
}

/// All stores of a registry.
pub struct Stores {
    default: Arc<dyn ImageStore>,
    subs: Vec<(String, Arc<dyn ImageStore>)>,
}

/// What all stores together hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every name once: sub-stores first, in their order, then the default store; first occurrence kept.
    pub repos: Vec<String>,
    /// Names whose route leads to a store that does not have them. zot counts each as a failed repo at every start.
    pub misrouted: Vec<Misrouted>,
}

/// A repository in a store that zot never asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misrouted {
    /// Repository name.
    pub repo: String,
    /// Location of the store that holds it.
    pub listed_from: String,
    /// Location of the store that zot asks.
    pub routed_to: String,
}

/// The key in `subPaths` that `repo` looks for (spec §1.7): `/` and all before the first `/`, or `/` if there is none.
#[must_use]
pub fn route_key(repo: &str) -> String {
    repo.split_once('/').map_or_else(|| "/".to_owned(), |(first, _)| format!("/{first}"))
}

impl Stores {
    /// From stores that are open already; `subs` in the order in which their names shall come.
    #[must_use]
    pub fn new(default: Arc<dyn ImageStore>, subs: Vec<(String, Arc<dyn ImageStore>)>) -> Self {
        Self { default, subs }
    }

    /// Open what `specs` says. Local roots that are the same directory share one store.
    ///
    /// # Errors
    /// [`StorageError::UnsupportedLayout`] unless exactly one spec has no route and every route is there once.
    pub fn open(specs: &[StoreSpec]) -> Result<Self, StorageError> {
        Self::open_with(specs, IO_CONCURRENCY, &Cancel::default())
    }

    /// As [`Stores::open`], with so many requests at a time to all object stores together, which end when
    /// `cancel` says so.
    ///
    /// # Errors
    /// As [`Stores::open`], and if an object store cannot be opened.
    pub fn open_with(specs: &[StoreSpec], io_concurrency: usize, cancel: &Cancel) -> Result<Self, StorageError> {
        let mut locals: Vec<(PathBuf, Arc<dyn ImageStore>)> = Vec::new();
        let mut io: Option<Arc<Io>> = None;
        let (mut default, mut subs) = (None, Vec::<(String, Arc<dyn ImageStore>)>::new());
        for spec in specs {
            let cache = spec.cache.as_ref().map(|cache| cache.open(cancel));
            let store = match &spec.kind {
                StoreKind::Object(options) => {
                    let io = match &io {
                        Some(io) => Arc::clone(io),
                        None => Arc::clone(io.insert(Arc::new(Io::new(io_concurrency, cancel)?))),
                    };
                    Arc::new(ObjectStore::open(options, io, cache)?)
                }
                StoreKind::Local { root } => match locals.iter().find(|(other, _)| same_directory(other, root)) {
                    Some((_, store)) => Arc::clone(store),
                    None => {
                        let store: Arc<dyn ImageStore> = Arc::new(LocalStore::new(root).with_cache(cache));
                        locals.push((root.clone(), Arc::clone(&store)));
                        store
                    }
                },
            };
            let twice =
                |detail: &str| StorageError::UnsupportedLayout { root: store.location(), detail: detail.to_owned() };
            match &spec.route {
                None if default.is_some() => return Err(twice("a second default store")),
                None => default = Some(store),
                Some(route) if subs.iter().any(|(other, _)| other == route) => {
                    return Err(twice(&format!("a second store for route {route:?}")));
                }
                Some(route) => subs.push((route.clone(), store)),
            }
        }
        let missing =
            || StorageError::UnsupportedLayout { root: "(none)".into(), detail: "there is no default store".into() };
        Ok(Self { default: default.ok_or_else(missing)?, subs })
    }

    /// The store that zot asks for `repo`.
    #[must_use]
    pub fn route(&self, repo: &str) -> &dyn ImageStore {
        self.routed(repo).as_ref()
    }

    fn routed(&self, repo: &str) -> &Arc<dyn ImageStore> {
        let key = route_key(repo);
        self.subs.iter().find(|(route, _)| *route == key).map_or(&self.default, |(_, store)| store)
    }

    /// All names, and those that lead nowhere.
    ///
    /// # Errors
    /// If any store cannot be listed.
    pub fn list(&self, cancel: &Cancel) -> Result<Listing, StorageError> {
        // A store that serves several routes is listed once.
        let mut listed: Vec<(&Arc<dyn ImageStore>, Vec<String>)> = Vec::new();
        for store in self.each() {
            listed.push((store, store.list_repos(cancel)?));
        }
        let held: Vec<HashSet<&str>> =
            listed.iter().map(|(_, names)| names.iter().map(String::as_str).collect()).collect();
        let (mut listing, mut seen) = (Listing::default(), HashSet::new());
        for (store, names) in &listed {
            for name in names.iter().filter(|name| seen.insert(name.as_str())) {
                let routed = self.routed(name);
                let there = listed
                    .iter()
                    .zip(&held)
                    .any(|((store, _), held)| same(store, routed) && held.contains(name.as_str()));
                if !there {
                    listing.misrouted.push(Misrouted {
                        repo: name.clone(),
                        listed_from: store.location(),
                        routed_to: routed.location(),
                    });
                }
                listing.repos.push(name.clone());
            }
        }
        Ok(listing)
    }

    /// Every store object once, sub-stores first.
    fn each(&self) -> Vec<&Arc<dyn ImageStore>> {
        let mut stores: Vec<&Arc<dyn ImageStore>> = Vec::new();
        for store in self.subs.iter().map(|(_, store)| store).chain([&self.default]) {
            if !stores.iter().any(|other| same(other, store)) {
                stores.push(store);
            }
        }
        stores
    }
}

impl ImageStore for Stores {
    fn location(&self) -> String {
        let places: Vec<String> = std::iter::once(self.default.location())
            .chain(self.subs.iter().map(|(route, store)| format!("{route}: {}", store.location())))
            .collect();
        places.join(", ")
    }

    fn readers(&self, jobs: usize) -> usize {
        self.each().iter().map(|store| store.readers(jobs)).fold(jobs, usize::max)
    }

    fn useful(&self, threads: usize) -> usize {
        self.each().iter().map(|store| store.useful(threads)).fold(1, usize::max)
    }

    fn together(&self, repo: &str) -> usize {
        self.route(repo).together(repo)
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        Ok(self.list(cancel)?.repos)
    }

    fn list_unlistable(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        for store in self.each() {
            names.extend(store.list_unlistable(cancel)?.into_iter().filter(|name| seen.insert(name.clone())));
        }
        Ok(names)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.route(repo).stat_index(repo)
    }

    fn begin_stat_index<'a>(&'a self, repo: &'a str) -> Later<'a, Result<IndexStat, StorageError>> {
        self.route(repo).begin_stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.route(repo).read_index(repo)
    }

    fn open_index(&self, repo: &str) -> Result<(IndexStat, Vec<u8>), StorageError> {
        self.route(repo).open_index(repo)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        self.route(repo).read_blobs(repo, digests)
    }

    fn in_store_time(&self, instant: Timestamp) -> Timestamp {
        self.each().into_iter().map(|store| store.in_store_time(instant)).min().unwrap_or(instant)
    }
}

fn same(left: &Arc<dyn ImageStore>, right: &Arc<dyn ImageStore>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(left), Arc::as_ptr(right))
}

/// Whether both paths lead to one directory; for roots that are not there yet the text decides.
fn same_directory(left: &Path, right: &Path) -> bool {
    match (std::fs::metadata(left), std::fs::metadata(right)) {
        (Ok(left), Ok(right)) => (left.dev(), left.ino()) == (right.dev(), right.ino()),
        _ => left == right,
    }
}
