//! The state file: one that cannot be used costs a warning and is not harmed, none holds a secret, and it remembers configs.

use super::readonly::{chmod, without_rights};
use super::support::driver::Driver;
use super::world::World;
use metactl::state::{State, StateError};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A healthy registry and a state file for it.
struct Scene {
    world: World<'static>,
    file: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(Driver::Bolt);
        let file = world.dir.path().join("state.redb");
        Self { world, file }
    }

    /// Run a command with the state file.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&self.world.dir).env_clear().args(["--config", "config.json", "--state", "state.redb"]);
        command.args(["--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d"]).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Verify, which must succeed. What it warns of.
    fn verify(&self) -> String {
        let (code, told, warned) = self.run(&["verify"]);
        assert!(code == Some(0) && told.starts_with("no findings in 3 repos"), "{code:?} {told} {warned}");
        warned
    }

    /// How many repos the next run need not look at.
    fn unchanged(&self) -> u64 {
        let (_, told, warned) = self.run(&["verify", "--format", "json"]);
        assert_eq!(warned, "");
        serde_json::from_str::<Value>(&told).unwrap()["repos"]["unchanged"].as_u64().unwrap()
    }

    fn aside(&self) -> PathBuf {
        self.file.with_extension("redb.damaged")
    }

    /// Whatever is there warns of itself and is not touched.
    fn is_left_alone(&self, what: &str, warning: &str) {
        let before = std::fs::read(&self.file).unwrap_or_default();
        let warned = self.verify();
        assert!(warned.starts_with("warning: going on without what earlier runs remember: "), "{what}: {warned}");
        assert!(warned.contains(warning) && warned.lines().count() == 1, "{what}: {warned}");
        assert_eq!(std::fs::read(&self.file).unwrap_or_default(), before, "{what}");
        assert!(!self.aside().exists(), "{what}");
    }
}

#[test]
fn a_damaged_file_is_moved_aside_and_the_next_run_starts_anew() {
    let scene = Scene::new();
    assert_eq!(scene.verify(), "");
    assert_eq!(scene.unchanged(), 3);
    let good = std::fs::read(&scene.file).unwrap();
    let header = [&good[..9], &[0x55; 291], &good[300..]].concat();
    // All that comes after the header: what is wrong shows when it is used.
    let pages = [&good[..4096], &vec![0xa5; good.len() - 4096]].concat();
    for (name, bytes) in [("cut", &good[..good.len() / 3]), ("header", &header), ("pages", &pages)] {
        std::fs::write(&scene.file, bytes).unwrap();
        let warned = scene.verify();
        assert!(warned.contains("is damaged") && warned.contains("it is now state.redb.damaged"), "{name}: {warned}");
        if name != "pages" {
            assert_eq!(std::fs::read(scene.aside()).unwrap(), *bytes, "{name}");
        }
        std::fs::remove_file(scene.aside()).unwrap();
        assert_eq!(scene.verify(), "", "{name}");
        assert_eq!(scene.unchanged(), 3, "{name}");
    }
}

/// Five bytes of the file differ from what metactl wrote: when redb closes it, it panics, and again on its way out of that.
#[test]
fn a_file_that_redb_does_not_survive_ends_with_a_word_and_a_code() {
    let scene = Scene::new();
    let mut bytes = Vec::new();
    let packed = &include_bytes!("../fixtures/state/panics-while-it-unwinds.redb.gz")[..];
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    std::fs::write(&scene.file, bytes).unwrap();
    let (code, told, warned) = scene.run(&["verify"]);
    assert!(told.starts_with("no findings in 3 repos"), "{told}");
    assert_eq!(code, Some(2), "{warned}");
    let lines: Vec<&str> = warned.lines().collect();
    assert!(lines[0].starts_with("error: the metaDB or the state file") && lines[1].starts_with("hint: "), "{warned}");
    assert_eq!(lines.len(), 2, "{warned}");
}

