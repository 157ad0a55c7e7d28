//! A JSON pull parser with the leniency of Go's `encoding/json` (spec §3.8).
//!
//! zot decodes manifests, indexes and configs with Go's decoder, so two documents that differ only in what Go forgives
//! must give the same records here: invalid UTF-8 becomes U+FFFD byte by byte, member names match case-insensitively,
//! repeated members merge, and nesting up to 10,000 levels is accepted even inside ignored members. Stock Rust decoders
//! reject or treat each of these differently.
//!
//! Memory is bounded by the input; nesting costs no stack because skipped values are scanned iteratively.

mod list;

pub use list::List;

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Go's nesting limit: the 10,001st open bracket is an error.
const MAX_DEPTH: usize = 10_000;

/// Why a document could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} at byte {at}")]
pub struct JsonError {
    /// Offset into the document.
    pub at: usize,
    /// What is wrong.
    pub detail: String,
}

/// Cursor over one document.
pub struct Parser<'a> {
    text: &'a [u8],
    /// The text again if all of it is UTF-8, as it nearly always is: its parts need no check of their own then.
    utf8: Option<&'a str>,
    at: usize,
    depth: usize,
}

/// Decodes a JSON value *onto* an existing value, as Go does: what the text does not mention stays.
pub trait Decode: Default {
    /// Apply the value at the cursor.
    ///
    /// # Errors
    /// Syntax errors and values of the wrong type.
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError>;
}

/// Decode a whole document: one value, nothing but white space around it.
///
/// # Errors
/// Syntax errors, trailing data, a top level that is neither an object nor `null`, members of the wrong type.
pub fn document<T: Decode>(text: &[u8]) -> Result<T, JsonError> {
    let mut parser = Parser { text, utf8: std::str::from_utf8(text).ok(), at: 0, depth: 0 };
    let mut value = T::default();
    value.decode(&mut parser)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error("data after the document"));
    }
    Ok(value)
}

impl<'a> Parser<'a> {
    /// An error at the cursor.
    pub fn error(&self, detail: impl Into<String>) -> JsonError {
        JsonError { at: self.at, detail: detail.into() }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// First byte of the next token, without consuming it.
    fn peek(&mut self) -> Result<u8, JsonError> {
        self.space();
        self.text.get(self.at).copied().ok_or_else(|| self.error("unexpected end"))
    }

    fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        match self.text.get(self.at..self.at + word.len()) {
            Some(found) if found == word.as_bytes() => {
                self.at += word.len();
                Ok(())
            }
            _ => Err(self.error("invalid literal")),
        }
    }

    /// Consume `null` if it is next.
    ///
    /// # Errors
    /// Syntax errors.
    pub fn null(&mut self) -> Result<bool, JsonError> {
        if self.peek()? == b'n' {
            self.literal("null")?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether an array is next.
    ///
    /// # Errors
    /// At the end of the text.
    pub fn starts_array(&mut self) -> Result<bool, JsonError> {
        Ok(self.peek()? == b'[')
    }

    fn open(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("nested deeper than 10000 levels")) } else { Ok(()) }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Visit the members of an object; `visit` must consume the value.
    ///
    /// # Errors
    /// Syntax errors, a value that is not an object, and whatever `visit` returns.
    pub fn object(&mut self, mut visit: impl FnMut(&str, &mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        if self.peek()? != b'{' {
            return Err(self.error("expected an object"));
        }
        self.open()?;
        if self.peek()? == b'}' {
            self.close();
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.error("expected a member name"));
            }
            let name = self.string()?;
            if self.peek()? != b':' {
                return Err(self.error("expected ':'"));
            }
            self.at += 1;
            visit(&name, self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.close();
                    return Ok(());
                }
                _ => return Err(self.error("expected ',' or '}'")),
            }
        }
    }

    /// Visit the elements of an array; `visit` must consume the value.
    ///
    /// # Errors
    /// Syntax errors, a value that is not an array, and whatever `visit` returns.
    pub fn array(&mut self, mut visit: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        if self.peek()? != b'[' {
            return Err(self.error("expected an array"));
        }
        self.open()?;
        if self.peek()? == b']' {
            self.close();
            return Ok(());
        }
        loop {
            visit(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.close();
                    return Ok(());
                }
                _ => return Err(self.error("expected ',' or ']'")),
            }
        }
    }

    /// A string with its escapes decoded.
    ///
    /// # Errors
    /// Syntax errors, or a value that is not a string.
    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek()? != b'"' {
            return Err(self.error("expected a string"));
        }
        self.at += 1;
        let start = self.at;
        let end = start + plain(self.text.get(start..).unwrap_or_default());
        match self.text.get(end) {
            Some(b'"') => {}
            Some(b'\\') => return self.escaped_string(start).map(Cow::Owned),
            Some(_) => return Err(self.error("control character in a string")),
            None => return Err(self.error("unterminated string")),
        }
        self.at = end + 1;
        let text = || go_utf8(self.text.get(start..end).unwrap_or_default());
        Ok(self.utf8.and_then(|all| all.get(start..end)).map_or_else(text, Cow::Borrowed))
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, JsonError> {
        let mut out = String::new();
        let mut plain = start;
        self.at = start;
        loop {
            let byte = *self.text.get(self.at).ok_or_else(|| self.error("unterminated string"))?;
            match byte {
                b'"' | b'\\' => {
                    out.push_str(&go_utf8(self.text.get(plain..self.at).unwrap_or_default()));
                    self.at += 1;
                    if byte == b'"' {
                        return Ok(out);
                    }
                    self.escape(&mut out)?;
                    plain = self.at;
                }
                0..=0x1f => return Err(self.error("control character in a string")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), JsonError> {
        let kind = *self.text.get(self.at).ok_or_else(|| self.error("unterminated escape"))?;
        self.at += 1;
        out.push(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                // A pair of surrogates is one character; a lone half is U+FFFD and what follows stands for itself.
                let after_first = self.at;
                if (0xd800..0xdc00).contains(&first) && self.text.get(self.at..self.at + 2) == Some(b"\\u") {
                    self.at += 2;
                    let second = self.hex4()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        return Ok(());
                    }
                    self.at = after_first;
                }
                char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 1;
                return Err(self.error("invalid escape"));
            }
        });
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.error("unterminated escape"))?;
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(|| self.error("invalid \\u escape"))?;
            value = value * 16 + digit;
        }
        self.at += 4;
        Ok(value)
    }

    /// The text of a number token.
    fn number(&mut self) -> Result<&'a str, JsonError> {
        self.space();
        let start = self.at;
        let digits = |p: &mut Self| {
            let from = p.at;
            while p.text.get(p.at).is_some_and(u8::is_ascii_digit) {
                p.at += 1;
            }
            if p.at == from { Err(p.error("expected a digit")) } else { Ok(()) }
        };
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            digits(self)?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            digits(self)?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            digits(self)?;
        }
        let token = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(token).map_err(|_| self.error("invalid number"))
    }

    /// Skip one value of any kind, checking its syntax.
    ///
    /// # Errors
    /// Syntax errors.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        // What closes each open bracket; kept apart from the call stack so that depth costs no stack.
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.open()?;
                    let end = if bracket == b'{' { b'}' } else { b']' };
                    if self.peek()? == end {
                        self.close();
                    } else {
                        open.push(end);
                        if end == b'}' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => drop(self.number()?),
                _ => return Err(self.error("unexpected character")),
            }
            loop {
                let Some(end) = open.last().copied() else { return Ok(()) };
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if end == b'}' {
                            self.name()?;
                        }
                        break;
                    }
                    found if found == end => {
                        self.close();
                        open.pop();
                    }
                    _ => return Err(self.error("expected ',' or a closing bracket")),
                }
            }
        }
    }

    fn name(&mut self) -> Result<(), JsonError> {
        if self.peek()? != b'"' {
            return Err(self.error("expected a member name"));
        }
        self.string()?;
        if self.peek()? != b':' {
            return Err(self.error("expected ':'"));
        }
        self.at += 1;
        Ok(())
    }
}

