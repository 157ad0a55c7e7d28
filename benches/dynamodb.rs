//! What a walk of a DynamoDB metaDB costs, in requests and capacity units per 1,000 manifests, beside zot's algorithm.
//!
//! `cargo bench --bench dynamodb` (needs python3), or `cargo bench --bench dynamodb -- 1000x100` for metactl alone on a store
//! of so many repos with so many tags. An emulator runs in this process; metactl runs as a process of its own, with CPU time
//! and memory of its own, and its requests are counted on their way. zot's requests are made as its source has them
//! (`pkg/meta/parse.go`, `pkg/meta/dynamodb/dynamodb.go`, no trust store), with records as large as metactl's became: a
//! repo's records grow with every reference, and zot reads and writes them whole each time.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a bench talks, and one that cannot go on has failed")]

#[path = "../tests/support/mod.rs"]
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::dynamodb::Server;
use support::proxy::Proxy;

const P: &str = "Zot";
const ZOT: &str = "Again";

/// What a run cost.
#[derive(Default)]
struct Cost {
    requests: f64,
    read: f64,
    write: f64,
    /// Seconds of CPU time and megabytes of memory, metactl's only.
    cpu: f64,
    peak: f64,
}

fn main() {
    let work = tempfile::tempdir().unwrap();
    let size = |store: &str| -> (usize, usize) {
        let (repos, tags) = store.split_once('x').unwrap();
        (repos.parse().unwrap(), tags.parse().unwrap())
    };
    // Cargo adds an option of its own.
    let asked: Vec<(usize, usize)> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).map(|store| size(&store)).collect();
    println!(
        "{:46} {:>10} {:>12} {:>12} {:>10} {:>8}",
        "per 1,000 manifests", "requests", "read units", "write units", "CPU s", "peak MB"
    );
    if asked.is_empty() {
        [(200, 5), (20, 50)].iter().for_each(|size| measure(work.path(), *size, true));
    }
    asked.iter().for_each(|size| measure(work.path(), *size, false));
}

/// One store, also by zot's algorithm if `compare`.
fn measure(work: &Path, (repos, tags): (usize, usize), compare: bool) {
    let root = work.join(repos.to_string());
    store(&root, repos, tags);
    let config = work.join(format!("{repos}.json"));
    let text = json!({"storage": {"rootDirectory": root, "dedupe": false},
        "http": {"port": support::server::free_port()}, "extensions": {"search": {}}});
    std::fs::write(&config, text.to_string()).unwrap();
    let server = Server::start();
    let proxy = Proxy::start(server.port);
    server.create_tables(P);
    let manifests = indexes(&root).iter().map(|index| descriptors(index).len()).sum::<usize>();
    let show = |what: &str, cost: &Cost| {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let per = |count: f64| count * 1000.0 / manifests as f64;
        let row = format!("{repos} repos x {tags} tags, {what}");
        let (requests, read, write) = (per(cost.requests), per(cost.read), per(cost.write));
        println!("{row:46} {requests:>10.0} {read:>12.0} {write:>12.0} {:>10.3} {:>8.0}", per(cost.cpu), cost.peak);
    };
    show("metactl: first walk", &metactl(&proxy, &config, &[]));
    let zot = compare.then(|| Zot::new(&server, &root));
    let zots = |what: &str, walk: &dyn Fn(&Zot<'_>) -> Cost| {
        if let Some(zot) = &zot {
            show(what, &walk(zot));
        }
    };
    zots("zot: first walk", &|zot| zot.walk(true));
    // Another build: the stamp does not match, but nothing is newer than its records.
    show("metactl: unchanged walk", &metactl(&proxy, &config, &["--commit", "other"]));
    zots("zot: unchanged walk", &|zot| zot.unchanged());
    show("metactl: forced walk", &metactl(&proxy, &config, &["--force"]));
    zots("zot: walk of changed repos", &|zot| zot.walk(false));
}

