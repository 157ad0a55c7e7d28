//! The command line on Redis: every command, its rights, exit codes, and what it says.

use crate::support::driver::{Raw, dump_bolt};
use crate::support::redis::{Server, client, dump};
use crate::support::setups::{self, Certificates, READING, WALKING, leaks};
use crate::support::store::Repo;
use crate::support::work::store;
use metactl::metadb::bolt::Database;
use metactl::records::proto::RepoMeta;
use prost::Message as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn command(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metactl"));
    command
        .args(["--no-state", "--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d", "--config"])
        .arg(config)
        .args(arguments);
    command
}

fn metactl(config: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
    let output = command(config, arguments).envs(environment.iter().copied()).output().unwrap();
    discreet(output)
}

/// No output shows a password.
pub fn discreet(output: Output) -> Output {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(!leaks(&String::from_utf8_lossy(&all)), "{}", String::from_utf8_lossy(&all));
    output
}

/// A config whose metaDB has these parameters, beside a store of three repos unless there is one.
pub fn config(dir: &Path, mut cache: Value) -> PathBuf {
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

pub fn parsed(output: &Output) -> Value {
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

/// With the rights that the README gives, and no others.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn the_command_line_needs_no_more_rights_than_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let walking = [&READING[..], &WALKING[..]].concat();
    let server = setups::acl(&walking, "zot");
    let mut admin = server.client();
    let mut reader = redis::cmd("ACL");
    reader.arg("SETUSER").arg("reader").arg("on").arg(">zot-Secret").arg("~zot:*");
    reader.arg(READING.map(|command| format!("+{command}")).to_vec()).exec(&mut admin).unwrap();
    let url = |user: &str| format!("redis://{user}:zot-Secret@127.0.0.1:{}", server.port);
    let config = config(dir.path(), json!({"url": url("zot")}));
    let as_user = |user: &str, arguments: &[&str]| {
        metactl(&config, &[&["--format", "json", "--metadb", &url(user)], arguments].concat(), &[])
    };
    let code = |user, arguments: &[&str]| as_user(user, arguments).status.code();
    assert_eq!(code("zot", &["walk"]), Some(0));
    for command in [&["stamp", "clear"][..], &["stamp", "write"], &["walk", "--force", "--prune"]] {
        assert_eq!(code("zot", command), Some(0), "{command:?}");
    }
    let before = dump(&mut admin, "zot");
    for command in [&["stamp", "show", "--check"][..], &["verify", "--deep"], &["walk", "--dry-run", "--force"]] {
        assert_eq!(code("reader", command), Some(0), "{command:?}");
    }
    // With these two, metactl can find out what else is missing without changing anything.
    redis::cmd("ACL").arg("SETUSER").arg("reader").arg("+multi").arg("+discard").exec(&mut admin).unwrap();
    for command in [&["walk", "--force"][..], &["stamp", "clear"], &["stamp", "write", "--force"]] {
        let output = as_user("reader", command);
        let error = &parsed(&output)["error"];
        assert_eq!((output.status.code(), &error["reason"]), (Some(3), &json!("denied")), "{command:?}: {error}");
        for right in WALKING.iter().filter(|right| !["discard", "multi"].contains(right)) {
            assert!(error["message"].to_string().contains(right), "{command:?}: {right}: {error}");
        }
    }
    assert_eq!(dump(&mut admin, "zot"), before);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_server_that_fills_up_midway_ends_the_walk_which_goes_on_later() {
    let dir = tempfile::tempdir().unwrap();
    store(&dir.path().join("root"), 150, 8);
    let server = Server::start(&[]);
    let config = config(dir.path(), json!({"url": server.url("")}));
    let mut admin = server.client();
    let limit = |bytes: usize| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(&mut server.client()).unwrap();
    };
    let memory: String = redis::cmd("INFO").arg("memory").query(&mut admin).unwrap();
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse::<usize>().unwrap();
    limit(used + 900_000);
    let broken = metactl(&config, &["--format", "json", "walk"], &[]);
    let report = parsed(&broken);
    assert_eq!((broken.status.code(), &report["result"]), (Some(2), &json!("broken-off")), "{report}");
    assert!(report["reason"].as_str().unwrap().contains("is full"), "{report}");
    assert_eq!(report["stamp"]["outcome"], "absent", "{report}");
    let recorded = dump(&mut admin, "zot").bucket("RepoLastUpdated").len();
    assert!((1..150).contains(&recorded), "{recorded} repos were recorded");

    limit(0);
    let whole = metactl(&config, &["--format", "json", "walk"], &[]);
    let report = parsed(&whole);
    assert_eq!((whole.status.code(), &report["result"]), (Some(0), &json!("complete")), "{report}");
    assert_eq!(report["repos"]["unchanged"], recorded, "what was done was done: {report}");
    assert_eq!(metactl(&config, &["verify", "--deep"], &[]).status.code(), Some(0));
}

/// On Redis alone, a cosign signature pushed under an `.sbom` tag takes the place of the one under `.sig` (spec §2.8).
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn signatures_under_sbom_tags_are_filed_as_zot_files_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = Repo::new(&dir.path().join("root"), "signed", 1_700_000_000_000_000_000);
    let descriptor = |content: &str, digest: &str, tag: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": content.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag}})
    };
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": repo.blob(b"{}"), "size": 2});
    let image = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": []}).to_string();
    let signed = repo.blob(image.as_bytes());
    let signature = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty],
        "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
        "subject": {"mediaType": MANIFEST, "digest": signed, "size": image.len()}})
    .to_string();
    let tag = format!("{}.sbom", signed.replace(':', "-"));
    let by = repo.blob(signature.as_bytes());
    repo.index(&[descriptor(&image, &signed, "v1"), descriptor(&signature, &by, &tag)]);

    let server = Server::start(&[]);
    let config = config(dir.path(), json!({"url": server.url("")}));
    let bolt = dir.path().join("meta.db");
    let shadow = format!("bolt:{}", bolt.display());
    let filed = |state: &Raw| -> Vec<String> {
        let meta = RepoMeta::decode(state.get("RepoMeta", "signed").unwrap()).unwrap();
        let list = &meta.signatures[&signed].map["cosign"].list;
        list.iter().map(|info| info.signature_manifest_digest.clone()).collect()
    };
    for (metadb, slots) in [(None, vec![by.clone()]), (Some(&*shadow), vec![String::new(), by.clone()])] {
        let run = |command: &[&str]| {
            let metadb = metadb.map(|place| ["--metadb", place]);
            metactl(&config, &[metadb.as_ref().map_or(&[][..], |args| &args[..]), command].concat(), &[])
        };
        assert_eq!(run(&["walk"]).status.code(), Some(0));
        let state = match metadb {
            None => dump(&mut server.client(), "zot"),
            Some(_) => dump_bolt(&Database::open(&bolt).unwrap()),
        };
        assert_eq!(filed(&state), slots, "{metadb:?}");
        let verified = run(&["verify", "--deep"]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
}
