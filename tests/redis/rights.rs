//! The rights that metactl needs, no more and no less; the README says the same.

use crate::support::redis::dump;
use crate::support::setups;
use crate::support::walk::{STAMP, open_writer, walk_at};
use crate::support::work::store;
use crate::{failed, read};
use metactl::metadb::redis::RedisOptions;
use metactl::metadb::{MetaDbError, Place};

/// Every other test of rights takes them from [`setups`].
#[test]
fn the_readme_gives_the_same_rights() {
    let readme = include_str!("../../README.md");
    let rights = |user: &str| {
        let rule = readme.split_once(&format!("ACL SETUSER {user} on >PASSWORD ~zot:* ")).unwrap().1;
        // Rules go on in indented lines.
        let end = rule.match_indices('\n').find(|(at, _)| !rule[at + 1..].starts_with("    ")).unwrap().0;
        let commands = rule[..end].split_whitespace().map(|right| right.strip_prefix('+').unwrap());
        commands.collect::<Vec<_>>()
    };
    assert_eq!(rights("metactl-read"), setups::READING);
    assert_eq!(rights("metactl-walk"), [&setups::READING[..], &setups::WALKING[..]].concat());
    for right in ["+select", "+client|setname", "+cluster|slots", "+sentinel|get-master-addr-by-name"] {
        assert!(readme.contains(right), "{right}");
    }
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn every_missing_command_is_named_before_anything_is_written() {
    let every = [&setups::READING[..], &setups::WALKING[..]].concat();
    for missing in &every {
        let left: Vec<&str> = every.iter().copied().filter(|command| command != missing).collect();
        let server = setups::acl(&left, "zot");
        let place = Place::parse(&format!("redis://zot:zot-Secret@127.0.0.1:{}", server.port)).unwrap();
        let mut admin = server.client();
        let reading = read(&place).and_then(|db| db.repo_names());
        if setups::READING.contains(missing) {
            // One field, so that reading has something to ask for.
            let () = redis::cmd("HSET").arg("zot:RepoMeta").arg("a").arg("b").query(&mut admin).unwrap();
            let reading = read(&place).and_then(|db| {
                db.version()?;
                db.repo_names()?;
                db.last_updated()?;
                db.repo("a")?;
                db.images(&["sha256:aa"]).map(drop)
            });
            match failed(reading) {
                MetaDbError::Denied { command, .. } => assert_eq!(command, *missing),
                error => panic!("{missing}: {error:?}"),
            }
            continue;
        }
        assert!(matches!(reading, Err(MetaDbError::Absent { .. })), "{missing}: reading needs no more");
        match failed(open_writer(&place)) {
            MetaDbError::Denied { command, .. } => assert_eq!(command, *missing),
            error => panic!("{missing}: {error:?}"),
        }
        assert_eq!(redis::cmd("DBSIZE").query::<i64>(&mut admin).unwrap(), 0, "{missing}: something was written");
    }
    // Keys of another prefix.
    let server = setups::acl(&every, "other");
    let place = Place::parse(&format!("redis://zot:zot-Secret@127.0.0.1:{}", server.port)).unwrap();
    let error = failed(open_writer(&place));
    assert!(matches!(&error, MetaDbError::Denied { detail, .. } if detail.contains("keys")), "{error:?}");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn reading_needs_no_more_than_the_readme_says() {
    let server = setups::acl(&setups::READING, "zot");
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 3, 2);
    assert!(walk_at(&Place::parse(&server.url("")).unwrap(), dir.path(), false).unwrap().complete());
    let before = dump(&mut server.client(), "zot");
    let reader = read(&Place::parse(&format!("redis://zot:zot-Secret@127.0.0.1:{}", server.port)).unwrap()).unwrap();
    assert_eq!(reader.version().unwrap().as_deref(), Some("V1"));
    assert_eq!(reader.stamp().unwrap().as_deref(), Some(STAMP.as_bytes()));
    assert_eq!(reader.repo_names().unwrap().len(), 3);
    assert_eq!(reader.last_updated().unwrap().len(), 3);
    assert!(reader.repo("team/repo-1").unwrap().meta.is_some());
    let mut digests = Vec::new();
    reader.image_digests(&mut |digest| digests.push(digest.to_owned())).unwrap();
    assert_eq!(digests.len(), 6);
    let asked: Vec<&str> = digests.iter().map(String::as_str).chain(["sha256:none"]).collect();
    let found = reader.images(&asked).unwrap();
    assert!(found[..6].iter().all(Option::is_some) && found[6].is_none());
    assert_eq!(dump(&mut server.client(), "zot"), before);
}

/// Rights that only some set-ups need, as the README says: without each of them it is named, with all of them it works.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn rights_for_databases_names_clusters_and_sentinels() {
    let denied = |place: &Place, right: &str| match failed(read(place)) {
        MetaDbError::Denied { command, .. } => assert_eq!(command, right),
        error => panic!("{right}: {error:?}"),
    };
    let absent = |place: &Place| assert!(matches!(failed(read(place)), MetaDbError::Absent { .. }), "{place:?}");
    for (query, right) in [("db=1", "select"), ("client_name=x", "client|setname")] {
        for given in [false, true] {
            let commands: Vec<&str> = setups::READING.into_iter().chain(given.then_some(right)).collect();
            let server = setups::acl(&commands, "zot");
            let url = format!("redis://zot:zot-Secret@127.0.0.1:{}?{query}", server.port);
            let place = Place::parse(&url).unwrap();
            if given { absent(&place) } else { denied(&place, right) }
        }
    }
    let cluster = setups::cluster();
    let allow = |rule: &str| {
        for server in &cluster.servers {
            let mut command = redis::cmd("ACL");
            command.arg("SETUSER").arg("zot").arg("on").arg(">zot-Secret").arg("~{zot}*");
            command.arg(rule).exec(&mut server.client()).unwrap();
        }
    };
    let [first, second, _] = &cluster.servers[..] else { panic!("three nodes") };
    let place = Place::parse(&format!(
        "redis://zot:zot-Secret@127.0.0.1:{}?addr=127.0.0.1:{}&keyprefix={{zot}}",
        first.port, second.port
    ))
    .unwrap();
    setups::READING.iter().for_each(|command| allow(&format!("+{command}")));
    denied(&place, "cluster|slots");
    allow("+cluster|slots");
    absent(&place);

    let setup = setups::sentinel();
    let rules = "user watcher on >zot-Secret +sentinel|get-master-addr-by-name\n";
    let watched = setups::sentinel_of(setup.servers[0].port, rules);
    let entries = [
        ("addr", setups::text(&format!("127.0.0.1:{}", watched.port))),
        ("master_name", setups::text("mymaster")),
        ("password", setups::text("master-Secret")),
        ("sentinel_username", setups::text("watcher")),
        ("sentinel_password", setups::text("zot-Secret")),
    ];
    absent(&Place::Redis(Box::new(RedisOptions::from_params(&setups::params(&entries)).unwrap())));
}
