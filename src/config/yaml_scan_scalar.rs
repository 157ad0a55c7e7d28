//! Scalars of a YAML text, by go-yaml's rules.

use super::yaml_scan::{Scan, Scanner};

/// Line breaks between two pieces of a scalar.
#[derive(Default)]
struct Breaks {
    first: &'static str,
    rest: String,
}

impl Breaks {
    /// One more; an escaped break, or the first of them, is `broken` already.
    fn add(&mut self, broken: bool, line_break: &'static str) {
        if broken { self.rest.push_str(line_break) } else { self.first = line_break }
    }

    /// One line break is a space, more are one less.
    fn fold_into(&mut self, out: &mut String) {
        match (self.first, self.rest.is_empty()) {
            ("\n", true) => out.push(' '),
            ("\n", false) => out.push_str(&self.rest),
            (first, _) => {
                out.push_str(first);
                out.push_str(&self.rest);
            }
        }
        *self = Self::default();
    }
}

impl Scanner<'_> {
    /// `|` or `>` and what it heads.
    pub(super) fn block_scalar(&mut self, literal: bool) -> Scan<String> {
        let mark = self.mark;
        self.skip(1);
        let (mut chomping, mut increment) = (None, None);
        // Each at most once, in either order.
        for _ in 0..2 {
            match self.byte(0) {
                sign @ (b'+' | b'-') if chomping.is_none() => chomping = Some(sign),
                b'0' if increment.is_none() => return Err(mark.error("found an indentation indicator equal to 0")),
                digit @ b'1'..=b'9' if increment.is_none() => increment = Some(usize::from(digit - b'0')),
                _ => break,
            }
            self.skip(1);
        }
        self.end_line(mark)?;

        let mut indent = increment.map_or(0, |increment| self.indent.max(1) - 1 + increment);
        let mut out = String::new();
        let mut line_break = "";
        let mut empty_lines = self.empty_lines(&mut indent)?;
        let mut after_blank = false;
        while self.mark.column == indent && !self.is_end() {
            let before_blank = self.is_blank(0);
            if !literal && !after_blank && !before_blank && line_break == "\n" {
                if empty_lines.is_empty() {
                    out.push(' ');
                }
            } else {
                out.push_str(line_break);
            }
            out.push_str(&empty_lines);
            after_blank = before_blank;
            while !self.is_break_or_end(0) {
                out.push_str(self.read());
            }
            line_break = self.read_break();
            empty_lines = self.empty_lines(&mut indent)?;
        }
        if chomping != Some(b'-') {
            out.push_str(line_break);
        }
        if chomping == Some(b'+') {
            out.push_str(&empty_lines);
        }
        Ok(out)
    }

    /// Pass the indentation of the next line of a block scalar and the empty lines before it. An `indent` of 0 is found
    /// out: the deepest of them.
    fn empty_lines(&mut self, indent: &mut usize) -> Scan<String> {
        let mut out = String::new();
        let mut deepest = 0;
        loop {
            while (*indent == 0 || self.mark.column < *indent) && self.byte(0) == b' ' {
                self.read();
            }
            deepest = deepest.max(self.mark.column);
            if (*indent == 0 || self.mark.column < *indent) && self.byte(0) == b'\t' {
                return Err(self.mark.error("found a tab character where an indentation space is expected"));
            }
            let line_break = self.read_break();
            if line_break.is_empty() {
                break;
            }
            out.push_str(line_break);
        }
        if *indent == 0 {
            *indent = deepest.max(self.indent).max(1);
        }
        Ok(out)
    }

    pub(super) fn quoted(&mut self, quote: u8) -> Scan<String> {
        let mark = self.mark;
        self.skip(1);
        let mut out = String::new();
        loop {
            if self.is_document_indicator() {
                return Err(mark.error("found unexpected document indicator"));
            }
            if self.is_end() {
                return Err(mark.error("found unexpected end of stream"));
            }
            let mut breaks = Breaks::default();
            let mut broken = false;
            while !self.is_space(0) {
                match self.byte(0) {
                    byte if byte == quote => {
                        if quote == b'"' || self.byte(1) != quote {
                            break;
                        }
                        out.push('\'');
                        self.skip(2);
                    }
                    b'\\' if quote == b'"' && self.is_break(1) => {
                        self.skip(1);
                        self.read_break();
                        broken = true;
                        break;
                    }
                    b'\\' if quote == b'"' => out.push(self.escape()?),
                    _ => out.push_str(self.read()),
                }
            }
            if self.byte(0) == quote {
                self.skip(1);
                return Ok(out);
            }
            let mut blanks = String::new();
            loop {
                if self.is_blank(0) {
                    let blank = self.read();
                    if !broken {
                        blanks.push_str(blank);
                    }
                } else if self.is_break(0) {
                    breaks.add(broken, self.read_break());
                    broken = true;
                } else {
                    break;
                }
            }
            if broken {
                breaks.fold_into(&mut out);
            } else {
                out.push_str(&blanks);
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let mark = self.mark;
        let digits = match self.byte(1) {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            simple => {
                let c = match simple {
                    b'0' => '\0',
                    b'a' => '\u{7}',
                    b'b' => '\u{8}',
                    b't' | b'\t' => '\t',
                    b'n' => '\n',
                    b'v' => '\u{b}',
                    b'f' => '\u{c}',
                    b'r' => '\r',
                    b'e' => '\u{1b}',
                    b' ' | b'"' | b'\'' | b'\\' => char::from(simple),
                    b'N' => '\u{85}',
                    b'_' => '\u{a0}',
                    b'L' => '\u{2028}',
                    b'P' => '\u{2029}',
                    _ => return Err(mark.error("found unknown escape character")),
                };
                self.skip(2);
                return Ok(c);
            }
        };
        self.skip(2);
        let mut value = 0;
        for _ in 0..digits {
            let digit = char::from(self.byte(0)).to_digit(16);
            value = value * 16 + digit.ok_or_else(|| mark.error("did not find expected hexadecimal number"))?;
            self.skip(1);
        }
        char::from_u32(value).ok_or_else(|| mark.error("found invalid Unicode character escape code"))
    }

    pub(super) fn plain(&mut self) -> Scan<String> {
        let mark = self.mark;
        let mut out = String::new();
        let mut breaks = Breaks::default();
        let mut broken = false;
        let mut blanks = String::new();
        while !self.is_document_indicator() && self.byte(0) != b'#' {
            while !self.is_space(0) && !self.ends_plain() {
                if broken {
                    breaks.fold_into(&mut out);
                    broken = false;
                } else {
                    out.push_str(&blanks);
                }
                blanks.clear();
                out.push_str(self.read());
            }
            if !self.is_blank(0) && !self.is_break(0) {
                break;
            }
            loop {
                if self.is_blank(0) {
                    if broken && self.mark.column < self.indent && self.byte(0) == b'\t' {
                        return Err(mark.error("found a tab character that violates indentation"));
                    }
                    let blank = self.read();
                    if !broken {
                        blanks.push_str(blank);
                    }
                } else if self.is_break(0) {
                    breaks.add(broken, self.read_break());
                    broken = true;
                } else {
                    break;
                }
            }
            if self.flow == 0 && self.mark.column < self.indent {
                break;
            }
        }
        self.key_allowed |= broken;
        Ok(out)
    }

    /// An indicator that ends a plain scalar without a blank before it.
    fn ends_plain(&self) -> bool {
        match self.byte(0) {
            b':' => self.is_space(1),
            b',' | b'?' | b'[' | b']' | b'{' | b'}' => self.flow > 0,
            _ => false,
        }
    }
}
