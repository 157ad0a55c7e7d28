//! The real binary, run as a person or cron would: a clean environment, a deadline, both streams caught.

use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A command that runs longer than this hangs.
const HANG: Duration = Duration::from_secs(120);

/// The identity that every command is told.
pub const BUILD: [&str; 4] = ["--release-tag", "v2.1.20", "--commit", "v2.1.20-0-g3b5796d"];

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        assert_ne!(ran.code, Some(101), "{ran:?}");
        assert!(!matches!(ran.signal, Some(6 | 11)), "{ran:?}");
        ran
    }

    /// The JSON on stdout, which must be one document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The binary with nothing in its environment.
pub fn metactl() -> Command {
    at(Path::new(env!("CARGO_BIN_EXE_metactl")))
}

/// As [`metactl`], another copy of it.
pub fn at(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Wait for a child, which must not hang.
pub fn finish(child: Child) -> Ran {
    let pid = i32::try_from(child.id()).unwrap();
    let (done, hangs) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let hung = hangs.recv_timeout(HANG).is_err_and(|end| end == std::sync::mpsc::RecvTimeoutError::Timeout);
        if hung {
            kill(pid, rustix::process::Signal::KILL);
        }
        hung
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(!watchdog.join().unwrap(), "it hangs: {:?}", Ran::from(output));
    Ran::from(output)
}

/// Send a signal; a process that is gone is none to worry about.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// Run to the end.
pub fn run(command: &mut Command) -> Ran {
    finish(command.spawn().unwrap())
}

/// A registry in a directory of its own.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub root: PathBuf,
    pub config: PathBuf,
}

impl Sandbox {
    /// A store that `fill` lays out, below a BoltDB metaDB that zot would use.
    pub fn new(fill: impl FnOnce(&Path)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), fill)
    }

    /// The same in a given directory.
    pub fn at(dir: tempfile::TempDir, fill: impl FnOnce(&Path)) -> Self {
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (root, config) = (dir.path().join("registry"), dir.path().join("config.json"));
        std::fs::create_dir(&root).unwrap();
        fill(&root);
        let sandbox = Self { dir, root, config };
        sandbox.configure(&serde_json::json!({}));
        sandbox
    }

    /// Write the config, with `storage` merged into its storage section.
    pub fn configure(&self, storage: &Value) {
        let mut section = serde_json::json!({"rootDirectory": self.root, "fastRestart": true, "dedupe": false});
        for (key, value) in storage.as_object().unwrap() {
            section[key] = value.clone();
        }
        let config = serde_json::json!({
            "distSpecVersion": "1.1.1",
            "storage": section,
            "http": {"address": "127.0.0.1", "port": "5000"},
            "extensions": {"search": {"enable": true}},
        });
        std::fs::write(&self.config, config.to_string()).unwrap();
    }

    /// The binary with this config and the usual build.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = metactl();
        command.arg("--config").arg(&self.config).args(BUILD).args(["--jobs", "2"]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Walk to the end, which must succeed.
    pub fn walk(&self) {
        let ran = self.run(&["walk"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    pub fn meta(&self) -> PathBuf {
        self.root.join("meta.db")
    }

    /// Everything below the sandbox.
    pub fn content(&self) -> BTreeMap<PathBuf, String> {
        content(self.dir.path())
    }
}

/// Every name below a directory with what is there: type, size and hash. Nothing is followed.
pub fn content(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::symlink_metadata(&path).unwrap();
            let what = if found.is_dir() {
                pending.push(path.clone());
                "directory".to_owned()
            } else if found.is_file() && found.len() < 64 << 20 {
                super::store::sha256(&std::fs::read(&path).unwrap())
            } else {
                format!("{:?} {}", found.file_type(), found.len())
            };
            out.insert(path, what);
        }
    }
    out
}

/// An image of two blobs, tagged, below `root/repo`. Returns manifest and config digests.
pub fn push(root: &Path, repo: &str, tags: &[&str], mark: &str) -> (String, String) {
    push_at(root, repo, tags, mark, 1_700_000_000_000_000_000)
}

/// As [`push`], with this time on every file.
pub fn push_at(root: &Path, repo: &str, tags: &[&str], mark: &str, mtime_ns: i64) -> (String, String) {
    let mut repo = super::store::Repo::new(root, repo, mtime_ns);
    let config = serde_json::json!({
        "created": "2025-01-01T00:00:00Z", "architecture": "amd64", "os": "linux", "author": mark,
        "config": {}, "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
    })
    .to_string();
    let config_digest = repo.blob(config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len(),
        },
        "layers": [],
        "annotations": {"mark": mark},
    })
    .to_string();
    let digest = repo.blob(manifest.as_bytes());
    let descriptors: Vec<Value> = tags
        .iter()
        .map(|tag| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": tag},
            })
        })
        .collect();
    repo.index(&descriptors);
    (digest, config_digest)
}

/// Wait until something is so.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !so() {
        assert!(Instant::now() < end, "{what} never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}
