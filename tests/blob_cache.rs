//! zot's blob caches: what they know about a digest, and how stores find the content of placeholders by them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::error::chain;
use metactl::metadb::bolt::{Batch, OpenOptions, Writer};
use metactl::metadb::dynamodb::DynamoDbBlobCacheOptions;
use metactl::metadb::redis::RedisOptions;
use metactl::secret::Secret;
use metactl::storage::cache::{BlobCache, CacheError, CacheSpec};
use metactl::storage::local::LocalStore;
use metactl::storage::{Blob, ImageStore as _, StorageError};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::blob_cache::{dump_redis, fill_bolt, fill_dynamodb, fill_redis};
use support::bucket::Recorded;
use support::proxy::{Fate, Proxy, Reply};
use support::redis::Server;
use support::setups;
use support::store::{Repo, blob_path, sha256, write_at};

/// Where `repo` would keep a blob.
fn path(repo: &str, digest: &str) -> String {
    blob_path(Path::new(""), repo, digest).to_str().unwrap().to_owned()
}

fn digest(number: usize) -> String {
    sha256(&number.to_le_bytes())
}

/// Digests enough for several round trips; the original is not the first in byte order.
fn many() -> Recorded {
    let paths = |number| ["m", "a", "z"].map(|repo| format!("/zot/{}", path(repo, &digest(number)))).to_vec();
    (0..600).map(|number| (digest(number), paths(number))).collect()
}

/// What a cache that was filled with [`many`] must say.
fn answers(cache: &dyn BlobCache) {
    let digests: Vec<String> = (0..601).rev().map(digest).collect();
    let digests: Vec<&str> = digests.iter().map(String::as_str).collect();
    let found = cache.candidates(&digests).unwrap();
    assert_eq!(found.len(), 601);
    assert_eq!(found[0], Vec::<String>::new(), "it is not in the cache");
    for (digest, found) in digests.iter().zip(&found).skip(1) {
        assert_eq!(*found, ["m", "a", "z"].map(|repo| format!("zot/{}", path(repo, digest))));
    }
    assert_eq!(cache.candidates(&[]).unwrap(), Vec::<Vec<String>>::new());
}

fn bolt(path: &Path) -> Arc<dyn BlobCache> {
    CacheSpec::Bolt(path.to_owned()).open(&Cancel::default())
}

fn redis(url: &str) -> Arc<dyn BlobCache> {
    CacheSpec::Redis(Box::new(RedisOptions::from_url(url).unwrap())).open(&Cancel::default())
}

#[test]
fn a_bolt_cache_knows_all_paths() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache.db");
    fill_bolt(&file, &many());
    let before = fs::read(&file).unwrap();
    // zot holds this lock while it runs.
    let zot = Writer::open(&file, &OpenOptions::default()).unwrap();
    answers(&*bolt(&file));
    drop(zot);
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_bolt_cache_may_be_missing_or_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache.db");
    let cache = bolt(&file);
    let ask = |number| cache.candidates(&[&digest(number)]).map(|mut found| found.pop().unwrap());
    let at = |number, repo| path(repo, &digest(number));

    assert_eq!(ask(0).unwrap(), Vec::<String>::new());
    assert!(!file.exists());
    fs::write(&file, "").unwrap();
    assert_eq!(ask(0).unwrap(), Vec::<String>::new());
    fs::remove_file(&file).unwrap();

    // The same cache follows the file as it comes to be.
    let mut writer = Writer::open(&file, &OpenOptions { create: true, ..OpenOptions::default() }).unwrap();
    assert_eq!(ask(0).unwrap(), Vec::<String>::new());
    let mut batch = Batch::new();
    let mut put = |number, bucket: &str, paths: &[String]| {
        let digest = digest(number);
        let bucket = [b"blobs", digest.as_bytes(), bucket.as_bytes()];
        batch.create_bucket(&bucket).unwrap();
        for path in paths {
            batch.put(&bucket, path.as_bytes(), Vec::new()).unwrap();
        }
    };
    put(0, "original", &[at(0, "y"), at(0, "x")]);
    put(0, "duplicates", &[at(0, "y"), at(0, "b"), at(0, "a")]);
    put(1, "duplicates", &[at(1, "b"), at(1, "a")]);
    put(2, "original", &[at(2, "x")]);
    put(3, "original", &[]);
    put(4, "original", &[at(0, "x"), format!("../{}", at(4, "x"))]);
    writer.commit(&batch).unwrap();
    assert_eq!(ask(0).unwrap(), [at(0, "x"), at(0, "a"), at(0, "b"), at(0, "y")]);
    assert_eq!(ask(1).unwrap(), [at(1, "a"), at(1, "b")]);
    assert_eq!(ask(2).unwrap(), [at(2, "x")]);
    assert_eq!(ask(3).unwrap(), Vec::<String>::new());
    assert_eq!(ask(4).unwrap(), Vec::<String>::new());
}

