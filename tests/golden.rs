//! Recorded results of zot's own walk, replayed on every driver: the same storage and the same prior metaDB
//! must leave a metaDB that zot cannot tell from its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::Place;
use metactl::oci::time::Time;
use metactl::progress::{Progress, Silent};
use metactl::records::RepoState;
use metactl::records::fold::{Clock, Rules};
use metactl::walk::read::read_repo;
use metactl::walk::{WalkError, WalkReport};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, RwLock};
use std::time::{Duration, Instant};
use support::driver::{Driver, Raw};
use support::dynamodb::Server;
use support::equality::{differences, normal, strict};
use support::model;
use support::records::{decode, message, unhex};
use support::setups;
use support::walk::{Case, STAMP, open_writer, stores, walk, walk_told};

/// How many walks are recorded; an empty directory must not pass.
const WALKS: usize = 135;

/// Looks at one recorded walk on one driver.
type Check = fn(&Case, Driver<'_>, &Path) -> Vec<String>;

/// Run `check` on every recorded walk and driver, and report everything that fails at once.
fn every_case(drivers: &[Driver<'_>], check: Check) {
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
                    cases.iter().flat_map(|case| drivers.iter().flat_map(|driver| run(case, *driver))).collect()
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

fn leaves_what_zot_left(case: &Case, driver: Driver<'_>, root: &Path) -> Vec<String> {
    let before = case.set_up(driver, root);
    let report = walk(driver, root, false);
    compare(case, &before, &driver.dump(root), &report)
}

#[test]
fn every_recorded_walk_leaves_what_zot_left() {
    every_case(&Driver::BOTH, leaves_what_zot_left);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_recorded_walk_leaves_what_zot_left_on_redis() {
    let setup = setups::plain();
    every_case(&[Driver::Redis(&setup)], leaves_what_zot_left);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_recorded_walk_leaves_what_zot_left_with_a_user_with_least_rights() {
    let setup = setups::least_rights();
    every_case(&[Driver::Redis(&setup)], leaves_what_zot_left);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_recorded_walk_leaves_what_zot_left_with_tls_with_client_certificates() {
    let setup = setups::tls();
    every_case(&[Driver::Redis(&setup)], leaves_what_zot_left);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_recorded_walk_leaves_what_zot_left_with_a_cluster() {
    let setup = setups::cluster();
    every_case(&[Driver::Redis(&setup)], leaves_what_zot_left);
}

/// Kills the master once, when a walk has read something.
struct Killer<'a> {
    master: &'a support::redis::Server,
    due: bool,
    done: &'a Once,
}

impl Progress for Killer<'_> {
    fn part_read(&self, _manifests: u64, _bytes: u64, _share: f64) {
        if self.due {
            self.done.call_once(|| self.master.signal("-KILL"));
        }
    }
}

/// Walk until it is done: what a fail-over broke off, the next one completes.
fn walk_through(place: &Place, root: &Path, killer: &Killer<'_>) -> WalkReport {
    // Longer than the lock of a walk lives that could not let go of it.
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let writer = open_writer(place).map_err(WalkError::from);
        let walked = writer.and_then(|mut writer| walk_told(root, &mut *writer, killer));
        match walked {
            Ok(report) if report.broken_off.is_none() => return report,
            other => assert!(Instant::now() < end, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The fail-over is in the middle of one walk, with most still to come. No other is under way then: what it had acknowledged,
/// the release of its lock for one, might go with the old master.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_recorded_walk_leaves_what_zot_left_with_sentinel_and_a_fail_over_during_the_walk() {
    const KILLER: usize = 20;
    let mut setup = setups::sentinel();
    let cases = Case::all();
    let made = cases.iter().map(|case| {
        let dir = tempfile::tempdir().unwrap();
        let before = case.set_up(Driver::Redis(&setup), &dir.path().join("root"));
        (dir, before)
    });
    let made: Vec<(tempfile::TempDir, Raw)> = made.collect();
    let mut master = support::redis::client(&setup.admin);
    // The replica has all that there is, so that nothing of it is lost.
    let replicated = || {
        let mut master = support::redis::client(&setup.admin);
        redis::cmd("SET").arg("mark").arg("all").exec(&mut master).unwrap();
        assert_eq!(redis::cmd("WAIT").arg(1).arg(20_000).query::<i64>(&mut master).unwrap(), 1);
    };
    let (next, done, alone, driver) = (AtomicUsize::new(0), Once::new(), RwLock::new(()), Driver::Redis(&setup));
    let mut reports: Vec<(usize, WalkReport)> = std::thread::scope(|threads| {
        let one = || {
            let mut reports = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((dir, _)) = made.get(at) else { return reports };
                let root = dir.path().join("root");
                let walk = |due| {
                    let killer = Killer { master: &setup.servers[0], due, done: &done };
                    walk_through(&driver.place(&root), &root, &killer)
                };
                let report = if at < KILLER || done.is_completed() {
                    let _beside = alone.read().unwrap();
                    walk(false)
                } else {
                    let _alone = alone.write().unwrap();
                    if !done.is_completed() {
                        replicated();
                    }
                    walk(true)
                };
                reports.push((at, report));
            }
        };
        let workers: Vec<_> = (0..4).map(|_| threads.spawn(one)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    reports.sort_by_key(|(at, _)| *at);
    assert!(redis::cmd("PING").exec(&mut master).is_err(), "nothing failed over");
    setup.admin = format!("redis://:master-Secret@127.0.0.1:{}", setup.servers[1].port);
    let mut problems = Vec::new();
    for ((case, (dir, before)), (_, report)) in cases.iter().zip(&made).zip(&reports) {
        let after = Driver::Redis(&setup).dump(&dir.path().join("root"));
        let found = compare(case, before, &after, report);
        problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", case.name)));
    }
    assert_eq!(reports.len(), WALKS);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_recorded_walk_leaves_what_zot_left_on_dynamodb() {
    let server = Server::start();
    every_case(&[Driver::DynamoDb(&server)], leaves_what_zot_left);
}

#[test]
fn every_recorded_walk_leaves_what_zot_left_on_a_dynamodb_that_throttles_and_fails() {
    let server = Server::failing(7);
    every_case(&[Driver::DynamoDb(&server)], leaves_what_zot_left);
    let fates = server.fates();
    let wrong: usize = fates.iter().filter(|(fate, _)| *fate != "forward").map(|(_, count)| count).sum();
    assert!(wrong > 500, "{fates:?}");
}

/// What [`model`] makes of the state `before`, for every repo that the walk to `after` has read: a model that the
/// recorded walks bear out, for walks that nobody recorded.
fn against_model(root: &Path, before: &Raw, after: &Raw) -> Vec<String> {
    let clock = Clock { index_read: Time { seconds: 1, nanos: 0 }, now: Time { seconds: 2, nanos: 0 } };
    let mut expected = after.clone();
    for repo in after.bucket("RepoMeta").into_keys().chain(after.bucket("RepoBlobsMeta").into_keys()) {
        let repo = String::from_utf8(repo).unwrap();
        let get = |bucket| before.get(bucket, &repo).map(<[u8]>::to_vec);
        let prior =
            RepoState { meta: get("RepoMeta"), blobs: get("RepoBlobsMeta"), last_updated: get("RepoLastUpdated") };
        let seen = |state: &Raw| state.get("RepoLastUpdated", &repo).map(<[u8]>::to_vec);
        let unread = prior.last_updated() != Time::ZERO && seen(before) == seen(after);
        let Ok(read) = read_repo(&stores(root), &repo, Rules::default(), 2, &Silent, &Cancel::default()) else {
            continue;
        };
        let Some((meta, blobs)) = model::walk(&repo, &prior, &read.entries, clock, Rules::default()) else { continue };
        if unread {
            continue;
        }
        for (bucket, record) in [("RepoMeta", meta), ("RepoBlobsMeta", blobs)] {
            if let Some(record) = record {
                expected.put(bucket, &repo, &record);
            }
        }
    }
    let before = decode(before);
    differences(&strict(&decode(&expected), &before), &strict(&decode(after), &before))
}

/// Whether the next walk reads this repo again whatever happens.
fn is_due(state: &Raw, repo: &[u8]) -> bool {
    let seen = state.bucket("RepoLastUpdated").remove(repo);
    RepoState { last_updated: seen, ..RepoState::default() }.last_updated().is_zero()
}

/// Everything but the records of repos that are read again by every walk.
fn settled(state: &Raw) -> Raw {
    let mut out = state.clone();
    for bucket in ["RepoMeta", "RepoBlobsMeta", "RepoLastUpdated"] {
        out.0.entry(bucket.into()).or_default().retain(|repo, _| !is_due(state, repo));
    }
    out
}

fn changes_nothing_again(case: &Case, driver: Driver<'_>, root: &Path) -> Vec<String> {
    let before = case.set_up(driver, root);
    walk(driver, root, false);
    let first = driver.dump(root);
    let mut problems = against_model(root, &before, &first);
    let report = walk(driver, root, false);
    let second = driver.dump(root);
    if settled(&first) != settled(&second) {
        problems.push(format!("changed: {:?}", differences(&decode(&settled(&first)), &decode(&settled(&second)))));
    }
    if report.complete() != case.complete {
        problems.push(format!("the second walk is complete: {}", report.complete()));
    }
    problems.extend(against_model(root, &first, &second));
    walk(driver, root, false);
    if driver.dump(root) != second {
        problems.push("the third walk changed something".into());
    }
    problems
}

#[test]
fn a_second_walk_changes_nothing() {
    every_case(&Driver::BOTH, changes_nothing_again);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_second_walk_changes_nothing_on_redis() {
    let setup = setups::plain();
    every_case(&[Driver::Redis(&setup)], changes_nothing_again);
}

#[test]
fn a_second_walk_changes_nothing_on_dynamodb() {
    let server = Server::start();
    every_case(&[Driver::DynamoDb(&server)], changes_nothing_again);
}

fn agrees_with_the_model_and_settles(case: &Case, driver: Driver<'_>, root: &Path) -> Vec<String> {
    case.set_up(driver, root);
    walk(driver, root, false);
    let mut states = vec![driver.dump(root)];
    for _ in 0..3 {
        let report = walk(driver, root, true);
        states.push(driver.dump(root));
        if report.complete() != case.complete || report.unchanged > 0 {
            return vec![format!("forced walk: {report:?}")];
        }
    }
    let mut problems: Vec<String> =
        states.windows(2).flat_map(|pair| against_model(root, &pair[0], &pair[1])).collect();
    // Only the instant of the reading may differ, and zot's placeholders in a record that the first one made anew.
    let timeless = |state: &Raw| {
        let mut state = state.clone();
        state.0.remove("RepoLastUpdated");
        state
    };
    let lines = differences(&normal(&decode(&states[1]), &json!({})), &normal(&decode(&states[2]), &json!({})));
    problems.extend(lines.into_iter().map(|line| format!("forced again: {line}")));
    if timeless(&states[2]) != timeless(&states[3]) {
        problems.push("a third forced walk changed something".into());
    }
    problems
}

#[test]
fn forced_walks_agree_with_the_model_and_settle() {
    every_case(&Driver::BOTH, agrees_with_the_model_and_settles);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn forced_walks_agree_with_the_model_and_settle_on_redis() {
    let setup = setups::plain();
    every_case(&[Driver::Redis(&setup)], agrees_with_the_model_and_settles);
}

#[test]
fn forced_walks_agree_with_the_model_and_settle_on_dynamodb() {
    let server = Server::start();
    every_case(&[Driver::DynamoDb(&server)], agrees_with_the_model_and_settles);
}

/// A metaDB that zot itself wrote over 270 transactions, with deleted repos, free pages and user data.
#[test]
fn zots_own_file_reads_exactly() {
    use std::io::Read as _;
    let fixture = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bolt").join(name);
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut content).unwrap();
        content
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.db"), fixture("zot-meta.db.gz")).unwrap();
    let recorded: Value = serde_json::from_slice(&fixture("zot-meta.dump.json.gz")).unwrap();
    let read = decode(&Driver::Bolt.dump(dir.path()));
    let found: Vec<String> = differences(&recorded, &read);
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(read["ImageMeta"].as_object().unwrap().len(), 202);
}
