//! Reaching a Redis metaDB: TLS, clusters, Sentinel, and the command line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::config::tree::Tree;
use metactl::metadb::redis::{RedisOptions, TlsFiles};
use metactl::metadb::{MetaDb, MetaDbError, Place};
use metactl::walk::chain;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::redis::{Server, client, dump};
use support::setups::{self, Certificates, leaks, params, text, with_files};
use support::walk::{open_writer, walk_at};
use support::work::{Work, all, done, records, repos, store};

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

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn certificates_are_checked() {
    let certificates = Certificates::make();
    let (_lenient, lenient) = certificates.server("optional");
    let (_strict, strict) = certificates.server("yes");
    let url = |port: u16| format!("rediss://localhost:{port}/0");
    let absent = |place: &Place| matches!(read(place), Err(MetaDbError::Absent { .. }));

    assert!(absent(&with_files(&url(lenient), certificates.trusted())));
    assert!(absent(&with_files(&url(strict), certificates.both())));
    assert!(absent(&with_files(&format!("{}?skip_verify=true", url(lenient)), TlsFiles::default())));
    let unknown = message(read(&with_files(&url(lenient), TlsFiles::default())));
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let stranger = message(read(&with_files(&url(strict), certificates.trusted())));
    assert!(stranger.contains("cannot be reached"), "{stranger}");
    let missing = TlsFiles { ca: Some("/nonexistent/ca.crt".into()), ..TlsFiles::default() };
    let missing = message(read(&with_files(&url(lenient), missing)));
    assert!(missing.contains("/nonexistent/ca.crt"), "{missing}");
    // Without TLS, the port answers with what is no Redis protocol.
    let plain = message(read(&Place::parse(&format!("redis://127.0.0.1:{lenient}")).unwrap()));
    assert!(plain.contains("cannot be reached"), "{plain}");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn sockets_databases_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    let server = Server::start(&["--unixsocket", socket.to_str().unwrap(), "--requirepass", "socket-Secret"]);
    let admin = |db: i64| client(&format!("redis://:socket-Secret@127.0.0.1:{}/{db}", server.port));
    let path = socket.to_str().unwrap();
    let places = [
        Place::parse(&format!("unix://:socket-Secret@{path}?db=1&client_name=metactl-test")).unwrap(),
        from_params(&[("addr", text(path)), ("db", Tree::Float(2.0)), ("password", text("socket-Secret"))]),
        Place::parse(&server.url("/7?db=3").replace("//", "//:socket-Secret@")).unwrap(),
        from_params(&[
            ("addr", Tree::List(vec![text(&format!(":{}", server.port))])),
            ("db", text("4")),
            ("username", text("default")),
            ("password", text("socket-Secret")),
        ]),
    ];
    for (place, db) in places.iter().zip(1..) {
        let mut writer = open_writer(place).unwrap();
        assert!(done(&writer.write(&all(&repos(2))).unwrap()), "{place:?}");
        if db == 1 {
            let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut admin(0)).unwrap();
            assert!(list.contains("name=metactl-test"), "{list}");
        }
        drop(writer);
        assert_eq!(dump(&mut admin(db), "zot").bucket("RepoMeta").len(), 2, "{place:?}");
        assert!(!leaks(&format!("{place:?} {}", place.location())));
    }
}

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

