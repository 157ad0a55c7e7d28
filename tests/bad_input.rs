//! Whatever is wrong outside, the binary says what and what to do next, with the right exit code, and loses nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, OpenOptions, Tx, Writer};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::command::{BUILD, Sandbox, content, metactl, push, run, wait_for};

/// Two repos, walked.
fn walked() -> Sandbox {
    let sandbox = Sandbox::new(|root| {
        push(root, "bad", &["v1", "v2"], "b");
        push(root, "good", &["v1"], "g");
    });
    sandbox.walk();
    sandbox
}

fn edit(path: &Path, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    Writer::open(path, &OpenOptions::default()).unwrap().commit(&batch).unwrap();
}

fn config(sandbox: &Sandbox, text: &str) {
    fs::write(&sandbox.config, text).unwrap();
}

/// Something that no command can work with.
struct Bad {
    name: &'static str,
    spoil: fn(&Sandbox),
    args: &'static [&'static str],
    code: i32,
    /// The error object's reason.
    reason: &'static str,
    /// What the message names.
    names: &'static str,
}

const BAD: &[Bad] = &[
    Bad {
        name: "no config",
        spoil: |s| fs::remove_file(&s.config).unwrap(),
        args: &["walk"],
        code: 3,
        reason: "config",
        names: "config.json",
    },
    Bad {
        name: "the config is a directory",
        spoil: |s| {
            fs::remove_file(&s.config).unwrap();
            fs::create_dir(&s.config).unwrap();
        },
        args: &["stamp", "show"],
        code: 3,
        reason: "config",
        names: "config.json",
    },
    Bad {
        name: "empty config",
        spoil: |s| config(s, ""),
        args: &["walk"],
        code: 3,
        reason: "config",
        names: "config.json",
    },
    Bad {
        name: "torn config",
        spoil: |s| config(s, r#"{"storage": {"rootDirectory": "/x"#),
        args: &["config", "show"],
        code: 3,
        reason: "config",
        names: "config.json",
    },
    Bad {
        name: "wrong type",
        spoil: |s| s.configure(&json!({"gcInterval": {"a": 1}})),
        args: &["walk"],
        code: 3,
        reason: "config",
        names: "gcInterval",
    },
    Bad {
        name: "unknown key",
        spoil: |s| s.configure(&json!({"rootDirectoryy": "/x"})),
        args: &["walk"],
        code: 3,
        reason: "config",
        names: "rootdirectoryy",
    },
    Bad {
        name: "keys differing in case",
        spoil: |s| s.configure(&json!({"ROOTDIRECTORY": "/x"})),
        args: &["stamp", "write"],
        code: 3,
        reason: "config",
        names: "storage.rootDirectory: differs from another key only in case",
    },
    Bad {
        name: "a config that zot refuses later",
        spoil: |s| s.configure(&json!({"gcDelay": "2h", "gcInterval": "-1h"})),
        args: &["walk"],
        code: 3,
        reason: "config-refused",
        names: "zot would refuse to start",
    },
    Bad {
        name: "rootDirectory missing",
        spoil: |s| s.configure(&json!({"rootDirectory": "/nonexistent/registry"})),
        args: &["walk"],
        code: 3,
        reason: "root-directory",
        names: "/nonexistent/registry does not exist",
    },
    Bad {
        name: "rootDirectory is a file",
        spoil: |s| s.configure(&json!({"rootDirectory": s.config})),
        args: &["walk"],
        code: 3,
        reason: "root-directory",
        names: "is not a directory",
    },
    Bad {
        name: "rootDirectory empty, metaDB full",
        spoil: |s| ["good", "bad"].iter().for_each(|repo| fs::remove_dir_all(s.root.join(repo)).unwrap()),
        args: &["walk", "--force"],
        code: 3,
        reason: "max-delete",
        names: "2 would lose their records (bad, good)",
    },
    Bad {
        name: "a limit for deletions",
        spoil: |s| fs::remove_dir_all(s.root.join("good")).unwrap(),
        args: &["walk", "--force", "--max-delete", "0"],
        code: 3,
        reason: "max-delete",
        names: "1 would lose their records (good)",
    },
    Bad {
        name: "_blobstore",
        spoil: |s| fs::create_dir(s.root.join("_blobstore")).unwrap(),
        args: &["walk", "--force"],
        code: 3,
        reason: "storage-layout",
        names: "_blobstore",
    },
    Bad {
        name: "_blobstore before the first walk",
        spoil: |s| {
            fs::create_dir(s.root.join("_blobstore")).unwrap();
            fs::remove_file(s.meta()).unwrap();
        },
        args: &["walk"],
        code: 3,
        reason: "storage-layout",
        names: "_blobstore",
    },
    Bad {
        name: "a link to nowhere in the place of the root",
        spoil: |s| {
            fs::remove_dir_all(&s.root).unwrap();
            symlink("nowhere", &s.root).unwrap();
        },
        args: &["walk"],
        code: 3,
        reason: "root-directory",
        names: "registry does not exist",
    },
    Bad {
        name: "meta.db truncated",
        spoil: |s| {
            let file = fs::File::options().write(true).open(s.meta()).unwrap();
            file.set_len(2 * 4096 + 100).unwrap();
        },
        args: &["walk", "--force"],
        code: 2,
        reason: "damaged",
        names: "meta.db",
    },
    Bad {
        name: "meta.db cut short",
        spoil: |s| fs::write(s.meta(), [0; 100]).unwrap(),
        args: &["stamp", "show"],
        code: 2,
        reason: "damaged",
        names: "meta.db",
    },
    Bad {
        name: "meta.db is a directory",
        spoil: |s| {
            fs::remove_file(s.meta()).unwrap();
            fs::create_dir(s.meta()).unwrap();
        },
        args: &["walk"],
        code: 2,
        reason: "damaged",
        names: "meta.db",
    },
    Bad {
        name: "meta.db is a redb file",
        spoil: |s| {
            fs::remove_file(s.meta()).unwrap();
            drop(redb::Database::create(s.meta()).unwrap());
        },
        args: &["stamp", "clear"],
        code: 2,
        reason: "damaged",
        names: "meta.db",
    },
    Bad {
        name: "meta.db is an SQLite file",
        spoil: |s| {
            let mut file = b"SQLite format 3\0".to_vec();
            file.resize(8192, 0);
            fs::write(s.meta(), file).unwrap();
        },
        args: &["walk", "--force"],
        code: 2,
        reason: "damaged",
        names: "meta.db",
    },
    Bad {
        name: "a BoltDB file as redb",
        spoil: |s| fs::copy(s.meta(), s.root.join("meta.redb")).map(drop).unwrap(),
        args: &["walk", "--metadb", "redb:registry/meta.redb"],
        code: 2,
        reason: "damaged",
        names: "meta.redb",
    },
    Bad {
        name: "DBVersion unknown",
        spoil: |s| edit(&s.meta(), |batch| batch.put(&[b"Version"], b"DBVersion", b"V9").unwrap()),
        args: &["walk"],
        code: 2,
        reason: "version",
        names: "\"V9\"",
    },
    Bad {
        name: "DBVersion gone",
        spoil: |s| edit(&s.meta(), |batch| batch.delete(&[b"Version"], b"DBVersion").unwrap()),
        args: &["stamp", "clear"],
        code: 2,
        reason: "version",
        names: "meta.db",
    },
    Bad {
        name: "a stamp over records that lag behind",
        spoil: |s| drop(push(&s.root, "new", &["v1"], "n")),
        args: &["stamp", "write"],
        code: 1,
        reason: "drift",
        names: "repo-missing in new",
    },
    Bad {
        name: "no metaDB to stamp",
        spoil: |s| fs::remove_file(s.meta()).unwrap(),
        args: &["stamp", "write"],
        code: 3,
        reason: "metadb-absent",
        names: "meta.db",
    },
    Bad {
        name: "an address with a secret",
        spoil: |_| {},
        args: &["walk", "--metadb", "redis//:hunter2@host"],
        code: 3,
        reason: "usage",
        names: "--metadb",
    },
    Bad {
        name: "a broken glob",
        spoil: |_| {},
        args: &["walk", "--repo", "["],
        code: 3,
        reason: "usage",
        names: "--repo",
    },
    Bad {
        name: "a binary that is no zot",
        spoil: |_| {},
        args: &["stamp", "show", "--zot-binary", "/etc/passwd"],
        code: 3,
        reason: "identity",
        names: "/etc/passwd",
    },
    Bad {
        name: "no time at all",
        spoil: |_| {},
        args: &["walk", "--force", "--timeout", "0"],
        code: 3,
        reason: "timeout",
        names: "--timeout is over",
    },
];

/// Run in both formats; nothing on disk may differ afterwards.
fn refused(bad: &Bad) -> Result<(), String> {
    let sandbox = walked();
    (bad.spoil)(&sandbox);
    let before = content(sandbox.dir.path());
    let build: &[&str] = if bad.args.contains(&"--zot-binary") { &[] } else { &BUILD };
    let run = |more: &[&str]| {
        let mut command = metactl();
        command.current_dir(sandbox.dir.path()).args(["--config", "config.json"]).args(build);
        run(command.args(bad.args).args(more))
    };
    let (table, json) = (run(&[]), run(&["--format", "json"]));
    let fail = |what: &str| Err(format!("{}: {what}\n{table:?}\n{json:?}", bad.name));
    if (table.code, json.code) != (Some(bad.code), Some(bad.code)) {
        return fail("exit code");
    }
    if !table.stdout.is_empty() || !table.stderr.starts_with("error: ") && !table.stderr.contains("\nerror: ") {
        return fail("streams");
    }
    if !table.stderr.contains(bad.names) {
        return fail("the object is not named");
    }
    let Ok(document) = serde_json::from_str::<Value>(&json.stdout) else { return fail("not one JSON document") };
    let error = &document["error"];
    if document["schema_version"] != 1 || error["reason"] != bad.reason {
        return fail("reason");
    }
    if !error["message"].as_str().is_some_and(|text| text.contains(bad.names)) {
        return fail("message");
    }
    let Some(hint) = error["hint"].as_str() else { return fail("no next step") };
    if bad.reason != "usage" && !table.stderr.contains(&format!("hint: {hint}")) {
        return fail("the next step is not on stderr");
    }
    if table.stderr.contains("hunter2") || json.stdout.contains("hunter2") {
        return fail("a secret came out");
    }
    if content(sandbox.dir.path()) != before {
        return fail("something was changed");
    }
    Ok(())
}

#[test]
fn what_cannot_be_worked_with_is_refused_and_left_alone() {
    let problems: Vec<String> = BAD.iter().filter_map(|bad| refused(bad).err()).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

#[test]
fn consent_lets_records_go() {
    for consent in [&["--yes"][..], &["--max-delete", "2"], &["--max-delete", "100%"]] {
        let sandbox = walked();
        ["good", "bad"].iter().for_each(|repo| fs::remove_dir_all(sandbox.root.join(repo)).unwrap());
        let ran = sandbox.run(&[&["walk", "--force", "--format", "json"], consent].concat());
        assert_eq!((ran.code, &ran.json()["repos"]["deleted"]), (Some(0), &json!(2)), "{ran:?}");
    }
}

#[test]
fn a_held_lock_names_its_holder() {
    let sandbox = walked();
    let before = content(sandbox.dir.path());
    // --no-fork: flock becomes the program that it runs, and stays the holder.
    let mut holder = Command::new("flock").arg("--no-fork").arg(sandbox.meta()).args(["sleep", "600"]).spawn().unwrap();
    let locks = || fs::read_to_string("/proc/locks").unwrap_or_default();
    wait_for("the lock", || locks().contains(&format!(" {} ", holder.id())));
    for args in [&["walk", "--force"][..], &["stamp", "clear"], &["stamp", "write", "--force"]] {
        let ran = sandbox.run(&[args, &["--lock-timeout", "100ms", "--format", "json"]].concat());
        let error = &ran.json()["error"];
        assert_eq!((ran.code, &error["reason"]), (Some(3), &json!("locked")), "{ran:?}");
        assert!(error["message"].as_str().unwrap().contains(&format!("process {}", holder.id())), "{ran:?}");
        assert!(error["hint"].as_str().unwrap().contains("--lock-timeout"), "{ran:?}");
    }
    for args in [&["stamp", "show", "--check"][..], &["config", "show"], &["walk", "--dry-run"]] {
        assert_eq!(sandbox.run(args).code, Some(0), "reading needs no lock");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(content(sandbox.dir.path()), before);
}

/// How many problems a check of the whole file finds; `None` if it cannot even be opened.
fn problems(meta: &Path) -> Option<usize> {
    let check = |tx: &Tx<'_>| -> Result<usize, BoltError> { Ok(tx.check()?.problems.len()) };
    Database::open(meta).ok()?.snapshot(&Cancel::default(), check).ok()
}

/// Bytes all over the file, each turned in a file of its own. What is not noticed must not harm.
#[test]
fn a_damaged_metadb_never_panics_hangs_or_becomes_worse_unnoticed() {
    let sandbox = walked();
    let sound = fs::read(sandbox.meta()).unwrap();
    let (mut refused, mut passed) = (0, 0);
    let page_heads = (0..sound.len()).step_by(4096).flat_map(|page| [0, 8, 10, 12, 16, 20, 24, 32].map(|at| page + at));
    let elsewhere = (0..sound.len()).step_by(sound.len() / 60);
    for at in page_heads.chain(elsewhere).filter(|at| *at < sound.len()) {
        let mut bytes = sound.clone();
        bytes[at] ^= if at % 3 == 0 { 0xff } else { 0x01 };
        fs::write(sandbox.meta(), &bytes).unwrap();
        let was_sound = problems(&sandbox.meta()) == Some(0);
        for args in [&["stamp", "show"][..], &["walk", "--dry-run"], &["walk", "--force"]] {
            let ran = sandbox.run(&[args, &["--format", "json"]].concat());
            let document = ran.json();
            match ran.code {
                Some(0) => passed += 1,
                Some(2 | 3) if document["error"]["hint"].is_string() || document["result"] == "broken-off" => {
                    refused += 1
                }
                Some(1) => refused += 1,
                _ => panic!("byte {at}, {args:?}: {ran:?}"),
            }
        }
        if was_sound {
            assert_eq!(problems(&sandbox.meta()), Some(0), "byte {at}");
        }
    }
    assert!(refused > 30 && passed > 50, "{refused} refused, {passed} passed");
}
