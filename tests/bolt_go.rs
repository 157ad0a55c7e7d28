//! Go's bbolt, the reference implementation, and this module take turns on one file. Needs the Debian packages
//! golang-go and golang-github-coreos-bbolt-dev; without them these tests fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Bucket, Database, EntryKind, OpenOptions, Writer};
use sha2::{Digest, Sha256};

/// The program in `tests/bbolt`, built once.
fn go_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bbolt");
        let status = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg("./tests/bbolt")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("GO111MODULE", "off")
            .env("GOPATH", std::env::var_os("METACTL_TEST_GOPATH").unwrap_or_else(|| "/usr/share/gocode".into()))
            .status()
            .expect("Go is installed");
        assert!(status.success(), "tests/bbolt does not build");
        program
    })
}

fn try_go(args: &[&str], path: &Path, rest: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(go_program())
        .args(args)
        .arg(path)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

fn go(command: &str, path: &Path, rest: &[&str], input: &[u8]) -> Vec<u8> {
    let output = try_go(&[command], path, rest, input);
    assert!(output.status.success(), "bbolt {command}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where an entry stands, and what it is: a bucket with its sequence, or a value by length and hash.
type Lines = BTreeMap<Vec<Vec<u8>>, Line>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Bucket(u64),
    Value(u64, String),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn go_dump(path: &Path) -> Lines {
    let out = go("dump", path, &[], b"");
    let mut lines = Lines::new();
    for line in out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let path = line["path"].as_array().unwrap().iter().map(|name| BASE64.decode(name.as_str().unwrap()).unwrap());
        let what = if line["bucket"].as_bool().unwrap() {
            Line::Bucket(line["sequence"].as_u64().unwrap())
        } else {
            Line::Value(line["length"].as_u64().unwrap(), line["sha256"].as_str().unwrap().to_owned())
        };
        lines.insert(path.collect(), what);
    }
    lines
}

fn our_dump(path: &Path) -> Lines {
    fn walk(bucket: &Bucket<'_>, path: &[Vec<u8>], lines: &mut Lines) -> Result<(), BoltError> {
        let mut keys = Vec::new();
        bucket.for_each_key(|key, kind| {
            keys.push((key.to_vec(), kind));
            Ok::<_, BoltError>(std::ops::ControlFlow::Continue(()))
        })?;
        for (key, kind) in keys {
            let here = [path, std::slice::from_ref(&key)].concat();
            if kind == EntryKind::Bucket {
                let inner = bucket.bucket(&key)?.unwrap();
                lines.insert(here.clone(), Line::Bucket(inner.sequence()));
                walk(&inner, &here, lines)?;
            } else {
                let value = bucket.get(&key)?.unwrap();
                lines.insert(here, Line::Value(value.len() as u64, hex(&Sha256::digest(&value))));
            }
        }
        Ok(())
    }
    let database = Database::open(path).unwrap();
    database
        .snapshot(&Cancel::default(), |tx| {
            let report = tx.check()?;
            assert!(report.is_clean(), "{report:#?}");
            let mut lines = Lines::new();
            walk(&tx.root(), &[], &mut lines)?;
            Ok::<_, BoltError>(lines)
        })
        .unwrap()
}

fn model_lines(tree: &Tree, path: &[Vec<u8>], sequences: &BTreeMap<Vec<Vec<u8>>, u64>, lines: &mut Lines) {
    for (key, item) in tree {
        let here = [path, std::slice::from_ref(key)].concat();
        match item {
            Item::Value(value) => {
                lines.insert(here, Line::Value(value.len() as u64, hex(&Sha256::digest(value))));
            }
            Item::Bucket(inner) => {
                lines.insert(here.clone(), Line::Bucket(sequences.get(&here).copied().unwrap_or(0)));
                model_lines(inner, &here, sequences, lines);
            }
        }
    }
}

/// Random changes for Go to make, as the lines its `apply` reads, and in the model.
fn random_go_input(rng: &mut Rng, model: &mut Tree, sequences: &mut BTreeMap<Vec<Vec<u8>>, u64>) -> Vec<u8> {
    let mut input = Vec::new();
    let mut op = |op: &str, path: &[Vec<u8>], key: &[u8], value: &[u8]| {
        let path: Vec<String> = path.iter().map(|name| BASE64.encode(name)).collect();
        let line =
            serde_json::json!({"op": op, "path": path, "key": BASE64.encode(key), "value": BASE64.encode(value)});
        input.extend_from_slice(line.to_string().as_bytes());
        input.push(b'\n');
    };
    for _ in 0..rng.below(4) + 1 {
        for path in bucket_paths() {
            if rng.chance(2) {
                continue;
            }
            op("create", &path, b"", b"");
            let mut tree = &mut *model;
            for name in &path {
                let item = tree.entry(name.clone()).or_insert_with(|| Item::Bucket(Tree::new()));
                let Item::Bucket(inner) = item else { unreachable!() };
                tree = inner;
            }
            if rng.chance(4) {
                op("sequence", &path, b"", b"");
                *sequences.entry(path.clone()).or_default() += 1;
            }
            for _ in 0..rng.below(40) {
                let key = rng.key(400);
                if rng.chance(3) {
                    op("delete", &path, &key, b"");
                    tree.remove(&key);
                } else {
                    let value = rng.value();
                    op("put", &path, &key, &value);
                    tree.insert(key, Item::Value(value));
                }
            }
        }
        op("commit", &[], b"", b"");
    }
    input
}

/// Go and we take turns; after every turn Go's `Check` and ours are clean and both see the model.
fn take_turns(page_size: u32, flags: &str, seed: u64, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    go("create", &path, &[&page_size.to_string(), flags], b"");
    let mut rng = Rng::new(seed);
    let (mut model, mut sequences) = (Tree::new(), BTreeMap::new());
    let compare = |model: &Tree, sequences: &BTreeMap<_, _>, turn: &str| {
        go("check", &path, &[], b"");
        let mut expected = Lines::new();
        model_lines(model, &[], sequences, &mut expected);
        assert!(our_dump(&path) == expected, "{page_size}{flags} seed {seed}, {turn}: our reader");
        assert!(go_dump(&path) == expected, "{page_size}{flags} seed {seed}, {turn}: Go's reader");
    };
    for round in 0..rounds {
        let input = random_go_input(&mut rng, &mut model, &mut sequences);
        go("apply", &path, &[flags], &input);
        compare(&model, &sequences, &format!("round {round}, Go wrote"));
        let mut writer = Writer::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(writer.tx().page_size(), page_size);
        for _ in 0..rng.below(3) + 1 {
            writer.commit(&random_batch(&mut rng, &mut model, 400, 30)).unwrap();
        }
        drop(writer);
        // A bucket that was deleted and made again counts from zero.
        sequences.retain(|path, _| bucket_mut(&mut model, path).is_some());
        let ours = our_dump(&path);
        for (path, sequence) in &mut sequences {
            let Some(Line::Bucket(now)) = ours.get(path) else { panic!("no bucket") };
            assert!(now == sequence || *now == 0, "the sequence is kept");
            *sequence = *now;
        }
        compare(&model, &sequences, &format!("round {round}, we wrote"));
    }
}

#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn go_and_we_take_turns() {
    take_turns(4096, "", 1, 25);
    take_turns(4096, "", 2, 25);
}

#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn go_and_we_take_turns_with_other_options() {
    for (page_size, flags) in
        [(4096, "n"), (4096, "g"), (4096, "m"), (4096, "ngm"), (16384, ""), (65536, ""), (65536, "n")]
    {
        take_turns(page_size, flags, 3, 8);
    }
}

