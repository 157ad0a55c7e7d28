//! Random transactions against a model, on every page size, and zot's own file read back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a suite for other code")]

mod bolt_support;

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use bolt_support::*;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, BoltError, Database, EntryKind, Writer};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

/// Many transactions on one file; after each one, a fresh reader sees the model and a clean check.
fn run_model(page_size: u32, stored_freelist: bool, seed: u64, rounds: usize, space: usize) {
    let mut rng = Rng::new(seed);
    let file = MemFile::new(blank(page_size, stored_freelist));
    let mut model = Tree::new();
    let mut open = writer(&file);
    for round in 0..rounds {
        let batch = random_batch(&mut rng, &mut model, space, 40);
        open.commit(&batch).unwrap_or_else(|error| panic!("seed {seed} round {round}: {error}"));
        assert_eq!(dump_image(file.image()), model, "seed {seed} round {round}");
        assert_eq!(dump(&open.tx()).unwrap(), model, "seed {seed} round {round}: the writer's own view");
        if rng.chance(5) {
            // Reopening must find the same free pages that the writer kept in memory.
            drop(open);
            open = writer(&file);
        }
    }
}

#[test]
fn random_transactions_equal_the_model_4096() {
    for seed in 0..12 {
        run_model(4096, true, seed, 100, 300);
    }
}

#[test]
fn random_transactions_equal_the_model_large_tree() {
    run_model(4096, true, 100, 60, 20_000);
}

#[test]
fn random_transactions_equal_the_model_other_page_sizes() {
    for (page_size, seed) in [(1024, 1), (2048, 2), (8192, 3), (16384, 4), (32768, 5), (65536, 6)] {
        run_model(page_size, true, seed, 80, 500);
    }
}

#[test]
fn random_transactions_equal_the_model_without_stored_freelist() {
    for (page_size, seed) in [(1024, 1), (4096, 2), (16384, 3), (65536, 4)] {
        run_model(page_size, false, seed, 80, 500);
    }
}

