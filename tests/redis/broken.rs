//! Servers that fail, as the command line tells it: at the start nothing is changed (3), in the middle of a walk the rest
//! is done (0) or the walk says what was and what was not (2), without a stamp; the next one completes it.

use crate::as_bolt;
use crate::cluster::move_slot;
use crate::command::{command, config, discreet, parsed};
use crate::failover::now_master;
use crate::support::driver::Raw;
use crate::support::redis::{Server, client, dump};
use crate::support::server::eventually;
use crate::support::setups;
use crate::support::work::store;
use redis::Connection;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const REPOS: usize = 12;
/// A repo in the middle whose lock somebody holds for a while.
const HELD: &str = "team/repo-5";
const PERSISTENT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// Limits that make a test short.
const HASTY: &str = "?dial_timeout=1&read_timeout=1";

fn run(config: &Path, arguments: &[&str]) -> Output {
    let json = [&["--format", "json"], arguments].concat();
    discreet(command(config, &json).output().unwrap())
}

/// A store, and a config of a metaDB there.
fn scene(cache: Value) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    store(&dir.path().join("root"), REPOS, 2);
    let config = config(dir.path(), cache);
    (dir, config)
}

/// How often the server was asked to set something.
fn sets(admin: &mut Connection) -> usize {
    let info: String = redis::cmd("INFO").arg("commandstats").query(admin).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls=")).unwrap();
    line.split(',').next().unwrap().parse().unwrap()
}

/// Walk; when all repos are recorded but the one that is waited for, `act`.
fn midway(config: &Path, admin: &mut Connection, prefix: &str, act: impl FnOnce()) -> Output {
    let lock = format!("{prefix}:Locks:Repo:{HELD}");
    redis::cmd("SET").arg(&lock).arg("zot's").arg("PX").arg(3000).exec(admin).unwrap();
    let mut walk = command(config, &["--format", "json", "walk"]);
    let walk = walk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let count = redis::cmd("HLEN").arg(format!("{prefix}:RepoMeta")).to_owned();
    eventually("all others are recorded", || count.query::<usize>(admin).unwrap() == REPOS - 1);
    // And the walk knows: it has come back for the lock.
    let before = sets(admin);
    eventually("the lock is tried again", || sets(admin) > before);
    act();
    discreet(walk.wait_with_output().unwrap())
}

