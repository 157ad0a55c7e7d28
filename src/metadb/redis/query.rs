//! The query of a Redis URL, option by option.

use crate::config::scalar;
use std::collections::BTreeMap;

/// Go's `strconv.Atoi`.
pub fn atoi(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// go-redis' reading of query options: the last value counts, and what is read is used up.
pub struct Query<'a> {
    /// Options not read yet.
    pub options: &'a mut BTreeMap<String, Vec<String>>,
    /// Options read, in order.
    pub seen: Vec<&'static str>,
}

impl Query<'_> {
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.options.remove(name)?.pop();
        self.seen.push(name);
        value
    }

    pub fn int(&mut self, name: &'static str) -> Result<i64, String> {
        match self.text(name).filter(|text| !text.is_empty()) {
            Some(text) => atoi(&text).ok_or_else(|| format!("its {name} is not a number")),
            None => Ok(0),
        }
    }

    pub fn bool(&mut self, name: &'static str) -> Result<bool, String> {
        match self.text(name).as_deref() {
            Some("true" | "1") => Ok(true),
            None | Some("false" | "0" | "") => Ok(false),
            Some(_) => Err(format!("its {name} is neither true, false, 1 nor 0")),
        }
    }

    /// Nanoseconds; a bare number is seconds, and one below 1 switches the limit off.
    pub fn duration(&mut self, name: &'static str) -> Result<i64, String> {
        let Some(text) = self.text(name).filter(|text| !text.is_empty()) else { return Ok(0) };
        match atoi(&text) {
            Some(seconds) if seconds <= 0 => Ok(-1),
            Some(seconds) => Ok(seconds.saturating_mul(1_000_000_000)),
            None => scalar::duration(&text).ok_or_else(|| format!("its {name} is not a duration")),
        }
    }
}
