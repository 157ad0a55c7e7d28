//! Where the binary runs is not always kind: hostile names, other people's files, full and read-only disks, output that
//! nobody takes, narrow terminals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, Database, OpenOptions, Writer};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::command::{BUILD, Ran, Sandbox, content, finish, push, run};
use support::driver::{Driver, check_bolt};
use support::store::blob_path;

/// Two repos, walked, and the digest of the manifest of `bad`.
fn walked_with_digest() -> (Sandbox, String) {
    let mut digest = String::new();
    let sandbox = Sandbox::new(|root| {
        digest = push(root, "bad", &["v1", "v2"], "b").0;
        push(root, "good", &["v1"], "g");
    });
    sandbox.walk();
    (sandbox, digest)
}

fn walked() -> Sandbox {
    walked_with_digest().0
}

fn edit(path: &Path, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    Writer::open(path, &OpenOptions::default()).unwrap().commit(&batch).unwrap();
}

const HOSTILE: &str = "x\x1b[31m\x1b]0;t\x07\r\n\u{202e}\u{9b}2J\u{200b}\x7f";

fn harmless(ran: &Ran) {
    let hostile = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}'..='\u{200f}' | '\u{2066}'..='\u{2069}')
    };
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(hostile), "{ran:?}");
        assert!(!text.contains("\n\u{fffd}"), "{ran:?}");
    }
}

#[test]
fn hostile_names_reach_no_terminal() {
    let sandbox = Sandbox::new(|root| {
        push(root, "good", &[HOSTILE, "v1"], HOSTILE);
        push(root, "gone", &["v1"], "g");
        push(root, "x\x1b[31m\n", &["v1"], "no repo has such a name");
        push(root, "bad", &["v1"], "b");
    });
    sandbox.walk();
    let text = fs::read_to_string(sandbox.root.join("bad/index.json")).unwrap();
    let digest = serde_json::to_string(HOSTILE).unwrap();
    fs::write(sandbox.root.join("bad/index.json"), text.replace("sha256:", digest.trim_matches('"'))).unwrap();
    // Names of repos in the metaDB are whatever somebody once wrote there.
    edit(&sandbox.meta(), |batch| {
        batch.put(&[b"RepoMeta"], HOSTILE.as_bytes(), b"").unwrap();
        batch.put(&[b"Version"], b"FastRestartStamp", format!("{HOSTILE}+{HOSTILE}|{HOSTILE}").into_bytes()).unwrap();
    });
    for format in ["table", "json"] {
        for args in [
            &["walk", "--dry-run", "-vv"][..],
            &["stamp", "show"],
            &["config", "show"],
            &["walk", "--max-delete", "0"],
            &["walk", "--force", "-vv", "--log-format", "json"],
            &["walk", "--force", "-vv", "--yes"],
            &["walk", "--repo", HOSTILE],
            &["walk", "--config", HOSTILE],
            &["walk", "--metadb", HOSTILE],
            &["walk", HOSTILE],
            &["walk", "--zot-binary", HOSTILE],
            &["stamp", "clear"],
        ] {
            harmless(&sandbox.run(&[args, &["--format", format]].concat()));
        }
    }
    for format in ["nagios", "prometheus"] {
        harmless(&sandbox.run(&["stamp", "show", "--format", format]));
    }
}

/// The binary as a user to whom file modes apply. A copy of it: its own directory may be out of that user's reach.
fn as_nobody(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let binary = sandbox.dir.path().join("metactl");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_metactl"), &binary).unwrap();
    }
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command
    } else {
        Command::new(&binary)
    };
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run(command.arg("--config").arg(&sandbox.config).args(BUILD).args(args).args(["--format", "json"]))
}

