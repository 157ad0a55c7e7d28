//! Loading, errors, the metaDB choice and semantic checks on whole config files.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, data: impl AsRef<[u8]>) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, data).unwrap();
    File { _dir: dir, path }
}

pub(super) fn config(value: &Value) -> RegistryConfig {
    load(&file("config.json", value.to_string()).path).unwrap()
}

pub(super) fn storage(config: &RegistryConfig) -> EffectiveStorage {
    config.storage(FieldSet::NEWEST, &DedupeProbe::Works).unwrap()
}

fn error(name: &str, data: impl AsRef<[u8]>) -> ConfigError {
    let file = file(name, data);
    match load(&file.path).and_then(|config| config.storage(FieldSet::NEWEST, &DedupeProbe::Works)) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

/// A config with this storage section and these other sections.
fn with(storage: Value, others: Value) -> Value {
    let mut out = others;
    out["storage"] = storage;
    out["storage"]["rootDirectory"] = json!("/r");
    out
}

fn metadb(value: &Value) -> MetaDb {
    let config = config(value);
    config.metadb(&storage(&config))
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(&dir.path().join("none.json")).unwrap_err().kind, ConfigErrorKind::NotFound);
    assert_eq!(load(dir.path()).unwrap_err().kind, ConfigErrorKind::IsDirectory);
    assert_eq!(load(Path::new("")).unwrap_err().kind, ConfigErrorKind::NotFound);
    assert_eq!(error("config.ini", "{}").kind, ConfigErrorKind::UnusableExtension);
    assert_eq!(error("config.json", vec![b' '; (MAX_FILE + 1) as usize]).kind, ConfigErrorKind::TooLarge);
}

