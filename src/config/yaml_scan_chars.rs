//! Characters, blanks, line breaks and comments of a YAML text, by go-yaml's rules.

use super::yaml_scan::{Mark, Scan, Scanner};

/// How many bytes after a comment or token are searched for the next comment.
const COMMENT_REACH: usize = 512;

impl<'t> Scanner<'t> {
    /// The byte so far ahead, 0 at the end.
    pub(super) fn byte(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(super) fn is_blank(&self, ahead: usize) -> bool {
        matches!(self.byte(ahead), b' ' | b'\t')
    }

    pub(super) fn is_break(&self, ahead: usize) -> bool {
        match self.byte(ahead) {
            b'\r' | b'\n' => true,
            0xc2 => self.byte(ahead + 1) == 0x85,
            0xe2 => self.byte(ahead + 1) == 0x80 && matches!(self.byte(ahead + 2), 0xa8 | 0xa9),
            _ => false,
        }
    }

    pub(super) fn is_break_or_end(&self, ahead: usize) -> bool {
        self.byte(ahead) == 0 || self.is_break(ahead)
    }

    /// Blank, break or end.
    pub(super) fn is_space(&self, ahead: usize) -> bool {
        self.is_blank(ahead) || self.is_break_or_end(ahead)
    }

    /// Pass one character and give its text.
    pub(super) fn read(&mut self) -> &'t str {
        self.after_break &= self.is_blank(0);
        let start = self.at;
        self.at += match self.byte(0) {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
        };
        self.mark.index += 1;
        self.mark.column += 1;
        self.text.get(start..self.at).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }

    /// Pass characters of one byte.
    pub(super) fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.read();
        }
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.is_blank(0) {
            self.read();
        }
    }

    pub(super) fn skip_comment(&mut self) {
        while !self.is_break_or_end(0) {
            self.read();
        }
    }

    /// Pass what may follow what began at `mark` on its line: blanks and a comment.
    pub(super) fn end_line(&mut self, mark: Mark) -> Scan<()> {
        self.skip_blanks();
        if self.byte(0) == b'#' {
            self.skip_comment();
        }
        if !self.is_break_or_end(0) {
            return Err(mark.error("did not find expected comment or line break"));
        }
        self.read_break();
        Ok(())
    }

    /// Pass a line break, if there is one, and give what it means.
    pub(super) fn read_break(&mut self) -> &'static str {
        let (length, characters, meaning) = match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'\r', b'\n', _) => (2, 2, "\n"),
            (b'\r' | b'\n', ..) => (1, 1, "\n"),
            (0xc2, 0x85, _) => (2, 1, "\n"),
            (0xe2, 0x80, 0xa8) => (3, 1, "\u{2028}"),
            (0xe2, 0x80, 0xa9) => (3, 1, "\u{2029}"),
            _ => return "",
        };
        self.at += length;
        self.mark = Mark { index: self.mark.index + characters, line: self.mark.line + 1, column: 0 };
        self.after_break = true;
        meaning
    }

    /// `---` or `...` at the start of a line.
    pub(super) fn is_document_indicator(&self) -> bool {
        let bytes = [self.byte(0), self.byte(1), self.byte(2)];
        self.mark.column == 0 && matches!(&bytes, b"---" | b"...") && self.is_space(3)
    }

    pub(super) fn read_while(&mut self, wanted: impl Fn(u8) -> bool) -> String {
        let mut out = String::new();
        while wanted(self.byte(0)) {
            out.push_str(self.read());
        }
        out
    }

    pub(super) fn skip_to_token(&mut self) {
        loop {
            if self.at == 0 && self.text.starts_with(b"\xef\xbb\xbf") {
                self.read();
            }
            let tabs = self.flow > 0 || !self.key_allowed;
            while self.byte(0) == b' ' || (tabs && self.byte(0) == b'\t') {
                self.read();
            }
            if self.byte(0) == b'#' {
                self.skip_comments();
            }
            if !self.is_break(0) {
                return;
            }
            self.read_break();
            self.key_allowed |= self.flow == 0;
        }
    }

    /// Pass a comment and those on the next lines, which may follow tabs and empty lines.
    fn skip_comments(&mut self) {
        loop {
            self.skip_comment();
            let reach = self.text.get(self.at..).unwrap_or_default().iter().take(COMMENT_REACH);
            let ahead = reach.take_while(|byte| matches!(**byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            if ahead >= COMMENT_REACH || self.byte(ahead) != b'#' {
                return;
            }
            let end = self.at + ahead;
            while self.at < end {
                if self.read_break().is_empty() {
                    self.read();
                }
            }
        }
    }

    /// Pass the comment behind a token on its line.
    pub(super) fn skip_line_comment(&mut self) {
        if self.after_break {
            return;
        }
        let ahead = (0..COMMENT_REACH).take_while(|ahead| self.is_blank(*ahead)).count();
        if ahead < COMMENT_REACH && self.byte(ahead) == b'#' {
            self.skip_comment();
        }
    }
}
