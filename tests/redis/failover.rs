//! Sentinel's fail-overs during a walk: what was acknowledged is there in the end, or the walk says that it is not.

use crate::support::redis::{client, dump, state};
use crate::support::server::eventually;
use crate::support::setups;
use crate::support::walk::{open_writer, walk_at, walk_told};
use crate::support::work::{Work, all, done, records, repos, store};
use crate::{as_bolt, failed};
use metactl::metadb::MetaDbError;
use metactl::progress::Progress;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn now_master(setup: &setups::Setup) -> redis::Connection {
    let mut sentinel = setup.servers[2].client();
    let address: Vec<String> =
        redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg("mymaster").query(&mut sentinel).unwrap();
    client(&format!("redis://:master-Secret@{}:{}", address[0], address[1]))
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_fail_over_during_the_walk() {
    /// Kills the master when some repos are recorded; the others are read afterwards.
    struct Killer<'a> {
        setup: &'a setups::Setup,
        read: AtomicUsize,
        kill: Once,
    }
    impl Progress for Killer<'_> {
        fn part_read(&self, manifests: u64, _: u64, _: f64) {
            if manifests > 0 && self.read.fetch_add(1, Ordering::Relaxed) >= 20 {
                self.kill.call_once(|| {
                    let mut master = client(&self.setup.admin);
                    let recorded = redis::cmd("HLEN").arg("zot:RepoMeta").to_owned();
                    eventually("repos are recorded", || recorded.query::<usize>(&mut master).unwrap() >= 20);
                    self.setup.servers[0].signal("-KILL");
                });
            }
        }
    }
    let setup = setups::sentinel();
    let place = setup.place("zot");
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 30, 5);
    let killer = Killer { setup: &setup, read: AtomicUsize::new(0), kill: Once::new() };
    let mut writer = open_writer(&place).unwrap();
    let report = walk_told(dir.path(), &mut *writer, &killer).unwrap();
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    drop(writer);
    assert_eq!(as_bolt(dir.path(), &dump(&mut now_master(&setup), "zot")), Vec::<String>::new());
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_fail_over_while_repos_are_locked() {
    let setup = setups::sentinel();
    let killed = AtomicUsize::new(0);
    let mut work = repos(12);
    work.insert(
        6,
        Work::new("killer", |_| {
            if killed.fetch_add(1, Ordering::Relaxed) == 0 {
                setup.servers[0].signal("-KILL");
            }
            Ok(records("killed"))
        })
        .image("sha256:aa", b"image"),
    );
    let mut writer = open_writer(&setup.place("zot")).unwrap();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    writer.set_stamp(None, Some(b"stamp")).unwrap();
    drop(writer);
    let state = dump(&mut now_master(&setup), "zot");
    assert_eq!(state.bucket("RepoMeta").len(), 13);
    assert_eq!(state.bucket("ImageMeta").len(), 1);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_fail_over_that_loses_writes_is_noticed() {
    let setup = setups::sentinel();
    let place = setup.place("zot");
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 4, 2);
    let mut writer = open_writer(&place).unwrap();
    let mut replica = client(&format!("redis://:master-Secret@127.0.0.1:{}", setup.servers[1].port));
    eventually("the replica has the walk lock", || {
        redis::cmd("EXISTS").arg("zot:metactl:walk").query::<i64>(&mut replica).unwrap() == 1
    });
    // The replica loses its master, which then takes writes that nobody else has.
    let () = redis::cmd("CONFIG").arg("SET").arg("masterauth").arg("wrong").query(&mut replica).unwrap();
    let () = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("master").query(&mut replica).unwrap();
    assert!(done(&writer.write(&all(&repos(3))).unwrap()), "the master acknowledges");
    setup.servers[0].signal("-KILL");
    let error = failed(writer.set_stamp(None, Some(b"stamp")));
    assert!(matches!(error, MetaDbError::Lost { .. }), "{error:?}");
    drop(writer);
    assert_eq!(state(&mut now_master(&setup), "zot").get("Version", "FastRestartStamp"), None);
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
}
