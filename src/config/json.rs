//! JSON as zot's loader reads it (spec §1.2).
//!
//! Strict syntax (no comments, no byte-order mark, no trailing data), yet lenient where Go is: every undecodable byte
//! and every lone surrogate escape becomes U+FFFD, the last of several equal keys wins. Every number is a double.
//! The parser keeps its own stack, so nesting is bounded by [`MAX_DEPTH`] and not by the thread's stack.

use super::SyntaxError;
use super::tree::{MAX_DEPTH, Map, Tree};

/// Parse a whole document. A top-level `null` is an empty config.
///
/// # Errors
/// Where and why the text is not a JSON object.
pub fn parse(data: &[u8]) -> Result<Map, SyntaxError> {
    let mut parser = Parser { data, at: 0 };
    let mut tree = parser.document()?;
    match tree {
        Tree::Map(_) | Tree::Null => Ok(tree.take_map()),
        _ => Err(parser.error_at(0, "the top level is not an object")),
    }
}

/// A container that is not closed yet.
enum Open {
    List(Vec<Tree>),
    Map { map: Map, key: String },
}

struct Parser<'a> {
    data: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, reason)
    }

    fn error_at(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError::at_byte(self.data, at, reason)
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expected(&self, what: &str) -> SyntaxError {
        match self.peek() {
            None => self.error(format!("expected {what}, found the end of the file")),
            Some(_) => self.error(format!("expected {what}")),
        }
    }

    /// Consume the next non-space byte if it is `byte`.
    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    fn document(&mut self) -> Result<Tree, SyntaxError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // A value starts here: descend into containers until a complete one is in hand.
            self.skip_space();
            let mut value = match self.peek() {
                Some(start @ (b'{' | b'[')) => {
                    if open.len() >= MAX_DEPTH {
                        return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
                    }
                    self.at += 1;
                    if start == b'[' {
                        if !self.eat(b']') {
                            open.push(Open::List(Vec::new()));
                            continue;
                        }
                        Tree::List(Vec::new())
                    } else {
                        if !self.eat(b'}') {
                            let key = self.key()?;
                            open.push(Open::Map { map: Map::new(), key });
                            continue;
                        }
                        Tree::Map(Map::new())
                    }
                }
                _ => self.scalar()?,
            };
            // Hand it to the container it belongs to, closing as many as end here.
            loop {
                match open.pop() {
                    None => {
                        self.skip_space();
                        return match self.peek() {
                            None => Ok(value),
                            Some(_) => Err(self.error("unexpected data after the top-level value")),
                        };
                    }
                    Some(Open::List(mut items)) => {
                        items.push(value);
                        if self.eat(b',') {
                            open.push(Open::List(items));
                            break;
                        }
                        if !self.eat(b']') {
                            return Err(self.expected("`,` or `]`"));
                        }
                        value = Tree::List(items);
                    }
                    Some(Open::Map { mut map, key }) => {
                        map.insert(key, value);
                        if self.eat(b',') {
                            let key = self.key()?;
                            open.push(Open::Map { map, key });
                            break;
                        }
                        if !self.eat(b'}') {
                            return Err(self.expected("`,` or `}`"));
                        }
                        value = Tree::Map(map);
                    }
                }
            }
        }
    }

    fn key(&mut self) -> Result<String, SyntaxError> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return Err(self.expected("a quoted key"));
        }
        let key = self.string()?;
        if self.eat(b':') { Ok(key) } else { Err(self.expected("`:`")) }
    }

    fn scalar(&mut self) -> Result<Tree, SyntaxError> {
        match self.peek() {
            Some(b'"') => self.string().map(Tree::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Tree::Float),
            _ => {
                for (word, value) in [("null", Tree::Null), ("true", Tree::Bool(true)), ("false", Tree::Bool(false))] {
                    if self.data.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.expected("a value"))
            }
        }
    }

    fn digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<f64, SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.data.get(start..self.at).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(self.error_at(start, "the number does not fit a 64-bit float")),
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1; // the opening quote
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|b| b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            push_lossy(&mut out, self.data.get(start..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("unterminated string")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SyntaxError> {
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex4().ok_or_else(|| self.error("invalid \\u escape"))?;
                let mut c = char::from_u32(first);
                if (0xd800..0xdc00).contains(&first) && self.data.get(self.at..self.at + 2) == Some(b"\\u".as_slice()) {
                    let before = self.at;
                    self.at += 2;
                    match self.hex4() {
                        Some(second @ 0xdc00..0xe000) => {
                            c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                        }
                        // Not a pair: the second escape stands for itself (and may be invalid there).
                        _ => self.at = before,
                    }
                }
                out.push(c.unwrap_or('\u{fffd}'));
                return Ok(());
            }
            _ => return Err(self.expected("an escape character")),
        };
        self.at += 1;
        out.push(c);
        Ok(())
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.data.get(self.at..self.at + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let value = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        self.at += 4;
        Some(value)
    }
}

