//! Writes under the condition that nobody else wrote: both changes survive.

use super::{BLOBS, IMAGES, REPOS, Stage, error};
use crate::support::proxy::Fate;
use crate::support::walk::{open_writer, walk_at};
use crate::support::work::{Work, all, done, records, repos, store};
use metactl::metadb::{MetaDbError, Outcome, Refusal};
use metactl::oci::time::Time;
use metactl::records::proto::{RepoBlobs, RepoMeta, TagDescriptor};
use metactl::records::{RepoChange, RepoState, encode_time};
use prost::Message as _;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// What is recorded, with one more tag.
fn tagged(prior: &RepoState, tag: &str) -> RepoChange {
    let mut meta = RepoMeta::decode(prior.meta.as_deref().unwrap_or_default()).unwrap();
    meta.tags.insert(tag.into(), TagDescriptor::default());
    let mut blobs = RepoBlobs::decode(prior.blobs.as_deref().unwrap_or_default()).unwrap();
    blobs.blobs.entry(tag.into()).or_default().size = 7;
    let at = encode_time(Time { seconds: 5, nanos: 0 });
    RepoChange::Write { meta: Some(meta.encode_to_vec()), blobs: Some(blobs.encode_to_vec()), last_updated: Some(at) }
}

#[test]
fn fifty_changes_between_reading_and_writing_survive() {
    let stage = Stage::new();
    let (builds, stars) = (AtomicUsize::new(0), AtomicI32::new(0));
    let interfering = |prior: &RepoState| {
        let count = builds.fetch_add(1, Ordering::Relaxed);
        if count < 50 {
            // As zot does: it overwrites what it read a moment ago.
            let mut meta = RepoMeta::decode(prior.meta.as_deref().unwrap_or_default()).unwrap();
            meta.stars += 1;
            stars.store(meta.stars, Ordering::Relaxed);
            stage.server.set(REPOS, "contended", "RepoMeta", &meta.encode_to_vec());
        } else if count < 60 {
            let mut blobs = RepoBlobs::decode(prior.blobs.as_deref().unwrap_or_default()).unwrap();
            blobs.blobs.insert(format!("sha256:{count}"), Default::default());
            stage.server.set(BLOBS, "contended", "RepoBlobsInfo", &blobs.encode_to_vec());
        }
        Ok(tagged(prior, "ours"))
    };
    let mut work = repos(5);
    work.push(Work::new("contended", interfering).image("sha256:aa", b"image"));
    assert!(done(&stage.writer().write(&all(&work)).unwrap()));
    assert_eq!(builds.load(Ordering::Relaxed), 61);
    let raw = stage.server.dump(super::P);
    let meta = RepoMeta::decode(raw.get("RepoMeta", "contended").unwrap()).unwrap();
    assert_eq!((meta.stars, stars.load(Ordering::Relaxed)), (50, 50));
    assert!(meta.tags.contains_key("ours"));
    let blobs = RepoBlobs::decode(raw.get("RepoBlobsMeta", "contended").unwrap()).unwrap();
    assert_eq!(blobs.blobs.len(), 11);
    assert_eq!(raw.bucket("RepoMeta").len(), 6);
}

#[test]
fn a_repo_that_never_rests_is_refused_and_the_others_are_written() {
    let stage = Stage::new();
    let count = AtomicUsize::new(0);
    let restless = |_: &RepoState| {
        let text = count.fetch_add(1, Ordering::Relaxed).to_string();
        stage.server.set(BLOBS, "restless", "RepoLastUpdated", text.as_bytes());
        Ok(records("ours"))
    };
    let mut work = repos(3);
    work.push(Work::new("restless", restless));
    let outcomes = stage.writer().write(&all(&work)).unwrap();
    assert!(done(&outcomes[..3]));
    assert!(matches!(&outcomes[3], Outcome::Refused(Refusal::Unusable(reason)) if reason.contains("100 times")));
}

