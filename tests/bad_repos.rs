//! A repo or its records are broken: the walk says which and how, records the others and leaves no stamp.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::metadb::bolt::{Batch, OpenOptions, Writer};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use support::command::{Sandbox, content, push};
use support::driver::Driver;
use support::store::blob_path;

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

/// Something wrong with one repo or record: the others are recorded, the stamp goes.
struct Broken {
    name: &'static str,
    spoil: fn(&Sandbox),
    /// `failed`, `partial`, or nothing: the walk is complete.
    list: &'static str,
    reason: &'static str,
}

fn index(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.root.join("bad/index.json")
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
}

/// Digests of the manifest and the config of `bad`.
fn digests() -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    push(dir.path(), "bad", &["v1", "v2"], "b")
}

fn manifest(sandbox: &Sandbox) -> std::path::PathBuf {
    blob_path(&sandbox.root, "bad", &digests().0)
}

fn image_config(sandbox: &Sandbox) -> std::path::PathBuf {
    blob_path(&sandbox.root, "bad", &digests().1)
}

fn replace(path: &Path, with: impl FnOnce(&Path)) {
    fs::remove_file(path).unwrap();
    with(path);
}

const BROKEN: &[Broken] = &[
    Broken { name: "empty index", spoil: |s| fs::write(index(s), "").unwrap(), list: "failed", reason: "index.json" },
    Broken {
        name: "torn index",
        spoil: |s| {
            let text = fs::read(index(s)).unwrap();
            fs::write(index(s), &text[..text.len() / 2]).unwrap();
        },
        list: "failed",
        reason: "index.json",
    },
    Broken {
        name: "huge index",
        spoil: |s| fs::File::create(index(s)).unwrap().set_len(300 << 20).unwrap(),
        list: "failed",
        reason: "larger than",
    },
    Broken {
        name: "10,000 levels",
        spoil: |s| fs::write(index(s), format!(r#"{{"manifests":{}"#, "[".repeat(10_000))).unwrap(),
        list: "failed",
        reason: "index.json",
    },
    Broken {
        name: "10,001 levels, closed, where nobody looks",
        spoil: |s| {
            let deep = format!("{}{}", "[".repeat(10_001), "]".repeat(10_001));
            fs::write(index(s), format!(r#"{{"x":{deep},"manifests":[]}}"#)).unwrap();
        },
        list: "failed",
        reason: "index.json",
    },
    Broken { name: "the index is a pipe", spoil: |s| fifo(&index(s)), list: "failed", reason: "not a regular file" },
    Broken {
        name: "the index is a directory",
        spoil: |s| replace(&index(s), |path| fs::create_dir(path).unwrap()),
        list: "failed",
        reason: "index.json",
    },
    Broken {
        name: "no manifest",
        spoil: |s| fs::remove_file(manifest(s)).unwrap(),
        list: "partial",
        reason: "missing",
    },
    Broken {
        name: "the manifest is a directory",
        spoil: |s| replace(&manifest(s), |path| fs::create_dir(path).unwrap()),
        list: "partial",
        reason: "missing",
    },
    Broken { name: "the manifest is a pipe", spoil: |s| fifo(&manifest(s)), list: "partial", reason: "missing" },
    Broken {
        name: "the manifest is huge",
        spoil: |s| fs::File::create(manifest(s)).unwrap().set_len(300 << 20).unwrap(),
        list: "failed",
        reason: "larger than",
    },
    Broken {
        name: "the manifest is not what its digest says, and no JSON",
        spoil: |s| fs::write(manifest(s), "{").unwrap(),
        list: "failed",
        reason: "cannot be decoded",
    },
    Broken {
        name: "no config",
        spoil: |s| fs::remove_file(image_config(s)).unwrap(),
        list: "failed",
        reason: "not found",
    },
    Broken {
        name: "the config is a link to itself",
        spoil: |s| replace(&image_config(s), |path| symlink(path, path).unwrap()),
        list: "failed",
        reason: "config",
    },
    Broken {
        name: "a digest that climbs",
        spoil: |s| {
            let text = fs::read_to_string(index(s)).unwrap();
            fs::write(index(s), text.replace("\"sha256:", "\"../../../../etc/passwd\\n\\u001b[2J\u{202e}")).unwrap();
        },
        list: "failed",
        reason: "invalid digest",
    },
    Broken {
        name: "records that cannot be decoded",
        spoil: |s| edit(&s.meta(), |batch| batch.put(&[b"RepoMeta"], b"bad", vec![0xff; 9]).unwrap()),
        list: "failed",
        reason: "RepoMeta",
    },
    Broken {
        name: "records of a newer zot",
        spoil: |s| {
            edit(&s.meta(), |batch| {
                let mut record = Driver::Bolt.dump(&s.root).get("RepoMeta", "bad").unwrap().to_vec();
                record.extend([0xc0, 0x3e, 0x01]);
                batch.put(&[b"RepoMeta"], b"bad", record).unwrap();
            });
        },
        list: "",
        reason: "",
    },
    Broken {
        name: "links in circles",
        spoil: |s| {
            symlink(".", s.root.join("loop")).unwrap();
            symlink("../..", s.root.join("bad/up")).unwrap();
            symlink("self", s.root.join("self")).unwrap();
        },
        list: "?",
        reason: "",
    },
];

fn recorded_around(broken: &Broken) -> Result<(), String> {
    let sandbox = walked();
    (broken.spoil)(&sandbox);
    let before = content(&sandbox.root);
    let ran = sandbox.run(&["walk", "--force", "--format", "json"]);
    let fail = |what: &str| Err(format!("{}: {what}\n{ran:?}", broken.name));
    if broken.list == "?" {
        return if matches!(ran.code, Some(0 | 1 | 3)) { Ok(()) } else { fail("exit code") };
    }
    let clean = broken.list.is_empty();
    if ran.code != Some(i32::from(!clean)) {
        return fail("exit code");
    }
    let report = ran.json();
    let stamped = Driver::Bolt.dump(&sandbox.root).get("Version", "FastRestartStamp").is_some_and(|it| !it.is_empty());
    if stamped != clean || clean != (report["stamp"]["outcome"] == "written") {
        return fail("stamp");
    }
    let dump = Driver::Bolt.dump(&sandbox.root);
    if dump.get("RepoMeta", "good").is_none() || dump.get("RepoMeta", "bad").is_none() {
        return fail("records were lost");
    }
    if clean {
        let kept = dump.get("RepoMeta", "bad").unwrap().windows(3).any(|bytes| bytes == [0xc0, 0x3e, 0x01]);
        return if kept { Ok(()) } else { fail("the unknown field is lost") };
    }
    let problem = &report[broken.list][0];
    if problem["repo"] != "bad" || !problem["reason"].as_str().unwrap_or_default().contains(broken.reason) {
        return fail("reason");
    }
    let table = sandbox.run(&["walk", "--force"]);
    if table.code != Some(1) || !table.stdout.contains("bad") {
        return fail(&format!("table: {table:?}"));
    }
    let mut after = content(&sandbox.root);
    after.insert(sandbox.meta(), before[&sandbox.meta()].clone());
    if after != before { fail("storage was changed") } else { Ok(()) }
}

#[test]
fn a_broken_repo_costs_that_repo_only() {
    let problems: Vec<String> = BROKEN.iter().filter_map(|broken| recorded_around(broken).err()).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
