//! Loosely typed parameters as zot (spf13/cast) converts them: what does not convert is ignored with a warning.

use crate::config::tree::Tree;
use crate::config::{DriverParams, scalar};

/// Every parameter that zot looks at without `url`.
const KNOWN: [&str; 30] = [
    "addr",
    "client_name",
    "conn_max_idle_time",
    "conn_max_lifetime",
    "context_timeout_enabled",
    "db",
    "dial_timeout",
    "disable_identity",
    "identity_suffix",
    "master_name",
    "max_active_conns",
    "max_idle_conns",
    "max_redirects",
    "max_retries",
    "max_retry_backoff",
    "min_idle_conns",
    "min_retry_backoff",
    "password",
    "pool_fifo",
    "pool_size",
    "pool_timeout",
    "protocol",
    "read_only",
    "read_timeout",
    "route_by_latency",
    "route_randomly",
    "sentinel_password",
    "sentinel_username",
    "unstable_resp3",
    "username",
];

/// The parameters, and which of them did not convert.
pub struct Params<'a> {
    params: &'a DriverParams,
    wrong: Vec<&'static str>,
}

impl<'a> Params<'a> {
    pub fn new(params: &'a DriverParams) -> Self {
        Self { params, wrong: Vec::new() }
    }

    /// Parameters that are given and that zot knows.
    pub fn known(&self) -> Vec<&'static str> {
        let given = |name: &&str| self.params.get(name).is_some();
        KNOWN.into_iter().chain(["write_timeout"]).filter(given).collect()
    }

    /// One line per parameter that was ignored. Values are not shown: they may be secrets in the wrong place.
    pub fn wrong(&mut self) -> Vec<String> {
        let line = |name: &str| format!("zot ignores cacheDriver.{name}: it is of the wrong type");
        std::mem::take(&mut self.wrong).into_iter().map(line).collect()
    }

    /// Convert what only matters to go-redis' connection pool, to know what zot ignores.
    pub fn check_unused(&mut self) {
        for name in ["protocol", "pool_size", "min_idle_conns", "max_idle_conns", "max_active_conns", "max_redirects"] {
            self.int(name);
        }
        for name in ["pool_timeout", "conn_max_idle_time", "conn_max_lifetime"] {
            self.duration(name);
        }
        for name in ["context_timeout_enabled", "pool_fifo", "disable_identity", "unstable_resp3"] {
            self.bool(name);
        }
        self.text("identity_suffix");
    }

    fn get<T: Default>(&mut self, name: &'static str, convert: impl Fn(&Tree) -> Option<T>) -> T {
        let Some(tree) = self.params.get(name) else { return T::default() };
        convert(tree).unwrap_or_else(|| {
            self.wrong.push(name);
            T::default()
        })
    }

    pub fn text(&mut self, name: &'static str) -> String {
        self.get(name, to_text)
    }

    pub fn int(&mut self, name: &'static str) -> i64 {
        self.get(name, |tree| match tree {
            Tree::Null => Some(0),
            Tree::Bool(on) => Some(i64::from(*on)),
            Tree::Text(text) => to_int(text),
            number => truncated(number),
        })
    }

    pub fn bool(&mut self, name: &'static str) -> bool {
        self.get(name, |tree| match tree {
            Tree::Null => Some(false),
            Tree::Bool(on) => Some(*on),
            Tree::Text(text) => match text.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
                _ => None,
            },
            Tree::Float(number) => Some(*number != 0.0),
            number => truncated(number).map(|number| number != 0),
        })
    }

    /// Nanoseconds; also what a number or unit-less text means.
    pub fn duration(&mut self, name: &'static str) -> i64 {
        self.get(name, |tree| match tree {
            Tree::Text(text) if text.contains(|c| "nsuµmh".contains(c)) => scalar::duration(text),
            Tree::Text(text) => scalar::duration(&format!("{text}ns")),
            number => truncated(number),
        })
    }

    /// A list of texts, or one text split on white space.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.get(name, |tree| match tree {
            Tree::List(items) => Some(items.iter().map(|item| to_text(item).unwrap_or_default()).collect()),
            Tree::Text(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
            Tree::Null => None,
            other => to_text(other).map(|text| vec![text]),
        })
    }
}

fn to_text(tree: &Tree) -> Option<String> {
    match tree {
        Tree::Null => Some(String::new()),
        Tree::Bool(on) => Some(on.to_string()),
        Tree::Int(number) => Some(number.to_string()),
        Tree::Uint(number) => Some(number.to_string()),
        Tree::Float(number) => Some(number.to_string()),
        Tree::Text(text) => Some(text.clone()),
        Tree::Time(_) | Tree::LocalTime(_) | Tree::List(_) | Tree::Map(_) => None,
    }
}

/// Go's integer literals, a decimal fraction of zeros allowed.
fn to_int(text: &str) -> Option<i64> {
    let text = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole,
        _ => text,
    };
    if text.is_empty() { None } else { scalar::weak_integer(text) }
}

fn truncated(tree: &Tree) -> Option<i64> {
    match tree {
        Tree::Int(number) => Some(*number),
        Tree::Uint(number) => Some(*number as i64),
        Tree::Float(number) => Some(*number as i64),
        _ => None,
    }
}
