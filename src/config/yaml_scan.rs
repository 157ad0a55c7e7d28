//! The tokens of a YAML text, cut by the rules of go-yaml 3.0.4, which are libyaml's: YAML 1.1 with its own idea of tabs,
//! of how long a key may be, and of where a collection may stand. A library that follows YAML 1.2 takes other files.
//!
//! A key is known as one only by the `:` behind it, so the places where keys may have started are remembered, and the
//! tokens that open it are put into the queue afterwards. Comments count only where they let tabs pass.

use std::collections::{HashMap, VecDeque};

use super::SyntaxError;

/// Most collections inside one another, counted for flow and for block style.
const MAX_NESTED: usize = 10_000;
/// How far a `:` may be from the start of its key, in characters.
const MAX_KEY: usize = 1024;
/// Tokens that are there before the first is handed out, so what is wrong with the third is told of before the first
/// counts.
const LOOKAHEAD: usize = 3;

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    Block,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    StreamEnd,
    Version(u8, u8),
    TagDirective { handle: String, prefix: String },
    DocumentStart,
    DocumentEnd,
    SequenceStart,
    MappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(String),
    Anchor(String),
    Tag { handle: String, suffix: String },
    Scalar(String, Style),
}

/// A place in the text. Line and column count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Characters before it.
    pub(super) index: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Mark {
    pub(super) fn error(self, reason: &str) -> SyntaxError {
        SyntaxError { line: self.line + 1, column: self.column + 1, reason: reason.to_owned() }
    }

    /// Line and column from 1.
    pub(super) fn shown(self) -> (usize, usize) {
        (self.line + 1, self.column + 1)
    }
}

/// Where a key may have started, one for each level of flow collections.
#[derive(Clone, Copy, Default)]
struct PossibleKey {
    possible: bool,
    /// At this place nothing but a key can stand.
    required: bool,
    /// Number of the token that would begin it.
    token: usize,
    mark: Mark,
}

pub(super) type Scan<T = ()> = Result<T, SyntaxError>;

pub(super) struct Scanner<'t> {
    pub(super) text: &'t [u8],
    pub(super) at: usize,
    pub(super) mark: Mark,
    /// Only breaks and blanks have been passed since the last break.
    pub(super) after_break: bool,
    queue: VecDeque<(Token, Mark)>,
    /// Tokens handed out.
    taken: usize,
    /// Column that the innermost block collection stands at plus one, 0 outside of all.
    pub(super) indent: usize,
    indents: Vec<usize>,
    /// Flow collections that are open.
    pub(super) flow: usize,
    pub(super) key_allowed: bool,
    keys: Vec<PossibleKey>,
    /// Levels of possible keys by the number of the token that begins them.
    key_levels: HashMap<usize, usize>,
}

