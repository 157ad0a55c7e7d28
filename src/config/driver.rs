//! Free-form driver parameters: `storageDriver` and `cacheDriver`.
//!
//! They hold secrets in the clear, so neither `Debug` nor [`DriverParams::redacted`] shows them.

use std::fmt;

use super::tree::{Map, Tree};
use crate::{gojson, secret};

/// Parameters of a storage or cache driver, keys folded to lower case.
#[derive(Default, PartialEq)]
pub struct DriverParams(pub(super) Map);

impl DriverParams {
    /// Parameters with these lower-case names.
    #[must_use]
    pub fn new(params: Map) -> Self {
        Self(params)
    }

    /// A parameter by its lower-case name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.get(key)
    }

    /// A parameter, if it is a string. May be a secret.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// The driver's `name`, if it is a string.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// All parameters in key order. Values may be secrets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The parameters with secrets replaced, fit for output.
    #[must_use]
    pub fn redacted(&self) -> serde_json::Value {
        secret::redact_value(&map_to_json(&self.0, 0))
    }

    /// A copy. Recurses as deep as the parameters are nested.
    pub(super) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether a NaN or infinity hides in the parameters: zot panics when it logs such a config.
    pub(super) fn has_non_finite(&self) -> bool {
        let mut pending: Vec<&Tree> = self.0.values().collect();
        while let Some(tree) = pending.pop() {
            match tree {
                Tree::Float(number) if !number.is_finite() => return true,
                Tree::List(items) => pending.extend(items),
                Tree::Map(map) => pending.extend(map.values()),
                _ => {}
            }
        }
        false
    }

    /// Append the text that is hashed (spec §3.2). Contains secrets. Recurses as deep as the parameters are nested.
    pub(super) fn push_hashed(&self, out: &mut String) {
        push_map(out, &self.0);
    }
}

impl fmt::Debug for DriverParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.redacted())
    }
}

fn push_map(out: &mut String, map: &Map) {
    out.push('{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        gojson::push_string(out, key);
        out.push(':');
        push(out, value);
    }
    out.push('}');
}

fn push(out: &mut String, tree: &Tree) {
    match tree {
        Tree::Null => out.push_str("null"),
        Tree::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        // zot parses its own JSON back before hashing: by then every number is a double.
        Tree::Int(number) => push_number(out, *number as f64),
        Tree::Uint(number) => push_number(out, *number as f64),
        Tree::Float(number) => push_number(out, *number),
        Tree::Text(text) | Tree::Time(text) | Tree::LocalTime(text) => gojson::push_string(out, text),
        Tree::List(items) => gojson::push_list(out, items, push),
        Tree::Map(map) => push_map(out, map),
    }
}

fn push_number(out: &mut String, number: f64) {
    if !gojson::push_f64(out, number) {
        // Refused by `has_non_finite` before any text is made.
        out.push_str("null");
    }
}

/// Depth shown in output; deeper values are of no use to anybody and would recurse in their consumers.
const SHOWN_DEPTH: usize = 60;

fn map_to_json(map: &Map, depth: usize) -> serde_json::Value {
    map.iter().map(|(key, value)| (key.clone(), to_json(value, depth + 1))).collect()
}

/// A value for output, cut off where it is nested too deep. Not redacted.
fn to_json(tree: &Tree, depth: usize) -> serde_json::Value {
    use serde_json::Value;
    match tree {
        Tree::List(_) | Tree::Map(_) if depth >= SHOWN_DEPTH => Value::String("(nested too deep)".into()),
        Tree::Null => Value::Null,
        Tree::Bool(value) => Value::Bool(*value),
        Tree::Int(number) => (*number).into(),
        Tree::Uint(number) => (*number).into(),
        Tree::Float(number) => {
            if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
                (*number as i64).into()
            } else {
                (*number).into()
            }
        }
        Tree::Text(text) | Tree::Time(text) | Tree::LocalTime(text) => Value::String(text.clone()),
        Tree::List(items) => items.iter().map(|item| to_json(item, depth + 1)).collect(),
        Tree::Map(map) => map_to_json(map, depth),
    }
}
