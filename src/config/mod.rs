//! zot's configuration as zot itself reads it: loading, the effective storage section, which metaDB it chooses and
//! what zot would refuse (config spec §1, §2, §6).
//!
//! ```text
//! file ─► json | toml | yaml ─► fold keys ─► flatten and rebuild ─► typed decoding ─► defaults ─► opening the stores
//!                                (tree)           (tree)              (decode)            (storage)
//! ```
//!
//! Invariants: a config loads here only if zot loads it (the credentials that it keeps in other files apart); what zot decides at random is refused; hostile files neither panic
//! nor hang nor exhaust memory or stack; no error message and no `Debug` output holds a secret parameter.

mod blob_cache;
pub mod checks;
mod decode;
mod driver;
mod fields;
pub mod hardlink;
pub mod json;
mod metadb_choice;
mod pattern;
mod render;
mod roots;
pub(crate) mod scalar;
mod schema;
mod section_checks;
mod sections;
mod storage;
mod toml;
pub mod tree;
mod yaml;
mod yaml_document;
mod yaml_events;
mod yaml_scalar;
mod yaml_scan;
mod yaml_scan_chars;
mod yaml_scan_scalar;
mod yaml_scan_tag;
mod yaml_time;

#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use blob_cache::BlobCacheChoice;
pub use driver::DriverParams;
pub use fields::{FieldSet, FieldSetChoice, NoStamp};
pub use hardlink::DedupeProbe;
pub use metadb_choice::{MetaDb, MetaDbChoice};
pub use sections::HttpAddress;
pub use storage::{EffectiveStorage, HashedText, KeepTags, Limits, Policy, Retention, Store};

use decode::{At as _, Bad, Reason};
use sections::Sections;
use tree::{Map, Tree, with_stack};

/// Largest config file that is read.
const MAX_FILE: u64 = 16 << 20;

/// Where and why a text cannot be parsed. Line and column count from 1; 0 means the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
    /// What is wrong; never quotes values.
    pub reason: String,
}

impl SyntaxError {
    /// An error at a byte offset.
    fn at_byte(data: &[u8], at: usize, reason: impl Into<String>) -> Self {
        let before = data.get(..at).unwrap_or(data);
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
        let column = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default()).chars().count() + 1;
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Self { line, column, reason: reason.into() }
    }
}

/// What kind of problem a [`ConfigError`] is, for hints and exit codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// The file does not exist.
    NotFound,
    /// The file may not be read.
    PermissionDenied,
    /// The path names a directory.
    IsDirectory,
    /// Any other failure to read.
    Io,
    /// The file is larger than any config.
    TooLarge,
    /// zot cannot use files with this extension.
    UnusableExtension,
    /// The text cannot be parsed.
    Syntax {
        /// Line from 1, 0 if unknown.
        line: usize,
        /// Column from 1, 0 if unknown.
        column: usize,
    },
    /// No setting survives loading.
    Empty,
    /// A key no field has.
    UnknownKey {
        /// The field that was probably meant.
        suggestion: Option<String>,
    },
    /// Two keys differ only in case, or want the same place: zot picks one at random.
    AmbiguousKey,
    /// A value does not fit its field.
    WrongType,
}

/// zot would refuse this config, or it cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("config {}: {}{reason}", path.display(), at_key(key.as_deref()))]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The key, as people write it: `storage.gcDelay`.
    pub key: Option<String>,
    /// Which kind of problem.
    pub kind: ConfigErrorKind,
    /// What is wrong, a lower-case fragment.
    pub reason: String,
    /// Cause, if there is more to know than `kind` says.
    #[source]
    pub source: Option<std::io::Error>,
}