/// Files made by us, with the long freelist, read and written on by Go.
#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn go_accepts_a_new_file_and_a_long_freelist() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    drop(Writer::open(&path, &options(true)).unwrap());
    go("check", &path, &[], b"");
    let fill = |delete: bool| {
        let mut writer = Writer::open(&path, &OpenOptions::default()).unwrap();
        let mut batch = Batch::new();
        batch.create_bucket(&[b"b"]).unwrap();
        for n in 0..80_000_u32 {
            if delete {
                batch.delete(&[b"b"], &n.to_be_bytes()).unwrap();
            } else {
                batch.put(&[b"b"], &n.to_be_bytes(), vec![1; 3_000]).unwrap();
            }
        }
        writer.commit(&batch).unwrap();
        drop(writer);
        go("check", &path, &[], b"");
    };
    fill(false);
    fill(true);
    go("random", &path, &["", "1", "5"], b"");
    our_dump(&path);
    fill(false);
    assert!(our_dump(&path) == go_dump(&path));
}

/// zot's own file: what neither side touches stays as it was.
#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn zots_file_survives_both_writers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("fixtures/bolt/zot-meta.db.gz")[..]).read_to_end(&mut image).unwrap();
    std::fs::write(&path, image).unwrap();
    let before = go_dump(&path);
    assert!(our_dump(&path) == before);
    let mut rng = Rng::new(4);
    let mut changed = BTreeMap::new();
    for round in 0..12 {
        let mut writer = Writer::open(&path, &OpenOptions::default()).unwrap();
        let mut batch = Batch::new();
        for (path, _) in before.iter().filter(|(_, line)| matches!(line, Line::Value(..))) {
            if rng.chance(20) {
                let (key, bucket) = path.split_last().unwrap();
                let value = rng.value();
                changed.insert(path.clone(), Line::Value(value.len() as u64, hex(&Sha256::digest(&value))));
                batch.put(&as_path(bucket), key, value).unwrap();
            }
        }
        writer.commit(&batch).unwrap();
        drop(writer);
        go("check", &path, &[], b"");
        go("random", &path, &["", &round.to_string(), "5"], b"");
        let mut expected = before.clone();
        expected.extend(changed.clone());
        let (ours, theirs) = (our_dump(&path), go_dump(&path));
        assert!(ours == theirs, "round {round}");
        let kept: Lines = ours.into_iter().filter(|(path, _)| !path[0].starts_with(b"go-")).collect();
        assert!(kept == expected, "round {round}");
    }
}

