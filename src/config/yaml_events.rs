//! The nodes of a YAML document in their order, by go-yaml's grammar: what may stand where, and where a missing value is
//! an empty one.

use super::SyntaxError;
use super::yaml_scan::{Mark, Scan, Scanner, Style, Token};

/// Where YAML's own tags begin.
const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// What stands before a node.
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub(super) anchor: Option<String>,
    /// The full tag.
    pub(super) tag: Option<String>,
}

/// A step through the document.
#[derive(Debug)]
pub(super) enum Event {
    /// Every document but an empty stream has a root.
    StreamEnd,
    DocumentEnd,
    /// A collection begins; its tag means nothing to a config.
    Start {
        mapping: bool,
        anchor: Option<String>,
    },
    /// The innermost collection ends.
    End,
    Alias(String),
    Scalar(String, Style, Properties),
}

/// What is expected next.
#[derive(Clone, Copy)]
enum State {
    DocumentStart,
    DocumentContent,
    DocumentEnd,
    BlockNode,
    BlockSequence,
    /// A sequence that stands no further in than the mapping it is in.
    IndentlessSequence,
    BlockMappingKey,
    BlockMappingValue,
    FlowSequence {
        first: bool,
    },
    /// A pair inside a flow sequence is a mapping of its own.
    FlowPairKey,
    FlowPairValue,
    FlowPairEnd,
    FlowMappingKey {
        first: bool,
    },
    FlowMappingValue,
    FlowMappingNoValue,
}

/// Reads the first document.
pub(super) struct Events<'t> {
    scanner: Scanner<'t>,
    state: State,
    /// What to go on with behind the collections that are open.
    states: Vec<State>,
    /// Handles and prefixes.
    tags: Vec<(String, String)>,
}

