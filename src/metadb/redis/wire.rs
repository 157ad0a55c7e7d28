//! Commands packed for the wire, and their replies unpacked.

use super::errors::Fault;
use redis::{ServerError, Value};

/// Commands for one round trip, already encoded: records are large, and are copied once only.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Name of every command, for messages.
    names: Vec<&'static str>,
}

impl Batch {
    /// Add a command. `name` is its first word; a subcommand is the first argument.
    pub fn push(&mut self, name: &'static str, args: &[&[u8]]) {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _ = write!(self.bytes, "*{}\r\n", args.len() + 1);
        let mut part = |bytes: &[u8]| {
            let _ = write!(self.bytes, "${}\r\n", bytes.len());
            self.bytes.extend_from_slice(bytes);
            self.bytes.extend_from_slice(b"\r\n");
        };
        part(name.as_bytes());
        for arg in args {
            part(arg);
        }
        self.names.push(name);
    }

    /// Begin anew, in the same memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.names.clear();
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Encoded size.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded commands.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Name of a command.
    pub fn name(&self, index: usize) -> &'static str {
        self.names.get(index).copied().unwrap_or("?")
    }
}

/// What a server answered to one command.
pub type Reply = Result<Value, ServerError>;

/// A reply that should be bytes or nothing.
pub fn bytes(value: Value) -> Result<Option<Vec<u8>>, Fault> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        Value::Int(number) => Ok(Some(number.to_string().into_bytes())),
        other => Err(unexpected(&other)),
    }
}

/// A reply that should be a list.
pub fn list(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(&other)),
    }
}

/// A reply that should be a number.
pub fn int(value: &Value) -> Result<i64, Fault> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(unexpected(other)),
    }
}

/// A reply that should be text.
pub fn text(value: Value) -> Result<String, Fault> {
    Ok(String::from_utf8_lossy(&bytes(value)?.unwrap_or_default()).into_owned())
}

/// Names the kind only: values are records.
fn unexpected(value: &Value) -> Fault {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    Fault::Protocol(format!("unexpected reply: {kind}"))
}
