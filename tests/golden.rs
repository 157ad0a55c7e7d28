//! Recorded results of zot's own walk, replayed on both embedded drivers: the same storage and the same prior metaDB
//! must leave a metaDB that zot cannot tell from its own.

mod support;

use metactl::walk::WalkReport;
use serde_json::{Value, json};
use std::path::Path;
use support::driver::{Driver, Raw};
use support::equality::{differences, normal};
use support::records::{decode, message, unhex};
use support::walk::{Case, STAMP, walk};

/// How many walks are recorded; an empty directory must not pass.
const WALKS: usize = 135;

/// Run `check` on every recorded walk and driver, and report everything that fails at once.
fn every_case(check: impl Fn(&Case, Driver, &Path) -> Vec<String> + Sync) {
    let cases = Case::all();
    assert_eq!(cases.len(), WALKS);
    let run = |case: &Case, driver: Driver| {
        let dir = tempfile::tempdir().unwrap();
        let found = check(case, driver, &dir.path().join("root"));
        found.into_iter().map(|problem| format!("{} {driver:?}: {problem}", case.name)).collect::<Vec<_>>()
    };
    // Most of the time goes by waiting for the disk.
    let mut problems: Vec<String> = std::thread::scope(|threads| {
        let workers: Vec<_> = cases
            .chunks(WALKS.div_ceil(8))
            .map(|cases| {
                let run = &run;
                threads.spawn(move || {
                    cases.iter().flat_map(|case| Driver::BOTH.map(|driver| run(case, driver))).flatten().collect()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| -> Vec<String> { worker.join().unwrap() }).collect()
    });
    problems.sort();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Values under keys that a repo has, in the buckets that are a repo's.
fn without(mut state: Value, repos: &[String]) -> Value {
    for part in ["RepoMeta", "RepoBlobs"] {
        let part = state[part].as_object_mut().unwrap();
        part.retain(|repo, _| !repos.contains(repo));
    }
    state["ImageMeta"] = json!({});
    state
}

fn compare(case: &Case, before: &Raw, after: &Raw, report: &WalkReport) -> Vec<String> {
    let mut problems = Vec::new();
    if report.complete() != case.complete {
        problems.push(format!(
            "complete: {}, failed {:?}, partial {:?}",
            report.complete(),
            report.failed,
            report.partial
        ));
    }
    let (before_json, got) = (decode(before), decode(after));
    let stamp = got["Version"]["FastRestartStamp"].as_str().unwrap_or_default();
    if stamp != if case.complete { STAMP } else { "" } {
        problems.push(format!("stamp is {stamp:?}"));
    }
    if got["Version"]["DBVersion"] != "V1" {
        problems.push("DBVersion is not V1".into());
    }
    for bucket in ["UserData", "UserAPIKeys"] {
        if before.bucket(bucket) != after.bucket(bucket) {
            problems.push(format!("{bucket} changed"));
        }
    }
    let (mut expected, mut normal_got) = (normal(&case.after, &before_json), normal(&got, &before_json));
    if case.failed > 0 {
        // zot leaves a failed repo half written, where metactl leaves it alone: the others must agree. A failed repo is
        // one whose records are only on one side, or that is due for the next walk.
        let times = &got["RepoBlobsMeta"]["<bucket>RepoLastUpdated"];
        let due = |repo: &str| times[repo].as_str().is_none_or(|at| at.starts_with("0001") || at.starts_with("1970"));
        let mut left_out = Vec::new();
        for side in [&expected, &normal_got] {
            for part in ["RepoMeta", "RepoBlobs"] {
                for repo in side[part].as_object().unwrap().keys() {
                    let one_sided = expected["RepoMeta"].get(repo).is_some() != got["RepoMeta"].get(repo).is_some();
                    if one_sided || due(repo) {
                        left_out.push(repo.clone());
                    }
                }
            }
        }
        expected = without(expected, &left_out);
        normal_got = without(normal_got, &left_out);
    } else {
        problems.extend(exact_images(case, after));
        problems.extend(differences(&strict(&case.after, &before_json), &strict(&got, &before_json)));
    }
    problems.extend(differences(&expected, &normal_got));
    problems
}

/// ImageMeta against the encoding that zot's protobuf library gave, where that was recorded: the presence of optional
/// fields included. Entries of maps may leave out empty keys and values.
fn exact_images(case: &Case, after: &Raw) -> Vec<String> {
    let recorded = case.after["hex"].as_object().into_iter().flatten();
    let decode = |bytes: &[u8]| message("ImageMeta", bytes).unwrap_or_default();
    recorded
        .flat_map(|(digest, expected)| {
            let expected = unhex(expected.as_str().unwrap_or_default());
            let got = after.get("ImageMeta", digest).unwrap_or_default();
            let found = if expected == got { Vec::new() } else { differences(&decode(&expected), &decode(got)) };
            found.into_iter().map(move |line| format!("ImageMeta {digest}{line}"))
        })
        .collect()
}

/// The decoded state with nothing pruned: placeholders and the presence of optional fields count, only what zot itself
/// leaves to chance (order of platforms and vendors, instants of the run) is evened out.
fn strict(db: &Value, before: &Value) -> Value {
    let mut db = db.clone();
    for (repo, meta) in db["RepoMeta"].as_object_mut().into_iter().flatten() {
        for list in ["Platforms", "Vendors"] {
            if let Some(list) = meta.get_mut(list).and_then(Value::as_array_mut) {
                list.sort_by_key(Value::to_string);
            }
        }
        for (tag, descriptor) in meta["Tags"].as_object_mut().into_iter().flatten() {
            if before["RepoMeta"][repo.as_str()]["Tags"].get(tag).is_none()
                && let Some(time) = descriptor.get_mut("TaggedTimestamp")
            {
                *time = json!("now");
            }
        }
    }
    let blobs = db["RepoBlobsMeta"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let blobs: serde_json::Map<_, _> = blobs.into_iter().filter(|(repo, _)| !repo.starts_with('<')).collect();
    json!({"ImageMeta": db["ImageMeta"], "RepoMeta": db["RepoMeta"], "RepoBlobsMeta": blobs})
}

#[test]
fn every_recorded_walk_leaves_what_zot_left() {
    every_case(|case, driver, root| {
        let before = case.set_up(driver, root);
        let report = walk(driver, root, false);
        compare(case, &before, &driver.dump(root), &report)
    });
}