#[test]
fn a_bolt_cache_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache.db");
    fill_bolt(&file, &many());
    let mut content = fs::read(&file).unwrap();
    for page in content.chunks_mut(4096).skip(2) {
        page[8..10].fill(0xff);
    }
    let not_bolt = dir.path().join("other.db");
    fs::write(&file, &content).unwrap();
    fs::write(&not_bolt, vec![7; 20_000]).unwrap();
    for file in [&file, &not_bolt, &dir.path().to_owned()] {
        let error: CacheError = bolt(file).candidates(&[&digest(1)]).unwrap_err();
        let text = chain(&StorageError::from(error));
        assert!(text.starts_with(&format!("cannot look into the blob cache {}: ", file.display())), "{text}");
    }
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_redis_cache_knows_all_paths() {
    let server = Server::start(&[]);
    let mut client = server.client();
    fill_redis(&mut client, "zot", &many());
    let before = dump_redis(&mut client);
    answers(&*redis(&server.url("")));
    let found = redis(&server.url("?keyprefix=other")).candidates(&[&digest(1)]).unwrap();
    assert_eq!(found, [Vec::<String>::new()]);
    fill_redis(&mut client, "other", &many());
    answers(&*redis(&server.url("?keyprefix=other")));

    // No original: zot takes that for a miss.
    let blob = path("a", &digest(1000));
    redis::cmd("SADD").arg(format!("zot:blobs:duplicates:{}", digest(1000))).arg(&blob).exec(&mut client).unwrap();
    assert_eq!(redis(&server.url("")).candidates(&[&digest(1000)]).unwrap(), [[blob]]);
    redis::cmd("DEL").arg(format!("zot:blobs:duplicates:{}", digest(1000))).exec(&mut client).unwrap();
    let mut after = dump_redis(&mut client);
    after.retain(|key, _| key.starts_with("zot:"));
    assert!(after == before);

    redis::cmd("SET").arg(format!("zot:blobs:duplicates:{}", digest(2000))).arg("x").exec(&mut client).unwrap();
    let error = redis(&server.url("")).candidates(&[&digest(2000)]).unwrap_err();
    assert!(chain(&error).contains("not of the type that zot gives it"), "{}", chain(&error));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_redis_cache_needs_one_right_more_than_the_metadb() {
    let more = [&setups::READING[..], &["smembers"]].concat();
    for (rights, works) in [(&more[..], true), (&setups::READING, false)] {
        let server = setups::acl(rights, "zot");
        fill_redis(&mut server.client(), "zot", &many());
        let cache = redis(&format!("redis://zot:zot-Secret@127.0.0.1:{}", server.port));
        if works {
            answers(&*cache);
        } else {
            let text = chain(&cache.candidates(&[&digest(1)]).unwrap_err());
            assert!(text.contains("denies smembers") && !setups::leaks(&text), "{text}");
        }
    }
}

#[test]
fn a_redis_that_cannot_be_reached_is_not_asked_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(client);
        }
    });
    let cache = redis(&format!("redis://127.0.0.1:{port}"));
    let first = chain(&cache.candidates(&[&digest(1)]).unwrap_err());
    assert!(first.contains("cannot be reached"), "{first}");
    let tried = connections.load(Ordering::Relaxed);
    assert!(tried > 1, "it was tried more than once: {tried}");
    for number in 0..100 {
        assert_eq!(chain(&cache.candidates(&[&digest(number)]).unwrap_err()), first);
    }
    assert_eq!(connections.load(Ordering::Relaxed), tried);
}

