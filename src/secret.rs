//! Secrets and how they are kept out of every output (design §3.9).
//!
//! Redaction is generous on purpose: a value hidden for nothing is an inconvenience, a leaked one an incident. A URL
//! that does not follow the rules is hidden rather than guessed at.

use std::fmt;

use serde_json::Value;

/// What stands in for a secret.
pub const MASK: &str = "***";

/// A string that neither `Debug` nor `Display` shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wrap a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Whether a setting of this name holds a secret. Separators and case do not matter.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    /// Names of places and prefixes that merely contain a suspicious word.
    const HARMLESS_ENDINGS: [&str; 6] = ["tablename", "keyprefix", "keyid", "file", "path", "encrypt"];
    const SUSPICIOUS: [&str; 12] = [
        "secret",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "token",
        "key",
        "connectionstring",
        "authorization",
        "signature",
        "sharedaccess",
        "cookie",
    ];
    let name: String = key.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    // An access key's id is half of a credential; hide it with its other half.
    if name.ends_with("accesskeyid") {
        return true;
    }
    if HARMLESS_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return false;
    }
    SUSPICIOUS.iter().any(|word| name.contains(word))
        || matches!(name.as_str(), "auth" | "sig" | "pass" | "sas" | "credential")
}

/// A copy fit for output: values of secret keys are masked, at any depth below them, and texts go through
/// [`redact_text`].
#[must_use]
pub fn redact_value(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let value = if is_secret_key(key) { mask(value) } else { redact_value(value) };
                (redact_text(key), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(redact_value).collect(),
        Value::String(text) => Value::String(redact_text(text)),
        other => other.clone(),
    }
}

/// Mask everything that could be a secret, keeping what tells whether one is set.
fn mask(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(_) | Value::Number(_) => Value::String(MASK.into()),
        Value::Array(items) => items.iter().map(mask).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (redact_text(key), mask(value))).collect(),
    }
}

/// A text of unknown content, fit for output: URLs lose their credentials, `name=value` pairs with secret names their
/// values, key material disappears.
#[must_use]
pub fn redact_text(text: &str) -> String {
    if text.contains("://") {
        return redact_url(text);
    }
    if text.contains("-----BEGIN") || text.contains("PRIVATE KEY") {
        return MASK.into();
    }
    if looks_like_json(text) {
        return match serde_json::from_str::<Value>(text) {
            Ok(value) => redact_value(&value).to_string(),
            Err(_) => MASK.into(),
        };
    }
    // `user:password@host` without a scheme.
    if let Some((before, host)) = text.rsplit_once('@')
        && before.contains(':')
    {
        return format!("{MASK}@{}", redact_pairs(host, false));
    }
    redact_pairs(text, false)
}

fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with('{') || text.starts_with("[{") || text.starts_with("[\"")
}

/// A URL without its password, without the user name too where that is a token in practice, and without the values of
/// secret query parameters. Anything malformed is reduced to its scheme.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains('@') { MASK.into() } else { redact_pairs(url, false) };
    };
    let plain_scheme = !scheme.is_empty()
        && scheme.len() <= 20
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !plain_scheme {
        return MASK.into();
    }
    // Something else than one URL (a list, white space, a second scheme): the rules below would misread it.
    if rest.contains("://") || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return format!("{scheme}://{MASK}");
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // An unescaped delimiter in a password moves its end behind what looks like the host.
    if tail.contains('@') {
        return format!("{scheme}://{MASK}");
    }
    let mut out = format!("{scheme}://");
    match authority.rsplit_once('@') {
        Some((userinfo, host)) => {
            let user = match userinfo.split_once(':') {
                Some((user, _)) if scheme.starts_with("redis") || scheme == "unix" => user,
                _ => "",
            };
            if !user.is_empty() {
                out.push_str(user);
                out.push(':');
            }
            out.push_str(MASK);
            out.push('@');
            out.push_str(host);
        }
        None => out.push_str(authority),
    }
    let (path, query) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
    out.push_str(&redact_pairs(path, false));
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    out.push_str(&redact_pairs(query, true));
    if fragment.len() > 1 {
        out.push('#');
        out.push_str(MASK);
    }
    out
}

