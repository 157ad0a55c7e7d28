//! Reading: complete or an error, and nothing is ever created.

use super::{BLOBS, IMAGES, P, REPOS, Stage, USERS, body, error, failed, read};
use crate::support::dynamodb::options;
use crate::support::proxy::{Fate, Reply};
use crate::support::walk::open_writer;
use metactl::checksum::checksum;
use metactl::metadb::{Kind, MetaDbError, Place};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn tables_that_are_missing_are_named_and_not_created() {
    let stage = Stage::bare();
    let place = Place::DynamoDb(Box::new(options(stage.proxy.port, P)));
    let missing = |outcome| match failed(outcome) {
        MetaDbError::TablesMissing { tables, .. } => tables,
        error => panic!("{error:?}"),
    };
    assert!(matches!(failed(read(&place)), MetaDbError::Absent { .. }));
    let all = "ZotVersion, ZotRepoMetadataTable, ZotRepoBlobsInfoTable, ZotImageMetaTable, ZotUserDataTable";
    assert_eq!(missing(open_writer(&place).map(drop)), all);
    assert_eq!(stage.server.table_names(), Vec::<String>::new());
    stage.server.create_tables(P);
    for table in [USERS, REPOS] {
        stage.server.db.delete_table(serde_json::from_value(json!({"TableName": table})).unwrap()).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(missing(read(&place).map(drop)), "ZotRepoMetadataTable, ZotUserDataTable");
        assert_eq!(missing(open_writer(&place).map(drop)), "ZotRepoMetadataTable, ZotUserDataTable");
    }
    assert_eq!(stage.server.table_names().len(), 4);
    // zot keeps API keys in the sixth; metactl never looks at it.
    drop(open_writer(&stage.place()).unwrap());
    stage.server.db.delete_table(serde_json::from_value(json!({"TableName": "ZotApiKeyTable"})).unwrap()).unwrap();
    drop(read(&place).unwrap());
}

