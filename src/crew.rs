//! Threads that read storage, one task after the other: of all that may, as many as gain by it.
//!
//! More would only take memory and the processors' caches from each other (docs/benchmarks.md, "Readers"). How many that
//! is shows while they read, so the others wait for being called.

use crate::storage::ImageStore;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Readers of `store`, and what they are to do.
pub(crate) struct Crew<'c, T> {
    store: &'c dyn ImageStore,
    tasks: &'c [T],
    most: usize,
    next: AtomicUsize,
    spare: Spare,
}

impl<'c, T> Crew<'c, T> {
    /// Up to as many as the store makes of `jobs`.
    pub(crate) fn new(store: &'c dyn ImageStore, jobs: usize, tasks: &'c [T]) -> Self {
        let most = store.readers(jobs).clamp(1, tasks.len().max(1));
        Self { store, tasks, most, next: AtomicUsize::new(0), spare: Spare::default() }
    }

    /// How many threads there can be.
    pub(crate) fn count(&self) -> usize {
        self.most
    }

    /// How many of them have something to do.
    pub(crate) fn useful(&self) -> usize {
        self.store.useful(self.most)
    }

    /// What thread `number` of [`Crew::count`] is to do, with its place in the list, as soon as so many have something to
    /// do. While it is at work it calls others; when it ends, those that nobody called need not come.
    pub(crate) fn tasks(&self, number: usize) -> Tasks<'_, 'c, T> {
        let needed = self.spare.wait(number, self.useful());
        Tasks { crew: self, at_work: needed.then(|| AtWork(&self.spare)) }
    }
}

/// See [`Crew::tasks`].
pub(crate) struct Tasks<'m, 'c, T> {
    crew: &'m Crew<'c, T>,
    at_work: Option<AtWork<'m>>,
}

impl<'c, T> Iterator for Tasks<'_, 'c, T> {
    type Item = (usize, &'c T);

    fn next(&mut self) -> Option<Self::Item> {
        let (crew, AtWork(spare)) = (self.crew, self.at_work.as_ref()?);
        let at = crew.next.fetch_add(1, Ordering::Relaxed);
        let task = crew.tasks.get(at)?;
        spare.call(crew.useful());
        Some((at, task))
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader at work. When the first one leaves, however that happens, nobody else need come.
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
            drop(AtWork(spare));
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
                let _at_work = AtWork(spare);
                panic!("a reader that fails");
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(at_work)).unwrap_err();
        });
        assert_eq!(come, [true, false, false, false]);
    }

    #[test]
    fn every_task_is_done_once() {
        let store = crate::storage::local::LocalStore::new("/");
        let tasks: Vec<usize> = (100..200).collect();
        let crew = Crew::new(&store, 8, &tasks);
        let mut done: Vec<(usize, &usize)> = std::thread::scope(|threads| {
            let readers: Vec<_> = (0..crew.count())
                .map(|number| (number, &crew))
                .map(|(number, crew)| threads.spawn(move || crew.tasks(number).collect::<Vec<_>>()))
                .collect();
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        });
        done.sort_unstable();
        assert_eq!(done, tasks.iter().enumerate().collect::<Vec<_>>());
    }
}
