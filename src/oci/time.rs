//! Instants as zot stores them, and Go's reading of RFC 3339 text (spec §3.2, §3.8).

use super::json::{Decode, JsonError, Parser};

/// An instant: seconds since 1970-01-01T00:00:00Z (floor) and nanoseconds. Covers years beyond 0001–9999 unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since the Unix epoch, rounded towards the past.
    pub seconds: i64,
    /// 0 … 999,999,999.
    pub nanos: i32,
}

impl Time {
    /// Go's zero `time.Time`, 0001-01-01T00:00:00Z. Not the Unix epoch.
    pub const ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// Whether this is exactly Go's zero time.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(at: jiff::Timestamp) -> Self {
        let nanos = at.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        let rest = nanos.rem_euclid(1_000_000_000);
        Self { seconds: i64::try_from(seconds).unwrap_or_default(), nanos: i32::try_from(rest).unwrap_or_default() }
    }
}

/// `created` members: a string in Go's lenient RFC 3339.
impl Decode for Option<Time> {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        if from.null()? {
            *self = None;
            return Ok(());
        }
        let text = from.string()?;
        *self = Some(parse(&text).ok_or_else(|| from.error(format!("{text:?} is not an RFC 3339 time")))?);
        Ok(())
    }
}

/// Go's `time.Parse(time.RFC3339, text)`: two digits everywhere except the hour, `,` allowed for the fraction, more
/// than nine fraction digits cut off, offsets up to 24:60.
#[must_use]
pub fn parse(text: &str) -> Option<Time> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    byte(&mut rest, b'-')?;
    let month = digits(&mut rest, 2).filter(|m| (1..=12).contains(m))?;
    byte(&mut rest, b'-')?;
    let day = digits(&mut rest, 2).filter(|d| (1..=days_in(year, month)).contains(d))?;
    byte(&mut rest, b'T')?;
    let two_digit_hour = rest.get(1).is_some_and(u8::is_ascii_digit);
    let hour = digits(&mut rest, if two_digit_hour { 2 } else { 1 }).filter(|h| *h < 24)?;
    byte(&mut rest, b':')?;
    let minute = digits(&mut rest, 2).filter(|m| *m < 60)?;
    byte(&mut rest, b':')?;
    let second = digits(&mut rest, 2).filter(|s| *s < 60)?;
    let nanos = fraction(&mut rest);
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let mut zone = zone;
            let hours = digits(&mut zone, 2).filter(|h| *h <= 24)?;
            byte(&mut zone, b':')?;
            let minutes = digits(&mut zone, 2).filter(|m| *m <= 60)?;
            if !zone.is_empty() {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Time { seconds, nanos })
}

fn byte(rest: &mut &[u8], wanted: u8) -> Option<()> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    (*first == wanted).then_some(())
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    head.iter().try_fold(0, |value, b| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0')))
}

/// Nanoseconds of `.123` or `,123`; a separator without a digit is left for the caller to reject.
fn fraction(rest: &mut &[u8]) -> i32 {
    let [b'.' | b',', tail @ ..] = *rest else { return 0 };
    let count = tail.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return 0;
    }
    let (kept, missing) = (tail.iter().take(count.min(9)), 9_usize.saturating_sub(count));
    let nanos = kept.fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
    *rest = tail.get(count..).unwrap_or_default();
    (0..missing).fold(nanos, |value, _| value * 10)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar (years start in March so that leap days come last).
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(text: &str) -> Option<(i64, i32)> {
        parse(text).map(|t| (t.seconds, t.nanos))
    }

    #[test]
    fn ordinary_times() {
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(unix("2024-01-02T03:04:05.5Z"), Some((1_704_164_645, 500_000_000)));
        assert_eq!(unix("2024-01-02T03:04:05+02:30"), Some((1_704_164_645 - 9000, 0)));
        assert_eq!(unix("0001-01-01T00:00:00Z"), Some((Time::ZERO.seconds, 0)));
        assert_eq!(unix("0000-02-29T00:00:00Z").map(|t| t.1), Some(0));
    }

    #[test]
    fn what_go_forgives() {
        assert_eq!(unix("2024-01-02T3:04:05Z"), Some((1_704_164_645, 0)));
        assert_eq!(unix("2024-01-02T03:04:05,123456789999Z"), Some((1_704_164_645, 123_456_789)));
        assert_eq!(unix("2024-01-02T03:04:05+24:60"), Some((1_704_164_645 - 90_000, 0)));
    }

    #[test]
    fn what_go_rejects() {
        for text in [
            "",
            "2024-01-02",
            "2024-01-02t03:04:05Z",
            "2024-01-02T03:04:05z",
            "2024-01-02T03:04:05",
            "2024-1-02T03:04:05Z",
            "2024-02-30T03:04:05Z",
            "2024-13-02T03:04:05Z",
            "2024-01-02T24:04:05Z",
            "2024-01-02T03:04:60Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05+25:00",
            "2024-01-02T03:04:05+0200",
            "2024-01-02T03:04:05Z ",
            "99999-01-02T03:04:05Z",
            "2024-01-02T03:4:05Z",
        ] {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn agrees_with_jiff_on_every_day_of_four_centuries() {
        let mut day = jiff::civil::date(1800, 1, 1);
        while day.year() < 2201 {
            let text = format!("{day}T12:34:56Z");
            let expected: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(unix(&text), Some((expected.as_second(), 0)));
            day = day.tomorrow().unwrap();
        }
    }
}
