//! Every option, from the environment as from the command line; what goes to which stream, and how much of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use std::fs;
use support::command::{Ran, Sandbox, metactl, push, run};

fn store() -> Sandbox {
    Sandbox::new(|root| {
        push(root, "one", &["v1"], "1");
        push(root, "two", &["v1"], "2");
    })
}

/// With these variables and nothing else.
fn with(variables: &[(&str, &str)], args: &[&str]) -> Ran {
    run(metactl().envs(variables.iter().copied()).args(args))
}

#[test]
fn every_option_has_a_variable() {
    let sandbox = store();
    let config = sandbox.config.to_str().unwrap();
    let path = |name: &str| sandbox.dir.path().join(name).to_str().unwrap().to_owned();
    let set = |more: &[(&str, &str)], args: &[&str]| {
        let mut variables = vec![("METACTL_CONFIG", config), ("METACTL_FORMAT", "json")];
        variables.extend(more);
        with(&variables, args)
    };
    let build = [("METACTL_RELEASE_TAG", "v2.1.20"), ("METACTL_COMMIT", "v2.1.20-0-g3b5796d")];
    let shadow = format!("redb:{}", path("shadow.redb"));
    let ran = set(&[build[0], build[1], ("METACTL_METADB", &shadow)], &["walk"]);
    assert_eq!((ran.code, ran.json()["stamp"]["outcome"].as_str()), (Some(0), Some("written")), "{ran:?}");
    assert!(sandbox.dir.path().join("shadow.redb").exists() && !sandbox.meta().exists());

    let refused = |name: &str, value: &str, names: &str| {
        let ran = set(&[(name, value)], &["walk"]);
        assert_eq!(ran.code, Some(3), "{name}={value}: {ran:?}");
        assert!(ran.stderr.contains(names), "{name}={value}: {ran:?}");
    };
    refused("METACTL_METADB", "mysql:x", "unknown driver");
    refused("METACTL_FORMAT", "yaml", "--format");
    refused("METACTL_COLOR", "pink", "--color");
    refused("METACTL_LOG_FORMAT", "xml", "--log-format");
    refused("METACTL_JOBS", "0", "--jobs");
    refused("METACTL_RATE", "0", "--rate");
    refused("METACTL_LOCK_TIMEOUT", "soon", "--lock-timeout");
    refused("METACTL_TIMEOUT", "soon", "--timeout");
    refused("METACTL_TIMEOUT", "0", "--timeout is over");
    refused("METACTL_DEDUPE_EFFECTIVE", "maybe", "--dedupe-effective");
    refused("METACTL_ZOT_BINARY", "/nonexistent/zot", "/nonexistent/zot");
    refused("METACTL_ZOT_URL", "ftp://x", "server address");
    refused("METACTL_CONFIG", "/nonexistent.json", "/nonexistent.json");
    for (name, option) in [("METACTL_ZOT_CA_FILE", "/nonexistent/ca"), ("METACTL_ZOT_AUTH_FILE", "/nonexistent/auth")] {
        let ran = set(&[(name, option), ("METACTL_ZOT_URL", "https://127.0.0.1:1")], &["stamp", "show"]);
        assert_eq!((ran.code, ran.stderr.contains(option)), (Some(3), true), "{name}: {ran:?}");
    }
    let metrics = path("metactl.prom");
    assert_eq!(set(&[build[0], build[1], ("METACTL_METRICS_FILE", &metrics)], &["walk"]).code, Some(0));
    assert!(fs::read_to_string(&metrics).unwrap().contains("metactl_walk_stamped 1\n"));

    // Switches are on for anything but no.
    ["one", "two"].iter().for_each(|repo| fs::remove_dir_all(sandbox.root.join(repo)).unwrap());
    for (value, code) in [("", 3), ("0", 3), ("false", 3), ("no", 3), ("1", 0), ("true", 0)] {
        let ran = set(&[build[0], build[1], ("METACTL_YES", value)], &["walk", "--force"]);
        assert_eq!(ran.code, Some(code), "METACTL_YES={value}: {ran:?}");
    }
    for name in ["METACTL_NO_PROGRESS", "METACTL_NO_STATE"] {
        assert_eq!(set(&[(name, "1")], &["walk", "--dry-run"]).code, Some(0), "{name}");
    }
    let state = path("state.redb");
    assert_eq!(set(&[("METACTL_STATE", &state)], &["walk", "--dry-run"]).code, Some(0));
    assert_eq!(set(&[("METACTL_QUIET", "2")], &["walk", "--dry-run"]).stdout, "");
    assert!(set(&[("METACTL_VERBOSE", "1")], &["walk", "--no-stamp"]).code == Some(0));
}