impl<'t> Scanner<'t> {
    /// Scan a text without NUL characters.
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
            mark: Mark::default(),
            after_break: false,
            queue: VecDeque::new(),
            taken: 0,
            indent: 0,
            indents: Vec::new(),
            flow: 0,
            key_allowed: true,
            keys: vec![PossibleKey::default()],
            key_levels: HashMap::new(),
        }
    }

    /// The next token and its place.
    pub(super) fn peek(&mut self) -> Scan<(&Token, Mark)> {
        while self.queue.len() < LOOKAHEAD || self.key_undecided()? {
            self.fetch()?;
        }
        let mark = self.mark;
        self.queue.front().map(|(token, mark)| (token, *mark)).ok_or_else(|| mark.error("unexpected end"))
    }

    /// Take the token that was peeked at.
    pub(super) fn take(&mut self) -> Option<Token> {
        self.taken += 1;
        self.queue.pop_front().map(|(token, _)| token)
    }

    /// Whether the next token may turn out to begin a key.
    fn key_undecided(&mut self) -> Scan<bool> {
        match self.key_levels.get(&self.taken) {
            Some(level) => self.still_possible(*level),
            None => Ok(false),
        }
    }

    // ---- the queue

    pub(super) fn push(&mut self, token: Token, mark: Mark) {
        self.queue.push_back((token, mark));
    }

    /// Put a token before the one of this number.
    fn insert(&mut self, number: usize, token: Token, mark: Mark) {
        self.queue.insert(number.saturating_sub(self.taken).min(self.queue.len()), (token, mark));
    }

    fn next_number(&self) -> usize {
        self.taken + self.queue.len()
    }

    // ---- possible keys

    /// Whether the key that may have started at this level may still come to its `:`.
    fn still_possible(&mut self, level: usize) -> Scan<bool> {
        let (line, index) = (self.mark.line, self.mark.index);
        let Some(key) = self.keys.get_mut(level).filter(|key| key.possible) else { return Ok(false) };
        if key.mark.line < line || key.mark.index + MAX_KEY < index {
            if key.required {
                return Err(key.mark.error("could not find expected ':'"));
            }
            key.possible = false;
        }
        Ok(key.possible)
    }

    /// The next token may begin a key.
    pub(super) fn save_key(&mut self) -> Scan {
        if self.key_allowed {
            self.remove_key()?;
            let required = self.flow == 0 && self.indent == self.mark.column + 1;
            let key = PossibleKey { possible: true, required, token: self.next_number(), mark: self.mark };
            if let Some(last) = self.keys.last_mut() {
                *last = key;
            }
            self.key_levels.insert(key.token, self.keys.len() - 1);
        }
        Ok(())
    }

    pub(super) fn remove_key(&mut self) -> Scan {
        if let Some(key) = self.keys.last_mut().filter(|key| key.possible) {
            if key.required {
                return Err(key.mark.error("could not find expected ':'"));
            }
            key.possible = false;
            self.key_levels.remove(&key.token);
        }
        Ok(())
    }

    // ---- indentation

    /// A block collection stands at this column: open it unless it is open, before the token of this number.
    fn open_block(&mut self, mark: Mark, number: Option<usize>, token: Token) -> Scan {
        if self.flow == 0 && self.indent <= mark.column {
            self.indents.push(self.indent);
            self.indent = mark.column + 1;
            if self.indents.len() > MAX_NESTED {
                return Err(mark.error("nested too deep"));
            }
            match number {
                Some(number) => self.insert(number, token, mark),
                None => self.push(token, mark),
            }
        }
        Ok(())
    }

    /// Close the block collections that stand further in than `indent`.
    fn close_blocks(&mut self, indent: usize) {
        while self.flow == 0 && self.indent > indent {
            self.push(Token::BlockEnd, self.mark);
            self.indent = self.indents.pop().unwrap_or(0);
        }
    }

    // ---- tokens

    /// Add at least one token to the queue.
    fn fetch(&mut self) -> Scan {
        self.skip_to_token();
        self.close_blocks(self.mark.column + 1);
        let mark = self.mark;
        if self.is_end() {
            // No key goes on behind the last line, even if that has no break.
            if mark.column > 0 {
                self.mark = Mark { line: mark.line + 1, column: 0, ..mark };
            }
            self.close_blocks(0);
            self.remove_key()?;
            self.key_allowed = false;
            self.push(Token::StreamEnd, mark);
            return Ok(());
        }
        if mark.column == 0 && self.byte(0) == b'%' {
            self.outside_of_all()?;
            let token = self.directive(mark)?;
            self.push(token, mark);
            return Ok(());
        }
        if self.is_document_indicator() {
            self.outside_of_all()?;
            let token = if self.byte(0) == b'-' { Token::DocumentStart } else { Token::DocumentEnd };
            self.skip(3);
            self.push(token, mark);
            return Ok(());
        }
        self.fetch_content(mark)?;
        // The comment of an entry belongs to what follows.
        if !matches!(self.queue.back(), Some((Token::BlockEntry, _))) {
            self.skip_line_comment();
        }
        Ok(())
    }

    fn outside_of_all(&mut self) -> Scan {
        self.close_blocks(0);
        self.key_allowed = false;
        self.remove_key()
    }

    fn fetch_content(&mut self, mark: Mark) -> Scan {
        let in_flow = self.flow > 0;
        match self.byte(0) {
            b'[' => self.flow_start(Token::FlowSequenceStart),
            b'{' => self.flow_start(Token::FlowMappingStart),
            b']' => self.flow_end(Token::FlowSequenceEnd),
            b'}' => self.flow_end(Token::FlowMappingEnd),
            b',' => {
                self.remove_key()?;
                self.key_allowed = true;
                self.indicator(Token::FlowEntry)
            }
            b'-' if self.is_space(1) => {
                if !in_flow {
                    self.block_allowed("block sequence entries are not allowed in this context")?;
                    self.open_block(mark, None, Token::SequenceStart)?;
                }
                self.remove_key()?;
                self.key_allowed = true;
                self.indicator(Token::BlockEntry)
            }
            b'?' if in_flow || self.is_space(1) => {
                if !in_flow {
                    self.block_allowed("mapping keys are not allowed in this context")?;
                    self.open_block(mark, None, Token::MappingStart)?;
                }
                self.remove_key()?;
                self.key_allowed = !in_flow;
                self.indicator(Token::Key)
            }
            b':' if in_flow || self.is_space(1) => self.value(mark),
            b'*' => self.anchor(Token::Alias),
            b'&' => self.anchor(Token::Anchor),
            b'!' => {
                self.save_key()?;
                self.key_allowed = false;
                let token = self.tag(mark)?;
                self.push(token, mark);
                Ok(())
            }
            style @ (b'|' | b'>') if !in_flow => {
                self.remove_key()?;
                self.key_allowed = true;
                let text = self.block_scalar(style == b'|')?;
                self.push(Token::Scalar(text, Style::Block), mark);
                Ok(())
            }
            quote @ (b'\'' | b'"') => {
                self.save_key()?;
                self.key_allowed = false;
                let text = self.quoted(quote)?;
                self.push(Token::Scalar(text, Style::Quoted), mark);
                Ok(())
            }
            first => {
                let starts_plain = match first {
                    b'-' => !self.is_blank(1),
                    b'?' | b':' => !in_flow,
                    b'#' | b'|' | b'>' | b'%' | b'@' | b'`' => false,
                    _ => !self.is_space(0),
                };
                if !starts_plain {
                    return Err(mark.error("found character that cannot start any token"));
                }
                self.save_key()?;
                self.key_allowed = false;
                let text = self.plain()?;
                self.push(Token::Scalar(text, Style::Plain), mark);
                Ok(())
            }
        }
    }

    fn block_allowed(&self, reason: &str) -> Scan {
        if self.key_allowed { Ok(()) } else { Err(self.mark.error(reason)) }
    }

    fn indicator(&mut self, token: Token) -> Scan {
        self.push(token, self.mark);
        self.skip(1);
        Ok(())
    }

    fn flow_start(&mut self, token: Token) -> Scan {
        self.save_key()?;
        self.keys.push(PossibleKey { token: self.next_number(), ..PossibleKey::default() });
        self.flow += 1;
        if self.flow > MAX_NESTED {
            return Err(self.mark.error("nested too deep"));
        }
        self.key_allowed = true;
        self.indicator(token)
    }

    fn flow_end(&mut self, token: Token) -> Scan {
        self.remove_key()?;
        if self.flow > 0 {
            self.flow -= 1;
            if let Some(key) = self.keys.pop() {
                self.key_levels.remove(&key.token);
            }
        }
        self.key_allowed = false;
        self.indicator(token)
    }

    fn value(&mut self, mark: Mark) -> Scan {
        let level = self.keys.len() - 1;
        if self.still_possible(level)?
            && let Some(key) = self.keys.get_mut(level)
        {
            key.possible = false;
            let key = *key;
            self.insert(key.token, Token::Key, key.mark);
            self.open_block(key.mark, Some(key.token), Token::MappingStart)?;
            self.key_levels.remove(&key.token);
            self.key_allowed = false;
        } else {
            if self.flow == 0 {
                self.block_allowed("mapping values are not allowed in this context")?;
                self.open_block(mark, None, Token::MappingStart)?;
            }
            self.key_allowed = self.flow == 0;
        }
        self.indicator(Token::Value)
    }
}