#[test]
fn an_answer_that_is_lost_does_not_make_a_repo_be_built_anew() {
    let stage = Stage::new();
    // Every write of a repo is carried out, and its first answer is lost.
    let lost = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let mut writer = stage.writer();
    stage.proxy.rule(move |request| {
        let table = super::tables(request);
        let repo = request.operation.as_deref() == Some("UpdateItem") && [REPOS, BLOBS].contains(&table.as_str());
        (repo && lost.lock().unwrap().insert(request.body.clone())).then_some(Fate::Truncate)
    });
    let builds = AtomicUsize::new(0);
    let work = [Work::new("lossy", |_| {
        builds.fetch_add(1, Ordering::Relaxed);
        Ok(records("once"))
    })];
    assert!(done(&writer.write(&all(&work)).unwrap()));
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    let raw = stage.server.dump(super::P);
    assert_eq!(raw.get("RepoMeta", "lossy"), Some(&b"meta once"[..]));
    assert_eq!(raw.get("RepoBlobsMeta", "lossy"), Some(&b"blobs once"[..]));
    let gone = [Work::new("lossy", |_| Ok(RepoChange::Delete))];
    assert!(done(&writer.write(&all(&gone)).unwrap()));
    assert!(stage.server.items(REPOS).is_empty() && stage.server.items(BLOBS).is_empty());
}

#[test]
fn images_come_first_then_the_repo_then_its_time() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let heard = stage.listen();
    let work: Vec<Work<'_>> =
        repos(4).into_iter().map(|work| work.image("sha256:aa", b"a").image("sha256:bb", b"b")).collect();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    let writes: Vec<String> = heard
        .lock()
        .unwrap()
        .iter()
        .filter(|(action, _)| action == "UpdateItem")
        .map(|(_, table)| table.clone())
        .collect();
    let position = |table: &str| writes.iter().position(|written| written == table).unwrap();
    let last = |table: &str| writes.iter().rposition(|written| written == table).unwrap();
    assert!(position(super::VERSION) == 0, "the stamp's mark comes before everything: {writes:?}");
    assert!(last(IMAGES) < position(REPOS), "{writes:?}");
    assert!(position(REPOS) < position(BLOBS) && last(REPOS) < last(BLOBS), "{writes:?}");
    let count = |table: &str| writes.iter().filter(|written| *written == table).count();
    // Images that several repos share are written once.
    assert_eq!((count(IMAGES), count(REPOS), count(BLOBS)), (2, 4, 4));
    // The same again costs no write but that of the times.
    heard.lock().unwrap().clear();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    assert!(heard.lock().unwrap().iter().all(|(action, _)| action == "BatchGetItem"), "{heard:?}");
}

/// Between the two steps of a repo, the next walk (zot's too) must find it due, even if its index is old.
#[test]
fn a_write_that_ends_midway_leaves_the_repo_due() {
    for table in [REPOS, BLOBS] {
        let stage = Stage::new();
        let mut writer = stage.writer();
        let first = [Work::new("repo", |_| Ok(records("old")))];
        assert!(done(&writer.write(&all(&first)).unwrap()));
        let heard = AtomicUsize::new(0);
        stage.proxy.rule(move |request| {
            let write = request.operation.as_deref() == Some("UpdateItem") && super::tables(request) == table;
            // The first write of the times marks the repo as due.
            let allowed = usize::from(table == BLOBS);
            (write && heard.fetch_add(1, Ordering::Relaxed) >= allowed).then(|| error(400, "AccessDeniedException"))
        });
        let second = [Work::new("repo", |_| Ok(records("new")))];
        let error = super::failed(writer.write(&all(&second)));
        assert!(matches!(error, MetaDbError::Denied { .. }), "{error:?}");
        let state = stage.reader().repo("repo").unwrap();
        assert!(state.last_updated().is_zero(), "{table}: {state:?}");
        assert_eq!(state.blobs.as_deref(), Some(&b"blobs old"[..]), "{table}");
        let meta = if table == REPOS { &b"meta old"[..] } else { b"meta new" };
        assert_eq!(state.meta.as_deref(), Some(meta), "{table}");
        stage.proxy.clear();
        assert!(done(&writer.write(&all(&second)).unwrap()));
        let state = stage.reader().repo("repo").unwrap();
        assert_eq!((state.meta.as_deref(), state.blobs.as_deref()), (Some(&b"meta new"[..]), Some(&b"blobs new"[..])));
        assert!(!state.last_updated().is_zero());
    }
}