#[test]
fn an_empty_variable_is_none_and_the_command_line_comes_first() {
    let sandbox = store();
    let config = sandbox.config.to_str().unwrap();
    let names = [
        "METADB",
        "FORMAT",
        "COLOR",
        "LOG_FORMAT",
        "JOBS",
        "LOCK_TIMEOUT",
        "TIMEOUT",
        "DEDUPE_EFFECTIVE",
        "ZOT_BINARY",
    ];
    let empty: Vec<String> = names.iter().map(|name| format!("METACTL_{name}")).collect();
    let mut variables: Vec<(&str, &str)> = empty.iter().map(|name| (name.as_str(), "")).collect();
    variables.extend([("METACTL_QUIET", ""), ("METACTL_STATE", ""), ("METACTL_YES", "")]);
    let ran = with(&variables, &["--config", config, "config", "show"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let wins = |variable: (&str, &str), args: &[&str]| {
        let ran = with(&[variable, ("METACTL_CONFIG", config)], &[args, &["config", "show"]].concat());
        assert_eq!(ran.code, Some(0), "{variable:?}: {ran:?}");
        ran
    };
    assert!(wins(("METACTL_FORMAT", "json"), &["--format", "table"]).stdout.contains("fingerprint"));
    assert!(!wins(("METACTL_QUIET", "2"), &["-v"]).stdout.is_empty());
    wins(("METACTL_VERBOSE", "1"), &["-q"]);
    wins(("METACTL_STATE", "/nonexistent/x"), &["--no-state"]);
    wins(("METACTL_NO_STATE", "1"), &["--state", "/nonexistent/x"]);
    wins(("METACTL_METADB", "mysql:x"), &["--metadb", "bolt:x"]);
}

#[test]
fn quiet_and_verbose() {
    let sandbox = store();
    // A notice, a result, log lines.
    let walk = |more: &[&str]| sandbox.run(&[&["walk", "--force"], more].concat());
    sandbox.configure(&json!({"fastRestart": false}));
    let ran = walk(&[]);
    assert!(ran.stdout.contains("stamp written") && ran.stderr.contains("note: zot will walk all the same"), "{ran:?}");
    let ran = walk(&["-q"]);
    assert!(ran.stdout.contains("stamp written") && ran.stderr.is_empty(), "{ran:?}");
    let ran = walk(&["-qq"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let ran = walk(&["-v"]);
    assert!(ran.stderr.lines().any(|line| line.ends_with("Z debug: one: recorded 1 manifests, 0 missing")), "{ran:?}");
    assert!(ran.stdout.contains("stamp written"));
    for (levels, reported) in [("-q", true), ("-qq", false)] {
        let ran = sandbox.run(&["walk", levels, "--config", "/nonexistent"]);
        assert_eq!((ran.code, !ran.stderr.is_empty()), (Some(3), reported), "{ran:?}");
        assert!(ran.stdout.is_empty());
    }
    let ran = walk(&["-v", "--log-format", "json", "--no-progress"]);
    let events: Vec<Value> = ran.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(
        events.iter().any(|event| {
            event["level"] == "DEBUG"
                && event["message"] == "two: recorded 1 manifests, 0 missing"
                && event["timestamp"].is_string()
        }),
        "{ran:?}"
    );
}

#[test]
fn metrics_that_cannot_be_written_are_a_failure_beside_the_result() {
    let sandbox = store();
    let ran = sandbox.run(&["walk", "--format", "json", "--metrics-file", "/nonexistent/x.prom"]);
    assert_eq!((ran.code, &ran.json()["result"]), (Some(3), &json!("complete")), "{ran:?}");
    assert!(ran.stderr.contains("/nonexistent/x.prom") && ran.stderr.contains("hint: "), "{ran:?}");
}

/// stdout is the result and nothing else, in every format.
#[test]
fn formats() {
    let sandbox = store();
    sandbox.walk();
    let show = |format: &str| sandbox.run(&["stamp", "show", "--format", format, "-vv"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&show("json")).unwrap()["schema_version"], 1);
    let status = "STAMP OK - current: zot will skip its walk: fastRestart is on and the stamp matches | present=1;";
    assert!(show("nagios").starts_with(status), "{}", show("nagios"));
    for line in show("prometheus").lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("metactl_") && value.parse::<f64>().is_ok(), "{line}");
    }
    for (shell, word) in
        [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete -c metactl"), ("powershell", "Register")]
    {
        assert!(sandbox.run(&["completions", shell]).stdout.contains(word));
    }
}
