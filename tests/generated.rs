//! Committed generated files are what their sources generate. `UPDATE_GENERATED=1 cargo test --test generated` rewrites
//! them.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compare `generated` with the committed file, or rewrite that file when asked to.
fn current(committed: &Path, generated: &[u8]) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
        std::fs::write(committed, generated).unwrap();
        return;
    }
    let found = std::fs::read(committed).unwrap_or_default();
    assert!(
        found == generated,
        "{} is stale: run `UPDATE_GENERATED=1 cargo test --test generated`",
        committed.display()
    );
}

#[test]
fn record_types_follow_the_schema() {
    let out = tempfile::tempdir().unwrap();
    let schema = protox::compile(["zot.proto"], [root().join("proto")]).unwrap();
    prost_build::Config::new().out_dir(out.path()).btree_map(["."]).compile_fds(schema).unwrap();
    let generated = std::fs::read(out.path().join("zot.rs")).unwrap();
    current(&root().join("src/records/proto.rs"), &generated);
}
