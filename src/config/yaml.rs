//! YAML as go-yaml 3.0.4 reads it into generic maps (spec §1.2).
//!
//! `yaml_scan` cuts the text into tokens, `yaml_events` makes nodes of them; merge keys, duplicate keys and key texts are
//! decided here, what a scalar means in [`yaml_scalar`].
//! Hostile documents are refused before their aliases are expanded, instead of eating memory.

use std::collections::{HashMap, HashSet};

use super::tree::{MAX_DEPTH, Map, Tree, with_stack};
use super::yaml_document::{Document, Kind, Node};
use super::{SyntaxError, yaml_scalar};
use crate::gojson::fixed_f64;

/// Most nodes of a document after alias expansion (go-yaml starts to refuse excessive aliasing at the same size).
const MAX_NODES: usize = 400_000;

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

impl Document {
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
        let mut written = HashSet::with_capacity(pairs.len());
        for (key, _) in pairs {
            let node = self.node(*key);
            let (text, alias) = match &node.kind {
                Kind::Scalar { text, .. } => (text.as_str(), None),
                Kind::Alias(target) => ("", Some(*target)),
                _ => continue,
            };
            if !written.insert((text, alias)) {
                return Err(node.error(&format!("mapping key {text:?} already defined")));
            }
        }
        let raw_keys = match raw_keys {
            Some(raw) => raw,
            None => self.all_keys_are_strings(pairs),
        };
        let mut out = Map::new();
        let mut resolved_keys = HashMap::new();
        let mut merge = None;
        for (key_id, value_id) in pairs {
            if is_merge(self.node(*key_id)) {
                merge = Some(*value_id);
                continue;
            }
            let key_node = self.resolve(*key_id);
            let Kind::Scalar { text, tag, .. } = &key_node.kind else {
                return Err(key_node.error("a collection cannot be a mapping key"));
            };
            let resolved = self.build(key_node)?;
            let key = match (raw_keys, &resolved, tag.as_deref()) {
                // go-yaml drops the entry: null does not decode into a string key.
                (true, Tree::Null, _) => continue,
                (true, Tree::Text(decoded), Some("!!binary")) => decoded.clone(),
                (true, ..) => text.clone(),
                (false, ..) => key_text(&resolved).ok_or_else(|| key_node.error("a date cannot be a mapping key"))?,
            };
            // Written in two ways, one key may come twice: the last counts. Two keys of one text are chosen from at random.
            if let Some(other) = resolved_keys.insert(key.clone(), resolved)
                && !raw_keys
                && resolved_keys.get(&key) != Some(&other)
            {
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
                    // The merge key itself counts as one that is there.
                    if key != "<<" {
                        out.entry(key).or_insert(value);
                    }
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
    }

    /// Verdicts and values of go-yaml 3.0.4, where YAML 1.2 or common sense would have others.
    #[test]
    fn syntax_is_go_yamls() {
        for (odd, usual) in [
            ("a:\tb\n", "a: b"),
            ("a: \tb\nc:\t\t'd'\n", "{a: b, c: d}"),
            ("a: 'x'# glued\nb: \"y\"#\n", "{a: x, b: y}"),
            ("a: [1]# glued\n", "a: [1]"),
            ("a: b\n# c\n\t# tabs before the next comment\nd: e\n", "{a: b, d: e}"),
            ("a: b\t# c\n", "a: b"),
            ("a: {\n\tb: c,\n\t}\n", "a: {b: c}"),
            ("%YAML 1.1\n---\na: b\n", "a: b"),
            ("%TAG !x! tag:yaml.org,2002:\n---\na: !x!str 5\n", "a: '5'"),
            ("a: {b, c: , d}\n", "a: {b: ~, c: ~, d: ~}"),
            ("a: [b: c, d]\n", "a: [{b: c}, d]"),
            ("a: {b:c, \"d\":e}\n", "a: {'b:c': ~, d: e}"),
            ("a:\n- b\n- c\nd: e\n", "{a: [b, c], d: e}"),
            ("? a\n: b\n? c\n", "{a: b, c: ~}"),
            ("a: b\n c\n\n d\n", "a: \"b c\\nd\""),
            ("a: \"b\\\n   c \\x41\\u00e9\"\n", "a: \"bc Aé\""),
            ("a: |2\n   b\n  c\n", "a: \" b\\nc\\n\""),
            ("a: >\n b\n c\n\n d\n  e\n f\n", "a: \"b c\\nd\\n e\\nf\\n\""),
            ("a: b\u{85}c: d\n", "{a: b, c: d}"),
        ] {
            assert_eq!(map(odd), map(usual), "{odd:?}");
        }
        for bad in [
            "%YAML 1.2\n---\na: b\n",
            "%FOO\n---\na: b\n",
            "a: [b?c]\n",
            "a: {b?: c}\n",
            "a:\n\tb: c\n",
            "a:\n  b: c\n\td: e\n",
            "a: b: c\n",
            "a: \"\\/\"\n",
            "a: 'b' c\n",
            "a: @b\n",
            "a: b\nc\n",
            "a: [b, , c]\n",
            "a: !x!y z\n",
            "a: |0\n b\n",
            "a: |\n\tb\n",
            "a: b\n...\n@\n",
            "{a: b",
            "{a: b,",
        ] {
            fails(bad);
        }
        let long = "k".repeat(1025);
        fails(&format!("{long}: v\n"));
        assert_eq!(map(&format!("{}: v\n", "k".repeat(1024))).len(), 1);
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
        for (odd, usual) in [
            ("v: {1: a, 0x1: b}", "v: {'1': b}"),
            ("v: {~: a, null: b}", "v: {'': b}"),
            ("v: {&a k: 1, *a : 2}", "v: {k: 2}"),
            ("v: {!!binary aGk=: 1, hi: 2}", "v: {hi: 2}"),
            ("!!binary dg==: 1", "v: 1"),
            ("v: {<<: {!!str <<: 1, a: 2}}", "v: {a: 2}"),
        ] {
            assert_eq!(map(odd), map(usual), "{odd}");
        }
        // The root takes raw text, and a null key does not fit into it.
        assert_eq!(map("0x10: a\n1.50: b\n~: c\n").keys().collect::<Vec<_>>(), ["0x10", "1.50"]);
        for bad in [
            "v: {a: 1, a: 2}",
            "v: {a: 1, 'a': 2}",
            "v: {1: a, '1': b}",
            "v: {1: a, 1.0: b}",
            "v: {&a k: 1, *a : 2, *a : 3}",
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