/// The table of a cache in DynamoDB at this port.
fn dynamodb(port: u16, table: &str) -> Arc<dyn BlobCache> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let given = [("name", "dynamodb"), ("endpoint", &endpoint), ("region", "us-east-1"), ("cachetablename", table)];
    let given = given.map(|(key, value)| (key, setups::text(value)));
    let options = DynamoDbBlobCacheOptions::from_params(&setups::params(&given)).unwrap();
    CacheSpec::DynamoDb(Box::new(options.with_credentials("AKTEST", Secret::new("Secret".to_owned()))))
        .open(&Cancel::default())
}

#[test]
fn a_dynamodb_cache_knows_all_paths() {
    let server = support::dynamodb::Server::start();
    fill_dynamodb(&server, "Cache", &many());
    let before = server.items("Cache");
    let proxy = Proxy::start(server.port);
    answers(&*dynamodb(proxy.port, "Cache"));
    // A hundred digests in one request, and nothing but reading.
    assert_eq!(proxy.requests().into_iter().collect::<Vec<_>>(), [(("POST".to_owned(), "BatchGetItem".to_owned()), 7)]);

    let (whole, only) = (digest(1000), digest(1001));
    let blob = |digest: &str| path("a", digest);
    for item in [
        json!({"Digest": {"S": whole}, "DuplicateBlobPath": {"SS": [blob(&whole)]}}),
        json!({"Digest": {"S": only}, "OriginalBlobPath": {"S": blob(&only)}}),
    ] {
        let request = json!({"TableName": "Cache", "Item": item});
        server.db.put_item(serde_json::from_value(request).unwrap()).unwrap();
    }
    // The same digest twice is one key in a request.
    let found = dynamodb(proxy.port, "Cache").candidates(&[&whole, &only, &whole]).unwrap();
    assert_eq!(found, [[blob(&whole)], [blob(&only)], [blob(&whole)]]);
    assert_eq!(server.items("Cache").len(), before.len() + 2);

    let text = chain(&dynamodb(server.port, "Other").candidates(&[&whole]).unwrap_err());
    assert!(text.starts_with("cannot look into the blob cache ") && text.contains("Other"), "{text}");
    assert!(server.table_names() == ["Cache"], "no table is created");

    proxy.rule(|_| {
        let denied = r#"{"__type":"x#AccessDeniedException","message":"no"}"#;
        Some(Fate::Reply(Reply::new(400, denied).with("content-type", "application/x-amz-json-1.0")))
    });
    let text = chain(&dynamodb(proxy.port, "Cache").candidates(&[&whole]).unwrap_err());
    assert!(text.contains("dynamodb:BatchGetItem on table Cache") && !setups::leaks(&text), "{text}");
}

// --- local stores ------------------------------------------------------------------------------------------------

const MTIME: i64 = 1_700_000_000_000_000_000;

/// Blob `number` of each repo, in order: with or without content.
fn local(root: &Path, number: usize, repos: &[(&str, bool)]) -> String {
    let content = number.to_le_bytes();
    let digest = sha256(&content);
    for (index, (repo, full)) in repos.iter().enumerate() {
        Repo::new(root, repo, MTIME);
        let content = if *full { &content[..] } else { b"" };
        write_at(&blob_path(root, repo, &digest), content, MTIME + 1_000_000_000 * i64::try_from(index).unwrap());
    }
    digest
}

