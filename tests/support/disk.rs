//! A disk that fails: everything written is logged, so that what a crash leaves can be looked at from every side.

use metactl::metadb::bolt::FileLayer;
use std::io;
use std::sync::{Arc, Mutex};

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// What goes wrong at the n-th write or sync (counted from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// That one fails half way, and everything after it fails too.
    DeadFrom(usize),
    /// From that one on nothing works any more, reading neither: the file system is gone.
    GoneFrom(usize),
    /// Only that one fails.
    Only(usize),
}

#[derive(Debug, Clone)]
enum Pending {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug)]
struct State {
    content: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
    /// What was written since.
    pending: Vec<Pending>,
    operations: usize,
    /// In bytes.
    written: usize,
    fault: Fault,
}

/// A file on such a disk. Clones are the same file.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<State>>);

fn apply(content: &mut Vec<u8>, change: &Pending) {
    match change {
        Pending::Length(length) => content.resize(*length, 0),
        Pending::Bytes(at, bytes) => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(bytes);
        }
    }
}

impl Disk {
    pub fn new(content: Vec<u8>, fault: Fault) -> Self {
        let durable = content.clone();
        Self(Arc::new(Mutex::new(State { content, durable, pending: Vec::new(), operations: 0, written: 0, fault })))
    }

    /// Writes and syncs so far.
    pub fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    /// Bytes written so far.
    pub fn written(&self) -> usize {
        self.0.lock().unwrap().written
    }

    pub fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().content.clone()
    }

    /// What the disk may hold after a crash now: all that was written (the process died), nothing since the last sync, or
    /// any part of it (the power went).
    pub fn after_a_crash(&self) -> Vec<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let some = |chosen: &dyn Fn(usize) -> bool| {
            let mut content = state.durable.clone();
            for (_, change) in state.pending.iter().enumerate().filter(|(at, _)| chosen(*at)) {
                apply(&mut content, change);
            }
            content
        };
        let count = state.pending.len();
        let mut out = vec![state.content.clone(), state.durable.clone()];
        if count > 1 {
            out.extend([some(&|at| at % 2 == 0), some(&|at| at % 2 == 1), some(&|at| at + 1 == count)]);
            out.extend([some(&|at| at >= count / 2), some(&|at| at * 7 % 3 == 0)]);
        }
        out.dedup();
        out
    }

    /// Count an operation and perform it, unless it fails.
    fn operate(&self, change: Option<Pending>) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let number = state.operations;
        state.operations += 1;
        let (fails, torn) = match state.fault {
            Fault::None => (false, false),
            Fault::DeadFrom(from) => (number >= from, number == from),
            Fault::GoneFrom(from) => (number >= from, false),
            Fault::Only(only) => (number == only, false),
        };
        match change {
            Some(mut change) if !fails || torn => {
                if let (true, Pending::Bytes(_, bytes)) = (torn, &mut change) {
                    bytes.truncate(bytes.len() / 2 / SECTOR * SECTOR);
                }
                apply(&mut state.content, &change);
                state.pending.push(change);
            }
            None if !fails => {
                state.durable = state.content.clone();
                state.pending.clear();
            }
            _ => {}
        }
        if fails { Err(io::Error::other("the disk failed")) } else { Ok(()) }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.lock().unwrap();
        if matches!(state.fault, Fault::GoneFrom(from) if state.operations > from) {
            return Err(io::Error::other("the disk is gone"));
        }
        let rest = state.content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn length(&self) -> u64 {
        self.0.lock().unwrap().content.len() as u64
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().written += bytes.len();
        self.operate(Some(Pending::Bytes(usize::try_from(offset).unwrap(), bytes.to_vec())))
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.operate(Some(Pending::Length(usize::try_from(length).unwrap())))
    }
}

impl FileLayer for Disk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.write(offset, buf).map(|()| buf.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len)
    }

    fn sync(&self, _metadata: bool) -> io::Result<()> {
        self.operate(None)
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.length())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        match Self::read(self, out, offset)? {
            count if count == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.resize(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        Self::write(self, offset, data)
    }
}
