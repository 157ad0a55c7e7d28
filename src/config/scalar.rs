//! Scalars as zot's libraries read them from text: Go integers with base prefixes, Go durations, zot's GC time window
//! (spec §1.7), and YAML's plain scalars (§1.2), which share the integer rule.

/// A signed or unsigned 64-bit integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integer {
    /// Fits the signed range.
    Signed(i64),
    /// Only fits the unsigned range.
    Unsigned(u64),
}

/// Magnitude of digits in `base`, or `None` if a character is no digit or the value exceeds 64 bits.
fn magnitude(digits: &str, base: u32) -> Option<u64> {
    // from_str_radix accepts a sign, Go does not at this place.
    if digits.is_empty() || !digits.bytes().all(|b| char::from(b).is_digit(base)) {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

fn split_sign(text: &str) -> (Option<char>, &str) {
    match text.chars().next() {
        Some(sign @ ('+' | '-')) => (Some(sign), text.get(1..).unwrap_or("")),
        _ => (None, text),
    }
}

/// Base and digits by Go's literal prefixes: `0x`, `0o`, `0b` in either case, else a leading zero means octal.
fn split_base(body: &str) -> (u32, &str) {
    let digits = body.get(2..).unwrap_or("");
    match body.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, digits),
        [b'0', b'o' | b'O', _, ..] => (8, digits),
        [b'0', b'b' | b'B', _, ..] => (2, digits),
        [b'0', _, ..] => (8, body.get(1..).unwrap_or("")),
        _ => (10, body),
    }
}

/// Integer in Go notation without underscores: the signed range first, then unsigned if there is no sign.
#[must_use]
pub fn integer(text: &str) -> Option<Integer> {
    let (sign, body) = split_sign(text);
    let (base, digits) = split_base(body);
    let value = magnitude(digits, base)?;
    match signed(sign == Some('-'), value) {
        Some(value) => Some(Integer::Signed(value)),
        None => sign.is_none().then_some(Integer::Unsigned(value)),
    }
}

/// String to signed integer as weak decoding does it: empty is 0, underscores may separate digits (and follow a base
/// prefix), everything else as [`integer`].
#[must_use]
pub fn weak_integer(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let plain = if text.contains('_') {
        if !underscores_ok(text) {
            return None;
        }
        text.replace('_', "")
    } else {
        text.to_owned()
    };
    match integer(&plain)? {
        Integer::Signed(value) => Some(value),
        Integer::Unsigned(_) => None,
    }
}

/// Go's rule for underscores in literals: each between two digits, or between a base prefix and a digit.
#[must_use]
pub fn underscores_ok(text: &str) -> bool {
    let (_, body) = split_sign(text);
    let bytes = body.as_bytes();
    let (prefixed, hex) = match bytes {
        [b'0', kind @ (b'x' | b'X' | b'o' | b'O' | b'b' | b'B'), ..] => (true, matches!(kind, b'x' | b'X')),
        _ => (false, false),
    };
    let rest = if prefixed { bytes.get(2..).unwrap_or_default() } else { bytes };
    // What precedes: a digit (a base prefix counts as one), an underscore, or anything else.
    let (mut after_digit, mut after_underscore) = (prefixed, false);
    for b in rest {
        if b.is_ascii_digit() || (hex && b.is_ascii_hexdigit()) {
            (after_digit, after_underscore) = (true, false);
        } else if *b == b'_' {
            if !after_digit {
                return false;
            }
            (after_digit, after_underscore) = (false, true);
        } else {
            if after_underscore {
                return false;
            }
            (after_digit, after_underscore) = (false, false);
        }
    }
    !after_underscore
}