fn at_key(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

impl ConfigError {
    fn new(path: &Path, kind: ConfigErrorKind, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), key: None, kind, reason: reason.into(), source: None }
    }

    fn io(path: &Path, error: std::io::Error) -> Self {
        let (kind, reason) = match error.kind() {
            std::io::ErrorKind::NotFound => (ConfigErrorKind::NotFound, "no such file"),
            std::io::ErrorKind::PermissionDenied => (ConfigErrorKind::PermissionDenied, "permission denied"),
            std::io::ErrorKind::IsADirectory => (ConfigErrorKind::IsDirectory, "is a directory"),
            _ => (ConfigErrorKind::Io, "cannot be read"),
        };
        // The other kinds say all there is to say.
        let source = (kind == ConfigErrorKind::Io).then_some(error);
        Self { source, ..Self::new(path, kind, reason) }
    }

    fn syntax(path: &Path, format: &str, error: SyntaxError) -> Self {
        let SyntaxError { line, column, reason } = error;
        let place = if line == 0 { String::new() } else { format!(" at line {line}, column {column}") };
        Self::new(path, ConfigErrorKind::Syntax { line, column }, format!("invalid {format}{place}: {reason}"))
    }

    fn decode(path: &Path, bad: &Bad) -> Self {
        let (kind, reason) = match &bad.reason {
            Reason::WrongType(reason) => (ConfigErrorKind::WrongType, reason.clone()),
            Reason::NewerKey(when) => (
                ConfigErrorKind::UnknownKey { suggestion: None },
                format!("unknown key in this release (zot knows it {when})"),
            ),
            Reason::UnknownKey(suggestion) => {
                let hint = suggestion.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
                (ConfigErrorKind::UnknownKey { suggestion: suggestion.clone() }, format!("unknown key{hint}"))
            }
        };
        Self { key: Some(bad.path()), ..Self::new(path, kind, reason) }
    }
}

/// A config file that zot's loader accepts, as far as metactl looks.
#[derive(Debug)]
pub struct RegistryConfig {
    path: PathBuf,
    /// Folded, not rebuilt: the tree that decides whether a key "is set".
    folded: Tree,
    /// The storage section as the decoder sees it, or null.
    storage: Tree,
    /// The other sections as the decoder sees them.
    others: Tree,
    sections: Sections,
    depth: usize,
}

/// Read and parse a registry config (spec §1). The storage section is decoded later, by [`RegistryConfig::storage`],
/// because its fields depend on the release.
///
/// # Errors
/// The file cannot be read or parsed, or zot would refuse its keys or types.
pub fn load(path: &Path) -> Result<RegistryConfig, ConfigError> {
    let data = read(path)?;
    let parsed = parse(path, &data)?;
    let depth = parsed.values().map(Tree::depth).max().unwrap_or(0) + 1;
    with_stack(depth, || digest(path, Tree::Map(parsed), depth)).map_err(|error| ConfigError {
        source: Some(error),
        ..ConfigError::new(path, ConfigErrorKind::Io, "no memory")
    })?
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let file = std::fs::File::open(path).map_err(|error| ConfigError::io(path, error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(ConfigError::new(path, ConfigErrorKind::IsDirectory, "is a directory"));
    }
    let mut data = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut data).map_err(|error| ConfigError::io(path, error))?;
    if data.len() as u64 > MAX_FILE {
        let reason = format!("larger than {} MiB", MAX_FILE >> 20);
        return Err(ConfigError::new(path, ConfigErrorKind::TooLarge, reason));
    }
    Ok(data)
}

/// Spec §1.1: the extension, case-sensitive, picks the parser; unknown ones try them all.
fn parse(path: &Path, data: &[u8]) -> Result<Map, ConfigError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let syntax = |format| move |error| ConfigError::syntax(path, format, error);
    match extension {
        "json" => json::parse(data).map_err(syntax("JSON")),
        "toml" => toml::parse(data).map_err(syntax("TOML")),
        "yaml" | "yml" => yaml::parse(data).map_err(syntax("YAML")),
        "properties" | "props" | "prop" | "hcl" | "tfvars" | "ini" | "dotenv" | "env" => Err(ConfigError::new(
            path,
            ConfigErrorKind::UnusableExtension,
            format!("zot cannot be configured by .{extension} files; use .json, .yaml or .toml"),
        )),
        _ => {
            let json_error = match json::parse(data) {
                Ok(map) => return Ok(map),
                Err(error) => error,
            };
            toml::parse(data).or_else(|_| yaml::parse(data)).map_err(|yaml_error| {
                // Complain about the syntax that was probably meant.
                if data.trim_ascii_start().starts_with(b"{") {
                    ConfigError::syntax(path, "JSON (nor TOML nor YAML)", json_error)
                } else {
                    ConfigError::syntax(path, "YAML (nor JSON nor TOML)", yaml_error)
                }
            })
        }
    }
}

