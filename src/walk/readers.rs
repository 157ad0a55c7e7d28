//! Reader threads: they take repos, read them, and hand them to the writer.

use super::Walk;
use super::memory::Memory;
use super::plan::Todo;
use super::read::{ReadError, Reading, TakesAhead, jobs_for, read_repo_within};
use super::work::{Ahead, Item, Ready};
use crate::crew::Crew;
use crate::parallel::give_way;
use crate::records::fold::{Clock, Entry};
use crate::storage::{ImageStore as _, StorageError};
use std::sync::mpsc::Sender;

/// The readers of one round.
pub(super) struct Readers<'r> {
    walk: &'r Walk<'r>,
    memory: &'r Memory,
    /// From how many batches on the writer takes images ahead.
    ahead: Option<usize>,
    crew: Crew<'r, Todo>,
    due: usize,
}

impl<'r> Readers<'r> {
    pub(super) fn new(walk: &'r Walk<'r>, due: &'r [Todo], memory: &'r Memory, ahead: Option<usize>) -> Self {
        Self { walk, memory, ahead, crew: Crew::new(walk.stores, walk.jobs, due), due: due.len() }
    }

    /// How many threads there can be.
    pub(super) fn count(&self) -> usize {
        self.crew.count()
    }

    /// One thread: takes the next repo until there is none.
    pub(super) fn read(&self, number: usize, sender: &Sender<Ready<'r>>) {
        give_way();
        let walk = self.walk;
        for (at, Todo { repo, new }) in self.crew.tasks(number) {
            if self.memory.is_closed() {
                return;
            }
            walk.progress.reading(repo);
            let share = self.memory.begin();
            // Captured before the index is read, so that a later change is always newer.
            let now = jiff::Timestamp::now();
            let left = self.due - at;
            // As long as there are repos enough for all readers, only a huge one gains by more threads.
            let own = if left > self.crew.useful() { 1 } else { walk.stores.useful(walk.jobs).div_ceil(left) };
            let jobs = |batches| jobs_for(batches, own, walk.jobs);
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
