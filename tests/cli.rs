//! What the command line prints: every line of `tests/cli/*.trycmd`. `TRYCMD=overwrite cargo test --test cli` writes what
//! is printed now; put `[..]` back where times stand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if !entry.file_name().to_string_lossy().starts_with("meta.") {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The example's registry under relative names, so that neither paths nor fingerprints differ from machine to machine.
fn registry() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/registry"), &dir.path().join("registry"));
    let write = |name: &str, storage: serde_json::Value, extensions: serde_json::Value| {
        let config = serde_json::json!({
            "distSpecVersion": "1.1.1", "storage": storage, "http": {"address": "127.0.0.1", "port": "5000"},
            "extensions": extensions,
        });
        std::fs::write(dir.path().join(name), config.to_string()).unwrap();
    };
    let search = serde_json::json!({"search": {"enable": true}});
    // Without dedupe, so that no probe depends on the file system.
    let local = |more: serde_json::Value| {
        let mut storage = serde_json::json!({"rootDirectory": "registry", "fastRestart": true, "dedupe": false});
        storage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        storage
    };
    write("config.json", local(serde_json::json!({"cacheDriver": {"name": "redb"}})), search.clone());
    write("bolt.json", local(serde_json::json!({})), search.clone());
    let secret = serde_json::json!({"remoteCache": true, "cacheDriver": {
        "name": "redis", "url": "redis://user:hunter2@cache:6379/0?password=hunter2", "keyprefix": "zot",
    }});
    write("secret.json", local(secret), search.clone());
    write("refused.json", local(serde_json::json!({"gcInterval": "-1h"})), search);
    dir
}

/// In one test: the working directory is the process's own.
#[test]
fn everything_prints_as_recorded() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let run = |name: &str, config: &str| {
        let dir = registry();
        std::env::set_current_dir(dir.path()).unwrap();
        let tests = trycmd::TestCases::new();
        tests.register_bin("metactl", PathBuf::from(env!("CARGO_BIN_EXE_metactl")));
        tests
            .env("METACTL_CONFIG", config)
            .env("METACTL_RELEASE_TAG", "v2.1.20")
            .env("METACTL_COMMIT", "v2.1.20-0-g3b5796d")
            .case(cases.join(name))
            .run();
    };
    run("help.trycmd", "config.json");
    run("usage.trycmd", "config.json");
    run("config.trycmd", "config.json");
    run("walk.trycmd", "bolt.json");
    run("stamp.trycmd", "bolt.json");
}
