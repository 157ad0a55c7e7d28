//! Power cuts, full disks, damaged and foreign files: the old tree or the new one, an error or the data, and never a
//! panic, an endless loop, or more memory than there is file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, OpenOptions, Writer};

/// A file with some history: free pages, nested and inline buckets, overflow pages.
fn with_history(seed: u64, commits: usize, space: usize, page_size: u32) -> (MemFile, Tree, Rng) {
    let mut rng = Rng::new(seed);
    let mut model = Tree::new();
    let file = MemFile::new(blank(page_size, true));
    let mut writer = writer(&file);
    for _ in 0..commits {
        writer.commit(&random_batch(&mut rng, &mut model, space, 20)).unwrap();
    }
    (file, model, rng)
}

/// Commit two transactions and cut the power at every write, growth and sync in between, with and without loss of
/// what was not synced. Each time the file is sound, holds exactly one of the states, and can be written on.
fn crash_everywhere(base: Vec<u8>, states: &mut Vec<Tree>, rng: &mut Rng, space: usize) {
    let file = MemFile::recording(base.clone());
    let mut open = writer(&file);
    let mut committed = vec![0];
    for _ in 0..2 {
        let mut model = states.last().unwrap().clone();
        open.commit(&random_batch(rng, &mut model, space, 30)).unwrap();
        states.push(model);
        committed.push(file.log().len());
    }
    let log = file.log();
    for done in 0..=log.len() {
        let at_least = committed.iter().rposition(|at| *at <= done).unwrap();
        for variant in 0..6 {
            let image = if variant == 0 {
                after_crash(&base, &log, done, None)
            } else {
                after_crash(&base, &log, done, Some(rng))
            };
            let found = dump_image(image.clone());
            let which = states.iter().rposition(|state| *state == found);
            let which = which.unwrap_or_else(|| panic!("after {done} of {} events: neither old nor new", log.len()));
            assert!(which >= at_least && which <= at_least + 1, "after {done}: state {which}, durable {at_least}");
            if variant < 2 {
                let survivor = MemFile::new(image);
                let mut model = found;
                let mut open = writer(&survivor);
                open.commit(&random_batch(rng, &mut model, space, 10)).unwrap();
                assert_eq!(dump_image(survivor.image()), model);
            }
        }
    }
}

#[test]
fn a_crash_at_any_write_leaves_the_old_tree_or_the_new_one() {
    for (seed, page_size) in [(1, 4096), (2, 4096), (3, 1024), (4, 16384)] {
        let (file, model, mut rng) = with_history(seed, 15, 200, page_size);
        crash_everywhere(file.image(), &mut vec![model], &mut rng, 200);
    }
}

#[test]
fn a_crash_while_the_file_grows() {
    // Nothing free: every page goes behind the end.
    crash_everywhere(blank(4096, true), &mut vec![Tree::new()], &mut Rng::new(9), 2000);
}

#[test]
fn a_crash_without_stored_freelist() {
    crash_everywhere(blank(4096, false), &mut vec![Tree::new()], &mut Rng::new(11), 300);
}

/// bbolt's hot copies have the newest meta page in slot 0 with any transaction id. The next commit must not write
/// over the only page that names the newest tree... or a crash would lose it.
#[test]
fn a_crash_on_a_hot_copy() {
    for odd in [false, true] {
        let (file, mut model, mut rng) = with_history(21, 10, 200, 4096);
        let mut image = file.image();
        if odd {
            let mut open = writer(&file);
            open.commit(&random_batch(&mut rng, &mut model, 200, 10)).unwrap();
            image = file.image();
        }
        let txid = |slot: usize| u64::from_le_bytes(image[slot * 4096 + 64..slot * 4096 + 72].try_into().unwrap());
        let newest = usize::from(txid(1) > txid(0));
        // Newest page into slot 0, and wreck slot 1, which is harder than what bbolt's copy does.
        let page = image[newest * 4096..newest * 4096 + 4096].to_vec();
        image[..4096].copy_from_slice(&page);
        image[4096..8192].fill(0xAA);
        crash_everywhere(image, &mut vec![model], &mut rng, 200);
    }
}

