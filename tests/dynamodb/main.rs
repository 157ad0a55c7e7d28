//! DynamoDB metaDBs: what is written under which conditions, what is asked for, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod conditions;
mod faults;
mod limits;
mod policy;
mod reading;
mod rights;
mod stamps;

use metactl::cancel::Cancel;
use metactl::metadb::{MetaDb, MetaDbError, MetaDbWriter, Place};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::dynamodb::{Server, place};
use support::proxy::{Fate, Proxy, Reply, Request};

/// Prefix of the tables.
const P: &str = "Zot";
const REPOS: &str = "ZotRepoMetadataTable";
const BLOBS: &str = "ZotRepoBlobsInfoTable";
const IMAGES: &str = "ZotImageMetaTable";
const USERS: &str = "ZotUserDataTable";
const VERSION: &str = "ZotVersion";

/// An emulator with zot's tables, and a proxy before it.
struct Stage {
    server: Server,
    proxy: Proxy,
}

impl Stage {
    fn new() -> Self {
        let stage = Self::bare();
        stage.server.create_tables(P);
        stage
    }

    /// Without tables.
    fn bare() -> Self {
        let server = Server::start();
        let proxy = Proxy::start(server.port);
        Self { server, proxy }
    }

    /// The metaDB, through the proxy.
    fn place(&self) -> Place {
        place(self.proxy.port, P)
    }

    fn writer(&self) -> Box<dyn MetaDbWriter> {
        support::walk::open_writer(&self.place()).unwrap()
    }

    fn reader(&self) -> Box<dyn MetaDb> {
        read(&self.place()).unwrap()
    }

    /// Write down every request from now on: operation and tables.
    fn listen(&self) -> Arc<Mutex<Vec<(String, String)>>> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let writing = Arc::clone(&heard);
        self.proxy.rule(move |request| {
            writing.lock().unwrap().push((request.operation.clone().unwrap(), tables(request)));
            None
        });
        heard
    }
}

fn read(place: &Place) -> Result<Box<dyn MetaDb>, MetaDbError> {
    place.open(&Cancel::default())
}

fn failed<T>(outcome: Result<T, MetaDbError>) -> MetaDbError {
    outcome.err().expect("it must fail")
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// Names of the tables that a request is about.
fn tables(request: &Request) -> String {
    let body = body(request);
    match body["RequestItems"].as_object() {
        Some(tables) => tables.keys().cloned().collect::<Vec<_>>().join(" "),
        None => body["TableName"].as_str().unwrap().to_owned(),
    }
}

/// An error as the service gives it.
fn error(status: u16, code: &str) -> Fate {
    let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": format!("no: {code}")});
    Fate::Reply(Reply::new(status, &body.to_string()).with("content-type", "application/x-amz-json-1.0"))
}
