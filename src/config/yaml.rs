//! YAML as go-yaml 3.0.4 reads it into generic maps (spec §1.2).
//!
//! `saphyr-parser` supplies the syntax (events with scalar style and tag); merge keys, duplicate keys and key texts are
//! decided here, what a scalar means in [`yaml_scalar`], because libraries following YAML 1.2 differ from go-yaml in all of them.
//! The document is first collected into an arena, in which every node's depth and size *after* alias expansion is
//! known before anything is expanded: hostile documents are refused instead of eating memory.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::tree::{MAX_DEPTH, Map, Tree, with_stack};
use super::{SyntaxError, yaml_scalar};
use crate::gojson::fixed_f64;

/// Most nodes of a document after alias expansion (go-yaml starts to refuse excessive aliasing at the same size).
const MAX_NODES: usize = 400_000;
/// Most lines that are moved to the right; each takes another reading.
const MAX_MOVED: usize = 500;
/// How far to the right.
const INDENT: &str = "                                ";

/// Parse the first document. An empty document is an empty config.
///
/// # Errors
/// Where and why the text is not a YAML mapping.
pub fn parse(data: &[u8]) -> Result<Map, SyntaxError> {
    let text = decode(data)?;
    let Some(document) = Document::read(&text)? else { return Ok(Map::new()) };
    let whole_file = |reason: String| SyntaxError { line: 0, column: 0, reason };
    let root = document.root();
    if root.size > MAX_NODES {
        return Err(whole_file(format!("more than {MAX_NODES} nodes after alias expansion")));
    }
    if root.depth > MAX_DEPTH {
        return Err(whole_file(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    with_stack(root.depth, || document.config()).map_err(|error| whole_file(error.to_string()))?
}

/// UTF-8, or UTF-16 with a byte-order mark; only characters YAML allows.
fn decode(data: &[u8]) -> Result<String, SyntaxError> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let decoded = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>();
        decoded.ok().filter(|_| rest.is_empty()).ok_or_else(|| SyntaxError::at_byte(data, 0, "invalid UTF-16"))
    };
    let text = if let Some(rest) = data.strip_prefix(b"\xff\xfe") {
        utf16(rest, u16::from_le_bytes)?
    } else if let Some(rest) = data.strip_prefix(b"\xfe\xff") {
        utf16(rest, u16::from_be_bytes)?
    } else {
        let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
        std::str::from_utf8(data)
            .map_err(|error| SyntaxError::at_byte(data, error.valid_up_to(), "invalid UTF-8"))?
            .to_owned()
    };
    let printable = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
    match text.char_indices().find(|(_, c)| !printable(*c)) {
        Some((at, _)) => Err(SyntaxError::at_byte(text.as_bytes(), at, "control characters are not allowed")),
        None => Ok(text),
    }
}

/// What a node is. Children are indexes into the arena and always smaller than their parent's.
enum Kind {
    Scalar { text: String, plain: bool, tag: Option<String> },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
    Alias(usize),
}

struct Node {
    kind: Kind,
    line: usize,
    column: usize,
    /// Containers on the longest path down, aliases followed.
    depth: usize,
    /// Nodes below and including this one, aliases expanded (saturating).
    size: usize,
}

struct Document {
    nodes: Vec<Node>,
}

/// A collection whose end has not been seen.
struct Open {
    mapping: bool,
    anchor: usize,
    children: Vec<usize>,
    line: usize,
    column: usize,
}

impl Document {
    /// The first document; `None` if there is none.
    ///
    /// go-yaml does not mind how far the lines of flow collections and quoted texts stand in, `saphyr-parser` does. There
    /// blanks mean nothing, so a line that it finds too far left is moved to the right.
    fn read(text: &str) -> Result<Option<Self>, SyntaxError> {
        let mut text = Cow::Borrowed(text);
        let mut moved = BTreeSet::new();
        loop {
            let read = Self::events(&text);
            let Some(line) = read.as_ref().err().and_then(|error| too_far_left(error, &moved)) else { return read };
            if moved.len() == MAX_MOVED || !moved.insert(line) {
                return read;
            }
            let lines = text.split_inclusive('\n').enumerate();
            let indent = |at| if at + 1 == line { INDENT } else { "" };
            text = lines.flat_map(|(at, line)| [indent(at), line]).collect::<String>().into();
        }
    }

    /// Collect the events of the first document; `None` if there is none.
    fn events(text: &str) -> Result<Option<Self>, SyntaxError> {
        let mut document = Document { nodes: Vec::new() };
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let marker = error.marker();
                SyntaxError { line: marker.line(), column: marker.col() + 1, reason: error.info().to_owned() }
            })?;
            let (line, column) = (span.start.line(), span.start.col() + 1);
            let fail = |reason: &str| SyntaxError { line, column, reason: reason.to_owned() };
            let (kind, anchor) = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
                // Later documents are ignored, errors in them included.
                Event::DocumentEnd | Event::StreamEnd => break,
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                    let mapping = matches!(event, Event::MappingStart(..));
                    if open.len() >= MAX_DEPTH {
                        return Err(fail("nested too deep"));
                    }
                    // Until it is complete, an alias to this anchor would contain itself.
                    anchors.remove(&anchor);
                    open.push(Open { mapping, anchor, children: Vec::new(), line, column });
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(done) = open.pop() else { return Err(fail("unexpected end of a collection")) };
                    let kind = if done.mapping {
                        let (pairs, _) = done.children.as_chunks::<2>();
                        Kind::Mapping(pairs.iter().map(|[key, value]| (*key, *value)).collect())
                    } else {
                        Kind::Sequence(done.children)
                    };
                    document.add(kind, done.line, done.column);
                    document.attach(&mut open, &mut anchors, done.anchor);
                    continue;
                }
                Event::Alias(anchor) => {
                    let target = anchors.get(&anchor).ok_or_else(|| fail("an anchored value contains itself"))?;
                    (Kind::Alias(*target), 0)
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain;
                    let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                    let mut value = value.into_owned();
                    if block && ends_unbroken(text, line, &value) {
                        value.pop();
                    }
                    (Kind::Scalar { text: value, plain, tag: tag.map(|tag| short_tag(&tag)) }, anchor)
                }
            };
            document.add(kind, line, column);
            document.attach(&mut open, &mut anchors, anchor);
        }
        Ok(if document.nodes.is_empty() { None } else { Some(document) })
    }

    fn add(&mut self, kind: Kind, line: usize, column: usize) {
        let (mut depth, mut size) = (0usize, 1usize);
        let mut count = |child: usize| {
            if let Some(child) = self.nodes.get(child) {
                depth = depth.max(child.depth);
                size = size.saturating_add(child.size);
            }
        };
        let container = match &kind {
            Kind::Scalar { .. } => false,
            Kind::Alias(target) => {
                count(*target);
                false
            }
            Kind::Sequence(items) => {
                items.iter().copied().for_each(&mut count);
                true
            }
            Kind::Mapping(pairs) => {
                pairs.iter().flat_map(|(key, value)| [*key, *value]).for_each(&mut count);
                true
            }
        };
        self.nodes.push(Node { kind, line, column, depth: depth.saturating_add(usize::from(container)), size });
    }

    /// The newest node is complete: register its anchor and hand it to its parent.
    fn attach(&self, open: &mut [Open], anchors: &mut HashMap<usize, usize>, anchor: usize) {
        let id = self.nodes.len() - 1;
        if anchor != 0 {
            anchors.insert(anchor, id);
        }
        if let Some(parent) = open.last_mut() {
            parent.children.push(id);
        }
    }

    fn root(&self) -> &Node {
        // The outermost node is completed last.
        self.node(self.nodes.len().saturating_sub(1))
    }

    fn node(&self, id: usize) -> &Node {
        static EMPTY: Node = Node {
            kind: Kind::Scalar { text: String::new(), plain: true, tag: None },
            line: 0,
            column: 0,
            depth: 0,
            size: 1,
        };
        self.nodes.get(id).unwrap_or(&EMPTY)
    }

    /// Follow aliases.
    fn resolve(&self, id: usize) -> &Node {
        let mut node = self.node(id);
        while let Kind::Alias(target) = node.kind {
            node = self.node(target);
        }
        node
    }

    /// The whole document as a config.
    fn config(&self) -> Result<Map, SyntaxError> {
        let root = self.root();
        match &root.kind {
            Kind::Mapping(pairs) => self.mapping(pairs, Some(true)),
            Kind::Scalar { .. } if self.build(root)? == Tree::Null => Ok(Map::new()),
            _ => Err(root.error("the top level is not a mapping")),
        }
    }

    fn build(&self, node: &Node) -> Result<Tree, SyntaxError> {
        match &node.kind {
            Kind::Scalar { text, plain, tag } => {
                yaml_scalar::resolve(text, *plain, tag.as_deref()).map_err(|why| node.error(&why))
            }
            Kind::Alias(target) => self.build(self.node(*target)),
            Kind::Sequence(items) => {
                items.iter().map(|id| self.build(self.node(*id))).collect::<Result<_, _>>().map(Tree::List)
            }
            Kind::Mapping(pairs) => self.mapping(pairs, None).map(Tree::Map),
        }
    }

    /// Build a mapping. `raw_keys` says whether keys are taken as raw text; `None` decides by the keys themselves:
    /// go-yaml makes a string map only if every key is a string, and a merged mapping follows the one it merges into.
    fn mapping(&self, pairs: &[(usize, usize)], raw_keys: Option<bool>) -> Result<Map, SyntaxError> {
        let mut raw_texts: HashMap<&str, ()> = HashMap::with_capacity(pairs.len());
        for (key, _) in pairs {
            if let Kind::Scalar { text, .. } = &self.node(*key).kind
                && raw_texts.insert(text, ()).is_some()
            {
                return Err(self.node(*key).error(&format!("mapping key {text:?} already defined")));
            }
        }
        let raw_keys = match raw_keys {
            Some(raw) => raw,
            None => self.all_keys_are_strings(pairs),
        };
        let mut out = Map::new();
        let mut merge = None;
        for (key_id, value_id) in pairs {
            if is_merge(self.node(*key_id)) {
                merge = Some(*value_id);
                continue;
            }
            let key_node = self.resolve(*key_id);
            let Kind::Scalar { text, .. } = &key_node.kind else {
                return Err(key_node.error("a collection cannot be a mapping key"));
            };
            let resolved = self.build(key_node)?;
            let key = match (raw_keys, &resolved) {
                // go-yaml drops the entry: null does not decode into a string key.
                (true, Tree::Null) => continue,
                (true, _) => text.clone(),
                (false, _) => key_text(&resolved).ok_or_else(|| key_node.error("a date cannot be a mapping key"))?,
            };
            if out.contains_key(&key) {
                return Err(self.node(*key_id).error(&format!("mapping key {key:?} already defined")));
            }
            out.insert(key, self.build(self.node(*value_id))?);
        }
        if let Some(merge) = merge {
            let one = [merge];
            let sources = match &self.node(merge).kind {
                Kind::Sequence(items) => items.as_slice(),
                _ => one.as_slice(),
            };
            for id in sources {
                let Kind::Mapping(pairs) = &self.resolve(*id).kind else {
                    return Err(self.node(*id).error("map merge requires map or sequence of maps as the value"));
                };
                for (key, value) in self.mapping(pairs, Some(raw_keys))? {
                    out.entry(key).or_insert(value);
                }
            }
        }
        Ok(out)
    }

    fn all_keys_are_strings(&self, pairs: &[(usize, usize)]) -> bool {
        pairs.iter().all(|(key, _)| {
            let node = self.resolve(*key);
            match &node.kind {
                Kind::Scalar { tag: Some(tag), .. } if tag != "!" => tag == "!!str" || tag == "!!merge",
                _ => is_merge(node) || matches!(self.build(node), Ok(Tree::Text(_))),
            }
        })
    }
}