/// A repo that is only half gone is still listed, so that the next walk removes the rest.
#[test]
fn a_deletion_that_ends_midway_is_found_again() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    assert!(done(&writer.write(&all(&repos(1))).unwrap()));
    stage.proxy.rule(|request| {
        let delete = request.operation.as_deref() == Some("DeleteItem") && super::tables(request) == REPOS;
        delete.then(|| error(400, "AccessDeniedException"))
    });
    let gone = [Work::new("repo-0", |_| Ok(RepoChange::Delete))];
    super::failed(writer.write(&all(&gone)));
    assert_eq!(stage.reader().repo_names().unwrap(), ["repo-0"]);
    assert!(stage.reader().last_updated().unwrap().is_empty());
    stage.proxy.clear();
    assert!(done(&writer.write(&all(&gone)).unwrap()));
    assert!(stage.reader().repo_names().unwrap().is_empty());
}

#[test]
fn a_deletion_is_conditional_too() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    assert!(done(&writer.write(&all(&repos(1))).unwrap()));
    let pushed = |prior: &RepoState| {
        if prior.meta.as_deref() == Some(b"meta 0") {
            stage.server.set(REPOS, "repo-0", "RepoMeta", b"pushed meanwhile");
            return Ok(RepoChange::Delete);
        }
        Err(Refusal::Moved)
    };
    let outcomes = writer.write(&all(&[Work::new("repo-0", pushed)])).unwrap();
    assert_eq!(outcomes, [Outcome::Refused(Refusal::Moved)]);
    assert_eq!(stage.server.dump(super::P).get("RepoMeta", "repo-0"), Some(&b"pushed meanwhile"[..]));
}

#[test]
fn attributes_unknown_to_metactl_stay() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 3, 2);
    let place = stage.server.place(super::P);
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
    let items = || [REPOS, BLOBS, IMAGES].map(|table| (table, stage.server.items(table)));
    for (table, items) in items() {
        for mut item in items {
            let key = item.remove("TableKey").unwrap()["S"].as_str().unwrap().to_owned();
            item.insert("Newer".into(), serde_json::json!({"M": {"x": {"N": "1"}}}));
            // A record that differs, so that it is written again.
            if table != BLOBS {
                let attribute = if table == REPOS { "RepoMeta" } else { "ImageMeta" };
                item.insert(attribute.into(), serde_json::json!({"B": "CgF4"}));
            }
            stage.server.put(table, &key, item.into());
        }
    }
    let before = stage.server.dump(super::P);
    assert!(walk_at(&place, dir.path(), true).unwrap().complete());
    assert_ne!(stage.server.dump(super::P), before, "nothing was written");
    for (table, items) in items() {
        assert!(
            !items.is_empty() && items.iter().all(|item| item["Newer"]["M"]["x"]["N"] == "1"),
            "{table}: {items:?}"
        );
    }
}

#[test]
fn records_of_another_kind_are_refused_and_named() {
    let stage = Stage::new();
    stage.server.put(REPOS, "odd", serde_json::json!({"RepoMeta": {"S": "text"}}));
    stage.server.put(BLOBS, "odder", serde_json::json!({"RepoLastUpdated": {"N": "5"}}));
    let mut work = repos(1);
    work.extend(["odd", "odder"].map(|repo| Work::new(repo, |_| Ok(records("x")))));
    let outcomes = stage.writer().write(&all(&work)).unwrap();
    assert!(done(&outcomes[..1]));
    for (outcome, attribute) in outcomes[1..].iter().zip(["RepoMeta", "RepoLastUpdated"]) {
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::Unusable(reason)) if reason.contains(attribute)),
            "{outcome:?}"
        );
    }
    let reader = stage.reader();
    assert!(matches!(super::failed(reader.repo("odd")), MetaDbError::Damaged { .. }));
    // As zot takes it: what is no time stamp is none.
    assert!(reader.last_updated().unwrap()["odder"].is_zero());
    drop(open_writer(&stage.place()).unwrap());
}
