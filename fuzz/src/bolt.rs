//! BoltDB files. Meta pages get a right checksum, or no input would come beyond them.

use super::bolt_support::{Item, MemFile, Tree, as_path, blank, bucket_mut, bucket_paths, dump, dump_some, writer};
use super::input::Input;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, OpenOptions, Tx, Writer};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

const PAGE: usize = 1024;

/// Make both meta pages' checksums right.
fn sealed(mut image: Vec<u8>) -> Vec<u8> {
    for slot in [0, PAGE] {
        let Some(meta) = image.get_mut(slot + 16..slot + 80) else { continue };
        let sum = meta[..56]
            .iter()
            .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
    image
}

/// Any file: no panic, no endless walk, no read much larger than the file (which [`MemFile`] watches).
pub fn read(data: &[u8]) {
    let file = MemFile::new(sealed(data.to_vec()));
    let cancel = Cancel::default();
    let Ok(database) = Database::with_layer(Path::new("image"), Box::new(file.clone())) else { return };
    let tree = database.snapshot(&cancel, dump_some);
    let clean = database.snapshot(&cancel, |tx| tx.check()).is_ok_and(|report| report.is_clean());
    assert!(
        !clean || tree.is_ok() || matches!(tree, Err(BoltError::Cancelled)),
        "a sound file is unreadable: {tree:?}"
    );
    let _ =
        database.snapshot(&cancel, |tx| tx.root().for_each_key(|_, _| Ok::<_, BoltError>(ControlFlow::Continue(()))));
    let _ = database.snapshot(&cancel, |tx| {
        for path in bucket_paths() {
            if let Ok(Some(bucket)) = tx.bucket(&as_path(&path)) {
                let mut lookup = bucket.lookup();
                for n in [0, 1, 2, 3, 1] {
                    let _ = lookup.get(format!("{n:03}-key").as_bytes());
                }
            }
        }
        Ok::<_, BoltError>(())
    });
    if let Ok(tree) = tree
        && clean
    {
        found_again(&database, &tree);
    }
    let _ = Writer::with_layer(Path::new("image"), Box::new(file), &OpenOptions::default());
}

/// In a sound file every key that a walk sees is found by looking it up.
fn found_again(database: &Database, tree: &Tree) {
    database
        .snapshot(&Cancel::default(), |tx| {
            let root = tx.root();
            let mut lookup = root.lookup();
            for (key, item) in tree {
                match item {
                    Item::Bucket(_) => assert!(root.bucket(key)?.is_some() && lookup.get(key)?.is_none()),
                    Item::Value(value) => {
                        assert_eq!(root.get(key)?.as_ref(), Some(value));
                        assert_eq!(lookup.get(key)?.as_ref(), Some(value));
                    }
                }
            }
            Ok::<_, BoltError>(())
        })
        .expect("it was readable before");
}

/// A small file with everything in it: branch and leaf pages, overflow, inline and nested buckets, free pages.
pub fn small_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = MemFile::new(blank(PAGE as u32, true));
        let mut open = writer(&file);
        for round in 0..3_u8 {
            let mut batch = Batch::new();
            for path in bucket_paths() {
                batch.create_bucket(&as_path(&path)).unwrap();
                for n in round..if path.len() == 1 { 12 } else { 2 } {
                    let value = vec![n; if n == 7 { 1500 } else { 60 }];
                    batch.put(&as_path(&path), format!("{n:03}-key").as_bytes(), value).unwrap();
                }
            }
            if round == 2 {
                (0..8_u8).for_each(|n| batch.delete(&[b"B"], format!("{n:03}-key").as_bytes()).unwrap());
            }
            open.commit(&batch).unwrap();
        }
        file.image()
    })
}

/// Batches on a file that was damaged, or was not: no panic; and if the file was sound, each commit that succeeds gives a
/// sound file that holds exactly what it should.
pub fn write(data: &[u8]) {
    let mut input = Input(data);
    let mut image = match input.byte() % 3 {
        0 => blank(PAGE as u32, input.byte() % 2 == 0),
        _ => small_file().to_vec(),
    };
    input.damage(&mut image);
    let file = MemFile::new(sealed(image));
    let Ok(mut open) = Writer::with_layer(Path::new("image"), Box::new(file.clone()), &OpenOptions::default()) else {
        return;
    };
    let mut model = sound(&open.tx());
    for _ in 0..8 {
        if input.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        let mut wanted = model.clone();
        for _ in 0..=input.byte() % 32 {
            operation(&mut input, &mut batch, &mut wanted);
        }
        let done = open.commit(&batch).is_ok();
        if let Some(before) = &mut model {
            let now = sound(&open.tx()).expect("a commit made a sound file unsound");
            match wanted {
                Some(wanted) if done => assert!(now == wanted, "the file does not hold what was committed"),
                None if done => {}
                _ => assert!(now == *before, "a commit that failed changed the file"),
            }
            *before = now;
        }
    }
}

/// What the file holds, if it is sound.
fn sound(tx: &Tx<'_>) -> Option<Tree> {
    if !tx.check().is_ok_and(|report| report.is_clean()) {
        return None;
    }
    Some(dump(tx).expect("a sound file is readable"))
}

/// One random operation, in the batch and in the model. An operation in a bucket that is not there is not to be asked for: the
/// commit fails, or a later operation makes the bucket after all, and then the model does not know.
fn operation(input: &mut Input<'_>, batch: &mut Batch<'_>, model: &mut Option<Tree>) {
    let paths = bucket_paths();
    let (kind, path) = (input.byte() % 8, paths[usize::from(input.byte()) % paths.len()].clone());
    let place = as_path(&path);
    let mut key = format!("{:03}-key", input.byte() % 40).into_bytes();
    if kind == 7 {
        key.resize(key.len() + input.word() % 3000, b'k');
    }
    let value = vec![kind; input.word() % if kind == 3 { 20_000 } else { 200 }];
    let accepted = match kind {
        0 => batch.create_bucket(&place),
        1 => batch.delete_bucket(&place),
        2 => batch.delete(&place, &key),
        _ => batch.put(&place, &key, value.clone()),
    };
    let Some(tree) = model else { return };
    let (name, parent) = path.split_last().expect("no path is empty");
    let bucket = if kind == 1 { bucket_mut(tree, parent) } else { bucket_mut(tree, &path) };
    match (kind, bucket) {
        _ if accepted.is_err() => {}
        (0, _) => create(tree, &path),
        (_, None) => *model = None,
        (1, Some(bucket)) => drop(bucket.remove(name)),
        (2, Some(bucket)) => drop(bucket.remove(&key)),
        (_, Some(bucket)) => drop(bucket.insert(key, Item::Value(value))),
    }
}

fn create(model: &mut Tree, path: &[Vec<u8>]) {
    let mut tree = model;
    for name in path {
        match tree.entry(name.clone()).or_insert_with(|| Item::Bucket(Tree::new())) {
            Item::Bucket(inner) => tree = inner,
            Item::Value(_) => return,
        }
    }
}
