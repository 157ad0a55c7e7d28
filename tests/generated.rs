//! Committed generated files are what their sources generate. `UPDATE_GENERATED=1 cargo test --test generated` rewrites
//! them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

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

fn metactl(args: &[&str]) -> Vec<u8> {
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_metactl")).args(args).output().unwrap();
    assert!(run.status.success(), "metactl {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

#[test]
fn completions_follow_the_command_line() {
    for (shell, file) in
        [("bash", "metactl.bash"), ("zsh", "_metactl"), ("fish", "metactl.fish"), ("powershell", "_metactl.ps1")]
    {
        current(&root().join("completions").join(file), &metactl(&["completions", shell]));
    }
}

#[test]
fn manual_pages_follow_the_command_line() {
    let out = tempfile::tempdir().unwrap();
    metactl(&["man", out.path().to_str().unwrap()]);
    let names = |directory: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let generated = names(out.path());
    assert!(generated.len() > 5, "one page per command: {generated:?}");
    for name in &generated {
        current(&root().join("man").join(name), &std::fs::read(out.path().join(name)).unwrap());
    }
    assert_eq!(names(&root().join("man")), generated, "a page of a command that no longer exists");
}
