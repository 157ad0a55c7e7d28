//! One connection to the server that holds the metaDB, found anew whenever it breaks.
//!
//! All keys of a metaDB must be in one cluster slot (see [`super::keys`]), so a cluster is, like a Sentinel set-up, only
//! a way to find one server: the slot's master, or the one that Sentinel names.

use super::errors::Fault;
use super::options::{RedisOptions, Topology};
use super::wire::{self, Batch, Reply};
use crate::cancel::Cancel;
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest pause between two attempts while patience lasts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a waiting thread looks whether it should stop.
const NAP: Duration = Duration::from_millis(50);

/// How much failing is taken before giving up.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// As many attempts as zot makes.
    Attempts,
    /// This long since the first failure.
    Time(Duration),
}

/// Exchanges with servers, for whoever wants to know.
#[derive(Debug, Default)]
pub struct Traffic {
    pub round_trips: AtomicU64,
    pub commands: AtomicU64,
    pub bytes: AtomicU64,
    /// Time spent sending and waiting.
    pub micros: AtomicU64,
}

/// A connection and the means to make it again.
pub struct Link {
    options: Arc<RedisOptions>,
    patience: Patience,
    cancel: Cancel,
    traffic: Arc<Traffic>,
    open: Option<redis::Connection>,
}

/// Back-off between attempts at one operation.
pub struct Retry {
    began: Option<Instant>,
    attempts: u32,
}

impl Retry {
    /// Before the first failure.
    pub fn new() -> Self {
        Self { began: None, attempts: 0 }
    }

    /// How long this has been going on.
    pub fn tried(&self) -> Option<Duration> {
        self.began.map(|at| at.elapsed())
    }
}

impl Link {
    /// Nothing is connected yet.
    pub fn new(options: Arc<RedisOptions>, patience: Patience, cancel: Cancel, traffic: Arc<Traffic>) -> Self {
        Self { options, patience, cancel, traffic, open: None }
    }

