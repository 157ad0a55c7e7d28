//! Identities read from binaries, told by the user or left in a stamp. Servers: `identity_server.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod identity_support;

use identity_support::{CONTAINERS, Container, Image};
use metactl::identity::{
    Candidate, Identity, IdentityError, IdentityRequest, IdentitySource, ResolvedIdentity, resolve,
};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const HASH: &str = "3b5796d834e8661ea661a5fcc47add8d4405aebf";
const ASSET: &str = "v2.1.20-0-g3b5796d";

fn read_bytes(bytes: &[u8], stored: Option<&str>) -> Result<ResolvedIdentity, IdentityError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zot");
    fs::write(&path, bytes).unwrap();
    read_file(&path, stored)
}

fn read_file(path: &Path, stored: Option<&str>) -> Result<ResolvedIdentity, IdentityError> {
    let request = IdentityRequest {
        zot_binary: Some(path.to_owned()),
        stored_identity: stored.map(str::to_owned),
        ..IdentityRequest::default()
    };
    resolve(&request).map(|answer| answer.expect("a binary was given"))
}

fn read(image: &Image) -> Result<ResolvedIdentity, IdentityError> {
    read_bytes(&image.build(), None)
}

fn text(image: &Image) -> String {
    read(image).unwrap().identity.text()
}

fn elf() -> Image {
    Image::new(Container::Elf)
}

/// Texts of all candidates.
fn candidates(result: Result<ResolvedIdentity, IdentityError>) -> Vec<String> {
    match result {
        Err(IdentityError::Ambiguous { candidates, .. }) => {
            assert!(candidates.iter().all(|candidate| !candidate.evidence.is_empty()));
            candidates.iter().map(|candidate: &Candidate| candidate.identity.text()).collect()
        }
        other => panic!("not ambiguous: {other:?}"),
    }
}

// --- identity as text --------------------------------------------------------------------------------------------

#[test]
fn identities_come_apart_as_they_were_put_together() {
    for (tag, commit, text) in [
        ("v2.1.20", ASSET, format!("v2.1.20+{ASSET}")),
        ("v2.1.20", "", "v2.1.20".into()),
        ("", ASSET, format!("dev-{ASSET}")),
        ("", "", String::new()),
        ("v1+x", "v1+x-0-gabcd", "v1+x+v1+x-0-gabcd".into()),
        ("dev-1", "dev-1-0-gabcd", "dev-1+dev-1-0-gabcd".into()),
    ] {
        assert_eq!(Identity::new(tag, commit).text(), text);
        assert_eq!(Identity::parse(&text), Identity::new(tag, commit), "{text}");
    }
}

proptest! {
    #[test]
    fn any_identity_text_survives(text in ".{0,60}") {
        prop_assert_eq!(Identity::parse(&text).text(), text);
    }

    #[test]
    fn odd_identity_text_survives(text in "(dev-)?[+v1.-]{0,12}(-0-gabcd)?") {
        prop_assert_eq!(Identity::parse(&text).text(), text);
    }
}

// --- planted strings ---------------------------------------------------------------------------------------------

#[test]
fn every_container_tells_tag_and_commit() {
    for container in CONTAINERS {
        for commit in [
            ASSET.to_owned(),
            format!("v2.1.20-{HASH}"),
            format!("v2.1.20-{HASH}-dirty"),
            "v2.1.20-25-g6d19b445-dirty".to_owned(),
        ] {
            let image = Image::new(container).plant(8, "v2.1.20").plant(64, &commit);
            let answer = read(&image).unwrap();
            assert_eq!(answer.identity, Identity::new("v2.1.20", &commit), "{container:?}");
            assert!(answer.notices.is_empty(), "{container:?} {:?}", answer.notices);
            assert!(matches!(answer.source, IdentitySource::Binary(_)));
        }
    }
}

#[test]
fn tags_of_any_spelling() {
    for tag in ["v2.1.20-rc1", "v2.1.20+build_5", "release/2026", "2.1"] {
        let commit = format!("{tag}-3-gabcdef0");
        assert_eq!(text(&elf().plant(32, tag).plant(128, &commit)), format!("{tag}+{commit}"));
    }
}