/// A redb file with one row, as another program might have it.
fn other_redb(path: &Path, table: &str, key: &str, value: &[u8]) {
    let _ = std::fs::remove_file(path);
    let transaction = redb::Database::create(path).unwrap().begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<&str, &[u8]>::new(table)).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn files_of_others_are_left_alone() {
    let scene = Scene::new();
    let foreign = "is not a state file; it is left alone";
    for text in ["important text, not ours", "redb is a database", "r"] {
        std::fs::write(&scene.file, text).unwrap();
        scene.is_left_alone(text, foreign);
    }
    other_redb(&scene.file, "Version", "DBVersion", b"V1");
    scene.is_left_alone("a metaDB", foreign);
    other_redb(&scene.file, "about", "format", b"something else");
    scene.is_left_alone("another program's", foreign);
    other_redb(&scene.file, "about", "format", b"metactl state 2");
    scene.is_left_alone("a later version", "is of another version of metactl; it is left alone");
    std::fs::remove_file(&scene.file).unwrap();
    let file = rustix::fs::CWD;
    rustix::fs::mknodat(file, &scene.file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let warned = scene.verify();
    assert!(warned.contains(foreign), "a pipe: {warned}");
    std::fs::remove_file(&scene.file).unwrap();
    std::fs::create_dir(&scene.file).unwrap();
    scene.is_left_alone("a directory", foreign);
}

#[test]
fn a_file_in_use_is_left_alone() {
    let scene = Scene::new();
    assert_eq!(scene.verify(), "");
    let held = State::open(&scene.file, "x").unwrap();
    assert!(matches!(State::open(&scene.file, "x"), Err(StateError::Locked { .. })));
    scene.is_left_alone("locked", "state.redb is in use");
    drop(held);
    assert_eq!(scene.unchanged(), 3);
}

/// A run that was killed leaves a file that must be repaired; that is no damage.
#[test]
fn a_file_that_was_not_closed_is_repaired() {
    let scene = Scene::new();
    assert_eq!(scene.verify(), "");
    let held = State::open(&scene.file, "x").unwrap();
    held.remember_generation(7).unwrap();
    let unclean = std::fs::read(&scene.file).unwrap();
    drop(held);
    std::fs::write(&scene.file, unclean).unwrap();
    assert!(redb::ReadOnlyDatabase::open(&scene.file).is_err());
    assert_eq!(scene.unchanged(), 3);
}

#[test]
fn a_place_that_cannot_be_written_costs_a_warning() {
    let scene = Scene::new();
    chmod(&scene.world.root().join("meta.db"), 0o644);
    let run = |state: &str| {
        let output = without_rights(&scene.world, &["--state", state, "verify"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for state in ["state.redb", "new/state.redb"] {
        let warned = run(state);
        assert!(warned.contains(&format!("state file {state} cannot be used")), "{warned}");
        assert!(warned.contains("Permission denied") && !scene.file.exists(), "{warned}");
    }
    // A file that may only be read.
    assert_eq!(scene.verify(), "");
    chmod(&scene.file, 0o444);
    let before = std::fs::read(&scene.file).unwrap();
    let warned = run("state.redb");
    assert!(warned.contains("cannot be used") && warned.contains("Permission denied"), "{warned}");
    assert_eq!(std::fs::read(&scene.file).unwrap(), before);
}

/// The state file keeps configs for years, perhaps in backups that are less well kept than the config.
#[test]
fn no_secret_gets_into_a_state_file() {
    let scene = Scene::new();
    // Some with what JSON escapes, or URLs do.
    let secrets = [
        "s3AccessKeyAKIA17",
        "s3Secret+/\"key\\",
        "s3SessionToken99",
        "azureAccountKey+/==",
        "azureClientSecret~x",
        "azureUrlPassword1",
        "redisPassword1",
        "sentinelPassword2",
        "urlPassword3",
    ];
    let [access, secret, session, account, client, service, redis, sentinel, url] = secrets;
    let path = scene.world.dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let storage = &mut config["storage"];
    storage["cacheDriver"] = json!({
        "name": "redis", "url": format!("redis://zot:{url}@127.0.0.1:1/0"), "password": redis,
        "sentinel_password": sentinel,
    });
    storage["remoteCache"] = json!(true);
    storage["subPaths"] = json!({
        "/s3": {"rootDirectory": "s3", "storageDriver": {
            "name": "s3", "bucket": "b", "region": "eu-west-1", "accesskey": access, "secretkey": secret,
            "sessiontoken": session,
        }},
        "/azure": {"rootDirectory": "azure", "storageDriver": {
            "name": "azure", "container": "c", "accountname": "a", "accountkey": account,
            "credentials": {"type": "client_secret", "tenantid": "t", "clientid": "i", "secret": client},
            "serviceurl": format!("https://user:{service}@a.blob.core.windows.net/"),
        }},
        "/gcs": {"rootDirectory": "gcs", "storageDriver": {
            "name": "gcs", "bucket": "b", "keyfile": "/etc/zot/gcs.json",
        }},
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let metadb = scene.world.root().join("meta.db");
    let metadb = format!("bolt:{}", metadb.display());
    // Under one config, and under another one that differs in a secret alone.
    let (code, _, warned) = scene.run(&["--metadb", &metadb, "stamp", "write", "--force"]);
    assert_eq!(code, Some(0), "{warned}");
    std::fs::write(&path, config.to_string().replace(redis, "redisPassword1changed")).unwrap();
    let (_, shown, _) = scene.run(&["--metadb", &metadb, "stamp", "show"]);
    assert!(shown.contains("a secret, or what this version"), "{shown}");
    assert_eq!(scene.run(&["--metadb", &metadb, "stamp", "write", "--force"]).0, Some(0));

    let bytes = std::fs::read(&scene.file).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    // The configs are there, so that their secrets would be.
    assert!(holds("eu-west-1") && holds("sentinel_password") && holds("***"));
    use base64::Engine as _;
    for secret in secrets {
        let (json, base64) = (json!(secret).to_string(), base64::engine::general_purpose::STANDARD.encode(secret));
        for form in [secret, json.trim_matches('"'), base64.trim_end_matches('=')] {
            assert!(!holds(form) && !shown.contains(form), "{form}");
        }
    }
}

#[test]
fn stamp_show_names_the_keys_that_changed() {
    let world = World::new(Driver::Bolt);
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&world.dir).env_clear().args(["--config", "config.json", "--release-tag", "v2.1.20"]);
        command.args(["--commit", "v2.1.20-0-g3b5796d", "--state", "state.redb"]).args(args);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["walk", "--force"]).0, Some(0));
    let path = world.dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"storage\":{", "\"storage\":{\"gcDelay\":\"3h\",\"maxRepos\":9,", 1))
        .unwrap();
    let (code, shown) = run(&["stamp", "show", "--check"]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("storage.gcDelay") && shown.contains("storage.maxRepos"), "{shown}");
    assert!(!shown.contains("storage.dedupe"), "{shown}");
    let (_, json) = run(&["stamp", "show", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<&str> =
        json["changed_keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    // The default of the third follows the first.
    assert_eq!(keys, ["storage.gcDelay", "storage.maxRepos", "storage.retention.delay"]);
    assert_eq!(json["changed_keys"][1]["now"], 9);
    // Current again, nothing to name.
    assert_eq!(run(&["stamp", "write"]).0, Some(0));
    let (code, shown) = run(&["stamp", "show", "--check"]);
    assert_eq!(code, Some(0));
    assert!(!shown.contains("changed"), "{shown}");
}
