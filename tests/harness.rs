//! The servers and the proxy that other suites lean on do what those suites believe.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::bucket::{Kind, ObjectServer};
use support::proxy::{Fate, Proxy, Reply};
use support::store::blob_path;
use support::work;

/// A server that answers every request on a connection with the same bytes; returns its port.
fn parrot(reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut byte = [0];
                while client.read(&mut byte).is_ok_and(|count| count == 1) {
                    seen.push(byte[0]);
                    if seen.ends_with(b"\r\n\r\n") {
                        client.write_all(reply).unwrap();
                        seen.clear();
                    }
                }
            });
        }
    });
    port
}

/// Status and body, or what went wrong.
fn get(proxy: &Proxy, path: &str) -> Result<(u16, String), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut reply = agent.get(format!("{}{path}", proxy.url())).call().map_err(|error| error.to_string())?;
    let body = reply.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok((reply.status().as_u16(), body))
}

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nTrailer: 1\r\n\r\n";

#[test]
fn the_proxy_passes_on_counts_and_obeys_its_rule() {
    for reply in [PLAIN, CHUNKED] {
        let proxy = Proxy::start(parrot(reply));
        let whole = Ok((200, "0123456789".to_owned()));
        for path in ["/b/zot%2Frepo%2Findex.json", "/b/repo/blobs/sha256/00", "/b?list-type=2", "/b/oci-layout"] {
            assert_eq!(get(&proxy, path), whole);
        }
        for class in ["index", "blob", "list", "other"] {
            assert_eq!(proxy.count("GET", class), 1, "{class}");
        }
        proxy.refuse("/blobs/sha256/00", 403);
        assert_eq!(get(&proxy, "/b/repo/blobs%2Fsha256/00"), Ok((403, String::new())));
        assert_eq!(get(&proxy, "/b/repo/blobs/sha256/01"), whole);

        proxy.rule(|_| Some(Fate::Truncate));
        get(&proxy, "/").unwrap_err();
        proxy.rule(|_| Some(Fate::Reset));
        get(&proxy, "/").unwrap_err();
        proxy.rule(|_| Some(Fate::Reply(Reply::new(200, "told").with("x-told", "yes"))));
        assert_eq!(get(&proxy, "/"), Ok((200, "told".to_owned())));
        assert_eq!(proxy.fates().keys().cloned().collect::<Vec<_>>(), ["200", "403", "forward", "reset", "truncate"]);

        proxy.clear();
        proxy.delay(Duration::from_millis(50));
        let start = Instant::now();
        assert_eq!(get(&proxy, "/"), whole);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}

#[test]
fn random_faults_come_at_their_rate_and_repeat_with_their_seed() {
    let runs = [3, 3, 4].map(|seed| {
        let proxy = Proxy::start(parrot(PLAIN));
        proxy.random_faults(0.2, seed);
        let outcomes: Vec<_> = (0..300).map(|_| get(&proxy, "/").map_err(drop)).collect();
        let fates = proxy.fates();
        assert_eq!(
            fates.keys().map(String::as_str).collect::<Vec<_>>(),
            ["500", "503", "forward", "reset", "truncate"]
        );
        assert!((30..90).contains(&(300 - fates["forward"])), "{fates:?}");
        outcomes
    });
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn every_service_takes_a_store_and_gives_it_back_through_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    work::store(dir.path(), 3, 4);
    let (digest, _) = support::command::push(dir.path(), "a/copy", &["1"], "shared");
    support::command::push(dir.path(), "b/copy", &["1"], "shared");
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("plain", Some("/deep/zot"));
        bucket.load(dir.path());
        let objects = bucket.objects();
        let index = match kind {
            Kind::S3 => "deep/zot/deep/zot/a/copy/index.json",
            Kind::Gcs | Kind::Azure => "deep/zot/a/copy/index.json",
        };
        assert!(objects.contains_key(index), "{kind:?}: {objects:?}");
        assert!(objects.values().all(|(size, _)| *size > 0), "{kind:?}");

        let deduped = server.bucket("deduped", None);
        let recorded = deduped.load_deduped(dir.path());
        let path = |repo| blob_path("".as_ref(), repo, &digest).to_str().unwrap().to_owned();
        assert_eq!(recorded[&digest], [format!("/{}", path("a/copy")), format!("/{}", path("b/copy"))]);
        let objects = deduped.objects();
        assert_eq!(objects[&deduped.key(&path("b/copy"))].0, 0, "{kind:?}");
        deduped.date_like_objects(dir.path(), &recorded);
        let local = std::fs::metadata(dir.path().join(path("b/copy"))).unwrap().modified().unwrap();
        let seconds = local.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds, objects[&deduped.key(&path("a/copy"))].1, "{kind:?}");
        deduped.delete(&path("b/copy"));
        deduped.put_as(&path("c/new"), b"new", "application/x-docker-upload-session");
        assert_eq!(deduped.objects().len(), objects.len(), "{kind:?}");

        // The proxy answers in the server's place, to signed requests too.
        let proxy = Proxy::start(server.port);
        let (before, through) = (bucket.objects(), bucket.objects_through(proxy.port));
        assert_eq!(before, through, "{kind:?}");
        assert_eq!(proxy.requests().keys().collect::<Vec<_>>(), [&("GET".to_owned(), "list".to_owned())], "{kind:?}");
    }
}
