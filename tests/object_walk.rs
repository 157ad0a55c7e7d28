//! Image stores in S3, Google Cloud Storage and Azure: every command, against the same store on a local disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::bucket::{Bucket, Kind, ObjectServer, Recorded};
use support::command::{Ran, Sandbox, run};
use support::driver::Driver;
use support::equality::{differences, strict};
use support::records::decode;
use support::registry::registry;

/// Run a command on the store in `bucket`, its requests through `port`.
fn command(sandbox: &Sandbox, bucket: &Bucket<'_>, port: u16, arguments: &[&str]) -> Ran {
    let mut command = sandbox.command(arguments);
    command.envs(bucket.environment(port));
    run(&mut command)
}

/// A registry with nothing on disk whose store is in `bucket`.
fn remote(bucket: &Bucket<'_>, port: u16) -> Sandbox {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": bucket.storage_driver(port)}));
    sandbox
}

/// The metaDB of a sandbox, without what differs between any two walks.
fn recorded(root: &Path) -> Value {
    strict(&decode(&Driver::Bolt.dump(root)), &json!({}))
}

#[test]
#[ignore = "needs object stores: run tests/run"]
fn a_walk_records_what_a_walk_of_the_same_files_on_disk_records() {
    let local = Sandbox::new(|root| drop(registry(root, 20, 45)));
    for kind in Kind::ALL {
        let server = ObjectServer::start(kind);
        let bucket = server.bucket("registry", Some("/some/zot"));
        bucket.load(&local.root);
        let objects = bucket.objects();
        assert!(objects.len() >= 3_000, "{}", objects.len());
        bucket.date_like_objects(&local.root, &Recorded::new());
        let _ = std::fs::remove_file(local.meta());
        local.walk();
        let expected = recorded(&local.root);

        let sandbox = remote(&bucket, server.port);
        let walk = command(&sandbox, &bucket, server.port, &["--format", "json", "walk"]);
        assert_eq!(walk.code, Some(0), "{kind:?}: {walk:?}");
        assert_eq!(walk.json()["repos"]["parsed"], 20, "{kind:?}: {walk:?}");
        let found = differences(&expected, &recorded(&sandbox.root));
        assert!(found.is_empty(), "{kind:?}: {} differences, first {:?}", found.len(), found.first());

        for arguments in [&["verify", "--deep"][..], &["stamp", "show", "--check"], &["walk"]] {
            let ran = command(&sandbox, &bucket, server.port, arguments);
            assert_eq!(ran.code, Some(0), "{kind:?} {arguments:?}: {ran:?}");
        }
        assert_eq!(bucket.objects(), objects, "{kind:?}");
    }
}
