//! Every command on S3, Google Cloud Storage and Azure, where duplicate blobs are placeholders, with zot's blob cache in each
//! of its drivers: a walk records what a walk of the same files on disk records, and a cache that cannot be asked costs the
//! repos that need it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::metadb::bolt::Database;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::blob_cache::{dump_redis, fill_bolt, fill_dynamodb, fill_redis};
use support::bucket::{Bucket, Kind, ObjectServer, Recorded};
use support::command::{Ran, Sandbox, finish, kill, push, run, wait_for};
use support::driver::{Driver, Raw, dump_bolt};
use support::dynamodb;
use support::equality::{differences, normal, strict};
use support::proxy::{Fate, Proxy, Reply};
use support::records::decode;
use support::redis::Server;
use support::registry::registry;
use support::store::blob_path;

/// What asking DynamoDB takes.
const AWS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "aws-Secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A registry with nothing on disk but perhaps its metaDB and `cache.db`.
struct Remote<'a> {
    sandbox: Sandbox,
    bucket: &'a Bucket<'a>,
    /// Where requests go.
    port: u16,
    /// What commands are told of the metaDB; empty: the config says it.
    metadb: Vec<String>,
}

impl<'a> Remote<'a> {
    /// With more `storage` settings: those of the cache. The metaDB is a file, wherever the cache is.
    fn new(bucket: &'a Bucket<'a>, port: u16, cache: &Value) -> Self {
        let sandbox = Sandbox::new(|_| ());
        let mut storage = cache.clone();
        storage["storageDriver"] = bucket.storage_driver(port);
        storage["dedupe"] = json!(true);
        sandbox.configure(&storage);
        let metadb = vec!["--metadb".into(), format!("bolt:{}", sandbox.meta().display())];
        Self { sandbox, bucket, port, metadb }
    }

    /// The metaDB is where zot would have it.
    fn own(mut self) -> Self {
        self.metadb.clear();
        self
    }

    /// With `cache.db`.
    fn bolt(bucket: &'a Bucket<'a>, port: u16) -> Self {
        Self::new(bucket, port, &json!({"remoteCache": false}))
    }

    fn cache_db(&self) -> PathBuf {
        self.sandbox.root.join("cache.db")
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command.args(&self.metadb).envs(self.bucket.environment(self.port)).envs(AWS);
        command
    }

    fn raw(&self) -> Raw {
        dump_bolt(&Database::open(&self.sandbox.meta()).unwrap())
    }
}

/// A metaDB without what differs between any two first walks.
fn first(raw: &Raw) -> Value {
    strict(&decode(raw), &json!({}))
}

/// A metaDB without what differs between any two walks: of a repo that is walked again, zot keeps empty entries.
fn repeated(raw: &Raw) -> Value {
    normal(&decode(raw), &json!({}))
}

/// What a walk of the files on disk records.
fn walked_on_disk(local: &Sandbox) -> Raw {
    let _ = fs::remove_file(local.meta());
    local.walk();
    dump_bolt(&Database::open(&local.meta()).unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            assert!(fs::copy(entry.path(), target).is_ok())
        }
    }
}

/// Placeholders by what they stand for; a walk does not look at layers.
fn placeholders(recorded: &Recorded) -> usize {
    recorded.values().map(|paths| paths.len() - 1).sum()
}

