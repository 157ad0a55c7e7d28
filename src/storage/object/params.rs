//! Reading `storageDriver` parameters with the rules of Go's `fmt`, `strconv` and `mapstructure`, as zot's drivers do
//! (spec §1.10). Messages show names, never values of parameters that may hold a secret.

use crate::config::DriverParams;
use crate::config::tree::Tree;
use crate::gojson;

/// Why a store cannot be opened with its parameters: which one, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// zot would not start.
    #[error("storageDriver.{0}")]
    Refused(String),
    /// zot could use the store, metactl cannot.
    #[error("storageDriver.{0}")]
    Unsupported(String),
}

/// The parameters of one store.
#[derive(Clone, Copy)]
pub(super) struct Params<'a>(pub(super) &'a DriverParams);

impl<'a> Params<'a> {
    /// A parameter that is there and not null.
    pub(super) fn get(self, key: &str) -> Option<&'a Tree> {
        self.0.get(key).filter(|value| **value != Tree::Null)
    }

    /// As `fmt.Sprint` prints it; empty if absent.
    pub(super) fn print(self, key: &str) -> Result<String, ParamError> {
        Ok(match self.get(key) {
            None => String::new(),
            Some(Tree::Bool(value)) => value.to_string(),
            Some(Tree::Int(number)) => number.to_string(),
            Some(Tree::Uint(number)) => number.to_string(),
            Some(Tree::Float(number)) => print_float(*number),
            Some(Tree::Text(text)) => text.clone(),
            Some(other) => return Err(refused(key, format!("must be a text, not {}", other.kind()))),
        })
    }

    /// As [`Params::print`], refusing what is not there.
    pub(super) fn required(self, key: &str) -> Result<String, ParamError> {
        match self.print(key)? {
            text if text.is_empty() => Err(refused(key, "is missing")),
            text => Ok(text),
        }
    }

    /// A boolean, or a text that `strconv.ParseBool` reads.
    pub(super) fn boolean(self, key: &str, default: bool) -> Result<bool, ParamError> {
        match self.get(key) {
            None => Ok(default),
            Some(Tree::Bool(value)) => Ok(*value),
            Some(Tree::Text(text)) => match text.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
                // Not shown: it may be a secret in the wrong place.
                _ => Err(refused(key, "must be a boolean")),
            },
            Some(other) => Err(refused(key, format!("must be a boolean, not {}", other.kind()))),
        }
    }

    /// What `Sscanf("%d")` reads of the printed value, which must lie in `range`. Only checked: no reader needs it.
    ///
    /// A number in JSON is a double, prints as `1.048576e+07`, and so counts as 1.
    pub(super) fn check_integer(self, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<(), ParamError> {
        if self.get(key).is_none() {
            return Ok(());
        }
        let printed = self.print(key)?;
        let text = printed.trim_start();
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = text.get(..text.len() - digits.len() + end).unwrap_or("");
        let bounds = format!("must be an integer from {} to {}", range.start(), range.end());
        match number.parse::<i64>() {
            Ok(value) if range.contains(&value) => Ok(()),
            Ok(value) if matches!(self.get(key), Some(Tree::Float(_))) => Err(refused(
                key,
                format!("{bounds}; zot reads this number as {value}: write it as a text, \"{}\"", self.plain(key)),
            )),
            _ => Err(refused(key, bounds)),
        }
    }

    /// A number without exponent.
    fn plain(self, key: &str) -> String {
        match self.get(key) {
            Some(Tree::Float(number)) => gojson::fixed_f64(*number),
            _ => String::new(),
        }
    }
}

/// A parameter that zot's driver refuses.
pub(super) fn refused(key: &str, reason: impl AsRef<str>) -> ParamError {
    ParamError::Refused(format!("{key} {}", reason.as_ref()))
}

/// A parameter that only metactl refuses.
pub(super) fn unsupported(key: &str, reason: impl AsRef<str>) -> ParamError {
    ParamError::Unsupported(format!("{key} {}", reason.as_ref()))
}

/// An HTTP address in the form in which it is sent, without a slash at its end; `None` if it is none, or has a query.
pub(super) fn address(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    (plain && url.has_host()).then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// A double as Go's `%v` prints it: the shortest digits, in exponent form below 1e-4 and from 1e+06 on.
fn print_float(number: f64) -> String {
    let size = number.abs();
    // Rounding to the shortest digits never moves a number across these bounds.
    if !number.is_finite() || size == 0.0 || (1e-4..1e6).contains(&size) {
        return gojson::fixed_f64(number);
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Map;

    fn params(key: &str, value: Tree) -> DriverParams {
        DriverParams::new(Map::from([(key.to_owned(), value)]))
    }

    #[test]
    fn addresses() {
        for (text, want) in [
            ("http://127.0.0.1:9000", Some("http://127.0.0.1:9000")),
            ("HTTPS://MinIO:443/s3/", Some("https://minio/s3")),
            ("http://[::1]:9000/a b", Some("http://[::1]:9000/a%20b")),
            ("http://bucket.127.0.0.1", None),
            ("http://", None),
            ("http://a b", None),
            ("ftp://h", None),
            ("https://h?sig=x", None),
            ("h:9000", None),
            ("", None),
        ] {
            assert_eq!(address(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn numbers_print_as_in_go() {
        for (number, text) in [
            (0.0, "0"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (10_485_760.0, "1.048576e+07"),
            (-1e21, "-1e+21"),
            (1.5, "1.5"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
        ] {
            assert_eq!(print_float(number), text);
        }
    }

    #[test]
    fn integers_are_read_from_the_printed_value() {
        let check = |value: Tree| Params(&params("chunksize", value)).check_integer("chunksize", 5..=100);
        for good in [Tree::Int(7), Tree::Float(7.0), Tree::Text("7".into()), Tree::Text(" 7 MB".into()), Tree::Null] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in
            [Tree::Int(4), Tree::Text("x".into()), Tree::Text(String::new()), Tree::Bool(true), Tree::Text("-7".into())]
        {
            assert!(matches!(check(bad), Err(ParamError::Refused(_))));
        }
        let error = check(Tree::Float(10_485_760.0)).unwrap_err().to_string();
        assert!(error.contains("zot reads this number as 1: write it as a text, \"10485760\""), "{error}");
    }

    #[test]
    fn booleans_may_be_texts() {
        let read = |value: Tree| Params(&params("secure", value)).boolean("secure", true);
        for (value, want) in [
            (Tree::Null, true),
            (Tree::Bool(false), false),
            (Tree::Text("F".into()), false),
            (Tree::Text("True".into()), true),
            (Tree::Text("1".into()), true),
        ] {
            assert_eq!(read(value), Ok(want));
        }
        for bad in [Tree::Text("yes".into()), Tree::Text(String::new()), Tree::Int(1), Tree::Float(0.0)] {
            assert!(matches!(read(bad), Err(ParamError::Refused(_))));
        }
    }
}
