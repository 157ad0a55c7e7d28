//! The generic tree that every parser produces, and viper's key handling on it: folding (spec §1.3), flattening,
//! lookup and rebuilding (§1.4).
//!
//! Invariants: maps are ordered by key bytes, which is also the order in which Go prints them; trees may be as deep as
//! [`MAX_DEPTH`], therefore dropping never recurses and callers run recursive work under [`with_stack`].
//! `Debug` never shows values: they may be secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

/// Deepest nesting that Go's JSON decoder (and go-yaml) accept.
pub const MAX_DEPTH: usize = 10_000;

/// viper's key delimiter as zot sets it.
pub const DELIMITER: &str = "::";

/// Map with keys in the order Go prints them.
pub type Map = BTreeMap<String, Tree>;

/// A parsed, untyped value.
#[derive(Clone, Default, PartialEq)]
pub enum Tree {
    /// JSON `null`, YAML `~` or nothing.
    #[default]
    Null,
    /// Boolean.
    Bool(bool),
    /// Integer of YAML or TOML. JSON numbers are always floats.
    Int(i64),
    /// YAML integer above the signed range.
    Uint(u64),
    /// Double.
    Float(f64),
    /// String.
    Text(String),
    /// Date or time with an offset, already in the form Go prints (RFC 3339).
    Time(String),
    /// TOML date or time without an offset.
    LocalTime(String),
    /// Sequence.
    List(Vec<Tree>),
    /// Mapping.
    Map(Map),
}

impl Tree {
    /// The map, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Tree::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The string, if it is one (dates are not).
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Take the map out, leaving an empty one; anything else gives an empty map.
    pub fn take_map(&mut self) -> Map {
        match self {
            Tree::Map(map) => std::mem::take(map),
            _ => Map::new(),
        }
    }

    /// What the value is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Int(_) | Tree::Uint(_) => "an integer",
            Tree::Float(_) => "a number",
            Tree::Text(_) => "a string",
            Tree::Time(_) | Tree::LocalTime(_) => "a date or time",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// Number of nested containers on the longest path: 0 for a scalar, 1 for a flat list.
    #[must_use]
    pub fn depth(&self) -> usize {
        let mut deepest = 0;
        let mut pending = vec![(self, 0)];
        while let Some((tree, above)) = pending.pop() {
            match tree {
                Tree::List(items) => pending.extend(items.iter().map(|item| (item, above + 1))),
                Tree::Map(map) => pending.extend(map.values().map(|item| (item, above + 1))),
                _ => continue,
            }
            deepest = deepest.max(above + 1);
        }
        deepest
    }

    fn has_nested_containers(&self) -> bool {
        let container = |tree: &Tree| matches!(tree, Tree::List(_) | Tree::Map(_));
        match self {
            Tree::List(items) => items.iter().any(container),
            Tree::Map(map) => map.values().any(container),
            _ => false,
        }
    }
}

