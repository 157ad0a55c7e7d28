//! How to reach the metaDB, read from a URL or from the option map exactly as zot (go-redis) reads them (spec §6.4).

use super::cast::Params;
use super::errors::Fault;
use super::keys::Keys;
use super::query::{Query, atoi};
use super::url::{self, Url};
use crate::config::DriverParams;
use crate::secret::{self, Secret};
use redis::{ClientTlsConfig, ConnectionAddr, TlsCertificates};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// zot's default for `keyprefix`.
const PREFIX: &str = "zot";
/// How long a writer that has begun waits for a server to come back: longer than Sentinel's default 30 s for declaring a
/// master down, and shorter than the walk lock lives without renewal.
const PATIENCE: Duration = Duration::from_secs(40);

/// User and password; without a password there is no login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

/// How the server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// It is named.
    Single(ConnectionAddr),
    /// Nodes of a Redis Cluster.
    Cluster(Vec<ConnectionAddr>),
    /// Sentinels that know it.
    Sentinel {
        /// Name under which they know it.
        master: String,
        /// Their addresses.
        sentinels: Vec<ConnectionAddr>,
    },
}

/// Certificates that zot cannot be given: it uses the system's roots and no client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Roots to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate chain.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Everything about a Redis metaDB. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    pub(super) topology: Topology,
    pub(super) login: Login,
    pub(super) sentinel_login: Login,
    pub(super) db: i64,
    pub(super) keys: Keys,
    pub(super) client_name: String,
    pub(super) dial_timeout: Duration,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) retry_backoff: (Duration, Duration),
    pub(super) max_retries: u32,
    pub(super) patience: Duration,
    files: TlsFiles,
    address: String,
    notices: Vec<String>,
}

impl RedisOptions {
    /// From the `cacheDriver` parameters of a config.
    ///
    /// # Errors
    /// Why zot would not start with them. Holds no secrets.
    pub fn from_params(params: &DriverParams) -> Result<Self, String> {
        let prefix = match (params.get("keyprefix"), params.text("keyprefix")) {
            (None, _) => PREFIX,
            (_, Some(prefix)) if !prefix.is_empty() => prefix,
            _ => return Err("cacheDriver.keyprefix must be a text that is not empty: zot panics otherwise".into()),
        };
        if params.get("url").is_some() {
            let text = params.text("url").ok_or("cacheDriver.url must be a text")?;
            let mut options =
                Self::from_zot_url(text, prefix).map_err(|reason| format!("cacheDriver.url: {reason}"))?;
            let ignored = Params::new(params).known();
            if !ignored.is_empty() {
                options.notices.push(format!("zot ignores {} beside cacheDriver.url", ignored.join(", ")));
            }
            return Ok(options);
        }
        Self::from_map(params, prefix)
    }

    /// From `--metadb`: a URL as zot reads it, with `keyprefix` as one more option.
    ///
    /// # Errors
    /// What is wrong with it. Holds no secrets.
    pub fn from_url(text: &str) -> Result<Self, String> {
        let found = url::parse(text)?.query.remove("keyprefix").and_then(|mut values| values.pop());
        let prefix = found.as_deref().unwrap_or(PREFIX);
        if prefix.is_empty() {
            return Err("keyprefix is empty".into());
        }
        Self::from_zot_url_with(text, prefix, true)
    }

    /// Certificates to use with TLS.
    #[must_use]
    pub fn with_files(mut self, files: TlsFiles) -> Self {
        self.files = files;
        self
    }

