//! Redis servers for one test each: on loopback, on ports of their own, ended with the test.

use super::driver::{BUCKETS, Raw};
use super::server::{eventually, free_port};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running redis-server; dropping it kills it.
pub struct Server {
    pub port: u16,
    pub dir: TempDir,
    child: Child,
    arguments: Vec<String>,
    /// Files that it reads.
    pub keep: Option<TempDir>,
}

impl Server {
    /// A plain server with more `arguments`.
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        Self::start_at(port, &[&["--port", &port.to_string()], arguments].concat())
    }

    /// A server whose arguments name its port.
    pub fn start_at(port: u16, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(dir.path(), &arguments);
        let mut server = Self { port, dir, child, arguments, keep: None };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let port = self.port;
        let child = &mut self.child;
        eventually("a server listens", || {
            assert!(child.try_wait().unwrap().is_none(), "redis-server ended: is its command line wrong?");
            TcpStream::connect(("127.0.0.1", port)).is_ok_and(|stream| !is_loading(stream))
        });
    }

    /// End it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Start it again after [`Server::kill`]; what it had is gone unless its arguments say otherwise.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), &self.arguments);
        self.wait();
    }

    /// Stop or continue the process without ending it.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// `redis://` URL with more after the port.
    pub fn url(&self, rest: &str) -> String {
        format!("redis://127.0.0.1:{}{rest}", self.port)
    }

    /// A plain client.
    pub fn client(&self) -> redis::Connection {
        client(&self.url(""))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the server still reads its files. What speaks only TLS does not answer.
fn is_loading(mut stream: TcpStream) -> bool {
    let mut answer = [0; 8];
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"-LOADING"
}

fn spawn(dir: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new("redis-server");
    command.args(arguments).arg("--dir").arg(dir);
    if !arguments.iter().any(|argument| argument == "--sentinel") {
        command.args(["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]);
        if !arguments.iter().any(|argument| argument == "--appendonly") {
            command.args(["--save", "", "--appendonly", "no"]);
        }
    }
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).current_dir(dir);
    command.spawn().expect("redis-server is installed by tests/run")
}

/// A client of the server at `url`.
pub fn client(url: &str) -> redis::Connection {
    let client = redis::Client::open(url).unwrap();
    eventually("a client connects", || client.get_connection_with_timeout(Duration::from_secs(5)).is_ok());
    client.get_connection_with_timeout(Duration::from_secs(5)).unwrap()
}

/// Everything of zot's under `prefix`. No lock may be left.
pub fn dump(connection: &mut redis::Connection, prefix: &str) -> Raw {
    let left: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}:*ock*")).query(connection).unwrap();
    assert!(left.is_empty(), "locks are left: {left:?}");
    let left: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}:metactl*")).query(connection).unwrap();
    assert!(left.is_empty(), "metactl's own keys are left: {left:?}");
    state(connection, prefix)
}

/// As [`dump`], while others may be at work.
pub fn state(connection: &mut redis::Connection, prefix: &str) -> Raw {
    let mut raw = Raw::default();
    for bucket in BUCKETS.iter().filter(|bucket| **bucket != "Version") {
        let records = redis::cmd("HGETALL").arg(format!("{prefix}:{bucket}")).query(connection).unwrap();
        raw.0.insert((*bucket).to_owned(), records);
    }
    for (key, field) in [("Version", "DBVersion"), ("FastRestartStamp", "FastRestartStamp")] {
        let found: Option<Vec<u8>> = redis::cmd("GET").arg(format!("{prefix}:{key}")).query(connection).unwrap();
        if let Some(found) = found {
            raw.put("Version", field, &found);
        }
    }
    raw
}

/// Put `content` under `prefix`, in the place of whatever zot keeps there.
pub fn restore(connection: &mut redis::Connection, prefix: &str, content: &Raw) {
    for key in BUCKETS.iter().chain(&["FastRestartStamp"]) {
        redis::cmd("DEL").arg(format!("{prefix}:{key}")).exec(connection).unwrap();
    }
    for (bucket, records) in &content.0 {
        for (field, value) in records {
            let command = match (bucket.as_str(), field.as_slice()) {
                ("Version", b"DBVersion") => redis::cmd("SET").arg(format!("{prefix}:Version")).arg(value).to_owned(),
                ("Version", _) => redis::cmd("SET").arg(format!("{prefix}:FastRestartStamp")).arg(value).to_owned(),
                _ => redis::cmd("HSET").arg(format!("{prefix}:{bucket}")).arg(field).arg(value).to_owned(),
            };
            command.exec(connection).unwrap();
        }
    }
}