#[test]
fn the_extension_picks_the_parser() {
    let json = r#"{"storage":{"rootDirectory":"/r"}}"#;
    let yaml = "storage: {rootDirectory: /r, }\n";
    let toml = "[storage]\nrootDirectory = '/r'\n";
    for (name, text) in [
        ("a.json", json),
        ("a.yaml", yaml),
        ("a.yml", yaml),
        ("a.toml", toml),
        ("a.yaml", json),
        ("a.JSON", yaml),
        ("a", json),
        ("a.conf", yaml),
        ("a.x", toml),
        ("a.", json),
    ] {
        let config = load(&file(name, text).path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(storage(&config).root_directory, "/r");
    }
    for (name, text) in
        [("a.json", yaml), ("a.json", toml), ("a.toml", json), ("a.yaml", "[storage]\na='/r'\n"), (".json", yaml)]
    {
        assert!(matches!(error(name, text).kind, ConfigErrorKind::Syntax { .. }), "{name}");
    }
    let broken = error("a.conf", " {\"storage\":\n x");
    assert_eq!(
        broken.kind,
        ConfigErrorKind::Syntax { line: 2, column: 2 },
        "the JSON error, since it begins like JSON"
    );
    assert_eq!(error("a.json", "{}").kind, ConfigErrorKind::Empty);
    assert_eq!(error("a", "").kind, ConfigErrorKind::Empty);
    assert_eq!(error("a.json", r#"{"storage":{"gc":null,"subPaths":{}}}"#).kind, ConfigErrorKind::Empty);
}

#[test]
fn errors_name_the_key() {
    for (text, key, kind) in [
        (r#"{"storage":{"gcdelay":"5"}}"#, "storage.gcDelay", None),
        (r#"{"storage":{"gc":"yes"}}"#, "storage.gc", None),
        (r#"{"storage":[]}"#, "storage", None),
        (r#"{"http":5}"#, "http", None),
        (r#"{"extensions":{"search":{"enable":"perhaps"}}}"#, "extensions.search.enable", None),
        (r#"{"storage":{"maxRepos":1e19}}"#, "storage.maxRepos", None),
        (
            r#"{"storage":{"subPaths":{"/A":{"retention":{"delay":[]}}}}}"#,
            "storage.subPaths[\"/a\"].retention.delay",
            None,
        ),
        (
            r#"{"storage":{"retention":{"policies":[{},{"keepTags":[{"pulledWithin":"1d"}]}]}}}"#,
            "storage.retention.policies[1].keepTags[0].pulledWithin",
            None,
        ),
        (r#"{"storage":{"rootDir":"/r"}}"#, "storage.rootdir", Some(None)),
        (r#"{"storage":{"rootDirectroy":"/r"}}"#, "storage.rootdirectroy", Some(Some("rootDirectory"))),
        (r#"{"storage":{"gcDelays":"1h"}}"#, "storage.gcdelays", Some(Some("gcDelay"))),
        (r#"{"storages":{"a":1}}"#, "storages", Some(Some("storage"))),
        (r#"{"storage":{"subPaths":{"/a":{"fastRestart":true}}}}"#, "storage.subPaths[\"/a\"].fastrestart", Some(None)),
    ] {
        let error = error("config.json", text);
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
        let want = match kind {
            None => ConfigErrorKind::WrongType,
            Some(suggestion) => ConfigErrorKind::UnknownKey { suggestion: suggestion.map(str::to_owned) },
        };
        assert_eq!(error.kind, want, "{error}");
        assert!(error.to_string().contains(key) && error.to_string().contains("config.json"), "{error}");
    }
    let twice = error("config.json", r#"{"storage":{"gc":true,"GC":false}}"#);
    assert_eq!((twice.kind, twice.key.as_deref()), (ConfigErrorKind::AmbiguousKey, Some("storage.gc")));
    assert_eq!(error("config.json", r#"{"a":1,"a::b":2}"#).kind, ConfigErrorKind::AmbiguousKey);
    assert_eq!(error("c.yaml", "storage: 2001-01-01\n").kind, ConfigErrorKind::WrongType);
    let infinite = error("c.yaml", "storage: {cacheDriver: {a: [.inf]}}\n");
    assert_eq!(infinite.key.as_deref(), Some("storage.cacheDriver"));
}

#[test]
fn hard_links_are_probed_only_where_zot_probes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("duphardlinkcheck.txt"), "").unwrap();
    for (extra, broken) in [
        (json!({}), true),
        (json!({"dedupe": false}), false),
        (json!({"storageDriver": {"name": "s3"}}), false),
        (json!({"rootDirectory": ""}), false),
    ] {
        let mut section = json!({"rootDirectory": dir.path()});
        section.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let config = config(&json!({"storage": section}));
        for probe in [config.assume_dedupe(), config.probe_dedupe()] {
            assert_eq!(matches!(probe, DedupeProbe::Broken(_)), broken, "{extra}");
        }
    }
}

#[test]
fn lists_of_maps_merge() {
    let driver = |value: Value| {
        let config = config(&with(json!({"cacheDriver": value}), json!({})));
        storage(&config).cache_driver.as_ref().map(DriverParams::redacted)
    };
    assert_eq!(driver(json!([])), Some(json!({})));
    assert_eq!(driver(json!([{}])), Some(json!({})));
    assert_eq!(driver(json!([null])), None);
    assert_eq!(
        driver(json!([{"a": 1, "b": 1}, null, [{"b": 2}], {"c": null}])),
        Some(json!({"a": 1, "b": 2, "c": null}))
    );
}

#[test]
fn other_settings() {
    let config = config(
        &json!({"releaseTag": "v9", "commit": 5, "http": {"address": "::1", "port": 8080, "tls": {"cert": "x"}}}),
    );
    assert_eq!(config.identity_overrides(), (Some("v9"), Some("5")));
    let http = config.http_address();
    assert_eq!((http.address.as_deref(), http.port.as_deref(), http.tls), (Some("::1"), Some("8080"), true));
    assert_eq!(http.url().as_deref(), Some("https://[::1]:8080"));
    for (address, port, url) in [
        (None, None, Some("http://127.0.0.1:8080")),
        (Some("0.0.0.0"), Some("5000"), Some("http://127.0.0.1:5000")),
        (Some("[::]"), Some("5000"), Some("http://[::1]:5000")),
        (Some("registry.example.org"), Some("80"), Some("http://registry.example.org:80")),
        (Some("127.0.0.1"), Some("0"), None),
    ] {
        let http = HttpAddress { address: address.map(str::to_owned), port: port.map(str::to_owned), tls: false };
        assert_eq!(http.url().as_deref(), url);
    }
}

#[test]
fn conditions_for_a_metadb() {
    let used = |storage: Value, others: Value| metadb(&with(storage, others)).used;
    let ext = |extensions: Value| used(json!({}), json!({"extensions": extensions}));
    let auth = |auth: Value| used(json!({}), json!({"http": {"auth": auth}}));
    assert!(!used(json!({}), json!({})));
    // Search and image trust, with the twist of vanishing empty maps.
    for on in [
        json!({"search": {"enable": true}}),
        json!({"search": {}}),
        json!({"search": null}),
        json!({"search": {"enable": null}}),
        json!({"Search": {"cve": {"updateInterval": "2h"}}}),
        json!({"trust": {"cosign": true}}),
        json!({"trust": {}}),
        json!({"search": {}, "ui": {}}),
    ] {
        assert!(ext(on.clone()), "{on}");
    }
    for off in [
        json!({}),
        json!({"search": {"enable": false}}),
        json!({"search": {"enable": "f"}}),
        json!({"search": {}, "ui": {"enable": true}}),
        json!({"search": null, "metrics": {"enable": true}}),
        json!({"trust": {"enable": 0}}),
        json!({"metrics": {}}),
    ] {
        assert!(!ext(off.clone()), "{off}");
    }
    // Logins.
    for on in [
        json!({"htpasswd": {"path": "/x"}}),
        json!({"ldap": {"port": 1}}),
        json!({"apikey": true}),
        json!({"openid": {"providers": {"github": {"clientid": "x"}}}}),
    ] {
        assert!(auth(on.clone()), "{on}");
    }
    for off in [
        json!({"htpasswd": {"path": ""}}),
        json!({"htpasswd": {}}),
        json!({"ldap": {}}),
        json!({"apikey": false}),
        json!({"openid": {}}),
        json!({"openid": {"providers": {}}}),
        json!({"bearer": {"realm": "x"}}),
        json!({"failDelay": 5}),
    ] {
        assert!(!auth(off.clone()), "{off}");
    }
    // Retention by statistics, in any store, whatever `gc` says.
    let policy = |policy: Value| json!({"gc": false, "retention": {"policies": [{}, policy]}});
    for on in [
        json!({"keepTags": [{"mostRecentlyPushedCount": 1}]}),
        json!({"keepTags": [{}, {"pulledWithin": "0s"}]}),
        json!({"keepTags": [{"pushedWithin": "1h"}]}),
        json!({"keepUntagged": {"mostRecentlyPulledCount": -1}}),
        json!({"keepUntagged": {"pulledWithin": "1h"}, "deleteUntagged": true}),
    ] {
        assert!(used(policy(on.clone()), json!({})), "{on}");
        assert!(used(json!({"subPaths": {"/a": policy(on.clone())}}), json!({})), "{on}");
    }
    for off in [
        json!({"keepTags": [{"patterns": ["x"]}]}),
        json!({"keepTags": [{"mostRecentlyPushedCount": 0}]}),
        json!({"keepUntagged": {}}),
        json!({"keepUntagged": {"pulledWithin": "1h"}, "deleteUntagged": false}),
    ] {
        assert!(!used(policy(off.clone()), json!({})), "{off}");
    }
    // Quota of the global store only.
    assert!(used(json!({"maxRepos": 1}), json!({})));
    assert!(!used(json!({"maxRepos": -1, "subPaths": {"/a": {"maxRepos": 1}}}), json!({})));
}

/// Storage spec §1.9, row by row.
#[test]
fn which_blob_cache() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = json!({"name": "s3", "region": "us-east-1", "bucket": "b", "rootdirectory": dir.path()});
    let redis = json!({"name": "redis", "url": "redis://:Secret@h:1"});
    let dynamodb = json!({"name": "dynamodb", "region": "r", "cacheTablename": "t"});
    let cache = |value: &Value| {
        let config = config(&json!({"storage": value}));
        let storage = storage(&config);
        BlobCacheChoice::of(&storage).to_string()
    };
    let local = |dedupe: bool, remote: bool, driver: &Value| {
        let mut storage = json!({"rootDirectory": "/r", "dedupe": dedupe, "remoteCache": remote});
        if !driver.is_null() {
            storage["cacheDriver"] = driver.clone();
        }
        storage
    };
    let object = |dedupe: bool, remote: bool, driver: &Value| {
        let mut storage = local(dedupe, remote, driver);
        storage["storageDriver"] = s3.clone();
        storage
    };
    let in_redis = "redis:redis://***@h:1";
    for remote in [false, true] {
        assert_eq!(cache(&local(false, remote, &redis)), "none");
    }
    assert_eq!(cache(&local(true, false, &redis)), "bolt:/r/cache.db");
    assert_eq!(cache(&local(true, true, &redis)), in_redis);
    assert_eq!(cache(&local(true, true, &Value::Null)), "none");
    for dedupe in [false, true] {
        for driver in [&redis, &dynamodb, &Value::Null] {
            assert_eq!(cache(&object(dedupe, false, driver)), "bolt:/r/cache.db");
        }
        assert_eq!(cache(&object(dedupe, true, &redis)), in_redis);
        assert_eq!(cache(&object(dedupe, true, &dynamodb)), "dynamodb:AWS (r), table t");
        assert_eq!(cache(&object(dedupe, true, &Value::Null)), "none");
        assert_eq!(cache(&object(dedupe, true, &json!({"name": "else"}))), "none");
    }

    // What is filled in: remote where deduplication is on, unless a cache of earlier days lies in the driver's root.
    let unset = json!({"rootDirectory": "/r", "dedupe": true, "storageDriver": s3, "cacheDriver": redis});
    assert_eq!(cache(&unset), in_redis);
    std::fs::write(dir.path().join("cache.db"), "").unwrap();
    assert_eq!(cache(&object(false, true, &redis)), "bolt:/r/cache.db");
    assert_eq!(cache(&object(true, true, &redis)), in_redis);

    let config = config(&json!({"storage": {"rootDirectory": "/r", "dedupe": false, "subPaths":
        {"/a": {"rootDirectory": "/a", "dedupe": true}, "/b": {"rootDirectory": "/b", "dedupe": false}}}}));
    let storage = storage(&config);
    let paths: Vec<String> = storage.stores().map(|(_, store)| BlobCacheChoice::of(store).to_string()).collect();
    assert_eq!(paths, ["none", "bolt:/a/cache.db", "none"]);
}

#[test]
fn which_metadb() {
    let choice = |storage: Value| {
        let metadb = metadb(&with(storage, json!({})));
        (metadb.choice.to_string(), metadb.notices.len())
    };
    let s3 = json!({"name": "s3"});
    for (storage, want, notices) in [
        (json!({}), "bolt:/r/meta.db", 0),
        (json!({"cacheDriver": {"name": "cache"}}), "bolt:/r/meta.db", 0),
        (json!({"cacheDriver": {"name": "redis"}}), "bolt:/r/meta.db", 1),
        (json!({"cacheDriver": {"name": "redb"}}), "redb:/r/meta.redb", 1),
        (json!({"storageDriver": s3, "dedupe": false, "cacheDriver": {"name": "redis"}}), "bolt:/r/meta.db", 1),
        (
            json!({"storageDriver": s3, "cacheDriver": {"name": "redis", "url": "redis://u:p@h"}}),
            "redis:redis://u:***@h",
            0,
        ),
        (json!({"remoteCache": true, "cacheDriver": {"name": "redis", "addr": ["a:1", "b:2"]}}), "redis:a:1 b:2", 0),
        (json!({"remoteCache": true, "cacheDriver": {"name": "redis"}}), "redis:127.0.0.1:6379", 0),
        (
            json!({"remoteCache": true, "cacheDriver": {"name": "dynamodb", "endpoint": "http://e", "region": "r", "versionTablename": "V"}}),
            "dynamodb:http://e (r), table V",
            0,
        ),
    ] {
        assert_eq!(choice(storage.clone()), (want.to_owned(), notices), "{storage}");
    }
    for invalid in [
        json!({"remoteCache": true}),
        json!({"remoteCache": true, "cacheDriver": {"name": "Redis"}}),
        json!({"remoteCache": true, "cacheDriver": {"name": "redb"}}),
        json!({"remoteCache": true, "cacheDriver": {"name": 5}}),
        json!({"storageDriver": s3}),
        // Only the global store's cache driver counts.
        json!({"remoteCache": true, "subPaths": {"/a": {"remoteCache": true, "cacheDriver": {"name": "redis"}}}}),
    ] {
        assert!(choice(invalid.clone()).0.starts_with("invalid:"), "{invalid}");
    }
}

#[test]
fn semantic_problems() {
    let problems = |storage_section: Value, others: Value| {
        let config = config(&with(storage_section, others));
        config.problems(&storage(&config))
    };
    let s3 = json!({"name": "s3"});
    let ok = json!({"storageDriver": s3, "dedupe": false});
    for (storage, others) in [
        (json!({}), json!({})),
        (ok.clone(), json!({"extensions": {"search": {"enable": true}}})),
        (
            json!({"subPaths": {"/a": {"rootDirectory": "/ra"}, "/b": {"rootDirectory": "/q", "gc": true}}}),
            json!({"log": {"level": "INFO"}}),
        ),
        (json!({"storageDriver": s3, "subPaths": {"/a": {"rootDirectory": "/r"}}}), json!({})),
    ] {
        let found = problems(storage.clone(), others.clone());
        let only_cache = found.iter().all(|text| text.contains("no remote database"));
        assert!(only_cache && found.len() <= 1, "{storage} {others}: {found:?}");
    }
    for (storage, others, part) in [
        (json!({"gcDelay": "-1s"}), json!({}), "gcDelay is negative"),
        (json!({"gcInterval": -1}), json!({}), "gcInterval is negative"),
        (
            json!({"subPaths": {"/a": {"rootDirectory": "/a", "gc": true, "gcDelay": "0s"}}}),
            json!({}),
            "must be above 0",
        ),
        (json!({"retention": {"policies": [{"repositories": ["[a"]}]}}), json!({}), "repository glob"),
        (json!({"retention": {"policies": [{"keepTags": [{"patterns": ["(a"]}]}]}}), json!({}), "tag pattern"),
        (json!({"subPaths": {"/a": {"rootDirectory": "/R"}}}), json!({}), "are the same"),
        (
            json!({"subPaths": {"/a": {"rootDirectory": "/r/x/../a"}, "/b": {"rootDirectory": "/z"}}}),
            json!({}),
            "are nested",
        ),
        (json!({"redirectBlobURL": true}), json!({}), "redirectBlobURL needs"),
        (json!({"storageDriver": {"name": "swift"}, "dedupe": false}), json!({}), "none of s3, gcs, azure"),
        (ok.clone(), json!({"extensions": {"sync": {"registries": [{}]}}}), "downloadDir"),
        (ok.clone(), json!({"extensions": {"search": {"cve": {"updateInterval": "2h"}}}}), "CVE"),
        (json!({}), json!({"extensions": {"search": {}, "ui": {"enable": true}}}), "needs extensions.search"),
        (json!({}), json!({"log": {"level": "loud"}}), "no log level"),
        (json!({"storageDriver": s3}), json!({}), "no remote database configured"),
        (
            json!({"remoteCache": true, "cacheDriver": {"name": "dynamodb"}}),
            json!({}),
            "cannot have local storage driver",
        ),
        (json!({"storageDriver": s3, "cacheDriver": {"name": "x"}}), json!({}), "unsupported database driver"),
        (
            json!({"subPaths": {"/a": {"rootDirectory": "/a", "remoteCache": true, "cacheDriver": {"name": "redis"}}}}),
            json!({}),
            "cannot have local storage driver",
        ),
        (
            json!({"maxRepos": 1, "remoteCache": true, "cacheDriver": {"name": "redis", "keyprefix": ""}}),
            json!({}),
            "keyprefix",
        ),
        (
            json!({"maxRepos": 1, "storageDriver": s3, "cacheDriver": {"name": "dynamodb", "endpoint": "e"}}),
            json!({}),
            "versiontablename",
        ),
    ] {
        let found = problems(storage.clone(), others.clone());
        assert!(found.iter().any(|text| text.contains(part)), "{part}: {found:?}");
    }
    let empty = config(&json!({"storage": {"gc": false}}));
    assert!(empty.problems(&storage(&empty)).iter().any(|text| text.contains("rootDirectory is empty")));
}

#[test]
fn log_levels() {
    let refused = |level: Value| {
        let config = config(&with(json!({}), json!({"log": {"level": level}})));
        !config.problems(&storage(&config)).is_empty()
    };
    for good in ["debug", "trace", "info", "warn", "warning", "Warning", "error", "fatal", "PANIC"] {
        assert!(!refused(json!(good)), "{good}");
    }
    for bad in [json!(""), json!("disabled"), json!("loud"), json!("1"), json!(1)] {
        assert!(refused(bad.clone()), "{bad}");
    }
    assert!(!refused(Value::Null));
}

#[test]
fn ports() {
    for (port, refused) in [
        (json!("5000"), false),
        (json!(0), false),
        (json!(""), false),
        (json!("65535"), false),
        (json!(65536), true),
        (json!("-1"), true),
        (json!("http"), true),
        (json!("50.5"), true),
    ] {
        let config = config(&with(json!({}), json!({"http": {"port": port}})));
        assert_eq!(!config.problems(&storage(&config)).is_empty(), refused, "{port}");
    }
}

#[test]
fn configs_may_be_as_deep_as_zot_allows() {
    let depth = tree::MAX_DEPTH - 3;
    let text = format!(
        "{{\"storage\":{{\"rootDirectory\":\"/r\",\"cacheDriver\":{{\"a\":{}{}}}}}}}",
        "[".repeat(depth),
        "]".repeat(depth)
    );
    let config = load(&file("config.json", text).path).unwrap();
    let storage = storage(&config);
    assert!(storage.text().expose().contains(&"[".repeat(depth)));
    assert!(storage.redacted_json().to_string().contains("nested too deep"));
    assert!(format!("{storage:?}{config:?}").len() < 10_000);
    drop((config.metadb(&storage), config.problems(&storage)));

    let maps = format!("{{\"storage\":{{\"cacheDriver\":{}5{}}}}}", "{\"k\":".repeat(3_000), "}".repeat(3_000));
    let config = load(&file("config.json", maps).path).unwrap();
    assert!(config.storage(FieldSet::NEWEST, &DedupeProbe::Works).unwrap().text().expose().len() > 15_000);
}

#[test]
fn delimiters_cannot_nest_without_bound() {
    let key = |depth: usize| format!("{{\"storage::cachedriver{}\":1}}", "::a".repeat(depth));
    assert!(matches!(error("config.json", key(1_000_000)).kind, ConfigErrorKind::Syntax { .. }));
    let config = load(&file("config.json", key(9_000)).path).unwrap();
    assert!(storage(&config).text().expose().contains("\"a\":{\"a\""));
}

/// Some way to put a value into a config so that it reaches every output.
fn planted(secret: &str, key: &str) -> Value {
    with(
        json!({
            "remoteCache": true,
            "storageDriver": {"name": "s3", "nested": [{"deep": {key: secret}}]},
            "cacheDriver": {"name": "redis", key: secret, "url": format!("redis://u:{secret}@h:1/0?password={secret}")},
            "subPaths": {"/a": {"rootDirectory": "/a", "storageDriver": {"name": "s3", key: [secret]}}},
        }),
        json!({"extensions": {"search": {}}}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn secrets_stay_inside(secret in "[A-Z]{12}[@:/?#&a-z]{0,4}", key in "(secretKey|accessKey|password|token|accountkey|connectionString)") {
        let config = config(&planted(&secret, &key));
        let storage = storage(&config);
        let metadb = config.metadb(&storage);
        let shown = format!(
            "{:?} {:?} {} {:?} {} {:?} {}",
            config, storage, storage.redacted_json(), metadb, metadb.choice, config.problems(&storage), storage.stores().count()
        );
        let hit = shown.contains(secret.get(..12).unwrap());
        prop_assert!(!hit, "{}", shown);
        prop_assert!(storage.text().expose().contains(secret.get(..12).unwrap()));
    }

    #[test]
    fn nothing_panics(data in prop::collection::vec(any::<u8>(), 0..200), name in "c(\\.(json|yaml|toml|x))?") {
        let file = file(&name, &data);
        if let Ok(config) = load(&file.path) {
            let _ = config.storage(FieldSet::NEWEST, &DedupeProbe::Works);
        }
    }

    #[test]
    fn nothing_panics_on_near_misses(text in "[\\[\\]{}:,\"'a-c0-9\\-+.&*<!|>?# \n~_]{0,60}", name in "c\\.(json|yaml|toml)") {
        let file = file(&name, format!("storage: {text}"));
        if let Ok(config) = load(&file.path) {
            let _ = config.storage(FieldSet::NEWEST, &DedupeProbe::Works);
        }
    }
}
