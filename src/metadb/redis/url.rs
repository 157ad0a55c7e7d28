//! URLs as Go's `net/url` and go-redis read them (spec §6.4). Errors never quote what could be a password.

use std::collections::BTreeMap;

/// The parts of a URL that go-redis looks at.
#[derive(Default, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    pub user: String,
    pub password: String,
    /// Host and port together.
    pub authority: String,
    pub path: String,
    /// All values of every option, in order.
    pub query: BTreeMap<String, Vec<String>>,
}

/// Parse as `url.Parse` does.
pub fn parse(text: &str) -> Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("it holds a control character".into());
    }
    let text = text.split('#').next().unwrap_or_default();
    let (scheme, rest) = text.split_once(':').ok_or("it has no scheme")?;
    let mut letters = scheme.chars();
    if !letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return Err("it has no scheme".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), query: parse_query(query), ..Url::default() };
    let Some(rest) = rest.strip_prefix("//") else {
        // Without slashes there is no host, and the rest is only a path if it begins like one.
        if rest.starts_with('/') {
            url.path = unescape(rest, false)?;
        }
        return Ok(url);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    url.path = unescape(path, false)?;
    let host = match authority.rsplit_once('@') {
        Some((login, host)) => {
            if !login.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:~!$&'()*+,;=%@".contains(&b)) {
                return Err("user and password must be percent-encoded".into());
            }
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            url.user = unescape(user, false)?;
            url.password = unescape(password, false)?;
            host
        }
        None => authority,
    };
    url.authority = check_host(host)?;
    Ok(url)
}

fn check_host(host: &str) -> Result<String, String> {
    let port_at = match host.strip_prefix('[') {
        Some(rest) => host.len() - rest.len() + rest.find(']').ok_or("its host lacks a ]")? + 1,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(port_at);
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && !port.starts_with(':') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("its port is not a number (a / ? or # in a password must be percent-encoded)".into());
    }
    if name.bytes().any(|b| b" \"<>\\^`{|}".contains(&b)) {
        return Err("its host holds a character that no host may have".into());
    }
    Ok(host.to_owned())
}

/// Percent-decode; in a query, `+` is a space.
fn unescape(text: &str, query: bool) -> Result<String, String> {
    let wrong = || "a % in it is not followed by two hex digits".to_owned();
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        out.push(match byte {
            b'%' => {
                let hex =
                    bytes.get(at..at + 2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit)).ok_or_else(wrong)?;
                at += 2;
                std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(wrong)?
            }
            b'+' if query => b' ',
            other => *other,
        });
    }
    String::from_utf8(out).map_err(|_| "it is not UTF-8 once decoded".into())
}

/// Options; malformed pairs are dropped without a word, as Go does.
fn parse_query(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Ok(name), Ok(value)) = (unescape(name, true), unescape(value, true)) {
            out.entry(name).or_default().push(value);
        }
    }
    out
}

/// Host and port of `host:port`, as `net.SplitHostPort`: brackets go, both may be empty.
pub fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?,
    };
    (!port.contains(':')).then_some((host, port))
}

impl Url {
    /// Host and port with go-redis' defaults.
    pub fn host_port(&self) -> Result<(String, u16), String> {
        let (host, port) = split_host_port(&self.authority).unwrap_or((&self.authority, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { "localhost" } else { host };
        let port = if port.is_empty() { "6379" } else { port };
        Ok((host.to_owned(), port.parse().map_err(|_| "its port is out of range")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_defaults() {
        for (text, host, port) in [
            ("redis://h:1", "h", 1),
            ("redis://", "localhost", 6379),
            ("redis://h:", "h", 6379),
            ("redis://:7", "localhost", 7),
            ("redis://[::1]:7", "::1", 7),
            ("redis://[::1]", "::1", 6379),
            ("REDIS://h", "h", 6379),
            ("redis:h:5", "localhost", 6379),
            ("redis://u:p@h:3/4?x=1#f", "h", 3),
        ] {
            assert_eq!(parse(text).and_then(|url| url.host_port()), Ok((host.to_owned(), port)), "{text}");
        }
        for text in ["", "h:1/", "//h", "redis://h:x", "redis://u:SECRET/x@h", "redis://u:%zz@h", "redis://h:70000"] {
            let found = parse(text).and_then(|url| url.host_port());
            if text != "h:1/" {
                assert!(found.is_err_and(|reason| !reason.contains("SECRET")), "{text}");
            }
        }
    }

    #[test]
    fn logins_are_decoded() {
        let url = parse("rediss://u%40x:p%2Fw%3A@h").unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("u@x", "p/w:"));
        let url = parse("unix://u:p@/run/my%20redis.sock?db=2").unwrap();
        assert_eq!((url.path.as_str(), url.password.as_str()), ("/run/my redis.sock", "p"));
    }

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let query = parse("redis://h?a=1&a=2&b=x+y&c;d=1&e=%zz&&f").unwrap().query;
        assert_eq!(query.get("a").unwrap(), &["1", "2"]);
        assert_eq!(query.get("b").unwrap(), &["x y"]);
        assert_eq!(query.get("f").unwrap(), &[""]);
        assert_eq!(query.len(), 3);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in proptest::prelude::any::<String>(), tail in "[a-z:/@?#%\\[\\]=&;0-9]{0,40}") {
            let _ = parse(&text).map(|url| url.host_port());
            let _ = parse(&format!("redis://{tail}")).map(|url| url.host_port());
        }
    }
}
