//! A redb file whose pages reach the system in the order of their places, many with one call.
//!
//! redb writes what a transaction changed page by page, in no order. Most pages have 4 or 8 KiB, and a call for each costs more
//! than their bytes (docs/benchmarks.md, "redb"). Nothing depends on a page before the sync that redb asks for, so until
//! then pages wait here.

use redb::{BackendError, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that wait at most: as much as one transaction of a walk writes.
const WAITING: usize = 24 << 20;
/// Bytes of one call, about.
const CALL: usize = 256 << 10;

/// `B`, with pages that wait.
#[derive(Debug)]
pub struct Gathered<B> {
    backend: B,
    waiting: Mutex<Waiting>,
}

/// Pages that do not overlap, by their places.
#[derive(Debug, Default)]
struct Waiting {
    pages: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Waiting {
    /// The page at exactly this place, if it has this length.
    fn page(&mut self, offset: u64, length: usize) -> Option<&mut Vec<u8>> {
        self.pages.get_mut(&offset).filter(|page| page.len() == length)
    }

    fn overlaps(&self, offset: u64, length: usize) -> bool {
        let last = self.pages.range(..offset + length as u64).next_back();
        last.is_some_and(|(start, page)| start + page.len() as u64 > offset)
    }
}

impl<B: StorageBackend> Gathered<B> {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self { backend, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write what waits. What cannot be written is given up: redb goes no further after an error.
    fn write_out(&self, waiting: &mut Waiting) -> io::Result<()> {
        let Waiting { pages, .. } = std::mem::take(waiting);
        let mut run = Vec::new();
        let mut start = 0;
        for (offset, page) in pages {
            let follows = start + run.len() as u64 == offset;
            if !follows || run.len() >= CALL {
                self.write_run(start, &run)?;
                run.clear();
                start = offset;
            }
            run.extend_from_slice(&page);
        }
        self.write_run(start, &run)
    }

    fn write_run(&self, start: u64, run: &[u8]) -> io::Result<()> {
        if run.is_empty() { Ok(()) } else { self.backend.write(start, run) }
    }
}

impl<B: StorageBackend> StorageBackend for Gathered<B> {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut waiting = self.lock();
        if let Some(page) = waiting.page(offset, out.len()) {
            out.copy_from_slice(page);
            return Ok(());
        }
        if waiting.overlaps(offset, out.len()) {
            self.write_out(&mut waiting)?;
        }
        drop(waiting);
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_out(&mut self.lock())?;
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_out(&mut self.lock())?;
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut waiting = self.lock();
        if let Some(page) = waiting.page(offset, data.len()) {
            page.copy_from_slice(data);
            return Ok(());
        }
        if waiting.bytes + data.len() > WAITING || waiting.overlaps(offset, data.len()) {
            self.write_out(&mut waiting)?;
        }
        if data.len() >= CALL {
            return self.backend.write(offset, data);
        }
        waiting.pages.insert(offset, data.to_vec());
        waiting.bytes += data.len();
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        let written = self.write_out(&mut self.lock());
        self.backend.close()?;
        written
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Keeps everything, and what it was asked to write.
    #[derive(Debug, Default, Clone)]
    struct Memory(Arc<Mutex<(Vec<u8>, Vec<usize>)>>);

    impl Memory {
        fn content(&self) -> Vec<u8> {
            self.0.lock().unwrap().0.clone()
        }

        fn writes(&self) -> Vec<usize> {
            std::mem::take(&mut self.0.lock().unwrap().1)
        }
    }

    impl StorageBackend for Memory {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let offset = usize::try_from(offset).unwrap();
            out.copy_from_slice(&self.0.lock().unwrap().0[offset..offset + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().0.resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let offset = usize::try_from(offset).unwrap();
            let (content, writes) = &mut *self.0.lock().unwrap();
            content[offset..offset + data.len()].copy_from_slice(data);
            writes.push(data.len());
            Ok(())
        }
    }

    const PAGE: usize = 4096;
    const PAGES: usize = 400;

    fn blank() -> (Memory, Gathered<Memory>) {
        let memory = Memory::default();
        memory.set_len((PAGE * PAGES) as u64).unwrap();
        (memory.clone(), Gathered::new(memory))
    }

    #[test]
    fn neighbours_are_written_with_one_call_and_not_before_the_sync() {
        let (memory, gathered) = blank();
        for page in [7, 5, 6, 9, 200, 5] {
            gathered.write((page * PAGE) as u64, &vec![u8::try_from(page).unwrap(); PAGE]).unwrap();
        }
        assert!(memory.writes().is_empty());
        gathered.sync_data().unwrap();
        assert_eq!(memory.writes(), [3 * PAGE, PAGE, PAGE]);
        gathered.sync_data().unwrap();
        assert!(memory.writes().is_empty());
        // A call has its bounds.
        (0..PAGES).rev().for_each(|page| gathered.write((page * PAGE) as u64, &[1; PAGE]).unwrap());
        gathered.close().unwrap();
        let writes = memory.writes();
        assert_eq!((writes.iter().sum::<usize>(), writes.len()), (PAGES * PAGE, (PAGES * PAGE).div_ceil(CALL)));
    }

    #[test]
    fn what_waits_has_its_bounds() {
        let (memory, gathered) = blank();
        memory.set_len(2 * WAITING as u64).unwrap();
        for page in 0..WAITING / PAGE {
            gathered.write((page * PAGE) as u64, &[1; PAGE]).unwrap();
        }
        assert!(memory.writes().is_empty());
        gathered.write(WAITING as u64, &[1; PAGE]).unwrap();
        assert_eq!(memory.writes().iter().sum::<usize>(), WAITING);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize, u8),
        Read(usize, usize),
        Sync,
        Grow,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Pages are powers of two, at multiples of their size; what was one of two pages can be half of another later.
        let place = || (0..PAGES, 0..8_u32).prop_map(|(at, order)| (at & !((1 << order) - 1), 1 << order));
        prop_oneof![
            8 => (place(), any::<u8>()).prop_map(|((at, pages), byte)| Step::Write(at, pages, byte)),
            4 => place().prop_map(|(at, pages)| Step::Read(at, pages)),
            1 => Just(Step::Sync),
            1 => Just(Step::Grow),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_as_if_everything_were_written_at_once(steps in proptest::collection::vec(step(), 1..200)) {
            let (memory, gathered) = blank();
            let plain = Memory::default();
            plain.set_len((PAGE * PAGES) as u64).unwrap();
            let bounds = |at: usize, pages: usize| (at * PAGE, pages.min(PAGES - at) * PAGE);
            for step in steps {
                match step {
                    Step::Write(at, pages, byte) => {
                        let (offset, length) = bounds(at, pages);
                        gathered.write(offset as u64, &vec![byte; length]).unwrap();
                        plain.write(offset as u64, &vec![byte; length]).unwrap();
                    }
                    Step::Read(at, pages) => {
                        let (offset, length) = bounds(at, pages);
                        let (mut found, mut expected) = (vec![0; length], vec![1; length]);
                        gathered.read(offset as u64, &mut found).unwrap();
                        plain.read(offset as u64, &mut expected).unwrap();
                        prop_assert!(found == expected);
                    }
                    Step::Sync => {
                        gathered.sync_data().unwrap();
                        prop_assert!(memory.content() == plain.content());
                    }
                    Step::Grow => {
                        let length = gathered.len().unwrap() + PAGE as u64;
                        gathered.set_len(length).unwrap();
                        plain.set_len(length).unwrap();
                        prop_assert!(memory.content() == plain.content());
                    }
                }
            }
            gathered.close().unwrap();
            prop_assert!(memory.content() == plain.content());
        }
    }
}
