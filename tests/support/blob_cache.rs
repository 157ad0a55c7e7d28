//! zot's blob caches, filled as zot fills them and read raw.

use super::bucket::Recorded;
use super::dynamodb::Server;
use metactl::metadb::bolt::{Batch, OpenOptions, Writer};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Write `cache.db`: every digest's first path is its original, and all are listed.
pub fn fill_bolt(path: &Path, recorded: &Recorded) {
    let mut batch = Batch::new();
    batch.create_bucket(&[b"blobs"]).unwrap();
    for (digest, paths) in recorded {
        for (kind, paths) in [("original", &paths[..1]), ("duplicates", paths)] {
            let bucket = [b"blobs", digest.as_bytes(), kind.as_bytes()];
            batch.create_bucket(&bucket).unwrap();
            for path in paths {
                batch.put(&bucket, path.as_bytes(), Vec::new()).unwrap();
            }
        }
    }
    let options = OpenOptions { create: true, ..OpenOptions::default() };
    Writer::open(path, &options).unwrap().commit(&batch).unwrap();
}

/// The same in Redis.
pub fn fill_redis(connection: &mut redis::Connection, prefix: &str, recorded: &Recorded) {
    let mut pipeline = redis::pipe();
    for (digest, paths) in recorded {
        pipeline.hset(format!("{prefix}:blobs:original"), digest, &paths[0]).ignore();
        pipeline.sadd(format!("{prefix}:blobs:duplicates:{digest}"), paths).ignore();
    }
    pipeline.exec(connection).unwrap();
}

/// The same in a new table in DynamoDB.
pub fn fill_dynamodb(server: &Server, table: &str, recorded: &Recorded) {
    let request = json!({
        "TableName": table,
        "KeySchema": [{"AttributeName": "Digest", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "Digest", "AttributeType": "S"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 10, "WriteCapacityUnits": 5},
    });
    server.db.create_table(serde_json::from_value(request).unwrap()).unwrap();
    for (digest, paths) in recorded {
        let item = json!({
            "Digest": {"S": digest}, "OriginalBlobPath": {"S": paths[0]}, "DuplicateBlobPath": {"SS": paths},
        });
        let request = json!({"TableName": table, "Item": item});
        server.db.put_item(serde_json::from_value(request).unwrap()).unwrap();
    }
}

/// Every key of the server with its content.
pub fn dump_redis(connection: &mut redis::Connection) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    let content = |key: String| {
        let kind: String = redis::cmd("TYPE").arg(&key).query(connection).unwrap();
        let fields = match kind.as_str() {
            "hash" => redis::cmd("HGETALL").arg(&key).query(connection).unwrap(),
            "set" => {
                let members: Vec<String> = redis::cmd("SMEMBERS").arg(&key).query(connection).unwrap();
                members.into_iter().map(|member| (member, Vec::new())).collect()
            }
            _ => [(String::new(), redis::cmd("GET").arg(&key).query(connection).unwrap())].into(),
        };
        (key, fields)
    };
    keys.into_iter().map(content).collect()
}
