//! The least that a first walk has to do, to compare with: read every file of a store and parse it as JSON on some threads,
//! and meanwhile write as many bytes as the metaDB will have, once, with one sync at the end.
//!
//! usage: floor STORE OUT BYTES THREADS
//!
//! Nothing but the standard library, so that `rustc -O benches/floor.rs` builds it.
#![allow(clippy::unwrap_used, reason = "a measuring tool that cannot go on has nothing to say")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, out, bytes, threads] = arguments.as_slice() else { panic!("usage: floor STORE OUT BYTES THREADS") };
    let (sender, receiver) = channel();
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        scope.spawn(|| list(PathBuf::from(store), sender));
        for _ in 0..threads.parse().unwrap() {
            scope.spawn(|| {
                let next = || receiver.lock().unwrap().recv();
                while let Ok(files) = next() {
                    for file in files {
                        let content = fs::read(file).unwrap();
                        assert_eq!(std::hint::black_box(tokens(&content)).1, 0, "brackets that do not match");
                    }
                }
            });
        }
        write(out, bytes.parse().unwrap());
    });
}

/// Take a JSON text apart into its tokens: how many there are, and how deep it ends.
fn tokens(text: &[u8]) -> (usize, i64) {
    let (mut count, mut depth, mut at) = (0, 0, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                while let Some(byte) = text.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' => continue,
            _ => {
                while text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
                    at += 1;
                }
            }
        }
        count += 1;
    }
    (count, depth)
}

/// Find the blobs below a directory and send them, some of one directory at a time, so that a huge repo is shared too.
fn list(store: PathBuf, sender: Sender<Vec<PathBuf>>) {
    const TOGETHER: usize = 256;
    let mut pending = vec![store];
    while let Some(directory) = pending.pop() {
        let mut files = Vec::new();
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else if directory.ends_with("sha256") {
                files.push(entry.path());
            }
            if files.len() == TOGETHER {
                sender.send(std::mem::take(&mut files)).unwrap();
            }
        }
        sender.send(files).unwrap();
    }
}

fn write(out: &str, bytes: usize) {
    let mut file = File::create(out).unwrap();
    let piece = vec![7; 1 << 20];
    for start in (0..bytes).step_by(piece.len()) {
        file.write_all(piece.get(..piece.len().min(bytes - start)).unwrap()).unwrap();
    }
    file.sync_all().unwrap();
}
