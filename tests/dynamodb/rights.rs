//! Least rights: what is denied is named, with its table, before anything is written.

use super::{BLOBS, IMAGES, P, REPOS, Stage, USERS, VERSION, error, failed, read, tables};
use crate::support::dynamodb::options;
use crate::support::walk::{open_writer, walk_at};
use crate::support::work::store;
use metactl::metadb::{MetaDbError, Place};

/// What the README's policy for reading allows, with the tables that it is used on.
const READING: [(&str, &[&str]); 4] = [
    ("DescribeTable", &[VERSION, REPOS, BLOBS, IMAGES, USERS]),
    ("GetItem", &[VERSION]),
    ("BatchGetItem", &[REPOS, BLOBS, IMAGES]),
    ("Scan", &[REPOS, BLOBS, IMAGES, USERS]),
];

/// What the policy for walking allows besides.
const WALKING: [(&str, &[&str]); 2] =
    [("UpdateItem", &[VERSION, REPOS, BLOBS, IMAGES]), ("DeleteItem", &[REPOS, BLOBS, IMAGES])];

fn flat(rights: &[(&'static str, &'static [&'static str])]) -> Vec<(&'static str, &'static str)> {
    rights.iter().flat_map(|(action, tables)| tables.iter().map(|table| (*action, *table))).collect()
}

/// Deny one action on one table.
fn deny(stage: &Stage, action: &'static str, table: &'static str) {
    stage.proxy.rule(move |request| {
        let denied = request.operation.as_deref() == Some(action) && tables(request).split(' ').any(|one| one == table);
        denied.then(|| error(400, "AccessDeniedException"))
    });
}

fn read_all(place: &Place) -> Result<(), MetaDbError> {
    let db = read(place)?;
    db.version()?;
    db.repo_names()?;
    db.last_updated()?;
    db.repo("a")?;
    db.images(&["sha256:aa"])?;
    db.image_digests(&mut |_| {})?;
    db.users(&mut |_, _| {})
}

#[test]
fn every_missing_right_is_named_before_anything_is_written() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 2, 2);
    assert!(walk_at(&stage.place(), dir.path(), false).unwrap().complete());
    let before = stage.server.dump(P);
    let place = Place::DynamoDb(Box::new(options(stage.proxy.port, P)));
    let named = |outcome, action: &str, table: &str| match failed(outcome) {
        MetaDbError::Denied { command, .. } => {
            assert!(command.contains(&format!("dynamodb:{action} on table ")) && command.contains(table), "{command}");
        }
        error => panic!("{action} {table}: {error:?}"),
    };
    for (action, table) in flat(&READING) {
        deny(&stage, action, table);
        named(read_all(&place), action, table);
    }
    for (action, table) in flat(&WALKING) {
        deny(&stage, action, table);
        read_all(&place).unwrap();
        named(open_writer(&place).map(drop), action, table);
    }
    // All that is missing is named at once.
    stage.proxy.rule(|request| {
        let denied = matches!(request.operation.as_deref(), Some("UpdateItem" | "DeleteItem"));
        denied.then(|| error(400, "AccessDeniedException"))
    });
    match failed(open_writer(&place)) {
        MetaDbError::Denied { command, .. } => {
            assert!(
                flat(&WALKING)
                    .iter()
                    .all(|(action, table)| command.contains(&format!("dynamodb:{action} on table {table}")))
            );
        }
        error => panic!("{error:?}"),
    }
    stage.proxy.clear();
    assert_eq!(stage.server.dump(P), before);
}

/// A whole walk with `--prune`, and reading all there is, with nothing but the rights above.
#[test]
fn nothing_more_is_needed_than_the_readme_says() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 3, 2);
    let heard = stage.listen();
    let place = Place::DynamoDb(Box::new(options(stage.proxy.port, P)));
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
    std::fs::remove_dir_all(dir.path().join("team/repo-1")).unwrap();
    let mut writer = open_writer(&place).unwrap();
    assert!(crate::support::walk::walk_with(dir.path(), &mut *writer, true).unwrap().complete());
    writer.set_stamp(Some(crate::support::walk::STAMP.as_bytes()), None).unwrap();
    writer.delete_images(&["sha256:none".into()]).unwrap();
    read_all(&place).unwrap();
    let allowed: Vec<(&str, &str)> = flat(&READING).into_iter().chain(flat(&WALKING)).collect();
    for (action, tables) in heard.lock().unwrap().iter() {
        for table in tables.split(' ') {
            assert!(allowed.contains(&(action.as_str(), table)), "{action} on {table}");
        }
    }
    let unused: Vec<_> = allowed
        .iter()
        .filter(|(action, table)| {
            !heard.lock().unwrap().iter().any(|(used, on)| used == action && on.split(' ').any(|one| one == *table))
        })
        .collect();
    assert!(unused.is_empty(), "the policies allow more than is needed: {unused:?}");
}

/// The policy in the README allows that, and no other action.
#[test]
fn the_readmes_policy_is_what_is_needed() {
    let readme = include_str!("../../README.md");
    let policy = readme.split("```json\n").find(|block| block.contains("\"dynamodb:")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(policy.split("```").next().unwrap()).unwrap();
    for (sid, rights) in [("Read", &READING[..]), ("Walk", &WALKING[..])] {
        let statement =
            policy["Statement"].as_array().unwrap().iter().find(|statement| statement["Sid"] == sid).unwrap();
        let texts = |key: &str| -> Vec<String> {
            statement[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let needed: Vec<String> = rights.iter().map(|(action, _)| format!("dynamodb:{action}")).collect();
        assert_eq!(texts("Action"), needed);
        let mut on: Vec<String> =
            texts("Resource").iter().map(|arn| arn.split_once(":table/").unwrap().1.to_owned()).collect();
        on.sort_unstable();
        let mut used: Vec<String> = flat(rights).into_iter().map(|(_, table)| table.to_owned()).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(on, used);
    }
}

#[test]
fn credentials_that_are_not_taken() {
    let stage = Stage::new();
    for code in [
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "IncompleteSignatureException",
    ] {
        stage.proxy.rule(move |_| Some(error(400, code)));
        for outcome in [read_all(&stage.place()), open_writer(&stage.place()).map(drop)] {
            let error = failed(outcome);
            assert!(matches!(error, MetaDbError::Credentials { .. }), "{code}: {error:?}");
            assert!(!error.to_string().contains("Secret"), "{error}");
        }
    }
}
