//! Work on several threads.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Apply `f` to every item on up to `jobs` threads; results in the order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], jobs: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let jobs = jobs.clamp(1, items.len().max(1));
    if jobs == 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        items.get(at).map(|item| (at, f(item)))
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|threads| {
        let workers: Vec<_> =
            (0..jobs).map(|_| threads.spawn(|| std::iter::from_fn(take).collect::<Vec<_>>())).collect();
        // A worker only ends without a result by a panic, which is passed on.
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|results| results.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Do two things, at the same time if that is `worth` a thread.
pub(crate) fn both<A: Send, B>(worth: bool, one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    if !worth || processors() == 1 {
        return (one(), other());
    }
    std::thread::scope(|threads| {
        let one = threads.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// How many threads can run at a time; two if that is unknown. Asked once: on Linux the answer takes reading files of cgroups.
#[must_use]
pub fn processors() -> usize {
    static PROCESSORS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get));
    *PROCESSORS
}

/// Let this thread, and those that it starts, give way: to the thread that commits, to the metaDB's server on the same machine,
/// to zot. Of two threads that wait for a processor, the one that others wait for then goes first.
///
/// Not under a seccomp filter: one that forbids such calls, as systemd's `~@resources` does, ends the process.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    if *UNFILTERED {
        // A process may always be nicer; if it cannot, it is merely less so.
        let _ = rustix::process::nice(NICER);
    }
}

/// How much nicer [`give_way`] makes: a tenth of another's share of a processor that both want.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// No seccomp filter is in force. Read, because asking by a call could be forbidden as well.
#[cfg(target_os = "linux")]
static UNFILTERED: LazyLock<bool> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line == "Seccomp:\t0")
});

#[cfg(test)]
mod tests {
    use super::{give_way, parallel};

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_gives_way_takes_along_whom_it_starts_and_nobody_else() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The name before the last parenthesis may hold blanks; niceness is field 19, of which the name is the second.
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            fields[16].parse::<i32>().unwrap()
        };
        let before = niceness();
        let expected = if *super::UNFILTERED { (before + super::NICER).min(19) } else { before };
        let found = std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                give_way();
                [niceness(), std::thread::scope(|threads| threads.spawn(niceness).join().unwrap())]
            });
            reader.join().unwrap()
        });
        assert_eq!((found, niceness()), ([expected; 2], before));
    }

    #[test]
    fn results_are_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        for jobs in [0, 1, 2, 7, 2000] {
            assert_eq!(parallel(&items, jobs, |item| item * 2), (0..2000).step_by(2).collect::<Vec<_>>());
        }
        assert_eq!(parallel(&[], 4, |item: &usize| *item), [0; 0]);
    }
}