/// Mask the values of `name=value` pairs with secret names. Pairs end at `&`, `;`, `,` and white space; a query ends
/// them at `&` and `;` only.
fn redact_pairs(text: &str, query: bool) -> String {
    if !text.contains('=') {
        return text.to_owned();
    }
    let is_end = |c: char| matches!(c, '&' | ';') || (!query && (c == ',' || c.is_whitespace()));
    let mut out = String::with_capacity(text.len());
    let mut hiding = false;
    for piece in text.split_inclusive(is_end) {
        let (body, end) = match piece.chars().last().filter(|c| is_end(*c)) {
            Some(c) => piece.split_at(piece.len() - c.len_utf8()),
            None => (piece, ""),
        };
        match body.split_once('=') {
            Some((name, _)) if is_secret_key(&percent_decode(name.trim_start_matches('?'))) => {
                out.push_str(name);
                out.push('=');
                out.push_str(MASK);
                hiding = true;
            }
            Some(_) => {
                out.push_str(body);
                hiding = false;
            }
            // No name of its own: the rest of a secret that holds a delimiter.
            None if hiding && !body.is_empty() => out.push_str(MASK),
            None => out.push_str(body),
        }
        out.push_str(end);
    }
    out
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escape
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn secret_keys() {
        for key in [
            "accesskey",
            "secretkey",
            "SecretKey",
            "password",
            "sentinel_password",
            "accountkey",
            "connectionstring",
            "token",
            "session_token",
            "private_key",
            "client-secret",
            "apikey",
            "AWS_SECRET_ACCESS_KEY",
            "encryptionkey",
            "sharedaccesssignature",
            "sig",
            "X-Amz-Signature",
            "accesskeyid",
            "sessionKey",
            "pwd",
        ] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in [
            "keyprefix",
            "keyid",
            "keyfile",
            "credentialsfile",
            "apikeytablename",
            "name",
            "region",
            "bucket",
            "url",
            "addr",
            "username",
            "rootdirectory",
            "accountname",
            "encrypt",
            "secure",
            "db",
            "sessionKeysFile",
        ] {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn urls() {
        for (url, want) in [
            ("redis://user:pass@host:6379/0", "redis://user:***@host:6379/0"),
            ("redis://:pass@host", "redis://***@host"),
            ("redis://user@host", "redis://***@host"),
            ("rediss://u:p@ss@host?db=1&read_timeout=3", "rediss://u:***@host?db=1&read_timeout=3"),
            ("redis://host?password=x&db=1", "redis://host?password=***&db=1"),
            ("redis://host?pass%77ord=x;db=1", "redis://host?pass%77ord=***;db=1"),
            ("redis://u:p/w@host", "redis://***"),
            ("redis://u:p?w@host", "redis://***"),
            ("redis://u:p#w@host", "redis://***"),
            ("redis://a:b@h1,redis://c:d@h2", "redis://***"),
            ("redis://u:p w@host", "redis://***"),
            ("https://token:x@host/p", "https://***@host/p"),
            ("https://h/c?sv=1&sig=abc%3D&se=2", "https://h/c?sv=1&sig=***&se=2"),
            ("https://h/p#access_token=abc", "https://h/p#***"),
            ("unix://u:p@/run/redis.sock?db=2", "unix://u:***@/run/redis.sock?db=2"),
            ("redis://host1:1?addr=host2:2&addr=host3:3", "redis://host1:1?addr=host2:2&addr=host3:3"),
            ("http://localhost:4566", "http://localhost:4566"),
            ("user:pass@host", "***"),
            ("localhost:6379", "localhost:6379"),
            ("s e:c//ret://x", "***"),
            ("", ""),
        ] {
            assert_eq!(redact_url(url), want, "{url}");
        }
    }

    #[test]
    fn texts() {
        for (text, want) in [
            ("plain", "plain"),
            ("/var/lib/zot", "/var/lib/zot"),
            ("user:pass@host:6379", "***@host:6379"),
            ("AccountName=a;AccountKey=abc==;EndpointSuffix=b", "AccountName=a;AccountKey=***;EndpointSuffix=b"),
            ("host=h password=a b", "host=h password=*** ***"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc", "***"),
            (r#"{"type":"service_account","private_key":"abc"}"#, r#"{"private_key":"***","type":"service_account"}"#),
            (r#"{"private_key":"abc""#, "***"),
        ] {
            assert_eq!(redact_text(text), want, "{text}");
        }
    }

    #[test]
    fn values_are_redacted_at_any_depth() {
        let value = json!({
            "name": "s3", "accesskey": "AKIA", "secretkey": "x", "secure": true, "password": "", "port": 5, "pin-token": 5,
            "credentials": {"type": "client_secret", "secret": "x", "list": [{"token": ["x", {"deep": "x"}]}]},
            "urls": ["redis://u:p@h", ["http://h?token=x"]], "keyprefix": "zot", "tokenenabled": true, "key": null,
        });
        assert_eq!(
            redact_value(&value),
            json!({
                "name": "s3", "accesskey": "***", "secretkey": "***", "secure": true, "password": "", "port": 5,
                "pin-token": "***",
                "credentials": {"type": "client_secret", "secret": "***", "list": [{"token": ["***", {"deep": "***"}]}]},
                "urls": ["redis://u:***@h", ["http://h?token=***"]], "keyprefix": "zot", "tokenenabled": true, "key": null,
            })
        );
    }

    #[test]
    fn the_wrapper_shows_nothing() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter22");
    }

    /// A secret long enough not to occur by chance, with the characters that break naive parsers.
    fn planted() -> impl Strategy<Value = String> {
        ("[a-z]{0,2}[@:/?#&;, =%]{0,3}", "[A-Z]{10}", "[@:/?#%]{0,2}[a-z]{0,2}").prop_map(|(a, b, c)| a + &b + &c)
    }

    fn marker(secret: &str) -> String {
        secret.chars().filter(char::is_ascii_uppercase).collect()
    }

    proptest! {
        #[test]
        fn planted_passwords_never_appear_in_urls(
            secret in planted(),
            scheme in "(redis|rediss|unix|https|HTTP|x+y)",
            user in "[a-z]{0,4}",
            host in "[a-z]{1,4}(:[0-9]{1,4})?(,[a-z]{1,3})?",
            tail in "(/[0-9])?(\\?[a-z]{1,3}=[a-z@]{0,3})?",
        ) {
            let url = format!("{scheme}://{user}:{secret}@{host}{tail}");
            let hit = redact_url(&url).contains(&marker(&secret)) || redact_text(&url).contains(&marker(&secret));
            prop_assert!(!hit, "{}", url);
            let bare = format!("{user}:{secret}@{host}");
            let hit = redact_text(&bare).contains(&marker(&secret));
            prop_assert!(!hit, "{}", bare);
        }

        #[test]
        fn planted_query_values_never_appear(
            secret in "[A-Z]{10}[a-z=+/]{0,3}",
            key in "(password|token|sig|secret_key|X-Amz-Signature|p%61ssword|sentinel_password)",
            before in "([a-z]{1,3}=[a-z]{0,3}&)?",
            after in "(&[a-z]{1,3}=[a-z]{0,3})?(#x)?",
        ) {
            for url in [format!("https://h/p?{before}{key}={secret}{after}"), format!("https://u:p@h?{before}{key}={secret}{after}")] {
                let hit = redact_url(&url).contains(&marker(&secret));
                prop_assert!(!hit, "{}", url);
            }
        }

        #[test]
        fn planted_values_never_appear(
            secret in planted(),
            key in "(accessKey|SECRETKEY|password|sentinel_password|accountkey|connectionString|token|private_key)",
            path in prop::collection::vec("[a-z]{1,6}", 0..5),
        ) {
            let mut value = json!({ key: secret.clone() });
            for name in path {
                value = if name.len() % 2 == 0 { json!([1, { name: value }]) } else { json!({ name: [value] }) };
            }
            let hit = redact_value(&value).to_string().contains(&marker(&secret));
            prop_assert!(!hit, "{}", value);
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (redact_url(&text), redact_text(&text), is_secret_key(&text));
        }
    }
}
