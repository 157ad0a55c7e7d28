//! Redis as operators run it: with users, with TLS, as a cluster, under Sentinel.

use super::redis::{Server, client};
use super::server::{eventually, free_port};
use metactl::config::DriverParams;
use metactl::config::tree::{Map, Tree};
use metactl::metadb::Place;
use metactl::metadb::redis::{RedisOptions, TlsFiles};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running set-up, and how metactl and the tests get at it.
pub struct Setup {
    pub servers: Vec<Server>,
    /// metactl's way to the keys under a prefix.
    place: Box<dyn Fn(&str) -> Place + Sync + Send>,
    /// The tests' way.
    pub admin: String,
    /// What a prefix begins with.
    pub tag: &'static str,
}

impl Setup {
    pub fn place(&self, prefix: &str) -> Place {
        (self.place)(prefix)
    }
}

fn from_url(url: &str) -> Place {
    Place::parse(url).unwrap()
}

/// One server without anything.
pub fn plain() -> Setup {
    on(Server::start(&[]))
}

/// One server, used by its administrator.
pub fn on(server: Server) -> Setup {
    let (url, admin) = (server.url("/0"), server.url(""));
    let place = move |prefix: &str| from_url(&format!("{url}?keyprefix={prefix}"));
    Setup { servers: vec![server], place: Box::new(place), admin, tag: "" }
}

/// Commands that reading needs, and those that walking needs besides. The README lists the same.
pub const READING: [&str; 6] = ["exists", "get", "hget", "hmget", "hkeys", "hscan"];
pub const WALKING: [&str; 10] =
    ["multi", "discard", "eval", "set", "del", "hset", "hdel", "hincrby", "pexpire", "time"];

/// A server whose user `zot` may only use `commands`, on keys that begin with `keys`.
pub fn acl(commands: &[&str], keys: &str) -> Server {
    let mut rules = vec!["--user".to_owned(), "zot".into(), "on".into(), ">zot-Secret".into(), format!("~{keys}*")];
    rules.extend(commands.iter().map(|command| format!("+{command}")));
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    Server::start(&rules)
}

/// A server where metactl is a user with the least rights that walking needs.
pub fn least_rights() -> Setup {
    let server = acl(&[&READING[..], &WALKING[..]].concat(), "tmp");
    let (port, admin) = (server.port, server.url(""));
    let place = move |prefix: &str| from_url(&format!("redis://zot:zot-Secret@127.0.0.1:{port}?keyprefix={prefix}"));
    Setup { servers: vec![server], place: Box::new(place), admin, tag: "" }
}

/// Certificates of a private CA, for a server and a client.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        Self::make_for(&[])
    }

    /// With more names of the server, which may begin with an asterisk.
    pub fn make_for(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let done = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(dir.path())
                .output()
                .expect("openssl is installed by tests/run");
            assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let names: String = names.iter().map(|name| format!(",DNS:{name}")).collect();
        let names = format!("subjectAltName=DNS:localhost,IP:127.0.0.1{names}");
        std::fs::write(dir.path().join("server.ext"), names).unwrap();
        std::fs::write(dir.path().join("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt");
        for name in ["server", "client"] {
            openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt -extfile {name}.ext"
            ));
        }
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn trusted(&self) -> TlsFiles {
        TlsFiles { ca: Some(self.file("ca.crt")), ..TlsFiles::default() }
    }

    pub fn both(&self) -> TlsFiles {
        TlsFiles { cert: Some(self.file("client.crt")), key: Some(self.file("client.key")), ..self.trusted() }
    }

    /// A server with TLS at the returned port, and without at its own.
    pub fn server(&self, clients: &str) -> (Server, u16) {
        self.server_with(clients, &[])
    }

    fn server_with(&self, clients: &str, more: &[&str]) -> (Server, u16) {
        let (port, tls) = (free_port().to_string(), free_port());
        let file = |name: &str| self.file(name).to_str().unwrap().to_owned();
        let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
        let tls_text = tls.to_string();
        let arguments = ["--port", &port, "--tls-port", &tls_text, "--tls-cert-file", &cert]
            .into_iter()
            .chain(["--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--tls-auth-clients", clients])
            .chain(more.iter().copied())
            .collect::<Vec<_>>();
        (Server::start_at(port.parse().unwrap(), &arguments), tls)
    }
}

/// The Redis place of a URL, with certificates.
pub fn with_files(url: &str, files: TlsFiles) -> Place {
    Place::Redis(Box::new(RedisOptions::from_url(url).unwrap().with_files(files)))
}

/// A server that wants client certificates of a private CA.
pub fn tls() -> Setup {
    let certificates = Certificates::make();
    let (server, tls) = certificates.server("yes");
    let admin = server.url("");
    let place =
        move |prefix: &str| with_files(&format!("rediss://localhost:{tls}/0?keyprefix={prefix}"), certificates.both());
    Setup { servers: vec![server], place: Box::new(place), admin, tag: "" }
}

