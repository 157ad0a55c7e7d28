//! Image stores as the recorded cases describe them, and small ones built by hand.

use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Lay out recorded `files` below `root`, which is created: directories, symbolic links, and files with their exact
/// modification times.
pub fn lay_out(root: &Path, files: &Value) {
    fs::create_dir_all(root).unwrap();
    // In name order, so that a link stands before what is written through it.
    for (name, entry) in files.as_object().into_iter().flatten() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = entry["symlink"].as_str() {
            std::os::unix::fs::symlink(target, &path).unwrap();
        } else if entry["dir"] == true {
            fs::create_dir_all(&path).unwrap();
        } else {
            let content = match entry["text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => super::records::unbase64(entry["base64"].as_str().unwrap()),
            };
            write_at(&path, &content, entry["mtime_ns"].as_i64().unwrap());
        }
    }
}

/// Write a file and give it this modification time, in nanoseconds since 1970.
pub fn write_at(path: &Path, content: &[u8], mtime_ns: i64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let mtime = if mtime_ns < 0 { epoch - distance } else { epoch + distance };
    File::options().write(true).open(path).unwrap().set_modified(mtime).unwrap();
}

/// Where a repo keeps a blob.
pub fn blob_path(root: &Path, repo: &str, digest: &str) -> PathBuf {
    root.join(repo).join("blobs").join(digest.replace(':', "/"))
}

/// The digest of some bytes.
pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(content);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A repo under construction.
pub struct Repo {
    root: PathBuf,
    name: String,
    /// Modification time of everything written next; grows with every file.
    pub mtime_ns: i64,
}

impl Repo {
    /// A repo without any content; everything in it is dated from `mtime_ns` on.
    pub fn new(root: &Path, name: &str, mtime_ns: i64) -> Self {
        let mut repo = Self { root: root.to_owned(), name: name.to_owned(), mtime_ns };
        repo.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        fs::create_dir_all(root.join(name).join("blobs/sha256")).unwrap();
        repo
    }

    /// Write a file below the repo.
    pub fn write(&mut self, name: &str, content: &[u8]) {
        write_at(&self.root.join(&self.name).join(name), content, self.mtime_ns);
        self.mtime_ns += 1_000_000;
    }

    /// Write a blob and return its digest.
    pub fn blob(&mut self, content: &[u8]) -> String {
        let digest = sha256(content);
        self.write(&format!("blobs/{}", digest.replace(':', "/")), content);
        digest
    }

    /// Write `index.json` with these descriptors.
    pub fn index(&mut self, descriptors: &[Value]) {
        let text = serde_json::json!({"schemaVersion": 2, "manifests": descriptors}).to_string();
        self.write("index.json", text.as_bytes());
    }
}
