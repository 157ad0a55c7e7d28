//! What the fuzz targets do with their input: each takes any bytes at all, and panics if something is promised and not
//! kept. The same functions run in two places: under libFuzzer (`fuzz/run`) and, over the committed inputs, in the plain
//! test suite (`tests/corpus.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that cannot go on has found something")]

mod bolt;
#[path = "../../tests/bolt_support/mod.rs"]
mod bolt_support;
mod input;
mod records;
mod redb_file;
mod texts;

pub use bolt_support::MemFile;

/// A target: its name, what it is about, and what it does.
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&[u8]),
}

/// A small BoltDB file to start from.
pub fn small_bolt_file() -> &'static [u8] {
    bolt::small_file()
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "binary",
        about: "ELF, Mach-O and PE files: Go build information, planted strings",
        run: texts::binary,
    },
    Target { name: "bolt_read", about: "BoltDB page reader: check, walk and look up in any file", run: bolt::read },
    Target { name: "bolt_write", about: "BoltDB writer: batches on damaged and on sound files", run: bolt::write },
    Target { name: "config", about: "config loaders (JSON, YAML, TOML, guessed), fingerprint", run: texts::config },
    Target {
        name: "documents",
        about: "manifest, index and config documents, up to the records",
        run: records::documents,
    },
    Target { name: "gojson", about: "Go's JSON text: strings and numbers", run: texts::gojson },
    Target { name: "identity", about: "stamps, identities, commits, build information", run: texts::identity },
    Target {
        name: "records",
        about: "protobuf records: unknown fields, folding over any prior state",
        run: records::records,
    },
    Target { name: "redb", about: "state file and redb metaDB, damaged", run: redb_file::redb },
    Target { name: "redis", about: "Redis URLs and options; secrets stay secret", run: texts::redis },
];

/// Run a target by its name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a known target");
    (target.run)(data);
}
