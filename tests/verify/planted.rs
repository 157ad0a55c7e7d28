//! Each plant is found exactly, at each depth that promises it, and goes away by the commands that its findings name.

use super::plants::{Plant, plants};
use super::run::DEPTHS;
use super::support::driver::{Driver, Raw};
use super::support::dynamodb::Server;
use super::support::equality::differences;
use super::support::records::decode;
use super::support::setups;
use super::world::World;
use metactl::verify::{Depth, Id, Report, Severity};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;

fn ids(report: &Report) -> Vec<&'static str> {
    let mut ids: Vec<&str> = report.findings.iter().map(|found| found.id.text()).collect();
    ids.sort_unstable();
    ids
}

/// The exit code that a report is told with.
pub fn code(report: &Report) -> i32 {
    match report.worst() {
        None | Some(Severity::Info) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Critical) => 2,
    }
}

/// What a repair may change in the repo that it repairs: times that only its own run knows.
fn timeless(state: &Raw) -> Value {
    fn drop_times(value: &mut Value) {
        if let Some(members) = value.as_object_mut() {
            ["TaggedTimestamp", "PushTimestamp", "LastPullTimestamp", "Date"]
                .iter()
                .for_each(|key| drop(members.remove(*key)));
            members.values_mut().for_each(drop_times);
        }
        value.as_array_mut().into_iter().flatten().for_each(drop_times);
    }
    let mut state = decode(state);
    state["Version"] = json!({});
    state["RepoBlobsMeta"]["<bucket>RepoLastUpdated"] = json!({});
    drop_times(&mut state);
    state
}

/// Findings before, and after the repairs that they name.
fn repair(world: &World<'_>, plant: &Plant, before: &Raw) -> Vec<String> {
    let found = world.verify(Depth::Deep);
    let commands: BTreeSet<String> = found.findings.iter().filter_map(|found| found.repair.clone()).collect();
    let mut problems = Vec::new();
    if commands.is_empty() {
        return vec!["no finding names a repair".into()];
    }
    for command in &commands {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let output = world.metactl(&words);
        if !output.status.success() {
            problems.push(format!("{command}: {output:?}"));
        }
    }
    // Each look at a bucket costs a second of processor time; the deepest finds all that the others do.
    for depth in DEPTHS.into_iter().filter(|depth| world.remote.is_none() || *depth == Depth::Deep) {
        // Images of a deleted tag stay, as in zot; and no walk can tell the stars of a repo whose records were lost.
        let stays = |id: &str| match id {
            "orphan-image" => !plant.deep.contains(&id),
            "stars-differ" => plant.deep.contains(&"repo-missing"),
            _ => id == "fast-restart-off",
        };
        let left: Vec<&str> = ids(&world.verify(depth)).into_iter().filter(|id| !stays(id)).collect();
        if !left.is_empty() {
            problems.push(format!("after {commands:?} {} still finds {left:?}", depth.word()));
        }
    }
    let after = world.raw();
    // Storage itself changed in these; then the records must, too.
    let told: BTreeSet<&str> = plant.deep.iter().copied().collect();
    let elsewhere = ["behind the back", "repo nobody knows", "repos nobody knows", "repo removed", "without its index"];
    if !elsewhere.iter().any(|words| plant.name.contains(words)) {
        let lost_stars = told.contains("repo-missing");
        let (mut wanted, mut got) = (timeless(&world.healthy), timeless(&after));
        if lost_stars {
            for state in [&mut wanted, &mut got] {
                state["RepoMeta"]["alpine"]["Stars"] = json!(null);
            }
        }
        if told.contains("orphan-image") {
            got["ImageMeta"] = json!({});
            wanted["ImageMeta"] = json!({});
        }
        problems.extend(differences(&wanted, &got).into_iter().map(|line| format!("changed by the repair: {line}")));
    }
    for (bucket, records) in &before.0 {
        for (key, value) in records {
            let other_repo = bucket.starts_with("Repo") && key != b"alpine";
            let told = ["repo removed", "without its index", "everything deleted"]
                .iter()
                .any(|words| plant.name.contains(words));
            // Only the two commands that are about everything may touch the times of other repos.
            let whole = commands.iter().any(|command| command.ends_with("--force")) && bucket == "RepoLastUpdated";
            if (other_repo || bucket.starts_with("User")) && !told && !whole && after.0[bucket].get(key) != Some(value)
            {
                problems.push(format!("{bucket} {} changed", String::from_utf8_lossy(key)));
            }
        }
    }
    problems
}

