//! Push times that were lost: many within the same seconds, long after the blobs they belong to were written.
//!
//! zot takes the push time at the push, so it is that of the blob's file, give or take a moment. Walks of releases that
//! take "now" instead, and records rebuilt after a loss, give a whole repo one push time; retention by push time then
//! keeps everything for a while and expires it all at once.

use super::aggregates::seconds;
use super::findings::{Finding, Id};
use crate::oci::time::Time;
use crate::records::proto;
use std::collections::BTreeMap;

/// So many push times within [`WINDOW`] make a cluster; what one pipeline pushes at a time stays below.
const MANY: usize = 10;
/// Width of a cluster in seconds.
const WINDOW: i64 = 5;
/// A push time this many seconds after the blob's own is not the blob's.
const LATE: i64 = 600;

/// Digests of the largest cluster, if there is one.
#[must_use]
pub fn cluster(meta: &proto::RepoMeta) -> Vec<&str> {
    let mut times: Vec<(i64, &str)> = meta
        .statistics
        .iter()
        .filter(|(digest, _)| !digest.is_empty())
        .filter_map(|(digest, known)| Some((known.push_timestamp?.seconds, digest.as_str())))
        .filter(|(at, _)| *at > 0)
        .collect();
    times.sort_unstable();
    let mut best = 0..0;
    let mut start = 0;
    for (at, (time, _)) in times.iter().enumerate() {
        while times.get(start).is_some_and(|(first, _)| time.saturating_sub(*first) > WINDOW) {
            start += 1;
        }
        if at + 1 - start > best.len() {
            best = start..at + 1;
        }
    }
    let found = times.get(best).unwrap_or_default();
    if found.len() < MANY { Vec::new() } else { found.iter().map(|(_, digest)| *digest).collect() }
}

/// Digests of the cluster whose blobs were written long before. `written` holds the blobs' times by digest.
#[must_use]
pub fn late<'m>(meta: &'m proto::RepoMeta, written: &BTreeMap<&str, Time>) -> Vec<&'m str> {
    let late = |digest: &&str| {
        let pushed = meta.statistics.get(*digest).and_then(|known| known.push_timestamp);
        pushed.zip(written.get(digest)).is_some_and(|(pushed, written)| pushed.seconds - written.seconds > LATE)
    };
    cluster(meta).into_iter().filter(late).collect()
}

/// A finding if a cluster's push times cannot be the real ones.
#[must_use]
pub fn check(meta: &proto::RepoMeta, written: &BTreeMap<&str, Time>) -> Option<Finding> {
    let late = late(meta, written);
    let first = late.first().filter(|_| late.len() >= MANY)?;
    let pushed = meta.statistics.get(*first).and_then(|known| known.push_timestamp);
    let expected = written.get(first).map(|at| format!("for example {first} at {}", seconds(Some((*at).into()))));
    let found = format!("{} images pushed within {WINDOW} s of {}", late.len(), seconds(pushed));
    Some(Finding { expected, ..Finding::new(Id::PushTimeCluster).found(found) })
}