#[test]
#[ignore = "needs object stores and redis-server: run tests/run"]
fn a_walk_records_what_a_walk_of_the_same_files_on_disk_records() {
    // Twenty repos and a copy of one, in which every manifest, config and signature is a placeholder.
    let local = Sandbox::new(|root| {
        registry(root, 20, 40);
        copy(&root.join("team_0/app9"), &root.join("zz/copy"));
    });
    let (redis, dynamodb) = (Server::start(&[]), dynamodb::Server::start());
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("registry", Some("/some/zot"));
        let recorded = bucket.load_deduped(&local.root);
        let objects = bucket.objects();
        let empty = objects.values().filter(|(size, _)| *size == 0).count();
        assert!(
            objects.len() >= 3_000 && empty == placeholders(&recorded) && empty > 200,
            "{empty} of {}",
            objects.len()
        );
        bucket.date_like_objects(&local.root, &recorded);
        let expected = first(&walked_on_disk(&local));

        // Each cache with the metaDB that zot has beside it, and metactl's own.
        let bolt = Remote::bolt(&bucket, server.port).own();
        let mut redb = Remote::bolt(&bucket, server.port);
        redb.metadb = vec!["--metadb".into(), format!("redb:{}", redb.sandbox.root.join("meta.redb").display())];
        let caches = [bolt.cache_db(), redb.cache_db()];
        caches.iter().for_each(|cache| fill_bolt(cache, &recorded));
        let cache_db = caches.clone().map(|cache| fs::read(cache).unwrap());
        let in_redis = json!({"remoteCache": true, "cacheDriver":
            {"name": "redis", "url": redis.url(""), "keyprefix": kind.name()}});
        fill_redis(&mut redis.client(), kind.name(), &recorded);
        let cached = || {
            let mut keys = dump_redis(&mut redis.client());
            keys.retain(|key, _| key.starts_with(&format!("{}:blobs:", kind.name())));
            keys
        };
        let keys = cached();
        let in_dynamodb = json!({"remoteCache": true, "cacheDriver": dynamodb.parameters(kind.name())});
        let table = in_dynamodb["cacheDriver"]["cacheTablename"].as_str().unwrap();
        fill_dynamodb(&dynamodb, table, &recorded);
        dynamodb.create_tables(kind.name());
        let (tables, items) = (dynamodb.table_names(), dynamodb.items(table));
        let [in_redis, in_dynamodb] =
            [&in_redis, &in_dynamodb].map(|cache| Remote::new(&bucket, server.port, cache).own());
        for (metadb, remote) in [("bolt", &bolt), ("redb", &redb), ("redis", &in_redis), ("dynamodb", &in_dynamodb)] {
            let walk = remote.run(&["--format", "json", "walk"]);
            assert_eq!(walk.code, Some(0), "{kind:?} {metadb}: {walk:?}");
            assert_eq!(walk.json()["repos"]["parsed"], 21, "{kind:?} {metadb}: {walk:?}");
            let raw = match metadb {
                "bolt" => remote.raw(),
                "redb" => Driver::Redb.dump(&remote.sandbox.root),
                "redis" => support::redis::dump(&mut redis.client(), kind.name()),
                _ => dynamodb.dump(kind.name()),
            };
            let found = differences(&expected, &first(&raw));
            assert!(found.is_empty(), "{kind:?} {metadb}: {} differences, first {:?}", found.len(), found.first());
            let mut more = vec![&["stamp", "show", "--check"][..], &["walk"]];
            if metadb == "bolt" {
                more.push(&["verify", "--deep"]);
            }
            for arguments in more {
                let ran = remote.run(arguments);
                assert_eq!(ran.code, Some(0), "{kind:?} {metadb} {arguments:?}: {ran:?}");
            }
        }
        assert!(bucket.objects() == objects, "{kind:?}");
        assert!(caches.map(|cache| fs::read(cache).unwrap()) == cache_db && cached() == keys, "{kind:?}");
        assert!(dynamodb.table_names() == tables && dynamodb.items(table) == items, "{kind:?}");
    }
}

/// Two repos with an image of their own each, and three with the same.
fn shared_image(root: &Path) -> (String, String) {
    for repo in ["own/one", "own/two"] {
        push(root, repo, &["1"], repo);
    }
    push(root, "shared/b", &["1"], "shared");
    push(root, "shared/c", &["1"], "shared");
    push(root, "shared/a", &["1"], "shared")
}

/// Names and messages of the repos that a walk could not record.
fn failed(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ran.json()["failed"].as_array().unwrap().iter().map(|one| (text(&one["repo"]), text(&one["reason"]))).collect()
}