/// Move slot 15054 with all its keys from the last node to the first, as `redis-cli --cluster reshard` does.
fn move_slot(setup: &setups::Setup) {
    let (mut from, mut to) = (setup.servers[2].client(), setup.servers[0].client());
    let id = |node: &mut redis::Connection| redis::cmd("CLUSTER").arg("MYID").query::<String>(node).unwrap();
    let (from_id, to_id) = (id(&mut from), id(&mut to));
    let set = |node: &mut redis::Connection, what: &str, id: &str| {
        let () = redis::cmd("CLUSTER").arg("SETSLOT").arg(15054).arg(what).arg(id).query(node).unwrap();
    };
    set(&mut to, "IMPORTING", &from_id);
    set(&mut from, "MIGRATING", &to_id);
    let keys: Vec<String> = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(15054).arg(1000).query(&mut from).unwrap();
    let port = setup.servers[0].port;
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
    migrate.exec(&mut from).unwrap();
    set(&mut to, "NODE", &to_id);
    set(&mut from, "NODE", &to_id);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_slot_that_moves_is_followed() {
    let setup = setups::cluster();
    let moves = AtomicUsize::new(0);
    let mut work = repos(10);
    let moving = |_: &_| {
        if moves.fetch_add(1, Ordering::Relaxed) == 0 {
            move_slot(&setup);
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

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn sentinel_says_what_it_does_not_know() {
    let setup = setups::sentinel();
    let address = text(&format!("127.0.0.1:{}", setup.servers[3].port));
    let place = |master: &str, password: &str| {
        from_params(&[("addr", address.clone()), ("master_name", text(master)), ("password", text(password))])
    };
    assert!(message(read(&place("other", "master-Secret"))).contains("no master named \"other\""));
    assert!(message(read(&place("mymaster", "wrong-Secret"))).contains("refuses the login"));
    assert!(matches!(read(&place("mymaster", "master-Secret")), Err(MetaDbError::Absent { .. })));
    // Sentinels that want a password of their own.
    let closed = setups::sentinel_of(setup.servers[0].port, "requirepass watch-Secret\n");
    let entries = [
        ("addr", text(&format!("127.0.0.1:{}", closed.port))),
        ("master_name", text("mymaster")),
        ("password", text("master-Secret")),
        ("sentinel_password", text("watch-Secret")),
    ];
    assert!(matches!(read(&from_params(&entries)), Err(MetaDbError::Absent { .. })));
    assert!(message(read(&from_params(&entries[..3]))).contains("refuses the login"));
}

fn metactl(config: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_metactl"))
        .args(["--no-state", "--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d", "--config"])
        .arg(config)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(!leaks(&String::from_utf8_lossy(&all)), "{}", String::from_utf8_lossy(&all));
    output
}

/// A config whose metaDB has these parameters, beside a store of three repos.
fn config(dir: &Path, mut cache: Value) -> std::path::PathBuf {
    let root = dir.join("root");
    if !root.exists() {
        store(&root, 3, 2);
    }
    cache["name"] = json!("redis");
    let path = dir.join("config.json");
    let text = json!({
        "storage": {"rootDirectory": root, "remoteCache": true, "fastRestart": true, "cacheDriver": cache},
        "http": {"address": "127.0.0.1", "port": "5000"},
        "extensions": {"search": {"enable": true}}
    });
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn the_command_line_walks_and_shows() {
    let mut server = Server::start(&["--requirepass", "cli-Secret"]);
    let dir = tempfile::tempdir().unwrap();
    let cache = json!({"url": format!("redis://:cli-Secret@127.0.0.1:{}/0?pool_size=5", server.port), "db": 4});
    let config = config(dir.path(), cache);
    let run = |arguments: &[&str]| metactl(&config, &[&["--format", "json"], arguments].concat(), &[]);

    let shown = parsed(&run(&["stamp", "show"]));
    assert_eq!(shown["metadb"]["exists"], false, "{shown}");
    assert!(shown["warnings"].to_string().contains("pool_size"), "{shown}");
    assert!(shown["warnings"].to_string().contains("zot ignores db"), "{shown}");
    assert_eq!(parsed(&run(&["walk", "--dry-run"]))["new"].as_array().unwrap().len(), 3);
    let admin = || client(&format!("redis://:cli-Secret@127.0.0.1:{}", server.port));
    assert_eq!(redis::cmd("DBSIZE").query::<i64>(&mut admin()).unwrap(), 0, "reading wrote something");

    let walked = run(&["walk"]);
    assert_eq!((walked.status.code(), &parsed(&walked)["result"]), (Some(0), &json!("complete")));
    let shown = parsed(&run(&["stamp", "show", "--check"]));
    assert_eq!((&shown["verdict"], &shown["zot"]["action"]), (&json!("current"), &json!("skip")), "{shown}");
    let verified = run(&["verify", "--deep"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert_eq!(run(&["stamp", "clear"]).status.code(), Some(0));
    assert_eq!(run(&["stamp", "show", "--check"]).status.code(), Some(1));
    assert_eq!(run(&["stamp", "write"]).status.code(), Some(0));
    dump(&mut admin(), "zot");

    let url = format!("redis://:cli-Secret@127.0.0.1:{}/0?keyprefix=shadow", server.port);
    assert_eq!(run(&["walk", "--metadb", &url]).status.code(), Some(0));
    assert_eq!(dump(&mut admin(), "shadow").bucket("RepoMeta").len(), 3);

    for (url, reason) in [
        ("redis://:cli-Secret/x@127.0.0.1", "usage"),
        ("redis://:cli-Secret@127.0.0.1/x", "usage"),
        ("redis://:wrong-Secret@127.0.0.1:PORT", "login"),
        ("redis://127.0.0.1:PORT", "login"),
    ] {
        let url = url.replace("PORT", &server.port.to_string());
        let output = run(&["stamp", "show", "--metadb", &url]);
        assert_eq!((output.status.code(), &parsed(&output)["error"]["reason"]), (Some(3), &json!(reason)), "{url}");
    }
    server.kill();
    let output = run(&["walk"]);
    assert_eq!((output.status.code(), &parsed(&output)["error"]["reason"]), (Some(3), &json!("unreachable")));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn the_command_line_takes_certificates() {
    let certificates = Certificates::make();
    let (_lenient, lenient) = certificates.server("optional");
    let (_strict, strict) = certificates.server("yes");
    let dir = tempfile::tempdir().unwrap();
    let (ca, cert, key) =
        (certificates.file("ca.crt"), certificates.file("client.crt"), certificates.file("client.key"));
    let trusting = config(dir.path(), json!({"url": format!("rediss://localhost:{lenient}")}));
    // Where zot finds its roots, metactl does.
    assert_eq!(metactl(&trusting, &["walk"], &[("SSL_CERT_FILE", &ca)]).status.code(), Some(0));
    assert_eq!(metactl(&trusting, &["stamp", "show"], &[]).status.code(), Some(3));
    let files =
        [("METACTL_REDIS_CA_FILE", &*ca), ("METACTL_REDIS_CERT_FILE", &*cert), ("METACTL_REDIS_KEY_FILE", &*key)];
    let strict = config(dir.path(), json!({"url": format!("rediss://localhost:{strict}")}));
    assert_eq!(metactl(&strict, &["walk"], &files).status.code(), Some(0));
    assert_eq!(metactl(&strict, &["walk"], &files[..1]).status.code(), Some(3));
}