    /// Another connection to the same place.
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.options), self.patience, self.cancel.clone(), Arc::clone(&self.traffic))
    }

    /// Change how much failing is taken.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Send and receive once, without trying again. Connects if need be.
    pub fn once(&mut self, batch: &Batch) -> Result<Vec<Reply>, Fault> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.take_connection()?;
        let replies = exchange(&mut connection, batch, &self.traffic)?;
        // A server that hands its keys to another is not asked again.
        let moved = |reply: &Reply| reply.as_ref().is_err_and(|error| Fault::reply(error, "").passes());
        if !replies.iter().any(moved) {
            self.open = Some(connection);
        }
        Ok(replies)
    }

    /// Send `first` and, if it succeeds, `then` on the same connection. Closes it unless the last reply is good.
    pub fn once_guarded(&mut self, first: &Batch, then: &Batch) -> Result<Vec<Reply>, Fault> {
        let mut connection = self.take_connection()?;
        all_ok(exchange(&mut connection, first, &self.traffic)?, first)?;
        let replies = exchange(&mut connection, then, &self.traffic)?;
        if replies.last().is_some_and(Result::is_ok) {
            self.open = Some(connection);
        }
        Ok(replies)
    }

    fn take_connection(&mut self) -> Result<redis::Connection, Fault> {
        self.open.take().map_or_else(|| self.connect(), Ok)
    }

    /// Send and receive once; the first error in a reply is an error.
    pub fn once_ok(&mut self, batch: &Batch) -> Result<Vec<Value>, Fault> {
        all_ok(self.once(batch)?, batch)
    }

    /// Send and receive, again and again while the failure is one that passes. For what can be repeated.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<Value>, (Fault, Option<Duration>)> {
        let mut retry = Retry::new();
        loop {
            match self.once_ok(batch) {
                Ok(replies) => return Ok(replies),
                Err(fault) => self.again(&mut retry, fault)?,
            }
        }
    }

    /// After `fault`: wait and return if another attempt is worth it.
    pub fn again(&mut self, retry: &mut Retry, fault: Fault) -> Result<(), (Fault, Option<Duration>)> {
        if !fault.passes() {
            return Err((fault, None));
        }
        self.open = None;
        let began = *retry.began.get_or_insert_with(Instant::now);
        retry.attempts += 1;
        let (least, most) = self.options.retry_backoff;
        let (over, longest) = match self.patience {
            Patience::Attempts => (retry.attempts > self.options.max_retries, most),
            Patience::Time(time) => (began.elapsed() >= time, LONGEST_PAUSE.max(most)),
        };
        if over {
            return Err((fault, retry.tried()));
        }
        tracing::debug!("redis: {fault:?}; attempt {} follows", retry.attempts + 1);
        let pause = least.saturating_mul(1 << retry.attempts.min(16)).min(longest);
        let until = Instant::now() + pause;
        loop {
            if self.cancel.is_cancelled() {
                return Err((Fault::Cancelled, None));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Find the server and log in.
    fn connect(&self) -> Result<redis::Connection, Fault> {
        let options = &self.options;
        match &options.topology {
            Topology::Single(address) => self.dial(address, options.db, &options.login),
            Topology::Cluster(seeds) => {
                let slot = options.keys.slot().ok_or_else(|| Fault::Slots(super::untagged(&options.keys)))?;
                let address = self.first(seeds, |seed| self.slot_master(seed, slot))?;
                self.dial(&address, 0, &options.login)
            }
            Topology::Sentinel { master, sentinels } => {
                let address = self.first(sentinels, |sentinel| self.named_master(sentinel, master))?;
                self.dial(&address, options.db, &options.login)
            }
        }
    }

    /// The first of several servers that knows the answer; else the last failure, one that does not pass if possible.
    fn first<T>(
        &self,
        addresses: &[ConnectionAddr],
        ask: impl Fn(&ConnectionAddr) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut worst = Fault::Setting("no address is configured".into());
        for address in addresses {
            match ask(address) {
                Ok(answer) => return Ok(answer),
                Err(fault) if worst.passes() || matches!(worst, Fault::Setting(_)) => worst = fault,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    /// The master of `slot`, as one node of the cluster knows it.
    fn slot_master(&self, seed: &ConnectionAddr, slot: u16) -> Result<ConnectionAddr, Fault> {
        let mut connection = self.dial(seed, 0, &self.options.login)?;
        let mut batch = Batch::default();
        batch.push("CLUSTER", &[b"SLOTS"]);
        let ranges = match all_ok(exchange(&mut connection, &batch, &self.traffic)?, &batch) {
            Ok(mut replies) => wire::list(replies.pop().unwrap_or_default())?,
            Err(Fault::Other(text)) if text.contains("cluster support disabled") => {
                return Err(Fault::Slots(
                    "the config names several addresses, which zot takes for a Redis Cluster, but the server is none"
                        .into(),
                ));
            }
            Err(fault) => return Err(fault),
        };
        for range in ranges {
            let mut range = wire::list(range)?.into_iter();
            let (first, last) = (range.next().unwrap_or_default(), range.next().unwrap_or_default());
            if !(wire::int(&first)?..=wire::int(&last)?).contains(&i64::from(slot)) {
                continue;
            }
            let mut node = wire::list(range.next().unwrap_or_default())?.into_iter();
            // An empty host means: the one that was asked.
            let host = wire::text(node.next().unwrap_or_default())?;
            let port = wire::int(&node.next().unwrap_or_default())?;
            let port = u16::try_from(port).map_err(|_| Fault::Protocol("a node has no port".into()))?;
            return Ok(at(seed, Some(host).filter(|host| !host.is_empty() && host != "?"), port));
        }
        Err(Fault::Passing("CLUSTERDOWN".into(), format!("no node serves slot {slot}")))
    }

    /// The master that a sentinel names.
    fn named_master(&self, sentinel: &ConnectionAddr, master: &str) -> Result<ConnectionAddr, Fault> {
        let mut connection = self.dial(sentinel, 0, &self.options.sentinel_login)?;
        let mut batch = Batch::default();
        batch.push("SENTINEL", &[b"get-master-addr-by-name", master.as_bytes()]);
        let mut replies = all_ok(exchange(&mut connection, &batch, &self.traffic)?, &batch)?;
        let mut parts = wire::list(replies.pop().unwrap_or_default())?.into_iter();
        match (parts.next(), parts.next()) {
            (Some(host), Some(port)) => {
                let port = wire::text(port)?.parse().map_err(|_| Fault::Protocol("the master has no port".into()))?;
                Ok(at(sentinel, Some(wire::text(host)?), port))
            }
            _ => Err(Fault::Setting(format!("the sentinels know no master named {master:?}"))),
        }
    }

    /// Connect to one server, within its time limits, and log in.
    fn dial(
        &self,
        address: &ConnectionAddr,
        db: i64,
        login: &super::options::Login,
    ) -> Result<redis::Connection, Fault> {
        let options = &self.options;
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        // Without a password, go-redis does not log in at all.
        if !login.password.expose().is_empty() {
            settings = settings.set_password(login.password.expose());
            if !login.user.is_empty() {
                settings = settings.set_username(&login.user);
            }
        }
        let info: ConnectionInfo = address
            .clone()
            .into_connection_info()
            .map_err(|error| Fault::link(&error))?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);
        let client = match (address, options.tls_material()?) {
            (ConnectionAddr::TcpTls { .. }, Some(material)) => Client::build_with_tls(info, material),
            _ => Client::open(info),
        };
        let mut connection = client
            .and_then(|client| client.get_connection_with_timeout(options.dial_timeout))
            .map_err(|error| Fault::link(&error))?;
        self.traffic.round_trips.fetch_add(1, Ordering::Relaxed);
        connection.set_read_timeout(options.read_timeout).map_err(|error| Fault::link(&error))?;
        connection.set_write_timeout(options.write_timeout).map_err(|error| Fault::link(&error))?;
        // The library does this too, but loses the reason of a refusal.
        let mut batch = Batch::default();
        if db > 0 {
            batch.push("SELECT", &[db.to_string().as_bytes()]);
        }
        if !options.client_name.is_empty() {
            batch.push("CLIENT", &[b"SETNAME", options.client_name.as_bytes()]);
        }
        if !batch.is_empty() {
            all_ok(exchange(&mut connection, &batch, &self.traffic)?, &batch)?;
        }
        Ok(connection)
    }
}

/// One round trip. After an error the connection must not be used again: replies may still be on their way.
fn exchange(connection: &mut redis::Connection, batch: &Batch, traffic: &Traffic) -> Result<Vec<Reply>, Fault> {
    let failed = |error: redis::RedisError| Fault::link(&error);
    let started = Instant::now();
    connection.send_packed_command(batch.bytes()).map_err(failed)?;
    let mut replies = Vec::with_capacity(batch.len());
    for _ in 0..batch.len() {
        replies.push(match connection.recv_response().map_err(failed)? {
            Value::ServerError(error) => Err(error),
            value => Ok(value),
        });
    }
    traffic.round_trips.fetch_add(1, Ordering::Relaxed);
    traffic.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
    traffic.bytes.fetch_add(batch.size() as u64, Ordering::Relaxed);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    traffic.micros.fetch_add(micros, Ordering::Relaxed);
    Ok(replies)
}

/// All replies, or the first error among them.
fn all_ok(replies: Vec<Reply>, batch: &Batch) -> Result<Vec<Value>, Fault> {
    let one = |(index, reply): (usize, Reply)| reply.map_err(|error| Fault::reply(&error, batch.name(index)));
    replies.into_iter().enumerate().map(one).collect()
}

/// The same kind of address with another host and port.
fn at(like: &ConnectionAddr, host: Option<String>, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { host: asked, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host.unwrap_or_else(|| asked.clone()),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(asked, _) => ConnectionAddr::Tcp(host.unwrap_or_else(|| asked.clone()), port),
        other => host.map_or_else(|| other.clone(), |host| ConnectionAddr::Tcp(host, port)),
    }
}
