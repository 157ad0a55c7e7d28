//! The README's policy as AWS would enforce it on the real binary, and a service that knows its region.

use super::command::{Registry, reason};
use super::{P, body, error, tables};
use crate::support::proxy::{Fate, Reply};
use crate::support::work::store;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// What is allowed: action, and tables by the end of their ARN, which may be a `*`.
type Allowed = Vec<(String, String)>;

/// Some statements of the README's policy.
fn policy(sids: &[&str]) -> Allowed {
    let readme = include_str!("../../README.md");
    let policy = readme.split("```json\n").find(|block| block.contains("\"dynamodb:")).unwrap();
    let policy: Value = serde_json::from_str(policy.split("```").next().unwrap()).unwrap();
    let mut allowed = Vec::new();
    for sid in sids {
        let statement = policy["Statement"].as_array().unwrap().iter().find(|statement| statement["Sid"] == *sid);
        let all = |value: &Value| -> Vec<String> {
            let texts = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let statement = statement.unwrap();
        assert_eq!(statement["Effect"], "Allow");
        for action in all(&statement["Action"]) {
            for resource in all(&statement["Resource"]) {
                let table = resource.split_once(":table/").unwrap().1.to_owned();
                allowed.push((action.strip_prefix("dynamodb:").unwrap().to_owned(), table));
            }
        }
    }
    allowed
}

fn fits(pattern: &str, table: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == table, |start| table.starts_with(start))
}

/// Refuse what is not allowed, and write down what is asked.
fn enforce(registry: &Registry, allowed: Allowed) -> Arc<Mutex<BTreeSet<(String, String)>>> {
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let asked = Arc::clone(&heard);
    registry.stage.proxy.rule(move |request| {
        let action = request.operation.clone().unwrap();
        let denied = tables(request).split(' ').any(|table| {
            asked.lock().unwrap().insert((action.clone(), table.to_owned()));
            !allowed.iter().any(|(right, pattern)| *right == action && fits(pattern, table))
        });
        denied.then(|| error(400, "AccessDeniedException"))
    });
    heard
}

#[test]
fn creating_tables_needs_the_third_statement_and_no_more() {
    let registry = Registry::new();
    // Without it, nothing comes into being, and the right that is missing has a name.
    enforce(&registry, policy(&["Read", "Walk"]));
    let ran = registry.run(&["walk", "--create-tables", "--format", "json"]);
    assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "denied"), "{ran:?}");
    assert!(ran.stderr.contains("dynamodb:") && ran.stderr.contains(" on table Zot"), "{ran:?}");
    assert!(registry.stage.server.table_names().is_empty());

    let heard = enforce(&registry, policy(&["Read", "Walk", "CreateTables"]));
    let ran = registry.run(&["walk", "--create-tables", "--format", "json"]);
    assert_eq!((ran.code, &ran.json()["stamp"]["outcome"]), (Some(0), &json!("written")), "{ran:?}");
    let made: BTreeSet<String> = registry.stage.server.table_names().into_iter().collect();
    let created = |action: &str| -> BTreeSet<String> {
        let heard = heard.lock().unwrap();
        heard.iter().filter(|(asked, _)| asked == action).map(|(_, table)| table.clone()).collect()
    };
    // All of the statement is needed, on all of zot's tables.
    assert_eq!(made.len(), 6);
    assert_eq!((created("CreateTable"), created("DescribeTable")), (made.clone(), made));

    // Once they are there, two statements are enough for every command, and one for those that only read.
    enforce(&registry, policy(&["Read", "Walk"]));
    std::fs::remove_dir_all(registry.sandbox.root.join("one")).unwrap();
    store(&registry.sandbox.root, 2, 2);
    for arguments in
        [&["walk", "--prune", "--max-delete", "1"][..], &["walk", "--force"], &["stamp", "clear"], &["stamp", "write"]]
    {
        let ran = registry.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    }
    enforce(&registry, policy(&["Read"]));
    for arguments in [&["stamp", "show", "--check"][..], &["verify", "--deep"], &["walk", "--dry-run", "--force"]] {
        let ran = registry.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    }
}

/// A service answers for its own region only, and says so as AWS does.
#[test]
fn another_region_is_named_and_nothing_is_made_there() {
    let registry = Registry::new();
    let told = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&told);
    registry.stage.proxy.rule(move |request| {
        let credential = request.credential.clone().unwrap();
        let region = credential.split('/').nth(2).unwrap();
        if region == "eu-west-1" {
            return None;
        }
        *counted.lock().unwrap() += 1;
        assert!(!body(request).is_null());
        let message = format!("Credential should be scoped to a valid region, not '{region}'. ");
        let text = json!({"__type": "com.amazon.coral.service#InvalidSignatureException", "message": message});
        let reply = Reply::new(400, &text.to_string()).with("content-type", "application/x-amz-json-1.0");
        Some(Fate::Reply(reply))
    });
    let there = format!("dynamodb:{}?region=us-east-1&prefix={P}", registry.stage.proxy.url());
    let here = there.replace("us-east-1", "eu-west-1");
    for create in [false, true] {
        for arguments in [
            &["stamp", "show"][..],
            &["verify"],
            &["walk", "--dry-run"],
            &["walk"],
            &["walk", "--create-tables"],
            &["stamp", "clear"],
        ] {
            let before = *told.lock().unwrap();
            let ran = registry.run_at(&there, &[arguments, &["--format", "json"]].concat());
            assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "credentials"), "{arguments:?}: {ran:?}");
            assert!(ran.stderr.contains("for this region") && ran.stderr.contains("'us-east-1'"), "{ran:?}");
            assert!(ran.stderr.contains("region is cacheDriver's"), "{ran:?}");
            // It is of no use to ask again: each table is looked at once for reading and once for writing at most.
            assert!(*told.lock().unwrap() - before <= 12, "{arguments:?}");
        }
        assert_eq!(registry.stage.server.table_names().len(), if create { 6 } else { 0 });
        if !create {
            assert_eq!(registry.run_at(&here, &["walk", "--create-tables"]).code, Some(0));
        }
    }
    assert_eq!(registry.run_at(&here, &["verify", "--deep"]).code, Some(0));
}
