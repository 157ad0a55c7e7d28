//! Dates and times: recognising YAML's (spec §1.2) and printing any of them as Go does (§3.2).
//!
//! Offsets never move the clock fields: the text keeps the zone it was written in.

/// Days of a month in the proleptic Gregorian calendar.
fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// One or two digits.
fn short_number(text: &mut &str) -> Option<u32> {
    let digits = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    *text = rest;
    number.parse().ok()
}

fn eat(text: &mut &str, chars: &[char]) -> Option<()> {
    *text = text.strip_prefix(chars)?;
    Some(())
}

/// A YAML timestamp as RFC 3339 text, or `None` if the scalar is not one.
///
/// The forms: `Y-M-D`, `Y-M-D H:M:S[.f]` without zone, `Y-M-DTH:M:S[.f]` with `Z` or an offset.
#[must_use]
pub fn parse(text: &str) -> Option<String> {
    let mut rest = text;
    let year = rest.get(..4).filter(|year| year.bytes().all(|b| b.is_ascii_digit()))?.parse::<u32>().ok()?;
    rest = rest.get(4..)?;
    eat(&mut rest, &['-'])?;
    let month = short_number(&mut rest)?;
    eat(&mut rest, &['-'])?;
    let day = short_number(&mut rest)?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if rest.is_empty() {
        return Some(format!("{date}T00:00:00Z"));
    }
    let zoned = !rest.starts_with(' ');
    eat(&mut rest, &['T', 't', ' '])?;
    let hour = short_number(&mut rest)?;
    eat(&mut rest, &[':'])?;
    let minute = short_number(&mut rest)?;
    eat(&mut rest, &[':'])?;
    let second = short_number(&mut rest)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut fraction = "";
    if let Some(digits) = rest.strip_prefix(['.', ',']) {
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        fraction = digits.get(..length)?;
        rest = digits.get(length..)?;
    }
    let offset = match (zoned, rest) {
        (false, "") | (true, "Z") => 0,
        (true, offset) => offset_minutes(offset)?,
        _ => return None,
    };
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{}{}", fraction_text(fraction), zone_text(offset)?))
}

/// Minutes of `±hh:mm`. Go's bounds are generous.
fn offset_minutes(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    (hours <= 24 && minutes <= 60).then_some(sign * (hours * 60 + minutes))
}

/// `Z` or `±hh:mm`; `None` for a whole day and more, which Go refuses to print.
#[must_use]
pub fn zone_text(minutes: i32) -> Option<String> {
    let size = minutes.abs();
    match minutes {
        0 => Some("Z".into()),
        _ if size >= 24 * 60 => None,
        _ => Some(format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, size / 60, size % 60)),
    }
}

/// `.digits`: at most nine, without trailing zeros, or nothing.
#[must_use]
pub fn fraction_text(digits: &str) -> String {
    let kept = digits.get(..digits.len().min(9)).unwrap_or("").trim_end_matches('0');
    if kept.is_empty() { String::new() } else { format!(".{kept}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (text, want) in [
            ("2001-01-01", "2001-01-01T00:00:00Z"),
            ("2001-1-2", "2001-01-02T00:00:00Z"),
            ("0000-02-29", "0000-02-29T00:00:00Z"),
            ("2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43.1-05:00"),
            ("2001-12-14T1:2:3Z", "2001-12-14T01:02:03Z"),
            ("2001-12-14 21:59:43", "2001-12-14T21:59:43Z"),
            ("2001-12-14 21:59:43,5", "2001-12-14T21:59:43.5Z"),
            ("2001-12-14 21:59:43.1234567899", "2001-12-14T21:59:43.123456789Z"),
            ("2001-12-14T21:59:43.000+00:00", "2001-12-14T21:59:43Z"),
            ("2001-12-14T21:59:43-00:00", "2001-12-14T21:59:43Z"),
            ("2001-12-14T21:59:43+23:59", "2001-12-14T21:59:43+23:59"),
            ("2001-12-14T21:59:43+01:60", "2001-12-14T21:59:43+02:00"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(want), "{text}");
        }
        for text in [
            "2001-13-01",
            "2001-02-29",
            "2001-00-01",
            "2001-1-32",
            "20011-1-1",
            "201-1-1",
            "2001-1",
            "2001-1-1T1:2:3",
            "2001-1-1 1:2:3Z",
            "2001-1-1 24:00:00",
            "2001-1-1 1:60:00",
            "2001-1-1 1:2",
            "2001-1-1T1:2:3.Z",
            "2001-1-1T1:2:3+5:00",
            "2001-1-1T1:2:3+25:00",
            "2001-1-1  1:2:3",
            "2001-123-1",
            "2001-1-1x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
