//! Go's decoding rules once more, over a syntax tree instead of text: JSON values as they are written (duplicate members,
//! escapes, invalid UTF-8 included), the types that zot decodes into, and what Go makes of one as the other.

use base64::Engine as _;
use metactl::oci::time::{Time, parse};
use metactl::oci::{Annotations, Descriptor, Empty, Image, Index, Manifest, Platform};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A value as written.
#[derive(Debug, Clone)]
pub enum Written {
    Null,
    Bool(bool),
    Number(String),
    Text(Vec<Piece>),
    List(Vec<Written>),
    Object(Vec<(Vec<Piece>, Written)>),
}

/// A part of a string.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Characters as they are; no quote, backslash or control character.
    Plain(String),
    /// An escape sequence and what it stands for.
    Escape(&'static str, &'static str),
    /// Bytes that are no UTF-8, whatever follows, and what they are taken for.
    Invalid(&'static [u8], &'static str),
}

/// The text of a string after decoding.
pub fn text(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Plain(text) => text.as_str(),
            Piece::Escape(_, meaning) | Piece::Invalid(_, meaning) => meaning,
        })
        .collect()
}

fn write_text(pieces: &[Piece], out: &mut Vec<u8>) {
    out.push(b'"');
    for piece in pieces {
        match piece {
            Piece::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Escape(sequence, _) => out.extend_from_slice(sequence.as_bytes()),
            Piece::Invalid(bytes, _) => out.extend_from_slice(bytes),
        }
    }
    out.push(b'"');
}

impl Written {
    /// As a document, with some white space.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b" null"),
            Self::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(pieces) => write_text(pieces, out),
            Self::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"\t,\r\n" } else { b" " });
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_text(name, out);
                    out.extend_from_slice(b" : ");
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// A Go type.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    Text,
    Int,
    Bool,
    Bytes,
    /// `*time.Time`
    Time,
    List(&'static Type),
    /// `map[string]T`
    Map(&'static Type),
    Record(&'static [(&'static str, Type)]),
    /// `*T`
    Optional(&'static Type),
}

use Type::{Bool, Bytes, Int, List, Optional, Record, Text};

static TEXTS: Type = List(&Text);
static STRINGS: Type = Type::Map(&Text);
static SET: Type = Type::Map(&Record(&[]));
pub static PLATFORM: Type =
    Record(&[("architecture", Text), ("os", Text), ("os.version", Text), ("os.features", TEXTS), ("variant", Text)]);
pub static DESCRIPTOR: Type = Record(&[
    ("mediaType", Text),
    ("digest", Text),
    ("size", Int),
    ("urls", TEXTS),
    ("annotations", STRINGS),
    ("data", Bytes),
    ("platform", Optional(&PLATFORM)),
    ("artifactType", Text),
]);
pub static INDEX: Type = Record(&[
    ("schemaVersion", Int),
    ("mediaType", Text),
    ("artifactType", Text),
    ("manifests", List(&DESCRIPTOR)),
    ("subject", Optional(&DESCRIPTOR)),
    ("annotations", STRINGS),
]);
pub static MANIFEST: Type = Record(&[
    ("schemaVersion", Int),
    ("mediaType", Text),
    ("artifactType", Text),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("subject", Optional(&DESCRIPTOR)),
    ("annotations", STRINGS),
]);
static CONFIG: Type = Record(&[
    ("User", Text),
    ("ExposedPorts", SET),
    ("Env", TEXTS),
    ("Entrypoint", TEXTS),
    ("Cmd", TEXTS),
    ("Volumes", SET),
    ("WorkingDir", Text),
    ("Labels", STRINGS),
    ("StopSignal", Text),
    ("ArgsEscaped", Bool),
]);
static HISTORY: Type = Record(&[
    ("created", Type::Time),
    ("created_by", Text),
    ("author", Text),
    ("comment", Text),
    ("empty_layer", Bool),
]);
pub static IMAGE: Type = Record(&[
    ("created", Type::Time),
    ("author", Text),
    ("architecture", Text),
    ("os", Text),
    ("os.version", Text),
    ("os.features", TEXTS),
    ("variant", Text),
    ("config", CONFIG),
    ("rootfs", Record(&[("type", Text), ("diff_ids", TEXTS)])),
    ("history", List(&HISTORY)),
]);