impl Node {
    fn error(&self, reason: &str) -> SyntaxError {
        SyntaxError { line: self.line, column: self.column, reason: reason.to_owned() }
    }
}

/// Number of the line that would have to stand further in, if that is all; some were `moved` already.
fn too_far_left(error: &SyntaxError, moved: &BTreeSet<usize>) -> Option<usize> {
    match error.reason.as_str() {
        "invalid indentation" | "invalid indentation in flow construct" => Some(error.line),
        // Told of the text's first line: it is one of the next.
        "invalid indentation in quoted scalar" => (error.line + 1..).find(|line| !moved.contains(line)),
        _ => None,
    }
}

/// Whether the block scalar whose text starts on `line` runs up to the end of a file that lacks its last line break. go-yaml
/// keeps no break that is not there, `saphyr-parser` adds one.
fn ends_unbroken(file: &str, line: usize, value: &str) -> bool {
    if !value.ends_with('\n') || file.ends_with(['\n', '\r']) {
        return false;
    }
    let mut lines = file.lines().skip(line.saturating_sub(1));
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    // The first line that has text sets how far the scalar's lines stand in.
    let Some(first) = lines.find(|line| !line.trim_matches(' ').is_empty()) else { return false };
    let mut last = first;
    for next in lines {
        if !next.trim_matches(' ').is_empty() && indent(next) < indent(first) {
            return false;
        }
        last = next;
    }
    !last.trim_matches(' ').is_empty()
}