impl<'t> Events<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { scanner: Scanner::new(text), state: State::DocumentStart, states: Vec::new(), tags: Vec::new() }
    }

    /// The next event and its place.
    pub(super) fn next(&mut self) -> Scan<(Event, Mark)> {
        match self.state {
            State::DocumentStart => self.document_start(),
            State::DocumentContent => match self.token()?.0 {
                Token::Version(..)
                | Token::TagDirective { .. }
                | Token::DocumentStart
                | Token::DocumentEnd
                | Token::StreamEnd => {
                    self.leave();
                    self.empty()
                }
                _ => self.node(true, false),
            },
            State::DocumentEnd => {
                let (token, mark) = self.token()?;
                if *token == Token::DocumentEnd {
                    self.scanner.take();
                }
                Ok((Event::DocumentEnd, mark))
            }
            State::BlockNode => self.node(true, false),
            State::BlockSequence => match self.token()? {
                (Token::BlockEntry, _) => {
                    self.scanner.take();
                    let missing = matches!(self.token()?.0, Token::BlockEntry | Token::BlockEnd);
                    self.block_item(State::BlockSequence, missing, false)
                }
                (Token::BlockEnd, _) => self.end(),
                (_, mark) => Err(mark.error("did not find expected '-' indicator")),
            },
            State::IndentlessSequence => match self.token()? {
                (Token::BlockEntry, _) => {
                    self.scanner.take();
                    let missing =
                        matches!(self.token()?.0, Token::BlockEntry | Token::Key | Token::Value | Token::BlockEnd);
                    self.block_item(State::IndentlessSequence, missing, false)
                }
                (_, mark) => {
                    self.leave();
                    Ok((Event::End, mark))
                }
            },
            State::BlockMappingKey => match self.token()? {
                (Token::Key, _) => self.block_half(State::BlockMappingValue),
                (Token::BlockEnd, _) => self.end(),
                (_, mark) => Err(mark.error("did not find expected key")),
            },
            State::BlockMappingValue => match self.token()?.0 {
                Token::Value => self.block_half(State::BlockMappingKey),
                _ => {
                    self.state = State::BlockMappingKey;
                    self.empty()
                }
            },
            State::FlowSequence { first } => self.flow_sequence(first),
            State::FlowPairKey => match self.token()?.0 {
                Token::Value | Token::FlowEntry | Token::FlowSequenceEnd => {
                    // As go-yaml has it, the token goes, so a pair without a key has no value either.
                    self.scanner.take();
                    self.state = State::FlowPairValue;
                    self.empty()
                }
                _ => self.nested(State::FlowPairValue),
            },
            State::FlowPairValue => self.flow_value(State::FlowPairEnd, &Token::FlowSequenceEnd),
            State::FlowPairEnd => {
                let (_, mark) = self.token()?;
                self.state = State::FlowSequence { first: false };
                Ok((Event::End, mark))
            }
            State::FlowMappingKey { first } => self.flow_mapping(first),
            State::FlowMappingValue => self.flow_value(State::FlowMappingKey { first: false }, &Token::FlowMappingEnd),
            State::FlowMappingNoValue => {
                self.state = State::FlowMappingKey { first: false };
                self.empty()
            }
        }
    }

    fn token(&mut self) -> Scan<(&Token, Mark)> {
        self.scanner.peek()
    }

    /// A node is complete.
    fn leave(&mut self) {
        self.state = self.states.pop().unwrap_or(State::DocumentEnd);
    }

    fn end(&mut self) -> Scan<(Event, Mark)> {
        let (_, mark) = self.token()?;
        self.scanner.take();
        self.leave();
        Ok((Event::End, mark))
    }

    /// Nothing stands where a node may.
    fn empty(&mut self) -> Scan<(Event, Mark)> {
        let (_, mark) = self.token()?;
        Ok((Event::Scalar(String::new(), Style::Plain, Properties::default()), mark))
    }

    /// A node of a flow collection, and what comes then.
    fn nested(&mut self, then: State) -> Scan<(Event, Mark)> {
        self.states.push(then);
        self.node(false, false)
    }

    fn block_item(&mut self, then: State, missing: bool, indentless: bool) -> Scan<(Event, Mark)> {
        if missing {
            self.state = then;
            return self.empty();
        }
        self.states.push(then);
        self.node(true, indentless)
    }

    /// The key or the value of a block mapping behind its indicator.
    fn block_half(&mut self, then: State) -> Scan<(Event, Mark)> {
        self.scanner.take();
        let missing = matches!(self.token()?.0, Token::Key | Token::Value | Token::BlockEnd);
        self.block_item(then, missing, true)
    }

    fn flow_sequence(&mut self, first: bool) -> Scan<(Event, Mark)> {
        if *self.token()?.0 != Token::FlowSequenceEnd {
            self.flow_entry(first, "did not find expected ',' or ']'")?;
            match self.token()? {
                (Token::Key, mark) => {
                    self.scanner.take();
                    self.state = State::FlowPairKey;
                    return Ok((Event::Start { mapping: true, anchor: None }, mark));
                }
                (Token::FlowSequenceEnd, _) => {}
                _ => return self.nested(State::FlowSequence { first: false }),
            }
        }
        self.end()
    }

    fn flow_mapping(&mut self, first: bool) -> Scan<(Event, Mark)> {
        if *self.token()?.0 != Token::FlowMappingEnd {
            self.flow_entry(first, "did not find expected ',' or '}'")?;
            match self.token()?.0 {
                Token::Key => {
                    self.scanner.take();
                    return match self.token()?.0 {
                        Token::Value | Token::FlowEntry | Token::FlowMappingEnd => {
                            self.state = State::FlowMappingValue;
                            self.empty()
                        }
                        _ => self.nested(State::FlowMappingValue),
                    };
                }
                Token::FlowMappingEnd => {}
                _ => return self.nested(State::FlowMappingNoValue),
            }
        }
        self.end()
    }

    /// The comma before every item but the first.
    fn flow_entry(&mut self, first: bool, reason: &str) -> Scan {
        if first {
            return Ok(());
        }
        match self.token()? {
            (Token::FlowEntry, _) => drop(self.scanner.take()),
            (_, mark) => return Err(mark.error(reason)),
        }
        Ok(())
    }

    fn flow_value(&mut self, then: State, end: &Token) -> Scan<(Event, Mark)> {
        if *self.token()?.0 == Token::Value {
            self.scanner.take();
            let next = self.token()?.0;
            if *next != Token::FlowEntry && next != end {
                return self.nested(then);
            }
        }
        self.state = then;
        self.empty()
    }

    fn document_start(&mut self) -> Scan<(Event, Mark)> {
        let mut version = false;
        let mut directives = false;
        loop {
            let (token, mark) = self.token()?;
            match token {
                Token::Version(major, minor) => {
                    if (*major, *minor) != (1, 1) {
                        return Err(mark.error("found incompatible YAML document (the version must be 1.1)"));
                    }
                    if std::mem::replace(&mut version, true) {
                        return Err(mark.error("found duplicate %YAML directive"));
                    }
                }
                Token::TagDirective { handle, prefix } => {
                    let (handle, prefix) = (handle.clone(), prefix.clone());
                    if self.tags.iter().any(|(known, _)| *known == handle) {
                        return Err(mark.error("found duplicate %TAG directive"));
                    }
                    self.tags.push((handle, prefix));
                }
                Token::StreamEnd if !directives => return Ok((Event::StreamEnd, mark)),
                Token::DocumentStart => {
                    self.state = State::DocumentContent;
                    break;
                }
                _ if directives => return Err(mark.error("did not find expected <document start>")),
                _ => {
                    self.state = State::BlockNode;
                    break;
                }
            }
            directives = true;
            self.scanner.take();
        }
        if matches!(self.state, State::DocumentContent) {
            self.scanner.take();
        }
        for (handle, prefix) in [("!", "!"), ("!!", CORE_TAGS)] {
            if !self.tags.iter().any(|(known, _)| known == handle) {
                self.tags.push((handle.to_owned(), prefix.to_owned()));
            }
        }
        self.states.push(State::DocumentEnd);
        self.next()
    }

    /// Anchor and tag, in either order.
    fn properties(&mut self) -> Scan<Properties> {
        let mut out = Properties::default();
        let mut handle_and_suffix = None;
        loop {
            let (token, mark) = self.token()?;
            match token {
                Token::Anchor(name) if out.anchor.is_none() => out.anchor = Some(name.clone()),
                Token::Tag { handle, suffix } if handle_and_suffix.is_none() => {
                    handle_and_suffix = Some((handle.clone(), suffix.clone(), mark));
                }
                _ => break,
            }
            self.scanner.take();
        }
        if let Some((handle, suffix, mark)) = handle_and_suffix {
            out.tag = Some(self.full_tag(&handle, suffix, mark)?);
        }
        Ok(out)
    }

    fn full_tag(&self, handle: &str, suffix: String, mark: Mark) -> Result<String, SyntaxError> {
        if handle.is_empty() {
            return Ok(suffix);
        }
        let prefix = self.tags.iter().find(|(known, _)| known == handle);
        prefix.map(|(_, prefix)| format!("{prefix}{suffix}")).ok_or_else(|| mark.error("found undefined tag handle"))
    }

    fn node(&mut self, block: bool, indentless: bool) -> Scan<(Event, Mark)> {
        let (token, mark) = self.token()?;
        if let Token::Alias(name) = token {
            let event = Event::Alias(name.clone());
            self.scanner.take();
            self.leave();
            return Ok((event, mark));
        }
        let properties = self.properties()?;
        let (token, here) = self.token()?;
        let event = match token {
            Token::BlockEntry if indentless => {
                self.state = State::IndentlessSequence;
                return Ok((Event::Start { mapping: false, anchor: properties.anchor }, mark));
            }
            Token::Scalar(text, style) => {
                let event = Event::Scalar(text.clone(), *style, properties);
                self.leave();
                event
            }
            Token::FlowSequenceStart => {
                self.state = State::FlowSequence { first: true };
                Event::Start { mapping: false, anchor: properties.anchor }
            }
            Token::FlowMappingStart => {
                self.state = State::FlowMappingKey { first: true };
                Event::Start { mapping: true, anchor: properties.anchor }
            }
            Token::SequenceStart if block => {
                self.state = State::BlockSequence;
                Event::Start { mapping: false, anchor: properties.anchor }
            }
            Token::MappingStart if block => {
                self.state = State::BlockMappingKey;
                Event::Start { mapping: true, anchor: properties.anchor }
            }
            _ if properties.anchor.is_some() || properties.tag.is_some() => {
                self.leave();
                return Ok((Event::Scalar(String::new(), Style::Plain, properties), mark));
            }
            _ => return Err(here.error("did not find expected node content")),
        };
        self.scanner.take();
        Ok((event, mark))
    }
}

/// `!!name` for YAML's own tags, the full text for others.
pub(super) fn short_tag(tag: String) -> String {
    match tag.strip_prefix(CORE_TAGS) {
        Some(name) => format!("!!{name}"),
        None => tag,
    }
}
