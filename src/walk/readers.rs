//! Reader threads: they take repos, read them, and hand them to the writer.

use super::Walk;
use super::memory::Memory;
use super::plan::Todo;
use super::read::{ReadError, Reading, TakesAhead, read_repo_within};
use super::work::{Ahead, Item, Ready};
use crate::parallel::{give_way, processors};
use crate::records::fold::{Clock, Entry};
use crate::storage::{ImageStore as _, StorageError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Batches of blobs that one thread reads faster than several can share them.
const FEW_BATCHES: usize = 4;
/// Threads for a repo that has more, beside other repos.
const HUGE_JOBS: usize = 4;

impl Walk<'_> {
    /// How many of so many threads have something to do: where storage makes none of them wait, one a processor. More would
    /// only take memory and the processors' caches from each other (docs/benchmarks.md, "Readers").
    pub(super) fn busy(&self, threads: usize) -> usize {
        if self.stores.waits() { threads } else { threads.min(processors()) }
    }
}

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

    fn take(&self) -> Option<(usize, &'r Todo)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        Some((at, self.due.get(at)?))
    }

    /// One thread: takes the next repo until there is none.
    pub(super) fn read(&self, number: usize, sender: &Sender<Ready<'r>>) {
        give_way();
        if number >= self.walk.busy(self.count()) && !self.spare.wait() {
            return;
        }
        let _at_work = self.spare.at_work();
        let walk = self.walk;
        while let Some((at, Todo { repo, new })) = self.take() {
            if self.memory.is_closed() {
                return;
            }
            if walk.stores.waits() {
                self.spare.call();
            }
            walk.progress.reading(repo);
            let share = self.memory.begin();
            // Captured before the index is read, so that a later change is always newer.
            let now = jiff::Timestamp::now();
            let left = self.due.len() - at;
            let jobs = |batches| match left > walk.busy(self.count()) {
                // As long as there are repos enough for all readers, only a huge one gains by more threads.
                true if batches <= FEW_BATCHES => 1,
                true => walk.busy(walk.jobs).min(HUGE_JOBS),
                false => walk.busy(walk.jobs).div_ceil(left),
            };
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

/// What spare readers wait for.
#[derive(Default)]
pub(super) struct Spare {
    /// As soon as that is known.
    needed: Mutex<Option<bool>>,
    told: Condvar,
}

impl Spare {
    /// Wait until it is known whether spare readers are needed.
    pub(super) fn wait(&self) -> bool {
        let wait = self.told.wait_while(self.needed(), |needed| needed.is_none());
        wait.unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }

    /// They are.
    pub(super) fn call(&self) {
        self.settle(true);
    }

    /// A reader at work. When the first one leaves, however that happens, nobody else need come.
    pub(super) fn at_work(&self) -> AtWork<'_> {
        AtWork(self)
    }

    /// What is known first counts: who was called finds out that nothing is left.
    fn settle(&self, needed: bool) {
        self.needed().get_or_insert(needed);
        self.told.notify_all();
    }

    fn needed(&self) -> MutexGuard<'_, Option<bool>> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Spare::at_work`].
pub(super) struct AtWork<'s>(&'s Spare);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.settle(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(happens: impl FnOnce(&Spare)) -> bool {
        let spare = Spare::default();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| spare.wait());
            happens(&spare);
            waiting.join().unwrap()
        })
    }

    #[test]
    fn come_when_called() {
        assert!(waited(|spare| {
            let _at_work = spare.at_work();
            spare.call();
        }));
    }

    #[test]
    fn go_home_when_others_do() {
        assert!(!waited(|spare| drop(spare.at_work())));
        assert!(!waited(|spare| {
            let at_work = || {
                let _at_work = spare.at_work();
                panic!("a reader that fails");
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(at_work)).unwrap_err();
        }));
    }
}
