//! TOML as go-toml v2 reads it into generic maps (spec §1.2).
//!
//! Integers are signed 64-bit, floats doubles. Offset date-times become absolute times; local dates and times keep
//! their text, fraction digits included, which is why values are read with their place in the source.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

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
    match later_syntax(text) {
        Some((at, reason)) => Err(SyntaxError::at_byte(data, at, reason)),
        None => table(text, document.into_inner()),
    }
}

/// Where a document, which must be valid, uses what only TOML 1.1 has: go-toml reads TOML 1.0, and `\e` besides.
fn later_syntax(text: &str) -> Option<(usize, &'static str)> {
    // Whether the brackets that are open are those of inline tables, the innermost last.
    let mut open = Vec::new();
    let mut after_comma = false;
    for token in Source::new(text).lex() {
        let (at, in_table) = (token.span().start(), open.last() == Some(&true));
        match token.kind() {
            TokenKind::LeftCurlyBracket => open.push(true),
            TokenKind::LeftSquareBracket => open.push(false),
            TokenKind::RightCurlyBracket if after_comma => return Some((at, "a comma ends an inline table")),
            TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket => drop(open.pop()),
            TokenKind::Newline | TokenKind::Comment if in_table => {
                return Some((at, "an inline table must stand on one line"));
            }
            TokenKind::BasicString | TokenKind::MlBasicString => {
                let raw = text.get(at..token.span().end()).unwrap_or("");
                let mut bytes = raw.bytes();
                while let Some(byte) = bytes.next() {
                    if byte == b'\\' && bytes.next() == Some(b'x') {
                        return Some((at, "invalid escape \\x"));
                    }
                }
            }
            _ => {}
        }
        if token.kind() != TokenKind::Whitespace {
            after_comma = token.kind() == TokenKind::Comma;
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(scalar: &str) -> Tree {
        parse(format!("v = {scalar}\n").as_bytes()).unwrap().remove("v").unwrap()
    }

    #[test]
    fn scalars() {
        assert_eq!(value("0xff"), Tree::Int(255));
        assert_eq!(value("-9_000"), Tree::Int(-9000));
        assert_eq!(value("1e3"), Tree::Float(1000.0));
        assert_eq!(value("inf"), Tree::Float(f64::INFINITY));
        assert_eq!(value("'x'"), Tree::Text("x".into()));
        for bad in ["99999999999999999999", "08", "1.", "yes", "", "1979-13-01", "1979-05-27T25:00:00Z", "07:32"] {
            assert!(parse(format!("v = {bad}\n").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_print_as_go_prints_them() {
        for (scalar, want) in [
            ("1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z"),
            ("1979-05-27 07:32:00.500z", "1979-05-27T07:32:00.5Z"),
            ("1979-05-27t00:32:00.999999-07:00", "1979-05-27T00:32:00.999999-07:00"),
            ("1979-05-27T07:32:00-00:00", "1979-05-27T07:32:00Z"),
        ] {
            assert_eq!(value(scalar), Tree::Time(want.into()), "{scalar}");
        }
        for (scalar, want) in [
            ("1979-05-27", "1979-05-27"),
            ("07:32:00", "07:32:00"),
            ("07:32:00.50", "07:32:00.50"),
            ("1979-05-27 07:32:00.120", "1979-05-27T07:32:00.120"),
        ] {
            assert_eq!(value(scalar), Tree::LocalTime(want.into()), "{scalar}");
        }
    }

    #[test]
    fn documents() {
        assert!(parse(b"# nothing\n").unwrap().is_empty());
        for bad in ["a = 1\na = 2\n", "\u{feff}a = 1\n", "{\"a\": 1}", "a: 1\n", "[a\n"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"a = \"\xff\"\n").is_err());
        for later in ["a = {\nb = 1}", "a = {b = 1 # c\n}", "a = {b = 1,}", "a = {b = 1, }", r#"a = "\x41""#] {
            assert!(parse(later.as_bytes()).is_err(), "{later}");
        }
        for usual in ["a = {b = [1,\n2,\n]}", r#"a = "\e\\x41""#, "[a]\nb = [{c = 1},\n]", r"a = '\x41'", "a = {}"] {
            assert!(parse(usual.as_bytes()).is_ok(), "{usual}");
        }
        drop(parse("a = ".to_owned().as_bytes()));
        drop(parse(format!("a = {}", "[".repeat(100_000)).as_bytes()));
        drop(parse(format!("a = {}", "{a=".repeat(100_000)).as_bytes()));
        drop(parse(format!("[{}]", vec!["a"; 100_000].join(".")).as_bytes()));
        drop(parse(format!("{} = 1", vec!["a"; 100_000].join(".")).as_bytes()));
    }
}
