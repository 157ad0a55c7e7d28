//! The real binary on failing storage: each system call that touches metaDB, state file or store fails, once or from then
//! on. Never a stamp that claims more than there is, never a metaDB that does not open, always an exit code that says so.
//!
//! strace injects the failures, so nothing of the program is replaced. `tests/crash.rs` looks at what a crash leaves on the
//! disk, `tests/bolt_faults.rs` at single commits; docs/faults.md sums up all of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed; one prints what came of faults"
)]

mod support;

use metactl::metadb::bolt::Database;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use support::command::{Ran, Sandbox, push, push_at, run};
use support::driver::{Driver, Raw, check_bolt};
use support::records::visible;
use support::walk::open_writer;

/// Calls that change files. Nothing but metactl's own work makes them.
const CHANGES: [&str; 7] = ["pwrite64", "fdatasync", "fsync", "ftruncate", "linkat", "rename", "flock"];
/// Calls that look at files; these are told apart by the files.
const LOOKS: [&str; 7] = ["openat", "pread64", "read", "fstat", "statx", "newfstatat", "getdents64"];

/// How a changing call fails: with what, and whether from then on.
const FAILURES: [(&str, bool); 2] = [("EIO", false), ("ENOSPC", true)];

const REPOS: [&str; 4] = ["changed", "gone", "same", "fresh"];

/// What is run, and on what.
struct Scene {
    name: &'static str,
    driver: Driver<'static>,
    sandbox: Sandbox,
    arguments: Vec<String>,
    /// What the run may change: paths and content to start from.
    start: BTreeMap<PathBuf, Option<Vec<u8>>>,
    old: Raw,
    new: Raw,
}

impl Scene {
    /// A stamped metaDB of three repos. For a walk one of them changes, one stays and one goes, and another one is new;
    /// without `metadb`, there is none yet. For `verify` there is a state file.
    fn new(name: &'static str, driver: Driver<'static>, metadb: bool, command: &[&str]) -> Self {
        let state = command[0] == "verify";
        let sandbox = Sandbox::new(|root| {
            for repo in ["changed", "gone", "same"] {
                push(root, repo, &["v1"], &format!("first {repo}"));
            }
        });
        let (meta, state_file) =
            (PathBuf::from(driver.place(&sandbox.root).location()), sandbox.dir.path().join("state"));
        let url = format!("{}:{}", driver.place(&sandbox.root).driver(), meta.display());
        let mut arguments: Vec<String> =
            ["--metadb", &url, "--jobs", "1", "--format", "json"].map(str::to_owned).into();
        if state {
            arguments.extend(["--state".into(), state_file.display().to_string()]);
        }
        let with = |arguments: &[String], command: &[&str]| {
            let mut ran = sandbox.command(command);
            ran.args(arguments);
            if state {
                ran.env_remove("METACTL_NO_STATE");
            }
            run(&mut ran)
        };
        if metadb {
            assert_eq!(with(&arguments, &["walk"]).code, Some(0));
        }
        if metadb && !state {
            // The stamp of another build, or there would be nothing to do.
            let mut writer = open_writer(&driver.place(&sandbox.root)).unwrap();
            let stamp = writer.reader().stamp().unwrap();
            writer.set_stamp(stamp.as_deref(), Some(b"v2.1.19+old|0123")).unwrap();
        }
        if state {
            assert_eq!(with(&arguments, &["verify"]).code, Some(0));
        }
        if command[0] == "walk" {
            fs::remove_dir_all(sandbox.root.join("gone")).unwrap();
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            push_at(&sandbox.root, "changed", &["v1", "v2"], "second", i64::try_from(now.as_nanos()).unwrap());
            push(&sandbox.root, "fresh", &["v1"], "third");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let start = [&meta, &state_file].map(|path| (path.clone(), fs::read(path).ok()));
        let old = driver.dump(&sandbox.root);
        arguments.splice(0..0, command.iter().map(|word| (*word).to_owned()));
        let mut scene = Self { name, driver, sandbox, arguments, start: start.into(), old, new: Raw::default() };
        let ran = scene.run(&mut scene.command());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.new = driver.dump(&scene.sandbox.root);
        scene
    }

    fn command(&self) -> Command {
        self.dressed(self.sandbox.command(&[]))
    }

    fn dressed(&self, mut command: Command) -> Command {
        command.args(&self.arguments);
        if self.arguments.iter().any(|word| word == "--state") {
            command.env_remove("METACTL_NO_STATE");
        }
        command
    }

    /// Under strace, with this instruction and log.
    fn traced(&self, options: &[String]) -> Command {
        let plain = self.command();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq"]).args(options).arg("--").arg(plain.get_program()).args(plain.get_args());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    }

    fn run(&self, command: &mut Command) -> Ran {
        for (path, content) in &self.start {
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        let ran = run(command);
        // What a failed removal leaves of a new file is not in the way, but there should not be hundreds of it.
        for entry in fs::read_dir(&self.sandbox.root).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path).unwrap();
            }
        }
        ran
    }

