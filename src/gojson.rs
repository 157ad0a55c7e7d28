//! JSON text exactly as Go's `encoding/json` writes it, for values whose text is hashed (config spec §3.2).
//!
//! Invariants: no white space; strings escape what Go escapes and nothing else; a float is the shortest decimal that
//! reads back to the same double, in fixed notation for 0 and 1e-6 <= |x| < 1e21 and in exponent notation otherwise.
//! The caller is responsible for the order of object members.

use std::fmt::Write as _;

/// Append a JSON list, each of whose elements `push` appends.
pub fn push_list<T>(out: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

/// Append `text` as a JSON string, HTML-safe like Go's default encoder.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Shortest decimal that reads back as `value`: its digits without point, and the power of ten of the first digit.
///
/// Rust's own shortest form is not always Go's: where the value lies exactly between two shortest decimals, Go takes
/// the even one and Rust the upper one. Rounding to the same number of digits settles ties to even.
fn shortest(value: f64) -> (String, i32) {
    let parts = |text: &str| {
        let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
        (digits.replace('.', ""), exponent.parse().unwrap_or(0))
    };
    let size = value.abs();
    let (digits, exponent) = parts(&format!("{size:e}"));
    let rounded = format!("{size:.*e}", digits.len().saturating_sub(1));
    if rounded.parse() == Ok(size) { parts(&rounded) } else { (digits, exponent) }
}

/// Append a finite double in fixed notation.
fn push_fixed(out: &mut String, value: f64) {
    let (digits, exponent) = shortest(value);
    if value.is_sign_negative() {
        out.push('-');
    }
    let zeros = |out: &mut String, count: usize| out.extend(std::iter::repeat_n('0', count));
    match usize::try_from(exponent) {
        Ok(before) if before + 1 >= digits.len() => {
            out.push_str(&digits);
            zeros(out, before + 1 - digits.len());
        }
        Ok(before) => {
            let (whole, fraction) = digits.split_at(before + 1);
            out.push_str(whole);
            out.push('.');
            out.push_str(fraction);
        }
        Err(_) => {
            out.push_str("0.");
            zeros(out, exponent.unsigned_abs() as usize - 1);
            out.push_str(&digits);
        }
    }
}

/// Append a finite double the way Go renders a `float64`. Returns `false` and appends nothing for NaN and infinities,
/// which Go refuses to marshal.
#[must_use]
pub fn push_f64(out: &mut String, value: f64) -> bool {
    if !value.is_finite() {
        return false;
    }
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        push_fixed(out, value);
    } else {
        let (digits, exponent) = shortest(value);
        let (first, rest) = digits.split_at(1);
        let sign = if value < 0.0 { "-" } else { "" };
        let point = if rest.is_empty() { "" } else { "." };
        // Writing to a String cannot fail.
        let _ = write!(out, "{sign}{first}{point}{rest}e{exponent:+}");
    }
    true
}