    /// How long a writer waits for a server that went away. For tests.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> String {
        match self.keys.prefix() {
            PREFIX => self.address.clone(),
            prefix => format!("{} (keys {prefix}:*)", self.address),
        }
    }

    /// What zot would do and metactl does not, and parameters that zot ignores.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    fn from_zot_url(text: &str, prefix: &str) -> Result<Self, String> {
        Self::from_zot_url_with(text, prefix, false)
    }

    fn from_zot_url_with(text: &str, prefix: &str, prefix_in_query: bool) -> Result<Self, String> {
        let mut url = url::parse(text)?;
        if prefix_in_query {
            url.query.remove("keyprefix");
        }
        let cluster = text.contains("addr");
        let tls = url.scheme == "rediss";
        let login =
            Login { user: std::mem::take(&mut url.user), password: Secret::new(std::mem::take(&mut url.password)) };
        let mut options = Self::new(Topology::Cluster(Vec::new()), prefix, secret::redact_url(text));
        options.login = login;
        match url.scheme.as_str() {
            "redis" | "rediss" => {}
            "unix" if !cluster => {
                if url.path.trim().is_empty() {
                    return Err("it names no socket".into());
                }
                options.topology = Topology::Single(ConnectionAddr::Unix(PathBuf::from(&url.path)));
                options.query(&mut url, false, false)?;
                return Ok(options);
            }
            _ => return Err("its scheme must be redis or rediss, or unix for a single server".into()),
        }
        let (host, port) = url.host_port()?;
        if cluster {
            let mut nodes = vec![tcp(&host, port, tls, false)];
            for text in url.query.remove("addr").unwrap_or_default() {
                let parts = url::split_host_port(&text).filter(|(host, port)| !host.is_empty() && !port.is_empty());
                let (host, port) = parts.ok_or("an addr in it is not host:port")?;
                nodes.push(tcp(host, port.parse().map_err(|_| "an addr in it has no usable port")?, tls, false));
            }
            options.query(&mut url, true, tls)?;
            if tls {
                options.notices.push(
                    "zot checks the certificates of all nodes against the URL's first host, metactl against each node's own address".into(),
                );
            }
            options.topology = Topology::Cluster(nodes);
            return Ok(options);
        }
        let mut parts = url.path.split('/').filter(|part| !part.is_empty());
        if let Some(db) = parts.next() {
            options.db = atoi(db).ok_or("its database is not a number")?;
        }
        if parts.next().is_some() {
            return Err("its path has more than the database number".into());
        }
        let skip_verify = options.query(&mut url, false, tls)?;
        options.topology = Topology::Single(tcp(&host, port, tls, skip_verify));
        Ok(options)
    }

    /// The query of a URL; returns whether certificates are not to be checked.
    fn query(&mut self, url: &mut Url, cluster: bool, tls: bool) -> Result<bool, String> {
        let mut query = Query { options: &mut url.query, seen: Vec::new() };
        if !cluster && let Some(db) = query.text("db").filter(|text| !text.is_empty()) {
            self.db = atoi(&db).ok_or("its db is not a number")?;
        }
        query.int("protocol")?;
        self.client_name = query.text("client_name").unwrap_or_default();
        self.set_retries(query.int("max_retries")?);
        self.set_backoff(query.duration("min_retry_backoff")?, query.duration("max_retry_backoff")?);
        self.set_timeouts(
            query.duration("dial_timeout")?,
            query.duration("read_timeout")?,
            query.duration("write_timeout")?,
        );
        let mut unused =
            vec!["pool_size", "min_idle_conns", "max_idle_conns", "max_active_conns", "max_concurrent_dials"];
        query.bool("pool_fifo")?;
        let mut durations = vec!["pool_timeout", "conn_max_lifetime_jitter"];
        for (name, alias) in [("conn_max_idle_time", "idle_timeout"), ("conn_max_lifetime", "max_conn_age")] {
            durations.push(if cluster || query.options.contains_key(name) { name } else { alias });
        }
        let mut skip_verify = false;
        if cluster {
            unused.extend(["max_redirects", "dialer_retries", "failing_timeout_seconds"]);
            durations.push("dialer_retry_timeout");
            for name in ["read_only", "route_by_latency", "route_randomly"] {
                if query.bool(name)? {
                    self.notices.push(from_master(name));
                }
            }
        } else if tls {
            skip_verify = query.bool("skip_verify")?;
        }
        for name in &unused {
            query.int(name)?;
        }
        for name in &durations {
            query.duration(name)?;
        }
        let seen: Vec<&str> = query.seen.iter().copied().filter(|name| without_effect(name)).collect();
        self.say_unused(&seen);
        match url.query.keys().next() {
            None => Ok(skip_verify),
            // An option that is none may be the rest of a password.
            Some(name) if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') => {
                Err(format!("zot refuses its option {name}"))
            }
            Some(_) => Err("it has an option that zot refuses".into()),
        }
    }

    fn from_map(params: &DriverParams, prefix: &str) -> Result<Self, String> {
        let mut map = Params::new(params);
        let addresses = map.texts("addr");
        let master = map.text("master_name");
        let spread: Vec<&str> =
            ["read_only", "route_by_latency", "route_randomly"].into_iter().filter(|name| map.bool(name)).collect();
        let strict = |text: &String| address(text);
        let joined = |addresses: &[String]| -> String {
            let shown: Vec<String> = addresses.iter().map(|text| secret::redact_text(text)).collect();
            shown.join(" ")
        };
        let or = |addresses: Vec<String>, default: &str| {
            if addresses.is_empty() { vec![default.to_owned()] } else { addresses }
        };
        let (topology, shown) = if !master.is_empty() {
            let addresses = or(addresses, "127.0.0.1:26379");
            let sentinels = addresses.iter().map(strict).collect::<Result<_, _>>()?;
            let shown = format!("master {master} of sentinels {}", joined(&addresses));
            (Topology::Sentinel { master, sentinels }, shown)
        } else if addresses.len() > 1 {
            (Topology::Cluster(addresses.iter().map(strict).collect::<Result<_, _>>()?), joined(&addresses))
        } else {
            let addresses = or(addresses, "127.0.0.1:6379");
            let first = addresses.first().map_or("", String::as_str);
            let single = match first {
                // Unlike Sentinel and cluster nodes, a single server may be a socket.
                path if path.starts_with('/') => ConnectionAddr::Unix(PathBuf::from(path)),
                "" => tcp("localhost", 6379, false, false),
                other => address(other)?,
            };
            (Topology::Single(single), joined(&addresses))
        };
        let mut options = Self::new(topology, prefix, shown);
        options.login = Login { user: map.text("username"), password: Secret::new(map.text("password")) };
        options.sentinel_login =
            Login { user: map.text("sentinel_username"), password: Secret::new(map.text("sentinel_password")) };
        let db = map.int("db");
        if !matches!(options.topology, Topology::Cluster(_)) {
            options.db = db;
        } else if db != 0 {
            options.notices.push("a Redis Cluster has one database only: zot ignores db".into());
        }
        options.client_name = map.text("client_name");
        options.set_retries(map.int("max_retries"));
        options.set_backoff(map.duration("min_retry_backoff"), map.duration("max_retry_backoff"));
        options.set_timeouts(map.duration("dial_timeout"), map.duration("read_timeout"), map.duration("write_timeout"));
        if !matches!(options.topology, Topology::Single(_)) {
            // go-redis then takes its cluster client, which knows the slots of keys and keeps transactions to one.
            let as_cluster = spread.iter().any(|name| *name != "read_only");
            if as_cluster && matches!(options.topology, Topology::Sentinel { .. }) && options.keys.slot().is_none() {
                options.notices.push(format!(
                    "with {} zot cannot write a repo's records together unless keyprefix has a hash tag: \"{{{prefix}}}\"",
                    spread.join(" and ")
                ));
            }
            options.notices.extend(spread.into_iter().map(from_master));
        }
        map.check_unused();
        options.notices.append(&mut map.wrong());
        let unused: Vec<&str> = map.known().into_iter().filter(|name| without_effect(name)).collect();
        options.say_unused(&unused);
        Ok(options)
    }

    fn new(topology: Topology, prefix: &str, address: String) -> Self {
        let mut options = Self {
            topology,
            login: Login::default(),
            sentinel_login: Login::default(),
            db: 0,
            keys: Keys::new(prefix),
            client_name: String::new(),
            dial_timeout: Duration::ZERO,
            read_timeout: None,
            write_timeout: None,
            retry_backoff: (Duration::ZERO, Duration::ZERO),
            max_retries: 0,
            patience: PATIENCE,
            files: TlsFiles::default(),
            address,
            notices: Vec::new(),
        };
        options.set_retries(0);
        options.set_backoff(0, 0);
        options.set_timeouts(0, 0, 0);
        options
    }

    /// go-redis: 0 is the default, anything negative no retry.
    fn set_retries(&mut self, retries: i64) {
        self.max_retries = if retries == 0 { 3 } else { u32::try_from(retries).unwrap_or(0) };
    }

    fn set_backoff(&mut self, least: i64, most: i64) {
        let pause = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
            Ok(0) => Duration::from_millis(default),
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
            Err(_) => Duration::ZERO,
        };
        self.retry_backoff = (pause(least, 8), pause(most, 512));
    }

    /// go-redis: 0 is the default, anything negative no limit. Connecting always has one.
    fn set_timeouts(&mut self, dial: i64, read: i64, write: i64) {
        let limit = |nanoseconds: i64, default: Option<Duration>| match u64::try_from(nanoseconds) {
            Ok(0) => default,
            Ok(nanoseconds) => Some(Duration::from_nanos(nanoseconds)),
            Err(_) => None,
        };
        self.dial_timeout = limit(dial.max(0), None).unwrap_or(Duration::from_secs(5));
        self.read_timeout = limit(read, Some(Duration::from_secs(3)));
        self.write_timeout = limit(write, self.read_timeout);
    }

    fn say_unused(&mut self, names: &[&str]) {
        if !names.is_empty() {
            self.notices.push(format!(
                "of no effect in metactl, which uses one plain connection at a time: {}",
                names.join(", ")
            ));
        }
    }

    /// The certificates named by files, read anew for every connection; `None` for the system's roots.
    pub(super) fn tls_material(&self) -> Result<Option<TlsCertificates>, Fault> {
        // Only needed where certificates are not checked, but there it must be set; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| Fault::Setting(format!("cannot read {}: {error}", path.display())))
        };
        let client_tls = match (&self.files.cert, &self.files.key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            (None, None) => None,
            _ => return Err(Fault::Setting("a client certificate needs both its file and that of its key".into())),
        };
        let root_cert = self.files.ca.as_deref().map(read).transpose()?;
        Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
    }
}

/// Options of go-redis' connection pool and protocol.
fn without_effect(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "protocol",
        "max_redirects",
        "context_timeout_enabled",
        "disable_identity",
        "identity_suffix",
        "unstable_resp3",
        "failing_timeout_seconds",
        "max_concurrent_dials",
    ];
    const PREFIXES: [&str; 6] = ["pool_", "min_idle", "max_idle", "max_active", "conn_max", "dialer_retr"];
    NAMES.contains(&name)
        || matches!(name, "idle_timeout" | "max_conn_age")
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn from_master(name: &str) -> String {
    format!("{name} is not followed: metactl reads from the master only, so that it sees every write")
}

fn tcp(host: &str, port: u16, tls: bool, insecure: bool) -> ConnectionAddr {
    let host = host.to_owned();
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// `host:port` of an option map.
fn address(text: &str) -> Result<ConnectionAddr, String> {
    let wrong = || format!("cacheDriver.addr: {} is not host:port", secret::redact_text(text));
    let (host, port) = url::split_host_port(text).ok_or_else(wrong)?;
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(tcp(host, port.parse().map_err(|_| wrong())?, false, false))
}

#[cfg(test)]
mod tests;