#[test]
fn random_transactions_equal_the_model_on_a_real_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let mut rng = Rng::new(7);
    let mut model = Tree::new();
    for round in 0..40 {
        let mut writer = Writer::open(&path, &options(true)).unwrap();
        writer.commit(&random_batch(&mut rng, &mut model, 1000, 60)).unwrap();
        let database = Database::open(&path).unwrap();
        let (seen, report) =
            database.snapshot(&Cancel::default(), |tx| Ok::<_, BoltError>((dump(tx)?, tx.check()?))).unwrap();
        assert_eq!(seen, model, "round {round}");
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Keys of up to 32 KiB make branch pages with overflow; a branch must still have two children.
#[test]
fn giant_keys() {
    for page_size in [1024, 4096] {
        let file = MemFile::new(blank(page_size, true));
        let mut writer = writer(&file);
        let mut rng = Rng::new(3);
        let mut model = Tree::new();
        for _ in 0..30 {
            let mut batch = Batch::new();
            batch.create_bucket(&[b"b"]).unwrap();
            let tree = match model.entry(b"b".to_vec()).or_insert_with(|| Item::Bucket(Tree::new())) {
                Item::Bucket(tree) => tree,
                Item::Value(_) => unreachable!(),
            };
            for _ in 0..10 {
                let mut key = format!("{:03}", rng.below(100)).into_bytes();
                key.resize(32_768 - 7 * (key[2] as usize % 5), b'x');
                if rng.chance(3) {
                    batch.delete(&[b"b"], &key).unwrap();
                    tree.remove(&key);
                } else {
                    batch.put(&[b"b"], &key, b"v").unwrap();
                    tree.insert(key, Item::Value(b"v".to_vec()));
                }
            }
            writer.commit(&batch).unwrap();
            assert_eq!(dump_image(file.image()), model);
        }
    }
}

/// More than 65,534 free pages need the long form of the freelist.
#[test]
fn freelist_beyond_16_bits() {
    let file = MemFile::new(blank(1024, true));
    let mut open = writer(&file);
    let mut batch = Batch::new();
    batch.create_bucket(&[b"b"]).unwrap();
    for n in 0..80_000_u32 {
        batch.put(&[b"b"], &n.to_be_bytes(), vec![7; 900]).unwrap();
    }
    open.commit(&batch).unwrap();
    let mut batch = Batch::new();
    for n in 0..80_000_u32 {
        batch.delete(&[b"b"], &n.to_be_bytes()).unwrap();
    }
    open.commit(&batch).unwrap();
    let pages = open.tx().page_count();
    drop(open);
    assert_eq!(dump_image(file.image()), Tree::from([(b"b".to_vec(), Item::Bucket(Tree::new()))]));

    let mut open = writer(&file);
    let mut batch = Batch::new();
    for n in 0..70_000_u32 {
        batch.put(&[b"b"], &n.to_be_bytes(), vec![9; 900]).unwrap();
    }
    open.commit(&batch).unwrap();
    assert_eq!(open.tx().page_count(), pages, "free pages are used before the file grows");
    assert!(open.tx().check().unwrap().is_clean());
}

/// Rewriting the same keys must not make the file grow without end.
#[test]
fn the_file_does_not_grow_when_content_does_not() {
    let file = MemFile::default();
    let mut writer = writer(&file);
    let mut rng = Rng::new(1);
    let mut sizes = Vec::new();
    for _ in 0..300 {
        let mut batch = Batch::new();
        batch.create_bucket(&[b"b"]).unwrap();
        for _ in 0..20 {
            let (key, len) = (rng.key(500), rng.below(600));
            batch.put(&[b"b"], &key, rng.bytes(len)).unwrap();
        }
        writer.commit(&batch).unwrap();
        sizes.push(writer.tx().page_count());
    }
    assert!(sizes[299] < sizes[100] * 2, "{} pages after 100, {} after 300", sizes[100], sizes[299]);
}

/// Untouched pages keep their place: a small change to a large tree writes a few pages.
#[test]
fn a_small_change_writes_few_pages() {
    let file = MemFile::default();
    let mut writer = writer(&file);
    load(&mut writer, &(0..20_000).collect::<Vec<u32>>(), 200);
    file.0.lock().unwrap().record = true;
    let mut batch = Batch::new();
    batch.put(&[b"b"], &7_000_u32.to_be_bytes(), b"new").unwrap();
    writer.commit(&batch).unwrap();
    let written = written(&file);
    assert!(written <= 8 * 4096, "{written} bytes");
}

/// A record larger than a page is written once, however many come before and after it later.
#[test]
fn large_records_stay_where_they_are() {
    let file = MemFile::default();
    let mut writer = writer(&file);
    file.0.lock().unwrap().record = true;
    shuffled(2_000).chunks(100).for_each(|part| load(&mut writer, part, 5_000));
    let report = writer.tx().check().unwrap();
    assert!(report.is_clean() && report.keys == 2_000);
    assert_eq!(report.leaf_pages, 2_000 + 1, "one for each, and the one that names the bucket");
    let (leaves, written) = (2_000 * 2 * 4096, written(&file));
    assert!(written < leaves * 5 / 4, "{written} bytes for {leaves}");
}

/// Put values of `len` bytes under the numbers of `keys`, in one transaction.
fn load(writer: &mut Writer, keys: &[u32], len: usize) {
    let mut batch = Batch::new();
    batch.create_bucket(&[b"b"]).unwrap();
    for key in keys {
        batch.put(&[b"b"], &key.to_be_bytes(), vec![1; len]).unwrap();
    }
    writer.commit(&batch).unwrap();
}

/// Bytes that were written to a file that records.
fn written(file: &MemFile) -> usize {
    file.log().iter().map(|event| if let Event::Write { bytes, .. } = event { bytes.len() } else { 0 }).sum()
}

/// The numbers below `end`, in an order that is always the same.
fn shuffled(end: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..end).collect();
    let mut rng = Rng::new(5);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i + 1));
    }
    order
}

