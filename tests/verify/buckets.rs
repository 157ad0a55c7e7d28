//! Stores in S3, Google Cloud Storage and Azure, below every kind of metaDB.

use super::planted::{all_pass, try_plant};
use super::plants::{Plant, plants};
use super::run::DEPTHS;
use super::support::bucket::{Bucket, Kind, ObjectServer};
use super::support::driver::Driver;
use super::support::dynamodb::Server;
use super::support::proxy::Proxy;
use super::support::setups;
use super::support::store::Repo;
use super::world::{World, descriptor, image};
use metactl::verify::{Depth, Id, Report};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Plants whose findings depend on the store.
const IN_BUCKETS: [&str; 24] = [
    "tag lost",
    "image record of a child lost",
    "image of another author",
    "image that nothing names",
    "signature by subject lost",
    "signature that is not there",
    "signature of other content",
    "referrer of another size",
    "push times lost",
    "a layer of another size",
    "ImageMeta undecodable, due",
    "records from the future",
    "manifest lost",
    "config altered",
    "manifest cut off",
    "index cut off",
    "invalid digest in the index",
    "another layout",
    "repo nobody knows",
    "repo without its index",
    "repo called myblobs",
    "tag pushed behind the back, dated back",
    "tag moved behind the back",
    "tag deleted behind the back",
];

fn in_buckets() -> Vec<Plant> {
    let plants: Vec<Plant> = plants().into_iter().filter(|plant| IN_BUCKETS.contains(&plant.name)).collect();
    assert_eq!(plants.len(), IN_BUCKETS.len());
    plants
}

/// A store of its own in a bucket that all share.
fn next_store(server: &ObjectServer) -> Bucket<'_> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    server.existing("plants", Some(&format!("/world-{}", NEXT.fetch_add(1, Ordering::Relaxed))))
}

#[test]
#[ignore = "needs object stores and redis-server: run tests/run"]
fn every_plant_in_a_bucket_is_found_and_repaired() {
    let [s3, gcs, azure] = Kind::ALL.map(ObjectServer::start);
    for server in [&s3, &gcs, &azure] {
        server.bucket("plants", None);
    }
    let (dynamodb, redis) = (Server::start(), setups::plain());
    let places = [
        (&s3, Driver::Bolt),
        (&s3, Driver::DynamoDb(&dynamodb)),
        (&gcs, Driver::Redis(&redis)),
        (&azure, Driver::Redb),
    ];
    let plants = in_buckets();
    let all = plants.iter().enumerate().flat_map(|(at, plant)| places.iter().map(move |place| (at, plant, place)));
    // S3 has all of them already below another metaDB.
    let work: Vec<_> = all
        .filter(|(at, _, (_, driver))| at % 3 == 0 || !matches!(driver, Driver::DynamoDb(_)))
        .map(|(_, plant, place)| (plant, place))
        .collect();
    all_pass(&work, |(plant, (server, driver))| {
        let problems = try_plant(plant, World::in_bucket(*driver, next_store(server), server.port));
        problems.into_iter().map(|problem| format!("{:?}: {problem}", server.kind)).collect()
    });
}

#[test]
fn every_id_that_depends_on_the_store_is_planted_in_buckets() {
    let planted: BTreeSet<&str> = in_buckets().iter().flat_map(|plant| plant.deep.clone()).collect();
    let elsewhere = [
        // Below, because it takes a proxy or a second store.
        ["blob-unreadable", "repo-unroutable"].as_slice(),
        // About config and metaDB alone.
        &["version-unknown", "stamp-absent", "stamp-identity", "stamp-config", "fast-restart-off", "metadb-unused"],
        &["stars-differ", "user-record-undecodable", "record-unknown-fields"],
    ]
    .concat();
    let missing: Vec<&str> =
        Id::ALL.iter().map(|id| id.text()).filter(|id| !planted.contains(id) && !elsewhere.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn ids(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|found| found.id.text()).collect()
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn verify_only_reads_a_bucket_and_says_what_it_may_not() {
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let proxy = Proxy::start(server.port);
        let world = World::in_bucket(Driver::Bolt, server.bucket("healthy", Some("/zot")), proxy.port);
        let methods = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&methods);
        proxy.rule(move |request| {
            seen.lock().unwrap().insert(request.method.clone());
            None
        });
        for depth in DEPTHS {
            assert_eq!(ids(&world.verify(depth)), Vec::<&str>::new(), "{kind:?} {}", depth.word());
        }
        let reads = |method: &String| matches!(method.as_str(), "GET" | "HEAD");
        assert!(methods.lock().unwrap().iter().all(reads), "{kind:?} {methods:?}");

        // What a service refuses is neither missing nor drift.
        proxy.refuse(world.digests.v1.split_once(':').unwrap().1, 403);
        assert_eq!(ids(&world.verify(Depth::Deep)), ["blob-unreadable"], "{kind:?}");
        proxy.refuse("team/app/index.json", 403);
        match kind {
            // Its listing looks at every index.
            Kind::Gcs => assert_eq!(world.metactl(&["verify", "--quick"]).status.code(), Some(3)),
            Kind::S3 | Kind::Azure => assert_eq!(ids(&world.verify(Depth::Quick)), ["index-unreadable"], "{kind:?}"),
        }
        proxy.refuse("zot", 403);
        let output = world.metactl(&["verify"]);
        assert_eq!(output.status.code(), Some(3), "{kind:?} {output:?}");
        proxy.clear();

        // A repo in a bucket that zot never asks for it.
        let (other, files) = (server.bucket("other", Some("/zot")), tempfile::tempdir().unwrap());
        let mut stray = Repo::new(files.path(), "other/app", 1_704_067_200_000_000_000);
        let (digest, _) = image(&mut stray, "stray", "amd64", 3);
        stray.index(&[descriptor("application/vnd.oci.image.manifest.v1+json", &digest, Some("a"))]);
        other.load(files.path());
        let path = world.dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut driver = other.storage_driver(proxy.port);
        driver["forcepathstyle"] = true.into();
        let sub = serde_json::json!({"rootDirectory": "sub", "dedupe": false, "storageDriver": driver});
        config["storage"]["subPaths"] = serde_json::json!({"/sub": sub});
        std::fs::write(&path, config.to_string()).unwrap();
        let report = world.verify(Depth::Deep);
        assert_eq!(ids(&report), ["stamp-config", "repo-unroutable"], "{kind:?} {:?}", report.findings);
        assert_eq!(report.findings[1].repo.as_deref(), Some("other/app"));
    }
}