#[test]
#[ignore = "needs object stores and redis-server: run tests/run"]
fn a_cache_that_cannot_be_asked_fails_the_repos_that_need_it() {
    let mut digests = Default::default();
    let local = Sandbox::new(|root| digests = shared_image(root));
    let (manifest, config) = digests;
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("shared", Some("/zot"));
    let recorded = bucket.load_deduped(&local.root);
    assert_eq!(placeholders(&recorded), 4);
    bucket.date_like_objects(&local.root, &recorded);
    let expected = repeated(&walked_on_disk(&local));

    let bolt = Remote::bolt(&bucket, server.port);
    let mut redis = Server::start(&[]);
    let in_redis = json!({"remoteCache": true, "cacheDriver": {"name": "redis", "url": redis.url("")}});
    fill_redis(&mut redis.client(), "zot", &recorded);
    let in_redis = Remote::new(&bucket, server.port, &in_redis);
    fs::write(bolt.cache_db(), vec![0x55; 8192]).unwrap();
    redis.kill();
    let table = dynamodb::Server::start();
    let in_dynamodb =
        Remote::new(&bucket, server.port, &json!({"remoteCache": true, "cacheDriver": table.parameters("No")}));
    let at = format!("http://127.0.0.1:{} (us-east-1), table NoBlobTable", table.port);
    for (driver, remote, place) in [
        ("bolt", &bolt, bolt.cache_db().display().to_string()),
        ("redis", &in_redis, redis.url("")),
        ("dynamodb", &in_dynamodb, at),
    ] {
        let shown = remote.run(&["--format", "json", "config", "show"]).json();
        assert_eq!(shown["stores"][0]["blob_cache"], format!("{driver}:{place}"));
        let walk = remote.run(&["--format", "json", "walk"]);
        assert_eq!(walk.code, Some(1), "{walk:?}");
        let failed = failed(&walk);
        assert_eq!(failed.iter().map(|(repo, _)| repo.as_str()).collect::<Vec<_>>(), ["shared/b", "shared/c"]);
        for (_, reason) in &failed {
            assert!(reason.contains(&format!("cannot look into the blob cache {place}: ")), "{reason}");
        }
        let stamp = remote.run(&["stamp", "show", "--check"]);
        assert_eq!(stamp.code, Some(1), "not stamped: {stamp:?}");
        let verify = remote.run(&["verify", "--deep"]);
        assert_ne!(verify.code, Some(0), "{verify:?}");
    }

    // Without any cache the content is missing, which is what zot finds: the manifest is left out.
    fs::remove_file(bolt.cache_db()).unwrap();
    let walk = bolt.run(&["--format", "json", "walk"]);
    assert_eq!(walk.code, Some(1), "{walk:?}");
    assert!(failed(&walk).is_empty(), "{walk:?}");
    assert_eq!(bolt.run(&["stamp", "show", "--check"]).code, Some(1));

    // Once it is there again, the next walk does what is left.
    fill_bolt(&bolt.cache_db(), &recorded);
    redis.restart();
    fill_redis(&mut redis.client(), "zot", &recorded);
    fill_dynamodb(&table, "NoBlobTable", &recorded);
    for remote in [&bolt, &in_redis, &in_dynamodb] {
        let walk = remote.run(&["--format", "json", "walk"]);
        assert_eq!(walk.code, Some(0), "{walk:?}");
        let found = differences(&expected, &repeated(&remote.raw()));
        assert!(found.is_empty(), "{found:?}");
    }

    // What the cache calls the original is gone, and another copy has the content: zot finds it at its second look.
    bucket.delete(&path("shared/a", &manifest));
    bucket.put(&path("shared/c", &manifest), &fs::read(blob_path(&local.root, "shared/a", &manifest)).unwrap());
    let walk = bolt.run(&["--format", "json", "walk", "--force"]);
    assert_eq!(failed(&walk), [], "{walk:?}");
    let kept = repeated(&bolt.raw());
    for repo in ["shared/b", "shared/c"] {
        assert_eq!(kept["RepoMeta"][repo]["Tags"]["1"][0], manifest.as_str());
    }
    // A refusal is not "gone": it might be the one with the content.
    let proxy = Proxy::start(server.port);
    let refused = bucket.key(&path("shared/a", &config));
    proxy.rule(move |request| {
        request
            .path
            .contains(&refused)
            .then(|| Fate::Reply(Reply::new(403, "<Error><Code>AccessDenied</Code></Error>")))
    });
    let through = Remote::bolt(&bucket, proxy.port);
    fill_bolt(&through.cache_db(), &recorded);
    let walk = through.run(&["--format", "json", "walk"]);
    let repos: Vec<String> = failed(&walk).into_iter().map(|(repo, _)| repo).collect();
    assert_eq!(repos, ["shared/b", "shared/c"], "{walk:?}");
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_silent_cache_outlasts_neither_a_timeout_nor_a_signal() {
    let local = Sandbox::new(|root| drop(shared_image(root)));
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("silent", Some("/zot"));
    bucket.load_deduped(&local.root);
    // Nobody ever answers, and zot's settings let that last for ever.
    let (asked, listener) = (Arc::<AtomicUsize>::default(), TcpListener::bind("127.0.0.1:0").unwrap());
    let silent = listener.local_addr().unwrap().port();
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for client in listener.incoming().map_while(Result::ok) {
            kept.push(client);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let redis = json!({"remoteCache": true, "cacheDriver":
        {"name": "redis", "url": format!("redis://127.0.0.1:{silent}?read_timeout=-1&max_retries=-1")}});
    let mut dynamodb = dynamodb::Server::start().parameters("Zot");
    dynamodb["endpoint"] = json!(format!("http://127.0.0.1:{silent}"));
    let dynamodb = json!({"remoteCache": true, "cacheDriver": dynamodb});
    let check = |name: &str, cache: &Value| {
        let remote = Remote::new(&bucket, server.port, cache);
        let begun = Instant::now();
        let walk = remote.run(&["--format", "json", "--timeout", "3s", "walk"]);
        assert!((3..10).contains(&begun.elapsed().as_secs()), "{name}: {:?}, {walk:?}", begun.elapsed());
        assert_eq!((walk.code, &walk.json()["result"]), (Some(1), &json!("broken-off")), "{name}: {walk:?}");
        assert_eq!((failed(&walk), &walk.json()["partial"]), (Vec::new(), &json!([])), "{name}: {walk:?}");
        assert_eq!(remote.run(&["stamp", "show", "--check"]).code, Some(1), "{name}");

        let before = asked.load(Ordering::Relaxed);
        let walk = remote.command(&["--format", "json", "walk", "--force"]).spawn().unwrap();
        wait_for("a question", || asked.load(Ordering::Relaxed) > before);
        let begun = Instant::now();
        kill(i32::try_from(walk.id()).unwrap(), Signal::INT);
        let ran = finish(walk);
        assert_eq!(ran.signal, Some(2), "{name}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{name}: {:?}", begun.elapsed());
    };
    for (name, cache) in [("redis", &redis), ("dynamodb", &dynamodb)] {
        check(name, cache);
    }
}

/// A blob relative to its store.
fn path(repo: &str, digest: &str) -> String {
    blob_path(Path::new(""), repo, digest).to_str().unwrap().to_owned()
}
