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
