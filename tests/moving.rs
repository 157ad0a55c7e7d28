//! Storage that changes while it is walked, at chosen instants: a stamp is there afterwards only over records that say
//! what storage says now, and what did not come to rest is named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::progress::Silent;
use metactl::records::fold::Rules;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::walk::plan::{Scope, plan};
use metactl::walk::{StampOutcome, Walk, WalkReport};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::command::{Sandbox, push, push_at, run};
use support::driver::{Driver, Raw};
use support::dynamodb::{Server, url};
use support::proxy::Proxy;
use support::records::visible;
use support::walk::{STAMP, open_writer, walk_at};

/// What a walk is about to do, or has just done, with storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instant<'a> {
    /// It is about to list the repos: once for the plan, then to look again.
    Listing,
    /// It is about to read this repo's index.
    Index(&'a str),
    /// It has read blobs of this repo and not recorded them yet.
    Blobs(&'a str),
}

/// Told of every instant before the walk goes on.
type Event = Arc<dyn Fn(Instant<'_>) + Send + Sync>;

/// A local store to which something happens while it is read.
struct Eventful(LocalStore, Event);

impl ImageStore for Eventful {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        (self.1)(Instant::Listing);
        self.0.list_repos(cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.0.stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.0.read_index(repo)
    }

    fn open_index(&self, repo: &str) -> Result<(IndexStat, Vec<u8>), StorageError> {
        (self.1)(Instant::Index(repo));
        self.0.open_index(repo)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let blobs = self.0.read_blobs(repo, digests);
        (self.1)(Instant::Blobs(repo));
        blobs
    }
}

/// Push as zot would now: an image of its own under two tags.
fn push_now(root: &Path, repo: &str, mark: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    push_at(root, repo, &["v1", mark], mark, i64::try_from(now.as_nanos()).unwrap());
}

/// A stamped registry in which one repo is due, one is not, and one has gone.
struct Scene<'d> {
    driver: Driver<'d>,
    root: PathBuf,
    before: Raw,
    _dir: tempfile::TempDir,
}

impl<'d> Scene<'d> {
    fn new(driver: Driver<'d>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("registry");
        std::fs::create_dir(&root).unwrap();
        for repo in ["due", "gone", "same"] {
            push(&root, repo, &["v1"], &format!("first {repo}"));
        }
        assert!(walk_at(&driver.place(&root), &root, false).unwrap().stamp.is_there());
        std::fs::remove_dir_all(root.join("gone")).unwrap();
        push_now(&root, "due", "second");
        Self { driver, before: driver.dump(&root), root, _dir: dir }
    }

    /// Plan, let `between` happen, and walk while `event` happens.
    fn walk(
        &self,
        between: impl FnOnce(&Path),
        event: impl Fn(&Path, Instant<'_>) + Send + Sync + 'static,
    ) -> WalkReport {
        let root = self.root.clone();
        let event: Event = Arc::new(move |instant| event(&root, instant));
        let stores = Stores::new(Arc::new(Eventful(LocalStore::new(&self.root), event)), Vec::new());
        let (cancel, scope) = (Cancel::default(), Scope::default());
        let mut writer = open_writer(&self.driver.place(&self.root)).unwrap();
        let plan = plan(&stores, Some(writer.reader()), &scope, 2, &Silent, &cancel).unwrap();
        assert_eq!((&plan.changed_repos()[..], &plan.gone[..]), (&["due"][..], &["gone".to_owned()][..]));
        between(&self.root);
        let walk = Walk {
            stores: &stores,
            scope: &scope,
            rules: Rules::default(),
            jobs: 2,
            prune: false,
            stamp: Ok(STAMP),
            progress: &Silent,
            cancel: &cancel,
        };
        walk.run(&mut *writer, plan).unwrap()
    }

    /// What the metaDB says, without instants.
    fn records(&self) -> [Value; 2] {
        records(&self.driver.dump(&self.root))
    }

    /// Whether it is stamped.
    fn stamped(&self) -> bool {
        self.driver.dump(&self.root).get("Version", "FastRestartStamp").is_some_and(|stamp| !stamp.is_empty())
    }

    /// The invariant: what the report says of the stamp is so, and a stamp is there only over the records that a walk of
    /// what storage holds now makes; such a walk then gets to the end, and to what it comes to if nothing happens meanwhile.
    fn settle(self, what: &str, report: &WalkReport) {
        let stamped = self.stamped();
        assert_eq!(report.stamp.is_there(), stamped, "{what}: {report:?}");
        assert!(report.complete() || !stamped, "{what}: {report:?}");
        let got = self.records();
        let walk = |force| {
            let report = walk_at(&self.driver.place(&self.root), &self.root, force).unwrap();
            assert!(report.complete() && report.stamp.is_there(), "{what}: {report:?}");
            self.records()
        };
        let next = walk(false);
        assert!(!stamped || got == next, "{what}: the stamp lies: {got:?}\nnot {next:?}\n{report:?}");
        assert_eq!(next, walk(true), "{what}: {report:?}");
        self.driver.restore(&self.root, &self.before);
        // But for what is kept of images that had a tag for a while.
        assert_eq!(tags(&next), tags(&walk(true)), "{what}: {report:?}");
    }
}

/// The tags of every repo.
fn tags([metas, _]: &[Value; 2]) -> Vec<(&String, &Value)> {
    metas.as_object().unwrap().iter().map(|(repo, meta)| (repo, &meta["Tags"])).collect()
}

fn records(state: &Raw) -> [Value; 2] {
    let mut seen = visible(state);
    ["RepoMeta", "RepoBlobsMeta"].map(|bucket| seen[bucket].take())
}

/// Let something happen at the first of the instants that `when` picks.
fn once(
    when: impl Fn(Instant<'_>) -> bool + Send + Sync + 'static,
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> impl Fn(&Path, Instant<'_>) + Send + Sync + 'static {
    nth(1, when, change)
}

fn nth(
    number: usize,
    when: impl Fn(Instant<'_>) -> bool + Send + Sync + 'static,
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> impl Fn(&Path, Instant<'_>) + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |root, instant| {
        if when(instant) && count.fetch_add(1, Ordering::SeqCst) + 1 == number {
            change(root);
        }
    }
}

/// The second listing looks for what changed since the first.
fn looking_again(
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> impl Fn(&Path, Instant<'_>) + Send + Sync + 'static {
    nth(2, |instant| instant == Instant::Listing, change)
}

fn remove(root: &Path, repo: &str) {
    std::fs::remove_dir_all(root.join(repo)).unwrap();
}

fn nothing(_: &Path) {}

/// All that can happen, on one driver.
fn everything(driver: Driver<'_>) {
    pushed_once(driver);
    pushed_at_every_read(driver);
    pushed_elsewhere(driver);
    vanished(driver);
}

/// A push between reading and recording: what is recorded is the push.
fn pushed_once(driver: Driver<'_>) {
    for event in ["index", "blobs"] {
        let scene = Scene::new(driver);
        let due = move |instant: Instant<'_>| match event {
            "index" => instant == Instant::Index("due"),
            _ => instant == Instant::Blobs("due"),
        };
        let report = scene.walk(nothing, once(due, |root| push_now(root, "due", "third")));
        assert!(report.complete() && matches!(report.stamp, StampOutcome::Written(_)), "{event}: {report:?}");
        assert!(scene.records()[0]["due"]["Tags"]["third"].is_object(), "{event}: {:?}", scene.records());
        scene.settle(event, &report);
    }
}

/// A repo that never rests keeps its old records, is named, and prevents the stamp; the others are recorded.
fn pushed_at_every_read(driver: Driver<'_>) {
    let scene = Scene::new(driver);
    let count = AtomicUsize::new(0);
    let report = scene.walk(
        |root| push_now(root, "late", "new"),
        move |root, instant| {
            if instant == Instant::Blobs("due") {
                push_now(root, "due", &format!("push{}", count.fetch_add(1, Ordering::SeqCst)));
            }
        },
    );
    assert_eq!(report.moving, ["due"], "{report:?}");
    assert!(report.failed.is_empty() && report.partial.is_empty() && report.broken_off.is_none(), "{report:?}");
    assert!(matches!(&report.stamp, StampOutcome::Absent(_)), "{report:?}");
    let (before, now) = (records(&scene.before), scene.records());
    assert_eq!(before.map(|bucket| bucket["due"].clone()), now.clone().map(|bucket| bucket["due"].clone()));
    assert!(now[0]["late"].is_object() && now[0]["gone"].is_null(), "{now:?}");
    scene.settle("a repo that never rests", &report);
}

/// Repos that were not due when the walk was planned.
fn pushed_elsewhere(driver: Driver<'_>) {
    for repo in ["late", "same", "due"] {
        let scene = Scene::new(driver);
        let report = scene.walk(nothing, looking_again(move |root| push_now(root, repo, "meanwhile")));
        assert!(report.complete() && matches!(report.stamp, StampOutcome::Written(_)), "{repo}: {report:?}");
        assert!(scene.records()[0][repo]["Tags"]["meanwhile"].is_object(), "{repo}: {:?}", scene.records());
        scene.settle(repo, &report);
    }
    // It was to be deleted, and came back.
    let scene = Scene::new(driver);
    let report = scene.walk(|root| push_now(root, "gone", "again"), |_, _| {});
    assert!(report.complete() && report.deleted.is_empty() && report.stamp.is_there(), "{report:?}");
    assert!(scene.records()[0]["gone"]["Tags"]["again"].is_object());
    scene.settle("a repo that came back", &report);
}

/// A repo that vanishes leaves no stamp over its records.
fn vanished(driver: Driver<'_>) {
    let vanish = |event: &str, repo: &'static str| {
        let scene = Scene::new(driver);
        let report = match event {
            "before its index is read" => scene
                .walk(nothing, once(move |instant| instant == Instant::Index(repo), move |root| remove(root, repo))),
            // Manifests are read first, then configs.
            "before it is recorded" => {
                let read = move |instant: Instant<'_>| instant == Instant::Blobs(repo);
                scene.walk(nothing, nth(2, read, move |root| remove(root, repo)))
            }
            _ => scene.walk(nothing, looking_again(move |root| remove(root, repo))),
        };
        scene.settle(&format!("{repo} vanishes {event}"), &report);
    };
    vanish("before its index is read", "due");
    vanish("before it is recorded", "due");
    vanish("before the walk looks again", "due");
    vanish("before the walk looks again", "same");
}

#[test]
fn on_a_boltdb_file() {
    everything(Driver::Bolt);
}

#[test]
fn on_a_redb_file() {
    everything(Driver::Redb);
}

#[test]
fn on_dynamodb() {
    everything(Driver::DynamoDb(&Server::start()));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn on_redis() {
    everything(Driver::Redis(&support::setups::plain()));
}

/// The binary names what kept changing. Every request to the metaDB lets the repo's index change before it is answered,
/// so that it does between each reading and its record.
#[test]
fn the_command_says_what_kept_moving() {
    let sandbox = Sandbox::new(|root| {
        push(root, "rests", &["v1"], "1");
        push(root, "moves", &["v1"], "2");
    });
    // Nobody answers there.
    let port = support::server::free_port().to_string();
    let config = std::fs::read_to_string(&sandbox.config).unwrap();
    std::fs::write(&sandbox.config, config.replace("\"5000\"", &format!("\"{port}\""))).unwrap();
    let server = Server::start();
    server.create_tables("Zot");
    let proxy = Proxy::start(server.port);
    let index = sandbox.root.join("moves/index.json");
    let mut text = std::fs::read_to_string(&index).unwrap();
    proxy.rule(move |_| {
        // Longer each time: another index, whatever a clock's resolution.
        text.push('\n');
        let new = index.with_extension("new");
        std::fs::write(&new, &text).unwrap();
        std::fs::rename(new, &index).unwrap();
        None
    });
    let metrics = sandbox.dir.path().join("walk.prom");
    let command = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.args(["--metadb", &url(proxy.port, "Zot"), "--metrics-file"]).arg(&metrics);
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "aws-Secret");
        run(&mut command)
    };
    let ran = command(&["walk", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = ran.json();
    assert_eq!((&said["result"], &said["moving"]), (&json!("partial"), &json!(["moves"])), "{said}");
    assert_eq!((&said["repos"]["moving"], &said["repos"]["parsed"]), (&json!(1), &json!(1)), "{said}");
    assert_eq!((&said["stamp"]["outcome"], &said["stamp"]["stamp"]), (&json!("absent"), &Value::Null), "{said}");
    let text = std::fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("metactl_walk_repos{outcome=\"moving\"} 1\n"), "{text}");
    assert!(!text.contains("metactl_last_success"), "{text}");

    let ran = command(&["walk"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("moves kept changing while it was read\n"), "{ran:?}");
    assert!(ran.stdout.contains("stamp absent: the walk is not complete\n"), "{ran:?}");

    proxy.clear();
    let ran = command(&["walk", "--format", "json"]);
    assert_eq!((ran.code, &ran.json()["moving"]), (Some(0), &json!([])), "{ran:?}");
}
