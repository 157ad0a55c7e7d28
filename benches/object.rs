//! A first walk over an S3 store 20 ms away against zot's own pattern of requests, in one run.
//!
//! `cargo bench --bench object -- [--delay MS] [--repos N] [--tags N] [--rounds N] [--full]`
//!
//! zot asks five times per image, one request after the other: is the manifest there, what is in it, when was it
//! written, is the config there, what is in it. A bare client replays that for 260 of the images (`--full`: for all) and
//! the time is taken for all. Both go through a proxy that holds every request up. Needs what `tests/run` installs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on has failed, and talks")]

#[path = "../tests/support/mod.rs"]
mod support;

use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3Builder;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::bucket::{Bucket, Kind, ObjectServer, S3_KEYS};
use support::proxy::Proxy;

/// Requests that zot makes for an image.
const PER_IMAGE: usize = 5;
/// Images that zot's requests are replayed for: half a minute's worth.
const REPLAYED: usize = 260;

struct Options {
    delay: Duration,
    repos: usize,
    tags: usize,
    rounds: usize,
    full: bool,
}

fn options() -> Options {
    let mut options = Options { delay: Duration::from_millis(20), repos: 26, tags: 100, rounds: 3, full: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap();
        match argument.as_str() {
            "--delay" => options.delay = Duration::from_millis(value().parse().unwrap()),
            "--repos" => options.repos = value().parse().unwrap(),
            "--tags" => options.tags = value().parse().unwrap(),
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--full" => options.full = true,
            // What cargo itself adds.
            "--bench" => {}
            other => panic!("{other}?"),
        }
    }
    options
}

/// What one command took.
struct Took {
    seconds: f64,
    requests: usize,
    /// Peak of resident memory in KiB.
    memory: u64,
}

fn metactl(config: &Path, bucket: &Bucket<'_>, proxy: &Proxy, arguments: &[&str]) -> Took {
    let before: usize = proxy.requests().values().sum();
    let mut command = Command::new(env!("CARGO_BIN_EXE_metactl"));
    command.env_clear().envs(bucket.environment(proxy.port)).env("METACTL_NO_STATE", "1");
    command.arg("--config").arg(config).args(support::command::BUILD).arg("-q").args(arguments);
    let started = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let exit = loop {
        // The peak only grows, so the last look before the end is close to it.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next());
        memory = peak.and_then(|peak| peak.parse().ok()).unwrap_or(memory);
        if let Some(exit) = child.try_wait().unwrap() {
            break exit;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = started.elapsed().as_secs_f64();
    assert!(exit.success(), "{arguments:?}: {exit}");
    Took { seconds, requests: proxy.requests().values().sum::<usize>() - before, memory }
}

/// Files of every image, relative to the store: manifest and config.
fn images(root: &Path) -> Vec<(String, String)> {
    let mut images = Vec::new();
    for repo in std::fs::read_dir(root.join("team")).unwrap() {
        let repo = repo.unwrap().path();
        let name = repo.strip_prefix(root).unwrap().to_str().unwrap();
        let json = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let path = |digest: &Value| format!("{name}/blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        for listed in json(&repo.join("index.json"))["manifests"].as_array().unwrap() {
            let manifest = path(&listed["digest"]);
            let config = path(&json(&root.join(&manifest))["config"]["digest"]);
            images.push((manifest, config));
        }
    }
    images
}

/// Seconds that zot's requests for `images` take.
fn replay(bucket: &Bucket<'_>, port: u16, images: &[(String, String)]) -> f64 {
    let client = AmazonS3Builder::new()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_allow_http(true)
        .with_bucket_name(&bucket.name)
        .with_access_key_id(S3_KEYS[0])
        .with_secret_access_key(S3_KEYS[1])
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = |path: &str| object_store::path::Path::parse(bucket.key(path)).unwrap();
    let started = Instant::now();
    runtime.block_on(async {
        for (manifest, config) in images {
            let (manifest, config) = (key(manifest), key(config));
            client.head(&manifest).await.unwrap();
            client.get(&manifest).await.unwrap().bytes().await.unwrap();
            client.head(&manifest).await.unwrap();
            client.head(&config).await.unwrap();
            client.get(&config).await.unwrap().bytes().await.unwrap();
        }
    });
    started.elapsed().as_secs_f64()
}

fn main() {
    let options = options();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("files");
    support::work::store(&root, options.repos, options.tags);
    let server = ObjectServer::start(Kind::S3);
    let bucket = server.bucket("bench", Some("/zot"));
    bucket.load(&root);
    // So that what was just written is not read again for its own sake.
    std::thread::sleep(Duration::from_secs(2));
    let proxy = Proxy::start(server.port);
    proxy.delay(options.delay);

    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let config = dir.path().join("config.json");
    let text = serde_json::json!({
        "storage": {"rootDirectory": home, "dedupe": false, "storageDriver": bucket.storage_driver(proxy.port)},
        "http": {"address": "127.0.0.1", "port": "5000"}, "extensions": {"search": {"enable": true}},
    });
    std::fs::write(&config, text.to_string()).unwrap();

    let manifests = options.repos * options.tags;
    println!("{manifests} manifests in {} repos, {:?} a request", options.repos, options.delay);
    let mut first = Vec::new();
    for _ in 0..options.rounds {
        let _ = std::fs::remove_file(home.join("meta.db"));
        first.push(metactl(&config, &bucket, &proxy, &["walk"]));
    }
    first.sort_by(|left, right| left.seconds.total_cmp(&right.seconds));
    let walk = &first[first.len() / 2];

    let step = if options.full { 1 } else { manifests.div_ceil(REPLAYED) };
    let images: Vec<(String, String)> = images(&root).into_iter().step_by(step).collect();
    let replayed = replay(&bucket, proxy.port, &images);
    let zot = replayed * manifests as f64 / images.len() as f64;

    let show = |name: &str, took: &Took| {
        let per_image = took.requests as f64 / manifests as f64;
        println!(
            "  {name:28} {:9.2} s {:8.1} x {:7} requests {per_image:6.2} an image, peak {} MB",
            took.seconds,
            zot / took.seconds,
            took.requests,
            took.memory >> 10
        );
    };
    println!(
        "  {:28} {zot:9.2} s {:8.1} x {:7} requests {PER_IMAGE:6.2} an image ({} of {manifests} replayed)",
        "zot's requests, bare client",
        1.0,
        PER_IMAGE * manifests,
        images.len()
    );
    show("first walk", walk);
    show("forced walk", &metactl(&config, &bucket, &proxy, &["walk", "--force"]));
    // Another build: nothing is stamped for it, nothing changed in storage.
    show("unchanged walk", &metactl(&config, &bucket, &proxy, &["walk", "--commit", "v2.1.20-1-g0000000"]));
    show("verify --deep", &metactl(&config, &bucket, &proxy, &["verify", "--deep"]));
}
