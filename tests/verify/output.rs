//! The four formats say the same, and nothing hostile gets through.

use super::support::driver::Driver;
use super::world::World;
use serde_json::Value;
use std::collections::BTreeSet;

const EVIL: &str = "v\u{1b}[2J|\"\n\u{202e}";

fn spoiled() -> World<'static> {
    let world = World::new(Driver::Bolt);
    world.meta("alpine", |meta| {
        let tag = meta.tags["v1"].clone();
        meta.tags.insert(EVIL.into(), tag);
        meta.size = 1;
    });
    world.edit(|raw| raw.put("ImageMeta", &format!("sha256:{}", "0".repeat(64)), b""));
    std::fs::remove_dir_all(world.root().join("team")).unwrap();
    world
}

fn stdout(world: &World, args: &[&str]) -> String {
    let output = world.metactl(args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn json_has_the_promised_shape() {
    let world = spoiled();
    let text = stdout(&world, &["verify", "--format", "json"]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((report["schema_version"].as_u64(), report["depth"].as_str()), (Some(1), Some("default")));
    let findings = report["findings"].as_array().unwrap();
    let members = ["digest", "expected", "found", "id", "reference", "repair", "repo", "severity"];
    for finding in findings {
        let keys: BTreeSet<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, members.into_iter().collect());
        assert!(finding["id"].is_string() && finding["severity"].is_string());
    }
    let total: u64 = report["counts"].as_object().unwrap().values().map(|number| number.as_u64().unwrap()).sum();
    assert_eq!(total, findings.len() as u64);
    let find = |id: &str| findings.iter().find(|found| found["id"] == id).unwrap();
    assert_eq!(find("tag-extra")["reference"], EVIL);
    assert_eq!(find("repo-gone")["repo"], "team/app");
    assert_eq!(find("repo-gone")["digest"], Value::Null);
    assert_eq!(find("repo-hidden")["repair"], "metactl walk --force --repo alpine");
}

/// Performance data by the guidelines for Nagios plugins: `label=value[unit];[warn];[crit];[min];[max]`. Labels and values.
fn performance(status: &str) -> Vec<(String, String)> {
    let (message, data) = status.split_once(" | ").unwrap();
    assert!(!message.contains('|') && !data.contains('|'), "{status}");
    let number = |text: &str| text.parse::<f64>().is_ok_and(|number| number.is_finite() && !text.contains(['e', '+']));
    let one = |item: &str| {
        let (label, rest) = item.split_once('=').unwrap();
        assert!(!label.is_empty() && label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{item}");
        let fields: Vec<&str> = rest.split(';').collect();
        let value = fields[0].trim_end_matches(['s', '%', 'B']);
        assert!(fields.len() <= 5 && number(value) && fields[0].len() - value.len() <= 1, "{item}");
        assert!(fields[1..].iter().all(|field| field.is_empty() || number(field)), "{item}");
        (label.to_owned(), value.to_owned())
    };
    let items: Vec<(String, String)> = data.split(' ').map(one).collect();
    let labels: BTreeSet<&str> = items.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels.len(), items.len(), "{data}");
    items
}

#[test]
fn nagios_gets_the_state_of_the_stamp() {
    let world = World::new(Driver::Bolt);
    let show = |code, arguments: &[&str]| {
        let output = world.metactl(&[&["stamp", "show", "--format", "nagios"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (status, details) = text.split_once('\n').unwrap();
        // The stamp itself has a bar.
        assert!(!details.contains('|') && details.contains("v2.1.20+v2.1.20-0-g3b5796d¦"), "{details}");
        (status.to_owned(), performance(status))
    };
    let data = |present: &str, current: &str| {
        vec![("present".to_owned(), present.to_owned()), ("current".to_owned(), current.to_owned())]
    };
    let (status, performance) = show(0, &[]);
    assert!(status.starts_with("STAMP OK - current: ") && performance == data("1", "1"), "{status}");
    world.edit(|raw| raw.put("Version", "FastRestartStamp", b"a|b|\x1b[2J"));
    let (status, performance) = show(1, &[]);
    assert!(status.starts_with("STAMP WARNING - stale: ") && performance == data("1", "0"), "{status}");
    world.remove("Version", "FastRestartStamp");
    let (status, performance) = show(1, &[]);
    assert!(status.starts_with("STAMP WARNING - absent: ") && performance == data("0", "0"), "{status}");
    // What fails has a status line as well.
    let output = world.metactl(&["--metadb", "bolt:no|where", "verify", "--format", "nagios"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "METACTL UNKNOWN - no metaDB at no¦where\n");
}

#[test]
fn a_pattern_without_any_repo_is_no_success() {
    let world = spoiled();
    let verify = |pattern: &str| world.metactl(&["verify", "--format", "json", "--repo", pattern]);
    let output = verify("alpin");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no-repo"), "{output:?}");
    // One that is in the metaDB alone is there.
    assert_eq!(verify("team/*").status.code(), Some(2));
    let world = World::new(Driver::Bolt);
    std::fs::create_dir(world.root().join("_blobstore")).unwrap();
    assert_eq!(world.metactl(&["verify", "--repo", "alpin"]).status.code(), Some(2), "what is unknown may have it");
}

#[test]
fn nagios_gets_one_status_line_with_performance_data() {
    let world = spoiled();
    let text = stdout(&world, &["verify", "--format", "nagios"]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    let (status, details) = text.split_once('\n').unwrap();
    let (message, data) = status.split_once(" | ").unwrap();
    assert_eq!(message, "VERIFY CRITICAL - 2 critical, 3 warning, 1 info in 2 repos");
    assert!(data.starts_with("critical=2;;0;0 warning=3;0;;0 info=1;;;0 repos=2;;;0 unchanged=0;;;0 time="), "{data}");
    performance(status);
    assert!(!details.contains('|'), "{details}");
    assert_eq!(details.lines().count(), 6);
    assert!(details.starts_with("critical "), "the gravest come first: {details}");
    let text = stdout(&world, &["verify", "--format", "nagios", "--limit", "1"]);
    assert_eq!(text.lines().count(), 3);
    assert!(text.ends_with("and 5 findings more\n"), "{text}");
}

#[test]
fn metrics_can_be_scraped() {
    let world = spoiled();
    let text = stdout(&world, &["verify", "--format", "prometheus", "--metrics-file", "out.prom"]);
    let mut described = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let name = rest.split(' ').nth(1).unwrap();
            assert!(rest.starts_with("HELP ") == described.insert(name.to_owned()), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && described.contains(series.split('{').next().unwrap()), "{line}");
        // No time stamp: a series ends where its labels do.
        assert!(series.ends_with('}') || !series.contains(' '), "{line}");
    }
    for line in [
        "metactl_verify_findings{id=\"tag-extra\",severity=\"warning\"} 1",
        "metactl_verify_findings{id=\"tag-missing\",severity=\"warning\"} 0",
        "metactl_verify_status 2",
        "metactl_stamp_usable 0",
        "metactl_verify_repos{outcome=\"checked\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("metactl_last_success_timestamp_seconds{command=\"verify\"} "));
    let names = |text: &str| text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>();
    let file = std::fs::read_to_string(world.dir.path().join("out.prom")).unwrap();
    assert_eq!(names(&file), names(&text));
    let left =
        std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.contains("out.prom.")));
}

#[test]
fn the_table_groups_by_repo_and_names_the_repairs() {
    let world = spoiled();
    let text = stdout(&world, &["verify"]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("alpine ")).count(), 1, "{text}");
    assert!(
        text.contains("metactl walk --force --repo alpine")
            && text.contains("2 critical, 3 warning, 1 info in 2 repos")
    );
    let short = stdout(&world, &["verify", "--limit", "2"]);
    assert!(short.contains("and 4 findings more") && short.contains("2 critical, 3 warning, 1 info"), "{short}");
    assert_eq!(stdout(&world, &["-qq", "verify"]), "");
    // A pattern limits what is looked at.
    let one = stdout(&world, &["verify", "--repo", "al*", "--format", "json"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one["repos"]["listed"].as_u64(), one["counts"]["repo-gone"].as_u64()), (Some(1), None));
    // One that matches nothing says nothing of consistency; what only the metaDB has is matched too.
    let none = world.metactl(&["verify", "--repo", "alpin", "--format", "json"]);
    let error: Value = serde_json::from_slice(&none.stdout).unwrap();
    assert_eq!((none.status.code(), error["error"]["reason"].as_str()), (Some(3), Some("no-repo")), "{none:?}");
    assert_ne!(world.metactl(&["verify", "--repo", "team/**"]).status.code(), Some(3));
}

#[test]
fn a_stamp_is_refused_over_drift() {
    let world = spoiled();
    let output = world.metactl(&["stamp", "write"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
    assert_eq!(world.metactl(&["stamp", "write", "--force"]).status.code(), Some(0));
    let healthy = World::new(Driver::Redb);
    assert_eq!(healthy.metactl(&["stamp", "clear"]).status.code(), Some(0));
    assert_eq!(healthy.metactl(&["stamp", "write"]).status.code(), Some(0));
    assert_eq!(healthy.raw(), healthy.healthy);
}
