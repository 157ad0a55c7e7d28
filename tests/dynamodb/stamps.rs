//! The stamp: compare and set, and who may.

use super::{Stage, VERSION, failed};
use crate::support::proxy::Fate;
use crate::support::work::{all, done, repos};
use metactl::metadb::MetaDbError;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn it_is_where_zot_keeps_it() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    assert_eq!(writer.reader().stamp().unwrap(), None);
    writer.set_stamp(None, Some(b"a")).unwrap();
    let item = stage.server.item(VERSION, "FastRestartStamp");
    assert_eq!(json!(item), json!({"TableKey": {"S": "FastRestartStamp"}, "Version": {"S": "a"}}));
    assert_eq!(stage.reader().stamp().unwrap().as_deref(), Some(&b"a"[..]));
    let changed = |outcome| assert!(matches!(failed(outcome), MetaDbError::StampChanged { .. }));
    changed(writer.set_stamp(None, Some(b"b")));
    changed(writer.set_stamp(Some(b"b"), Some(b"c")));
    changed(writer.set_stamp(Some(b"b"), None));
    changed(writer.set_stamp(Some(b"\xff"), None));
    writer.set_stamp(Some(b"a"), Some(b"b")).unwrap();
    writer.set_stamp(Some(b"b"), None).unwrap();
    assert_eq!(stage.reader().stamp().unwrap(), None);
    changed(writer.set_stamp(Some(b"b"), Some(b"c")));
    writer.set_stamp(None, Some(b"c")).unwrap();
    assert_eq!(stage.reader().stamp().unwrap().as_deref(), Some(&b"c"[..]));
    // zot's way to clear it.
    stage.server.put(VERSION, "FastRestartStamp", json!({"Version": {"S": ""}}));
    assert_eq!(stage.reader().stamp().unwrap(), None);
    writer.set_stamp(None, Some(b"d")).unwrap();
    assert_eq!(stage.reader().stamp().unwrap().as_deref(), Some(&b"d"[..]));
}

/// Of two walks that overlap, the one that began last may stamp.
#[test]
fn whoever_was_overtaken_does_not_stamp() {
    let stage = Stage::new();
    let (mut first, mut second) = (stage.writer(), stage.writer());
    let work = repos(1);
    assert!(done(&first.write(&all(&work)).unwrap()));
    assert!(done(&second.write(&all(&work)).unwrap()));
    assert!(done(&first.write(&all(&work)).unwrap()));
    assert!(matches!(failed(first.set_stamp(None, Some(b"first"))), MetaDbError::StampChanged { .. }));
    second.set_stamp(None, Some(b"second")).unwrap();
    assert_eq!(stage.reader().stamp().unwrap().as_deref(), Some(&b"second"[..]));

    // Nothing is written under a stamp that appeared after the plan was made.
    let mut third = stage.writer();
    let before = stage.server.dump(super::P);
    assert!(matches!(failed(third.write(&all(&work))), MetaDbError::StampChanged { .. }));
    assert!(matches!(failed(third.delete_images(&["sha256:aa".into()])), MetaDbError::StampChanged { .. }));
    assert_eq!(stage.server.dump(super::P), before);
    // A walk that ended without a stamp leaves nobody out.
    third.set_stamp(Some(b"second"), None).unwrap();
    drop(third);
    stage.writer().set_stamp(None, Some(b"fourth")).unwrap();
}

#[test]
fn an_answer_that_is_lost_is_looked_up() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let count = AtomicUsize::new(0);
    // Every other write is carried out without anybody hearing of it.
    stage.proxy.rule(move |request| {
        let write = request.operation.as_deref() == Some("UpdateItem");
        (write && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)).then_some(Fate::Truncate)
    });
    writer.set_stamp(None, Some(b"a")).unwrap();
    writer.set_stamp(Some(b"a"), None).unwrap();
    writer.set_stamp(None, Some(b"b")).unwrap();
    assert_eq!(stage.reader().stamp().unwrap().as_deref(), Some(&b"b"[..]));
}

#[test]
fn versions() {
    let stage = Stage::new();
    // As zot takes it: no version yet is the current one, and a writer makes it so.
    assert_eq!(stage.reader().version().unwrap().as_deref(), Some("V1"));
    drop(stage.writer());
    assert_eq!(stage.server.item(VERSION, "DBVersion")["Version"]["S"], "V1");
    stage.server.put(VERSION, "DBVersion", json!({"Version": {"S": "V2"}}));
    assert_eq!(stage.reader().version().unwrap().as_deref(), Some("V2"));
    let before = stage.server.dump(super::P);
    let error = failed(crate::support::walk::open_writer(&stage.place()));
    assert!(matches!(&error, MetaDbError::Version { found, .. } if found == "V2"), "{error:?}");
    assert_eq!(stage.server.dump(super::P), before);
    stage.server.put(VERSION, "DBVersion", json!({"Version": {"N": "1"}}));
    assert!(matches!(failed(stage.reader().version()), MetaDbError::Damaged { .. }));
}