#[test]
fn a_crash_during_creation() {
    let file = MemFile::recording(Vec::new());
    drop(writer(&file));
    let log = file.log();
    let mut rng = Rng::new(2);
    for done in 0..=log.len() {
        for variant in 0..20 {
            let lost = if variant == 0 { None } else { Some(&mut rng) };
            let survivor = MemFile::new(after_crash(&[], &log, done, lost));
            let mut open = writer(&survivor);
            let mut batch = Batch::new();
            batch.create_bucket(&[b"b"]).unwrap();
            open.commit(&batch).unwrap();
            assert_eq!(dump_image(survivor.image()).len(), 1, "after {done} events");
        }
    }
}

/// Let every single write, growth and sync of a commit fail.
#[test]
fn a_failing_disk_leaves_the_old_tree_or_says_it_does_not_know() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let (file, model, mut rng) = with_history(5, 12, 200, 4096);
        let base = file.image();
        let mut new = model.clone();
        let batch = random_batch(&mut rng, &mut new, 200, 30);
        let (mut usable, mut poisoned) = (0, 0);
        for after in 0.. {
            let file = MemFile::new(base.clone());
            let mut open = writer(&file);
            file.0.lock().unwrap().fail_after = Some((after, kind));
            let result = open.commit(&batch);
            file.0.lock().unwrap().fail_after = None;
            let Err(error) = result else { break };
            let (BoltError::Io { source, .. } | BoltError::Unsettled { source, .. }) = &error else {
                panic!("{error}")
            };
            assert_eq!(source.kind(), kind, "{error}");
            assert_eq!(error.is_no_space(), kind == ErrorKind::StorageFull);
            let found = dump_image(file.image());
            match open.commit(&batch) {
                Ok(()) => {
                    usable += 1;
                    assert_eq!(found, model);
                    assert_eq!(dump_image(file.image()), new, "the second attempt");
                }
                Err(BoltError::Poisoned { .. }) => {
                    poisoned += 1;
                    assert!(found == model || found == new && matches!(error, BoltError::Unsettled { .. }));
                    drop(open);
                    writer(&file).commit(&batch).unwrap();
                    assert_eq!(dump_image(file.image()), new);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(usable > 5, "{usable} failures left the writer usable");
        assert_eq!(poisoned, 3, "data sync, meta page, meta sync");
    }
}

#[test]
fn a_full_disk_can_be_cleared() {
    let (file, model, _) = with_history(6, 5, 100, 4096);
    let mut open = writer(&file);
    file.0.lock().unwrap().room = Some(file.image().len() as u64 + 20_000);
    let mut batch = Batch::new();
    batch.create_bucket(&[b"big"]).unwrap();
    for n in 0..3_000_u32 {
        batch.put(&[b"big"], &n.to_be_bytes(), vec![3; 1000]).unwrap();
    }
    for _ in 0..3 {
        let error = open.commit(&batch).unwrap_err();
        assert!(error.is_no_space(), "{error}");
        assert_eq!(dump_image(file.image()), model);
    }
    file.0.lock().unwrap().room = None;
    open.commit(&batch).unwrap();
    let mut expected = model;
    let big = (0..3_000_u32).map(|n| (n.to_be_bytes().to_vec(), Item::Value(vec![3; 1000]))).collect();
    expected.insert(b"big".to_vec(), Item::Bucket(big));
    assert_eq!(dump_image(file.image()), expected);
}

#[test]
fn short_reads_and_writes_change_nothing() {
    let file = MemFile::default();
    file.0.lock().unwrap().short = Some(97);
    let mut open = writer(&file);
    let mut rng = Rng::new(8);
    let mut model = Tree::new();
    for _ in 0..10 {
        open.commit(&random_batch(&mut rng, &mut model, 100, 10)).unwrap();
        assert_eq!(dump(&open.tx()).unwrap(), model);
    }
    assert_eq!(dump_image(file.image()), model);
}

#[test]
fn a_commit_that_was_begun_is_finished_in_spite_of_a_signal() {
    let (file, mut model, mut rng) = with_history(12, 5, 100, 4096);
    let cancel = Cancel::default();
    let options = OpenOptions { cancel: cancel.clone(), ..options(false) };
    let mut open = Writer::with_layer(Path::new("image"), Box::new(file.clone()), &options).unwrap();
    cancel.cancel();
    let batch = random_batch(&mut rng, &mut model, 100, 10);
    open.commit(&batch).unwrap();
    assert_eq!(dump_image(file.image()), model);
}

/// Read everything there is, by walks and by lookups, then write. Only panics, endless loops and huge reads (which
/// [`MemFile`] refuses) fail this; the result of the walk is returned.
fn use_everything(image: Vec<u8>, keys: &[(Vec<Vec<u8>>, Vec<u8>)]) -> Option<Tree> {
    let file = MemFile::new(image);
    let cancel = Cancel::default();
    let mut tree = None;
    if let Ok(database) = Database::with_layer(Path::new("image"), Box::new(file.clone())) {
        tree = database.snapshot(&cancel, dump_some).ok();
        let _ = database.snapshot(&cancel, |tx| tx.check());
        let _ = database
            .snapshot(&cancel, |tx| tx.root().for_each_key(|_, _| Ok::<_, BoltError>(ControlFlow::Continue(()))));
        let _ = database.snapshot(&cancel, |tx| {
            for (path, key) in keys {
                if let Ok(Some(bucket)) = tx.bucket(&as_path(path)) {
                    let _ = bucket.get(key);
                }
            }
            Ok::<_, BoltError>(())
        });
    }
    if let Ok(mut open) = Writer::with_layer(Path::new("image"), Box::new(file), &OpenOptions::default()) {
        for round in 0..2 {
            let mut batch = Batch::new();
            for (n, (path, key)) in keys.iter().enumerate() {
                if n % 2 == round {
                    batch.put(&as_path(path), key, vec![1; 30 * n]).unwrap();
                } else {
                    batch.delete(&as_path(path), key).unwrap();
                }
            }
            let _ = open.commit(&batch);
        }
        let mut batch = Batch::new();
        batch.delete_bucket(&[b"A"]).unwrap();
        let _ = open.commit(&batch);
    }
    tree
}

fn all_keys(tree: &Tree, path: &[Vec<u8>], out: &mut Vec<(Vec<Vec<u8>>, Vec<u8>)>) {
    for (key, item) in tree {
        match item {
            Item::Value(_) => out.push((path.to_vec(), key.clone())),
            Item::Bucket(inner) => all_keys(inner, &[path, std::slice::from_ref(key)].concat(), out),
        }
    }
}

/// A small file with everything in it: branch and leaf pages, overflow, inline and nested buckets, free pages.
fn small_file() -> (Vec<u8>, Tree, Tree) {
    let file = MemFile::new(blank(1024, true));
    let mut open = writer(&file);
    let mut before = Tree::new();
    for round in 0..3_u8 {
        let mut batch = Batch::new();
        for path in bucket_paths() {
            batch.create_bucket(&as_path(&path)).unwrap();
            let count = if path.len() == 1 { 12 } else { 2 };
            for n in round..count {
                let key = format!("{n:03}-key");
                batch.put(&as_path(&path), key.as_bytes(), vec![n; if n == 7 { 1500 } else { 60 }]).unwrap();
            }
        }
        if round == 2 {
            before = dump(&open.tx()).unwrap();
            for n in 0..8_u8 {
                batch.delete(&[b"B"], format!("{n:03}-key").as_bytes()).unwrap();
            }
        }
        open.commit(&batch).unwrap();
    }
    let report = open.tx().check().unwrap();
    assert!(report.is_clean() && report.branch_pages > 0 && report.overflow_pages > 0, "{report:#?}");
    assert!(report.inline_buckets > 0 && report.free_pages > 3, "{report:#?}");
    let now = dump(&open.tx()).unwrap();
    (file.image(), now, before)
}

#[test]
fn every_byte_damaged() {
    let (image, tree, before) = small_file();
    let mut keys = Vec::new();
    all_keys(&tree, &[], &mut keys);
    let damage = |first: usize| {
        let mut unnoticed = 0;
        for position in (first..image.len()).step_by(2) {
            // All bits, and one bit, which is another one at each position.
            for mask in [0xFF, 1_u8.rotate_left((position / 2 + position / 16) as u32)] {
                let mut damaged = image.clone();
                damaged[position] ^= mask;
                let seen = use_everything(damaged, &keys);
                if position < 2048 {
                    // Meta pages have a checksum: what is read is one of the two states, or nothing.
                    assert!(seen.is_none_or(|seen| seen == tree || seen == before), "byte {position} mask {mask:#x}");
                } else {
                    unnoticed += usize::from(seen.is_some_and(|seen| seen != tree));
                }
            }
        }
        unnoticed
    };
    let unnoticed: usize = std::thread::scope(|scope| {
        let odd = scope.spawn(|| damage(1));
        damage(0) + odd.join().unwrap()
    });
    // The format has no checksums for keys and values: their damage cannot be seen here. The number is only
    // bounded so that a loss of the structural checks is noticed.
    assert!(unnoticed < image.len() / 3, "{unnoticed} of {} changes unnoticed", image.len() * 2);
}

#[test]
fn random_damage() {
    let (image, tree, _) = small_file();
    let mut keys = Vec::new();
    all_keys(&tree, &[], &mut keys);
    let mut rng = Rng::new(77);
    for _ in 0..5_000 {
        let mut damaged = image.clone();
        for _ in 0..rng.below(20) + 1 {
            // Past the meta pages, or little would be reached.
            let at = 2048 + rng.below(image.len() - 2048 - 8);
            match rng.below(4) {
                0 => damaged[at] = rng.next() as u8,
                1 => damaged[at & !7] = rng.below(20) as u8,
                2 => damaged[at..at + 8].fill(0xFF),
                _ => {
                    let (from, to) = (rng.below(image.len() / 1024), rng.below(image.len() / 1024 - 2) + 2);
                    damaged.copy_within(from * 1024 + 8..from * 1024 + 1024, to * 1024 + 8);
                }
            }
        }
        use_everything(damaged, &keys);
    }
}

#[test]
fn truncated_anywhere() {
    let (image, tree, before) = small_file();
    let mut keys = Vec::new();
    all_keys(&tree, &[], &mut keys);
    for len in (0..image.len()).step_by(37).chain((0..image.len()).step_by(512)).chain(0..300) {
        let seen = use_everything(image[..len].to_vec(), &keys);
        assert!(seen.is_none_or(|seen| seen == tree || seen == before), "cut at {len}");
    }
}

/// A branch whose children are itself or each other must not keep a walk going for ever.
#[test]
fn branches_in_a_circle() {
    let (image, tree, _) = small_file();
    let mut keys = Vec::new();
    all_keys(&tree, &[], &mut keys);
    let pages = image.len() / 1024;
    for page in 2..pages {
        for child in 2..pages {
            let mut damaged = image.clone();
            let at = page * 1024;
            if damaged[at + 8] != 1 {
                continue;
            }
            for element in 0..usize::from(damaged[at + 10]) {
                let id = at + 16 + element * 16 + 8;
                damaged[id..id + 8].copy_from_slice(&(child as u64).to_le_bytes());
            }
            use_everything(damaged, &keys);
        }
    }
}

#[test]
fn a_damaged_root_is_named_and_the_older_tree_is_not_taken_for_it() {
    let (image, tree, _) = small_file();
    let root = |slot: usize| u64::from_le_bytes(image[slot * 1024 + 32..slot * 1024 + 40].try_into().unwrap()) as usize;
    let txid = |slot: usize| u64::from_le_bytes(image[slot * 1024 + 64..slot * 1024 + 72].try_into().unwrap());
    let newest = usize::from(txid(1) > txid(0));
    let open = |image: Vec<u8>| Database::with_layer(Path::new("image"), Box::new(MemFile::new(image))).unwrap();
    let cancel = Cancel::default();
    assert_eq!(open(image.clone()).snapshot(&cancel, dump).unwrap(), tree);

    let mut damaged = image.clone();
    damaged[root(newest) * 1024 + 8] = 0;
    let error = open(damaged).snapshot(&cancel, dump).unwrap_err();
    assert!(matches!(error, BoltError::Damaged { page, .. } if page == root(newest) as u64), "{error}");
}

/// The freelist of a damaged file may list pages in use. Writing over them would destroy data, so it is refused.
#[test]
fn a_used_page_in_the_freelist_is_not_written_over() {
    let (image, tree, _) = small_file();
    let file = MemFile::new(image.clone());
    let report = writer(&file).tx().check().unwrap();
    let newest = (0..2)
        .max_by_key(|slot| u64::from_le_bytes(image[slot * 1024 + 64..slot * 1024 + 72].try_into().unwrap()))
        .unwrap();
    let long = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let (root, freelist) = (long(newest * 1024 + 32), long(newest * 1024 + 48) as usize);
    let mut damaged = image.clone();
    let last = freelist * 1024 + 16 + (report.free_pages as usize - 1) * 8;
    damaged[last..last + 8].copy_from_slice(&root.to_le_bytes());
    let file = MemFile::new(damaged.clone());
    let mut open = writer(&file);
    assert!(!open.tx().check().unwrap().is_clean());
    let mut batch = Batch::new();
    batch.put(&[b"A"], b"000-key", b"v").unwrap();
    assert!(matches!(open.commit(&batch), Err(BoltError::Damaged { page, .. }) if page == root));
    assert_eq!(dump(&open.tx()).unwrap(), tree);
}

#[test]
fn what_is_no_bolt_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let detail = |expected: &str| {
        let options = OpenOptions { lock_timeout: Duration::ZERO, ..OpenOptions::default() };
        for error in [Database::open(&path).unwrap_err(), Writer::open(&path, &options).unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(error, BoltError::NotBolt { .. }) && text.contains(expected), "{text}");
        }
    };
    assert!(matches!(Database::open(&path), Err(BoltError::NotFound { .. })));
    assert!(matches!(Writer::open(&path, &OpenOptions::default()), Err(BoltError::NotFound { .. })));
    std::fs::create_dir(&path).unwrap();
    detail("a directory");
    std::fs::remove_dir(&path).unwrap();
    for (content, expected) in [
        (&b""[..], "empty"),
        (b"redb\x1a\x0a\xa9\x0d\x0a and more", "redb"),
        (b"SQLite format 3\0 and more", "SQLite"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"{\"storage\": {}}", "JSON"),
        (b"anything else", "neither meta page is valid"),
        (&[0; 20_000], "neither meta page is valid"),
    ] {
        std::fs::write(&path, content).unwrap();
        detail(expected);
    }
    std::fs::remove_file(&path).unwrap();
    rustix_fifo(&path);
    detail("not a regular file");
}

/// Opening a FIFO would wait for somebody to write to it.
fn rustix_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn errors_say_what_the_system_said() {
    let error = BoltError::Io {
        action: "open",
        path: "/x/meta.db".into(),
        source: io::Error::from(ErrorKind::PermissionDenied),
    };
    assert!(error.is_permission_denied() && !error.is_no_space() && !error.is_read_only());
    assert_eq!(error.to_string(), "cannot open /x/meta.db");
    assert!(std::error::Error::source(&error).is_some());
}