impl Drop for Tree {
    /// Dismantle level by level: the derived drop would recurse as deep as a hostile file is nested.
    fn drop(&mut self) {
        if !self.has_nested_containers() {
            return;
        }
        let mut pending = vec![std::mem::take(self)];
        while let Some(mut tree) = pending.pop() {
            match &mut tree {
                Tree::List(items) => pending.append(items),
                Tree::Map(map) => pending.extend(std::mem::take(map).into_values()),
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::List(items) => write!(f, "a list of {}", items.len()),
            Tree::Map(map) => write!(f, "a map of {}", map.len()),
            other => f.write_str(other.kind()),
        }
    }
}

/// Run `work` where the stack is large enough to recurse over a tree of this depth.
///
/// # Errors
/// The operating system's, if no thread can be started.
pub fn with_stack<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    /// Depth that fits any thread's default stack with room to spare.
    const SHALLOW: usize = 64;
    /// Generous bound on the stack used per level, debug builds included.
    const PER_LEVEL: usize = 8 << 10;
    if depth <= SHALLOW {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("config".into())
            .stack_size((4 << 20) + depth * PER_LEVEL)
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A key as viper sees it: every code point lower-cased by its simple mapping (spec §1.3).
///
/// Rust's full mapping differs for U+0130 only (two characters, of which Go takes the first) and never applies its
/// final-sigma rule to single characters.
#[must_use]
pub fn fold_key(key: &str) -> String {
    key.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// Two keys of one map that become the same after folding.
#[derive(Debug, PartialEq, Eq)]
pub struct AmbiguousKey {
    /// Path of the map, folded, joined with dots.
    pub path: String,
    /// The key as written at its second occurrence.
    pub key: String,
}

/// Fold every key of every map, maps inside lists included.
///
/// # Errors
/// Keys that differ only in case: zot keeps one of them at random.
pub fn fold(tree: Tree) -> Result<Tree, AmbiguousKey> {
    fn walk(mut tree: Tree, path: &mut Vec<String>) -> Result<Tree, AmbiguousKey> {
        match &mut tree {
            Tree::Map(_) => {
                let mut out = Map::new();
                for (key, value) in tree.take_map() {
                    let folded = fold_key(&key);
                    if out.contains_key(&folded) {
                        return Err(AmbiguousKey { path: path.join("."), key });
                    }
                    path.push(folded.clone());
                    let value = walk(value, path)?;
                    path.pop();
                    out.insert(folded, value);
                }
                Ok(Tree::Map(out))
            }
            Tree::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (index, item) in std::mem::take(items).into_iter().enumerate() {
                    path.push(index.to_string());
                    out.push(walk(item, path)?);
                    path.pop();
                }
                Ok(Tree::List(out))
            }
            _ => Ok(tree),
        }
    }
    walk(tree, &mut Vec::new())
}

/// Find a value by its full key (spec §1.4): the longest joined prefix of the path that leads to a non-null value wins.
#[must_use]
pub fn lookup<'a>(source: &'a Tree, key: &str) -> Option<&'a Tree> {
    Search::new(key).find(source, 0, &mut MAX_STEPS.clone())
}

/// Most map accesses one load may spend on looking keys up. Keys made of delimiters can be arranged so that viper's
/// rule takes cubic time; beyond this bound lies only hostile input.
const MAX_STEPS: usize = 20_000_000;

/// One full key, cut at its delimiters.
struct Search<'k> {
    key: &'k str,
    /// Start and end of every segment; joined prefixes are slices of `key`.
    segments: Vec<(usize, usize)>,
}

impl<'k> Search<'k> {
    fn new(key: &'k str) -> Self {
        let mut at = 0;
        let segments = key
            .split(DELIMITER)
            .map(|part| {
                let start = at;
                at += part.len() + DELIMITER.len();
                (start, start + part.len())
            })
            .collect();
        Self { key, segments }
    }

    /// Look for the segments from `first` on. Gives up with `None` when the budget is gone.
    fn find<'a>(&self, source: &'a Tree, first: usize, budget: &mut usize) -> Option<&'a Tree> {
        let &(start, single_end) = self.segments.get(first)?;
        // Several segments can only match a key that holds a delimiter, which is rare: look for one first.
        let longest = match source {
            Tree::Map(map) => {
                let joined = self.key.get(start..(single_end + DELIMITER.len()).min(self.key.len()))?;
                let some = map.range::<str, _>((Bound::Included(joined), Bound::Unbounded)).next();
                if some.is_some_and(|(key, _)| key.starts_with(joined)) { self.segments.len() } else { first + 1 }
            }
            _ => first + 1,
        };
        for last in (first..longest).rev() {
            *budget = budget.checked_sub(1)?;
            let prefix = self.key.get(start..self.segments.get(last)?.1)?;
            let next = match source {
                Tree::Map(map) => map.get(prefix),
                Tree::List(items) => index(prefix).and_then(|i| items.get(i)),
                _ => None,
            };
            let found = match next {
                Some(found) if last + 1 == self.segments.len() => Some(found),
                Some(nested @ (Tree::Map(_) | Tree::List(_))) => self.find(nested, last + 1, budget),
                _ => None,
            };
            if let Some(found) = found.filter(|found| **found != Tree::Null) {
                return Some(found);
            }
        }
        None
    }
}