/// A Go variable.
#[derive(Debug, Clone)]
enum Variable {
    Text(String),
    Int(i64),
    Bool(bool),
    Bytes(Vec<u8>),
    Time(Option<Time>),
    /// Elements within the capacity, and the length.
    List(Vec<Variable>, usize),
    Map(BTreeMap<String, Variable>),
    Record(Vec<Variable>),
    Optional(Option<Box<Variable>>),
}

fn zero(kind: &Type) -> Variable {
    match kind {
        Text => Variable::Text(String::new()),
        Int => Variable::Int(0),
        Bool => Variable::Bool(false),
        Bytes => Variable::Bytes(Vec::new()),
        Type::Time => Variable::Time(None),
        List(_) => Variable::List(Vec::new(), 0),
        Type::Map(_) => Variable::Map(BTreeMap::new()),
        Record(fields) => Variable::Record(fields.iter().map(|(_, kind)| zero(kind)).collect()),
        Optional(_) => Variable::Optional(None),
    }
}

/// Go's simple case folding of the characters that matter, by hand.
fn folded(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '\u{17f}' => 'S',
            '\u{212a}' => 'K',
            _ => c.to_ascii_uppercase(),
        })
        .collect()
}

fn set(kind: &Type, variable: &mut Variable, value: &Written) -> Option<()> {
    if matches!(value, Written::Null) {
        match kind {
            Bytes | Type::Time | List(_) | Type::Map(_) | Optional(_) => *variable = zero(kind),
            Text | Int | Bool | Record(_) => {}
        }
        return Some(());
    }
    match (kind, variable, value) {
        (Text, Variable::Text(variable), Written::Text(pieces)) => *variable = text(pieces),
        (Int, Variable::Int(variable), Written::Number(number)) => {
            let integer = !number.contains(['.', 'e', 'E']);
            *variable = number.parse().ok().filter(|_| integer)?;
        }
        (Bool, Variable::Bool(variable), Written::Bool(value)) => *variable = *value,
        (Bytes, Variable::Bytes(variable), Written::Text(pieces)) => *variable = base64_bytes(&text(pieces))?,
        (Bytes, Variable::Bytes(variable), Written::List(items)) => {
            let byte = |item: &Written| match item {
                Written::Null => Some(0),
                Written::Number(number) if number != "-0" => number.parse::<u8>().ok(),
                Written::Number(_) => None,
                _ => None,
            };
            *variable = items.iter().map(byte).collect::<Option<_>>()?;
        }
        (Type::Time, Variable::Time(variable), Written::Text(pieces)) => *variable = Some(parse(&text(pieces))?),
        (List(kind), Variable::List(elements, length), Written::List(items)) => {
            for (at, item) in items.iter().enumerate() {
                if at == elements.len() {
                    elements.push(zero(kind));
                }
                set(kind, &mut elements[at], item)?;
            }
            *length = items.len();
            if items.is_empty() {
                elements.clear();
            }
        }
        (Type::Map(kind), Variable::Map(entries), Written::Object(members)) => {
            for (name, item) in members {
                let mut entry = zero(kind);
                set(kind, &mut entry, item)?;
                entries.insert(text(name), entry);
            }
        }
        (Record(fields), Variable::Record(variables), Written::Object(members)) => {
            for (name, item) in members {
                let name = text(name);
                let exact = fields.iter().position(|(field, _)| *field == name);
                let folded = || fields.iter().position(|(field, _)| self::folded(field) == self::folded(&name));
                if let Some(at) = exact.or_else(folded) {
                    set(&fields[at].1, &mut variables[at], item)?;
                }
            }
        }
        (Optional(kind), Variable::Optional(target), value) => {
            set(kind, target.get_or_insert_with(|| Box::new(zero(kind))), value)?;
        }
        _ => return None,
    }
    Some(())
}

/// Standard base64 the slow way: four characters at a time, line breaks ignored, padding only at the end.
fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let characters: Vec<char> = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let mut out = Vec::new();
    for (at, group) in characters.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|c| **c == '=').count();
        if group.len() < 4 || padding > 2 || padding > 0 && (at + 1) * 4 < characters.len() {
            return None;
        }
        let mut bits = 0_usize;
        for c in &group[..4 - padding] {
            bits = bits << 6 | ALPHABET.find(*c)?;
        }
        bits <<= 6 * padding;
        out.extend((0..3 - padding).map(|byte| u8::try_from(bits >> (16 - 8 * byte) & 0xff).unwrap()));
    }
    Some(out)
}

