//! The local image store and the routing of sub-paths, against recorded listings and by rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use jiff::Timestamp;
use metactl::cancel::Cancel;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::{Misrouted, StoreKind, StoreSpec, Stores, route_key};
use metactl::storage::{ImageStore, MAX_DOCUMENT, StorageError};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn digest() -> String {
    format!("sha256:{HEX}")
}

fn repo(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), LAYOUT).unwrap();
    fs::write(dir.join("index.json"), INDEX).unwrap();
    dir
}

fn store_of(names: &[&str]) -> (TempDir, LocalStore) {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        repo(root.path(), name);
    }
    let store = LocalStore::new(root.path());
    (root, store)
}

fn list(store: &LocalStore) -> Vec<String> {
    store.list_repos(&Cancel::default()).unwrap()
}

fn list_error(store: &LocalStore) -> StorageError {
    store.list_repos(&Cancel::default()).unwrap_err()
}

/// The whole chain of causes.
fn text(error: &StorageError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// As long as files are in memory, more readers than processors gain nothing.
#[cfg(target_os = "linux")]
#[test]
fn readers_are_useful_as_soon_as_files_are_not_in_memory() {
    // Beside what was compiled, which is on a disk as a rule; temporary directories may be in memory.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let blob = repo(root.path(), "a").join("blobs/sha256").join(HEX);
    fs::write(&blob, "{}").unwrap();
    fs::File::open(&blob).unwrap().sync_all().unwrap();

    let store = LocalStore::new(root.path());
    let processors = metactl::parallel::processors();
    store.read_index("a").unwrap();
    for _ in 0..100 {
        one_blob(&store, "a", &digest()).unwrap();
    }
    assert_eq!(store.useful(1000), processors.min(1000));

    for _ in 0..100 {
        let file = fs::File::open(&blob).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        one_blob(&store, "a", &digest()).unwrap();
    }
    assert!(store.useful(1000) > (processors * 4).min(999), "{}", store.useful(1000));
    assert_eq!(store.useful(1), 1);
}

fn one_blob(store: &LocalStore, repo: &str, digest: &str) -> Result<metactl::storage::Blob, StorageError> {
    let mut results = store.read_blobs(repo, &[digest]);
    assert_eq!(results.len(), 1);
    results.remove(0)
}

// --- recorded listings -------------------------------------------------------------------------------------------

/// Lay out a recorded case; `None` if the case has no root directory at all.
fn lay_out(case: &serde_json::Value) -> (TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    if let Some(files) = case["files"].as_object() {
        for (path, entry) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(target) = entry["symlink"].as_str() {
                symlink(target, &path).unwrap();
            } else if entry["dir"].as_bool() == Some(true) {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::write(&path, entry["text"].as_str().unwrap()).unwrap();
                let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(entry["mtime_ns"].as_u64().unwrap());
                fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
            }
        }
    }
    let store = LocalStore::new(root);
    (dir, store)
}

