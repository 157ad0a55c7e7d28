//! What a YAML scalar means to go-yaml 3.0.4 (spec §1.2).

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::json::push_lossy;
use super::scalar::{self, Integer};
use super::tree::Tree;
use super::yaml_time;

/// Value of a scalar by its style and tag.
///
/// # Errors
/// A tag that does not fit the text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Tree, String> {
    match tag {
        Some("!!str") => Ok(Tree::Text(text.to_owned())),
        None | Some("!") if !plain => Ok(Tree::Text(text.to_owned())),
        None | Some("!") => Ok(plain_scalar(text, true)),
        Some("!!binary") => {
            const LENIENT: GeneralPurpose = GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
            );
            let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            let bytes = LENIENT.decode(joined).map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            let mut out = String::new();
            push_lossy(&mut out, &bytes);
            Ok(Tree::Text(out))
        }
        Some(tag @ ("!!bool" | "!!int" | "!!float" | "!!null" | "!!timestamp")) => {
            let value = plain_scalar(text, tag == "!!timestamp");
            match (tag, &value) {
                ("!!bool", Tree::Bool(_))
                | ("!!int", Tree::Int(_) | Tree::Uint(_))
                | ("!!float", Tree::Float(_))
                | ("!!null", Tree::Null)
                | ("!!timestamp", Tree::Time(_)) => Ok(value),
                // Go converts signed integers only.
                ("!!float", Tree::Int(number)) => Ok(Tree::Float(*number as f64)),
                _ => Err(format!("cannot decode {} as a {tag}", value.kind())),
            }
        }
        // A tag of somebody's own leaves the text alone.
        Some(_) => Ok(Tree::Text(text.to_owned())),
    }
}

/// go-yaml's resolution of a plain scalar.
fn plain_scalar(text: &str, dates: bool) -> Tree {
    match text {
        "true" | "True" | "TRUE" => return Tree::Bool(true),
        "false" | "False" | "FALSE" => return Tree::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        ".nan" | ".NaN" | ".NAN" => return Tree::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Tree::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Tree::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes() {
        // Only here do underscores follow the rule of Go's literals instead of being dropped.
        [b'.', ..] => scalar::underscores_ok(text).then(|| yaml_float(&text.replace('_', ""))).flatten(),
        [b'+' | b'-' | b'0'..=b'9', ..] => {
            if dates && let Some(time) = yaml_time::parse(text) {
                return Tree::Time(time);
            }
            let plain = text.replace('_', "");
            match yaml_integer(&plain) {
                Some(Integer::Signed(value)) => return Tree::Int(value),
                Some(Integer::Unsigned(value)) => return Tree::Uint(value),
                None => yaml_float(&plain),
            }
        }
        _ => None,
    };
    number.map_or_else(|| Tree::Text(text.to_owned()), Tree::Float)
}

/// Go notation, plus go-yaml's second look at binary and octal text, which lets a sign follow the prefix.
fn yaml_integer(text: &str) -> Option<Integer> {
    if let Some(value) = scalar::integer(text) {
        return Some(value);
    }
    let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (base, digits) = match (body.strip_prefix("0b"), body.strip_prefix("0o")) {
        (Some(digits), _) => (2, digits),
        (_, Some(digits)) => (8, digits),
        _ => return None,
    };
    if negative {
        // "-" and the rest together: a second sign is an error.
        return if digits.starts_with(['+', '-']) {
            None
        } else {
            i64::from_str_radix(&format!("-{digits}"), base).ok()
        }
        .map(Integer::Signed);
    }
    i64::from_str_radix(digits, base).ok().map(Integer::Signed)
}

/// Decimal float of YAML's form that does not overflow.
fn yaml_float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(body);
    let mut rest = body.get(whole..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if whole == 0 && length == 0 {
            return None;
        }
        rest = fraction.get(length..)?;
    } else if whole == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 || length != exponent.len() {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Tree {
        resolve(text, true, None).unwrap()
    }

    fn text(text: &str) -> Tree {
        Tree::Text(text.into())
    }

    #[test]
    fn words() {
        for word in ["true", "True", "TRUE"] {
            assert_eq!(value(word), Tree::Bool(true));
        }
        for word in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(value(word), Tree::Null);
        }
        for word in
            ["yes", "no", "on", "off", "y", "n", "tRue", "nul", "~x", "1:30", "0x1p4", "0o8", "_1", "=", "1e", "e1"]
        {
            assert_eq!(value(word), text(word));
        }
        assert_eq!(value("-.Inf"), Tree::Float(f64::NEG_INFINITY));
        assert!(matches!(value(".nan"), Tree::Float(number) if number.is_nan()));
        assert_eq!(value("-.nan"), text("-.nan"));
    }

    #[test]
    fn numbers() {
        for (scalar, want) in [
            ("017", 15),
            ("0o17", 15),
            ("0x1F", 31),
            ("-0b11", -3),
            ("1_000", 1000),
            ("1__0", 10),
            ("1_", 1),
            ("+5", 5),
            ("-0", 0),
            ("0b-1", -1),
            ("0o-7", -7),
        ] {
            assert_eq!(value(scalar), Tree::Int(want), "{scalar}");
        }
        assert_eq!(value("18446744073709551615"), Tree::Uint(u64::MAX));
        for (scalar, want) in [
            ("08", 8.0),
            ("18446744073709551616", 18446744073709551616.0),
            ("5.", 5.0),
            (".5e3", 500.0),
            ("+.5", 0.5),
            ("12e-3", 0.012),
            ("1.5_0", 1.5),
            ("1_000.5", 1000.5),
            (".5_0", 0.5),
            ("-9223372036854775809", -9223372036854775809.0),
        ] {
            assert_eq!(value(scalar), Tree::Float(want), "{scalar}");
        }
        assert!(matches!(value("-0.0"), Tree::Float(zero) if zero == 0.0 && zero.is_sign_negative()));
        for scalar in ["1e400", "._5", ".", "+", "0x", "0b2", "-0b-1", "1e5x", "+-1"] {
            assert_eq!(value(scalar), text(scalar), "{scalar}");
        }
    }
}
