//! Object stores as real servers on loopback, ended with the test: SeaweedFS for S3, fake-gcs-server, Azurite.
//!
//! A [`Bucket`] takes a local store the way zot would have written it: key by key, and duplicates as zero-length
//! placeholders if the test wants that.

use super::server::{eventually, free_port};
use base64::Engine as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::signer::{Method, Signer as _};
use object_store::{Attribute, ObjectStore, ObjectStoreExt as _, PutOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Uploads in flight.
const UPLOADS: usize = 32;

/// What Azurite calls its only account, and its key, which its documentation gives to everybody.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The user of the S3 server.
pub const S3_KEYS: [&str; 2] = ["AKTEST", "SKTEST-Secret"];

/// Which of zot's storage drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    /// Name in zot's config.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }
}

/// A running server; dropping it kills it.
pub struct ObjectServer {
    pub kind: Kind,
    pub port: u16,
    dir: TempDir,
    child: Child,
    runtime: Runtime,
}

impl ObjectServer {
    /// Start one and wait until it answers.
    pub fn start(kind: Kind) -> Self {
        // The client library takes the process's own choice of cryptography, even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let (mut command, ready) = match kind {
            Kind::S3 => seaweedfs(dir.path(), port),
            Kind::Gcs => fake_gcs(port),
            Kind::Azure => azurite(port),
        };
        let log = File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(dir.path());
        let child = command.spawn().unwrap_or_else(|error| panic!("{kind:?} is installed by tests/run: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut server = Self { kind, port, dir, child, runtime };
        eventually("an object store answers", || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended: {}", server.log());
            ready()
        });
        server
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A new bucket, for a store with this `rootdirectory`.
    pub fn bucket(&self, name: &str, rootdirectory: Option<&str>) -> Bucket<'_> {
        let at = format!("http://127.0.0.1:{}", self.port);
        match self.kind {
            Kind::S3 => {
                let client = s3(self.port, name).build().unwrap();
                let path = object_store::path::Path::default();
                let url = self.runtime.block_on(client.signed_url(Method::PUT, &path, Duration::from_secs(60)));
                ureq::put(url.unwrap().as_str()).send_empty().unwrap();
            }
            Kind::Gcs => {
                let body = json!({"name": name}).to_string();
                let request = ureq::post(format!("{at}/storage/v1/b?project=test"));
                request.content_type("application/json").send(body).unwrap();
            }
            Kind::Azure => {
                let url = format!("{at}/{AZURE_ACCOUNT}/{name}?restype=container&{}", may_create_containers());
                ureq::put(url).send_empty().unwrap();
            }
        }
        self.existing(name, rootdirectory)
    }

    /// A bucket that is there already (or is not, and shall not be).
    pub fn existing(&self, name: &str, rootdirectory: Option<&str>) -> Bucket<'_> {
        Bucket { server: self, name: name.to_owned(), rootdirectory: rootdirectory.map(str::to_owned) }
    }

    /// End it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where `tests/run` puts what it installs.
fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services").join(path)
}

/// How to start a server, and whether it is up.
type Start = (Command, Box<dyn Fn() -> bool>);

/// Whether the address answers 200.
fn answers(url: &str) -> bool {
    ureq::get(url).call().is_ok()
}

