use super::*;
use crate::config::tree::{Map, Tree};

fn url(text: &str) -> RedisOptions {
    RedisOptions::from_params(&params(&[("url", Tree::Text(text.into()))])).unwrap()
}

fn params(entries: &[(&str, Tree)]) -> DriverParams {
    DriverParams::new(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<Map>())
}

fn map(entries: &[(&str, Tree)]) -> RedisOptions {
    RedisOptions::from_params(&params(entries)).unwrap()
}

fn text(text: &str) -> Tree {
    Tree::Text(text.into())
}

fn host(host: &str, port: u16) -> ConnectionAddr {
    tcp(host, port, false, false)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn urls_of_single_servers() {
    for (text, address, db, user, password) in [
        ("redis://", host("localhost", 6379), 0, "", ""),
        ("redis://h", host("h", 6379), 0, "", ""),
        ("redis://u:p%40@h:1/3", host("h", 1), 3, "u", "p@"),
        ("redis://:p@h//3//", host("h", 6379), 3, "", "p"),
        ("redis://h/3?db=5", host("h", 6379), 5, "", ""),
        ("redis://h/3?db=", host("h", 6379), 3, "", ""),
        ("redis://h?db=1&db=2", host("h", 6379), 2, "", ""),
        ("rediss://h", tcp("h", 6379, true, false), 0, "", ""),
        ("rediss://h?skip_verify=1", tcp("h", 6379, true, true), 0, "", ""),
        ("unix://u:p@/run/r.sock?db=4", ConnectionAddr::Unix("/run/r.sock".into()), 4, "u", "p"),
    ] {
        let options = url(text);
        assert_eq!(options.topology, Topology::Single(address), "{text}");
        assert_eq!((options.db, options.login.user.as_str()), (db, user), "{text}");
        assert_eq!(options.login.password.expose(), password, "{text}");
    }
}

#[test]
fn urls_of_clusters() {
    let nodes = |text: &str| url(text).topology;
    let expected = Topology::Cluster(vec![host("a", 6379), host("b", 2), host("c", 3)]);
    assert_eq!(nodes("redis://a/9?addr=b:2&addr=c:3"), expected);
    // The word anywhere makes it one.
    assert_eq!(nodes("redis://addr-host:1"), Topology::Cluster(vec![host("addr-host", 1)]));
    assert_eq!(nodes("redis://u:addr@h"), Topology::Cluster(vec![host("h", 6379)]));
    let options = url("rediss://h?addr=[::1]:7&read_only=true&max_redirects=5");
    let tls = |host: &str, port| tcp(host, port, true, false);
    assert_eq!(options.topology, Topology::Cluster(vec![tls("h", 6379), tls("::1", 7)]));
    let said = options.notices.join("\n");
    for word in ["read_only", "certificates", "max_redirects"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn refused_urls() {
    for text in [
        "h:1",
        "http://h",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h?db=x",
        "redis://h:x",
        "redis://h?nonsense=1",
        "redis://h?skip_verify=1",
        "redis://h?pool_size=x",
        "redis://h?read_timeout=5x",
        "redis://h?pool_fifo=yes",
        "redis://h?addr=b",
        "redis://h?addr=:1",
        "redis://h?addr=b:2&db=1",
        "rediss://h?addr=b:2&skip_verify=1",
        "redis://h?idle_timeout=1&conn_max_idle_time=1",
        "redis://h?addr=b:2&idle_timeout=1",
        "unix://u:p@",
        "unix://x?addr=b:2",
        "redis://h?keyprefix=x",
        "redis://h?password=x",
        "redis://u:Secret/x@h",
        "redis://u:Secret?Secret@h",
        "redis://u:1/Secret@h",
        "redis://u:%Secret@h",
    ] {
        let refused = RedisOptions::from_params(&params(&[("url", Tree::Text(text.into()))]));
        assert!(refused.is_err_and(|reason| !reason.contains("Secret")), "{text}");
    }
    let listed = params(&[("url", Tree::List(vec![text("redis://h")]))]);
    assert!(RedisOptions::from_params(&listed).is_err());
}

#[test]
fn prefixes() {
    assert_eq!(url("redis://h").keys.repos, "zot:RepoMeta");
    assert_eq!(map(&[("keyprefix", text("{x}"))]).keys.stamp, "{x}:FastRestartStamp");
    for wrong in [text(""), Tree::Float(1.0), Tree::Null] {
        assert!(RedisOptions::from_params(&params(&[("keyprefix", wrong)])).is_err());
    }
    assert_eq!(RedisOptions::from_url("redis://h/2?keyprefix=y").unwrap().keys.repos, "y:RepoMeta");
    assert!(RedisOptions::from_url("redis://h?keyprefix=").is_err());
}

#[test]
fn times() {
    let options = url("redis://h");
    assert_eq!(options.dial_timeout, seconds(5));
    assert_eq!((options.read_timeout, options.write_timeout), (Some(seconds(3)), Some(seconds(3))));
    assert_eq!(options.max_retries, 3);
    assert_eq!(options.retry_backoff, (Duration::from_millis(8), Duration::from_millis(512)));
    let options = url("redis://h?dial_timeout=2&read_timeout=1m&max_retries=-1&min_retry_backoff=0");
    assert_eq!(options.dial_timeout, seconds(2));
    assert_eq!((options.read_timeout, options.write_timeout), (Some(seconds(60)), Some(seconds(60))));
    assert_eq!((options.max_retries, options.retry_backoff.0), (0, Duration::ZERO));
    let options = url("redis://h?read_timeout=0&write_timeout=200ms");
    assert_eq!((options.read_timeout, options.write_timeout), (None, Some(Duration::from_millis(200))));
    // In the map, what has no unit is nanoseconds.
    let options = map(&[("read_timeout", Tree::Float(2e9)), ("write_timeout", text("5000000000"))]);
    assert_eq!((options.read_timeout, options.write_timeout), (Some(seconds(2)), Some(seconds(5))));
    assert_eq!(map(&[("read_timeout", text("1500ms"))]).read_timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn maps() {
    let single = |address| Topology::Single(address);
    assert_eq!(map(&[]).topology, single(host("127.0.0.1", 6379)));
    assert_eq!(map(&[("addr", text("h:1"))]).topology, single(host("h", 1)));
    assert_eq!(map(&[("addr", Tree::List(vec![text("h:1")]))]).topology, single(host("h", 1)));
    assert_eq!(map(&[("addr", text("/run/r.sock"))]).topology, single(ConnectionAddr::Unix("/run/r.sock".into())));
    let pair = vec![host("a", 1), host("b", 2)];
    assert_eq!(
        map(&[("addr", text(" a:1  b:2 ")), ("db", Tree::Float(3.0))]).topology,
        Topology::Cluster(pair.clone())
    );
    let options = map(&[
        ("addr", Tree::List(vec![text("a:1"), text("b:2")])),
        ("master_name", text("m")),
        ("route_randomly", Tree::Bool(true)),
        ("username", text("u")),
        ("password", Tree::Float(123.0)),
        ("sentinel_password", text("s")),
        ("db", text("0x2")),
    ]);
    assert_eq!(options.topology, Topology::Sentinel { master: "m".into(), sentinels: pair });
    assert_eq!((options.login.password.expose(), options.sentinel_login.password.expose()), ("123", "s"));
    assert_eq!((options.db, options.login.user.as_str()), (2, "u"));
    let said = options.notices.join("\n");
    assert!(said.contains("with route_randomly zot cannot write") && said.contains("\"{zot}\""), "{said}");
    let tagged = map(&[("master_name", text("m")), ("route_randomly", text("1")), ("keyprefix", text("{x}"))]).notices;
    assert!(tagged.len() == 1 && tagged[0].contains("route_randomly is not followed"), "{tagged:?}");
    let read_only = map(&[("master_name", text("m")), ("read_only", text("1"))]).notices;
    assert!(read_only.len() == 1 && read_only[0].contains("read_only is not followed"), "{read_only:?}");
    let sentinel = map(&[("master_name", text("m"))]).topology;
    assert_eq!(sentinel, Topology::Sentinel { master: "m".into(), sentinels: vec![host("127.0.0.1", 26379)] });
    assert!(RedisOptions::from_params(&params(&[("addr", text("h"))])).is_err());
}

#[test]
fn wrong_types_are_ignored_with_a_notice() {
    let options = map(&[
        ("addr", Tree::Map(Map::new())),
        ("db", text("two")),
        ("password", Tree::List(vec![text("Secret")])),
        ("pool_fifo", text("perhaps")),
        ("read_timeout", Tree::Bool(true)),
        ("unknown", text("x")),
    ]);
    assert_eq!(options.topology, Topology::Single(host("127.0.0.1", 6379)));
    let said = options.notices.join("\n");
    for name in ["addr", "db", "password", "read_timeout", "pool_fifo"] {
        assert!(said.contains(&format!("zot ignores cacheDriver.{name}:")), "{name}: {said}");
    }
    assert!(!said.contains("Secret") && !said.contains("unknown"), "{said}");
    let said =
        map(&[("url", text("redis://h")), ("addr", text("x")), ("cachetablename", text("t"))]).notices.join("\n");
    assert!(said.contains("zot ignores addr beside"), "{said}");
}

#[test]
fn secrets_are_not_shown() {
    for options in [
        url("redis://u:planted-Secret@h"),
        url("redis://u:planted-Secret@h?addr=b:2"),
        map(&[
            ("password", text("planted-Secret")),
            ("sentinel_password", text("planted-Secret")),
            ("master_name", text("m")),
        ]),
    ] {
        let shown = format!("{options:?} {} {:?}", options.location(), options.notices);
        assert!(!shown.contains("planted-Secret"), "{shown}");
    }
    let misplaced = RedisOptions::from_params(&params(&[("addr", text("u:planted-Secret@h:1 b:2"))]));
    assert!(misplaced.is_err_and(|reason| !reason.contains("planted")));
}