fn store(root: &Path, repos: usize, tags: usize) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/make_registry.py");
    let mut make = Command::new("python3");
    make.arg(script).arg(root).args(["--repos", &repos.to_string(), "--tags", &tags.to_string()]);
    assert!(make.stdout(Stdio::null()).status().unwrap().success());
}

/// Runs a command and says on stderr what it took.
const TIMED: &str = "import os, sys
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print('took', usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))";

/// A walk by the binary.
fn metactl(proxy: &Proxy, config: &Path, more: &[&str]) -> Cost {
    proxy.clear();
    let mut command = Command::new("python3");
    command
        .args(["-c", TIMED, env!("CARGO_BIN_EXE_metactl"), "--no-state"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.args(["walk", "-vv", "--no-progress", "--release-tag", "v2.1.20", "--commit", "c"]).args(more);
    command.arg("--config").arg(config).args(["--metadb", &support::dynamodb::url(proxy.port, P)]);
    command.env("AWS_ACCESS_KEY_ID", "bench").env("AWS_SECRET_ACCESS_KEY", "bench");
    let ran = support::command::Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = ran.stderr.lines().find_map(|line| line.split_once("dynamodb: ")).unwrap().1;
    let number = |name: &str| -> f64 {
        let part = told.split(", ").find_map(|part| part.strip_suffix(name)).unwrap();
        part.trim().parse().unwrap()
    };
    let took = ran.stderr.lines().find_map(|line| line.strip_prefix("took ")).unwrap().split_once(' ').unwrap();
    let (cpu, peak) = (took.0.parse().unwrap(), took.1.parse().unwrap());
    let (read, write) = (number("read units"), number("write units"));
    let cost = Cost { requests: number("requests"), read, write, cpu, peak };
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let counted = proxy.requests().values().sum::<usize>() as f64;
    assert!((counted - cost.requests).abs() < 0.5, "metactl tells {}, the proxy {counted}", cost.requests);
    cost
}

/// Every `index.json`, in path order.
fn indexes(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("index.json") => found.push(path),
                Some("blobs") => {}
                _ if path.is_dir() => pending.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn descriptors(index: &Path) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

/// zot's requests, with records of the right size in tables of its own.
struct Zot<'a> {
    server: &'a Server,
    root: &'a Path,
}

impl<'a> Zot<'a> {
    fn new(server: &'a Server, root: &'a Path) -> Self {
        server.create_tables(ZOT);
        Self { server, root }
    }

    fn record(&self, table: &str, key: &str, attribute: &str) -> Vec<u8> {
        let item = self.server.item(&format!("{P}{table}"), key);
        BASE64.decode(item[attribute]["B"].as_str().unwrap()).unwrap()
    }

    fn get(&self, cost: &mut Cost, table: &str, key: &str) {
        let request = json!({"TableName": format!("{ZOT}{table}"), "Key": {"TableKey": {"S": key}},
            "ReturnConsumedCapacity": "TOTAL"});
        let answer = self.server.db.get_item(serde_json::from_value(request).unwrap()).unwrap();
        cost.requests += 1.0;
        cost.read += units(&serde_json::to_value(answer).unwrap());
    }

    fn update(&self, cost: &mut Cost, table: &str, key: &str, attributes: &[(&str, &[u8])]) {
        let (mut sets, mut names, mut values) = (Vec::new(), json!({}), json!({}));
        for (number, (attribute, value)) in attributes.iter().enumerate() {
            sets.push(format!("#a{number} = :a{number}"));
            names[format!("#a{number}")] = json!(attribute);
            values[format!(":a{number}")] = json!({"B": BASE64.encode(value)});
        }
        let request = json!({"TableName": format!("{ZOT}{table}"), "Key": {"TableKey": {"S": key}},
            "UpdateExpression": format!("SET {}", sets.join(", ")), "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values, "ReturnConsumedCapacity": "TOTAL"});
        let answer = self.server.db.update_item(serde_json::from_value(request).unwrap()).unwrap();
        cost.requests += 1.0;
        cost.write += units(&serde_json::to_value(answer).unwrap());
    }

    /// `GetAllRepoNames`: pages of TableKey.
    fn names(&self, cost: &mut Cost) {
        let mut from = Value::Null;
        loop {
            let mut request = json!({"TableName": format!("{ZOT}RepoMetadataTable"), "ProjectionExpression": "TableKey",
                "ReturnConsumedCapacity": "TOTAL"});
            if !from.is_null() {
                request["ExclusiveStartKey"] = from;
            }
            let page = self.server.db.scan(serde_json::from_value(request).unwrap()).unwrap();
            let page = serde_json::to_value(page).unwrap();
            cost.requests += 1.0;
            cost.read += units(&page);
            from = page["LastEvaluatedKey"].clone();
            if from.is_null() {
                return;
            }
        }
    }

    fn repos(&self) -> Vec<(String, PathBuf)> {
        let name = |index: &Path| index.parent().unwrap().strip_prefix(self.root).unwrap().to_str().unwrap().to_owned();
        indexes(self.root).into_iter().map(|index| (name(&index), index)).collect()
    }

    /// `parseStorage` over repos that are all due.
    fn walk(&self, first: bool) -> Cost {
        let mut cost = Cost::default();
        self.names(&mut cost);
        for (repo, index) in self.repos() {
            self.get(&mut cost, "RepoBlobsInfoTable", &repo);
            // ResetRepoReferences
            self.get(&mut cost, "RepoMetadataTable", &repo);
            let meta = self.record("RepoMetadataTable", &repo, "RepoMeta");
            let blobs = self.record("RepoBlobsInfoTable", &repo, "RepoBlobsInfo");
            if !first {
                // Statistics stay, about a third; the rest goes.
                self.update(&mut cost, "RepoMetadataTable", &repo, &[("RepoMeta", &meta[..meta.len() / 3])]);
            }
            let listed = descriptors(&index);
            for (done, descriptor) in listed.iter().enumerate() {
                let so_far = |record: &[u8]| record[..record.len() * (done + 1) / listed.len()].to_vec();
                let tag = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
                if tag.ends_with(".sig") {
                    // AddManifestSignature; a trust store would add two reads and a write.
                    self.get(&mut cost, "RepoMetadataTable", &repo);
                    self.update(&mut cost, "RepoMetadataTable", &repo, &[("RepoMeta", &so_far(&meta))]);
                    continue;
                }
                // SetRepoReference
                let digest = descriptor["digest"].as_str().unwrap();
                let image = self.record("ImageMetaTable", digest, "ImageMeta");
                self.update(&mut cost, "ImageMetaTable", digest, &[("ImageMeta", &image)]);
                self.get(&mut cost, "RepoMetadataTable", &repo);
                self.get(&mut cost, "RepoBlobsInfoTable", &repo);
                let blobs = if first { so_far(&blobs) } else { blobs.clone() };
                let set = [("RepoBlobsInfo", &blobs[..]), ("RepoLastUpdated", &[8, 1, 16, 1][..])];
                self.update(&mut cost, "RepoBlobsInfoTable", &repo, &set);
                self.update(&mut cost, "RepoMetadataTable", &repo, &[("RepoMeta", &so_far(&meta))]);
            }
        }
        cost
    }

    /// `parseStorage` over repos that are all older than their records.
    fn unchanged(&self) -> Cost {
        let mut cost = Cost::default();
        self.names(&mut cost);
        for (repo, _) in self.repos() {
            self.get(&mut cost, "RepoBlobsInfoTable", &repo);
        }
        cost
    }
}

fn units(answer: &Value) -> f64 {
    answer["ConsumedCapacity"]["CapacityUnits"].as_f64().unwrap()
}