fn one(store: &LocalStore, repo: &str, digest: &str) -> Result<Blob, StorageError> {
    store.read_blobs(repo, &[digest]).pop().unwrap()
}

#[test]
fn a_local_placeholder_leads_to_the_first_path_with_content() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache.db");
    let root = dir.path();
    let both = local(root, 0, &[("empty", false), ("gone", false), ("also-empty", false), ("z", true), ("y", true)]);
    let nowhere = local(root, 1, &[("empty", false), ("also-empty", false)]);
    let unknown = local(root, 2, &[("empty", false)]);
    let whole = local(root, 3, &[("empty", true)]);
    fs::remove_file(blob_path(root, "gone", &both)).unwrap();
    fs::create_dir_all(blob_path(root, "directory", &both)).unwrap();
    let recorded = |digest: &str, repos: &[&str]| {
        (digest.to_owned(), repos.iter().map(|repo| path(repo, digest)).collect::<Vec<_>>())
    };
    fill_bolt(
        &file,
        &[
            recorded(&both, &["gone", "directory", "empty", "also-empty", "z", "y"]),
            recorded(&nowhere, &["gone", "empty", "also-empty"]),
        ]
        .into(),
    );
    let before = fs::read(&file).unwrap();

    let store = LocalStore::new(root).with_cache(Some(bolt(&file)));
    let found = store.read_blobs("empty", &[&whole, &both, &nowhere, &unknown, "sha256:00"]);
    assert_eq!(found[0].as_ref().unwrap().content, 3_usize.to_le_bytes());
    let blob = found[1].as_ref().unwrap();
    assert_eq!(blob.content, 0_usize.to_le_bytes());
    // The time of the file that has the content, "y": the duplicates come in byte order.
    assert_eq!(blob.mtime.unwrap().as_nanosecond(), i128::from(MTIME) + 4_000_000_000);
    for (found, digest) in found[2..4].iter().zip([&nowhere, &unknown]) {
        let expected = format!("{} (a dedupe placeholder)", blob_path(root, "empty", digest).display());
        assert!(matches!(found, Err(StorageError::NotFound { what }) if *what == expected), "{found:?}");
    }
    assert!(matches!(&found[4], Err(StorageError::InvalidDigest { .. })));
    // A directory has no size for zot, like a placeholder.
    assert_eq!(one(&store, "directory", &both).unwrap().content, 0_usize.to_le_bytes());
    assert!(matches!(one(&store, "gone", &both), Err(StorageError::NotFound { .. })), "it is no placeholder");
    assert!(matches!(one(&LocalStore::new(root), "empty", &both), Err(StorageError::NotFound { .. })));
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// A cache that must not be asked, or fails.
struct Told(Option<CacheError>);

impl BlobCache for Told {
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError> {
        Err(self.0.clone().unwrap_or_else(|| panic!("asked for {digests:?}")))
    }
}

#[test]
fn only_placeholders_need_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (full, placeholder) = (local(root, 0, &[("a", true)]), local(root, 1, &[("a", false)]));
    let empty = sha256(b"");
    write_at(&blob_path(root, "a", &empty), b"", MTIME);
    let missing = digest(77);

    let store = LocalStore::new(root).with_cache(Some(Arc::new(Told(None))));
    let found = store.read_blobs("a", &[&full, &empty, &missing]);
    assert_eq!(found[1].as_ref().unwrap().content, b"");
    assert!(found[0].is_ok() && matches!(found[2], Err(StorageError::NotFound { .. })), "{found:?}");

    let error = bolt(root).candidates(&[&full]).unwrap_err();
    let store = LocalStore::new(root).with_cache(Some(Arc::new(Told(Some(error)))));
    let found = store.read_blobs("a", &[&placeholder, &full, &missing, &placeholder]);
    for index in [0, 3] {
        assert!(matches!(found[index], Err(StorageError::Cache(_))), "{found:?}");
    }
    assert!(found[1].is_ok() && matches!(found[2], Err(StorageError::NotFound { .. })), "{found:?}");
}