#[test]
fn only_aligned_strings_count() {
    // 19 bytes with the NUL: aligned to 16.
    for (offset, found) in [(64, true), (80, true), (72, false), (65, false), (71, false)] {
        let result = read(&elf().plant(0, "v2.1.20").plant(offset, ASSET));
        assert_eq!(result.is_ok(), found, "{offset} {result:?}");
    }
    // 27 bytes with "-dirty" stay at 16, 49 bytes need 32.
    let image = format!("v2.1.20-{HASH}");
    assert!(read(&elf().plant(0, "v2.1.20").plant(80, "v2.1.20-25-g6d19b445-dirty")).is_ok());
    assert!(read(&elf().plant(0, "v2.1.20").plant(96, &image)).is_ok());
    assert!(matches!(read(&elf().plant(0, "v2.1.20").plant(80, &image)), Err(IdentityError::NotIdentified { .. })));
}

#[test]
fn a_tag_that_is_not_linked_in_is_empty() {
    let dev = format!("dev-{ASSET}");
    assert_eq!(text(&elf().plant(64, ASSET)), dev);
    assert_eq!(text(&elf().plant(4, "v2.1.20").plant(64, ASSET)), dev, "misaligned: part of something else");
    assert_eq!(text(&elf().raw(0, b"v2.1.20 ").plant(64, ASSET)), dev, "not terminated");
}

#[test]
fn what_stands_before_a_planted_string_does_not_matter() {
    let image = elf().plant(0, "v2.1.20").raw(60, b"abc/").plant(64, ASSET);
    assert_eq!(text(&image), format!("v2.1.20+{ASSET}"));
    let image = elf().plant(0, "v2.1.20").raw(32, &[b'x'; 32]).plant(64, ASSET);
    assert_eq!(text(&image), format!("v2.1.20+{ASSET}"));
    // Without the tag as proof nobody can tell where the commit begins.
    assert_eq!(candidates(read(&elf().raw(60, b"abc/").plant(64, ASSET))), [format!("dev-{ASSET}")]);
}

#[test]
fn strings_on_the_border_of_two_windows_are_found() {
    // The scan reads a megabyte at a time.
    let border = 1 << 20;
    for distance in [-64_i64, -32, -16, 0, 16, 1008, 1024, -1024, -1040] {
        let mut image = elf();
        image.padding = border - 0x2000 - identity_support::DATA;
        let at = usize::try_from(0x2000 + distance).unwrap();
        let image = image.plant(at - 0x20, "v2.1.20").plant(at, ASSET);
        assert_eq!(text(&image), format!("v2.1.20+{ASSET}"), "{distance}");
    }
}

// --- contradictions ----------------------------------------------------------------------------------------------

#[test]
fn two_commits_are_told_and_not_chosen_from() {
    let other = "v1.0.0-5-gabcdef0";
    let image = elf().plant(0, "v2.1.20").plant(64, ASSET).plant(128, other);
    assert_eq!(candidates(read(&image)), [format!("v2.1.20+{ASSET}"), format!("dev-{other}")]);
    // The recorded revision or the stored stamp may decide, and that is told.
    let answer = read(&image.clone().line(&format!("build\tvcs.revision={HASH}"))).unwrap();
    assert_eq!(answer.identity, Identity::new("v2.1.20", ASSET));
    assert!(answer.notices[0].contains(other), "{:?}", answer.notices);
    let answer = read_bytes(&image.build(), Some(&format!("v2.1.20+{ASSET}"))).unwrap();
    assert_eq!(answer.identity, Identity::new("v2.1.20", ASSET));
    assert!(answer.notices[0].contains("stored stamp"));
    assert_eq!(candidates(read_bytes(&image.build(), Some("v2.1.20+something"))).len(), 2);
}

