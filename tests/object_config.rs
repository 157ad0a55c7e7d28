//! Configs with storage drivers: what keeps zot, or metactl, from using them, is said and costs nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use support::command::{Sandbox, run};

fn s3() -> Value {
    json!({"name": "s3", "bucket": "b", "region": "eu-west-1", "accesskey": "AKHIDDEN", "secretkey": "hunter22"})
}

fn azure() -> Value {
    json!({"name": "azure", "accountname": "acct", "accountkey": "aHVudGVyMjI=", "container": "c",
        "credentials": {"type": "shared_key"}})
}

fn with(mut driver: Value, key: &str, value: Value) -> Value {
    driver[key] = value;
    driver
}

#[test]
fn parameters_that_keep_zot_from_starting_are_refused_by_name() {
    let sandbox = Sandbox::new(|_| ());
    for (driver, says) in [
        (with(s3(), "region", json!("mars-1")), "storage.storageDriver.region is none that zot's AWS library knows"),
        (with(s3(), "bucket", json!("")), "storage.storageDriver.bucket is missing"),
        (with(s3(), "secure", json!("maybe")), "storage.storageDriver.secure must be a boolean"),
        (with(s3(), "chunksize", json!(10_485_760)), "zot reads this number as 1: write it as a text, \"10485760\""),
        (with(s3(), "rootdirectory", json!("zot")), "storage.storageDriver.rootdirectory must be / or begin"),
        (with(s3(), "v4auth", json!(false)), "storage.storageDriver.v4auth must not be false on Amazon S3"),
        (json!({"name": "gcs"}), "storage.storageDriver.bucket is missing"),
        (json!({"name": "gcs", "bucket": "b", "credentials": {"private_key": "hunter22"}}), "credentials never work"),
        (json!({"name": "gcs", "bucket": "b", "chunksize": 524_288}), "zot reads every number in JSON as a float"),
        (with(azure(), "credentials", json!({})), "storage.storageDriver.credentials.type must be shared_key"),
        (with(azure(), "accountkey", json!("hunter22!")), "storage.storageDriver.accountkey must be the account's key"),
        (
            with(azure(), "skipverify", json!("true")),
            "storage.storageDriver.skipverify must be a boolean, not a string",
        ),
    ] {
        sandbox.configure(&json!({"storageDriver": driver}));
        for arguments in [&["walk"][..], &["walk", "--dry-run"], &["verify"]] {
            let ran = sandbox.run(&[&["--format", "json"], arguments].concat());
            assert_eq!(ran.code, Some(3), "{ran:?}");
            let error = &ran.json()["error"];
            assert_eq!(error["reason"], "config-refused", "{ran:?}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("zot would refuse to start") && message.contains(says), "{message}");
        }
        let shown = sandbox.run(&["--format", "json", "config", "show"]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        let warnings = shown.json()["warnings"].to_string().replace("\\\"", "\"");
        assert!(warnings.contains(says), "{warnings}");
        for secret in ["hunter22", "AKHIDDEN", "aHVudGVyMjI"] {
            assert!(!shown.stdout.contains(secret) && !shown.stderr.contains(secret), "{shown:?}");
        }
        assert!(!sandbox.meta().exists());
    }
}

#[test]
fn sub_paths_are_refused_by_their_own_name() {
    let sandbox = Sandbox::new(|_| ());
    let sub =
        json!({"rootDirectory": "/tmp/unused", "dedupe": false, "storageDriver": with(s3(), "bucket", json!(""))});
    sandbox.configure(&json!({"subPaths": {"/a": sub}}));
    let ran = sandbox.run(&["walk"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("storage.subPaths[\"/a\"].storageDriver.bucket is missing"), "{ran:?}");
}

#[test]
fn what_only_metactl_cannot_do_is_said_as_such() {
    let sandbox = Sandbox::new(|_| ());
    let old_signatures = with(with(s3(), "v4auth", json!(false)), "regionendpoint", json!("127.0.0.1:1"));
    for driver in [
        old_signatures,
        with(s3(), "bucket", json!("arn:aws:s3-outposts:eu-west-1:1:outpost/o/accesspoint/x")),
        with(azure(), "rootdirectory", json!("a//b")),
    ] {
        sandbox.configure(&json!({"storageDriver": driver}));
        let ran = sandbox.run(&["--format", "json", "walk"]);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert_eq!(ran.json()["error"]["reason"], "storage-driver", "{ran:?}");
        let message = ran.json()["error"]["message"].to_string();
        assert!(message.contains("this metactl cannot use storage.storageDriver."), "{message}");
    }
}

#[test]
fn files_that_are_named_must_be_usable() {
    let sandbox = Sandbox::new(|_| ());
    let broken = sandbox.dir.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    for (driver, environment, says) in [
        (json!({"name": "gcs", "bucket": "b", "keyfile": "/nowhere/key.json"}), None, "/nowhere/key.json"),
        (json!({"name": "gcs", "bucket": "b", "keyfile": broken}), None, "is not JSON"),
        (
            json!({"name": "gcs", "bucket": "b"}),
            Some(("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/adc.json")),
            "/nowhere/adc.json",
        ),
        (json!({"name": "gcs", "bucket": "b"}), Some(("STORAGE_EMULATOR_HOST", "a b")), "STORAGE_EMULATOR_HOST"),
        (s3(), Some(("AWS_CA_BUNDLE", "/nowhere/ca.pem")), "AWS_CA_BUNDLE (/nowhere/ca.pem)"),
    ] {
        sandbox.configure(&json!({"storageDriver": driver}));
        let mut command = sandbox.command(&["walk"]);
        let ran = run(command.envs(environment));
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
        assert!(!sandbox.meta().exists());
    }
}

#[test]
fn a_server_that_is_not_there_is_said_after_a_while() {
    let sandbox = Sandbox::new(|_| ());
    let driver = with(s3(), "regionendpoint", json!("http://127.0.0.1:1"));
    sandbox.configure(&json!({"storageDriver": driver}));
    let ran = sandbox.run(&["--format", "json", "walk"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let message = ran.json()["error"]["message"].to_string();
    assert!(message.contains("cannot list s3://b/") && message.contains("(tried 8 times)"), "{message}");
    assert!(!sandbox.meta().exists());
}
