//! Typed, weak decoding of generic values (spec §1.6, §1.7).
//!
//! Every function takes a non-null value: null always keeps what was there before and is handled by [`fields`] and the
//! list functions. Errors name the place from the inside out: each level adds its segment with [`At`].

use super::scalar;
use super::tree::{Map, Tree};
use crate::gojson::fixed_f64;

/// Why a value cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The section has no such field; the field that was probably meant.
    UnknownKey(Option<String>),
    /// The section has no such field in this release, but in later ones: from which on.
    NewerKey(&'static str),
    /// The value's type or text does not fit the field.
    WrongType(String),
}

/// Fields that v2.1.18 does not have, and when they came.
const NEWER: [(&str, &str); 10] = [
    ("gcTimeWindow", "from v2.1.19 on"),
    ("keepUntagged", "from v2.1.19 on"),
    ("upstreamTokenEndpoint", "from v2.1.19 on"),
    ("maxRetryDelay", "from v2.1.19 on"),
    ("oauth2CredentialHelper", "from v2.1.19 on"),
    ("manifestCheckInterval", "after v2.1.20"),
    ("reqConcurrent", "after v2.1.20"),
    ("reqPerSec", "after v2.1.20"),
    ("disableHTTP2", "after v2.1.20"),
    ("maxIdleConnsPerHost", "after v2.1.20"),
];

/// A decoding error and where it happened, innermost segment first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    segments: Vec<String>,
    /// What is wrong.
    pub reason: Reason,
}

impl Bad {
    /// A type error at the current place.
    #[must_use]
    pub fn wrong(value: &Tree, want: &str) -> Self {
        let found = match value {
            // Short texts help to find the typo; typed fields hold no secrets.
            Tree::Text(text) if text.chars().count() <= 40 => format!("{text:?}"),
            other => other.kind().to_owned(),
        };
        Self { segments: Vec::new(), reason: Reason::WrongType(format!("{found} is not {want}")) }
    }

    fn unknown(key: &str, known: &[&str]) -> Self {
        if let Some((name, when)) = NEWER.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
            return Self { segments: vec![(*name).to_owned()], reason: Reason::NewerKey(when) };
        }
        let near = known
            .iter()
            .map(|name| (distance(key, &name.to_ascii_lowercase()), *name))
            .filter(|(distance, name)| *distance <= 2 && *distance < name.len() / 2)
            .min();
        Self { segments: vec![segment(key)], reason: Reason::UnknownKey(near.map(|(_, name)| name.to_owned())) }
    }

    /// The place, as people write it: `storage.retention.policies[0].delay`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut out = String::new();
        for segment in self.segments.iter().rev() {
            if !out.is_empty() && !segment.starts_with('[') {
                out.push('.');
            }
            out.push_str(segment);
        }
        out
    }
}

/// A key as a path segment: quoted if it is not a plain word.
fn segment(key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    if plain && key.len() <= 64 { key.to_owned() } else { format!("[{:?}]", shorten(key)) }
}

fn shorten(key: &str) -> String {
    match key.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", key.get(..at).unwrap_or("")),
        None => key.to_owned(),
    }
}

/// Edit distance, capped: long keys are nobody's typo.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != *y)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Add the place to an error on its way out.
pub trait At {
    /// Inside the field or map entry `key`.
    #[must_use]
    fn at(self, key: &str) -> Self;
    /// Inside the list element `index`.
    #[must_use]
    fn at_index(self, index: usize) -> Self;
}

impl<T> At for Result<T, Bad> {
    fn at(self, key: &str) -> Self {
        self.map_err(|mut bad| {
            bad.segments.push(segment(key));
            bad
        })
    }

    fn at_index(self, index: usize) -> Self {
        self.map_err(|mut bad| {
            bad.segments.push(format!("[{index}]"));
            bad
        })
    }
}

/// The non-null entries of a section, by the field names as people write them.
///
/// # Errors
/// The value is no map, or has a key that is no field.
pub fn fields<'a, 'n>(value: &'a Tree, known: &[&'n str]) -> Result<Vec<(&'n str, &'a Tree)>, Bad> {
    section(value)?
        .iter()
        .map(|(key, value)| match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
            Some(name) => Ok((*name, value)),
            None => Err(Bad::unknown(key, known)),
        })
        .filter(|entry| !matches!(entry, Ok((_, Tree::Null))))
        .collect()
}

/// A section. zot silently takes a YAML date as an empty one; that is refused here.
///
/// # Errors
/// The value is no map.
pub fn section(value: &Tree) -> Result<&Map, Bad> {
    value.as_map().ok_or_else(|| Bad::wrong(value, "a section"))
}

/// Weak boolean.
///
/// # Errors
/// The value does not fit.
pub fn boolean(value: &Tree) -> Result<bool, Bad> {
    match value {
        Tree::Bool(value) => Ok(*value),
        Tree::Int(number) => Ok(*number != 0),
        Tree::Uint(number) => Ok(*number != 0),
        Tree::Float(number) => Ok(*number != 0.0),
        Tree::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(Bad::wrong(value, "a boolean")),
        },
        _ => Err(Bad::wrong(value, "a boolean")),
    }
}