/// How many bytes of a string come before its end, an escape, or a control character.
///
/// Strings are most of every document, and most are short: eight bytes of them are looked at with a dozen instructions, in
/// less than half the time that a search for the end and one for control characters take.
fn plain(text: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    // The highest bit of every byte less than `bound`; a borrow can set it in bytes above such a one, never below.
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH * u64::from(bound)) & !word;
    let equal = |word: u64, byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    let (blocks, rest) = text.as_chunks::<8>();
    for (at, block) in blocks.iter().enumerate() {
        let word = u64::from_le_bytes(*block);
        let found = (equal(word, b'"') | equal(word, b'\\') | below(word, 0x20)) & (EACH << 7);
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(*byte, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// UTF-8 with every undecodable *byte* replaced by one U+FFFD (Rust's lossy conversion groups bytes).
fn go_utf8(mut bytes: &[u8]) -> Cow<'_, str> {
    let mut out = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) if out.is_empty() => return Cow::Borrowed(valid),
            Ok(valid) => {
                out.push_str(valid);
                return Cow::Owned(out);
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(valid));
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

/// Whether Go would take member `name` for the field `field` (an ASCII name) although it is not spelled alike.
#[must_use]
pub fn folds_to(name: &str, field: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(field);
    }
    // The only non-ASCII characters that fold to ASCII: long s and the Kelvin sign.
    let folded = name.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(field.chars().map(|c| c.to_ascii_lowercase()))
}

impl Decode for String {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        if !from.null()? {
            *self = from.string()?.into_owned();
        }
        Ok(())
    }
}

/// Integers are integer literals in range; `-0` is one for signed types only.
macro_rules! decode_integer {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
                if from.null()? {
                    return Ok(());
                }
                if !matches!(from.peek()?, b'-' | b'0'..=b'9') {
                    return Err(from.error("expected an integer"));
                }
                let token = from.number()?;
                *self = token.parse().map_err(|_| from.error(format!(concat!("{} is no ", stringify!($type)), token)))?;
                Ok(())
            }
        }
    )*};
}

decode_integer!(i64, u8);

impl Decode for bool {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        match from.peek()? {
            b't' => from.literal("true").map(|()| *self = true),
            b'f' => from.literal("false").map(|()| *self = false),
            b'n' => from.literal("null"),
            _ => Err(from.error("expected true or false")),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        if from.null()? {
            *self = None;
            return Ok(());
        }
        self.get_or_insert_default().decode(from)
    }
}

/// Maps merge key by key; a later value of the same key replaces the earlier one whole.
impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        if from.null()? {
            self.clear();
            return Ok(());
        }
        from.object(|name, p| {
            let mut value = T::default();
            value.decode(p)?;
            self.insert(name.to_owned(), value);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_text_ends_where_a_byte_by_byte_look_says(
            text in prop::collection::vec(prop::sample::select(b"\0\x1f !\"#[\\]~\x7f\x80\x9f\xa2\xdc\xffab".to_vec()), 0..40),
            longer in prop::collection::vec(0x5d_u8.., 0..24),
        ) {
            let text = [longer, text].concat();
            let expected = text.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(plain(&text), expected.unwrap_or(text.len()));
        }
    }
}
