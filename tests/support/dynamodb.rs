//! DynamoDB for one test each: an emulator in this process, on a loopback port of its own, looked into from behind.

use super::driver::{BUCKETS, Raw};
use super::proxy::{Fate, Proxy, Reply};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dynoxide::Database;
use metactl::metadb::Place;
use metactl::metadb::dynamodb::DynamoDbOptions;
use metactl::secret::Secret;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use tokio::sync::oneshot;

/// Tables of zot's example config after its prefix, and the buckets whose records they hold under which attribute.
const TABLES: [(&str, &[(&str, &str)]); 6] = [
    ("Version", &[("Version", "Version")]),
    ("RepoMetadataTable", &[("RepoMeta", "RepoMeta")]),
    ("RepoBlobsInfoTable", &[("RepoBlobsMeta", "RepoBlobsInfo"), ("RepoLastUpdated", "RepoLastUpdated")]),
    ("ImageMetaTable", &[("ImageMeta", "ImageMeta")]),
    ("UserDataTable", &[("UserData", "UserData")]),
    ("ApiKeyTable", &[("UserAPIKeys", "Identity")]),
];

/// An attribute that zot does not know, in every item that [`Server::restore`] makes.
const FOREIGN: &str = "Foreign";

/// A running emulator; dropping it ends it.
pub struct Server {
    pub port: u16,
    /// The emulator's inside.
    pub db: Database,
    /// What stands between it and metactl.
    front: Option<Proxy>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let db = Database::memory().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = db.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stopped = async { drop(stopped.await) };
                dynoxide::server::serve_with_shutdown(listener, served, stopped).await.unwrap();
            });
        });
        Self { port, db, front: None, stop: Some(stop) }
    }

    /// With a proxy before it that lets one request in seven go wrong: throttled, failed, or carried out without an
    /// answer.
    pub fn failing(seed: u64) -> Self {
        let mut server = Self::start();
        let front = Proxy::start(server.port);
        front.random_faults(0.07, seed);
        let mut count = 0;
        front.rule(move |_| {
            count += 1;
            let body = r#"{"__type":"x#ProvisionedThroughputExceededException","message":"slow down"}"#;
            let throttled = Reply::new(400, body).with("content-type", "application/x-amz-json-1.0");
            (count % 13 == 0).then_some(Fate::Reply(throttled))
        });
        server.front = Some(front);
        server
    }

    /// Requests so far by what became of them.
    pub fn fates(&self) -> BTreeMap<String, usize> {
        self.front.as_ref().map(Proxy::fates).unwrap_or_default()
    }

    /// What `--metadb` takes for the metaDB under a prefix.
    pub fn url(&self, prefix: &str) -> String {
        url(self.front.as_ref().map_or(self.port, |front| front.port), prefix)
    }

    /// The place under a prefix, whose tables a writer creates.
    pub fn place(&self, prefix: &str) -> Place {
        place(self.front.as_ref().map_or(self.port, |front| front.port), prefix)
    }

    /// `cacheDriver` of a config that names the place.
    pub fn parameters(&self, prefix: &str) -> Value {
        let port = self.front.as_ref().map_or(self.port, |front| front.port);
        json!({
            "name": "dynamodb",
            "endpoint": format!("http://127.0.0.1:{port}"),
            "region": "us-east-1",
            "cacheTablename": format!("{prefix}BlobTable"),
            "repoMetaTablename": format!("{prefix}RepoMetadataTable"),
            "repoBlobsInfoTablename": format!("{prefix}RepoBlobsInfoTable"),
            "imageMetaTablename": format!("{prefix}ImageMetaTable"),
            "userDataTablename": format!("{prefix}UserDataTable"),
            "apiKeyTablename": format!("{prefix}ApiKeyTable"),
            "versionTablename": format!("{prefix}Version"),
        })
    }

    /// The six tables, as zot creates them.
    pub fn create_tables(&self, prefix: &str) {
        for (table, _) in TABLES {
            let request = json!({
                "TableName": format!("{prefix}{table}"),
                "KeySchema": [{"AttributeName": "TableKey", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "TableKey", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
            });
            self.db.create_table(serde_json::from_value(request).unwrap()).unwrap();
        }
    }

    /// Names of the tables, a hundred at most.
    pub fn table_names(&self) -> Vec<String> {
        self.db.list_tables(serde_json::from_value(json!({})).unwrap()).unwrap().table_names
    }

    /// All items of a table, in the service's own notation.
    pub fn items(&self, table: &str) -> Vec<Map<String, Value>> {
        let (mut out, mut from) = (Vec::new(), Value::Null);
        loop {
            let mut request = json!({"TableName": table, "ConsistentRead": true});
            if !from.is_null() {
                request["ExclusiveStartKey"] = from.clone();
            }
            let page = self.db.scan(serde_json::from_value(request).unwrap()).unwrap();
            let page = serde_json::to_value(page).unwrap();
            out.extend(page["Items"].as_array().unwrap().iter().map(|item| item.as_object().unwrap().clone()));
            from = page["LastEvaluatedKey"].clone();
            if from.is_null() {
                return out;
            }
        }
    }

    /// One item; empty if there is none.
    pub fn item(&self, table: &str, key: &str) -> Map<String, Value> {
        let request = json!({"TableName": table, "Key": {"TableKey": {"S": key}}, "ConsistentRead": true});
        let found = self.db.get_item(serde_json::from_value(request).unwrap()).unwrap();
        serde_json::to_value(found).unwrap()["Item"].as_object().cloned().unwrap_or_default()
    }

    /// Put a whole item.
    pub fn put(&self, table: &str, key: &str, attributes: Value) {
        let mut item = attributes;
        item["TableKey"] = json!({"S": key});
        let request = json!({"TableName": table, "Item": item});
        self.db.put_item(serde_json::from_value(request).unwrap()).unwrap();
    }

    /// Set one binary attribute of an item, as zot does: without a condition.
    pub fn set(&self, table: &str, key: &str, attribute: &str, value: &[u8]) {
        let request = json!({
            "TableName": table,
            "Key": {"TableKey": {"S": key}},
            "UpdateExpression": "SET #a = :v",
            "ExpressionAttributeNames": {"#a": attribute},
            "ExpressionAttributeValues": {":v": {"B": BASE64.encode(value)}},
        });
        self.db.update_item(serde_json::from_value(request).unwrap()).unwrap();
    }

    /// Set one text attribute of an item.
    pub fn set_text(&self, table: &str, key: &str, attribute: &str, text: &str) {
        let request = json!({
            "TableName": table,
            "Key": {"TableKey": {"S": key}},
            "UpdateExpression": "SET #a = :v",
            "ExpressionAttributeNames": {"#a": attribute},
            "ExpressionAttributeValues": {":v": {"S": text}},
        });
        self.db.update_item(serde_json::from_value(request).unwrap()).unwrap();
    }

    /// Delete an item, as zot does: without a condition.
    pub fn delete(&self, table: &str, key: &str) {
        let request = json!({"TableName": table, "Key": {"TableKey": {"S": key}}});
        self.db.delete_item(serde_json::from_value(request).unwrap()).unwrap();
    }

    /// One record by the bucket that it is in elsewhere.
    pub fn record(&self, prefix: &str, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let (table, attribute) = place_of(bucket);
        self.item(&format!("{prefix}{table}"), key).get(attribute).map(bytes)
    }

    /// Set one record by the bucket that it is in elsewhere.
    pub fn set_record(&self, prefix: &str, bucket: &str, key: &str, record: &[u8]) {
        let (table, attribute) = place_of(bucket);
        self.set(&format!("{prefix}{table}"), key, attribute, record);
    }

    /// Everything of zot's under a prefix. Nothing that was there besides may be gone.
    pub fn dump(&self, prefix: &str) -> Raw {
        let version = json!({"TableName": format!("{prefix}Version")});
        if self.db.describe_table(serde_json::from_value(version).unwrap()).is_err() {
            return Raw::default();
        }
        let mut raw = Raw(BUCKETS.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect());
        for (table, buckets) in TABLES {
            for item in self.items(&format!("{prefix}{table}")) {
                let key = item["TableKey"]["S"].as_str().unwrap();
                for (bucket, attribute) in buckets {
                    let value = match item.get(*attribute) {
                        None => continue,
                        Some(value) if *bucket == "UserData" => user_bytes(value, item.get(FOREIGN)),
                        Some(value) => bytes(value),
                    };
                    raw.put(bucket, key, &value);
                }
            }
        }
        raw
    }

    /// Make the tables under a prefix hold `content` and nothing else.
    pub fn restore(&self, prefix: &str, content: &Raw) {
        for (table, _) in TABLES {
            let table = json!({"TableName": format!("{prefix}{table}")});
            // It may not be there yet.
            let _ = self.db.delete_table(serde_json::from_value(table).unwrap());
        }
        self.create_tables(prefix);
        for (table, buckets) in TABLES {
            let mut items: BTreeMap<String, Value> = BTreeMap::new();
            for (bucket, attribute) in buckets {
                for (key, record) in content.bucket(bucket) {
                    // There is no other text there.
                    let text = || String::from_utf8_lossy(&record).into_owned();
                    let value = match *bucket {
                        "Version" | "UserAPIKeys" => json!({"S": text()}),
                        "UserData" => user(&record),
                        _ => json!({"B": BASE64.encode(&record)}),
                    };
                    let item = items.entry(String::from_utf8(key).unwrap()).or_insert_with(|| json!({}));
                    item[attribute] = value;
                    item[FOREIGN] = json!({"S": String::from_utf8_lossy(&record)});
                }
            }
            for (key, item) in items {
                self.put(&format!("{prefix}{table}"), &key, item);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread is not waited for: a client that stays connected must not keep a test from ending.
        let _ = self.stop.take().map(|stop| stop.send(()));
    }
}

/// What `--metadb` takes for an emulator, or a proxy, at this port.
pub fn url(port: u16, prefix: &str) -> String {
    format!("dynamodb:http://127.0.0.1:{port}?region=eu-west-1&prefix={prefix}")
}

/// How to reach it, with credentials that it takes.
pub fn options(port: u16, prefix: &str) -> DynamoDbOptions {
    let url = url(port, prefix);
    let options = DynamoDbOptions::from_url(url.strip_prefix("dynamodb:").unwrap()).unwrap();
    options.with_credentials("AKIDEXAMPLE", Secret::new("aws-Secret"))
}

/// The same as a place whose tables a writer creates.
pub fn place(port: u16, prefix: &str) -> Place {
    Place::DynamoDb(Box::new(options(port, prefix).with_create_tables(true)))
}

/// Table and attribute of what is a bucket elsewhere.
fn place_of(bucket: &str) -> (&'static str, &'static str) {
    let mut places =
        TABLES.iter().flat_map(|(table, buckets)| buckets.iter().map(move |(name, at)| (*table, *name, *at)));
    let (table, _, attribute) = places.find(|(_, name, _)| *name == bucket).unwrap();
    (table, attribute)
}

fn bytes(value: &Value) -> Vec<u8> {
    match (value["B"].as_str(), value["S"].as_str()) {
        (Some(binary), _) => BASE64.decode(binary).unwrap(),
        (_, Some(text)) => text.as_bytes().to_vec(),
        _ => panic!("neither binary nor text: {value}"),
    }
}

/// JSON names of an API key's members, and Go's, which zot's DynamoDB driver uses.
const DETAILS: [(&str, &str); 9] = [
    ("createdAt", "CreatedAt"),
    ("expirationDate", "ExpirationDate"),
    ("isExpired", "IsExpired"),
    ("creatorUa", "CreatorUA"),
    ("generatedBy", "GeneratedBy"),
    ("lastUsed", "LastUsed"),
    ("label", "Label"),
    ("scopes", "Scopes"),
    ("uuid", "UUID"),
];

/// A user's JSON record as zot's DynamoDB driver stores it.
fn user(record: &[u8]) -> Value {
    let Ok(mut data) = serde_json::from_slice::<Value>(record) else {
        return json!({"S": String::from_utf8_lossy(record)});
    };
    let keys = data.get_mut("APIKeys").and_then(Value::as_object_mut);
    for details in keys.into_iter().flat_map(|keys| keys.values_mut()).filter_map(Value::as_object_mut) {
        for (tag, name) in DETAILS {
            if let Some(value) = details.remove(tag) {
                details.insert(name.into(), value);
            }
        }
    }
    attribute(&data)
}

fn attribute(value: &Value) -> Value {
    match value {
        Value::Null => json!({"NULL": true}),
        Value::Bool(flag) => json!({"BOOL": flag}),
        Value::Number(number) => json!({"N": number.to_string()}),
        Value::String(text) => json!({"S": text}),
        Value::Array(list) => json!({"L": list.iter().map(attribute).collect::<Vec<_>>()}),
        Value::Object(map) => {
            json!({"M": map.iter().map(|(name, value)| (name.clone(), attribute(value))).collect::<Map<_, _>>()})
        }
    }
}

/// The JSON record that was restored, if its attribute is unchanged.
fn user_bytes(value: &Value, restored: Option<&Value>) -> Vec<u8> {
    let text = restored.and_then(|restored| restored["S"].as_str()).unwrap_or_default();
    if user(text.as_bytes()) == *value { text.into() } else { format!("changed: {value}").into_bytes() }
}