const CLUSTER: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "3000"];

/// Make a cluster of nodes that can be reached at these ports with these arguments of redis-cli.
fn join(servers: &[Server], ports: &[u16], arguments: &[&str]) {
    let nodes: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut create = Command::new("redis-cli");
    create.args(arguments).args(["--cluster", "create"]).args(&nodes).args([
        "--cluster-replicas",
        "0",
        "--cluster-yes",
    ]);
    assert!(create.output().expect("redis-cli is installed by tests/run").status.success());
    for server in servers {
        let mut client = server.client();
        eventually("the cluster is up", || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut client).unwrap();
            info.contains("cluster_state:ok")
        });
    }
}

/// Three nodes. The prefix's slot, 15054, is on the last.
pub fn cluster() -> Setup {
    let servers: Vec<Server> = (0..3).map(|_| Server::start(&CLUSTER)).collect();
    let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
    join(&servers, &ports, &[]);
    let url = format!("redis://127.0.0.1:{}?addr=127.0.0.1:{}", ports[0], ports[1]);
    let admin = servers[2].url("");
    let place = move |prefix: &str| from_url(&format!("{url}&keyprefix={prefix}"));
    Setup { servers, place: Box::new(place), admin, tag: "{zot}" }
}

/// As [`cluster`], with TLS among the nodes and for clients, who must have certificates; the tests go without. Returns
/// the ports for TLS too.
pub fn tls_cluster(certificates: Certificates) -> (Setup, Vec<u16>) {
    let more = [&CLUSTER[..], &["--tls-cluster", "yes"]].concat();
    let (servers, ports): (Vec<Server>, Vec<u16>) = (0..3).map(|_| certificates.server_with("yes", &more)).unzip();
    let file = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    join(
        &servers,
        &ports,
        &["--tls", "--cacert", &file("ca.crt"), "--cert", &file("client.crt"), "--key", &file("client.key")],
    );
    let url = format!("rediss://127.0.0.1:{}?addr=127.0.0.1:{}", ports[0], ports[1]);
    let admin = servers[2].url("");
    let place = move |prefix: &str| with_files(&format!("{url}&keyprefix={prefix}"), certificates.both());
    (Setup { servers, place: Box::new(place), admin, tag: "{zot}" }, ports)
}

/// Parameters of a config's cacheDriver.
pub fn params(entries: &[(&str, Tree)]) -> DriverParams {
    DriverParams::new(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<Map>())
}

/// Text for [`params`].
pub fn text(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

/// A master, a replica and three sentinels, in this order.
pub fn sentinel() -> Setup {
    let secret = ["--requirepass", "master-Secret", "--masterauth", "master-Secret"];
    let master = Server::start(&secret);
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::start(&[&secret[..], &["--replicaof", &of]].concat());
    let mut servers = vec![master, replica];
    for _ in 0..3 {
        servers.push(sentinel_of(servers[0].port, ""));
    }
    let addresses: Vec<Tree> = servers[2..].iter().map(|server| text(&format!("127.0.0.1:{}", server.port))).collect();
    let mut first = client(&servers[2].url(""));
    eventually("the sentinels know each other and the replica", || {
        let quorum: Result<String, _> = redis::cmd("SENTINEL").arg("ckquorum").arg("mymaster").query(&mut first);
        let replicas: Vec<redis::Value> =
            redis::cmd("SENTINEL").arg("replicas").arg("mymaster").query(&mut first).unwrap();
        quorum.is_ok_and(|answer| answer.starts_with("OK 3")) && !replicas.is_empty()
    });
    let mut follower = client(&format!("redis://:master-Secret@127.0.0.1:{}", servers[1].port));
    eventually("the replica follows", || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut follower).unwrap();
        info.contains("master_link_status:up")
    });
    let admin = format!("redis://:master-Secret@127.0.0.1:{}", servers[0].port);
    let place = move |prefix: &str| {
        let options = RedisOptions::from_params(&params(&[
            ("addr", Tree::List(addresses.clone())),
            ("master_name", text("mymaster")),
            ("password", text("master-Secret")),
            ("keyprefix", text(prefix)),
        ]));
        Place::Redis(Box::new(options.unwrap().with_patience(Duration::from_secs(25))))
    };
    Setup { servers, place: Box::new(place), admin, tag: "" }
}

/// A sentinel that watches a master, with more lines of configuration.
pub fn sentinel_of(master: u16, more: &str) -> Server {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel auth-pass mymaster master-Secret\nsentinel down-after-milliseconds mymaster 1000\n\
         sentinel failover-timeout mymaster 4000\nsentinel parallel-syncs mymaster 1\n{more}"
    );
    std::fs::write(&conf, text).unwrap();
    let mut server = Server::start_at(port, &[conf.to_str().unwrap(), "--sentinel"]);
    server.keep = Some(dir);
    server
}

/// Whether a text or path holds a planted password.
pub fn leaks(text: &str) -> bool {
    text.contains("Secret")
}