#[test]
fn asset_and_image_commit_of_one_revision_stay_ambiguous() {
    let image = format!("v2.1.20-{HASH}");
    let both =
        elf().plant(0, "v2.1.20").plant(64, ASSET).plant(128, &image).line(&format!("build\tvcs.revision={HASH}"));
    assert_eq!(candidates(read(&both)).len(), 2);
}

#[test]
fn revision_and_module_version_are_cross_checked() {
    let base = || elf().plant(0, "v2.1.20").plant(64, ASSET);
    let good = base().line(&format!("build\tvcs.revision={HASH}"));
    assert!(read(&good).unwrap().evidence.iter().any(|evidence| evidence.contains("revision")));
    let wrong = base().line("build\tvcs.revision=0000000000000000000000000000000000000000");
    assert_eq!(candidates(read(&wrong)), [format!("v2.1.20+{ASSET}")]);
    assert!(read_bytes(&wrong.build(), Some(&format!("v2.1.20+{ASSET}"))).is_ok());
    for version in ["v2.1.20", "v2.1.20+dirty", "v2.1.21-0.20260821101112-3b5796d834e8", "(devel)", ""] {
        assert!(read(&base().module(version)).is_ok(), "{version}");
    }
    assert_eq!(candidates(read(&base().module("v2.1.19"))).len(), 1);
}

#[test]
fn a_tag_chosen_freely_is_recognised_by_the_stored_stamp() {
    let image = elf().plant(0, "acme-7").plant(64, ASSET).build();
    assert_eq!(read_bytes(&image, None).unwrap().identity.text(), format!("dev-{ASSET}"));
    let stored = format!("acme-7+{ASSET}");
    assert_eq!(read_bytes(&image, Some(&stored)).unwrap().identity.text(), stored);
    assert_eq!(read_bytes(&image, Some(&format!("acme-8+{ASSET}"))).unwrap().identity.text(), format!("dev-{ASSET}"));
}

// --- without a planted commit ------------------------------------------------------------------------------------

#[test]
fn recorded_linker_flags_are_certain() {
    let package = "zotregistry.dev/zot/v2/pkg/buildinfo";
    let flags = format!("build\t-ldflags=\"-X {package}.ReleaseTag=mine -X {package}.Commit=anything -s -w\"");
    assert_eq!(text(&elf().plant(0, "v2.1.20").plant(64, ASSET).line(&flags)), "mine+anything");
    let answer = read(&elf().line("build\t-ldflags=\"-s -w\"")).unwrap();
    assert!(answer.identity.is_empty() && answer.notices[0].contains("never skips"), "{answer:?}");
}

#[test]
fn builds_without_flags_have_no_identity() {
    let mut image = elf();
    image.info = image.info.map(|info| info.replace("build\t-trimpath=true\n", ""));
    assert!(read(&image).unwrap().identity.is_empty());
}

#[test]
fn bare_hashes_are_found_by_the_recorded_revision() {
    let revision = format!("build\tvcs.revision={HASH}");
    assert_eq!(text(&elf().plant(64, "3b5796d8").line(&revision)), "dev-3b5796d8");
    assert_eq!(text(&elf().plant(64, "3b5796d-dirty").line(&revision)), "dev-3b5796d-dirty");
    assert_eq!(text(&elf().plant(64, HASH).line(&revision)), format!("dev-{HASH}"));
    assert!(matches!(read(&elf().plant(64, "3b5796e").line(&revision)), Err(IdentityError::NotIdentified { .. })));
    assert!(matches!(read(&elf().plant(64, "3b5796d8")), Err(IdentityError::NotIdentified { .. })));
}

