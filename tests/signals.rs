//! Stopping at any instant, politely or not: every repo old or new, no stamp that claims more than there is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::MetaDbError;
use metactl::metadb::bolt::Database;
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::command::{Sandbox, content, finish, kill, push, push_at, wait_for};
use support::driver::{Driver, Raw, check_bolt};
use support::equality::differences;
use support::records::decode_timeless;

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn store(root: &Path, repos: usize) {
    for n in 0..repos {
        push(root, &format!("team{}/app{n}", n % 7), &["v1", "v2"], &n.to_string());
    }
}

fn stamped(sandbox: &Sandbox) -> bool {
    let db = metactl::metadb::Place::Bolt(sandbox.meta()).open(&Cancel::default()).unwrap();
    db.stamp().unwrap().is_some()
}

fn sound(driver: Driver, root: &Path) {
    if matches!(driver, Driver::Bolt) {
        let report = check_bolt(&Database::open(&root.join("meta.db")).unwrap());
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

/// A walk over a stamped metaDB, past the point where it has cleared the stamp.
fn in_mid_walk(sandbox: &Sandbox) -> Child {
    let child = sandbox.command(&["walk", "--force", "--format", "json"]).spawn().unwrap();
    wait_for("the end of the stamp", || !stamped(sandbox));
    child
}

#[test]
fn the_first_signal_stops_in_order_and_the_process_ends_by_it() {
    let sandbox = Sandbox::new(|root| store(root, 1500));
    sandbox.walk();
    let complete = Driver::Bolt.dump(&sandbox.root);
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let child = in_mid_walk(&sandbox);
        kill(pid(&child), signal);
        let ran = finish(child);
        assert_eq!(ran.signal, Some(number), "{ran:?}");
        let report = ran.json();
        assert_eq!(
            (&report["result"], &report["stamp"]["outcome"]),
            (&json!("broken-off"), &json!("absent")),
            "{ran:?}"
        );
        assert!(report["repos"]["parsed"].as_u64().unwrap() < 1500, "too fast to be interrupted");
        assert!(ran.stderr.contains("stopped by a signal") && ran.stderr.contains("hint: "), "{ran:?}");
        assert!(!stamped(&sandbox));
        sound(Driver::Bolt, &sandbox.root);
        let after = Driver::Bolt.dump(&sandbox.root);
        assert_eq!(after.bucket("RepoMeta"), complete.bucket("RepoMeta"));
        sandbox.walk();
        assert!(stamped(&sandbox));
    }
}

#[test]
fn a_signal_while_waiting_for_the_lock_ends_the_wait() {
    let sandbox = Sandbox::new(|root| store(root, 2));
    sandbox.walk();
    for (driver, url) in [("bolt", "bolt:meta.db"), ("redb", "redb:meta.redb")] {
        let walk = || {
            let mut command = sandbox.command(&["walk", "--force", "--format", "json", "--lock-timeout", "1h"]);
            command.current_dir(&sandbox.root).args(["--metadb", url]);
            command
        };
        assert_eq!(finish(walk().spawn().unwrap()).code, Some(0));
        let file = sandbox.root.join(url.split(':').nth(1).unwrap());
        let lock = fs::File::open(&file).unwrap();
        lock.lock().unwrap();
        let before = content(sandbox.dir.path());
        let child = walk().spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        kill(pid(&child), Signal::TERM);
        let ran = finish(child);
        assert_eq!(ran.signal, Some(15), "{driver}: {ran:?}");
        assert_eq!(ran.json()["error"]["reason"], "cancelled", "{driver}: {ran:?}");
        let ran = finish(walk().args(["--timeout", "300ms"]).spawn().unwrap());
        assert_eq!((ran.code, &ran.json()["error"]["reason"]), (Some(3), &json!("timeout")), "{driver}: {ran:?}");
        assert_eq!(content(sandbox.dir.path()), before);
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let sandbox = Sandbox::new(|root| store(root, 1));
    // A server that takes the question and never answers.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let mut command = support::command::metactl();
    command.arg("--config").arg(&sandbox.config).args(["stamp", "show", "--zot-url", &url]);
    let mut child = command.spawn().unwrap();
    let _asked = server.accept().unwrap();
    kill(pid(&child), Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for a safe point");
    let second = Instant::now();
    kill(pid(&child), Signal::INT);
    assert_eq!(finish(child).signal, Some(2));
    assert!(second.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_timeout_is_a_failure_before_the_first_write_and_a_partial_walk_after_it() {
    let sandbox = Sandbox::new(|root| store(root, 1500));
    sandbox.walk();
    let (mut nothing, mut partial) = (0, 0);
    for milliseconds in (0..).step_by(20) {
        let before = content(sandbox.dir.path());
        let timeout = format!("{milliseconds}ms");
        let ran = sandbox.run(&["walk", "--force", "--format", "json", "--timeout", &timeout]);
        let document = ran.json();
        match ran.code {
            Some(3) => {
                assert_eq!(document["error"]["reason"], "timeout", "{ran:?}");
                assert_eq!(content(sandbox.dir.path()), before);
                nothing += 1;
            }
            Some(1) => {
                assert_eq!(document["result"], "broken-off", "{ran:?}");
                assert!(ran.stderr.contains("--timeout is over"), "{ran:?}");
                assert!(!stamped(&sandbox));
                partial += 1;
                if partial == 5 {
                    break;
                }
            }
            Some(0) => break,
            _ => panic!("{ran:?}"),
        }
    }
    assert!(nothing > 0 && partial > 0, "{nothing} without a change, {partial} partial");
    sandbox.walk();
    assert!(stamped(&sandbox));
}

/// A number that differs from run to run; printed when something fails.
fn random() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64 ^ u64::from(std::process::id()) << 20
}

/// The records of one repo.
fn repo(state: &Raw, name: &[u8]) -> [Option<Vec<u8>>; 2] {
    ["RepoMeta", "RepoBlobsMeta"].map(|bucket| state.bucket(bucket).remove(name))
}

/// A store and two states of its metaDB: as it is before the walk that is killed, and as that walk would leave it.
struct Crash {
    driver: Driver<'static>,
    sandbox: Sandbox,
    before: Raw,
    base: Option<Vec<u8>>,
    after: Raw,
    took: Duration,
}

impl Crash {
    const REPOS: usize = 60;

    fn new(driver: Driver<'static>, full: bool) -> Self {
        let sandbox = Sandbox::new(|root| store(root, Self::REPOS));
        if matches!(driver, Driver::Redb) {
            sandbox.configure(&json!({"cacheDriver": {"name": "redb"}}));
        }
        let mut crash =
            Self { driver, sandbox, before: Raw::default(), base: None, after: Raw::default(), took: Duration::ZERO };
        if full {
            crash.sandbox.walk();
            // zot keeps placeholders in a new record until it is read again: settled, a record stays as it is.
            for _ in 0..2 {
                assert_eq!(finish(crash.walk(&["--force"]).spawn().unwrap()).code, Some(0));
            }
            crash.before = driver.dump(&crash.sandbox.root);
            crash.base = Some(fs::read(crash.file()).unwrap());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
            for n in (0..Self::REPOS).step_by(2) {
                let name = format!("team{}/app{n}", n % 7);
                push_at(&crash.sandbox.root, &name, &["v1", "v3"], &format!("{n} again"), now);
            }
            // Gone from storage, and within what the guard lets go.
            fs::remove_dir_all(crash.sandbox.root.join("team1/app1")).unwrap();
        }
        let started = Instant::now();
        finish(crash.walk(&["--force"]).spawn().unwrap());
        crash.took = started.elapsed();
        crash.after = driver.dump(&crash.sandbox.root);
        crash
    }

    fn walk(&self, more: &[&str]) -> Command {
        self.sandbox.command(&[&["walk"], more].concat())
    }

    fn file(&self) -> std::path::PathBuf {
        self.sandbox.root.join(if matches!(self.driver, Driver::Bolt) { "meta.db" } else { "meta.redb" })
    }

    /// Kill a walk after `delay`. Whether it had done something by then, and not all.
    fn kill_after(&self, delay: Duration) -> bool {
        let _ = fs::remove_file(self.file());
        if let Some(base) = &self.base {
            fs::write(self.file(), base).unwrap();
        }
        let child = self.walk(&["--force"]).spawn().unwrap();
        std::thread::sleep(delay);
        kill(pid(&child), Signal::KILL);
        finish(child);

        if matches!(self.driver, Driver::Redb) && self.file().exists() {
            let show = self.sandbox.run(&["stamp", "show", "--format", "json"]);
            assert!(show.code == Some(0) || show.json()["error"]["reason"] == "unclean", "{show:?}");
            // Repairs it, as every writer does.
            drop(redb::Database::open(self.file()).unwrap());
        }
        let found = match self.driver.place(&self.sandbox.root).open(&Cancel::default()) {
            Ok(_) => self.driver.dump(&self.sandbox.root),
            Err(MetaDbError::Absent { .. }) => Raw::default(),
            // Killed while the file was made, before its first page was valid: the next walk below takes it for new.
            Err(MetaDbError::Damaged { .. }) if self.base.is_none() && self.driver == Driver::Bolt => Raw::default(),
            Err(error) => panic!("{:?} {delay:?}: {error}", self.driver),
        };
        if matches!(self.driver, Driver::Bolt) && !found.0.is_empty() {
            sound(self.driver, &self.sandbox.root);
        }
        if self.base.is_some() {
            assert!(!found.0.is_empty(), "a full metaDB is lost");
        }
        let [now, new] = [&found, &self.after].map(decode_timeless);
        let mut news = 0;
        let mut olds = 0;
        let names: std::collections::BTreeSet<_> =
            self.before.bucket("RepoMeta").into_keys().chain(self.after.bucket("RepoMeta").into_keys()).collect();
        for name in &names {
            let text = std::str::from_utf8(name).unwrap();
            let is_old = repo(&found, name) == repo(&self.before, name);
            let is_new = ["RepoMeta", "RepoBlobsMeta"].iter().all(|part| now[part].get(text) == new[part].get(text));
            assert!(is_old || is_new, "{text}: neither old nor new");
            news += usize::from(is_new);
            olds += usize::from(is_old);
        }
        let stamp = found.get("Version", "FastRestartStamp").is_some_and(|stamp| !stamp.is_empty());
        let untouched = self.base.is_some() && olds == names.len();
        assert!(!stamp || news == names.len() || untouched, "stamped with {news} of {} repos", names.len());

        // What is recorded need not be read again, unless the stamp of the walk before is still there.
        let more: &[&str] = if untouched && stamp { &["--force"] } else { &[] };
        let again = finish(self.walk(more).spawn().unwrap());
        assert_eq!(again.code, Some(0), "{again:?}");
        let end = decode_timeless(&self.driver.dump(&self.sandbox.root));
        let differing = differences(&new, &end);
        assert!(
            differing.is_empty(),
            "{:?}, full: {}, {delay:?}: a walk after the killed one ends otherwise ({news} new, {olds} old, stamp: {stamp}, {more:?}): {differing:?}",
            self.driver,
            self.base.is_some()
        );
        let all = stamp && news == names.len();
        !found.0.is_empty() && !all
    }
}

#[test]
fn kill_at_any_instant_leaves_every_repo_old_or_new() {
    const KILLS: u32 = 40;
    let mut seed = random();
    for driver in Driver::BOTH {
        for full in [false, true] {
            let crash = Crash::new(driver, full);
            let mut in_between = 0;
            for n in 0..KILLS {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let share = (seed >> 40) as f64 / (1_u64 << 24) as f64;
                // Every other one late, where the commits are.
                let share = if n % 2 == 0 { share } else { 0.5 + share / 2.0 };
                let delay = crash.took.mul_f64(share);
                in_between += u32::from(crash.kill_after(delay));
            }
            assert!(in_between > 0, "{driver:?}, full: {full}: no walk was hit between its beginning and its end");
        }
    }
}
