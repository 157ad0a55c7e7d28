//! Nothing is written: not a byte, not a time, and no permission to write is needed.

use super::run::{DEPTHS, Options, verify_stores};
use super::support::driver::{Driver, prefix};
use super::support::dynamodb::Server;
use super::support::proxy::{Fate, Proxy, Reply};
use super::support::setups;
use super::support::store::{Repo, sha256};
use super::world::{World, descriptor, image};
use metactl::storage::routing::{StoreKind, StoreSpec, Stores};
use metactl::verify::Depth;
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

/// Path → content hash, size, modification and change time of everything below `root`.
pub fn everything(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let hash = if stat.is_file() { sha256(&std::fs::read(&path).unwrap()) } else { String::new() };
        if stat.is_dir() {
            queue.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
        out.insert(path, format!("{} {hash} {times:?}", stat.size()));
    }
    out
}

#[test]
fn storage_and_metadb_stay_as_they_are_byte_by_byte() {
    for driver in Driver::BOTH {
        let world = World::new(driver);
        std::fs::remove_file(world.blob(&world.digests.v2)).unwrap();
        world.meta("alpine", |meta| drop(meta.tags.remove("v1")));
        let before = everything(&world.root());
        for flag in ["--quick", "-v", "--deep"] {
            let output = world.metactl(&["verify", flag, "--metrics-file", "metrics.prom"]);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
        }
        assert_eq!(everything(&world.root()), before, "{driver:?}");
        assert!(std::fs::read_to_string(world.dir.path().join("metrics.prom")).unwrap().contains("id=\"tag-missing\""));
    }
}

/// Root may write whatever the modes say; so, as root, a child gives up its rights first. Without root the modes alone
/// must do.
pub fn without_rights(world: &World<'_>, arguments: &[&str]) -> std::process::Output {
    const NOBODY: u32 = 65534;
    chmod(world.dir.path(), 0o555);
    // The binary may live where nobody else can go.
    let binary = world.dir.path().with_extension("metactl");
    std::fs::copy(env!("CARGO_BIN_EXE_metactl"), &binary).unwrap();
    let mut command = std::process::Command::new(&binary);
    command.current_dir(&world.dir).env_clear().args(["--config", "config.json"]).args(arguments);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
        let mut probe = std::process::Command::new("/bin/sh");
        probe.current_dir(&world.dir).uid(NOBODY).gid(NOBODY).args(["-c", "! test -w . && ! (: > probe)"]);
        assert!(probe.stderr(std::process::Stdio::null()).status().unwrap().success(), "the child can write");
    }
    let output = command.output().unwrap();
    std::fs::remove_file(&binary).unwrap();
    chmod(world.dir.path(), 0o755);
    output
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn no_permission_to_write_is_needed() {
    for driver in Driver::BOTH {
        let world = World::new(driver);
        for path in everything(world.dir.path()).keys() {
            chmod(path, if path.is_dir() { 0o555 } else { 0o444 });
        }
        let output = without_rights(&world, &["--no-state", "verify", "--deep"]);
        for path in everything(world.dir.path()).keys() {
            chmod(path, if path.is_dir() { 0o755 } else { 0o644 });
        }
        assert_eq!(output.status.code(), Some(0), "{driver:?} {output:?}");
    }
}

