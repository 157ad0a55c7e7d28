//! Work on several threads.

/// Apply `f` to every item on up to `jobs` threads; results in the order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], jobs: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let jobs = jobs.clamp(1, items.len().max(1));
    if jobs == 1 {
        return items.iter().map(f).collect();
    }
    let share = items.len().div_ceil(jobs);
    std::thread::scope(|threads| {
        let workers: Vec<_> =
            items.chunks(share).map(|chunk| threads.spawn(|| chunk.iter().map(&f).collect::<Vec<_>>())).collect();
        // A worker only ends without a result by a panic, which is passed on.
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