/// The walk broke off, said why and what it had done.
fn broke_off(output: &Output, why: &str) {
    let report = parsed(output);
    assert_eq!((output.status.code(), &report["result"]), (Some(2), &json!("broken-off")), "{report}");
    assert!(report["reason"].as_str().unwrap().contains(why), "{why}: {report}");
    assert_eq!(report["stamp"]["outcome"], "absent", "{report}");
    assert_eq!(
        (&report["repos"]["listed"], &report["repos"]["parsed"]),
        (&json!(REPOS), &json!(REPOS - 1)),
        "{report}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(why) && said.contains("run it again"), "{said}");
}

/// Nothing is left to be done but what the walk before had said.
fn completed(config: &Path, unchanged: usize) {
    let output = run(config, &["walk", "--lock-timeout", "1s"]);
    let report = parsed(&output);
    assert_eq!((output.status.code(), &report["result"]), (Some(0), &json!("complete")), "{report}");
    assert_eq!(report["repos"]["unchanged"], unchanged, "{report}");
    assert_eq!(report["stamp"]["outcome"], "written", "{report}");
    assert_eq!(run(config, &["verify", "--deep"]).status.code(), Some(0));
}

fn complete(output: &Output, dir: &Path, found: &Raw) {
    let report = parsed(output);
    assert_eq!((output.status.code(), &report["result"]), (Some(0), &json!("complete")), "{report}");
    assert_eq!(
        (&report["repos"]["parsed"], &report["stamp"]["outcome"]),
        (&json!(REPOS), &json!("written")),
        "{report}"
    );
    assert_eq!(as_bolt(&dir.join("root"), found), Vec::<String>::new());
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn nothing_is_changed_when_it_fails_at_the_start() {
    let master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let (dir, there) = scene(json!({"url": master.url("")}));
    let walked = run(&there, &["walk"]);
    assert_eq!(walked.status.code(), Some(0), "{walked:?}");
    let before = dump(&mut master.client(), "zot");
    eventually("the replica has it all", || dump(&mut replica.client(), "zot") == before);
    let full = Server::start(&["--maxmemory", "1"]);
    let still = Server::start(&[]);
    still.signal("-STOP");
    let foreign = Server::start(&[]);
    redis::cmd("SET").arg("zot:RepoMeta").arg("no hash").exec(&mut foreign.client()).unwrap();
    let newer = Server::start(&[]);
    redis::cmd("SET").arg("zot:Version").arg("V2").exec(&mut newer.client()).unwrap();
    let cluster = setups::cluster();
    let nodes: Vec<String> = cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    for (cache, code, reason, said) in [
        (json!({"url": replica.url("")}), 3, "read-only", "is a replica"),
        (json!({"url": full.url("")}), 3, "full", "memory limit"),
        (json!({"url": still.url("?dial_timeout=1&read_timeout=200ms")}), 3, "unreachable", "in time"),
        (json!({"addr": "127.0.0.1:1"}), 3, "unreachable", "refused"),
        (json!({"url": foreign.url("")}), 2, "damaged", "type"),
        (json!({"url": newer.url("")}), 2, "version", "V2"),
        (json!({"addr": nodes}), 3, "cluster", "\"{zot}\""),
        (json!({"addr": nodes[0], "keyprefix": "{zot}"}), 3, "cluster", "name the cluster"),
        (json!({"addr": [&nodes[0]], "master_name": "mymaster"}), 3, "metadb-io", "SENTINEL"),
    ] {
        let config = config(dir.path(), cache);
        for arguments in [&["walk"][..], &["walk", "--force"], &["stamp", "clear"]] {
            // Without a metaDB there is no stamp, and a stamp is cleared whatever else is there.
            if ["full", "damaged"].contains(&reason) && arguments[0] == "stamp" {
                continue;
            }
            let output = run(&config, arguments);
            let error = &parsed(&output)["error"];
            assert_eq!(
                (output.status.code(), &error["reason"]),
                (Some(code), &json!(reason)),
                "{arguments:?}: {error}"
            );
            assert!(error["message"].as_str().unwrap().contains(said), "{said}: {error}");
        }
    }
    assert_eq!(dump(&mut master.client(), "zot"), before);
    for server in [&full, &foreign, &newer].into_iter().chain(&cluster.servers) {
        let keys: usize = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
        assert_eq!(keys, usize::from([foreign.port, newer.port].contains(&server.port)), "something was written");
    }
    still.signal("-CONT");
    // A replica is good enough for looking.
    let config = config(dir.path(), json!({"url": master.url("")}));
    let verified = run(&config, &["verify", "--deep", "--metadb", &replica.url("")]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn what_passes_midway_is_waited_for() {
    let died = || {
        let mut server = Server::start(&PERSISTENT);
        let (dir, config) = scene(json!({"url": server.url(HASTY)}));
        let mut admin = server.client();
        let output = midway(&config, &mut admin, "zot", || {
            server.kill();
            std::thread::sleep(Duration::from_millis(700));
            server.restart();
        });
        complete(&output, dir.path(), &dump(&mut server.client(), "zot"));
    };
    let stalled = || {
        let server = Server::start(&[]);
        let (dir, config) = scene(json!({"url": server.url(HASTY)}));
        let output = midway(&config, &mut server.client(), "zot", || {
            server.signal("-STOP");
            std::thread::sleep(Duration::from_millis(2500));
            server.signal("-CONT");
        });
        complete(&output, dir.path(), &dump(&mut server.client(), "zot"));
    };
    let demoted = || {
        let server = Server::start(&[]);
        let (dir, config) = scene(json!({"url": server.url(HASTY)}));
        let follow = |host: &str, port: &str| {
            redis::cmd("REPLICAOF").arg(host).arg(port).exec(&mut server.client()).unwrap();
        };
        let output = midway(&config, &mut server.client(), "zot", || {
            follow("127.0.0.1", "1");
            // Until the lock that is waited for has expired: then something is written.
            std::thread::sleep(Duration::from_millis(3500));
            follow("NO", "ONE");
        });
        complete(&output, dir.path(), &dump(&mut server.client(), "zot"));
    };
    let moved = || {
        let setup = setups::cluster();
        let addresses: Vec<String> =
            setup.servers[..2].iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let (dir, config) = scene(json!({"addr": addresses, "keyprefix": "{zot}"}));
        let output = midway(&config, &mut setup.servers[2].client(), "{zot}", || {
            move_slot(&setup.servers[2], &setup.servers[0], setup.servers[0].port, || {});
        });
        complete(&output, dir.path(), &dump(&mut setup.servers[0].client(), "{zot}"));
    };
    let failed_over = || {
        let setup = setups::sentinel();
        let sentinels: Vec<String> =
            setup.servers[2..].iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let cache = json!({"addr": sentinels, "master_name": "mymaster", "password": "master-Secret"});
        let (dir, config) = scene(cache);
        let output = midway(&config, &mut client(&setup.admin), "zot", || setup.servers[0].signal("-KILL"));
        complete(&output, dir.path(), &dump(&mut now_master(&setup), "zot"));
    };
    std::thread::scope(|threads| {
        let all: [&(dyn Fn() + Sync); 5] = [&died, &stalled, &demoted, &moved, &failed_over];
        all.into_iter().for_each(|one| drop(threads.spawn(one)));
    });
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn what_does_not_pass_ends_the_walk_at_once() {
    let rights = [&setups::READING[..], &setups::WALKING[..]].concat();
    let server = setups::acl(&rights, "zot");
    let admin = || server.client();
    let allow = |rule: &str| redis::cmd("ACL").arg("SETUSER").arg("zot").arg(rule).exec(&mut admin()).unwrap();
    let (_dir, there) = scene(json!({"url": format!("redis://zot:zot-Secret@127.0.0.1:{}", server.port)}));
    let output = midway(&there, &mut admin(), "zot", || allow("-hset"));
    broke_off(&output, "denies hset");
    allow("+hset");
    completed(&there, REPOS - 1);

    let server = Server::start(&[]);
    let limit =
        |bytes: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(&mut server.client()).unwrap();
    let (_dir, there) = scene(json!({"url": server.url("")}));
    let output = midway(&there, &mut server.client(), "zot", || limit("1"));
    broke_off(&output, "is full");
    limit("0");
    completed(&there, REPOS - 1);

    // It comes back with nothing: neither its records nor its locks are there.
    let mut server = Server::start(&[]);
    let (_dir, there) = scene(json!({"url": server.url(HASTY)}));
    let mut admin = server.client();
    let output = midway(&there, &mut admin, "zot", || {
        server.kill();
        server.restart();
    });
    broke_off(&output, "lost");
    completed(&there, 0);
}

/// A server that is away is waited for, but not for ever. All at once, because that takes 40 seconds each.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn what_stays_broken_is_given_up() {
    let given_up = |server: &mut Server, why: &str, breaks: &dyn Fn(&mut Server), mends: &dyn Fn(&mut Server)| {
        let (_dir, config) = scene(json!({"url": server.url(HASTY)}));
        let mut admin = server.client();
        let began = Instant::now();
        let output = midway(&config, &mut admin, "zot", || breaks(server));
        broke_off(&output, why);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        mends(server);
        // The lock of the walk that could not let go of it lives for a while, and says whose it is.
        let output = run(&config, &["walk", "--lock-timeout", "0s"]);
        if parsed(&output)["error"]["reason"] == "locked" {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("by metactl ") && said.contains("expires in a minute"), "{said}");
            redis::cmd("DEL").arg("zot:metactl:walk").exec(&mut server.client()).unwrap();
            completed(&config, REPOS - 1);
        } else {
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }
    };
    let follow = |server: &Server, host: &str, port: &str| {
        redis::cmd("REPLICAOF").arg(host).arg(port).exec(&mut server.client()).unwrap();
    };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            given_up(&mut Server::start(&PERSISTENT), "cannot be reached", &Server::kill, &Server::restart);
        });
        threads.spawn(|| {
            let (stop, go) =
                (|server: &mut Server| server.signal("-STOP"), |server: &mut Server| server.signal("-CONT"));
            given_up(&mut Server::start(&[]), "did not answer in time", &stop, &go);
        });
        threads.spawn(|| {
            let demote = |server: &mut Server| follow(server, "127.0.0.1", "1");
            given_up(&mut Server::start(&[]), "is a replica", &demote, &|server| follow(server, "NO", "ONE"));
        });
    });
}