/// A list index as Go's `Atoi` reads it.
fn index(key: &str) -> Option<usize> {
    let digits = key.strip_prefix('+').unwrap_or(key);
    let zero = key.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b == b'0'));
    if zero {
        return Some(0);
    }
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Two flattened keys want the same place: zot's result depends on the order of its map iteration.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyClash(
    /// The flattened key, joined with [`DELIMITER`].
    pub String,
);

/// Most leaves times path length that [`rebuild`] handles; beyond it lies only hostile input.
const MAX_REBUILD_WORK: usize = 50_000_000;

/// Flatten to leaf paths, look each of them up again and build the tree from what was found (spec §1.4).
/// This is what makes nulls and empty maps disappear and `a::b` equal to a nested `b`.
///
/// # Errors
/// [`KeyClash`] if a key would have to be a leaf and a section at once.
pub fn rebuild(folded: &Tree) -> Result<Map, KeyClash> {
    let mut keys = Vec::new();
    let mut budget = MAX_REBUILD_WORK;
    leaves(folded, &mut String::new(), &mut keys, &mut budget)?;
    let mut out = Tree::Map(Map::new());
    let mut steps = MAX_STEPS;
    for key in keys {
        let path: Vec<&str> = key.split(DELIMITER).collect();
        if let Some(value) = Search::new(&key).find(folded, 0, &mut steps) {
            insert(&mut out, &path, value).ok_or_else(|| KeyClash(key.clone()))?;
        } else if steps == 0 {
            return Err(KeyClash("(too many delimiters in keys)".into()));
        }
    }
    Ok(out.take_map())
}

fn leaves(tree: &Tree, prefix: &mut String, out: &mut Vec<String>, budget: &mut usize) -> Result<(), KeyClash> {
    let Tree::Map(map) = tree else { return Ok(()) };
    for (key, value) in map {
        let length = prefix.len();
        prefix.push_str(key);
        match value {
            Tree::Map(_) => {
                // viper puts no delimiter after an empty prefix, so below a top-level key "" nothing is found again.
                if !prefix.is_empty() {
                    prefix.push_str(DELIMITER);
                }
                leaves(value, prefix, out, budget)?;
            }
            _ => {
                *budget = budget.checked_sub(prefix.len()).ok_or_else(|| KeyClash("(too many long keys)".into()))?;
                out.push(prefix.clone());
            }
        }
        prefix.truncate(length);
    }
    Ok(())
}