    /// Files and directories that the run looks at.
    fn looked_at(&self) -> Vec<String> {
        let mut paths: Vec<PathBuf> = self.start.keys().cloned().collect();
        let mut pending = vec![self.sandbox.root.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path.clone());
                }
                paths.push(path);
            }
            paths.push(directory);
        }
        paths.sort();
        paths.dedup();
        paths.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]).collect()
    }

    /// Every repo as it was or as it should be; stamped only if all are as they should be. Returns whether it is stamped.
    fn judge(&self, what: &str, ran: &Ran) -> bool {
        let meta = PathBuf::from(self.driver.place(&self.sandbox.root).location());
        let state = match self.driver {
            // What was never made, or is still empty, is no metaDB.
            _ if fs::metadata(&meta).map_or(0, |found| found.len()) == 0 => Raw::default(),
            Driver::Redb => {
                // Repairs what was not closed cleanly, as the next walk does.
                drop(redb::Database::open(&meta).unwrap_or_else(|error| panic!("{what}: {error}: {ran:?}")));
                self.driver.dump(&self.sandbox.root)
            }
            _ => {
                let report =
                    check_bolt(&Database::open(&meta).unwrap_or_else(|error| panic!("{what}: {error}: {ran:?}")));
                assert!(report.is_clean(), "{what}: {:?}", report.problems);
                self.driver.dump(&self.sandbox.root)
            }
        };
        let [old, new, got] = [&self.old, &self.new, &state].map(visible);
        let mut all_new = true;
        for repo in REPOS {
            let records = |db: &serde_json::Value| ["RepoMeta", "RepoBlobsMeta"].map(|bucket| db[bucket][repo].clone());
            let is_new = records(&got) == records(&new);
            assert!(is_new || records(&got) == records(&old), "{what}: {repo} is half written: {ran:?}");
            all_new &= is_new;
        }
        let stamp = state.get("Version", "FastRestartStamp");
        if stamp.is_some() && stamp != self.old.get("Version", "FastRestartStamp") {
            assert!(all_new, "{what}: a false stamp: {ran:?}");
        }
        if self.arguments[0] == "walk" && stamp.is_some() && !all_new {
            assert_eq!(got, old, "{what}: something changed under the old stamp: {ran:?}");
        }
        if ran.code == Some(0) {
            assert_eq!(
                (all_new, stamp),
                (true, self.new.get("Version", "FastRestartStamp")),
                "{what}: 0 is a lie: {ran:?}"
            );
        } else {
            assert!(matches!(ran.code, Some(1..=3)), "{what}: {ran:?}");
            assert!(ran.stderr.contains("hint: ") || ran.json()["result"] == "partial", "{what}: {ran:?}");
        }
        // An empty metaDB where there was none is as good as none.
        if ran.code == Some(3) && !(self.old == Raw::default() && state == Raw::new_metadb()) {
            assert_eq!(got, old, "{what}: 3 says that nothing was changed: {ran:?}");
        }
        stamp.is_some()
    }

    /// Let calls fail. Returns how often which exit code came of it.
    fn fails(&self, call: &str, error: &str, from_then_on: bool, files: &[String]) -> BTreeMap<i32, usize> {
        let log = self.sandbox.dir.path().join("log");
        let mut codes = BTreeMap::new();
        for number in 1.. {
            let what =
                format!("{}: {call} {error} at {number}{}", self.name, if from_then_on { " and after" } else { "" });
            let mut options = files.to_vec();
            let when = format!("{number}{}", if from_then_on { "+" } else { "" });
            options.extend(["-e".into(), format!("trace={call}")]);
            options.extend(["-e".into(), format!("inject={call}:error={error}:when={when}")]);
            options.extend(["-o".into(), log.display().to_string()]);
            let ran = self.run(&mut self.traced(&options));
            if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
                assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
                break;
            }
            self.judge(&what, &ran);
            *codes.entry(ran.code.unwrap()).or_default() += 1;
            let again = self.run_again();
            assert_eq!(again.code, Some(0), "{what}: the next run: {again:?} after {ran:?}");
            assert!(self.judge(&what, &again) || self.arguments[0] != "walk", "{what}");
        }
        codes
    }

    /// Once more on what the last run left.
    fn run_again(&self) -> Ran {
        run(&mut self.command())
    }

    fn fails_everywhere(&self) {
        let looked_at = self.looked_at();
        for call in CHANGES {
            for (error, from_then_on) in FAILURES {
                self.report(call, error, from_then_on, &[]);
            }
        }
        for call in LOOKS {
            self.report(call, "EIO", false, &looked_at);
        }
    }

    /// Whatever becomes of the state file, the command does its work.
    fn never_minds(&self) {
        for call in CHANGES {
            for (error, from_then_on) in FAILURES {
                let codes = self.report(call, error, from_then_on, &[]);
                assert!(codes.keys().all(|code| *code == 0), "{call} {error}: {codes:?}");
            }
        }
    }

    fn report(&self, call: &str, error: &str, from_then_on: bool, files: &[String]) -> BTreeMap<i32, usize> {
        let codes = self.fails(call, error, from_then_on, files);
        if !codes.is_empty() {
            let how = if from_then_on { "from then on" } else { "once" };
            println!("| {} | `{call}` | {error} | {how} | {} |", self.name, table(&codes));
        }
        codes
    }
}

fn table(codes: &BTreeMap<i32, usize>) -> String {
    let one = |(code, count): (&i32, &usize)| format!("{count} × exit {code}");
    codes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_walk_over_a_boltdb_file() {
    Scene::new("walk, BoltDB", Driver::Bolt, true, &["walk"]).fails_everywhere();
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_walk_over_a_redb_file() {
    Scene::new("walk, redb", Driver::Redb, true, &["walk"]).fails_everywhere();
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_first_walk() {
    Scene::new("first walk, BoltDB", Driver::Bolt, false, &["walk"]).fails_everywhere();
    Scene::new("first walk, redb", Driver::Redb, false, &["walk"]).fails_everywhere();
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn the_stamp() {
    for driver in Driver::BOTH {
        let [write, clear] = match driver {
            Driver::Bolt => ["stamp write, BoltDB", "stamp clear, BoltDB"],
            _ => ["stamp write, redb", "stamp clear, redb"],
        };
        Scene::new(write, driver, true, &["stamp", "write"]).fails_everywhere();
        Scene::new(clear, driver, true, &["stamp", "clear"]).fails_everywhere();
    }
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn the_state_file() {
    Scene::new("verify, state file", Driver::Bolt, true, &["verify"]).never_minds();
}
