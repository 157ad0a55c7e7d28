//! Directives, anchors and tags of a YAML text, by go-yaml's rules.

use super::yaml_scan::{Mark, Scan, Scanner, Token};

impl Scanner<'_> {
    pub(super) fn directive(&mut self, mark: Mark) -> Scan<Token> {
        self.skip(1);
        let name = self.read_while(is_word);
        if !self.is_space(0) {
            return Err(mark.error("found unexpected non-alphabetical character"));
        }
        self.skip_blanks();
        let token = match name.as_str() {
            "YAML" => {
                let major = self.version_number(mark)?;
                if self.byte(0) != b'.' {
                    return Err(mark.error("did not find expected digit or '.' character"));
                }
                self.skip(1);
                Token::Version(major, self.version_number(mark)?)
            }
            "TAG" => {
                let handle = self.tag_handle(mark)?;
                if handle != "!" && !(handle.len() > 1 && handle.ends_with('!')) {
                    return Err(mark.error("did not find expected '!'"));
                }
                if !self.is_blank(0) {
                    return Err(mark.error("did not find expected whitespace"));
                }
                self.skip_blanks();
                let prefix = self.tag_uri(mark)?;
                if prefix.is_empty() {
                    return Err(mark.error("did not find expected tag URI"));
                }
                if !self.is_space(0) {
                    return Err(mark.error("did not find expected whitespace or line break"));
                }
                Token::TagDirective { handle, prefix }
            }
            _ => return Err(mark.error("found unknown directive name")),
        };
        self.end_line(mark)?;
        Ok(token)
    }

    fn version_number(&mut self, mark: Mark) -> Scan<u8> {
        let digits = self.read_while(|byte| byte.is_ascii_digit());
        if digits.len() > 2 {
            return Err(mark.error("found extremely long version number"));
        }
        digits.parse().map_err(|_| mark.error("did not find expected version number"))
    }

    pub(super) fn anchor(&mut self, token: fn(String) -> Token) -> Scan {
        self.save_key()?;
        self.key_allowed = false;
        let mark = self.mark;
        self.skip(1);
        let name = self.read_while(is_word);
        let ended = self.is_space(0) || matches!(self.byte(0), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !ended {
            return Err(mark.error("did not find expected alphabetic or numeric character"));
        }
        self.push(token(name), mark);
        Ok(())
    }

    pub(super) fn tag(&mut self, mark: Mark) -> Scan<Token> {
        let (handle, suffix) = if self.byte(1) == b'<' {
            self.skip(2);
            let suffix = self.tag_uri(mark)?;
            if suffix.is_empty() {
                return Err(mark.error("did not find expected tag URI"));
            }
            if self.byte(0) != b'>' {
                return Err(mark.error("did not find the expected '>'"));
            }
            self.skip(1);
            (String::new(), suffix)
        } else {
            let start = self.tag_handle(mark)?;
            let rest = self.tag_uri(mark)?;
            match start.strip_prefix('!') {
                Some(name) if name.ends_with('!') => {
                    if rest.is_empty() {
                        return Err(mark.error("did not find expected tag URI"));
                    }
                    (start, rest)
                }
                Some(name) if name.len() + rest.len() > 0 => ("!".to_owned(), format!("{name}{rest}")),
                // A lone "!".
                _ => (String::new(), "!".to_owned()),
            }
        };
        if !self.is_space(0) {
            return Err(mark.error("did not find expected whitespace or line break"));
        }
        Ok(Token::Tag { handle, suffix })
    }

    /// `!`, `!!`, `!word!`, or the start of a tag that has no handle: `!word`.
    fn tag_handle(&mut self, mark: Mark) -> Scan<String> {
        if self.byte(0) != b'!' {
            return Err(mark.error("did not find expected '!'"));
        }
        let mut out = self.read().to_owned();
        out.push_str(&self.read_while(is_word));
        if self.byte(0) == b'!' {
            out.push_str(self.read());
        }
        Ok(out)
    }

    fn tag_uri(&mut self, mark: Mark) -> Scan<String> {
        let mut out = Vec::new();
        loop {
            match self.byte(0) {
                b'%' => {
                    let digits = self.text.get(self.at + 1..self.at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
                    let octet = digits.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
                    let octet = octet.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                    out.push(octet.ok_or_else(|| mark.error("did not find URI escaped octet"))?);
                    self.skip(3);
                }
                byte if is_word(byte) || b";/?:@&=+$,.!~*'()[]".contains(&byte) => {
                    out.push(byte);
                    self.skip(1);
                }
                _ => break,
            }
        }
        String::from_utf8(out).map_err(|_| mark.error("found an incorrect UTF-8 octet"))
    }
}

/// Characters of anchors, handles and directive names.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
