//! The inputs that fuzzing found worth keeping, run again by the targets that found them (`fuzz/`, docs/fuzzing.md), and
//! the seeds it started from.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;
#[allow(dead_code, reason = "only whole images are seeds")]
mod identity_support;

use identity_support::{CONTAINERS, Image};
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{BoltError, Database, Tx, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Every committed input: minimised corpora, and findings, each of which once made its target panic or hang.
#[test]
fn every_kept_input_runs_through() {
    for target in fuzz::TARGETS {
        let corpus = files(&path("fuzz/corpus").join(target.name));
        assert!(!corpus.is_empty(), "{} ({}) has no inputs", target.name, target.about);
        for input in corpus.iter().chain(&files(&path("fuzz/findings").join(target.name))) {
            let data = fs::read(input).unwrap();
            let run = std::panic::catch_unwind(|| fuzz::run(target.name, &data));
            assert!(run.is_ok(), "{} fails on {}", target.name, input.display());
        }
    }
}

/// Inputs to start fuzzing from, made of the fixtures: by target, then by name.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut add = |target, seed: Vec<u8>| seeds.entry(target).or_default().push(seed);
    let pieces = |parts: [&[u8]; 3]| {
        parts.iter().flat_map(|part| [&u16::try_from(part.len()).unwrap().to_le_bytes(), *part].concat()).collect()
    };
    for container in CONTAINERS {
        let commit = "v2.1.20-0-g3b5796d";
        add("binary", Image::new(container).plant(8, "v2.1.20").plant(64, commit).build());
        let flags = "build\t-ldflags=\"-X zotregistry.dev/zot/v2/pkg/buildinfo.Commit=v2.1.20-0-g3b5796d \
                     -X zotregistry.dev/zot/v2/pkg/buildinfo.ReleaseTag=v2.1.20\"";
        add("binary", Image::new(container).line(flags).build());
    }
    add("bolt_read", fuzz::small_bolt_file().to_vec());
    for start in [0, 1] {
        add("bolt_write", vec![start; 40]);
        add("bolt_write", (0..200_u8).map(|n| n.wrapping_mul(37).wrapping_add(start)).collect());
        add("redb", vec![start, 0]);
        add("redb", [&[start, 2, 0, 0, 1, 0, 0, 7, 5][..], &[9, 0, 2, 0, 0]].concat());
    }
    for line in include_str!("fixtures/config/fingerprint.jsonl").lines() {
        let vector: Json = serde_json::from_str(line).unwrap();
        let ending = vector["file"].as_str().unwrap().rsplit('.').next().unwrap();
        let parser = ["json", "yaml", "toml"].iter().position(|known| *known == ending).unwrap_or(3);
        let text = vector["config"].as_str().unwrap();
        add("config", [&[u8::try_from(parser).unwrap()], text.as_bytes()].concat());
    }
    for text in ["", "v2.1.20+v2.1.20-0-g3b5796d|0123456789abcdef", "dev-v2.1.20-3b5796d-dirty|", "a|b|c", "v2.1.18\nx"]
    {
        add("identity", text.as_bytes().to_vec());
        add("gojson", text.as_bytes().to_vec());
    }
    for number in [0.1, 1e21, -1e-7, f64::MAX, 5e-324] {
        add("gojson", f64::to_le_bytes(number).to_vec());
    }
    add("gojson", "<&>\u{2028}\u{7f}\0ä😀\"\\".into());
    for text in [
        "redis://user:*@host:6379/1?keyprefix=zot&read_timeout=3s",
        "rediss://host?addr=a:1&addr=b:2&master_name=m&skip_verify=true",
        "unix:///run/redis.sock?db=2&max_retries=-1",
        "name=redis\naddr=127.0.0.1:6379\npassword=*\ndb=3\ndial_timeout=5s\ntls=true\nkeyprefix=zot",
    ] {
        add("redis", text.as_bytes().to_vec());
    }
    for case in files(&path("tests/fixtures/walk")) {
        let case: Json = serde_json::from_slice(&fs::read(case).unwrap()).unwrap();
        let (mut index, mut manifest, mut config) = (Vec::new(), Vec::new(), Vec::new());
        for (name, file) in case["files"].as_object().into_iter().flatten() {
            let text = file["text"].as_str().unwrap_or_default();
            let slot = match name {
                name if name.ends_with("index.json") => &mut index,
                _ if text.contains("\"layers\"") && text.contains("\"config\"") => &mut manifest,
                _ => &mut config,
            };
            if text.len() <= 4000 && text.len() > slot.len() {
                *slot = text.as_bytes().to_vec();
            }
        }
        add("documents", pieces([&index, &manifest, &config]));
    }
    for [meta, blobs, image] in recorded_records() {
        add("records", pieces([&meta, &blobs, &image]));
    }
    seeds
}

/// RepoMeta, RepoBlobs and ImageMeta records that zot wrote.
fn recorded_records() -> Vec<[Vec<u8>; 3]> {
    let mut image = Vec::new();
    let file = fs::File::open(path("tests/fixtures/bolt/zot-meta.db.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut image).unwrap();
    let layer = Box::new(fuzz::MemFile::new(image));
    let database = Database::with_layer(Path::new("zot-meta.db"), layer).unwrap();
    let buckets: [&[u8]; 3] = [b"RepoMeta", b"RepoBlobsMeta", b"ImageMeta"];
    let [meta, blobs, images] = buckets.map(|name| {
        let mut found = Vec::new();
        let collect = |tx: &Tx<'_>| {
            tx.bucket(&[name])?.unwrap().for_each(|_, value| {
                if let Value::Bytes(value) = value {
                    found.push(value.to_vec());
                }
                Ok::<_, BoltError>(if found.len() < 30 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        };
        database.snapshot(&Cancel::default(), collect).unwrap();
        found
    });
    std::iter::zip(std::iter::zip(meta, blobs), images).map(|((meta, blobs), image)| [meta, blobs, image]).collect()
}

/// Seeds are run here too; `UPDATE_SEEDS=1` writes them to `fuzz/seeds`, where `fuzz/run` looks for them.
#[test]
fn every_seed_runs_through() {
    for (target, seeds) in seeds() {
        for (number, seed) in seeds.iter().enumerate() {
            fuzz::run(target, seed);
            if std::env::var_os("UPDATE_SEEDS").is_some() {
                let directory = path("fuzz/seeds").join(target);
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join(format!("{number:03}")), seed).unwrap();
            }
        }
    }
}
