//! Everything that is read from text and small files: configs, Go's JSON, stamps, identities, binaries, Redis options.

use super::input::Input;
use metactl::config::tree::Tree;
use metactl::config::{self, DedupeProbe, DriverParams, FieldSet};
use metactl::fingerprint::fingerprint;
use metactl::identity::buildinfo::{self, BuildInfo, Program};
use metactl::identity::commit::{parse_commit, release_of, tag_of_commit};
use metactl::identity::{Identity, IdentityRequest};
use metactl::metadb::Place;
use metactl::metadb::redis::RedisOptions;
use metactl::secret::{redact_text, redact_url};
use metactl::stamp::{Stamp, StoredStamp, Verdict};
use metactl::{gojson, identity as identities};
use std::path::PathBuf;
use std::sync::OnceLock;

/// A file with this content, always the same one; its ending decides how it is read.
fn file(ending: &str, content: &[u8]) -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let path = DIRECTORY.get_or_init(|| tempfile::tempdir().unwrap()).path().join(format!("input{ending}"));
    std::fs::write(&path, content).unwrap();
    path
}

/// The first byte picks the parser.
pub fn config(data: &[u8]) {
    let mut input = Input(data);
    let ending = [".json", ".yaml", ".toml", ".conf"][usize::from(input.byte() % 4)];
    let path = file(ending, input.0);
    let Ok(config) = config::load(&path) else { return };
    let _ = (config.http_address(), config.identity_overrides());
    for fields in [FieldSet::V2_1_18, FieldSet::V2_1_19] {
        let Ok(storage) = config.storage(fields, &DedupeProbe::Works) else { continue };
        let again = config.storage(fields, &DedupeProbe::Works).expect("it was accepted before");
        assert_eq!(fingerprint(&storage), fingerprint(&again));
        let _ = (storage.redacted_json(), config.metadb(&storage).choice.location(), config.problems(&storage));
    }
}

/// Go's JSON text means what went in.
pub fn gojson(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut out = String::new();
    gojson::push_string(&mut out, &text);
    assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), text);
    assert!(!out.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "Go escapes these");

    let number = f64::from_le_bytes(std::array::from_fn(|n| data.get(n).copied().unwrap_or_default()));
    let mut out = String::new();
    assert_eq!(gojson::push_f64(&mut out, number), number.is_finite());
    if number.is_finite() {
        assert_eq!(out.parse::<f64>().expect("a number").to_bits(), number.to_bits());
        assert_eq!(gojson::fixed_f64(number).parse::<f64>().expect("a number").to_bits(), number.to_bits());
    }
    let mut lossy = String::new();
    config::json::push_lossy(&mut lossy, data);
}

/// Texts come apart as they were put together.
pub fn identity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let identity = Identity::parse(&text);
    assert_eq!(identity.text(), text);
    if let Some(commit) = parse_commit(&text) {
        assert!(text.contains(commit.hash));
        assert!(tag_of_commit(&text).is_some());
    }
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = (release_of(first, second), FieldSet::for_release(first, second));
    let info = BuildInfo::parse(first, second);
    let _ = (info.linked(), info.setting("-ldflags"));

    let stored = StoredStamp::new(data);
    let _ = (stored.identity_text(), stored.fingerprint());
    if let Some(stamp) = Stamp::parse(&text) {
        assert_eq!(stamp.text(), text);
        let expected = if stamp.text().is_empty() { Verdict::NothingExpected } else { Verdict::Current };
        assert_eq!(StoredStamp::new(stamp.text()).compare(&stamp).verdict, expected);
        if stored.as_bytes() != stamp.text().as_bytes() {
            assert_ne!(stored.compare(&stamp).verdict, Verdict::Current);
        }
    }
}

/// Any file as a zot binary.
pub fn binary(data: &[u8]) {
    let path = file("", data);
    let program = buildinfo::read(&std::fs::File::open(&path).unwrap()).expect("a readable file gives an answer");
    let request = |stored: Option<&str>| IdentityRequest {
        zot_binary: Some(path.clone()),
        stored_identity: stored.map(str::to_owned),
        ..IdentityRequest::default()
    };
    let answer = identities::resolve(&request(None));
    if let Ok(Some(answer)) = answer {
        assert_ne!(program, Program::Unknown, "an identity of no program: {answer:?}");
        let stored = answer.identity.text();
        let confirmed = identities::resolve(&request(Some(&stored))).expect("no less is known now").expect("an answer");
        assert_eq!(confirmed.identity, answer.identity);
    }
}

/// A URL, or the members of a `cacheDriver`: lines of name and value.
pub fn redis(data: &[u8]) {
    const SECRET: &str = "xKq7secretZ9";
    let text = String::from_utf8_lossy(data);
    let said = |said: &str| assert!(!said.contains(SECRET), "a password is shown: {said}");
    // The word stands for a password wherever the input has an asterisk.
    let (url, plain) = (text.replace('*', SECRET), text.contains('*'));
    let _ = (redact_url(&text), redact_text(&text));
    match RedisOptions::from_url(&url) {
        Ok(options) => {
            // What follows the host is a path, or a key prefix: it may look like a login, and is none.
            let rest = url.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
            let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
            let password = authority
                .and_then(|authority| authority.rsplit_once('@'))
                .is_some_and(|(login, _)| login.split_once(':').is_some_and(|(_, password)| password == SECRET));
            if plain && password && url.matches(SECRET).count() == 1 {
                said(&options.location());
                said(&format!("{options:?}"));
                options.notices().iter().for_each(|notice| said(notice));
            }
        }
        Err(reason) => said(&reason),
    }
    let _ = Place::parse(&text);
    let members = text.lines().filter_map(|line| line.split_once('='));
    let value = |value: &str| value.parse().map_or_else(|_| Tree::Text(value.to_owned()), Tree::Int);
    let params = DriverParams::new(members.map(|(name, text)| (name.to_lowercase(), value(text))).collect());
    if let Ok(options) = RedisOptions::from_params(&params) {
        let _ = (options.location(), options.notices());
    }
}
