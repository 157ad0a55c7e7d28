//! What goes wrong with a server, and what is left behind: repos old or new, no stamp, and a walk that completes when it
//! is run again. No message ever shows a password.

use crate::support::redis::{Server, client, dump};
use crate::support::server::eventually;
use crate::support::setups;
use crate::support::walk::{open_writer, walk_at};
use crate::support::work::{Work, all, done, records, repos, store};
use crate::{failed, read};
use metactl::cancel::Cancel;
use metactl::error::chain;
use metactl::metadb::redis::RedisOptions;
use metactl::metadb::{MetaDbError, Outcome, Place, Refusal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A place whose writer gives up soon.
fn hasty(url: &str) -> Place {
    Place::Redis(Box::new(RedisOptions::from_url(url).unwrap().with_patience(Duration::from_secs(2))))
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_is_down_or_refuses_the_login() {
    let mut server = Server::start(&["--requirepass", "right-Secret"]);
    let place = |login: &str| Place::parse(&format!("redis://{login}127.0.0.1:{}/0", server.port)).unwrap();
    for login in ["", ":wrong-Secret@", "nobody:wrong-Secret@"] {
        for error in [failed(read(&place(login))), failed(open_writer(&place(login)))] {
            assert!(matches!(error, MetaDbError::Login { .. }), "{login}: {error:?}");
        }
    }
    let right = place(":right-Secret@");
    assert!(matches!(failed(read(&right)), MetaDbError::Absent { .. }));
    server.kill();
    for error in [failed(read(&right)), failed(open_writer(&right))] {
        assert!(matches!(error, MetaDbError::Unreachable { .. }), "{error:?}");
    }
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn what_answers_is_no_redis() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::parse(&format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port())).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    assert!(matches!(failed(read(&place)), MetaDbError::Unreachable { .. }));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_dies_midway_and_stays_away() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 8, 3);
    let place = hasty(&server.url("?dial_timeout=1&read_timeout=1"));
    let mut writer = open_writer(&place).unwrap();
    writer.set_stamp(None, Some(b"an older walk's")).unwrap();
    server.kill();
    // Planning cannot even begin.
    let error = crate::support::walk::walk_with(dir.path(), &mut *writer, false).unwrap_err();
    assert!(chain(&error).contains("cannot be reached"), "{error:?}");
    drop(writer);

    server.restart();
    let mut client = server.client();
    // The dead walk's lock would expire within a minute.
    let () = redis::cmd("DEL").arg("zot:metactl:walk").query(&mut client).unwrap();
    let started = Instant::now();
    let work = repos(3);
    let mut writer = open_writer(&place).unwrap();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    server.kill();
    let error = failed(writer.write(&all(&work)));
    assert!(matches!(error, MetaDbError::Unreachable { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    drop(writer);

    server.restart();
    let () = redis::cmd("DEL").arg("zot:metactl:walk").query(&mut server.client()).unwrap();
    let report = walk_at(&place, dir.path(), false).unwrap();
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    assert_eq!(dump(&mut server.client(), "zot").bucket("RepoMeta").len(), 8);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_comes_back_is_waited_for() {
    let server = std::sync::Mutex::new(Server::start(&["--appendonly", "yes", "--appendfsync", "always"]));
    let url = server.lock().unwrap().url("?read_timeout=1");
    let mut writer = open_writer(&Place::parse(&url).unwrap()).unwrap();
    let crashes = AtomicUsize::new(0);
    let mut work = repos(20);
    let crash = |_: &_| {
        if crashes.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut server = server.lock().unwrap();
            server.kill();
            server.restart();
        }
        Ok(records("crashed"))
    };
    work.push(Work::new("crash", crash).image("sha256:aa", b"image"));
    assert!(done(&writer.write(&all(&work)).unwrap()));
    assert_eq!(crashes.load(Ordering::Relaxed), 2, "the group is built again");
    writer.set_stamp(None, Some(b"stamp")).unwrap();
    drop(writer);
    let state = dump(&mut server.lock().unwrap().client(), "zot");
    assert_eq!(state.bucket("RepoMeta").len(), 21);
    assert_eq!(state.get("ImageMeta", "sha256:aa"), Some(&b"image"[..]));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_forgets_everything_is_not_stamped_over() {
    let server = std::sync::Mutex::new(Server::start(&[]));
    let place = Place::parse(&server.lock().unwrap().url("")).unwrap();
    let mut writer = open_writer(&place).unwrap();
    assert!(done(&writer.write(&all(&repos(5))).unwrap()));
    {
        let mut server = server.lock().unwrap();
        server.kill();
        server.restart();
    }
    assert!(matches!(failed(writer.set_stamp(None, Some(b"stamp"))), MetaDbError::Lost { .. }));
    assert!(matches!(failed(writer.write(&all(&repos(1)))), MetaDbError::Lost { .. }));
    drop(writer);
    assert_eq!(
        dump(&mut server.lock().unwrap().client(), "zot").0.values().map(|records| records.len()).sum::<usize>(),
        0
    );
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_stalls_is_waited_for() {
    let server = Server::start(&[]);
    let mut writer = open_writer(&Place::parse(&server.url("?read_timeout=500ms")).unwrap()).unwrap();
    let stalls = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        let stall = |_: &_| {
            if stalls.fetch_add(1, Ordering::Relaxed) == 0 {
                server.signal("-STOP");
                threads.spawn(|| {
                    std::thread::sleep(Duration::from_secs(2));
                    server.signal("-CONT");
                });
            }
            Ok(records("stalled"))
        };
        let work = [Work::new("stall", stall)];
        assert!(done(&writer.write(&all(&work)).unwrap()));
    });
    drop(writer);
    assert_eq!(dump(&mut server.client(), "zot").get("RepoMeta", "stall"), Some(&b"meta stalled"[..]));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_stalls_for_good_is_given_up() {
    let server = Server::start(&["--requirepass", "right-Secret"]);
    let url = format!("redis://:right-Secret@127.0.0.1:{}?dial_timeout=1&read_timeout=300ms", server.port);
    let place = hasty(&url);
    let mut writer = open_writer(&place).unwrap();
    server.signal("-STOP");
    let started = Instant::now();
    // A connection that is open, new ones that are accepted but not answered, reading and writing.
    let errors = [
        failed(writer.write(&all(&repos(3)))),
        failed(writer.set_stamp(None, Some(b"stamp"))),
        failed(read(&place)),
        failed(open_writer(&place)),
    ];
    for error in errors {
        assert!(matches!(error, MetaDbError::Unreachable { .. }), "{error:?}");
        assert!(chain(&error).contains("in time"), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    server.signal("-CONT");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_full_server() {
    let server = Server::start(&[]);
    let place = Place::parse(&server.url("")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 3, 2);
    let mut admin = server.client();
    let limit = |bytes: &str| {
        let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query(&mut server.client()).unwrap();
    };
    limit("1");
    assert!(matches!(failed(open_writer(&place)), MetaDbError::Full { .. }));
    assert_eq!(redis::cmd("DBSIZE").query::<i64>(&mut admin).unwrap(), 0, "something was written");
    limit("0");
    let mut writer = open_writer(&place).unwrap();
    let fill = |_: &_| {
        limit("1");
        Ok(records("full"))
    };
    let error = failed(writer.write(&all(&[Work::new("fill", fill)])));
    assert!(matches!(error, MetaDbError::Full { .. }), "{error:?}");
    assert!(matches!(failed(writer.set_stamp(None, Some(b"stamp"))), MetaDbError::Full { .. }));
    // Deleting is possible on a full server; locks are let go.
    drop(writer);
    let left = dump(&mut admin, "zot");
    assert_eq!((left.bucket("RepoMeta").len(), left.bucket("RepoLastUpdated").len()), (0, 0));
    limit("0");
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_replica_can_be_read_but_not_written() {
    let master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 2, 1);
    let there = Place::parse(&replica.url("")).unwrap();
    assert!(walk_at(&Place::parse(&master.url("")).unwrap(), dir.path(), false).unwrap().complete());
    eventually("the replica has it all", || {
        read(&there).is_ok_and(|db| db.stamp().unwrap().is_some() && db.repo_names().unwrap().len() == 2)
    });
    assert!(matches!(failed(open_writer(&there)), MetaDbError::ReadOnly { .. }));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn foreign_keys_and_versions_are_refused() {
    let server = Server::start(&[]);
    let mut admin = server.client();
    let () = redis::cmd("SET").arg("zot:RepoMeta").arg("no hash").query(&mut admin).unwrap();
    let place = Place::parse(&server.url("")).unwrap();
    assert!(matches!(failed(read(&place).and_then(|db| db.repo_names())), MetaDbError::Damaged { .. }));
    let () = redis::cmd("SET").arg("new:Version").arg("V2").query(&mut admin).unwrap();
    let place = Place::parse(&server.url("?keyprefix=new")).unwrap();
    assert!(matches!(failed(open_writer(&place)), MetaDbError::Version { .. }));
    // As zot takes it: no version yet is the current one.
    let () = redis::cmd("HSET").arg("old:RepoMeta").arg("a").arg("b").query(&mut admin).unwrap();
    let place = Place::parse(&server.url("?keyprefix=old")).unwrap();
    assert_eq!(read(&place).unwrap().version().unwrap().as_deref(), Some("V1"));
    drop(open_writer(&place).unwrap());
    assert_eq!(redis::cmd("GET").arg("old:Version").query::<String>(&mut admin).unwrap(), "V1");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn two_walks_do_not_meet() {
    let server = Server::start(&[]);
    let place = Place::parse(&server.url("")).unwrap();
    let first = open_writer(&place).unwrap();
    let started = Instant::now();
    let soon = |place: &Place| {
        place.open_writer(
            metactl::metadb::WriteToken::for_writing_command(),
            Duration::from_millis(1200),
            &Cancel::default(),
        )
    };
    match failed(soon(&place)) {
        MetaDbError::Locked { holder: Some(holder), .. } => {
            assert!(holder.starts_with("metactl ") && holder.contains(&std::process::id().to_string()), "{holder}");
            assert!(holder.ends_with(" s"), "{holder}");
        }
        error => panic!("{error:?}"),
    }
    assert!(started.elapsed() >= Duration::from_millis(1200));
    drop(first);
    let mut left = open_writer(&place).unwrap();
    // A walk that was stopped for so long that its lock expired has no say any more.
    let () = redis::cmd("PEXPIRE").arg("zot:metactl:walk").arg(1).query(&mut server.client()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut right = soon(&place).unwrap();
    assert!(matches!(failed(left.write(&all(&repos(1)))), MetaDbError::Lost { .. }));
    assert!(matches!(failed(left.set_stamp(None, Some(b"left"))), MetaDbError::Lost { .. }));
    drop(left);
    assert!(done(&right.write(&all(&repos(1))).unwrap()), "the end of the first did not end the second");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_lost_repo_lock_lets_no_stale_write_through() {
    let server = Server::start(&[]);
    let builds = AtomicUsize::new(0);
    let seen = std::sync::Mutex::new(Vec::new());
    let steal = |prior: &metactl::records::RepoState| {
        seen.lock().unwrap().push(prior.meta.clone());
        if builds.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut zot = server.client();
            // The lock expires, and zot takes it, writes and lets go.
            let () = redis::cmd("DEL").arg("zot:Locks:Repo:a").query(&mut zot).unwrap();
            let () = redis::cmd("HSET").arg("zot:RepoMeta").arg("a").arg("by zot").query(&mut zot).unwrap();
        }
        Ok(records("a"))
    };
    let mut writer = open_writer(&Place::parse(&server.url("")).unwrap()).unwrap();
    assert!(done(&writer.write(&all(&[Work::new("a", steal)])).unwrap()));
    assert_eq!(*seen.lock().unwrap(), [None, Some(b"by zot".to_vec())]);

    // One that is stolen every time is given up, and its new owner keeps it.
    let steal = |_: &_| {
        let () = redis::cmd("SET").arg("zot:Locks:Repo:b").arg("zot's").query(&mut server.client()).unwrap();
        Ok(records("b"))
    };
    let started = Instant::now();
    let outcomes = writer.write(&all(&[Work::new("b", steal)])).unwrap();
    assert!(matches!(&outcomes[..], [Outcome::Refused(Refusal::Unusable(_))]), "{outcomes:?}");
    assert!(started.elapsed() < Duration::from_secs(12));
    drop(writer);
    let lock: String = redis::cmd("GETDEL").arg("zot:Locks:Repo:b").query(&mut server.client()).unwrap();
    assert_eq!(lock, "zot's");
    assert_eq!(dump(&mut server.client(), "zot").get("RepoMeta", "b"), None);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn slow_work_keeps_its_locks() {
    let server = Server::start(&[]);
    let builds = AtomicUsize::new(0);
    // Longer than a lock lives.
    let work: Vec<Work<'_>> = (0..3)
        .map(|number| {
            let builds = &builds;
            Work::new(&format!("slow-{number}"), move |_| {
                builds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(9));
                Ok(records("slow"))
            })
        })
        .collect();
    let mut writer = open_writer(&Place::parse(&server.url("")).unwrap()).unwrap();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    assert_eq!(builds.load(Ordering::Relaxed), 3, "a lock expired");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn outcomes_and_stamps() {
    for setup in [setups::plain(), setups::cluster()] {
        let prefix = format!("{}zot", setup.tag);
        let mut writer = open_writer(&setup.place(&prefix)).unwrap();
        let outcomes = writer
            .write(&all(&[
                Work::new("new", |_| Ok(records("1"))).image("sha256:aa", b"\x0a\x01a"),
                Work::new("moved", |_| Err(Refusal::Moved)),
                Work::new("same", |_| Ok(metactl::records::RepoChange::Keep)),
                // Field 60 is none that this version knows.
                Work::new("newer", |_| Ok(records("2"))).image("sha256:bb", b"\xe2\x03\x01x"),
            ]))
            .unwrap();
        assert_eq!(outcomes[..3], [Outcome::Done, Outcome::Refused(Refusal::Moved), Outcome::Done]);
        let outcomes = writer
            .write(&all(&[
                Work::new("newer", |_| Ok(records("3"))).image("sha256:bb", b"\x0a\x01b"),
                Work::new("new", |_| Ok(metactl::records::RepoChange::Delete)),
            ]))
            .unwrap();
        assert!(matches!(&outcomes[0], Outcome::Refused(Refusal::Unusable(reason)) if reason.contains("sha256:bb")));
        assert_eq!(outcomes[1], Outcome::Done);
        writer.set_stamp(None, Some(b"one")).unwrap();
        for expected in [None, Some(&b"two"[..])] {
            assert!(matches!(failed(writer.set_stamp(expected, Some(b"three"))), MetaDbError::StampChanged { .. }));
        }
        writer.delete_images(&["sha256:aa".into(), "sha256:none".into()]).unwrap();
        drop(writer);
        let state = dump(&mut client(&setup.admin), &prefix);
        assert_eq!(state.get("RepoMeta", "newer"), Some(&b"meta 2"[..]));
        assert_eq!(state.get("RepoMeta", "new"), None);
        assert_eq!(state.bucket("ImageMeta").len(), 1);
        assert_eq!(state.get("Version", "FastRestartStamp"), Some(&b"one"[..]));
    }
}