/// The rights that the README calls enough for reading.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn rights_to_read_are_enough_in_redis() {
    let setup = setups::on(setups::acl(&setups::READING, "tmp"));
    let world = World::new(Driver::Redis(&setup));
    let mut storage = json!({});
    world.driver.configure(&world.root(), &mut storage);
    let (port, prefix) = (setup.servers[0].port, storage["cacheDriver"]["keyprefix"].as_str().unwrap());
    let reader = format!("redis://zot:zot-Secret@127.0.0.1:{port}?keyprefix={prefix}");
    let before = world.raw();
    for flag in ["--quick", "-v", "--deep"] {
        let output = world.metactl(&["--metadb", &reader, "verify", flag]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(world.metactl(&["--metadb", &reader, "walk", "--force"]).status.code(), Some(3));
    assert_eq!(world.raw(), before);
}

/// The actions that the README's policy for reading allows.
#[test]
fn rights_to_read_are_enough_in_dynamodb() {
    let server = Server::start();
    let world = World::new(Driver::DynamoDb(&server));
    let proxy = Proxy::start(server.port);
    proxy.rule(|request| {
        let reads = ["DescribeTable", "GetItem", "BatchGetItem", "Scan"];
        let allowed = request.operation.as_deref().is_some_and(|operation| reads.contains(&operation));
        let denied = Reply::new(400, r#"{"__type":"x#AccessDeniedException","message":"no"}"#);
        (!allowed).then(|| Fate::Reply(denied.with("content-type", "application/x-amz-json-1.0")))
    });
    let through = super::support::dynamodb::url(proxy.port, &prefix("", &world.root()));
    let before = world.raw();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&world.dir).env_clear().args([
            "--config",
            "config.json",
            "--no-state",
            "--metadb",
            &through,
        ]);
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "aws-Secret");
        command.args(["--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d"]).args(arguments).output().unwrap()
    };
    for flag in ["--quick", "-v", "--deep"] {
        let output = run(&["verify", flag]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(run(&["walk", "--force"]).status.code(), Some(3));
    assert_eq!(world.raw(), before);
}

#[test]
fn verify_works_while_another_process_holds_the_lock() {
    let world = World::new(Driver::Bolt);
    let place = world.driver.place(&world.root());
    let held = place.open_writer(
        metactl::metadb::WriteToken::for_writing_command(),
        std::time::Duration::from_secs(5),
        &metactl::cancel::Cancel::default(),
    );
    let held = held.unwrap();
    for flag in ["--quick", "-v", "--deep"] {
        let output = world.metactl(&["verify", flag]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    drop(held);
}

#[test]
fn repos_in_the_wrong_store_are_unroutable() {
    for driver in Driver::BOTH {
        let world = World::new(driver);
        let sub = world.dir.path().join("sub");
        let mut stray = Repo::new(&sub, "other/app", 1_704_067_200_000_000_000);
        let (digest, _) = image(&mut stray, "stray", "amd64", 3);
        stray.index(&[descriptor("application/vnd.oci.image.manifest.v1+json", &digest, Some("a"))]);
        let local = |route: Option<&str>, root: &Path| StoreSpec {
            route: route.map(str::to_owned),
            kind: StoreKind::Local { root: root.to_owned() },
            cache: None,
        };
        let stores = Stores::open(&[local(None, &world.root()), local(Some("/sub"), &sub)]).unwrap();
        for depth in DEPTHS {
            let report =
                verify_stores(driver, &world.root(), &stores, Options { expected: &world.stamp, ..Options::at(depth) });
            let ids: Vec<&str> = report.findings.iter().map(|found| found.id.text()).collect();
            assert_eq!(ids, ["repo-unroutable"], "{report:?}");
            assert_eq!(report.findings[0].repo.as_deref(), Some("other/app"));
        }
    }
}

#[test]
fn an_unused_metadb_is_mentioned() {
    let mut world = World::new(Driver::Bolt);
    world.options.metadb_used = false;
    let report = world.verify(Depth::Quick);
    let ids: Vec<&str> = report.findings.iter().map(|found| found.id.text()).collect();
    assert_eq!(ids, ["metadb-unused"]);
    world.write_config();
    let output = world.metactl(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_cannot_be_looked_at_is_unknown() {
    let world = World::new(Driver::Bolt);
    std::fs::write(world.root().join("meta.db"), b"not a metaDB at all").unwrap();
    let code = |output: std::process::Output| output.status.code();
    assert_eq!(code(world.metactl(&["verify"])), Some(2), "a damaged metaDB");
    std::fs::remove_file(world.root().join("meta.db")).unwrap();
    assert_eq!(code(world.metactl(&["verify"])), Some(3), "no metaDB");
    std::fs::remove_dir_all(world.root()).unwrap();
    assert_eq!(code(world.metactl(&["verify"])), Some(3), "no root");
    std::fs::write(world.dir.path().join("config.json"), "{").unwrap();
    assert_eq!(code(world.metactl(&["verify"])), Some(3), "no config");
    assert_eq!(code(world.metactl(&["verify", "--quick", "--deep"])), Some(3), "usage");
}
