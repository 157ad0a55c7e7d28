//! Reader threads: they take repos, read them, and hand them to the writer.

use super::Walk;
use super::memory::Memory;
use super::plan::Todo;
use super::read::{ReadError, Reading, TakesAhead, read_repo_within};
use super::work::{Ahead, Item, Ready};
use crate::parallel::give_way;
use crate::records::fold::{Clock, Entry};
use crate::storage::{ImageStore as _, StorageError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Batches of blobs that one thread reads faster than several can share them.
const FEW_BATCHES: usize = 4;
/// Threads for a repo that has more, at least.
const HUGE_JOBS: usize = 4;

/// The readers of one round.
pub(super) struct Readers<'r> {
    walk: &'r Walk<'r>,
    memory: &'r Memory,
    /// From how many batches on the writer takes images ahead.
    ahead: Option<usize>,
    due: &'r [Todo],
    next: AtomicUsize,
    spare: Spare,
}

impl<'r> Readers<'r> {
    pub(super) fn new(walk: &'r Walk<'r>, due: &'r [Todo], memory: &'r Memory, ahead: Option<usize>) -> Self {
        Self { walk, memory, ahead, due, next: AtomicUsize::new(0), spare: Spare::default() }
    }

    /// How many threads there can be.
    pub(super) fn count(&self) -> usize {
        self.walk.stores.readers(self.walk.jobs).clamp(1, self.due.len().max(1))
    }

    /// How many of them have something to do. More would only take memory and the processors' caches from each other
    /// (docs/benchmarks.md, "Readers").
    fn useful(&self) -> usize {
        self.walk.stores.useful(self.count())
    }

    fn take(&self) -> Option<(usize, &'r Todo)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        Some((at, self.due.get(at)?))
    }

    /// One thread: takes the next repo until there is none.
    pub(super) fn read(&self, number: usize, sender: &Sender<Ready<'r>>) {
        give_way();
        if !self.spare.wait(number, self.useful()) {
            return;
        }
        let _at_work = self.spare.at_work();
        let walk = self.walk;
        while let Some((at, Todo { repo, new })) = self.take() {
            if self.memory.is_closed() {
                return;
            }
            let useful = self.useful();
            self.spare.call(useful);
            walk.progress.reading(repo);
            let share = self.memory.begin();
            // Captured before the index is read, so that a later change is always newer.
            let now = jiff::Timestamp::now();
            let left = self.due.len() - at;
            // As long as there are repos enough for all readers, only a huge one gains by more threads.
            let own = if left > useful { 1 } else { walk.stores.useful(walk.jobs).div_ceil(left) };
            let jobs = |batches| if batches <= FEW_BATCHES { own } else { own.max(HUGE_JOBS.min(walk.jobs)) };
            let hand_ahead = |_: &[&str], entries: &mut [Entry]| {
                let images: Vec<(String, Vec<u8>)> = entries.iter_mut().filter_map(Entry::take_meta).collect();
                let share = share.split(images.iter().map(|(_, meta)| meta.len()).sum());
                // Nobody there means that the walk ends, which the next batch finds out.
                sender.send(Ready::Images(Ahead { repo, images, share })).ok();
            };
            let read = read_repo_within(&Reading {
                share: &share,
                store: walk.stores,
                repo,
                rules: walk.rules,
                jobs: &jobs,
                ahead: self.ahead.map(|from| TakesAhead { from, take: &hand_ahead }),
                progress: walk.progress,
                cancel: walk.cancel,
            });
            match &read {
                Err(ReadError::Storage(StorageError::Cancelled)) => return,
                Err(_) => share.settle(share.bytes(), 0),
                Ok(_) => {}
            }
            let index_read = walk.stores.route(repo).in_store_time(now);
            let clock = Clock { index_read: index_read.into(), now: now.into() };
            let item = Item::new(walk, repo, read, clock, share, at, *new);
            walk.progress.repo_done();
            if sender.send(Ready::Repo(Box::new(item.hand_over()))).is_err() {
                return;
            }
        }
    }
}

/// Readers that wait until they are needed.
#[derive(Default)]
struct Spare {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    needed: usize,
    /// Somebody found that nothing is left to do.
    over: bool,
}

impl Spare {
    /// Wait until reader `number` is one of those needed, of whom so many are for now. `false`: it will not be.
    fn wait(&self, number: usize, needed: usize) -> bool {
        self.call(needed);
        let state = self.told.wait_while(self.state(), |state| state.needed <= number && !state.over);
        state.unwrap_or_else(PoisonError::into_inner).needed > number
    }

    /// So many readers are needed.
    fn call(&self, needed: usize) {
        let mut state = self.state();
        if needed > state.needed {
            state.needed = needed;
            self.told.notify_all();
        }
    }

    /// A reader at work. When the first one leaves, however that happens, nobody else need come.
    fn at_work(&self) -> AtWork<'_> {
        AtWork(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Spare::at_work`].
struct AtWork<'s>(&'s Spare);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.state().over = true;
        self.0.told.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of readers 0 to 3 come, of whom one is needed from the start.
    fn come(happens: impl FnOnce(&Spare)) -> Vec<bool> {
        let spare = &Spare::default();
        std::thread::scope(|threads| {
            let waiting: Vec<_> = (0..4).map(|number| threads.spawn(move || spare.wait(number, 1))).collect();
            happens(spare);
            drop(spare.at_work());
            waiting.into_iter().map(|reader| reader.join().unwrap()).collect()
        })
    }

    #[test]
    fn as_many_come_as_are_called() {
        assert_eq!(come(|_| {}), [true, false, false, false]);
        assert_eq!(come(|spare| spare.call(3)), [true, true, true, false]);
        assert_eq!(come(|spare| [4, 2].into_iter().for_each(|needed| spare.call(needed))), [true; 4]);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_failed() {
        let come = come(|spare| {
            let at_work = || {
                let _at_work = spare.at_work();
                panic!("a reader that fails");
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(at_work)).unwrap_err();
        });
        assert_eq!(come, [true, false, false, false]);
    }
}