fn recorded(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/fixtures/walk/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn recorded_listings_are_the_same_in_names_and_order() {
    for name in ["decoding-000-repos", "decoding-002-miss"] {
        let case = recorded(name);
        assert_eq!(case["error"], "<nil>");
        let expected: Vec<&str> = case["repos"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let (_dir, store) = lay_out(&case);
        assert_eq!(list(&store), expected, "{name}");
    }
}

#[test]
fn recorded_link_cycle_aborts_the_listing_and_names_the_path() {
    let case = recorded("decoding-001-cyc");
    assert!(case["error"].as_str().unwrap().contains("too many levels of symbolic links"));
    let (_dir, store) = lay_out(&case);
    let error = list_error(&store);
    assert!(matches!(&error, StorageError::Io { what, .. } if what.contains("/a/up/a/up")), "{error}");
    assert!(text(&error).to_lowercase().contains("symbolic link"), "{}", text(&error));
}

#[test]
fn index_times_are_exact_to_the_nanosecond() {
    let case = recorded("decoding-000-repos");
    let (_dir, store) = lay_out(&case);
    for name in list(&store).iter().filter(|name| !name.starts_with("sl")) {
        let stat = store.stat_index(name).unwrap();
        let entry = &case["files"][format!("{name}/index.json")];
        assert_eq!(stat.mtime.as_nanosecond(), i128::from(entry["mtime_ns"].as_u64().unwrap()), "{name}");
        assert_eq!(stat.size, entry["text"].as_str().unwrap().len() as u64);
        assert_eq!(store.read_index(name).unwrap(), entry["text"].as_str().unwrap().as_bytes());
    }
}

// --- listing by rule ---------------------------------------------------------------------------------------------

#[test]
fn parents_come_first_and_siblings_in_byte_order() {
    let (_root, store) = store_of(&["a/b", "a-b", "a.b", "a", "a0", "b/c/d"]);
    // Components are sorted within their directory: "a" and all beneath it comes before "a-b".
    assert_eq!(list(&store), ["a", "a/b", "a-b", "a.b", "a0", "b/c/d"]);
}

#[test]
fn a_repo_needs_index_layout_and_blobs_directory() {
    let (root, store) = store_of(&["ok", "suffix", "file", "link", "dangling", "index-dir", "only-index"]);
    let at = |path: &str| root.path().join(path);
    fs::rename(at("suffix/oci-layout"), at("suffix/not-really-oci-layout")).unwrap();
    for name in ["file", "link", "dangling"] {
        fs::remove_dir_all(at(name).join("blobs")).unwrap();
    }
    fs::write(at("file/blobs"), "").unwrap();
    symlink("../ok/blobs", at("link/blobs")).unwrap();
    symlink("nowhere", at("dangling/blobs")).unwrap();
    // Only names count: what index.json is shows when it is read.
    fs::remove_file(at("index-dir/index.json")).unwrap();
    fs::create_dir(at("index-dir/index.json")).unwrap();
    fs::remove_file(at("only-index/oci-layout")).unwrap();
    assert_eq!(list(&store), ["index-dir", "link", "ok", "suffix"]);
    let error = store.read_index("index-dir").unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
}

#[test]
fn missing_root_is_empty_but_a_broken_root_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(list(&LocalStore::new(dir.path().join("missing"))).is_empty());
    assert!(list(&LocalStore::new(dir.path().join("missing/deeper"))).is_empty());
    fs::write(dir.path().join("file"), "").unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    for name in ["file", "file/below", "link", "loop"] {
        let root = dir.path().join(name);
        let error = list_error(&LocalStore::new(&root));
        assert!(matches!(&error, StorageError::Io { action: "list", what, .. } if *what == root.display().to_string()));
    }
}

#[test]
fn blobstore_layout_is_refused() {
    let (root, store) = store_of(&["a"]);
    fs::create_dir(root.path().join("_blobstore")).unwrap();
    let error = list_error(&store);
    assert!(matches!(error, StorageError::UnsupportedLayout { .. }), "{error}");
    assert!(error.to_string().contains("_blobstore"));
}

#[test]
fn a_link_to_itself_is_an_error_only_where_a_repo_could_be() {
    let (root, store) = store_of(&["a"]);
    symlink("NotARepo", root.path().join("NotARepo")).unwrap();
    assert_eq!(list(&store), ["a"]);
    symlink("self", root.path().join("a/self")).unwrap();
    let error = list_error(&store);
    assert!(matches!(&error, StorageError::Io { action: "stat", what, .. } if what.ends_with("/a/self")), "{error}");
}

#[test]
fn names_that_no_repo_can_have_hide_what_is_beneath() {
    let (root, store) = store_of(&["ok", "Upper/x", "_trivy/x", "a/.sync/u/x", "a/.uploads/x"]);
    let latin1 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::create_dir_all(root.path().join(latin1).join("x/blobs")).unwrap();
    assert_eq!(list(&store), ["ok"]);
}

#[test]
fn paths_too_long_for_the_kernel_are_an_error() {
    let (root, store) = store_of(&["ok"]);
    // Longer than any path may be: each step is made relative to the one before.
    let name = "a".repeat(200);
    let mut dir = rustix::fs::open(root.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..22 {
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let error = list_error(&store);
    assert!(matches!(&error, StorageError::Io { action: "list", .. }), "{error}");
}

#[test]
fn links_that_fan_out_do_not_take_forever() {
    let (root, store) = store_of(&[]);
    for level in 0..36 {
        let dir = root.path().join(format!("d{level}"));
        fs::create_dir(&dir).unwrap();
        for link in ["x", "y"] {
            symlink(format!("../d{}", level + 1), dir.join(link)).unwrap();
        }
    }
    fs::create_dir(root.path().join("d36")).unwrap();
    // 2^36 paths; whoever is not patient stops at once, everybody else at the documented bound.
    let stop = Cancel::with_deadline(Some(Instant::now() + Duration::from_millis(200)));
    let begin = Instant::now();
    assert!(matches!(store.list_repos(&stop), Err(StorageError::Cancelled)));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn unlistable_repos_are_told() {
    let (_root, store) = store_of(&[
        "ok",
        "myblobs",
        "team/testblobs",
        "x.uploads",
        "x.sync/inner",
        "blobs",
        "ok/blobs/nested",
        "team/x",
    ]);
    assert_eq!(list(&store), ["ok", "team/x"]);
    assert_eq!(
        store.list_unlistable(&Cancel::default()).unwrap(),
        ["blobs", "myblobs", "ok/blobs/nested", "team/testblobs", "x.sync/inner", "x.uploads"]
    );
}

#[test]
fn cancelled_listing_is_no_listing() {
    let (_root, store) = store_of(&["a"]);
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(matches!(store.list_repos(&cancel), Err(StorageError::Cancelled)));
}

// --- index -------------------------------------------------------------------------------------------------------

#[test]
fn index_not_found_is_only_absence() {
    let (root, store) = store_of(&["a", "loop"]);
    fs::write(root.path().join("plain"), "").unwrap();
    fs::remove_file(root.path().join("loop/index.json")).unwrap();
    symlink("index.json", root.path().join("loop/index.json")).unwrap();
    for missing in ["nowhere", "plain", "a/b"] {
        assert!(matches!(store.stat_index(missing), Err(StorageError::NotFound { .. })), "{missing}");
        assert!(matches!(store.read_index(missing), Err(StorageError::NotFound { .. })), "{missing}");
    }
    assert!(matches!(store.stat_index("loop"), Err(StorageError::Io { action: "stat", .. })));
    assert!(matches!(store.read_index("loop"), Err(StorageError::Io { action: "read", .. })));
    for hostile in ["../a", "", ".", "a/../../etc", "/etc", "a/./b"] {
        assert!(matches!(store.stat_index(hostile), Err(StorageError::Io { .. })), "{hostile}");
        assert!(matches!(store.read_index(hostile), Err(StorageError::Io { .. })), "{hostile}");
        assert!(matches!(one_blob(&store, hostile, EMPTY), Err(StorageError::Io { .. })), "{hostile}");
    }
}

#[test]
fn index_identity_changes_with_the_file() {
    let (root, store) = store_of(&["a"]);
    let path = root.path().join("a/index.json");
    let before = store.stat_index("a").unwrap();
    assert_eq!(store.stat_index("a").unwrap(), before);
    // Replaced by a rename, with the same length and the same modification time.
    let other = root.path().join("a/new");
    fs::write(&other, INDEX).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    fs::rename(&other, &path).unwrap();
    let after = store.stat_index("a").unwrap();
    assert_eq!((after.size, after.mtime), (before.size, before.mtime));
    assert_ne!(after, before);
}

#[test]
fn huge_documents_are_refused_without_reading_them() {
    let (root, store) = store_of(&["a"]);
    let sparse = |path: PathBuf| fs::File::create(path).unwrap().set_len(MAX_DOCUMENT + 1).unwrap();
    sparse(root.path().join("a/index.json"));
    sparse(root.path().join("a/blobs/sha256").join(HEX));
    let begin = Instant::now();
    for error in [store.read_index("a").unwrap_err(), one_blob(&store, "a", &digest()).unwrap_err()] {
        assert!(text(&error).contains("larger than 256 MiB"), "{}", text(&error));
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
}

// --- blobs -------------------------------------------------------------------------------------------------------

#[test]
fn blobs_come_in_the_order_asked_with_their_times() {
    let (root, store) = store_of(&["a/b"]);
    let blobs = root.path().join("a/b/blobs/sha256");
    let names: Vec<String> = (0..50_usize).map(|number| format!("{number:064x}")).collect();
    for (number, name) in names.iter().enumerate() {
        fs::write(blobs.join(name), vec![b'x'; number * 1000 + 1]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + number as u64, 123_456_789);
        fs::File::options().write(true).open(blobs.join(name)).unwrap().set_modified(at).unwrap();
    }
    let digests: Vec<String> = names.iter().rev().map(|name| format!("sha256:{name}")).collect();
    let asked: Vec<&str> = digests.iter().map(String::as_str).collect();
    let results = store.read_blobs("a/b", &asked);
    assert_eq!(results.len(), 50);
    for (result, number) in results.into_iter().zip((0..50_usize).rev()) {
        let blob = result.unwrap();
        assert_eq!(blob.content, vec![b'x'; number * 1000 + 1]);
        assert_eq!(blob.mtime, Some(Timestamp::new(1_700_000_000 + number as i64, 123_456_789).unwrap()));
    }
    assert!(store.read_blobs("a/b", &[]).is_empty());
}

#[test]
fn times_before_the_epoch_are_kept() {
    let (root, store) = store_of(&["a"]);
    let path = root.path().join("a/index.json");
    let at = SystemTime::UNIX_EPOCH - Duration::new(10, 1);
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    assert_eq!(store.stat_index("a").unwrap().mtime.as_nanosecond(), -10_000_000_001);
}

#[test]
fn bad_digests_are_their_own_error() {
    let (_root, store) = store_of(&["a"]);
    for bad in ["", "sha256:", "md5:00", "sha256:../../index.json", &format!("sha256:{}", HEX.to_uppercase())] {
        assert!(matches!(one_blob(&store, "a", bad), Err(StorageError::InvalidDigest { .. })), "{bad}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let (root, store) = store_of(&["a", "plain", "none"]);
    let blobs = root.path().join("a/blobs");
    // A plain file where the algorithm's directory should be (recorded case state-028).
    fs::write(blobs.join("sha512"), "x").unwrap();
    // A directory where the blob should be (recorded case state-029), a placeholder, a pipe.
    let hex = |last: char| format!("{}{last}", &HEX[..63]);
    fs::create_dir(blobs.join("sha256").join(hex('a'))).unwrap();
    fs::write(blobs.join("sha256").join(hex('b')), "").unwrap();
    let pipe = blobs.join("sha256").join(hex('c'));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    symlink("nowhere", blobs.join("sha256").join(hex('d'))).unwrap();
    fs::remove_dir_all(root.path().join("plain/blobs")).unwrap();
    fs::write(root.path().join("plain/blobs"), "x").unwrap();
    fs::remove_dir_all(root.path().join("none/blobs")).unwrap();
    for (repo, digest) in [
        ("a", digest()),
        ("a", EMPTY.to_owned()),
        ("a", format!("sha512:{HEX}{HEX}")),
        ("a", format!("sha384:{HEX}{}", &HEX[..32])),
        ("a", format!("sha256:{}", hex('a'))),
        ("a", format!("sha256:{}", hex('b'))),
        ("a", format!("sha256:{}", hex('c'))),
        ("a", format!("sha256:{}", hex('d'))),
        ("plain", digest()),
        ("none", digest()),
        ("nowhere", digest()),
    ] {
        let result = one_blob(&store, repo, &digest);
        assert!(
            matches!(&result, Err(StorageError::NotFound { what }) if what.contains("/blobs/")),
            "{repo} {digest} {result:?}"
        );
    }
    fs::write(blobs.join("sha256").join(&EMPTY[7..]), "").unwrap();
    assert!(one_blob(&store, "a", EMPTY).unwrap().content.is_empty(), "an empty blob of the empty digest is genuine");
}

#[test]
fn what_cannot_be_looked_at_is_an_error_and_never_missing() {
    let (root, store) = store_of(&["a", "loop"]);
    let path = root.path().join("a/blobs/sha256").join(HEX);
    symlink(&path, &path).unwrap();
    fs::remove_dir_all(root.path().join("loop/blobs")).unwrap();
    symlink("blobs", root.path().join("loop/blobs")).unwrap();
    for name in ["a", "loop"] {
        let result = one_blob(&store, name, &digest());
        assert!(
            matches!(&result, Err(StorageError::Io { action: "read", what, .. }) if what.ends_with(HEX)),
            "{result:?}"
        );
    }
    // One bad blob costs nothing but itself.
    fs::write(root.path().join("a/blobs/sha256").join(&EMPTY[7..]), "").unwrap();
    let results = store.read_blobs("a", &["sha256:x", EMPTY, &digest()]);
    assert!(results[0].is_err() && results[1].is_ok() && results[2].is_err());
}

#[test]
fn links_to_blobs_are_followed() {
    let (root, store) = store_of(&["a", "b"]);
    fs::write(root.path().join("a/blobs/sha256").join(HEX), "content").unwrap();
    symlink(format!("../../../a/blobs/sha256/{HEX}"), root.path().join("b/blobs/sha256").join(HEX)).unwrap();
    assert_eq!(one_blob(&store, "b", &digest()).unwrap().content, b"content");
}

// --- permissions -------------------------------------------------------------------------------------------------

const PERMISSION_ROOT: &str = "METACTL_TEST_PERMISSION_ROOT";

/// Lays out the store, then lets [`permission_checks_of_an_ordinary_user`] look at it: in a child process without
/// root's privileges where the tests run as root, because root may read everything.
#[test]
fn permissions_are_errors() {
    let (root, _store) = store_of(&["a", "b", "locked"]);
    let set = |path: &str, mode| fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    fs::write(root.path().join("a/blobs/sha256").join(HEX), "content").unwrap();
    set(&format!("a/blobs/sha256/{HEX}"), 0o000);
    set("b/blobs/sha256", 0o000);
    set("b/index.json", 0o000);
    set("locked", 0o000);
    set("", 0o755);
    // The child must be able to run this very program, wherever the build put it.
    let bin = tempfile::tempdir().unwrap();
    fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = std::env::current_exe().unwrap();
    let as_root = rustix::process::geteuid().is_root();
    if as_root {
        let copy = bin.path().join("storage-test");
        fs::copy(&program, &copy).unwrap();
        program = copy;
    }
    let mut child = Command::new(program);
    child.args(["--exact", "permission_checks_of_an_ordinary_user", "--nocapture"]);
    child.env(PERMISSION_ROOT, root.path()).current_dir("/");
    if as_root {
        child.uid(65534).gid(65534);
    }
    let output = child.output().unwrap();
    // Let the directory be removed by ordinary users, too.
    for path in ["b/blobs/sha256", "locked"] {
        set(path, 0o755);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("looked as an ordinary user"), "{said}\n{output:?}");
}

/// The child's half of [`permissions_are_errors`]; on its own it has nothing to look at.
#[test]
fn permission_checks_of_an_ordinary_user() {
    let Some(root) = std::env::var_os(PERMISSION_ROOT) else { return };
    assert!(!rustix::process::geteuid().is_root());
    let store = LocalStore::new(&root);
    let error = list_error(&store);
    assert!(matches!(&error, StorageError::Io { action: "list", what, .. } if what.ends_with("/locked")), "{error}");
    let denied = |error: StorageError| match error {
        StorageError::Io { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied),
        other => panic!("{other}"),
    };
    denied(store.stat_index("locked").unwrap_err());
    denied(store.read_index("locked").unwrap_err());
    denied(store.read_index("b").unwrap_err());
    for repo in ["a", "b", "locked"] {
        denied(one_blob(&store, repo, &digest()).unwrap_err());
    }
    denied(list_error(&LocalStore::new(Path::new(&root).join("locked"))));
    denied(list_error(&LocalStore::new(Path::new(&root).join("locked/below"))));
    println!("looked as an ordinary user");
}

// --- routing -----------------------------------------------------------------------------------------------------

fn spec(route: Option<&str>, root: impl Into<PathBuf>) -> StoreSpec {
    StoreSpec { route: route.map(str::to_owned), kind: StoreKind::Local { root: root.into() }, cache: None }
}

#[test]
fn routes_look_at_the_first_component_only() {
    for (name, key) in [("a", "/"), ("a/x", "/a"), ("a/b/c", "/a"), ("ab/x", "/ab")] {
        assert_eq!(route_key(name), key);
    }
    let stores = Stores::open(&[spec(None, "/d"), spec(Some("/a"), "/s/a"), spec(Some("/b/c"), "/s/bc")]).unwrap();
    for (name, root) in
        [("a", "/d"), ("a/x", "/s/a"), ("a/x/y", "/s/a"), ("b/c/x", "/d"), ("b/c", "/d"), ("ab/x", "/d")]
    {
        assert_eq!(stores.route(name).location(), root, "{name}");
    }
    let stores = Stores::open(&[spec(None, "/d"), spec(Some("/"), "/single")]).unwrap();
    assert_eq!(stores.route("x").location(), "/single");
    assert_eq!(stores.route("x/y").location(), "/d");
}

#[test]
fn names_merge_and_wrong_places_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (main, sub_a, sub_b) = (dir.path().join("main"), dir.path().join("sub-a"), dir.path().join("sub-b"));
    for (root, names) in [
        (&main, &["plain", "a/old", "a/both", "c/in-both"][..]),
        (&sub_a, &["a/new", "a/both", "x/y", "c/in-both"]),
        (&sub_b, &["b/one"]),
    ] {
        for name in names {
            repo(root, name);
        }
    }
    fs::write(sub_a.join("a/new/blobs/sha256").join(HEX), "from a").unwrap();
    let stores = Stores::open(&[spec(Some("/b"), &sub_b), spec(None, &main), spec(Some("/a"), &sub_a)]).unwrap();
    let listing = stores.list(&Cancel::default()).unwrap();
    assert_eq!(listing.repos, ["b/one", "a/both", "a/new", "c/in-both", "x/y", "a/old", "plain"]);
    assert_eq!(stores.list_repos(&Cancel::default()).unwrap(), listing.repos);
    let wrong = |repo: &str, from: &Path, to: &Path| Misrouted {
        repo: repo.into(),
        listed_from: from.display().to_string(),
        routed_to: to.display().to_string(),
    };
    // "c/in-both" is listed from the sub-store first, but the store it routes to has it as well.
    assert_eq!(listing.misrouted, [wrong("x/y", &sub_a, &main), wrong("a/old", &main, &sub_a)]);
    assert!(matches!(stores.stat_index("a/old"), Err(StorageError::NotFound { .. })));
    assert!(matches!(stores.read_index("x/y"), Err(StorageError::NotFound { .. })));
    assert_eq!(stores.read_index("a/new").unwrap(), INDEX.as_bytes());
    assert_eq!(stores.read_blobs("a/new", &[&digest()]).remove(0).unwrap().content, b"from a");
}

#[test]
fn one_broken_store_breaks_the_listing() {
    let dir = tempfile::tempdir().unwrap();
    repo(&dir.path().join("main"), "ok");
    fs::write(dir.path().join("sub"), "a file").unwrap();
    let stores =
        Stores::open(&[spec(None, dir.path().join("main")), spec(Some("/a"), dir.path().join("sub"))]).unwrap();
    assert!(matches!(stores.list(&Cancel::default()), Err(StorageError::Io { .. })));
}

#[test]
fn the_same_root_is_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let (main, sub, alias) = (dir.path().join("main"), dir.path().join("sub"), dir.path().join("alias"));
    repo(&main, "x");
    for name in ["a/one", "b/two"] {
        repo(&sub, name);
    }
    symlink(&sub, &alias).unwrap();
    let stores = Stores::open(&[spec(None, &main), spec(Some("/a"), &sub), spec(Some("/b"), &alias)]).unwrap();
    let listing = stores.list(&Cancel::default()).unwrap();
    assert_eq!(listing.repos, ["a/one", "b/two", "x"]);
    assert!(listing.misrouted.is_empty(), "{listing:?}");
    assert!(std::ptr::addr_eq(stores.route("a/one"), stores.route("b/two")));
}

#[test]
fn impossible_sets_of_stores_are_refused() {
    assert!(Stores::open(&[]).is_err());
    assert!(Stores::open(&[spec(Some("/a"), "/x")]).is_err());
    assert!(Stores::open(&[spec(None, "/x"), spec(None, "/y")]).is_err());
    assert!(Stores::open(&[spec(None, "/x"), spec(Some("/a"), "/y"), spec(Some("/a"), "/z")]).is_err());
}