/// Put `value` at `path`; `None` on a clash.
fn insert(root: &mut Tree, path: &[&str], value: &Tree) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let mut node = root;
    for part in parents {
        let Tree::Map(map) = node else { return None };
        node = map.entry((*part).to_owned()).or_insert_with(|| Tree::Map(Map::new()));
    }
    let Tree::Map(map) = node else { return None };
    match map.get(*last) {
        // The same leaf under two spellings is found twice with the same value.
        Some(present) if present != value => None,
        Some(_) => Some(()),
        None => {
            map.insert((*last).to_owned(), value.clone());
            Some(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::Map(super::super::json::parse(json.as_bytes()).unwrap())
    }

    fn rebuilt(json: &str) -> Tree {
        Tree::Map(rebuild(&fold(tree(json)).unwrap()).unwrap())
    }

    #[test]
    fn keys_fold_per_code_point() {
        for (key, want) in [
            ("CacheTablename", "cachetablename"),
            ("\u{391}\u{3a3}", "\u{3b1}\u{3c3}"),
            ("\u{130}x", "ix"),
            ("\u{1e9e}", "\u{df}"),
            ("K\u{212a}", "kk"),
            ("/Foo::B", "/foo::b"),
            ("\u{1f600}", "\u{1f600}"),
        ] {
            assert_eq!(fold_key(key), want);
        }
    }

    #[test]
    fn folding_reaches_lists_and_refuses_ambiguity() {
        assert_eq!(fold(tree(r#"{"A":[{"B":[[{"C":1}]]}]}"#)).unwrap(), tree(r#"{"a":[{"b":[[{"c":1}]]}]}"#));
        let error = fold(tree(r#"{"S":{"l":[{"x":1,"X":2}]}}"#)).unwrap_err();
        assert_eq!((error.path.as_str(), error.key.as_str()), ("s.l.0", "x"));
    }

    #[test]
    fn nulls_and_empty_maps_vanish_outside_lists() {
        let text = r#"{"a":null,"b":{},"c":{"d":{"e":null}},"f":[null,{},[]],"g":{"h":[]}}"#;
        assert_eq!(rebuilt(text), tree(r#"{"f":[null,{},[]],"g":{"h":[]}}"#));
    }

    #[test]
    fn delimiters_in_keys_nest() {
        assert_eq!(rebuilt(r#"{"a::b":1,"c":{"d::e":2,"":3}}"#), tree(r#"{"a":{"b":1},"c":{"d":{"e":2},"":3}}"#));
        // The longer joined prefix wins.
        assert_eq!(rebuilt(r#"{"a":{"b":1},"a::b":2}"#), tree(r#"{"a":{"b":2}}"#));
        // ... unless it is null.
        assert_eq!(rebuilt(r#"{"a":{"b":1},"a::b":null}"#), tree(r#"{"a":{"b":1}}"#));
        assert_eq!(rebuilt(r#"{"a":{"x:":1}}"#), tree(r#"{"a":{"x:":1}}"#));
        assert_eq!(rebuilt(r#"{"a:":{"x":1}}"#), tree("{}"), "a: and x meet as a, :x and are not found");
        for dropped in [r#"{"":{"a":1}}"#, r#"{"":{"":{"a":1}}}"#, r#"{"":{"a":{"b":1}}}"#] {
            assert_eq!(rebuilt(dropped), tree("{}"), "{dropped}");
        }
        assert_eq!(rebuilt(r#"{"":{"a":1},"a":2,"b":{"":{"c":3}}}"#), tree(r#"{"a":2,"b":{"":{"c":3}}}"#));
        assert_eq!(rebuilt(r#"{"a.b":1}"#), tree(r#"{"a.b":1}"#));
        for clash in [r#"{"a":1,"a::b":2}"#, r#"{"a":{"b":{"c":1}},"a::b":5}"#] {
            assert!(rebuild(&tree(clash)).is_err(), "{clash}");
        }
    }

    #[test]
    fn lookup_indexes_lists() {
        let tree = tree(r#"{"a":[{"b":1},[2,null]],"n":null}"#);
        assert_eq!(lookup(&tree, "a::0::b"), Some(&Tree::Float(1.0)));
        assert_eq!(lookup(&tree, "a::+1::-0"), Some(&Tree::Float(2.0)));
        for key in ["a::1::1", "a::2", "a::-1", "a::x", "a::0::b::c", "n", "", "a::", "a::0_0"] {
            assert_eq!(lookup(&tree, key), None, "{key}");
        }
    }

    #[test]
    fn deep_and_delimiter_ridden_trees_are_bounded() {
        let depth = 9_000;
        let deep = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let tree = tree(&deep);
        assert_eq!(tree.depth(), depth);
        let same = with_stack(depth, || {
            let folded = fold(tree).unwrap();
            Tree::Map(rebuild(&folded).unwrap()) == folded
        });
        assert!(same.unwrap());
        // Every level also has a key that begins like a joined one: viper's rule would take cubic time.
        let level = "{\"a::zzz\":1,\"a\":";
        let hostile = format!("{}null{}", level.repeat(3_000), "}".repeat(3_000));
        let tree = super::super::json::parse(hostile.as_bytes()).unwrap();
        let _ = with_stack(3_000, || rebuild(&Tree::Map(tree)).is_err()).unwrap();
    }

    #[test]
    fn debug_shows_no_values() {
        assert_eq!(format!("{:?}", tree(r#"{"password":"hunter22"}"#)), "a map of 1");
        assert_eq!(format!("{:?}", Tree::Text("hunter22".into())), "a string");
    }
}