#[test]
fn created_tables_are_zots() {
    let stage = Stage::bare();
    drop(stage.writer());
    assert_eq!(stage.server.table_names().len(), 6);
    for table in stage.server.table_names() {
        let found =
            stage.server.db.describe_table(serde_json::from_value(json!({"TableName": table})).unwrap()).unwrap();
        let found = serde_json::to_value(found).unwrap()["Table"].clone();
        assert_eq!(found["KeySchema"], json!([{"AttributeName": "TableKey", "KeyType": "HASH"}]));
        assert_eq!(found["AttributeDefinitions"], json!([{"AttributeName": "TableKey", "AttributeType": "S"}]));
        assert_eq!(found["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST", "{found}");
        assert_eq!(found["TableStatus"], "ACTIVE");
    }
    assert_eq!(stage.server.dump(P).get("Version", "DBVersion"), Some(&b"V1"[..]));
}

/// A zot that starts at the same time creates them too, and a new table takes a while.
#[test]
fn a_table_that_somebody_else_creates_is_waited_for() {
    let stage = Stage::new();
    let looks = AtomicUsize::new(0);
    stage.proxy.rule(move |request| {
        if request.operation.as_deref() != Some("DescribeTable") || body(request)["TableName"] != REPOS {
            return None;
        }
        match looks.fetch_add(1, Ordering::Relaxed) {
            0 => Some(error(400, "ResourceNotFoundException")),
            1 | 2 => {
                let table = json!({"Table": {"TableName": REPOS, "TableStatus": "CREATING"}});
                let reply = Reply::new(200, &table.to_string());
                Some(Fate::Reply(reply.with("content-type", "application/x-amz-json-1.0")))
            }
            _ => None,
        }
    });
    drop(stage.writer());
    assert_eq!(stage.proxy.count("POST", "CreateTable"), 1);
    assert!(stage.proxy.count("POST", "DescribeTable") > 10);
}

#[test]
fn a_table_of_another_kind_is_no_metadb() {
    let stage = Stage::new();
    stage.server.db.delete_table(serde_json::from_value(json!({"TableName": IMAGES})).unwrap()).unwrap();
    let request = json!({
        "TableName": IMAGES,
        "KeySchema": [{"AttributeName": "Digest", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "Digest", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    });
    stage.server.db.create_table(serde_json::from_value(request).unwrap()).unwrap();
    for error in [failed(read(&stage.place())), failed(open_writer(&stage.place()))] {
        assert!(matches!(&error, MetaDbError::Damaged { detail, .. } if detail.contains(IMAGES)), "{error:?}");
    }
}

/// Six megabytes of repos: several pages in several segments.
fn filled() -> Stage {
    let stage = Stage::new();
    for number in 0..16 {
        stage.server.set(REPOS, &format!("repo-{number:02}"), "RepoMeta", &vec![b'x'; 380 << 10]);
        stage.server.set(BLOBS, &format!("repo-{number:02}"), "RepoLastUpdated", b"\x08\x05");
    }
    stage
}

#[test]
fn an_error_on_a_later_page_is_an_error_and_no_shorter_list() {
    let stage = filled();
    let reader = stage.reader();
    let pages = |fate: fn(usize) -> Option<Fate>| {
        let later = AtomicUsize::new(0);
        stage.proxy.rule(move |request| {
            let scan = request.operation.as_deref() == Some("Scan");
            let next = scan && body(request).get("ExclusiveStartKey").is_some();
            if next { fate(later.fetch_add(1, Ordering::Relaxed)) } else { None }
        });
    };
    let names: Vec<String> = (0..16).map(|number| format!("repo-{number:02}")).collect();
    stage.proxy.clear();
    assert_eq!(reader.repo_names().unwrap(), names);
    assert!(stage.proxy.count("POST", "Scan") >= 6, "{:?}", stage.proxy.requests());
    // Every later page fails for good, or only the third.
    pages(|_| Some(error(400, "ValidationException")));
    assert!(matches!(failed(reader.repo_names()), MetaDbError::Io { .. }));
    pages(|page| (page == 2).then(|| error(400, "AccessDeniedException")));
    assert!(matches!(failed(reader.repo_names()), MetaDbError::Denied { .. }));
    // What passes by itself is asked again.
    pages(|page| match page % 5 {
        0 => Some(error(400, "ProvisionedThroughputExceededException")),
        1 => Some(error(500, "InternalServerError")),
        2 => Some(Fate::Truncate),
        3 => Some(Fate::Reset),
        _ => None,
    });
    assert_eq!(reader.repo_names().unwrap(), names);
    // Somebody deletes the table between two pages.
    pages(|page| (page == 1).then(|| error(400, "ResourceNotFoundException")));
    assert!(matches!(failed(reader.repo_names()), MetaDbError::TablesMissing { .. }));
}

#[test]
fn a_service_that_never_recovers_is_given_up() {
    let stage = filled();
    let brief = options(stage.proxy.port, P).with_patience(Duration::from_millis(300));
    let place = Place::DynamoDb(Box::new(brief));
    let reader = read(&place).unwrap();
    stage.proxy.rule(|_| Some(error(503, "ServiceUnavailable")));
    let error = failed(reader.last_updated());
    assert!(
        matches!(&error, MetaDbError::Unreachable { detail, .. } if detail.contains("ServiceUnavailable")),
        "{error:?}"
    );
    assert!(matches!(failed(read(&place)), MetaDbError::Unreachable { .. }));
    assert!(matches!(failed(open_writer(&place)), MetaDbError::Unreachable { .. }));
}

#[test]
fn images_are_asked_for_a_hundred_at_once_each_once() {
    let stage = Stage::new();
    let digests: Vec<String> = (0..250).map(|number| format!("sha256:{number}")).collect();
    for digest in digests.iter().step_by(2) {
        stage.server.set(IMAGES, digest, "ImageMeta", digest.as_bytes());
    }
    // Twice each, in another order; half of them are not there.
    let asked: Vec<&str> = digests.iter().chain(digests.iter().rev()).map(String::as_str).collect();
    let check = |found: Vec<Option<Vec<u8>>>| {
        for (digest, found) in asked.iter().zip(found) {
            let number: usize = digest[7..].parse().unwrap();
            assert_eq!(found, number.is_multiple_of(2).then(|| digest.as_bytes().to_vec()), "{digest}");
        }
    };
    let reader = stage.reader();
    stage.proxy.clear();
    check(reader.images(&asked).unwrap());
    assert_eq!(stage.proxy.count("POST", "BatchGetItem"), 3);

    // The service leaves keys for later: all of a request at first, then all but a few.
    let count = AtomicUsize::new(0);
    stage.proxy.rule(move |request| {
        if request.operation.as_deref() != Some("BatchGetItem") || count.fetch_add(1, Ordering::Relaxed) >= 4 {
            return None;
        }
        let answer = json!({"Responses": {}, "UnprocessedKeys": body(request)["RequestItems"]});
        Some(Fate::Reply(Reply::new(200, &answer.to_string()).with("content-type", "application/x-amz-json-1.0")))
    });
    check(reader.images(&asked).unwrap());
    assert!(reader.images(&[]).unwrap().is_empty());
}

#[test]
fn all_reads_are_consistent() {
    let stage = filled();
    let reader = stage.reader();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let noted = std::sync::Arc::clone(&seen);
    stage.proxy.rule(move |request| {
        let body = body(request);
        let consistent = match body["RequestItems"].as_object() {
            Some(tables) => tables.values().all(|asked| asked["ConsistentRead"] == true),
            None => body["ConsistentRead"] == true,
        };
        noted.lock().unwrap().insert((request.operation.clone().unwrap(), consistent));
        None
    });
    reader.repo_names().unwrap();
    reader.repo("repo-01").unwrap();
    reader.images(&["sha256:aa"]).unwrap();
    reader.stamp().unwrap();
    let expected = ["BatchGetItem", "GetItem", "Scan"].map(|action| (action.to_owned(), true));
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from(expected));
}

#[test]
fn users_digests_and_checksums() {
    let stage = Stage::new();
    stage.server.put(
        USERS,
        "alice",
        json!({"UserData": {"M": {
            "StarredRepos": {"L": [{"S": "a"}, {"S": "b"}]}, "BookmarkedRepos": {"NULL": true},
            "APIKeys": {"M": {"hash": {"M": {"CreatorUA": {"S": "curl"}, "IsExpired": {"BOOL": false}}}}},
        }}}),
    );
    stage.server.set(IMAGES, "sha256:aa", "ImageMeta", b"record");
    let reader = stage.reader();
    let mut users = Vec::new();
    reader
        .users(&mut |user, data| {
            users.push((user.to_owned(), serde_json::from_slice::<serde_json::Value>(data).unwrap()))
        })
        .unwrap();
    let expected = json!({"StarredRepos": ["a", "b"], "BookmarkedRepos": null,
        "APIKeys": {"hash": {"creatorUa": "curl", "isExpired": false}}});
    assert_eq!(users, [("alice".to_owned(), expected)]);
    let mut digests = Vec::new();
    reader.image_digests(&mut |digest| digests.push(digest.to_owned())).unwrap();
    assert_eq!(digests, ["sha256:aa"]);
    let sums = reader.checksums(Kind::ImageMeta, |digest| digest.len() as u128, 1).unwrap();
    assert_eq!(sums, Some(vec![(9, checksum(b"record"))]));
}

/// zot's blob cache is a table of its own, with another key.
#[test]
fn the_blob_cache_knows_where_content_lies() {
    use crate::support::setups::{params, text};
    use metactl::cancel::Cancel;
    use metactl::metadb::dynamodb::DynamoDbBlobCacheOptions;
    use metactl::secret::Secret;
    use metactl::storage::cache::CacheSpec;

    let stage = Stage::bare();
    let request = json!({
        "TableName": "ZotBlobTable",
        "KeySchema": [{"AttributeName": "Digest", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "Digest", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    });
    stage.server.db.create_table(serde_json::from_value(request).unwrap()).unwrap();
    let path = |repo: &str, number: u32| format!("zot/{repo}/blobs/sha256/{number:064x}");
    for number in 0..120 {
        let (b, a) = (format!("/{}", path("b", number)), format!("/{}", path("a", number)));
        let item = json!({"Digest": {"S": format!("sha256:{number:064x}")}, "OriginalBlobPath": {"S": b},
            "DuplicateBlobPath": {"SS": [a, b]}});
        let request = json!({"TableName": "ZotBlobTable", "Item": item});
        stage.server.db.put_item(serde_json::from_value(request).unwrap()).unwrap();
    }
    let cache = |table: &str| {
        let params = params(&[
            ("endpoint", text(&stage.proxy.url())),
            ("region", text("eu-west-1")),
            ("cachetablename", text(table)),
        ]);
        let options = DynamoDbBlobCacheOptions::from_params(&params).unwrap();
        CacheSpec::DynamoDb(Box::new(options.with_credentials("AKIDEXAMPLE", Secret::new("aws-Secret"))))
            .open(&Cancel::default())
    };
    // In another order, some of them twice, some unknown.
    let asked: Vec<u32> = (0..130).rev().chain(0..3).collect();
    let digests: Vec<String> = asked.iter().map(|number| format!("sha256:{number:064x}")).collect();
    let digests: Vec<&str> = digests.iter().map(String::as_str).collect();
    let found = cache("ZotBlobTable").candidates(&digests).unwrap();
    assert_eq!(found.len(), 133);
    for (number, found) in asked.into_iter().zip(found) {
        let known = if number < 120 { vec![path("b", number), path("a", number)] } else { Vec::new() };
        assert_eq!(found, known);
    }
    assert_eq!(stage.proxy.count("POST", "BatchGetItem"), 2);
    assert_eq!(stage.proxy.requests().len(), 1, "nothing else is asked: {:?}", stage.proxy.requests());
    let error = cache("Other").candidates(&digests[..1]).unwrap_err();
    assert!(metactl::error::chain(&error).contains("lacks tables: Other"), "{error:?}");
    let without = DynamoDbBlobCacheOptions::from_params(&params(&[("region", text("r"))])).unwrap_err();
    assert!(without.contains("cachetablename"), "{without}");
}
