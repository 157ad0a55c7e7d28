//! What a walk spends its time on: `cargo bench --bench hot`. Decoding of documents, the fold over one repo, a batch into a
//! BoltDB file (in memory, so that no disk is measured), and the fingerprint of a config.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on has nothing to say")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metactl::config::{self, DedupeProbe, FieldSet};
use metactl::fingerprint::fingerprint;
use metactl::metadb::bolt::{Batch, FileLayer, OpenOptions, Writer};
use metactl::oci::json::document;
use metactl::oci::time::Time;
use metactl::oci::{Image, Index, Manifest};
use metactl::records::fold::{Clock, Entry, RepoEntries, Rules, fold};
use metactl::records::image::{ImageEntry, Source};
use metactl::records::{RepoChange, RepoState};
use serde_json::json;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Mutex;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

fn manifest(number: usize) -> Vec<u8> {
    let layers: Vec<_> = (0..8)
        .map(|layer| {
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({"mediaType": media_type, "digest": digest(number * 10 + layer), "size": 1_000_000 + layer})
        })
        .collect();
    let media_type = "application/vnd.oci.image.config.v1+json";
    let config = json!({"mediaType": media_type, "digest": digest(number + 7_000_000), "size": 3000});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        "annotations": {"org.opencontainers.image.vendor": "acme"}})
    .to_string()
    .into_bytes()
}

fn image_config() -> Vec<u8> {
    let history: Vec<_> = (0..16)
        .map(|step| {
            let command = format!("/bin/sh -c #(nop) step {step} {}", "x".repeat(90));
            json!({"created": "2025-03-04T05:06:07.000000008Z", "created_by": command, "empty_layer": step % 3 == 0})
        })
        .collect();
    json!({"created": "2025-03-04T05:06:07.000000008Z", "architecture": "amd64", "os": "linux",
        "config": {"User": "app", "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["serve"], "WorkingDir": "/srv",
            "Labels": {"org.opencontainers.image.source": "https://example.org/src"}},
        "rootfs": {"type": "layers", "diff_ids": (0..8).map(digest).collect::<Vec<_>>()}, "history": history})
    .to_string()
    .into_bytes()
}

fn index(manifests: usize) -> Vec<u8> {
    let listed: Vec<_> = (0..manifests)
        .map(|number| {
            let annotations = json!({"org.opencontainers.image.ref.name": format!("v1.{number}.0")});
            json!({"mediaType": MANIFEST, "digest": digest(number), "size": 2000, "annotations": annotations})
        })
        .collect();
    json!({"schemaVersion": 2, "manifests": listed}).to_string().into_bytes()
}

fn decoding(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("decode");
    let (manifest, config, index) = (manifest(1), image_config(), index(400));
    group.throughput(Throughput::Bytes(manifest.len() as u64));
    group.bench_function("manifest", |bencher| bencher.iter(|| document::<Manifest>(black_box(&manifest)).unwrap()));
    group.throughput(Throughput::Bytes(config.len() as u64));
    group.bench_function("config", |bencher| bencher.iter(|| document::<Image>(black_box(&config)).unwrap()));
    group.throughput(Throughput::Bytes(index.len() as u64));
    group.bench_function("index of 400", |bencher| bencher.iter(|| document::<Index>(black_box(&index)).unwrap()));
    group.finish();
}

fn entries(tags: usize) -> RepoEntries {
    let config: Image = document(&image_config()).unwrap();
    let entry = |number: usize| {
        let (tag, digest, text) = (format!("v1.{number}.0"), digest(number), manifest(number));
        let source = Source { reference: &tag, digest: &digest, size: text.len(), pushed: None };
        Entry::Image(Box::new(ImageEntry::from_manifest(&source, document(&text).unwrap(), config.clone())))
    };
    let entries: Vec<Entry> = (0..tags).map(entry).collect();
    RepoEntries { tags: (0..tags).map(|number| format!("v1.{number}.0")).collect(), entries, partial: false }
}

fn folding(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("fold");
    let clock = Clock { index_read: Time { seconds: 1, nanos: 0 }, now: Time { seconds: 1, nanos: 0 } };
    for tags in [50, 2000] {
        let entries = entries(tags);
        group.throughput(Throughput::Elements(tags as u64));
        let first = |prior: &RepoState| fold("team/app", prior, &entries, clock, Rules::default()).unwrap();
        group.bench_function(BenchmarkId::new("new repo", tags), |bencher| {
            bencher.iter(|| first(black_box(&RepoState::default())));
        });
        let RepoChange::Write { meta, blobs, last_updated } = first(&RepoState::default()) else { return };
        let prior = RepoState { meta, blobs, last_updated };
        group.bench_function(BenchmarkId::new("known repo", tags), |bencher| bencher.iter(|| first(black_box(&prior))));
    }
    group.finish();
}

/// A file in memory.
#[derive(Default)]
struct Memory(Mutex<Vec<u8>>);

impl FileLayer for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        Ok(buf.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self, _metadata: bool) -> io::Result<()> {
        Ok(())
    }
}

fn batch(first: usize, step: usize, count: usize) -> Batch<'static> {
    let mut batch = Batch::new();
    batch.create_bucket(&[b"ImageMeta"]).unwrap();
    for number in 0..count {
        batch.put(&[b"ImageMeta"], digest(first + number * step).as_bytes(), vec![7; 4000]).unwrap();
    }
    batch
}

fn bolt(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("BoltDB batch");
    let options = OpenOptions { create: true, ..OpenOptions::default() };
    let open = || Writer::with_layer(Path::new("memory"), Box::new(Memory::default()), &options).unwrap();
    group.throughput(Throughput::Elements(5000));
    group.bench_function("5000 records into an empty file", |bencher| {
        let setup = || (open(), batch(0, 1, 5000));
        bencher.iter_batched(setup, |(mut writer, batch)| writer.commit(&batch).unwrap(), BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(500));
    group.bench_function("500 records here and there among 20000", |bencher| {
        let setup = || {
            let mut writer = open();
            writer.commit(&batch(0, 1, 20_000)).unwrap();
            (writer, batch(3, 40, 500))
        };
        bencher.iter_batched(setup, |(mut writer, batch)| writer.commit(&batch).unwrap(), BatchSize::LargeInput);
    });
    group.finish();
}

fn fingerprints(bench: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let retention = json!({"policies": [{"repositories": ["**"], "keepTags": [{"patterns": ["v.*"], "mostRecentlyPushedCount": 10}]}]});
    let storage = json!({"rootDirectory": "/var/lib/registry", "gcDelay": "2h", "retention": retention,
        "subPaths": {"/a": {"rootDirectory": "/var/lib/a"}, "/b": {"rootDirectory": "/var/lib/b", "dedupe": false}}});
    std::fs::write(&path, json!({"storage": storage}).to_string()).unwrap();
    bench.bench_function("fingerprint, from the file", |bencher| {
        bencher.iter(|| {
            let config = config::load(&path).unwrap();
            fingerprint(&config.storage(FieldSet::NEWEST, &DedupeProbe::Works).unwrap())
        });
    });
}

criterion_group!(hot, decoding, folding, bolt, fingerprints);
criterion_main!(hot);
