//! Object stores that refuse, break off, or are not what the config says: never a wrong record, never a false stamp.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::bucket::{Bucket, Kind, ObjectServer, Recorded};
use support::command::{Ran, Sandbox, finish, kill, push, run, wait_for};
use support::driver::Driver;
use support::equality::{differences, strict};
use support::proxy::{Fate, Proxy, Reply};
use support::records::decode;
use support::registry::registry;
use support::store::blob_path;

fn command(sandbox: &Sandbox, bucket: &Bucket<'_>, port: u16, arguments: &[&str]) -> Ran {
    let mut command = sandbox.command(&["--format", "json"]);
    command.args(arguments).envs(bucket.environment(port));
    run(&mut command)
}

/// A registry with nothing on disk whose store is in `bucket`.
fn remote(bucket: &Bucket<'_>, port: u16) -> Sandbox {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": bucket.storage_driver(port)}));
    sandbox
}

fn recorded(root: &Path) -> Value {
    strict(&decode(&Driver::Bolt.dump(root)), &json!({}))
}

fn stamp(sandbox: &Sandbox) -> Option<Vec<u8>> {
    Driver::Bolt.dump(&sandbox.root).get("Version", "FastRestartStamp").map(<[u8]>::to_vec)
}

/// A failed command that learned nothing and changed nothing. Returns its message.
fn refused(sandbox: &Sandbox, ran: &Ran, reason: &str) -> String {
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let error = &ran.json()["error"];
    assert_eq!(error["reason"], reason, "{ran:?}");
    for secret in ["SKTEST-Secret", support::bucket::AZURE_KEY, "AKTEST"] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran:?}");
    }
    assert!(!sandbox.meta().exists() || stamp(sandbox).is_some(), "{ran:?}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn faults_at_random_change_nothing_in_the_result() {
    let local = Sandbox::new(|root| drop(registry(root, 10, 20)));
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("faults", None);
        bucket.load(&local.root);
        bucket.date_like_objects(&local.root, &Recorded::new());
        let _ = std::fs::remove_file(local.meta());
        local.walk();

        let proxy = Proxy::start(server.port);
        proxy.random_faults(0.05, 7);
        let sandbox = remote(&bucket, proxy.port);
        let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
        assert_eq!(walk.code, Some(0), "{kind:?}: {walk:?}");
        let fates = proxy.fates();
        for fate in ["500", "503", "reset", "truncate"] {
            assert!(fates.contains_key(fate), "{kind:?}: {fates:?}");
        }
        let found = differences(&recorded(&local.root), &recorded(&sandbox.root));
        assert!(found.is_empty(), "{kind:?}: {} differences, first {:?}", found.len(), found.first());
        let before: usize = proxy.fates().iter().filter(|(fate, _)| *fate != "forward").map(|(_, count)| count).sum();
        for arguments in [&["verify", "--deep"][..], &["verify"], &["walk", "--force"]] {
            let ran = command(&sandbox, &bucket, proxy.port, arguments);
            assert_eq!(ran.code, Some(0), "{kind:?} {arguments:?}: {ran:?}");
        }
        let after: usize = proxy.fates().iter().filter(|(fate, _)| *fate != "forward").map(|(_, count)| count).sum();
        assert!(after > before + 10, "{kind:?}: {:?}", proxy.fates());
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn what_stays_unreadable_fails_its_repo_alone() {
    let files = tempfile::tempdir().unwrap();
    let pushed: Vec<_> = ["denied", "slow", "torn", "lost", "good"]
        .into_iter()
        .map(|repo| (repo, push(files.path(), repo, &["1"], repo)))
        .collect();
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("some", Some("/zot"));
        bucket.load(files.path());
        let proxy = Proxy::start(server.port);
        let sandbox = remote(&bucket, proxy.port);
        let digest_of =
            |repo: &str| pushed.iter().find(|(name, _)| *name == repo).map(|(_, found)| found.clone()).unwrap();
        let hex = |digest: &str| digest.rsplit_once(':').unwrap().1.to_owned();
        // Manifests of two, the config of the third.
        let (denied, slow, torn) = (hex(&digest_of("denied").0), hex(&digest_of("slow").0), hex(&digest_of("torn").1));
        proxy.rule(move |request| {
            let about = |hex: &str| request.path.contains(hex);
            match () {
                () if about(&denied) => Some(Fate::Reply(Reply::new(403, ""))),
                () if about(&slow) => {
                    let body =
                        "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                    Some(Fate::Reply(Reply::new(503, body)))
                }
                () if about(&torn) => Some(Fate::Truncate),
                () => None,
            }
        });
        let lost = blob_path(Path::new(""), "lost", &digest_of("lost").0);
        bucket.delete(lost.to_str().unwrap());

        let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
        assert_eq!(walk.code, Some(1), "{kind:?}: {walk:?}");
        let report = walk.json();
        let names = |list: &str| -> Vec<String> {
            report[list].as_array().unwrap().iter().map(|one| one["repo"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("failed"), ["denied", "slow", "torn"], "{kind:?}: {walk:?}");
        assert_eq!(names("partial"), ["lost"], "{kind:?}: {walk:?}");
        let reason = |at: usize| report["failed"][at]["reason"].as_str().unwrap();
        assert!(reason(0).contains("403") && reason(0).contains("(tried 3 times)"), "{}", reason(0));
        assert!(reason(1).contains("503 SlowDown: Please reduce your request rate. (tried 8 times)"), "{}", reason(1));
        assert_eq!(stamp(&sandbox), None, "{kind:?}");
        let dump = decode(&Driver::Bolt.dump(&sandbox.root));
        let recorded: Vec<&String> = dump["RepoMeta"].as_object().unwrap().keys().collect();
        assert_eq!(recorded, ["good"], "{kind:?}");

        proxy.clear();
        bucket.load(files.path());
        let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
        assert_eq!(walk.code, Some(0), "{kind:?}: {walk:?}");
        assert!(stamp(&sandbox).is_some(), "{kind:?}");

        // To verify, one blob that may not be read is a finding about its repo, and no other.
        proxy.refuse(digest_of("denied").0.rsplit_once(':').unwrap().1, 403);
        let verify = command(&sandbox, &bucket, proxy.port, &["verify", "--deep"]);
        assert_eq!(verify.code, Some(2), "{kind:?}: {verify:?}");
        let found = verify.json()["findings"].as_array().unwrap().clone();
        assert!(found.iter().all(|finding| finding["repo"] == "denied"), "{kind:?}: {found:?}");
        assert!(found.iter().any(|finding| finding["id"] == "blob-unreadable"), "{kind:?}: {found:?}");
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn where_nobody_may_look_at_an_index_it_is_listed() {
    let files = tempfile::tempdir().unwrap();
    for repo in ["a", "b"] {
        push(files.path(), repo, &["1"], repo);
    }
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("unseen", Some("/zot"));
    bucket.load(files.path());
    std::thread::sleep(Duration::from_secs(2));
    let proxy = Proxy::start(server.port);
    let sandbox = remote(&bucket, proxy.port);
    let walk = |arguments: &[&str]| command(&sandbox, &bucket, proxy.port, &[&["walk"], arguments].concat());
    let deny = |status: u16, more: fn(&support::proxy::Request) -> Option<Fate>| {
        proxy.rule(move |request| match request.method.as_str() {
            "HEAD" => Some(Fate::Reply(Reply::new(status, ""))),
            _ => more(request),
        });
    };
    for status in [403, 405] {
        deny(status, |_| None);
        let done = walk(&["--force"]);
        assert_eq!((done.code, &done.json()["repos"]["parsed"]), (Some(0), &json!(2)), "{status}: {done:?}");
        // Nothing changed, and that is seen; then one did.
        let unstamped = ["--no-stamp", "--commit", "v2.1.20-1-g0000000"];
        let done = walk(&unstamped);
        assert_eq!((done.code, &done.json()["repos"]["parsed"]), (Some(0), &json!(0)), "{status}: {done:?}");
        push(files.path(), "a", &[&format!("more-{status}")], "more");
        bucket.load(files.path());
        let done = walk(&unstamped);
        assert_eq!(done.code, Some(0), "{status}: {done:?}");
        let tags = recorded(&sandbox.root)["RepoMeta"]["a"]["Tags"].clone();
        assert!(tags.get(format!("more-{status}")).is_some(), "{status}: {tags}");
        std::thread::sleep(Duration::from_secs(2));
    }
    proxy.clear();
    assert_eq!(walk(&["--force"]).code, Some(0));
    let before = recorded(&sandbox.root);
    // The listing has words where the other has none.
    deny(403, |request| {
        let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        let about = request.path.contains("prefix=zot/zot/") && request.path.contains("index.json");
        about.then(|| Fate::Reply(Reply::new(400, body)))
    });
    let message = refused(&sandbox, &walk(&["--commit", "v2.1.20-7-g0000000"]), "storage");
    assert!(message.contains("index.json: 400 ExpiredToken"), "{message}");
    // Not listed is not "not found": neither forgotten nor taken for unchanged.
    deny(403, |request| {
        let about = request.path.contains("prefix=zot/zot/a/index.json");
        about.then(|| Fate::Reply(Reply::new(200, "<ListBucketResult></ListBucketResult>")))
    });
    let done = walk(&["--commit", "v2.1.20-7-g0000000"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let failed = &done.json()["failed"];
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["repo"]), (1, &json!("a")), "{done:?}");
    assert!(failed[0]["reason"].as_str().unwrap().contains("403"), "{done:?}");
    assert_eq!(recorded(&sandbox.root)["RepoMeta"], before["RepoMeta"]);
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn stores_that_are_not_there_change_nothing() {
    let files = tempfile::tempdir().unwrap();
    for repo in ["a", "b", "c"] {
        push(files.path(), repo, &["1"], repo);
    }
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("there", Some("/zot"));
        bucket.load(files.path());
        let sandbox = remote(&bucket, server.port);
        let walk = command(&sandbox, &bucket, server.port, &["walk"]);
        assert_eq!(walk.code, Some(0), "{kind:?}: {walk:?}");
        let before = sandbox.content();

        let missing = server.existing("elsewhere", Some("/zot"));
        sandbox.configure(&json!({"storageDriver": missing.storage_driver(server.port)}));
        let config = sandbox.content();
        for arguments in [&["walk"][..], &["walk", "--force"], &["verify"], &["stamp", "write"]] {
            let ran = command(&sandbox, &missing, server.port, arguments);
            let message = refused(&sandbox, &ran, "storage");
            // The emulator of Google says 500.
            let says = if kind == Kind::Gcs { "no bucket named elsewhere" } else { "404" };
            assert!(message.contains("elsewhere/zot") && message.contains(says), "{kind:?}: {message}");
        }
        // An empty listing is no reason to forget everything, unless somebody says so.
        let misspelt = server.existing("there", Some("/zott"));
        sandbox.configure(&json!({"storageDriver": misspelt.storage_driver(server.port)}));
        for arguments in [&["walk"][..], &["walk", "--force"]] {
            let ran = command(&sandbox, &misspelt, server.port, arguments);
            let message = refused(&sandbox, &ran, "max-delete");
            assert!(message.contains('3'), "{kind:?}: {message}");
        }
        assert_eq!(config.get(&sandbox.meta()), before.get(&sandbox.meta()), "{kind:?}");
        assert_eq!(sandbox.content().get(&sandbox.meta()), before.get(&sandbox.meta()), "{kind:?}");
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn wrong_credentials_and_places_are_named_before_anything_is_written() {
    let files = tempfile::tempdir().unwrap();
    for repo in ["a", "b"] {
        push(files.path(), repo, &["1"], repo);
    }
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("there", Some("/zot"));
    bucket.load(files.path());
    let proxy = Proxy::start(server.port);
    let sandbox = remote(&bucket, proxy.port);
    let with = |changes: Value| {
        let mut driver = bucket.storage_driver(proxy.port);
        for (key, value) in changes.as_object().unwrap() {
            driver[key] = value.clone();
        }
        sandbox.configure(&json!({"storageDriver": driver}));
    };
    let walk = || refused(&sandbox, &command(&sandbox, &bucket, proxy.port, &["walk"]), "storage");

    with(json!({"secretkey": "hunter22-wrong"}));
    let message = walk();
    assert!(message.contains("403 SignatureDoesNotMatch") && !message.contains("hunter22"), "{message}");
    with(json!({"accesskey": "AKUNKNOWN"}));
    let message = walk();
    assert!(message.contains("403 InvalidAccessKeyId") && !message.contains("AKUNKNOWN"), "{message}");
    // No credentials at all: nothing answers where instances have theirs.
    with(json!({"accesskey": "", "secretkey": ""}));
    let mut none = sandbox.command(&["--format", "json", "walk"]);
    let message = refused(&sandbox, &run(none.env("AWS_EC2_METADATA_DISABLED", "true")), "storage");
    assert!(message.contains("no AWS credentials"), "{message}");

    with(json!({}));
    let skew = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current \
                time is too large.</Message></Error>";
    let expired = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let moved = "<Error><Code>PermanentRedirect</Code><Message>Use the endpoint of the bucket.</Message></Error>";
    for (reply, says) in [
        (
            Reply::new(403, skew).with("Date", "Mon, 05 Jan 2015 10:00:00 GMT"),
            &["RequestTimeTooSkewed", "too large", "minutes ahead of the service's"][..],
        ),
        (Reply::new(400, expired), &["400 ExpiredToken: The provided token has expired."]),
        (
            Reply::new(301, moved).with("x-amz-bucket-region", "eu-central-1"),
            &["301 PermanentRedirect", "the bucket is in region \"eu-central-1\": correct storageDriver.region"],
        ),
        // A secret that the service repeats stays secret.
        (
            Reply::new(403, "<Error><Code>Odd</Code><Message>SKTEST-Secret is wrong</Message></Error>"),
            &["*** is wrong"],
        ),
    ] {
        proxy.rule(move |_| Some(Fate::Reply(reply.clone())));
        let message = walk();
        assert!(says.iter().all(|text| message.contains(text)), "{message}");
    }
    // Listed, but nothing can be read.
    proxy.refuse("index.json", 403);
    let message = walk();
    assert!(message.contains("index.json") && message.contains("403"), "{message}");
    assert!(!sandbox.meta().exists());

    proxy.clear();
    let ran = command(&sandbox, &bucket, proxy.port, &["walk"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_wrong_key_of_an_azure_account_is_named() {
    let server = ObjectServer::start(Kind::Azure);
    let bucket = server.bucket("there", None);
    bucket.put("a/index.json", b"{}");
    let sandbox = remote(&bucket, server.port);
    let mut driver = bucket.storage_driver(server.port);
    driver["accountkey"] = json!("aHVudGVyMjItd3Jvbmc=");
    sandbox.configure(&json!({"storageDriver": driver}));
    let ran = command(&sandbox, &bucket, server.port, &["walk"]);
    let message = refused(&sandbox, &ran, "storage");
    assert!(message.contains("403 AuthorizationFailure") || message.contains("403 AuthenticationFailed"), "{message}");
    assert!(!message.contains("aHVudGVyMjI") && !message.contains("MAC signature"), "{message}");
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_change_in_the_same_second_is_never_overlooked() {
    let files = tempfile::tempdir().unwrap();
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("busy", None);
        let sandbox = remote(&bucket, server.port);
        for round in 0..6 {
            // At once after the walk before, whose look at the index is some milliseconds old.
            push(files.path(), "repo", &["tag"], &format!("{kind:?} {round}"));
            bucket.load(files.path());
            let walk = command(&sandbox, &bucket, server.port, &["walk", "--no-stamp"]).json();
            assert_eq!(walk["repos"]["parsed"], 1, "{kind:?} {round}: {walk}");
        }
        let last = &decode(&Driver::Bolt.dump(&sandbox.root))["RepoLastUpdated"]["repo"];
        assert!(!last.to_string().contains('.'), "not a whole second: {last}");
    }
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_server_that_dies_midway_leaves_no_stamp() {
    let files = tempfile::tempdir().unwrap();
    support::work::store(files.path(), 20, 5);
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("dying", None);
    bucket.load(files.path());
    let proxy = Proxy::start(server.port);
    let sandbox = remote(&bucket, proxy.port);
    let mut blobs = 0;
    proxy.rule(move |request| {
        blobs += usize::from(request.path.contains("/blobs/"));
        (blobs > 60).then_some(Fate::Reset)
    });
    let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
    assert!(matches!(walk.code, Some(1 | 2)), "{walk:?}");
    assert_eq!(stamp(&sandbox), None);

    proxy.clear();
    let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
    assert_eq!(walk.code, Some(0), "{walk:?}");
    assert!(stamp(&sandbox).is_some());
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_silent_store_outlasts_neither_a_timeout_nor_a_signal() {
    let files = tempfile::tempdir().unwrap();
    push(files.path(), "good", &["1"], "good");
    let hung = blob_path(Path::new(""), "hung", &push(files.path(), "hung", &["1"], "hung").0);
    let hung = hung.to_str().unwrap();
    let check = &|kind: Kind| {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("silent", Some("/zot"));
        bucket.load(files.path());
        let proxy = Proxy::start(server.port);
        let sandbox = remote(&bucket, proxy.port);
        let timed = |arguments: &[&str]| {
            let begun = Instant::now();
            let ran = command(&sandbox, &bucket, proxy.port, &[arguments, &["--timeout", "3s"]].concat());
            assert!((3..10).contains(&begun.elapsed().as_secs()), "{kind:?}: {:?}, {ran:?}", begun.elapsed());
            ran
        };
        // Before anything was learned.
        proxy.rule(|_| Some(Fate::Silence));
        refused(&sandbox, &timed(&["walk"]), "timeout");
        assert!(!sandbox.meta().exists(), "{kind:?}");
        let asked = || proxy.fates().get("silence").copied().unwrap_or_default();
        let before = asked();
        assert!(before > 0, "{kind:?}");
        let mut walk = sandbox.command(&["--format", "json", "walk"]);
        let walk = walk.envs(bucket.environment(proxy.port)).spawn().unwrap();
        wait_for("a request", || asked() > before);
        let begun = Instant::now();
        kill(i32::try_from(walk.id()).unwrap(), Signal::INT);
        let ran = finish(walk);
        assert_eq!((ran.signal, &ran.json()["error"]["reason"]), (Some(2), &json!("cancelled")), "{kind:?}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{kind:?}: {:?}", begun.elapsed());

        // In the middle: what was read is recorded, and nobody says that the rest failed or is not there.
        let path = bucket.key(hung);
        proxy.rule(move |request| request.path.contains(&path).then_some(Fate::Silence));
        let walk = timed(&["walk"]);
        assert_eq!(walk.code, Some(1), "{kind:?}: {walk:?}");
        let report = walk.json();
        assert_eq!(report["result"], "broken-off", "{kind:?}: {walk:?}");
        assert_eq!((&report["failed"], &report["partial"]), (&json!([]), &json!([])), "{kind:?}: {walk:?}");
        assert_eq!(stamp(&sandbox), None, "{kind:?}");
        let dump = decode(&Driver::Bolt.dump(&sandbox.root));
        assert_eq!(dump["RepoMeta"].as_object().unwrap().keys().collect::<Vec<_>>(), ["good"], "{kind:?}");

        proxy.clear();
        let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
        assert_eq!((walk.code, &walk.json()["repos"]["parsed"]), (Some(0), &json!(1)), "{kind:?}: {walk:?}");
        assert!(stamp(&sandbox).is_some(), "{kind:?}");

        // Neither the listing nor a blob: no finding is made of silence.
        for part in ["", "/blobs/"] {
            proxy.rule(move |request| request.path.contains(part).then_some(Fate::Silence));
            refused(&sandbox, &timed(&["verify", "--deep"]), "timeout");
        }
    };
    // All at once: most of it is waiting. A check that panics is passed on.
    std::thread::scope(|threads| {
        for kind in Kind::ALL {
            threads.spawn(move || check(kind));
        }
    });
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn silence_is_asked_again_and_fails_its_repo_in_the_end() {
    let files = tempfile::tempdir().unwrap();
    let [late, mute] = ["late", "mute"].map(|repo| push(files.path(), repo, &["1"], repo).0.split_off("sha256:".len()));
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("silent", None);
    bucket.load(files.path());
    let proxy = Proxy::start(server.port);
    let sandbox = remote(&bucket, proxy.port);
    let mut first = true;
    proxy.rule(move |request| {
        let silent = request.path.contains(&mute) || request.path.contains(&late) && std::mem::take(&mut first);
        silent.then_some(Fate::Silence)
    });
    let begun = Instant::now();
    let walk = command(&sandbox, &bucket, proxy.port, &["walk"]);
    assert!((29..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!((walk.code, &walk.json()["repos"]["parsed"]), (Some(1), &json!(1)), "{walk:?}");
    let failed = &walk.json()["failed"];
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["repo"]), (1, &json!("mute")), "{walk:?}");
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("no answer within 20 s (tried 2 times)"), "{reason}");
    assert_eq!(stamp(&sandbox), None);
}
