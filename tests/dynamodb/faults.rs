//! Throttling and failures in the middle of everything: nothing is lost, counts are exact.

use super::{P, Stage, error, failed, read};
use crate::support::dynamodb::options;
use crate::support::proxy::Fate;
use crate::support::walk::{open_writer, walk_at, walk_with};
use crate::support::work::{all, done, repos, store};
use metactl::cancel::Cancel;
use metactl::metadb::{MetaDbError, Place, WriteToken};
use metactl::progress::Pressure;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A table that bears only so much at once.
fn overloaded(stage: &Stage, every: usize) {
    let count = AtomicUsize::new(0);
    stage.proxy.rule(move |_| {
        (!count.fetch_add(1, Ordering::Relaxed).is_multiple_of(every))
            .then(|| error(400, "ProvisionedThroughputExceededException"))
    });
}

#[test]
fn a_walk_through_throttling_leaves_what_one_without_does() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 12, 6);
    let pressured = options(stage.proxy.port, P);
    let pressure: Arc<Pressure> = pressured.pressure();
    let place = Place::DynamoDb(Box::new(pressured));
    assert_eq!(pressure.throttling(), None);
    // Two of three requests are refused.
    overloaded(&stage, 3);
    let report = walk_at(&place, dir.path(), false).unwrap();
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    assert_eq!((report.parsed, report.manifests), (12, 72));
    let throttled = stage.proxy.fates()["400"];
    let told = pressure.throttling().unwrap();
    assert!(told.starts_with(&format!("throttled {throttled} times, ")), "{told}");
    let tally = pressure.to_string();
    let requests: usize = stage.proxy.requests().values().sum();
    assert!(tally.starts_with(&format!("{requests} requests, ")) && tally.contains(&format!(" {throttled} throttled")));

    let calm = Stage::new();
    assert!(walk_at(&calm.place(), dir.path(), false).unwrap().complete());
    let timeless = |stage: &Stage| {
        let mut raw = stage.server.dump(P);
        raw.0.remove("RepoLastUpdated");
        crate::support::equality::normal(&crate::support::records::decode(&raw), &serde_json::json!({}))
    };
    assert_eq!(timeless(&stage), timeless(&calm));
}

#[test]
fn a_service_that_goes_away_midway() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 8, 3);
    let brief = options(stage.proxy.port, P).with_patience(Duration::from_millis(300));
    let place = Place::DynamoDb(Box::new(brief));
    let mut writer = open_writer(&place).unwrap();
    let count = AtomicUsize::new(0);
    stage.proxy.rule(move |request| {
        let write = request.operation.as_deref() == Some("UpdateItem");
        (write && count.fetch_add(1, Ordering::Relaxed) >= 30).then_some(Fate::Reset)
    });
    let report = walk_with(dir.path(), &mut *writer, false).unwrap();
    assert!(report.broken_off.as_ref().is_some_and(|why| why.contains("cannot be reached")), "{report:?}");
    assert!(!report.stamp.is_there());
    drop(writer);
    stage.proxy.clear();
    assert_eq!(read(&place).unwrap().stamp().unwrap(), None);
    // The next walk reads what is missing.
    let report = walk_at(&place, dir.path(), false).unwrap();
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    assert_eq!(stage.server.dump(P).bucket("RepoMeta").len(), 8);
    assert_eq!(stage.server.dump(P).bucket("ImageMeta").len(), 24);
}

#[test]
fn nobody_answers_or_somebody_else_does() {
    let brief = |port| Place::DynamoDb(Box::new(options(port, P).with_patience(Duration::from_millis(300))));
    let free = crate::support::server::free_port();
    let unreachable = |error: MetaDbError, what: &str| {
        assert!(matches!(&error, MetaDbError::Unreachable { detail, .. } if detail.contains(what)), "{error:?}");
    };
    unreachable(failed(read(&brief(free))), "refused");
    let stage = Stage::new();
    stage.proxy.rule(|_| Some(Fate::Reply(crate::support::proxy::Reply::new(404, "<html>not here</html>"))));
    unreachable(failed(read(&brief(stage.proxy.port))), "no DynamoDB");
    stage.proxy.rule(|_| Some(Fate::Reply(crate::support::proxy::Reply::new(200, "<html>hello</html>"))));
    unreachable(failed(open_writer(&brief(stage.proxy.port))), "no DynamoDB");
}

#[test]
fn asked_to_stop_it_stops() {
    let stage = Stage::new();
    let cancel = Cancel::default();
    let mut writer =
        stage.place().open_writer(WriteToken::for_writing_command(), Duration::from_secs(5), &cancel).unwrap();
    let stopping = cancel.clone();
    stage.proxy.rule(move |request| {
        if request.operation.as_deref() == Some("UpdateItem") {
            stopping.cancel();
        }
        Some(error(400, "ThrottlingException"))
    });
    assert!(matches!(failed(writer.write(&all(&repos(50)))), MetaDbError::Cancelled));
    stage.proxy.clear();
    assert!(matches!(failed(writer.write(&all(&repos(50)))), MetaDbError::Cancelled));
    drop(writer);
    assert!(done(&stage.writer().write(&all(&repos(50))).unwrap()));
}