#[test]
fn what_may_not_be_read_is_named() {
    let lock = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    let check = |spoiled: &Path, sandbox: &Sandbox, args: &[&str], reason: &str| {
        lock(spoiled);
        let ran = as_nobody(sandbox, args);
        open(spoiled);
        let error = &ran.json()["error"];
        assert_eq!((ran.code, error["reason"].as_str()), (Some(3), Some(reason)), "{ran:?}");
        let name = spoiled.file_name().unwrap().to_str().unwrap();
        assert!(error["message"].as_str().unwrap().contains(name) && error["hint"].is_string(), "{ran:?}");
    };
    let (sandbox, digest) = walked_with_digest();
    check(&sandbox.config, &sandbox, &["walk"], "config");
    check(&sandbox.meta(), &sandbox, &["stamp", "show"], "metadb-io");
    check(&sandbox.meta(), &sandbox, &["walk"], "metadb-io");
    // Readable, not writable.
    fs::set_permissions(sandbox.meta(), PermissionsExt::from_mode(0o644)).unwrap();
    if rustix::process::geteuid().is_root() {
        let ran = as_nobody(&sandbox, &["walk", "--force"]);
        assert_eq!((ran.code, &ran.json()["error"]["reason"]), (Some(3), &json!("metadb-io")), "{ran:?}");
        assert!(ran.stdout.contains("run as the user that zot runs as"), "{ran:?}");
    }
    // An unreadable directory must never count as an empty one.
    fs::set_permissions(sandbox.meta(), PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(&sandbox.root, PermissionsExt::from_mode(0o777)).unwrap();
    check(&sandbox.root.join("bad"), &sandbox, &["walk", "--force"], "storage");
    lock(&blob_path(&sandbox.root, "bad", &digest));
    let ran = as_nobody(&sandbox, &["walk", "--force"]);
    let report = ran.json();
    assert_eq!((ran.code, &report["failed"][0]["repo"]), (Some(1), &json!("bad")), "{ran:?}");
    assert_eq!(report["failed"][0]["digest"], json!(digest));
    assert!(Driver::Bolt.dump(&sandbox.root).get("RepoMeta", "bad").is_some(), "its records stay");
}

/// Run a shell script with its own mounts, which end with it, and no network.
fn with_mounts(sandbox: &Sandbox, script: &str) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private", "sh", "-eu", "-c", script]);
    command.env("METACTL", env!("CARGO_BIN_EXE_metactl")).env("METACTL_CONFIG", &sandbox.config);
    command.env("METACTL_RELEASE_TAG", BUILD[1]).env("METACTL_COMMIT", BUILD[3]).env("METACTL_NO_STATE", "1");
    command.current_dir(sandbox.dir.path());
    run(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_full_disk_leaves_a_sound_unstamped_metadb() {
    // Room for the file, more and more of it taken by others: the walk runs into the end at different places.
    for (driver, file) in [("bolt", "meta.db"), ("redb", "meta.redb")] {
        let (mut failed, mut passed) = (0, 0);
        for spare_kib in [0, 8, 16, 32, 48, 64, 96, 128, 200, 400, 2000] {
            let sandbox = Sandbox::new(|root| {
                for n in 0..40 {
                    push(root, &format!("repo{n}"), &["v1", "v2"], &format!("{n} {}", "long ".repeat(400)));
                }
            });
            fs::create_dir(sandbox.dir.path().join("small")).unwrap();
            let script = format!(
                "mount -t tmpfs -o size=4m tmpfs small
                 export METACTL_METADB={driver}:small/{file}
                 $METACTL walk --repo repo1 >/dev/null
                 head -c $(( $(df -k --output=avail small | tail -1) * 1024 - {spare_kib} * 1024 )) /dev/zero >small/others
                 set +e
                 $METACTL walk --format json; echo $? >code; cp small/{file} after
                 rm small/others; $METACTL walk --format json >again; echo $? >code-again"
            );
            let ran = with_mounts(&sandbox, &script);
            let read = |name: &str| fs::read_to_string(sandbox.dir.path().join(name)).unwrap_or_default();
            let after = sandbox.dir.path().join("after");
            let at = |driver: Driver| {
                fs::copy(&after, sandbox.root.join(file)).unwrap();
                if matches!(driver, Driver::Redb) {
                    // Repairs what was not closed cleanly, as the next walk does.
                    drop(redb::Database::open(sandbox.root.join(file)).unwrap());
                }
                driver.dump(&sandbox.root)
            };
            let dump = if driver == "bolt" { at(Driver::Bolt) } else { at(Driver::Redb) };
            let stamped = dump.get("Version", "FastRestartStamp").is_some_and(|stamp| !stamp.is_empty());
            let repos = dump.bucket("RepoMeta").len();
            match read("code").trim() {
                "0" => {
                    passed += 1;
                    assert!(stamped && repos == 40, "{ran:?}");
                }
                "2" | "3" => {
                    failed += 1;
                    assert!(!stamped && repos < 40 || repos == 40, "{driver} {spare_kib} KiB: {repos} repos, {ran:?}");
                    let document = ran.json();
                    assert!(document["error"]["hint"].is_string() || document["result"] == "broken-off", "{ran:?}");
                    assert!(ran.stderr.contains("os error 28") || ran.stderr.contains("No space"), "{ran:?}");
                    assert!(ran.stderr.contains("hint: "), "{ran:?}");
                }
                other => panic!("{driver} {spare_kib} KiB: exit {other:?}: {ran:?}"),
            }
            if driver == "bolt" {
                let report = check_bolt(&Database::open(&sandbox.root.join(file)).unwrap());
                assert!(report.problems.is_empty(), "{report:?}");
            }
            assert_eq!(read("code-again").trim(), "0", "with room again: {ran:?} {}", read("again"));
        }
        assert!(failed >= 3 && passed >= 1, "{driver}: {failed} failed, {passed} passed");
    }
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_read_only_file_system_can_be_looked_at() {
    let sandbox = walked();
    let before = content(sandbox.dir.path());
    let run = |command: &str| {
        with_mounts(
            &sandbox,
            &format!("mount --bind . .; mount -o remount,ro,bind .; cd $PWD; $METACTL --format json {command}"),
        )
    };
    for command in ["stamp show --check", "walk --dry-run", "config show"] {
        let ran = run(command);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    for command in ["walk --force", "stamp clear", "stamp write"] {
        let ran = run(command);
        let error = &ran.json()["error"];
        assert_eq!((ran.code, &error["reason"]), (Some(3), &json!("metadb-io")), "{ran:?}");
        assert!(error["hint"].as_str().unwrap().contains("remount"), "{ran:?}");
    }
    assert_eq!(content(sandbox.dir.path()), before);
}

/// What docs/hardening.md asks of the system: no rights, no capabilities, no network, and nothing writable but the places of
/// metaDB and state file.
#[test]
#[ignore = "mounts file systems: needs root"]
fn no_rights_are_needed_but_to_read_storage_and_write_the_metadb() {
    let sandbox = walked();
    fs::copy(env!("CARGO_BIN_EXE_metactl"), sandbox.dir.path().join("metactl")).unwrap();
    let script = |command: &str| {
        format!(
            "mount --bind . .; mount -o remount,ro,bind .; cd $PWD
             mount -t tmpfs -o mode=700,uid=65534 tmpfs own
             unset METACTL_NO_STATE; export METACTL_STATE=own/state.redb
             bare() {{ setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
                       ./metactl \"$@\"; }}
             {command}"
        )
    };
    fs::create_dir(sandbox.dir.path().join("own")).unwrap();
    let before = content(&sandbox.root);
    for driver in ["bolt:own/meta.db", "redb:own/meta.redb"] {
        let ran = with_mounts(
            &sandbox,
            &script(&format!(
                "export METACTL_METADB={driver}
                 bare walk && bare walk --force && bare stamp show --check && bare verify --deep && bare verify --deep
                 bare stamp clear && bare stamp write
                 test -s own/state.redb"
            )),
        );
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    assert_eq!(content(&sandbox.root), before);
}

/// Runs its arguments where a change of niceness ends the process, as under systemd's `SystemCallFilter=~@resources`.
const FILTERED: &str = r#"
import ctypes, os, platform, struct, sys
load, equal, answer, kill, allow = 0x20, 0x15, 0x06, 0x80000000, 0x7FFF0000
setpriority = {"x86_64": 141, "aarch64": 140}[platform.machine()]
lines = [(load, 0, 0, 0), (equal, 0, 1, setpriority), (answer, 0, 0, kill), (answer, 0, 0, allow)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(SECCOMP, FILTER, struct.pack("HP", len(lines), ctypes.addressof(code))) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
#[ignore = "needs Python: run tests/run"]
fn a_filter_that_forbids_to_be_nicer_ends_no_walk() {
    let sandbox = walked();
    let filtered = |line: &str| shell(&sandbox, &format!("exec python3 -c '{FILTERED}' {line}"));
    assert_eq!(filtered("nice true").code, None, "the filter has no effect");
    for (driver, file) in [("bolt", "meta.db"), ("redb", "meta.redb")] {
        let metadb = sandbox.root.join(file);
        let ran = filtered(&format!("$METACTL walk --force --metadb {driver}:{}", metadb.display()));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

/// A shell line with `$METACTL` in it.
fn shell(sandbox: &Sandbox, line: &str) -> Ran {
    let mut command = Command::new("bash");
    command.args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin").env("METACTL", env!("CARGO_BIN_EXE_metactl"));
    command.env("METACTL_CONFIG", &sandbox.config).env("METACTL_RELEASE_TAG", BUILD[1]).env("METACTL_COMMIT", BUILD[3]);
    command.env("METACTL_NO_STATE", "1");
    run(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

#[test]
fn output_that_nobody_takes_changes_no_result() {
    for line in [
        "$METACTL walk --force >&-",
        "$METACTL walk --force 2>&-",
        "$METACTL walk --force >&- 2>&- <&-",
        "set -o pipefail; $METACTL walk --force --format json | head -c 0",
        "set -o pipefail; { sleep 0.1; $METACTL config show; } | true",
        "set -o pipefail; $METACTL walk --force -vv 2>&1 >/dev/null | head -c 0",
    ] {
        let sandbox = walked();
        let ran = shell(&sandbox, line);
        assert_eq!((ran.code, ran.stderr.contains("rror")), (Some(0), false), "{line}: {ran:?}");
        assert_eq!(sandbox.run(&["stamp", "show", "--check"]).code, Some(0));
    }
    // A result that is lost is another matter: the caller has an empty file.
    let ran = shell(&walked(), "$METACTL walk --force --format json >/dev/full");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("cannot write the result"), "{ran:?}");
    assert_eq!(shell(&walked(), "$METACTL walk --force 2>/dev/full").code, Some(0));
}

/// On a terminal that is 40 columns wide, by util-linux' `script`.
#[test]
fn a_narrow_terminal_shows_everything() {
    let sandbox = walked();
    fs::write(sandbox.root.join("bad/index.json"), "").unwrap();
    let on_terminal =
        |command: &str| shell(&sandbox, &format!("script -qefc 'stty cols 40; exec $METACTL {command}' /dev/null"));
    for command in ["walk", "stamp show", "config show", "walk --dry-run --force", "--help"] {
        let ran = on_terminal(command);
        assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    }
    let ran = on_terminal("stamp show --color never --release-tag v2.1.18");
    let fingerprint =
        |line: &&str| line.len() > 60 && line.trim_end().chars().rev().take(64).all(|c| c.is_ascii_hexdigit());
    assert!(ran.stdout.lines().any(|line| fingerprint(&line)) || ran.stdout.contains("absent"), "{ran:?}");
    assert!(!ran.stdout.contains('\x1b'), "{ran:?}");
}

#[test]
fn colour_follows_the_terminal_and_the_options() {
    let sandbox = walked();
    let coloured = |before: &str, after: &str| {
        let line = format!("script -qefc '{before} $METACTL stamp show {after}' /dev/null");
        shell(&sandbox, &line).stdout.contains('\x1b')
    };
    assert!(coloured("", ""));
    assert!(!coloured("NO_COLOR=1", ""));
    assert!(coloured("NO_COLOR=1", "--color always"));
    assert!(!coloured("", "--color never"));
    assert!(!coloured("METACTL_COLOR=never", ""));
    assert!(!coloured("TERM=dumb", ""));
    assert!(!sandbox.run(&["stamp", "show"]).stdout.contains('\x1b'), "no terminal");
    assert!(sandbox.run(&["stamp", "show", "--color", "always"]).stdout.contains('\x1b'));
}

#[test]
fn no_home_is_no_problem() {
    let sandbox = walked();
    // Commands here never have HOME; a wrong one must not matter either.
    for command in [&["walk", "--force"][..], &["stamp", "show"], &["config", "show"]] {
        let ran = finish(sandbox.command(command).env("HOME", "/nonexistent").spawn().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(sandbox.run(command).code, Some(0));
    }
}

#[test]
fn an_interrupted_question_deletes_nothing() {
    let sandbox = walked();
    ["good", "bad"].iter().for_each(|repo| fs::remove_dir_all(sandbox.root.join(repo)).unwrap());
    let before = content(sandbox.dir.path());
    let ask = |input: &str| {
        let line = format!("(sleep 0.7; {input}; sleep 0.5) | script -qefc 'exec $METACTL walk --force' /dev/null");
        shell(&sandbox, &line)
    };
    let ran = ask("printf '\\003'");
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stdout.contains("Delete them? [y/N]"), "{ran:?}");
    assert_eq!(ask("echo n").code, Some(3));
    assert_eq!(content(sandbox.dir.path()), before);
    assert_eq!(ask("echo y").code, Some(0));
    let cancel = Cancel::default();
    assert!(metactl::metadb::Place::Bolt(sandbox.meta()).open(&cancel).unwrap().repo_names().unwrap().is_empty());
}
