//! Redis Clusters: the prefix that they need, slots that move, TLS.

use crate::support::redis::{Server, client, dump};
use crate::support::setups::{self, Certificates, text, with_files};
use crate::support::walk::{open_writer, walk_at, walk_told};
use crate::support::work::{Work, all, done, records, repos, store};
use crate::{as_bolt, from_params, message, read};
use metactl::config::tree::Tree;
use metactl::metadb::Place;
use metactl::metadb::redis::TlsFiles;
use metactl::progress::Progress;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_cluster_needs_a_hash_tag() {
    let setup = setups::cluster();
    let keys = || -> i64 {
        setup.servers.iter().map(|server| redis::cmd("DBSIZE").query::<i64>(&mut server.client()).unwrap()).sum()
    };
    for place in [setup.place("zot"), Place::parse(&setup.servers[0].url("")).unwrap()] {
        for said in [message(read(&place)), message(open_writer(&place))] {
            assert!(said.contains("\"{zot}\""), "{said}");
        }
    }
    // One node named as if it were all: its keys are on another.
    let single = Place::parse(&setup.servers[0].url("?keyprefix={zot}")).unwrap();
    let said = message(read(&single));
    assert!(said.contains("name the cluster"), "{said}");
    assert!(message(open_writer(&single)).contains("name the cluster"));
    // A plain server named as if it were a cluster.
    let server = Server::start(&[]);
    let address = text(&format!("127.0.0.1:{}", server.port));
    let place = from_params(&[("addr", Tree::List(vec![address.clone(), address])), ("keyprefix", text("{zot}"))]);
    let said = message(read(&place));
    assert!(said.contains("the server is none"), "{said}");
    assert_eq!(keys(), 0, "something was written");

    let nodes: Vec<Tree> = setup.servers.iter().map(|server| text(&format!("127.0.0.1:{}", server.port))).collect();
    let place = from_params(&[("addr", Tree::List(nodes)), ("keyprefix", text("{zot}"))]);
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 5, 3);
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
    // The first seed is down.
    let nodes: Vec<Tree> = [1, setup.servers[1].port].iter().map(|port| text(&format!("127.0.0.1:{port}"))).collect();
    let place = from_params(&[("addr", Tree::List(nodes)), ("keyprefix", text("{zot}"))]);
    assert_eq!(read(&place).unwrap().repo_names().unwrap().len(), 5);
}

/// Move slot 15054 with all its keys from one node to another, which others reach at `port`, as `redis-cli --cluster
/// reshard` does. `step` is called after every key.
pub fn move_slot(from: &Server, to: &Server, port: u16, mut step: impl FnMut()) {
    let (mut from, mut to) = (from.client(), to.client());
    let id = |node: &mut redis::Connection| redis::cmd("CLUSTER").arg("MYID").query::<String>(node).unwrap();
    let (from_id, to_id) = (id(&mut from), id(&mut to));
    let set = |node: &mut redis::Connection, what: &str, id: &str| {
        let () = redis::cmd("CLUSTER").arg("SETSLOT").arg(15054).arg(what).arg(id).query(node).unwrap();
    };
    set(&mut to, "IMPORTING", &from_id);
    set(&mut from, "MIGRATING", &to_id);
    loop {
        let left: Vec<String> = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(15054).arg(1).query(&mut from).unwrap();
        let Some(key) = left.first() else { break };
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(port).arg(key).arg(0).arg(5000).exec(&mut from).unwrap();
        step();
    }
    set(&mut to, "NODE", &to_id);
    set(&mut from, "NODE", &to_id);
}

/// How often a node said `ASK` or `TRYAGAIN`: the slot is on its way to another.
fn redirected(server: &Server) -> usize {
    let info: String = redis::cmd("INFO").arg("errorstats").query(&mut server.client()).unwrap();
    let counts = info.lines().filter_map(|line| {
        line.strip_prefix("errorstat_ASK:count=").or_else(|| line.strip_prefix("errorstat_TRYAGAIN:count="))
    });
    counts.map(|count| count.parse::<usize>().unwrap()).sum()
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_slot_that_moves_is_followed() {
    let setup = setups::cluster();
    let moves = AtomicUsize::new(0);
    let mut work = repos(10);
    let moving = |_: &_| {
        if moves.fetch_add(1, Ordering::Relaxed) == 0 {
            move_slot(&setup.servers[2], &setup.servers[0], setup.servers[0].port, || {});
        }
        Ok(records("moved"))
    };
    work.push(Work::new("moving", moving));
    let mut writer = open_writer(&setup.place("{zot}")).unwrap();
    assert!(done(&writer.write(&all(&work)).unwrap()));
    writer.set_stamp(None, Some(b"stamp")).unwrap();
    drop(writer);
    assert_eq!(dump(&mut setup.servers[0].client(), "{zot}").bucket("RepoMeta").len(), 11);
}

/// Key by key, with time between: the walk's commands meet keys here, there, and in both places.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_slot_that_moves_slowly_during_the_walk_is_waited_for() {
    /// When some repos have been read, has the slot moved and waits for the first step.
    struct Mover {
        read: AtomicUsize,
        go: Sender<()>,
        moving: Mutex<Receiver<()>>,
    }
    impl Progress for Mover {
        fn part_read(&self, manifests: u64, _: u64, _: f64) {
            if manifests > 0 && self.read.fetch_add(1, Ordering::Relaxed) == 10 {
                self.go.send(()).unwrap();
                self.moving.lock().unwrap().recv().unwrap();
            }
        }
    }
    let setup = setups::cluster();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 150, 3);
    let mut writer = open_writer(&setup.place("{zot}")).unwrap();
    let [to, _, from] = &setup.servers[..] else { panic!("three nodes") };
    let ((go, begin), (moved, moving)) = (channel(), channel());
    let report = std::thread::scope(|threads| {
        threads.spawn(move || {
            begin.recv().unwrap();
            move_slot(from, to, to.port, || {
                let _ = moved.send(());
                std::thread::sleep(Duration::from_millis(150));
            });
        });
        let mover = Mover { read: AtomicUsize::new(0), go, moving: Mutex::new(moving) };
        walk_told(dir.path(), &mut *writer, &mover).unwrap()
    });
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    drop(writer);
    assert!(redirected(&setup.servers[2]) > 0, "the walk did not notice");
    let found = dump(&mut setup.servers[0].client(), "{zot}");
    assert_eq!(as_bolt(dir.path(), &found), Vec::<String>::new());
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_cluster_with_tls() {
    let certificates = Certificates::make();
    let trusted = certificates.trusted();
    let (setup, ports) = setups::tls_cluster(certificates);
    let url = format!("rediss://127.0.0.1:{}?addr=127.0.0.1:{}&keyprefix={{zot}}", ports[0], ports[1]);
    let said = message(read(&with_files(&url, trusted)));
    assert!(said.contains("cannot be reached"), "{said}");
    let said = message(read(&with_files(&url, TlsFiles::default())));
    assert!(said.contains("certificate") || said.contains("UnknownIssuer"), "{said}");

    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 12, 3);
    let place = setup.place("{zot}");
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
    assert_eq!(as_bolt(dir.path(), &dump(&mut client(&setup.admin), "{zot}")), Vec::<String>::new());
    // What a node says about the others leads to their TLS ports, also after a move.
    let mut writer = open_writer(&place).unwrap();
    move_slot(&setup.servers[2], &setup.servers[1], ports[1], || {});
    assert!(done(&writer.write(&all(&repos(3))).unwrap()));
    drop(writer);
    assert_eq!(dump(&mut setup.servers[1].client(), "{zot}").bucket("RepoMeta").len(), 15);
}
