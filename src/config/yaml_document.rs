//! The first document of a YAML text as an arena of nodes. Depth and size of every node after alias expansion are known
//! before anything is expanded.

use std::collections::HashMap;

use super::SyntaxError;
use super::tree::MAX_DEPTH;
use super::yaml_events::{Event, Events, Properties, short_tag};
use super::yaml_scan::Style;

/// What a node is. Children are indexes into the arena and always smaller than their parent's.
pub(super) enum Kind {
    Scalar { text: String, plain: bool, tag: Option<String> },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
    Alias(usize),
}

pub(super) struct Node {
    pub(super) kind: Kind,
    line: usize,
    column: usize,
    /// Containers on the longest path down, aliases followed.
    pub(super) depth: usize,
    /// Nodes below and including this one, aliases expanded (saturating).
    pub(super) size: usize,
}

pub(super) struct Document {
    nodes: Vec<Node>,
}

/// A collection whose end has not been seen.
struct Open {
    mapping: bool,
    anchor: Option<String>,
    children: Vec<usize>,
    line: usize,
    column: usize,
}

/// What an anchor names.
enum Anchored {
    Node(usize),
    /// The collection that is open at this depth; an alias inside would contain itself.
    Open(usize),
}

impl Document {
    /// The first document, later ones are ignored; `None` if there is none.
    pub(super) fn read(text: &str) -> Result<Option<Self>, SyntaxError> {
        let mut document = Document { nodes: Vec::new() };
        let mut anchors: HashMap<String, Anchored> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        let mut events = Events::new(text);
        loop {
            let (event, mark) = events.next()?;
            let (line, column) = mark.shown();
            let id = match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentEnd => return Ok(Some(document)),
                Event::Start { mapping, anchor } => {
                    if open.len() >= MAX_DEPTH {
                        return Err(mark.error("nested too deep"));
                    }
                    if let Some(name) = &anchor {
                        anchors.insert(name.clone(), Anchored::Open(open.len()));
                    }
                    open.push(Open { mapping, anchor, children: Vec::new(), line, column });
                    continue;
                }
                Event::End => {
                    let Some(done) = open.pop() else { return Err(mark.error("unexpected end of a collection")) };
                    let kind = if done.mapping {
                        let (pairs, _) = done.children.as_chunks::<2>();
                        Kind::Mapping(pairs.iter().map(|[key, value]| (*key, *value)).collect())
                    } else {
                        Kind::Sequence(done.children)
                    };
                    let id = document.add(kind, done.line, done.column);
                    // The name may have been given away inside.
                    if let Some(anchored) = done.anchor.and_then(|name| anchors.get_mut(&name))
                        && matches!(anchored, Anchored::Open(depth) if *depth == open.len())
                    {
                        *anchored = Anchored::Node(id);
                    }
                    id
                }
                Event::Alias(name) => match anchors.get(&name) {
                    Some(Anchored::Node(target)) => document.add(Kind::Alias(*target), line, column),
                    Some(Anchored::Open(_)) => return Err(mark.error("an anchored value contains itself")),
                    None => return Err(mark.error("unknown anchor")),
                },
                Event::Scalar(text, style, Properties { anchor, tag }) => {
                    let plain = style == Style::Plain;
                    let id = document.add(Kind::Scalar { text, plain, tag: tag.map(short_tag) }, line, column);
                    if let Some(name) = anchor {
                        anchors.insert(name, Anchored::Node(id));
                    }
                    id
                }
            };
            if let Some(parent) = open.last_mut() {
                parent.children.push(id);
            }
        }
    }

    /// Add a complete node and give its index.
    fn add(&mut self, kind: Kind, line: usize, column: usize) -> usize {
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
        self.nodes.len() - 1
    }

    pub(super) fn root(&self) -> &Node {
        // The outermost node is completed last.
        self.node(self.nodes.len().saturating_sub(1))
    }

    pub(super) fn node(&self, id: usize) -> &Node {
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
    pub(super) fn resolve(&self, id: usize) -> &Node {
        let mut node = self.node(id);
        while let Kind::Alias(target) = node.kind {
            node = self.node(target);
        }
        node
    }
}

impl Node {
    pub(super) fn error(&self, reason: &str) -> SyntaxError {
        SyntaxError { line: self.line, column: self.column, reason: reason.to_owned() }
    }
}