/// Nanoseconds of a duration unit, and the text behind it.
fn unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let nanoseconds = match name {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    Some((nanoseconds, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A Go duration in nanoseconds (spec §1.7). Empty and unit-less text is an error, except a plain `0`.
#[must_use]
pub fn duration(text: &str) -> Option<i64> {
    const LIMIT: u64 = 1 << 63;
    let (sign, mut text) = split_sign(text);
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !text.is_empty() {
        let (whole, rest) = split_digits(text);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (scale, rest) = unit(rest)?;
        text = rest;
        let mut part = 0u64;
        for digit in whole.bytes() {
            part = part.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|v| *v <= LIMIT)?;
        }
        part = part.checked_mul(scale).filter(|v| *v <= LIMIT)?;
        // Digits beyond what fits are dropped, as in Go; the division then happens in doubles.
        let (mut kept, mut divisor) = (0u64, 1.0f64);
        for digit in fraction.bytes() {
            if kept > (LIMIT - 1) / 10 {
                break;
            }
            let next = kept * 10 + u64::from(digit - b'0');
            if next > LIMIT {
                break;
            }
            kept = next;
            divisor *= 10.0;
        }
        if kept > 0 {
            // Truncation is Go's conversion; the product is far below 2^63.
            part = part.checked_add((kept as f64 * (scale as f64 / divisor)) as u64).filter(|v| *v <= LIMIT)?;
        }
        total = total.checked_add(part).filter(|v| *v <= LIMIT)?;
    }
    signed(sign == Some('-'), total)
}

/// zot's GC time window, normalised to `HH:MM-HH:MM`; the empty text is "unset" and stays empty.
#[must_use]
pub fn time_window(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let minute_of_day = |half: &str| -> Option<(u32, u32)> {
        let (hour, minute) = half.trim().split_once(':')?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !matches!(hour.len(), 1 | 2) || minute.len() != 2 || !digits(hour) || !digits(minute) {
            return None;
        }
        let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some((hour, minute))
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
    (from != to).then(|| format!("{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_go_notation() {
        use Integer::{Signed, Unsigned};
        for (text, want) in [
            ("0", Signed(0)),
            ("-0", Signed(0)),
            ("+5", Signed(5)),
            ("017", Signed(15)),
            ("0o17", Signed(15)),
            ("0O17", Signed(15)),
            ("0x1F", Signed(31)),
            ("-0b11", Signed(-3)),
            ("9223372036854775807", Signed(i64::MAX)),
            ("-9223372036854775808", Signed(i64::MIN)),
            ("9223372036854775808", Unsigned(1 << 63)),
            ("0xFFFFFFFFFFFFFFFF", Unsigned(u64::MAX)),
        ] {
            assert_eq!(integer(text), Some(want), "{text}");
        }
        for text in
            ["", "-", "08", "0x", "0b", "0b2", "0o8", "1_0", "+-5", "0x-5", "+9223372036854775808", "1.0", "é", "0é"]
        {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn weak_integers_allow_separating_underscores() {
        for (text, want) in
            [("", 0), ("1_000", 1000), ("0x_1f", 31), ("0_7", 7), ("0b1_1", 3), ("-1_0", -10), ("0x10", 16), ("00", 0)]
        {
            assert_eq!(weak_integer(text), Some(want), "{text}");
        }
        for text in ["_1", "1__0", "1_", "08", " 1", "1 ", "-_1", "0x_", "_", "18446744073709551615", "1.5", "1e3"] {
            assert_eq!(weak_integer(text), None, "{text}");
        }
    }

    #[test]
    fn durations_follow_go() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5h3.25s7us8µs9μs", 5_403_250_024_000),
            ("0.333333333333333333333h", 1_200_000_000_000),
            ("3.3333333333m", 199_999_999_998),
            ("1.0000000001h", 3_600_000_000_360),
            ("-9223372036854775808ns", i64::MIN),
            ("2562047h47m16.854775807s", i64::MAX),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("-1.5ms", -1_500_000),
            ("0.9223372036854775808h", 3_320_413_933_267),
        ] {
            assert_eq!(duration(text), Some(want), "{text}");
        }
        for text in [
            "",
            "-",
            "5",
            "1d",
            "1 s",
            " 1s",
            "1e3s",
            ".s",
            "s",
            "1H",
            "h1",
            "9223372036854775808ns",
            "1h1",
            "2562047h47m16.854775808s",
            "99999999999999999999s",
            "--1s",
            "1µ",
            "0.",
            "00",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn windows_are_normalised() {
        assert_eq!(time_window("").as_deref(), Some(""));
        assert_eq!(time_window(" 1:00 - 08:05 ").as_deref(), Some("01:00-08:05"));
        assert_eq!(time_window("22:00\u{a0}-\u{2003}6:00").as_deref(), Some("22:00-06:00"));
        for text in [
            " ",
            "1:00",
            "1:0-2:00",
            "24:00-01:00",
            "01:60-02:00",
            "01:00-01:00",
            "1:00-01:00",
            "001:00-2:00",
            "a:00-b:00",
        ] {
            assert_eq!(time_window(text), None, "{text}");
        }
        assert_eq!(time_window("+1:00-2:00"), None);
        assert_eq!(time_window("1:00-2:00-3:00"), None);
    }
}
