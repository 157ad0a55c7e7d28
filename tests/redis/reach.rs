//! Reaching a Redis metaDB: TLS, sockets, Sentinel.

use crate::support::redis::{Server, client, dump};
use crate::support::setups::{self, Certificates, leaks, text, with_files};
use crate::support::walk::open_writer;
use crate::support::work::{all, done, repos};
use crate::{from_params, message, read};
use metactl::config::tree::Tree;
use metactl::metadb::redis::TlsFiles;
use metactl::metadb::{MetaDbError, Place};

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