#[test]
fn version_and_revision_make_candidates_that_a_stamp_decides() {
    let image = elf().module("v2.1.20").line(&format!("build\tvcs.revision={HASH}"));
    let all = candidates(read(&image));
    let (asset, official) = (format!("v2.1.20+{ASSET}"), format!("v2.1.20+v2.1.20-{HASH}"));
    assert_eq!(all, [official.clone(), asset.clone(), "v2.1.20+v2.1.20-0-g3b5796d8".to_owned()]);
    for stored in [asset, official] {
        assert_eq!(read_bytes(&image.build(), Some(&stored)).unwrap().identity.text(), stored);
    }
    let dirty = image.clone().module("v2.1.20+dirty").line("build\tvcs.modified=true");
    assert!(candidates(read(&dirty)).iter().all(|text| text.ends_with("-dirty")));
    // A tag without a commit: built by the Dockerfile without COMMIT, or with a commit of no known form.
    let tag_only = elf().module("v2.1.20").plant(0, "v2.1.20");
    assert_eq!(candidates(read(&tag_only)), ["v2.1.20"]);
    assert_eq!(read_bytes(&tag_only.build(), Some("v2.1.20")).unwrap().identity.text(), "v2.1.20");
}

#[test]
fn other_programs_are_refused() {
    for program in ["zli", "zb", "zxp", "kubectl"] {
        let mut image = elf();
        image.info = image.info.map(|info| info.replace("cmd/zot\n", &format!("cmd/{program}\n")));
        let result = read(&image);
        assert!(matches!(&result, Err(IdentityError::NotZot { detail, .. }) if detail.contains(program)), "{result:?}");
        if program != "kubectl" {
            assert!(matches!(read(&image.plant(64, ASSET)), Err(IdentityError::NotZot { .. })));
        } else {
            // Somebody's own program around zot: possible, and told.
            assert!(read(&image.plant(64, ASSET)).unwrap().notices[0].contains(program));
        }
    }
}

#[test]
fn damaged_build_information_leaves_the_planted_strings() {
    let mut image = elf().plant(0, "v2.1.20").plant(64, ASSET);
    image.info = None;
    let answer = read(&image).unwrap();
    assert_eq!(answer.identity, Identity::new("v2.1.20", ASSET));
    assert!(answer.notices[0].contains("no readable Go build information"));
}