fn seaweedfs(dir: &Path, port: u16) -> Start {
    let [access, secret] = S3_KEYS;
    let users = json!({"identities": [{
        "name": "zot",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    fs::write(dir.join("s3.json"), users.to_string()).unwrap();
    fs::create_dir(dir.join("data")).unwrap();
    let master = free_port();
    let mut command = Command::new(installed("venv/bin/weed"));
    command.args(["server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.config=s3.json"]);
    command.args([format!("-s3.port={port}"), format!("-master.port={master}")]);
    for part in ["master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc"]
    {
        command.arg(format!("-{part}={}", free_port()));
    }
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.max=100"]);
    command.args(["-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false", "-volume.preStopSeconds=0"]);
    let ready = move || {
        answers(&format!("http://127.0.0.1:{port}/healthz"))
            && answers(&format!("http://127.0.0.1:{master}/dir/assign"))
    };
    (command, Box::new(ready))
}

fn fake_gcs(port: u16) -> Start {
    let mut command = Command::new(installed("fake-gcs-server"));
    command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-log-level", "warn"]);
    // The public host without a port, so that a proxy on another port is the same host.
    command.args(["-public-host", "127.0.0.1", "-port", &port.to_string()]);
    command.args(["-external-url", &format!("http://127.0.0.1:{port}")]);
    (command, Box::new(move || answers(&format!("http://127.0.0.1:{port}/_internal/healthcheck"))))
}

fn azurite(port: u16) -> Start {
    let mut command = Command::new("node");
    command.arg(installed("node_modules/azurite/dist/src/blob/main.js"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
    command.args(["--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"]);
    // Any answer will do, and without a signature it is a refusal.
    let ready = move || {
        let answer = ureq::get(format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}?comp=list")).call();
        matches!(answer, Err(ureq::Error::StatusCode(_)))
    };
    (command, Box::new(ready))
}

/// A token of the account that lets its bearer create containers.
fn may_create_containers() -> String {
    const EXPIRY: &str = "2099-01-01T00:00:00Z";
    const VERSION: &str = "2019-12-12";
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &base64.decode(AZURE_KEY).unwrap());
    // Account, permissions, services, resource types, start, expiry, addresses, protocols, version.
    let text = format!("{AZURE_ACCOUNT}\nc\nb\nc\n\n{EXPIRY}\n\n\n{VERSION}\n");
    let signature = base64.encode(ring::hmac::sign(&key, text.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={VERSION}&ss=b&srt=c&sp=c&se={EXPIRY}&sig={signature}")
}

fn s3(port: u16, bucket: &str) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(S3_KEYS[0])
        .with_secret_access_key(S3_KEYS[1])
}

/// What zot's blob cache knows: by digest every recorded path, the one with the content first.
pub type Recorded = BTreeMap<String, Vec<String>>;

/// Objects by key: size, and modification time in whole seconds since 1970.
pub type Objects = BTreeMap<String, (u64, u64)>;

/// Requests to one bucket.
#[derive(Clone)]
enum Client {
    Store(Arc<dyn ObjectStore>),
    /// The server knows Google's JSON interface; of the XML one, which the library speaks, only reading.
    Gcs {
        http: reqwest::Client,
        at: String,
        objects: String,
    },
}

impl Client {
    async fn put(&self, key: &str, content: Vec<u8>, content_type: &'static str) {
        match self {
            Self::Store(store) => {
                let options = PutOptions {
                    attributes: [(Attribute::ContentType, content_type)].into_iter().collect(),
                    ..PutOptions::default()
                };
                let path = object_store::path::Path::parse(key).unwrap();
                store.put_opts(&path, content.into(), options).await.unwrap_or_else(|error| panic!("{key}: {error}"));
            }
            Self::Gcs { http, at, objects } => {
                let url = format!("{at}/upload{objects}?uploadType=media&name={key}");
                let done = http.post(url).header("content-type", content_type).body(content).send().await.unwrap();
                done.error_for_status().unwrap();
            }
        }
    }

    async fn delete(&self, key: &str) {
        match self {
            Self::Store(store) => store.delete(&object_store::path::Path::parse(key).unwrap()).await.unwrap(),
            Self::Gcs { http, at, objects } => {
                let url = format!("{at}{objects}/{}", key.replace('/', "%2F"));
                http.delete(url).send().await.unwrap().error_for_status().unwrap();
            }
        }
    }

    /// All objects, or those below a directory.
    async fn list(&self, below: Option<&str>) -> Objects {
        let mut found = Objects::new();
        match self {
            Self::Store(store) => {
                let below = below.map(|below| object_store::path::Path::parse(below).unwrap());
                let (mut pending, mut objects) = (vec![below], Vec::new());
                while let Some(prefix) = pending.pop() {
                    let listing = store.list_with_delimiter(prefix.as_ref()).await.unwrap();
                    pending.extend(listing.common_prefixes.into_iter().map(Some));
                    objects.extend(listing.objects);
                }
                found.extend(objects.into_iter().map(|meta| {
                    let seconds = u64::try_from(meta.last_modified.timestamp()).unwrap();
                    (meta.location.to_string(), (meta.size, seconds))
                }));
            }
            Self::Gcs { http, at, objects } => {
                let below = below.map(|below| format!("{below}/")).unwrap_or_default();
                let mut page = Some(String::new());
                while let Some(token) = page {
                    let url = format!("{at}{objects}?prefix={below}&pageToken={token}");
                    let reply = http.get(url).send().await.unwrap();
                    let reply = reply.error_for_status().unwrap().bytes().await.unwrap();
                    let reply: Value = serde_json::from_slice(&reply).unwrap();
                    for item in reply["items"].as_array().into_iter().flatten() {
                        let text = |field: &str| item[field].as_str().unwrap();
                        let updated: jiff::Timestamp = text("updated").parse().unwrap();
                        let seconds = u64::try_from(updated.as_second()).unwrap();
                        found.insert(text("name").to_owned(), (text("size").parse().unwrap(), seconds));
                    }
                    page = reply["nextPageToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
                }
            }
        }
        found
    }
}

/// A bucket (Azure: container) with one image store in it.
pub struct Bucket<'a> {
    server: &'a ObjectServer,
    pub name: String,
    /// `storageDriver.rootdirectory`.
    pub rootdirectory: Option<String>,
}

impl Bucket<'_> {
    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The `storageDriver` of a config; requests go to `port`: the server's own, or a proxy's before it. For GCS zot
    /// takes the address from the environment: [`Bucket::environment`].
    pub fn storage_driver(&self, port: u16) -> Value {
        let mut driver = match self.server.kind {
            Kind::S3 => json!({
                "bucket": self.name, "region": "us-east-1", "regionendpoint": format!("http://127.0.0.1:{port}"),
                "accesskey": S3_KEYS[0], "secretkey": S3_KEYS[1], "secure": false,
            }),
            Kind::Gcs => json!({"bucket": self.name}),
            Kind::Azure => json!({
                "container": self.name, "accountname": AZURE_ACCOUNT, "accountkey": AZURE_KEY,
                "credentials": {"type": "shared_key"},
                "serviceurl": format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}"),
            }),
        };
        driver["name"] = json!(self.server.kind.name());
        if let Some(rootdirectory) = &self.rootdirectory {
            driver["rootdirectory"] = json!(rootdirectory);
        }
        driver
    }

    /// The environment that goes with [`Bucket::storage_driver`].
    pub fn environment(&self, port: u16) -> Option<(&'static str, String)> {
        (self.server.kind == Kind::Gcs).then(|| ("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{port}")))
    }

    /// What zot calls `path` (relative to the store) in its blob cache: with the image store's root, without the driver's.
    pub fn recorded(&self, path: &str) -> String {
        let root = match (self.server.kind, &self.rootdirectory) {
            (Kind::S3, Some(root)) => root.trim_end_matches('/'),
            _ => "",
        };
        format!("{root}/{path}")
    }

    /// The key of `path` (relative to the store).
    pub fn key(&self, path: &str) -> String {
        let driver_root = match (self.server.kind, self.rootdirectory.as_deref()) {
            (Kind::S3, None) => "",
            (Kind::Gcs | Kind::Azure, None | Some("" | "/")) => "/zot",
            (_, Some(root)) => root.trim_end_matches('/'),
        };
        format!("{driver_root}{}", self.recorded(path)).trim_start_matches('/').to_owned()
    }

    /// A plain client of the whole bucket, whose requests go to this port.
    fn client(&self, port: u16) -> Client {
        match self.server.kind {
            Kind::S3 => Client::Store(Arc::new(s3(port, &self.name).build().unwrap())),
            Kind::Gcs => Client::Gcs {
                http: reqwest::Client::new(),
                at: format!("http://127.0.0.1:{port}"),
                objects: format!("/storage/v1/b/{}/o", self.name),
            },
            Kind::Azure => Client::Store(Arc::new(
                MicrosoftAzureBuilder::new()
                    .with_account(AZURE_ACCOUNT)
                    .with_access_key(AZURE_KEY)
                    .with_endpoint(format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}"))
                    .with_allow_http(true)
                    .with_container_name(&self.name)
                    .build()
                    .unwrap(),
            )),
        }
    }

    /// Put the local store at `root` into the bucket, every copy with its content.
    pub fn load(&self, root: &Path) {
        self.upload(files(root).into_iter().map(|(path, file)| (self.key(&path), fs::read(file).unwrap())).collect());
    }

    /// Put the local store at `root` into the bucket as zot's deduplication leaves it: only the first copy of a blob has
    /// its content. Returns what zot's blob cache knows then.
    pub fn load_deduped(&self, root: &Path) -> Recorded {
        let mut recorded = Recorded::new();
        let objects = files(root).into_iter().map(|(path, file)| {
            let mut content = fs::read(file).unwrap();
            if let Some(digest) = digest_of(&path) {
                let known = recorded.entry(digest).or_default();
                if !known.is_empty() {
                    content.clear();
                }
                known.push(self.recorded(&path));
            }
            (self.key(&path), content)
        });
        self.upload(objects.collect());
        recorded
    }

    /// Put objects by key.
    pub fn upload(&self, objects: Vec<(String, Vec<u8>)>) {
        let client = self.client(self.server.port);
        self.server.runtime.block_on(async {
            let mut running = JoinSet::new();
            for (key, content) in objects {
                while running.len() >= UPLOADS {
                    running.join_next().await.unwrap().unwrap();
                }
                let client = client.clone();
                running.spawn(async move { client.put(&key, content, "application/octet-stream").await });
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
        });
    }

    /// Put one file of the store.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.upload(vec![(self.key(path), content.to_vec())]);
    }

    /// Put one file of the store with a content type.
    pub fn put_as(&self, path: &str, content: &[u8], content_type: &'static str) {
        let client = self.client(self.server.port);
        self.server.runtime.block_on(client.put(&self.key(path), content.to_vec(), content_type));
    }

    /// Delete one file of the store.
    pub fn delete(&self, path: &str) {
        let client = self.client(self.server.port);
        self.server.runtime.block_on(client.delete(&self.key(path)));
    }

    /// Every key with its size and its modification time in whole seconds since 1970.
    pub fn objects(&self) -> Objects {
        self.objects_through(self.server.port)
    }

    /// The same, asked for at this port.
    pub fn objects_through(&self, port: u16) -> Objects {
        let client = self.client(port);
        self.server.runtime.block_on(client.list(None))
    }

    /// The same of this store alone, where the bucket has others.
    pub fn own_objects(&self) -> Objects {
        let client = self.client(self.server.port);
        self.server.runtime.block_on(client.list(Some(self.key("").trim_end_matches('/'))))
    }

    /// Give every local file the time of its object, so that a walk of either records the same; a blob that is a
    /// placeholder in the bucket gets the time of the copy that has the content. Waits until all these seconds are over:
    /// what is walked in the second of its change is due again.
    pub fn date_like_objects(&self, root: &Path, recorded: &Recorded) {
        let objects = self.own_objects();
        let last = objects.values().map(|(_, seconds)| *seconds).max().unwrap_or_default();
        let over = SystemTime::UNIX_EPOCH + Duration::from_secs(last + 1);
        eventually("the second of the last change is over", || SystemTime::now() > over);
        for (path, file) in files(root) {
            let original = digest_of(&path).and_then(|digest| recorded.get(&digest)?.first());
            let key = match original {
                Some(original) => self.key(original.strip_prefix(self.recorded("").as_str()).unwrap()),
                None => self.key(&path),
            };
            let (_, seconds) = objects.get(&key).unwrap_or_else(|| panic!("{key} is not in the bucket"));
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds);
            File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        }
    }
}

/// All files below `root` by their relative names.
pub fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut out = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                out.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path);
            }
        }
    }
    out
}

/// The digest of the blob at a path relative to the store, if it is one.
fn digest_of(path: &str) -> Option<String> {
    let (_, blob) = path.rsplit_once("/blobs/")?;
    blob.split_once('/').map(|(algorithm, hex)| format!("{algorithm}:{hex}"))
}
