//! TOML as go-toml v2 reads it into generic maps (spec §1.2).
//!
//! Integers are signed 64-bit, floats doubles. Offset date-times become absolute times; local dates and times keep
//! their text, fraction digits included, which is why values are read with their place in the source.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SyntaxError;
use super::tree::{Map, Tree};
use super::yaml_time::{fraction_text, zone_text};

/// Parse a document. An empty or comment-only file is an empty config.
///
/// # Errors
/// Where and why the text is not TOML.
pub fn parse(data: &[u8]) -> Result<Map, SyntaxError> {
    let text =
        std::str::from_utf8(data).map_err(|error| SyntaxError::at_byte(data, error.valid_up_to(), "invalid UTF-8"))?;
    if text.starts_with('\u{feff}') {
        return Err(SyntaxError::at_byte(data, 0, "byte-order mark"));
    }
    let document = DeTable::parse(text)
        .map_err(|error| SyntaxError::at_byte(data, error.span().map_or(0, |span| span.start), error.message()))?;
    table(text, document.into_inner())
}

fn table(text: &str, table: DeTable<'_>) -> Result<Map, SyntaxError> {
    table.into_iter().map(|(key, item)| Ok((key.into_inner().into_owned(), value(text, item)?))).collect()
}

fn value(text: &str, item: Spanned<DeValue<'_>>) -> Result<Tree, SyntaxError> {
    let span = item.span();
    let fail = |reason: &str| SyntaxError::at_byte(text.as_bytes(), span.start, reason);
    Ok(match item.into_inner() {
        DeValue::String(string) => Tree::Text(string.into_owned()),
        DeValue::Integer(number) => Tree::Int(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| fail("the integer does not fit 64 bits"))?,
        ),
        DeValue::Float(number) => {
            let number_text = number.as_str();
            let value: f64 = number_text.parse().map_err(|_| fail("invalid float"))?;
            if value.is_infinite() && !number_text.contains("inf") {
                return Err(fail("the number does not fit a 64-bit float"));
            }
            Tree::Float(value)
        }
        DeValue::Boolean(value) => Tree::Bool(value),
        DeValue::Datetime(moment) => {
            let written = text.get(span.clone()).unwrap_or("");
            let fraction = written
                .split_once('.')
                .map_or("", |(_, rest)| rest.get(..rest.bytes().take_while(u8::is_ascii_digit).count()).unwrap_or(""));
            date_time(&moment, fraction).ok_or_else(|| fail("the date or time cannot be represented"))?
        }
        DeValue::Array(items) => Tree::List(items.into_iter().map(|item| value(text, item)).collect::<Result<_, _>>()?),
        DeValue::Table(items) => Tree::Map(table(text, items)?),
    })
}

/// `fraction`: the digits as written.
fn date_time(moment: &toml::value::Datetime, fraction: &str) -> Option<Tree> {
    use toml::value::Offset;

    let date = moment.date.map(|date| format!("{:04}-{:02}-{:02}", date.year, date.month, date.day));
    let clock = match moment.time {
        // Seconds are optional in TOML 1.1 only, which go-toml does not follow.
        Some(time) => Some(format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second?)),
        None => None,
    };
    if let Some(offset) = moment.offset {
        let minutes = match offset {
            Offset::Z => 0,
            Offset::Custom { minutes } => i32::from(minutes),
        };
        // A leap second has no representation in Go's time.
        let clock = clock.filter(|_| moment.time.is_some_and(|time| time.second.unwrap_or_default() < 60))?;
        return Some(Tree::Time(format!("{}T{clock}{}{}", date?, fraction_text(fraction), zone_text(minutes)?)));
    }
    let clock = clock.map(|clock| match fraction.get(..fraction.len().min(9)) {
        Some(digits) if !digits.is_empty() => format!("{clock}.{digits}"),
        _ => clock,
    });
    Some(Tree::LocalTime(match (date, clock) {
        (Some(date), Some(clock)) => format!("{date}T{clock}"),
        (Some(date), None) => date,
        (None, Some(clock)) => clock,
        (None, None) => return None,
    }))
}