fn number(value: &Tree, want: &str) -> Result<i64, Bad> {
    match value {
        Tree::Bool(value) => Ok(i64::from(*value)),
        Tree::Int(number) => Ok(*number),
        // Go's conversion wraps.
        Tree::Uint(number) => Ok(number.cast_signed()),
        // Truncation toward zero. Outside the range (and for NaN) zot's result depends on the processor.
        Tree::Float(number) if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(number) => {
            Ok(*number as i64)
        }
        Tree::Float(_) => Err(Bad {
            segments: Vec::new(),
            reason: Reason::WrongType(format!("the number does not fit 64 bits, so it is not {want}")),
        }),
        _ => Err(Bad::wrong(value, want)),
    }
}

/// Weak 64-bit integer.
///
/// # Errors
/// The value does not fit.
pub fn int(value: &Tree) -> Result<i64, Bad> {
    match value {
        Tree::Text(text) => scalar::weak_integer(text).ok_or_else(|| Bad::wrong(value, "an integer")),
        _ => number(value, "an integer"),
    }
}

/// Weak double.
///
/// # Errors
/// The value does not fit.
pub fn float(value: &Tree) -> Result<f64, Bad> {
    match value {
        Tree::Bool(value) => Ok(f64::from(u8::from(*value))),
        Tree::Int(number) => Ok(*number as f64),
        Tree::Uint(number) => Ok(*number as f64),
        Tree::Float(number) => Ok(*number),
        Tree::Text(text) if text.is_empty() => Ok(0.0),
        Tree::Text(text) => text.parse().map_err(|_| Bad::wrong(value, "a number")),
        _ => Err(Bad::wrong(value, "a number")),
    }
}

/// Duration in nanoseconds: text in Go's grammar, numbers are nanoseconds.
///
/// # Errors
/// The value does not fit.
pub fn duration(value: &Tree) -> Result<i64, Bad> {
    const WANT: &str = "a duration like \"1h30m\"";
    match value {
        Tree::Text(text) => scalar::duration(text).ok_or_else(|| Bad::wrong(value, WANT)),
        _ => number(value, WANT),
    }
}

/// Weak string.
///
/// # Errors
/// The value does not fit.
pub fn text(value: &Tree) -> Result<String, Bad> {
    match value {
        Tree::Text(text) => Ok(text.clone()),
        Tree::Bool(value) => Ok(if *value { "1".into() } else { "0".into() }),
        Tree::Int(number) => Ok(number.to_string()),
        Tree::Uint(number) => Ok(number.to_string()),
        Tree::Float(number) => Ok(fixed_f64(*number)),
        _ => Err(Bad::wrong(value, "a string")),
    }
}

/// zot's GC time window, normalised; empty when unset. zot silently takes an offset date-time as unset.
///
/// # Errors
/// The value does not fit.
pub fn time_window(value: &Tree) -> Result<String, Bad> {
    match value {
        Tree::Time(_) => Ok(String::new()),
        Tree::Text(text) => {
            scalar::time_window(text).ok_or_else(|| Bad::wrong(value, "a time window like \"01:00-08:00\""))
        }
        _ => Err(Bad::wrong(value, "a time window like \"01:00-08:00\"")),
    }
}

/// List of anything: a lone value is a list of one, an empty map an empty list, a null element the type's zero.
///
/// # Errors
/// An element does not fit.
pub fn list<T: Default>(value: &Tree, element: impl Fn(&Tree) -> Result<T, Bad>) -> Result<Vec<T>, Bad> {
    match value {
        Tree::List(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| match item {
                Tree::Null => Ok(T::default()),
                item => element(item).at_index(index),
            })
            .collect(),
        Tree::Map(map) if map.is_empty() => Ok(Vec::new()),
        other => Ok(vec![element(other).at_index(0)?]),
    }
}

/// Map of anything: a map as it is, or a list of maps merged left to right with nulls skipped. A list without any map
/// in it leaves the field null, except the empty list, which makes an empty map.
///
/// # Errors
/// The value is neither, or an entry does not fit.
pub fn map_of<T>(
    value: &Tree,
    entry: &impl Fn(&Tree) -> Result<T, Bad>,
) -> Result<Option<std::collections::BTreeMap<String, T>>, Bad> {
    let mut out = None;
    merge_into(&mut out, value, entry)?;
    Ok(out)
}

fn merge_into<T>(
    out: &mut Option<std::collections::BTreeMap<String, T>>,
    value: &Tree,
    entry: &impl Fn(&Tree) -> Result<T, Bad>,
) -> Result<(), Bad> {
    match value {
        Tree::Map(map) => {
            let out = out.get_or_insert_default();
            for (key, value) in map {
                out.insert(key.clone(), entry(value).at(key)?);
            }
            Ok(())
        }
        Tree::List(items) => {
            if items.is_empty() {
                out.get_or_insert_default();
            }
            for (index, item) in items.iter().enumerate() {
                if *item != Tree::Null {
                    merge_into(out, item, entry).at_index(index)?;
                }
            }
            Ok(())
        }
        _ => Err(Bad::wrong(value, "a map")),
    }
}