/// A double as Go's `strconv.FormatFloat(x, 'f', -1, 64)`: fixed notation always, `NaN`, `+Inf`, `-Inf`.
#[must_use]
pub fn fixed_f64(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        let mut out = String::new();
        push_fixed(&mut out, value);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> String {
        let mut out = String::new();
        push_string(&mut out, text);
        out
    }

    fn float(value: f64) -> String {
        let mut out = String::new();
        assert!(push_f64(&mut out, value));
        out
    }

    #[test]
    fn strings_escape_what_go_escapes() {
        assert_eq!(string("a\"b\\c/"), r#""a\"b\\c/""#);
        assert_eq!(string("\u{8}\u{c}\n\r\t"), r#""\b\f\n\r\t""#);
        assert_eq!(string("\0\u{b}\u{1f}\u{7f}"), "\"\\u0000\\u000b\\u001f\u{7f}\"");
        assert_eq!(string("<&>"), r#""\u003c\u0026\u003e""#);
        assert_eq!(string("\u{2027}\u{2028}\u{2029}é😀\u{fffd}"), "\"\u{2027}\\u2028\\u2029é😀\u{fffd}\"");
    }

    #[test]
    fn floats_switch_notation_where_go_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1.5e-6, "0.0000015"),
            (9.99e-7, "9.99e-7"),
            (1e-7, "1e-7"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1e21, "-1e+21"),
            (1.2345678901234568e29, "1.2345678901234568e+29"),
            (18446744073709551616.0, "18446744073709552000"),
            (9007199254740993.0, "9007199254740992"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            // Exactly between two shortest decimals: the even one.
            (1_380_646_223_644_817.0 / 8.0, "172580777955602.12"),
            (-3_665_461_787_669_977.0 / 4.0, "-916365446917494.2"),
            (3_665_461_787_669_979.0 / 4.0, "916365446917494.8"),
            (5e-324, "5e-324"),
            (9007199254740993.0 * 4.0, "36028797018963970"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn non_finite_floats_are_refused() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut out = String::from("x");
            assert!(!push_f64(&mut out, value));
            assert_eq!(out, "x");
        }
    }

    #[test]
    fn fixed_notation_never_uses_an_exponent() {
        assert_eq!(fixed_f64(1e22), "10000000000000000000000");
        assert_eq!(fixed_f64(1.5e-9), "0.0000000015");
        assert_eq!(fixed_f64(-0.0), "-0");
        assert_eq!(fixed_f64(f64::NAN), "NaN");
        assert_eq!(fixed_f64(f64::INFINITY), "+Inf");
        assert_eq!(fixed_f64(f64::NEG_INFINITY), "-Inf");
    }

    /// Significant digits and decimal exponent of a rendered number, by an independent reading of the text.
    fn normal_form(text: &str) -> (bool, String, i32) {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once('e').map_or((text, 0), |(m, e)| (m, e.parse().unwrap()));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let leading = digits.len() - digits.trim_start_matches('0').len();
        let point = whole.len() as i32 - leading as i32 + exponent;
        (negative, digits.trim_matches('0').to_owned(), point)
    }

    proptest! {
        #[test]
        fn strings_read_back(text in any::<String>()) {
            let json = string(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            let raw = json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
            prop_assert!(!raw);
        }

        /// Eighths around 10^14 have two decimals at most, and half of them are ties: checked with integers.
        #[test]
        fn ties_go_to_the_even_digit(eighths in 800_000_000_000_000u64..8_000_000_000_000_000) {
            let text = float(eighths as f64 / 8.0);
            let hundredths: u64 = {
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                format!("{whole}{fraction:0<2}").parse().unwrap()
            };
            let scale = if text.split_once('.').is_some_and(|(_, fraction)| fraction.len() == 2) { 1 } else { 10 };
            // Distance to the exact value in 1/800, against half a unit of the last digit written.
            let distance = (hundredths * 8).abs_diff(eighths * 100);
            prop_assert!(distance <= 4 * scale);
            if distance == 4 * scale {
                prop_assert_eq!(hundredths / scale % 2, 0, "{}", text);
            }
        }

        #[test]
        fn floats_read_back_and_are_shortest(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = float(value);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), bits);
            // Same digits in both notations, and one digit less does not read back.
            let (_, digits, point) = normal_form(&text);
            prop_assert_eq!(digits.len(), normal_form(&format!("{value:e}")).1.len());
            if digits.len() > 1 {
                let shorter: String = format!("0.{}e{point}", &digits[..digits.len() - 1]);
                prop_assert_ne!(shorter.parse::<f64>().unwrap().to_bits(), value.abs().to_bits());
            }
            // Notation, padding and exponent form.
            let exponent_form = value != 0.0 && !(1e-6..1e21).contains(&value.abs());
            prop_assert_eq!(text.contains('e'), exponent_form);
            if let Some((_, exponent)) = text.split_once('e') {
                let digits = exponent.strip_prefix(['+', '-']).expect("a sign");
                prop_assert!(!digits.starts_with('0'));
            }
        }
    }
}
