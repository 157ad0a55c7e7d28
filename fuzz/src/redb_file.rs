//! redb files, damaged: the state file and the metaDB. Their pages are megabytes, so an input is not a file but the damage
//! to one.
//!
//! Whatever the damage, reading gives an answer. Writing to a file that redb's own check would refuse can end the process:
//! redb panics while it unwinds, which nobody can catch (metactl then says so and ends with 2). So only what passes that
//! check is written to.

use super::input::Input;
use metactl::cancel::Cancel;
use metactl::metadb::redb::{RedbMetaDb, RedbWriter};
use metactl::metadb::{Kind, MetaDb as _, MetaDbError, MetaDbWriter as _, Refusal, RepoWork, WriteToken};
use metactl::oci::time::Time;
use metactl::records::{RepoChange, RepoState, encode_time};
use metactl::state::{RepoMemory, StampRecord, State};
use metactl::storage::IndexStat;
use metactl::verify::Depth;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Sound files, and a place for damaged copies.
struct Files {
    directory: tempfile::TempDir,
    state: Vec<u8>,
    metadb: Vec<u8>,
}

impl Files {
    fn damaged(&self, name: &str, input: &mut Input<'_>, sound: &[u8]) -> PathBuf {
        let mut image = sound.to_vec();
        input.damage(&mut image);
        let path = self.directory.path().join(name);
        std::fs::write(&path, image).unwrap();
        path
    }
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let (state, metadb) = (directory.path().join("state"), directory.path().join("metadb"));
        use_state(&state).unwrap();
        write(&metadb).unwrap();
        let (state, metadb) = (std::fs::read(state).unwrap(), std::fs::read(metadb).unwrap());
        Files { directory, state, metadb }
    })
}

/// The first byte picks the file.
pub fn redb(data: &[u8]) {
    let mut input = Input(data);
    let files = files();
    if input.byte() % 2 == 0 {
        let path = files.damaged("damaged-state", &mut input, &files.state);
        if is_whole(&path) {
            let _ = use_state(&path);
        }
    } else {
        let path = files.damaged("damaged-metadb", &mut input, &files.metadb);
        let _ = read(&path);
        if is_whole(&path) {
            let _ = write(&path);
            let _ = read(&path);
        }
    }
}

/// Whether redb's check passes, or repairs it.
fn is_whole(path: &Path) -> bool {
    let Ok(Ok(mut db)) = catch_unwind(|| redb::Database::open(path)) else { return false };
    let checked = catch_unwind(AssertUnwindSafe(|| db.check_integrity()));
    let closed = catch_unwind(AssertUnwindSafe(|| drop(db)));
    matches!(checked, Ok(Ok(_))) && closed.is_ok()
}

fn use_state(path: &Path) -> Result<(), metactl::state::StateError> {
    let state = State::open(path, "registry")?;
    let index = IndexStat { size: 7, mtime: "2024-01-02T03:04:05Z".parse().unwrap(), tag: Some("tag".into()) };
    let digests: Vec<String> = (0..9).map(|n| format!("sha256:{n:064x}")).collect();
    let memory = RepoMemory::new(
        Depth::Deep,
        &index,
        &RepoState::default(),
        &digests,
        None,
        std::iter::repeat_n(None, digests.len()),
    );
    for name in state.repo_names()? {
        let _ = state.repo(&name);
    }
    let (stamp, fingerprint) = ("v2.1.20|0123".to_owned(), "0123".to_owned());
    let _ = (state.stamp(&fingerprint), state.orphans(7), state.generation());
    let repos: Vec<_> = (0..40).map(|n| (format!("team/app{n}"), Some(memory.clone()))).collect();
    state.update(&repos)?;
    state.remember_stamp(&StampRecord { stamp, fingerprint, written_at: 1, config: serde_json::json!({"a": 1}) })?;
    state.remember_generation(7)?;
    state.remember_orphans(7, &["sha256:a", "sha256:b"])
}

fn read(path: &Path) -> Result<(), MetaDbError> {
    let db = RedbMetaDb::open(path)?;
    let _ = (db.version(), db.stamp(), db.last_updated(), db.images(&["sha256:0"]));
    for name in db.repo_names()? {
        db.repo(&name)?;
    }
    db.image_digests(&mut |_| {})?;
    let _ = db.checksums(Kind::ImageMeta, metactl::state::short, 1);
    db.users(&mut |_, _| {})
}

struct Work(String);

impl RepoWork for Work {
    fn repo(&self) -> &str {
        &self.0
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        vec![(&self.0, b"\x0a\x01a")]
    }

    fn build(&self, _prior: &RepoState) -> Result<RepoChange, Refusal> {
        let at = Some(encode_time(Time { seconds: 1, nanos: 0 }));
        Ok(RepoChange::Write { meta: Some(vec![10; 300]), blobs: Some(vec![10; 3000]), last_updated: at })
    }
}

fn write(path: &Path) -> Result<(), MetaDbError> {
    let token = WriteToken::for_writing_command();
    let mut writer = RedbWriter::open(token, path, Duration::ZERO, &Cancel::default())?;
    let stamp = writer.reader().stamp()?;
    writer.set_stamp(stamp.as_deref(), None)?;
    let work: Vec<Work> = (0..40).map(|n| Work(format!("team/app{n}"))).collect();
    writer.write(&work.iter().map(|work| work as &dyn RepoWork).collect::<Vec<_>>())?;
    writer.delete_images(&["team/app3".to_owned()])?;
    writer.set_stamp(None, Some(b"v2.1.20|0123"))
}
