//! Object stores beside local ones and before every metaDB; what they are asked, how often, and what zot would not list.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::bucket::{Bucket, Kind, ObjectServer, Recorded};
use support::command::{Ran, Sandbox, push, run};
use support::driver::{Driver, Raw};
use support::equality::{differences, strict};
use support::proxy::Proxy;
use support::records::decode;
use support::registry::registry;

fn recorded(dump: &Raw) -> Value {
    strict(&decode(dump), &json!({}))
}

fn exits(mut command: Command, code: i32) -> Ran {
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(code), "{ran:?}");
    ran
}

/// The one store of a sandbox is in `bucket`; requests go to `port`.
fn remote(bucket: &Bucket<'_>, port: u16) -> Sandbox {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": bucket.storage_driver(port)}));
    sandbox
}

fn command(sandbox: &Sandbox, bucket: &Bucket<'_>, port: u16, arguments: &[&str]) -> Command {
    let mut command = sandbox.command(arguments);
    command.envs(bucket.environment(port));
    command
}

#[test]
#[ignore = "needs object stores and redis-server: run tests/run"]
fn sub_paths_on_every_service_fill_every_metadb() {
    let (redis, dynamodb) = (support::redis::Server::start(&[]), support::dynamodb::Server::start());
    dynamodb.create_tables("Zot");
    let servers = Kind::ALL.map(ObjectServer::start);
    // The same content once on disk, once spread: one route to each service, the rest local.
    let fill = |root: &Path| {
        drop(registry(root, 5, 4));
        for route in Kind::ALL.map(Kind::name) {
            push(&root.with_file_name("files").join(route), &format!("{route}/app"), &["1", "2"], route);
        }
    };
    let buckets: Vec<Bucket<'_>> = servers.iter().map(|server| server.bucket("sub", Some("/zot"))).collect();
    for metadb in ["bolt", "redb", "redis", "dynamodb"] {
        let spread = Sandbox::new(fill);
        let (mut sub_paths, mut local_paths, mut environment) = (json!({}), json!({}), None);
        for (server, bucket) in servers.iter().zip(&buckets) {
            let name = server.kind.name();
            let files = spread.root.with_file_name("files").join(name);
            bucket.load(&files);
            bucket.date_like_objects(&files, &Recorded::new());
            let route = format!("/{name}");
            let mut driver = bucket.storage_driver(server.port);
            // zot turns this on for the default store only.
            driver["forcepathstyle"] = json!(true);
            sub_paths[&route] =
                json!({"rootDirectory": spread.dir.path().join(name), "dedupe": false, "storageDriver": driver});
            local_paths[&route] = json!({"rootDirectory": files, "dedupe": false});
            environment = environment.or(bucket.environment(server.port));
        }
        let url = match metadb {
            "redis" => redis.url("/0"),
            "dynamodb" => dynamodb.url("Zot"),
            name => {
                format!("{name}:{}", spread.root.join(if name == "bolt" { "meta.db" } else { "meta.redb" }).display())
            }
        };
        let command = |arguments: &[&str]| {
            let mut command = spread.command(arguments);
            command.args(["--metadb", &url]).envs(environment.clone());
            command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "aws-Secret");
            command
        };
        let beside = spread.dir.path().join("beside");
        std::fs::create_dir(&beside).unwrap();
        spread.configure(&json!({"subPaths": local_paths}));
        let mut local = spread.command(&["walk", "--metadb"]);
        local.arg(format!("bolt:{}", beside.join("meta.db").display()));
        exits(local, 0);
        let expected = recorded(&Driver::Bolt.dump(&beside));
        assert_eq!(expected["RepoMeta"].as_object().unwrap().len(), 8, "{metadb}");

        spread.configure(&json!({"subPaths": sub_paths}));
        exits(command(&["walk"]), 0);
        let dump = match metadb {
            "bolt" => Driver::Bolt.dump(&spread.root),
            "redb" => Driver::Redb.dump(&spread.root),
            "dynamodb" => dynamodb.dump("Zot"),
            _ => support::redis::dump(&mut support::redis::client(&redis.url("")), "zot"),
        };
        let found = differences(&expected, &recorded(&dump));
        assert!(found.is_empty(), "{metadb}: {found:?}");
        for arguments in [&["verify"][..], &["verify", "--deep"], &["stamp", "show", "--check"], &["stamp", "write"]] {
            exits(command(arguments), 0);
        }
        let shown = exits(command(&["--format", "json", "config", "show"]), 0).json();
        let locations: Vec<&str> =
            shown["stores"].as_array().unwrap().iter().map(|store| store["location"].as_str().unwrap()).collect();
        assert_eq!(locations[1..], ["azure://devstoreaccount1/sub/zot", "gs://sub/zot", "s3://sub/zot/zot"]);
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn two_requests_for_an_image_and_no_listing_of_blobs() {
    let files = tempfile::tempdir().unwrap();
    let (repos, tags) = (6, 20);
    support::work::store(files.path(), repos, tags);
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("counted", Some("/zot"));
        bucket.load(files.path());
        std::thread::sleep(Duration::from_secs(2));
        let proxy = Proxy::start(server.port);
        let sandbox = remote(&bucket, proxy.port);
        let lists = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lists);
        proxy.rule(move |request| {
            if request.path.contains("prefix=") {
                seen.lock().unwrap().push(request.path.clone());
            }
            None
        });
        exits(command(&sandbox, &bucket, proxy.port, &["walk"]), 0);
        assert_eq!(proxy.count("GET", "blob"), 2 * repos * tags, "{kind:?}: {:?}", proxy.requests());
        assert_eq!(proxy.count("HEAD", "blob"), 0, "{kind:?}: {:?}", proxy.requests());
        assert_eq!(proxy.count("GET", "index"), repos, "{kind:?}: {:?}", proxy.requests());
        // The store, `team` and each repo; before the walk and after it.
        assert_eq!(lists.lock().unwrap().len(), 2 * (2 + repos), "{kind:?}: {lists:?}");
        assert!(lists.lock().unwrap().iter().all(|path| !path.contains("blobs")), "{kind:?}: {lists:?}");

        // Nothing changed: nothing but listings and looks at indexes.
        proxy.clear();
        exits(command(&sandbox, &bucket, proxy.port, &["walk", "--commit", "v2.1.20-1-g0000000"]), 0);
        assert_eq!(proxy.count("GET", "blob") + proxy.count("GET", "index"), 0, "{kind:?}: {:?}", proxy.requests());
        // Before and after; on GCS each listing looks at it, too.
        let looks = if kind == Kind::Gcs { 4 } else { 2 };
        assert_eq!(proxy.count("HEAD", "index"), looks * repos, "{kind:?}");
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn no_more_requests_at_a_time_than_allowed() {
    const DELAY: Duration = Duration::from_millis(200);
    let files = tempfile::tempdir().unwrap();
    support::work::store(files.path(), 4, 10);
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("bounded", None);
    bucket.load(files.path());
    for (bound, more_than) in [(3, 0), (64, 8)] {
        let proxy = Proxy::start(server.port);
        proxy.delay(DELAY);
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        proxy.rule(move |_| {
            seen.lock().unwrap().push(Instant::now());
            None
        });
        let sandbox = remote(&bucket, proxy.port);
        exits(command(&sandbox, &bucket, proxy.port, &["walk", "--io-concurrency", &bound.to_string()]), 0);
        // Each takes longer than this, so that those which came within it were under way together.
        let times = times.lock().unwrap();
        let together =
            |from: &Instant| times.iter().filter(|time| *time >= from && **time - *from < DELAY * 9 / 10).count();
        let most = times.iter().map(together).max().unwrap();
        assert!(most <= bound && most > more_than, "{most} requests, {bound} allowed");
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn every_driver_lists_what_zots_own_lists() {
    let files = tempfile::tempdir().unwrap();
    for repo in ["foo", "foo/blobs2/in", "foo/blobs-x", "foo-bar", "foo/ok", "myblobs", "deep/er/app", "half"] {
        push(files.path(), repo, &["1"], repo);
    }
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("named", Some("/zot"));
        bucket.load(files.path());
        // No repo: no layout, an upload that never ended, other people's things.
        bucket.put("lone/index.json", b"{}");
        bucket.put("_trivy/db/metadata.json", b"{}");
        bucket.put("Upper/index.json", b"{}");
        bucket.put("foo/.uploads/1", b"x");
        let mut expected = vec!["deep/er/app", "foo", "foo-bar", "foo/blobs-x", "foo/blobs2/in", "foo/ok", "half"];
        let mut unlistable = vec!["myblobs"];
        if kind == Kind::S3 {
            // A name that begins like a skipped one.
            expected.retain(|name| *name != "foo/blobs2/in");
            unlistable.insert(0, "foo/blobs2/in");
        }
        if kind == Kind::Gcs {
            bucket.put_as("half/index.json", b"{", "application/x-docker-upload-session");
            expected.retain(|name| *name != "half");
        }
        let sandbox = remote(&bucket, server.port);
        let planned =
            exits(command(&sandbox, &bucket, server.port, &["--format", "json", "walk", "--dry-run"]), 0).json();
        let mut new: Vec<&str> = planned["new"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        new.sort_unstable();
        assert_eq!(new, expected, "{kind:?}");

        exits(command(&sandbox, &bucket, server.port, &["walk"]), 0);
        let verified = run(&mut command(&sandbox, &bucket, server.port, &["--format", "json", "verify"])).json();
        let found: Vec<&str> = verified["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["id"] == "repo-unlistable")
            .map(|finding| finding["repo"].as_str().unwrap())
            .collect();
        assert_eq!(found, unlistable, "{kind:?}: {verified}");

        // A layout of the future.
        bucket.put("_blobstore/index.json", b"{}");
        let ran = exits(command(&sandbox, &bucket, server.port, &["walk", "--force"]), 3);
        assert!(ran.stderr.contains("_blobstore"), "{kind:?}: {ran:?}");
    }
}
