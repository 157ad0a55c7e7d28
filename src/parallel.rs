//! Work on several threads.

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

#[cfg(test)]
mod tests {
    use super::parallel;

    #[test]
    fn results_are_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        for jobs in [0, 1, 2, 7, 2000] {
            assert_eq!(parallel(&items, jobs, |item| item * 2), (0..2000).step_by(2).collect::<Vec<_>>());
        }
        assert_eq!(parallel(&[], 4, |item: &usize| *item), [0; 0]);
    }
}