/// Plant it in a healthy registry, look at each depth, repair it.
pub fn try_plant(plant: &Plant, mut world: World<'_>) -> Vec<String> {
    let driver = world.driver;
    (plant.spoil)(&mut world);
    world.write_config();
    if let Some(remote) = &world.remote {
        remote.update(&world);
    }
    let before = world.raw();
    let stored = world.stored();
    let mut problems = Vec::new();
    for (depth, wanted) in DEPTHS.into_iter().zip([&plant.quick, &plant.default, &plant.deep]) {
        let report = world.verify(depth);
        if ids(&report) != *wanted {
            problems.push(format!(
                "{}: {:?} instead of {wanted:?}: {:#?}",
                depth.word(),
                ids(&report),
                report.findings
            ));
        }
    }
    // The same through the binary: at the depth that promises most, and as it is mostly run. What is in a bucket has been
    // through it already.
    let promising = if plant.quick.is_empty() { ("--deep", Depth::Deep) } else { ("--quick", Depth::Quick) };
    let usual = (!plant.default.is_empty()).then_some(("--jobs=2", Depth::Records));
    for (flag, depth) in [promising].into_iter().chain(usual).filter(|_| world.remote.is_none()) {
        let report = world.verify(depth);
        let output = world.metactl(&["verify", flag, "--format", "json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let counts = report.counts().into_iter().map(|(id, number)| (id.text().to_owned(), json!(number)));
        let counts: Value = counts.collect::<serde_json::Map<_, _>>().into();
        if output.status.code() != Some(code(&report)) || told["counts"] != counts {
            let (got, wanted) = (&told["counts"], code(&report));
            problems.push(format!("binary {flag}: {:?}, {got} instead of {wanted}, {counts}", output.status));
        }
    }
    if world.raw() != before {
        problems.push("verify changed the metaDB".into());
    }
    if world.stored() != stored {
        problems.push("verify changed the store".into());
    }
    if plant.repairable {
        problems.extend(repair(&world, plant, &before));
        if world.stored() != stored {
            problems.push("the repair changed the store".into());
        }
    } else {
        problems.extend(world.verify(Depth::Deep).findings.iter().filter_map(|found| {
            // A stamp over what no walk can repair goes away by a walk, which is what this one is about.
            let repair = found.repair.as_ref().filter(|_| found.id != Id::StampPremature)?;
            Some(format!("{} names {repair}, which does not repair it", found.id))
        }));
    }
    problems.into_iter().map(|problem| format!("{} ({driver:?}): {problem}", plant.name)).collect()
}

fn every_plant(drivers: &[Driver<'_>]) {
    let plants = plants();
    assert!(plants.len() >= 60, "{}", plants.len());
    let only = std::env::var("PLANT").ok();
    let work: Vec<(&Plant, Driver)> = plants
        .iter()
        .filter(|plant| only.as_ref().is_none_or(|only| plant.name.contains(only.as_str())))
        .flat_map(|plant| drivers.iter().map(move |driver| (plant, *driver)))
        .filter(|(plant, driver)| plant.applies(*driver))
        .collect();
    all_pass(&work, |(plant, driver)| try_plant(plant, World::new(*driver)));
}

/// Try each of them, several at a time.
pub fn all_pass<T: Sync>(work: &[T], attempt: impl Fn(&T) -> Vec<String> + Sync) {
    let (next, problems) = (Mutex::new(work.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                loop {
                    let Some(one) = next.lock().unwrap().next() else { return };
                    let found = attempt(one);
                    problems.lock().unwrap().extend(found);
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_plant_is_found_and_repaired() {
    every_plant(&Driver::BOTH);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_plant_in_redis_is_found_and_repaired() {
    every_plant(&[Driver::Redis(&setups::plain())]);
}

#[test]
fn every_plant_in_dynamodb_is_found_and_repaired() {
    every_plant(&[Driver::DynamoDb(&Server::start())]);
}

/// What is throttled, fails or loses its answer is neither drift nor hides any.
#[test]
fn every_plant_in_a_failing_dynamodb_is_found_and_repaired() {
    let server = Server::failing(11);
    every_plant(&[Driver::DynamoDb(&server)]);
    let fates = server.fates();
    for fault in ["400", "500", "503", "reset", "truncate"] {
        assert!(fates.get(fault).is_some_and(|times| *times > 10), "{fault}: {fates:?}");
    }
}

#[test]
fn every_id_is_planted() {
    let planted: BTreeSet<&str> = plants().iter().flat_map(|plant| plant.deep.clone()).collect();
    // These need other stores or configs, and have tests of their own.
    let elsewhere = ["metadb-unused", "repo-unroutable", "blob-unreadable"];
    let missing: Vec<&str> = metactl::verify::Id::ALL
        .iter()
        .map(|id| id.text())
        .filter(|id| !planted.contains(id) && !elsewhere.contains(id))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What makes zot serve wrong data without an end is critical.
#[test]
fn what_zot_never_repairs_is_critical() {
    let severity = |text: &str| Id::ALL.iter().find(|id| id.text() == text).unwrap().severity();
    for id in ["stamp-premature", "repo-hidden"] {
        assert_eq!(severity(id), Severity::Critical, "{id}");
    }
}

fn healthy(driver: Driver<'_>) {
    let world = World::new(driver);
    for depth in DEPTHS {
        let report = world.verify(depth);
        assert!(report.findings.is_empty(), "{driver:?} {}: {:#?}", depth.word(), report.findings);
    }
    for flag in ["--quick", "-v", "--deep"] {
        let output = world.metactl(&["verify", flag]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn a_healthy_registry_gives_no_findings() {
    Driver::BOTH.into_iter().for_each(healthy);
}

#[test]
fn a_healthy_registry_in_dynamodb_gives_no_findings() {
    healthy(Driver::DynamoDb(&Server::start()));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_healthy_registry_in_redis_gives_no_findings() {
    healthy(Driver::Redis(&setups::plain()));
}