/// A hot copy (`Tx.CopyFile`) holds its newest meta page in slot 0, whatever the transaction id.
#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn hot_copies_are_written_on() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("meta.db"), directory.path().join("copy.db"));
    drop(Writer::open(&path, &options(true)).unwrap());
    for round in 0..4 {
        go("random", &path, &["", &round.to_string(), "1"], b"");
        go("copy", &path, &[copy.to_str().unwrap()], b"");
        assert!(our_dump(&copy) == our_dump(&path), "round {round}");
        let mut writer = Writer::open(&copy, &OpenOptions::default()).unwrap();
        for n in 0..3_u8 {
            let mut batch = Batch::new();
            batch.create_bucket(&[b"b"]).unwrap();
            batch.put(&[b"b"], &[n], vec![n; 3000]).unwrap();
            writer.commit(&batch).unwrap();
        }
        drop(writer);
        go("check", &copy, &[], b"");
        go("random", &copy, &["", "9", "2"], b"");
        assert!(our_dump(&copy) == go_dump(&copy), "round {round}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn the_lock_holds_between_go_and_us() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let writer = Writer::open(&path, &options(true)).unwrap();
    let refused = try_go(&["lock"], &path, &["200"], b"");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("timeout"), "{refused:?}");
    drop(writer);
    go("lock", &path, &["200"], b"");

    let mut holder =
        Command::new(go_program()).arg("hold").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let short = OpenOptions { lock_timeout: Duration::from_millis(150), ..OpenOptions::default() };
    let error = Writer::open(&path, &short).unwrap_err();
    let BoltError::Locked { holder: found, .. } = &error else { panic!("{error}") };
    let found = found.clone().expect("a holder");
    assert_eq!((found.pid, found.command.as_deref()), (holder.id(), Some("bbolt")));
    our_dump(&path);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    drop(Writer::open(&path, &short).unwrap());
}