/// Bulk loads make dense pages; random insertions keep pages about half full.
#[test]
fn pages_are_filled() {
    let fill = |shuffle: bool| {
        let file = MemFile::default();
        let mut writer = writer(&file);
        let order = if shuffle { shuffled(20_000) } else { (0..20_000).collect() };
        order.chunks(if shuffle { 100 } else { 20_000 }).for_each(|part| load(&mut writer, part, 100));
        let report = writer.tx().check().unwrap();
        assert!(report.is_clean() && report.keys == 20_000);
        (20_000 * 120) as f64 / (report.leaf_pages * 4096) as f64
    };
    assert!(fill(false) > 0.95, "bulk {}", fill(false));
    assert!(fill(true) > 0.55, "random {}", fill(true));
}

#[test]
fn a_batch_that_does_not_fit_changes_nothing() {
    let file = MemFile::default();
    let mut writer = writer(&file);
    let mut batch = Batch::new();
    batch.create_bucket(&[b"b", b"inner"]).unwrap();
    batch.put(&[b"b"], b"key", b"value").unwrap();
    writer.commit(&batch).unwrap();
    let before = dump_image(file.image());
    type Attempt = fn(&mut Batch<'_>) -> Result<(), BoltError>;
    let attempts: [Attempt; 6] = [
        |batch| batch.put(&[b"absent"], b"k", b"v"),
        |batch| batch.put(&[b"b", b"absent"], b"k", b"v"),
        |batch| batch.put(&[b"b"], b"inner", b"v"),
        |batch| batch.delete(&[b"b"], b"inner"),
        |batch| batch.create_bucket(&[b"b", b"key"]),
        |batch| batch.delete_bucket(&[b"b", b"key"]),
    ];
    for attempt in attempts {
        let mut batch = Batch::new();
        batch.create_bucket(&[b"a-new-one"]).unwrap();
        attempt(&mut batch).unwrap();
        assert!(matches!(writer.commit(&batch), Err(BoltError::Invalid { .. })));
        assert_eq!(dump_image(file.image()), before);
    }
    let mut batch = Batch::new();
    batch.put(&[b"b", b"inner"], b"k", b"v").unwrap();
    writer.commit(&batch).unwrap();
    assert!(writer.tx().check().unwrap().is_clean());
}

#[test]
fn walks_start_anywhere_and_keys_come_without_values() {
    let file = MemFile::default();
    let mut writer = writer(&file);
    let mut batch = Batch::new();
    batch.create_bucket(&[b"b", b"k00500-bucket"]).unwrap();
    for n in 0..1000 {
        batch.put(&[b"b"], format!("k{n:05}").as_bytes(), vec![0; if n % 100 == 0 { 50_000 } else { 50 }]).unwrap();
    }
    writer.commit(&batch).unwrap();
    let tx = writer.tx();
    let bucket = tx.bucket(&[b"b"]).unwrap().unwrap();
    // Page through in steps of 7.
    let (mut start, mut seen) = (Vec::new(), Vec::new());
    loop {
        let mut page = Vec::new();
        bucket
            .for_each_key_from(&start, |key, kind| {
                assert_eq!(kind == EntryKind::Bucket, key.ends_with(b"bucket"));
                page.push(key.to_vec());
                Ok::<_, BoltError>(if page.len() == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .unwrap();
        let Some(last) = page.last() else { break };
        start = [last.as_slice(), &[0]].concat();
        seen.extend(page);
    }
    assert_eq!(seen.len(), 1001);
    assert!(seen.is_sorted());
    assert_eq!(bucket.kind(b"k00100").unwrap(), Some(EntryKind::Value { len: 50_000 }));
    assert_eq!(bucket.get(b"k00100").unwrap().unwrap().len(), 50_000);
    assert_eq!(bucket.get(b"k00500-bucket").unwrap(), None);
    assert_eq!(bucket.get(b"zzz").unwrap(), None);
    assert!(tx.bucket(&[b"b", b"k00100"]).unwrap().is_none(), "a plain key is no bucket");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn looking_up_many_keys_finds_what_looking_up_each_does(
        numbers in proptest::collection::btree_set(0..4000_u16, 0..1500),
        large in 0..400_u16,
        asked in proptest::collection::vec((0..4001_u16, any::<bool>()), 1..300),
        ascending in any::<bool>(),
    ) {
        let file = MemFile::default();
        let mut writer = writer(&file);
        let mut batch = Batch::new();
        batch.create_bucket(&[b"b", b"k02000-bucket"]).unwrap();
        for n in &numbers {
            let size = if n % 400 == large { 9000 } else { 40 };
            batch.put(&[b"b"], format!("k{n:05}").as_bytes(), vec![u8::try_from(n % 251).unwrap(); size]).unwrap();
        }
        writer.commit(&batch).unwrap();
        let tx = writer.tx();
        let bucket = tx.bucket(&[b"b"]).unwrap().unwrap();
        let mut asked: Vec<String> =
            asked.into_iter().map(|(n, bucket)| format!("k{n:05}{}", if bucket { "-bucket" } else { "" })).collect();
        if ascending {
            asked.sort();
        }
        let mut lookup = bucket.lookup();
        for key in asked {
            prop_assert_eq!(lookup.get(key.as_bytes()).unwrap(), bucket.get(key.as_bytes()).unwrap(), "{}", key);
        }
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// Compare the keys of a bucket with those of the dump, which marks nested buckets by `<bucket>`. The number of keys.
fn same_keys(item: &Item, recorded: &serde_json::Value) -> usize {
    let Item::Bucket(items) = item else { panic!("a plain key where the dump has {recorded}") };
    let mut keys = items.len();
    let mut names = BTreeSet::new();
    for (key, item) in items {
        let mut name = String::from_utf8(key.clone()).unwrap();
        if let Item::Bucket(_) = item {
            name = format!("<bucket>{name}");
            keys += same_keys(item, &recorded[&name]);
        }
        names.insert(name);
    }
    assert_eq!(names, recorded.as_object().unwrap().keys().cloned().collect());
    keys
}

/// zot's own file, written over 270 transactions: every bucket and key of the recorded dump, and no other.
#[test]
fn zots_file_reads_as_recorded() {
    let image = gunzip(include_bytes!("fixtures/bolt/zot-meta.db.gz"));
    let recorded: serde_json::Value =
        serde_json::from_slice(&gunzip(include_bytes!("fixtures/bolt/zot-meta.dump.json.gz"))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    std::fs::write(&path, image).unwrap();
    let database = Database::open(Path::new(&path)).unwrap();
    let tree = database
        .snapshot(&Cancel::default(), |tx| {
            assert!(tx.check()?.is_clean());
            dump(tx)
        })
        .unwrap();
    let mut keys = 0;
    let recorded_buckets: BTreeSet<_> = recorded.as_object().unwrap().keys().cloned().collect();
    let found: BTreeSet<_> = tree.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect();
    assert_eq!(found, recorded_buckets);
    for (bucket, item) in &tree {
        keys += same_keys(item, &recorded[str::from_utf8(bucket).unwrap()]);
    }
    assert_eq!(keys, 237);
    let version = &recorded["Version"]["DBVersion"];
    let Item::Bucket(versions) = &tree[b"Version".as_slice()] else { unreachable!() };
    assert_eq!(versions[b"DBVersion".as_slice()], Item::Value(version.as_str().unwrap().as_bytes().to_vec()));
}
