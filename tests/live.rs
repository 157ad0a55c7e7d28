//! Beside others: a writer that never rests, and walks that meet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::metadb::bolt::{Batch, OpenOptions, Writer};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use support::command::{Sandbox, finish, push};
use support::driver::{Driver, check_bolt, dump_bolt};
use support::equality::differences;
use support::records::decode_timeless;

const REPOS: usize = 30;

fn store() -> Sandbox {
    Sandbox::new(|root| {
        for n in 0..REPOS {
            push(root, &format!("repo{n}"), &["v1"], &n.to_string());
        }
    })
}

#[test]
fn beside_a_busy_writer_answers_are_right_or_busy() {
    let sandbox = store();
    sandbox.walk();
    let stamps = ["v2.1.20+v2.1.20-0-g3b5796d|aaaa", "v2.1.19+other|bbbb"];
    let repo = Driver::Bolt.dump(&sandbox.root).get("RepoMeta", "repo1").unwrap().to_vec();
    let mut writer = Writer::open(&sandbox.meta(), &OpenOptions::default()).unwrap();
    let mut commit = |round: usize| {
        let mut batch = Batch::new();
        // As pushes do: pages move, and the stamp with them.
        for n in 0..REPOS {
            let mut record = repo.clone();
            record.resize(repo.len() + (round * 37 + n * 11) % 900, b' ');
            batch.put(&[b"UserData"], format!("user{n}").as_bytes(), record).unwrap();
        }
        batch.put(&[b"Version"], b"FastRestartStamp", stamps[round % 2].as_bytes()).unwrap();
        writer.commit(&batch).unwrap();
    };
    commit(0);
    let stop = AtomicBool::new(false);
    let (mut right, mut busy) = (0, 0);
    let rounds = std::thread::scope(|threads| {
        let commits = threads.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                commit(round);
                if round % 25 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
            }
            round
        });
        let checks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..60 {
                let args: &[&str] = if n % 2 == 0 { &["stamp", "show"] } else { &["walk", "--dry-run", "--force"] };
                let ran = sandbox.run(&[args, &["--format", "json"]].concat());
                let document = ran.json();
                match ran.code {
                    Some(0) if n % 2 == 0 => {
                        let stamp = document["stored"]["stamp"].as_str().unwrap();
                        assert!(stamps.contains(&stamp), "{ran:?}");
                        assert_eq!(document["verdict"], "stale");
                        right += 1;
                    }
                    Some(0) => {
                        assert_eq!(document["changed"].as_array().unwrap().len(), REPOS, "{ran:?}");
                        assert_eq!((&document["new"], &document["deleted"]), (&json!([]), &json!([])), "{ran:?}");
                        right += 1;
                    }
                    Some(3) => {
                        assert_eq!(document["error"]["reason"], "busy", "{ran:?}");
                        busy += 1;
                    }
                    _ => panic!("{ran:?}"),
                }
            }
            let ran = sandbox.run(&["walk", "--lock-timeout", "200ms", "--format", "json"]);
            let error = &ran.json()["error"];
            assert_eq!((ran.code, &error["reason"]), (Some(3), &json!("locked")), "{ran:?}");
            let us = format!("process {}", std::process::id());
            assert!(error["message"].as_str().unwrap().contains(&us), "{ran:?}");
        }));
        stop.store(true, Ordering::Relaxed);
        let rounds = commits.join().unwrap();
        if let Err(panic) = checks {
            std::panic::resume_unwind(panic);
        }
        rounds
    });
    assert!(right > 10 && rounds > 50, "{right} right, {busy} busy, {rounds} commits");
    drop(writer);
    let db = metactl::metadb::bolt::Database::open(&sandbox.meta()).unwrap();
    assert!(check_bolt(&db).problems.is_empty());
    assert_eq!(dump_bolt(&db).bucket("RepoMeta").len(), REPOS);
}

#[test]
fn walks_that_meet_wait_or_are_refused() {
    for driver in Driver::BOTH {
        let sandbox = store();
        if driver == Driver::Redb {
            sandbox.configure(&json!({"cacheDriver": {"name": "redb"}}));
        }
        let timeless = || decode_timeless(&driver.dump(&sandbox.root));
        sandbox.walk();
        let first = timeless();
        // zot keeps placeholders in a new record until it is read again: settled, a record stays as it is.
        for _ in 0..2 {
            assert_eq!(sandbox.run(&["walk", "--force"]).code, Some(0));
        }
        let expected = timeless();
        for timeout in ["60s", "0"] {
            let walk = || {
                sandbox.command(&["walk", "--force", "--format", "json", "--lock-timeout", timeout]).spawn().unwrap()
            };
            let ran = [walk(), walk(), walk()].map(finish);
            let done = ran.iter().filter(|ran| ran.code == Some(0)).count();
            let refused = ran.iter().filter(|ran| ran.code == Some(3)).count();
            assert!(done >= 1 && done + refused == 3 && (timeout == "0" || done == 3), "{driver:?}: {ran:?}");
            for ran in ran.iter().filter(|ran| ran.code == Some(3)) {
                assert_eq!(ran.json()["error"]["reason"], "locked", "{ran:?}");
            }
            let found = differences(&expected, &timeless());
            assert!(found.is_empty(), "{driver:?}: another result: {found:?}");
        }
        // The first walk of all: the file is made by one and found by the others.
        for _ in 0..10 {
            for file in ["meta.db", "meta.redb"] {
                let _ = std::fs::remove_file(sandbox.root.join(file));
            }
            let walk = || sandbox.command(&["walk", "--format", "json", "--lock-timeout", "60s"]).spawn().unwrap();
            let ran = [walk(), walk()].map(finish);
            assert!(ran.iter().all(|ran| ran.code == Some(0)), "{driver:?}: {ran:?}");
            let found = differences(&first, &timeless());
            assert!(found.is_empty(), "{driver:?}: another result: {found:?}");
        }
    }
}
