//! Redis metaDBs on servers of their own: how they are reached, what they allow, what goes wrong, and walking beside zot.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod cluster;
mod command;
mod failover;
mod faults;
mod live;
mod reach;
mod rights;
mod scans;

use metactl::cancel::Cancel;
use metactl::config::tree::Tree;
use metactl::error::chain;
use metactl::metadb::redis::RedisOptions;
use metactl::metadb::{MetaDb, MetaDbError, Place};
use std::path::Path;
use support::driver::{Raw, dump_bolt};
use support::equality::{differences, strict};
use support::records::decode;
use support::setups::{leaks, params};
use support::walk::walk_at;

/// The message of an error that must not show a password.
fn said(error: &MetaDbError) -> String {
    let text = format!("{} {error:?}", chain(error));
    assert!(!leaks(&text), "{text}");
    chain(error)
}

fn failed<T>(result: Result<T, MetaDbError>) -> MetaDbError {
    let Err(error) = result else { panic!("it should have failed") };
    said(&error);
    error
}

fn read(place: &Place) -> Result<Box<dyn MetaDb>, MetaDbError> {
    place.open(&Cancel::default())
}

fn message<T>(result: Result<T, MetaDbError>) -> String {
    let Err(error) = result else { panic!("it should have failed") };
    assert!(!leaks(&format!("{error:?}")));
    chain(&error)
}

fn from_params(entries: &[(&str, Tree)]) -> Place {
    Place::Redis(Box::new(RedisOptions::from_params(&params(entries)).unwrap()))
}

/// Everything but times against a walk of the same store into BoltDB.
fn as_bolt(root: &Path, got: &Raw) -> Vec<String> {
    let bolt = tempfile::tempdir().unwrap();
    let place = Place::Bolt(bolt.path().join("meta.db"));
    assert!(walk_at(&place, root, false).unwrap().complete());
    let database = metactl::metadb::bolt::Database::open(&bolt.path().join("meta.db")).unwrap();
    let nothing = serde_json::json!({});
    let (expected, got) = (decode(&dump_bolt(&database)), decode(got));
    differences(&strict(&expected, &nothing), &strict(&got, &nothing))
        .into_iter()
        .filter(|line| !line.contains("TaggedTimestamp") && !line.contains("RepoLastUpdated"))
        .collect()
}