/// Snapshots beside Go's own writer: the amounts always add up.
#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn snapshots_beside_go_are_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    go(
        "random",
        &{
            drop(Writer::open(&path, &options(true)).unwrap());
            path.clone()
        },
        &["", "1", "20"],
        b"",
    );
    let mut live = Command::new(go_program()).arg("live").arg(&path).arg("5000").stdout(Stdio::null()).spawn().unwrap();
    let database = Database::open(&path).unwrap();
    let (mut consistent, mut busy, mut last) = (0, 0, 0);
    while live.try_wait().unwrap().is_none() {
        let seen = database.snapshot(&Cancel::default(), |tx| {
            let (Some(accounts), Some(counter)) = (tx.bucket(&[b"accounts"])?, tx.bucket(&[b"counter"])?) else {
                return Ok(None);
            };
            let (mut sum, mut keys) = (0, 0);
            accounts.for_each(|_, value| {
                if let metactl::metadb::bolt::Value::Bytes(bytes) = value {
                    let text = String::from_utf8_lossy(bytes);
                    sum +=
                        text.split(' ').next().and_then(|amount| amount.parse::<i64>().ok()).unwrap_or(i64::MIN / 1000);
                    keys += 1;
                }
                Ok::<_, BoltError>(std::ops::ControlFlow::Continue(()))
            })?;
            let count = counter.get(b"transactions")?.unwrap_or_default();
            Ok::<_, BoltError>(Some((sum, keys, String::from_utf8_lossy(&count).parse::<u64>().unwrap_or(0))))
        });
        match seen {
            Ok(None) => {}
            Ok(Some((sum, keys, count))) => {
                assert_eq!((sum, keys), (40_000, 400));
                assert!(count >= last && count > 0);
                last = count;
                consistent += 1;
            }
            Err(BoltError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(live.wait().unwrap().success());
    assert!(consistent > 10 && last > 10, "{consistent} snapshots, {busy} busy, {last} commits");
}

#[test]
#[ignore = "needs Go and bbolt: run tests/run"]
fn a_blob_cache_is_read_while_its_owner_holds_it() {
    use metactl::storage::cache::CacheSpec;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    go("create", &path, &["4096", ""], b"");
    // As zot records it: inline buckets, many of them, whose keys have no values.
    let digests: Vec<String> =
        (0..1500_u32).map(|n| format!("sha256:{}", hex(&Sha256::digest(n.to_le_bytes())))).collect();
    let blob = |repo: &str, digest: &str| format!("{repo}/blobs/{}", digest.replace(':', "/"));
    let mut input = Vec::new();
    for digest in &digests {
        for (bucket, repos) in [("original", &["team/b"][..]), ("duplicates", &["team/c", "team/b", "team/a"])] {
            let names = ["blobs", digest, bucket].map(|name| BASE64.encode(name));
            let mut op = |op: &str, path: &[String], key: &str| {
                let line = serde_json::json!({"op": op, "path": path, "key": BASE64.encode(key), "value": ""});
                writeln!(input, "{line}").unwrap();
            };
            for depth in 1..=3 {
                op("create", &names[..depth], "");
            }
            repos.iter().for_each(|repo| op("put", &names, &blob(repo, digest)));
        }
    }
    writeln!(input, "{}", serde_json::json!({"op": "commit"})).unwrap();
    go("apply", &path, &[""], &input);

    let mut holder =
        Command::new(go_program()).arg("hold").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let asked: Vec<&str> = digests.iter().map(String::as_str).collect();
    let found = CacheSpec::Bolt(path).open(&Cancel::default()).candidates(&asked).unwrap();
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    for (digest, found) in digests.iter().zip(found) {
        assert_eq!(found, ["team/b", "team/a", "team/c"].map(|repo| blob(repo, digest)));
    }
}
