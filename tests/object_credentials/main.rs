//! Where credentials come from, seen from the other side: a server that looks at the headers of what it is asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod azure;
mod google;
mod s3;
mod server;

use serde_json::{Value, json};
use std::path::Path;
use support::command::{Ran, Sandbox, run};
use support::setups::Certificates;

/// A dry run over the store that `driver` says, with this environment and nothing else.
pub fn dry_run(driver: &Value, environment: &[(&str, &str)]) -> Ran {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": driver}));
    let mut command = sandbox.command(&["walk", "--dry-run"]);
    command.env("HOME", sandbox.dir.path()).envs(environment.iter().copied());
    run(&mut command)
}

/// A file with this content; its path.
pub fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Everybody whom these tests ask through the proxy.
pub fn the_world() -> Certificates {
    Certificates::make_for(&[
        "*.eu-west-1.amazonaws.com",
        "*.s3.eu-west-1.amazonaws.com",
        "*.s3-accesspoint.eu-west-1.amazonaws.com",
        "*.googleapis.com",
        "accounts.google.com",
        "login.microsoftonline.com",
        "login.microsoftonline.us",
    ])
}

/// Hosts that were asked for through the proxy.
pub fn hosts(requests: &[String]) -> Vec<&str> {
    let connects = requests.iter().filter_map(|request| request.strip_prefix("CONNECT "));
    connects.map(|rest| rest.split(':').next().unwrap()).collect()
}

/// The request that begins so.
pub fn the<'r>(requests: &'r [String], begin: &str) -> &'r str {
    requests.iter().find(|request| request.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {requests:?}"))
}