#[test]
fn what_is_no_executable_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for path in [dir.path(), Path::new("/dev/zero"), &pipe] {
        assert!(matches!(read_file(path, None), Err(IdentityError::NotExecutable { .. })), "{}", path.display());
    }
    for bytes in [b"".as_slice(), b"#!/bin/sh\nexec zot\n", b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe\0\0\0\x01"] {
        let result = read_bytes(bytes, None);
        assert!(
            matches!(&result, Err(IdentityError::NotExecutable { .. } | IdentityError::NotIdentified { .. })),
            "{result:?}"
        );
    }
    let missing = read_file(&dir.path().join("missing"), None);
    assert!(matches!(missing, Err(IdentityError::File { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        container in 0..CONTAINERS.len(),
        cut in 0..0x8000_usize,
        changes in proptest::collection::vec((0..0x1900_usize, any::<u8>()), 0..30),
        info in proptest::collection::vec((0x2000..0x2100_usize, any::<u8>()), 0..10),
    ) {
        let mut bytes = Image::new(CONTAINERS[container]).plant(0, "v2.1.20").plant(64, ASSET).build();
        for (at, byte) in changes.into_iter().chain(info) {
            // Most damage should hit what is read: the headers.
            let at = if at < 0x1000 { at % 0x180 } else { at };
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(4));
        let _ = read_bytes(&bytes, None);
    }

    #[test]
    fn random_bytes_behind_a_magic_never_panic(
        magic in prop::sample::select(vec![&b"\x7fELF\x02\x01\x01"[..], b"\x7fELF\x01\x02\x01", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ", b""]),
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
    ) {
        let _ = read_bytes(&[magic, &bytes].concat(), None);
    }
}

// --- order of the sources ----------------------------------------------------------------------------------------

fn path_with(image: &Image) -> (TempDir, std::ffi::OsString) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("zot"), image.build()).unwrap();
    let path = std::env::join_paths([Path::new("relative"), Path::new("/nonexistent"), dir.path()]).unwrap();
    (dir, path)
}

#[test]
fn sources_come_in_order() {
    let named = tempfile::tempdir().unwrap();
    let binary = named.path().join("any-name");
    fs::write(&binary, elf().plant(0, "v2.1.18").plant(64, "v2.1.18-0-g7bb211b").build()).unwrap();
    let (on_path, path) = path_with(&elf().plant(0, "v2.1.20").plant(64, ASSET));
    let mut request = IdentityRequest {
        release_tag: Some("t".into()),
        commit: Some("c".into()),
        zot_binary: Some(binary.clone()),
        server: None,
        search_path: Some(path),
        stored_identity: Some("v1+v1-0-gabcd".into()),
    };
    let expect = |request: &IdentityRequest, text: &str, source: IdentitySource| {
        let answer = resolve(request).unwrap().unwrap();
        assert_eq!((answer.identity.text().as_str(), answer.source), (text, source));
        answer.notices
    };
    expect(&request, "t+c", IdentitySource::Explicit);
    (request.release_tag, request.commit) = (None, None);
    expect(&request, "v2.1.18+v2.1.18-0-g7bb211b", IdentitySource::Binary(binary.clone()));
    request.zot_binary = None;
    let found = on_path.path().join("zot");
    expect(&request, &format!("v2.1.20+{ASSET}"), IdentitySource::PathBinary(found.clone()));
    fs::write(&found, "#!/bin/sh\n").unwrap();
    let notices = expect(&request, "v1+v1-0-gabcd", IdentitySource::StoredStamp);
    assert!(notices[0].contains("passed over") && notices[1].contains("stored stamp"), "{notices:?}");
    request.search_path = None;
    assert_eq!(expect(&request, "v1+v1-0-gabcd", IdentitySource::StoredStamp).len(), 1);
    request.stored_identity = Some(String::new());
    assert_eq!(resolve(&request).unwrap(), None);
    request.stored_identity = None;
    assert_eq!(resolve(&request).unwrap(), None);
    // What was named must answer; nothing weaker takes its place.
    request.zot_binary = Some(named.path().join("missing"));
    request.stored_identity = Some("v1".into());
    assert!(matches!(resolve(&request), Err(IdentityError::File { .. })));
}

#[test]
fn an_uncertain_zot_on_path_is_not_passed_over() {
    let (_dir, path) = path_with(&elf().plant(64, ASSET).plant(128, "v1.0.0-5-gabcdef0"));
    let request = IdentityRequest { search_path: Some(path), ..IdentityRequest::default() };
    assert!(matches!(resolve(&request), Err(IdentityError::Ambiguous { .. })));
}

#[test]
fn empty_parts_may_be_given_on_purpose() {
    let given = |tag: &str, commit: &str| {
        let request = IdentityRequest {
            release_tag: Some(tag.into()),
            commit: Some(commit.into()),
            ..IdentityRequest::default()
        };
        resolve(&request).unwrap().unwrap()
    };
    assert_eq!(given("v1", "").identity.text(), "v1");
    assert_eq!(given("", "c").identity.text(), "dev-c");
    let none = given("", "");
    assert!(none.identity.text().is_empty() && none.notices.len() == 1);
}

#[test]
fn half_an_identity_is_completed_or_asked_for() {
    let given = |tag: Option<&str>, commit: Option<&str>, image: Option<&Image>| {
        let dir = tempfile::tempdir().unwrap();
        let binary = image.map(|image| {
            let path = dir.path().join("zot");
            fs::write(&path, image.build()).unwrap();
            path
        });
        let request = IdentityRequest {
            release_tag: tag.map(str::to_owned),
            commit: commit.map(str::to_owned),
            zot_binary: binary,
            stored_identity: Some("v1+v1-0-gabcd".into()),
            ..IdentityRequest::default()
        };
        resolve(&request).map(|answer| answer.unwrap().identity.text())
    };
    assert_eq!(given(None, Some(ASSET), None).unwrap(), format!("v2.1.20+{ASSET}"));
    assert_eq!(given(None, Some("3b5796d"), None).unwrap(), "dev-3b5796d");
    assert!(matches!(given(None, Some("odd"), None), Err(IdentityError::Incomplete { missing: "--release-tag", .. })));
    assert!(matches!(given(None, Some(""), None), Err(IdentityError::Incomplete { .. })));
    assert!(matches!(given(Some("v1"), None, None), Err(IdentityError::Incomplete { missing: "--commit", .. })));
    let image = elf().plant(0, "v2.1.20").plant(64, ASSET);
    assert_eq!(given(Some("acme"), None, Some(&image)).unwrap(), format!("acme+{ASSET}"));
    assert_eq!(given(None, Some("c"), Some(&image)).unwrap(), "v2.1.20+c");
    let two = image.plant(128, "v1.0.0-5-gabcdef0");
    assert!(matches!(given(Some("acme"), None, Some(&two)), Err(IdentityError::Ambiguous { .. })));
}

// --- real Go binaries --------------------------------------------------------------------------------------------

/// Builds look-alikes of zot's binaries with the Go toolchain and reads them.
#[test]
#[ignore = "needs Go: run tests/run"]
fn binaries_that_go_built() {
    let dir = tempfile::tempdir().unwrap();
    let package = "zotregistry.dev/zot/v2/pkg/buildinfo";
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("go.mod", "module zotregistry.dev/zot/v2\n\ngo 1.18\n");
    write("pkg/buildinfo/info.go", "package buildinfo\n\nvar Commit, ReleaseTag, BinaryType, GoVersion string\n");
    for command in ["zot", "zli"] {
        write(
            &format!("cmd/{command}/main.go"),
            &format!(
                "package main\n\nimport b \"{package}\"\n\nfunc main() {{ println(b.Commit, b.ReleaseTag, b.BinaryType) }}\n"
            ),
        );
    }
    let build = |command: &str, target: &str, tag: &str, commit: &str, options: &[&str]| {
        let (system, machine) = target.split_once('/').unwrap();
        let flags =
            format!("-X {package}.ReleaseTag={tag} -X {package}.Commit={commit} -X {package}.BinaryType=-x -s -w");
        let output = dir.path().join("out");
        let mut go = Command::new("go");
        go.args(["build", "-buildvcs=false", "-ldflags", &flags, "-o"]).arg(&output).args(options);
        go.arg(format!("./cmd/{command}")).current_dir(dir.path());
        go.envs([
            ("GOOS", system),
            ("GOARCH", machine),
            ("CGO_ENABLED", "0"),
            ("GOFLAGS", "-mod=mod"),
            ("GOTOOLCHAIN", "local"),
        ]);
        let done = go.output().expect("Go toolchain (go) must be installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        read_file(&output, None)
    };
    let trim = ["-trimpath"];
    for target in ["linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "freebsd/amd64"] {
        let answer = build("zot", target, "v2.1.20", ASSET, &trim).unwrap();
        assert_eq!(answer.identity, Identity::new("v2.1.20", ASSET), "{target}");
        assert!(answer.notices.is_empty(), "{target} {:?}", answer.notices);
    }
    let linux = "linux/amd64";
    let image = format!("v2.1.20-{HASH}");
    for (tag, commit) in [("v2.1.20", image.as_str()), ("v2.1.20", "v2.1.20-25-g6d19b445-dirty"), ("", ASSET)] {
        assert_eq!(build("zot", linux, tag, commit, &trim).unwrap().identity, Identity::new(tag, commit));
        let untrimmed = build("zot", linux, tag, commit, &[]).unwrap();
        assert_eq!(untrimmed.identity, Identity::new(tag, commit));
        assert!(untrimmed.evidence[0].contains("linker flags"), "{:?}", untrimmed.evidence);
    }
    let pie = build("zot", linux, "v2.1.20", ASSET, &["-trimpath", "-buildmode=pie"]).unwrap();
    assert_eq!(pie.identity, Identity::new("v2.1.20", ASSET));
    assert!(build("zot", linux, "", "", &[]).unwrap().identity.is_empty());
    assert!(matches!(build("zli", linux, "", ASSET, &trim), Err(IdentityError::NotZot { .. })));
}
