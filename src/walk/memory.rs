//! What is in memory between storage and metaDB, bounded by bytes: repos being read, and repos waiting for their commit.
//!
//! Readers say what they are about to hold and wait while there is no room. Nobody waits for ever: as soon as a reader
//! waits, the writer commits what there is, and while the writer has nothing, the repo that was begun first may go beyond
//! the limit. So no more than one repo does; it must be in memory whole, because it is committed whole. What it keeps till then does
//! not count for it, or a huge one would go on only as the writer has nothing to do.

use crate::cancel::Cancel;
use crate::storage::StorageError;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a reader that waits for room looks whether it should stop.
const NAP: Duration = Duration::from_millis(50);

/// The room that all repos in flight share.
pub(crate) struct Memory {
    limit: usize,
    cancel: Cancel,
    state: Mutex<State>,
    /// Told when bytes are let go of.
    room: Condvar,
    /// Told when there is something to commit.
    work: Condvar,
}

#[derive(Default)]
struct State {
    held: usize,
    begun: u64,
    /// Repos being read, by the order in which they were begun.
    reading: BTreeSet<u64>,
    /// Repos read and not yet committed, and their bytes.
    handed: usize,
    ready: usize,
    readers: usize,
    waiting: usize,
    closed: bool,
}

impl State {
    fn has_room(&self, bytes: usize, limit: usize, share: &Share<'_>) -> bool {
        let is_first = self.reading.first() == Some(&share.repo);
        let kept = if is_first { share.kept.load(Ordering::Relaxed) } else { 0 };
        self.held.saturating_sub(kept).saturating_add(bytes) <= limit || (self.handed == 0 && is_first)
    }
}

impl Memory {
    pub(crate) fn new(limit: usize, cancel: &Cancel) -> Self {
        Self { limit, cancel: cancel.clone(), state: Mutex::default(), room: Condvar::new(), work: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count a reader until the result is dropped.
    pub(crate) fn reader(&self) -> Reader<'_> {
        self.lock().readers += 1;
        Reader(self)
    }

    /// Begin with a repo.
    pub(crate) fn begin(&self) -> Share<'_> {
        let mut state = self.lock();
        let repo = state.begun;
        state.begun += 1;
        state.reading.insert(repo);
        Share { memory: self, repo, bytes: AtomicUsize::new(0), kept: AtomicUsize::new(0), handed: false }
    }

    /// Wait until `enough` bytes are ready, or some and readers wait for room, or until `deadline`. `false` means that
    /// all readers are gone: what is ready now is all there will be.
    pub(crate) fn wait(&self, enough: usize, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.readers == 0 {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ready >= enough || (state.handed > 0 && state.waiting > 0) || left.is_zero() {
                return true;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The one who commits. When the result is dropped, readers have nobody to read for.
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer(self)
    }

    /// Whether readers should end.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed || self.cancel.is_cancelled()
    }
}

/// A reader thread.
pub(crate) struct Reader<'m>(&'m Memory);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
        self.0.work.notify_one();
    }
}

/// The writer, for its readers.
pub(crate) struct Writer<'m>(&'m Memory);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.room.notify_all();
    }
}

/// What one repo holds; dropping it lets go of all of it.
pub(crate) struct Share<'m> {
    memory: &'m Memory,
    repo: u64,
    bytes: AtomicUsize,
    /// Of these, what stays until the repo is committed, or until it is split off.
    kept: AtomicUsize,
    handed: bool,
}

impl Share<'_> {
    /// Hold `bytes` more, as soon as there is room.
    ///
    /// # Errors
    /// [`StorageError::Cancelled`] if the walk ends before.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), StorageError> {
        let memory = self.memory;
        let mut state = memory.lock();
        while !state.has_room(bytes, memory.limit, self) {
            if state.closed || memory.cancel.is_cancelled() {
                return Err(StorageError::Cancelled);
            }
            state.waiting += 1;
            memory.work.notify_one();
            state = memory.room.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.held += bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// What was held as `before` turned out to be `after`.
    pub(crate) fn settle(&self, before: usize, after: usize) {
        let mut state = self.memory.lock();
        state.held = state.held + after - before;
        self.bytes.fetch_add(after, Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
        self.memory.tell_waiting(&state);
    }

    /// As [`Share::settle`], for what is kept now.
    pub(crate) fn keep(&self, before: usize, after: usize) {
        self.kept.fetch_add(after, Ordering::Relaxed);
        self.settle(before, after);
    }

    /// Of what was kept, so many are not any more.
    pub(crate) fn let_go(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
        self.settle(bytes, 0);
    }

    /// A part of the repo, of what was kept, that waits for a commit of its own, before the rest of it.
    pub(crate) fn split(&self, bytes: usize) -> Self {
        let kept = AtomicUsize::new(0);
        let mut part =
            Self { memory: self.memory, repo: self.repo, bytes: AtomicUsize::new(bytes), kept, handed: false };
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
        part.hand_over_part();
        part
    }

    /// The repo is read; now it waits for its commit.
    pub(crate) fn hand_over(&mut self) {
        self.memory.lock().reading.remove(&self.repo);
        self.hand_over_part();
    }

    fn hand_over_part(&mut self) {
        let mut state = self.memory.lock();
        state.handed += 1;
        state.ready += self.bytes();
        self.handed = true;
        self.memory.work.notify_one();
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Memory {
    fn tell_waiting(&self, state: &State) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        let bytes = self.bytes();
        state.held -= bytes;
        if self.handed {
            state.handed -= 1;
            state.ready -= bytes;
        } else {
            state.reading.remove(&self.repo);
        }
        self.memory.tell_waiting(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_huge_repo_keeps_takes_no_room_from_what_it_reads() {
        // Where there is no room, one that was asked to stop fails instead of waiting.
        let cancel = Cancel::default();
        cancel.cancel();
        let memory = Memory::new(100, &cancel);
        let (huge, other) = (memory.begin(), memory.begin());
        huge.grow(90).unwrap();
        huge.keep(90, 360);
        let part = huge.split(60);
        huge.grow(40).unwrap();
        assert!(huge.grow(1).is_err(), "beyond the limit while a part of it waits");
        assert!(other.grow(1).is_err(), "another repo has no room beside it");
        drop(part);
        huge.grow(1000).unwrap();
        drop(huge);
        other.grow(100).unwrap();
        other.grow(1).unwrap();
    }
}