fn time(at: Option<Time>) -> Value {
    at.map_or(Value::Null, |at| json!([at.seconds, at.nanos]))
}

fn bytes(data: &[u8]) -> Value {
    json!(base64::engine::general_purpose::STANDARD.encode(data))
}

fn show(kind: &Type, variable: &Variable) -> Value {
    match (kind, variable) {
        (_, Variable::Text(value)) => json!(value),
        (_, Variable::Int(value)) => json!(value),
        (_, Variable::Bool(value)) => json!(value),
        (_, Variable::Bytes(value)) => bytes(value),
        (_, Variable::Time(value)) => time(*value),
        (List(kind), Variable::List(elements, length)) => {
            elements.iter().take(*length).map(|element| show(kind, element)).collect()
        }
        (Type::Map(kind), Variable::Map(entries)) => {
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), show(kind, value))).collect())
        }
        (Record(fields), Variable::Record(variables)) => {
            let members = fields.iter().zip(variables);
            Value::Object(members.map(|((name, kind), value)| ((*name).to_owned(), show(kind, value))).collect())
        }
        (Optional(kind), Variable::Optional(value)) => value.as_ref().map_or(Value::Null, |value| show(kind, value)),
        _ => unreachable!(),
    }
}

/// What Go decodes `value` as `kind` to; `None` if it refuses.
pub fn decoded(kind: &Type, value: &Written) -> Option<Value> {
    let mut variable = zero(kind);
    set(kind, &mut variable, value)?;
    Some(show(kind, &variable))
}

/// The library's documents in the shape of [`decoded`].
pub trait Shown {
    fn shown(&self) -> Value;
}

fn strings(map: &Annotations) -> Value {
    Value::Object(map.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}

fn keys(map: &BTreeMap<String, Empty>) -> Value {
    Value::Object(map.keys().map(|key| (key.clone(), Value::Object(Map::new()))).collect())
}

impl Shown for Platform {
    fn shown(&self) -> Value {
        json!({
            "architecture": self.architecture, "os": self.os, "os.version": self.os_version,
            "os.features": self.os_features.to_vec(), "variant": self.variant,
        })
    }
}

impl Shown for Descriptor {
    fn shown(&self) -> Value {
        json!({
            "mediaType": self.media_type, "digest": self.digest, "size": self.size, "urls": self.urls.to_vec(),
            "annotations": strings(&self.annotations), "data": bytes(&self.data.0),
            "platform": self.platform.as_ref().map(Shown::shown), "artifactType": self.artifact_type,
        })
    }
}

impl Shown for Index {
    fn shown(&self) -> Value {
        json!({
            "schemaVersion": self.schema_version, "mediaType": self.media_type, "artifactType": self.artifact_type,
            "manifests": self.manifests.iter().map(Shown::shown).collect::<Vec<_>>(),
            "subject": self.subject.as_ref().map(Shown::shown), "annotations": strings(&self.annotations),
        })
    }
}

impl Shown for Manifest {
    fn shown(&self) -> Value {
        json!({
            "schemaVersion": self.schema_version, "mediaType": self.media_type, "artifactType": self.artifact_type,
            "config": self.config.shown(), "layers": self.layers.iter().map(Shown::shown).collect::<Vec<_>>(),
            "subject": self.subject.as_ref().map(Shown::shown), "annotations": strings(&self.annotations),
        })
    }
}

impl Shown for Image {
    fn shown(&self) -> Value {
        let config = &self.config;
        let history = self.history.iter().map(|step| {
            json!({
                "created": time(step.created), "created_by": step.created_by, "author": step.author,
                "comment": step.comment, "empty_layer": step.empty_layer,
            })
        });
        json!({
            "created": time(self.created), "author": self.author, "architecture": self.architecture, "os": self.os,
            "os.version": self.os_version, "os.features": self.os_features.to_vec(), "variant": self.variant,
            "config": {
                "User": config.user, "ExposedPorts": keys(&config.exposed_ports), "Env": config.env.to_vec(),
                "Entrypoint": config.entrypoint.to_vec(), "Cmd": config.cmd.to_vec(),
                "Volumes": keys(&config.volumes), "WorkingDir": config.working_dir,
                "Labels": strings(&config.labels), "StopSignal": config.stop_signal,
                "ArgsEscaped": config.args_escaped,
            },
            "rootfs": {"type": self.rootfs.kind, "diff_ids": self.rootfs.diff_ids.to_vec()},
            "history": history.collect::<Vec<_>>(),
        })
    }
}