/// Everything between parsing and the typed storage section.
fn digest(path: &Path, parsed: Tree, depth: usize) -> Result<RegistryConfig, ConfigError> {
    let folded = tree::fold(parsed).map_err(|ambiguous| ConfigError {
        key: Some(if ambiguous.path.is_empty() {
            ambiguous.key.clone()
        } else {
            format!("{}.{}", ambiguous.path, ambiguous.key)
        }),
        ..ConfigError::new(
            path,
            ConfigErrorKind::AmbiguousKey,
            "differs from another key only in case (zot keeps one of them at random)",
        )
    })?;
    let mut rebuilt = tree::rebuild(&folded).map_err(|clash| ConfigError {
        key: Some(clash.0),
        ..ConfigError::new(
            path,
            ConfigErrorKind::AmbiguousKey,
            "is given as a value and as a section (zot keeps one of them at random)",
        )
    })?;
    // Keys full of delimiters nest deeper than the file does. zot cannot parse its own JSON back beyond this depth.
    let depth = rebuilt.values().map(Tree::depth).max().unwrap_or(0).max(depth) + 1;
    if depth > tree::MAX_DEPTH + 2 {
        let reason = format!("nested deeper than {} levels", tree::MAX_DEPTH);
        return Err(ConfigError::new(path, ConfigErrorKind::Syntax { line: 0, column: 0 }, reason));
    }
    if rebuilt.is_empty() {
        return Err(ConfigError::new(path, ConfigErrorKind::Empty, "holds no settings"));
    }
    let storage = rebuilt.remove("storage").unwrap_or_default();
    let others = Tree::Map(rebuilt);
    schema::check(&others, schema::TOP, u64::MAX).map_err(|bad| ConfigError::decode(path, &bad))?;
    let sections = Sections::read(&others, &folded);
    if storage != Tree::Null {
        decode::section(&storage).at("storage").map_err(|bad| ConfigError::decode(path, &bad))?;
    }
    Ok(RegistryConfig { path: path.to_owned(), folded, storage, others, sections, depth })
}

impl RegistryConfig {
    /// The file this came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The storage section as a build with these fields holds it when it computes the fingerprint (spec §2).
    ///
    /// # Errors
    /// The build's loader refuses a key or value, or zot would panic on it.
    pub fn storage(&self, fields: FieldSet, dedupe: &DedupeProbe) -> Result<EffectiveStorage, ConfigError> {
        let build = || {
            schema::check(&self.others, schema::TOP, fields.commits)?;
            EffectiveStorage::build(&self.storage, &self.folded, fields, dedupe).at("storage")
        };
        with_stack(self.depth, build)
            .map_err(|error| ConfigError::io(&self.path, error))?
            .map_err(|bad| ConfigError::decode(&self.path, &bad))
    }

    /// What zot's hard-link probe would say, judged without writing anything ([`hardlink::assume`]).
    #[must_use]
    pub fn assume_dedupe(&self) -> DedupeProbe {
        self.dedupe(hardlink::assume)
    }

    /// What zot's hard-link probe would say, by trying it in the root directory ([`hardlink::probe`]).
    #[must_use]
    pub fn probe_dedupe(&self) -> DedupeProbe {
        self.dedupe(hardlink::probe)
    }

    /// zot probes only where it matters: a local global store with dedupe on. Without a root it refuses to start.
    fn dedupe(&self, judge: fn(&Path) -> DedupeProbe) -> DedupeProbe {
        match self.storage(FieldSet::NEWEST, &DedupeProbe::Works) {
            Ok(storage) if storage.dedupe && storage.storage_driver.is_none() && !storage.root_directory.is_empty() => {
                judge(Path::new(&storage.root_directory))
            }
            _ => DedupeProbe::Works,
        }
    }

    /// Whether this config uses a metaDB and which one (spec §6.1, §6.2).
    #[must_use]
    pub fn metadb(&self, storage: &EffectiveStorage) -> MetaDb {
        with_stack(self.depth, || MetaDb::choose(&self.sections, storage)).unwrap_or_else(|error| MetaDb {
            used: false,
            reasons: vec![error.to_string()],
            choice: MetaDbChoice::Invalid { reason: error.to_string() },
            notices: Vec::new(),
        })
    }

    /// Why zot would refuse to start although it can parse the config (spec §2.3, §6.3 to §6.5). Empty: nothing found.
    #[must_use]
    pub fn problems(&self, storage: &EffectiveStorage) -> Vec<String> {
        let mut out = checks::problems(&self.sections, storage, &self.metadb(storage));
        section_checks::problems(&self.others, &mut |text| out.push(checks::refusal(&text)));
        out
    }

    /// Where zot listens.
    #[must_use]
    pub fn http_address(&self) -> HttpAddress {
        self.sections.http.clone()
    }

    /// The top-level `releaseTag` and `commit` settings, if set. They change what zot's `mgmt` endpoint and log report
    /// but not the stamp (spec §5.4), so those sources cannot be trusted with such a config.
    #[must_use]
    pub fn identity_overrides(&self) -> (Option<&str>, Option<&str>) {
        (self.sections.release_tag.as_deref(), self.sections.commit.as_deref())
    }
}