fn is_merge(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { text, plain, tag } => {
            text == "<<"
                && match tag.as_deref() {
                    None => *plain,
                    Some(tag) => tag == "!!merge" || (tag == "!" && *plain),
                }
        }
        _ => false,
    }
}

/// `!!name` for YAML's own tags, the full text for others.
fn short_tag(tag: &Tag) -> String {
    let full = format!("{}{}", tag.handle, tag.suffix);
    match full.strip_prefix("tag:yaml.org,2002:") {
        Some(name) => format!("!!{name}"),
        None => full,
    }
}

/// Text of a non-string key, as viper converts it.
fn key_text(key: &Tree) -> Option<String> {
    Some(match key {
        Tree::Null => String::new(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(value) => value.to_string(),
        Tree::Uint(value) => value.to_string(),
        Tree::Float(value) => fixed_f64(*value),
        Tree::Text(text) => text.clone(),
        Tree::Time(_) | Tree::LocalTime(_) | Tree::List(_) | Tree::Map(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map {
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn value(scalar: &str) -> Tree {
        map(&format!("v: {scalar}\n")).remove("v").unwrap()
    }

    fn fails(text: &str) -> SyntaxError {
        parse(text.as_bytes()).unwrap_err()
    }

    fn text(text: &str) -> Tree {
        Tree::Text(text.into())
    }

    #[test]
    fn styles_and_tags() {
        for scalar in ["'5'", "\"5\"", "!!str 5", "|-\n  5", ">-\n  5", "!own 5", "! '5'"] {
            assert_eq!(value(scalar), text("5"), "{scalar}");
        }
        assert_eq!(value("!!str"), text(""));
        assert_eq!(value("!!str ~"), text("~"));
        assert_eq!(value("! 5"), Tree::Int(5));
        assert_eq!(value("!!int '7'"), Tree::Int(7));
        assert_eq!(value("!!float 5"), Tree::Float(5.0));
        assert_eq!(value("!!binary aGk="), text("hi"));
        assert_eq!(value("!!binary /w=="), text("\u{fffd}"));
        assert_eq!(value("!<tag:yaml.org,2002:str> 5"), text("5"));
        assert_eq!(value("2001-1-2"), Tree::Time("2001-01-02T00:00:00Z".into()));
        assert_eq!(value("'2001-1-2'"), text("2001-1-2"));
        assert_eq!(value("!!timestamp '2001-1-2'"), Tree::Time("2001-01-02T00:00:00Z".into()));
        for scalar in ["!!int 5.5", "!!bool yes", "!!null x", "!!float x", "!!binary ???", "!!timestamp 5"] {
            fails(&format!("v: {scalar}\n"));
        }
    }

    #[test]
    fn flow_collections_and_quoted_texts_stand_in_as_they_like() {
        for (odd, usual) in [
            ("a:\n  b:\n  - c: [\n      \"x\"\n    ]\n    d: 1\n", "a: {b: [{c: [x], d: 1}]}"),
            ("a:\n  b:\n    - c: [\n      x,\n    y\n    ]\n", "a: {b: [{c: [x, y]}]}"),
            ("a:\n  b: [\n  {c: [\"x\"]}\n  ]\n", "a: {b: [{c: [x]}]}"),
            ("a:\n  b: {\n  c: 1\n}\nd: 2\n", "{a: {b: {c: 1}}, d: 2}"),
            ("a: {\"b\":\"x\",\n\"c\":{\"d\":1}}\n", "a: {b: x, c: {d: 1}}"),
            ("a:\n  b: \"x\n  y\"\n  c: 'p\n\n q'\n", "a: {b: x y, c: \"p\\nq\"}"),
            ("a:\n  b: [x, y,\nz]\nc: 1", "{a: {b: [x, y, z]}, c: 1}"),
        ] {
            assert_eq!(map(odd), map(usual), "{odd}");
        }
        for bad in ["a: [x\nb: 1\n", "a: \"x\nb: 1\n", "a:\n    b: 1\n  c: 2\n", "a: {b\n"] {
            let error = fails(bad);
            assert!(error.line <= 3, "{bad:?}: {error:?}");
        }
        let many = format!("a: [{}\n]", "\nx,".repeat(2 * MAX_MOVED));
        fails(&many);
    }

    #[test]
    fn a_block_scalar_at_the_end_gets_no_line_break() {
        for (file, want) in [
            ("v: |\n  /tmp/A", "/tmp/A"),
            ("v: |+\n  /tmp/A", "/tmp/A"),
            ("v: |-\n  /tmp/A", "/tmp/A"),
            ("v: >\n  /tmp\n  /A", "/tmp /A"),
            ("v: |\n  a\n\n  b", "a\n\nb"),
            ("v: |\n  a\n   b", "a\n b"),
            ("v: |\n  /tmp/A\n", "/tmp/A\n"),
            ("v: |\n  /tmp/A\nw: |\n  /tmp/A", "/tmp/A\n"),
            ("v: |\n  /tmp/A\n# end", "/tmp/A\n"),
            ("v: |\n  a\n---\na", "a\n"),
        ] {
            assert_eq!(map(file).get("v"), Some(&text(want)), "{file:?}");
        }
    }

    #[test]
    fn keys_become_text() {
        let nested = map("v:\n  0x10: a\n  1.5e3: b\n  ~: c\n  true: d\n  yes: e\n  '3': f\n").remove("v").unwrap();
        let keys: Vec<&String> = nested.as_map().unwrap().keys().collect();
        assert_eq!(keys, ["", "1500", "16", "3", "true", "yes"]);
        // The root takes raw text, and a null key does not fit into it.
        assert_eq!(map("0x10: a\n1.50: b\n~: c\n").keys().collect::<Vec<_>>(), ["0x10", "1.50"]);
        for bad in [
            "v: {a: 1, a: 2}",
            "v: {a: 1, 'a': 2}",
            "v: {1: a, 0x1: b}",
            "v: {2001-01-01: a}",
            "v: {[a]: b}",
            "a: 1\na: 2",
        ] {
            fails(bad);
        }
    }

    #[test]
    fn merges_and_aliases() {
        let merged = map("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 0}\nd: {<<: *b}\n");
        let want = map("c: {x: 0, y: 1, z: 2}\nd: {y: 2, z: 2}\n");
        assert_eq!((merged.get("c"), merged.get("d")), (want.get("c"), want.get("d")));
        assert_eq!(map("v: {'<<': {a: 1}}").get("v").unwrap().as_map().unwrap().len(), 1);
        // A merged mapping follows the key rule of the one it merges into.
        assert_eq!(map("v: {<<: {0x10: a}, b: 1}").get("v"), map("v: {'0x10': a, b: 1}").get("v"));
        assert_eq!(map("v: {<<: {0x10: a}, 1: 1}").get("v"), map("v: {'16': a, '1': 1}").get("v"));
        assert_eq!(map("a: &r x\nb: &r y\nc: *r\n").get("c"), Some(&text("y")));
        for bad in [
            "v: {<<: 5}",
            "v: {<<: [5]}",
            "v: *nope",
            "v: &v [*v]",
            "v: &v {a: {b: *v}}",
            "v: {<<: {a: 1}, <<: {b: 2}}",
        ] {
            fails(bad);
        }
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(map("a: 1\n---\nb: 2\n").len(), 1);
        assert_eq!(map("a: 1\n...\ngarbage: [\n").len(), 1);
        for empty in ["", "# nothing\n", "---\n", "~", "null\n"] {
            assert!(map(empty).is_empty(), "{empty:?}");
        }
        for bad in ["- a\n", "text", "5", "'quoted'"] {
            fails(bad);
        }
    }

    #[test]
    fn encodings() {
        assert_eq!(map("\u{feff}a: 1\n").len(), 1);
        let utf16: Vec<u8> = "\u{feff}a: é\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse(&utf16).unwrap().get("a"), Some(&text("é")));
        assert!(parse(b"a: \xff\n").is_err());
        assert!(parse(b"a: \x01\n").is_err());
        let error = fails("a: 1\nb: [\n");
        assert!(error.line >= 2, "{error:?}");
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(fails(&bomb).reason.contains("alias expansion"));
        // Depth by aliases: every level wraps the one before.
        let mut deep = String::from("a0: &a0 [x]\n");
        for level in 1..800 {
            deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        drop(parse(deep.as_bytes()));
        drop(parse("[".repeat(100_000).as_bytes()));
        drop(parse("- ".repeat(100_000).as_bytes()));
        drop(parse("? ".repeat(50_000).as_bytes()));
        let indented: String = (0..600).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert_eq!(Tree::Map(map(&indented)).depth(), 600);
    }
}