/// Append bytes, each byte that is not part of valid UTF-8 as one U+FFFD (Go's rule, unlike `from_utf8_lossy`).
pub fn push_lossy(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Tree {
        parse(format!("{{\"v\":{text}}}").as_bytes()).unwrap().remove("v").unwrap()
    }

    fn fails(text: impl AsRef<[u8]>) -> SyntaxError {
        parse(text.as_ref()).unwrap_err()
    }

    #[test]
    fn numbers_are_doubles() {
        assert_eq!(value("1"), Tree::Float(1.0));
        assert_eq!(value("9007199254740993"), Tree::Float(9007199254740992.0));
        assert_eq!(value("123456789012345678901234567890"), Tree::Float(123456789012345678901234567890.0));
        assert_eq!(value("-1.5E+3"), Tree::Float(-1500.0));
        assert_eq!(value("1e-400"), Tree::Float(0.0));
        for zero in ["-0", "-0.0", "-0e5"] {
            let Tree::Float(number) = value(zero) else { panic!("{zero}") };
            assert!(number == 0.0 && number.is_sign_negative(), "{zero}");
        }
        for bad in ["1e400", "01", "+1", ".5", "1.", "1e", "-", "0x10", "NaN", "Infinity", "1_0", "--1"] {
            fails(format!("{{\"v\":{bad}}}"));
        }
    }

    #[test]
    fn strings_follow_go() {
        assert_eq!(value(r#""\u0041\/\b\f\n\r\t\"\\é""#), Tree::Text("A/\u{8}\u{c}\n\r\t\"\\é".into()));
        assert_eq!(value(r#""\ud83d\ude00""#), Tree::Text("😀".into()));
        assert_eq!(value(r#""\ud83dx\ude00""#), Tree::Text("\u{fffd}x\u{fffd}".into()));
        assert_eq!(value(r#""\ud83d\u0041\ud83d\ud83d\ude00""#), Tree::Text("\u{fffd}A\u{fffd}😀".into()));
        assert_eq!(value("\"\u{7f}\u{2028}\""), Tree::Text("\u{7f}\u{2028}".into()));
        for bad in [r#""\x""#, r#""\u12""#, r#""\u+123""#, r#""\ud800\u12""#, "\"a\nb\"", "\"a", "'a'", "\"\\"] {
            fails(format!("{{\"v\":{bad}}}"));
        }
    }

    #[test]
    fn each_invalid_byte_becomes_one_replacement() {
        let map = parse(b"{\"v\":\"a\xe2\x82b\xff\xc0\x80\xed\xa0\x80\",\"k\xff\":1}").unwrap();
        let want = "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}";
        assert_eq!(map.get("v"), Some(&Tree::Text(want.into())));
        assert!(map.contains_key("k\u{fffd}"));
    }

    #[test]
    fn the_last_of_equal_keys_replaces_the_earlier_whole() {
        let map = parse(br#"{"a":{"x":1},"a":{"y":2}}"#).unwrap();
        assert_eq!(map.get("a").unwrap().as_map().unwrap().keys().collect::<Vec<_>>(), ["y"]);
    }

    #[test]
    fn only_one_object_is_a_config() {
        assert!(parse(b" null\n").unwrap().is_empty());
        assert!(parse(b"{ }").unwrap().is_empty());
        for bad in
            ["", " ", "[]", "1", "\"x\"", "true", "{} {}", "{},", "{", "{\"a\"", "{\"a\":}", "{\"a\":1,}", "[1,]"]
        {
            fails(bad);
        }
        for bad in ["\u{feff}{}", "{/**/}", "{}//", "{a:1}", "nul", "{\"a\":truex}"] {
            fails(bad);
        }
    }

    #[test]
    fn errors_carry_line_and_column() {
        let error = fails("{\n  \"a\": 1,\n  \"é\": x\n}");
        assert_eq!((error.line, error.column), (3, 8));
    }

    #[test]
    fn nesting_is_bounded_and_dropping_does_not_recurse() {
        let nest = |depth: usize| format!("{{\"v\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let map = parse(nest(MAX_DEPTH).as_bytes()).unwrap();
        assert_eq!(map.get("v").unwrap().depth(), MAX_DEPTH - 1);
        fails(nest(MAX_DEPTH + 1));
        fails("[".repeat(1_000_000));
        fails("{\"a\":".repeat(1_000_000));
    }
}
