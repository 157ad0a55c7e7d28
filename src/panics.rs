//! Panics of a library as errors. redb documents that it may panic over a file that was damaged behind its back; a damaged
//! file is something to report, not a reason to die.

use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Panics in the innermost [`caught`] of this thread, if there is one.
    static PANICS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a panic is about to become.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody waits for it: a bug of ours.
    Loose,
    /// An error, which is told by whoever caught it.
    Caught,
    /// The end of the process: it panicked while it was already on its way out of a panic.
    Last,
}

impl Fate {
    /// Of the panic that begins here and now.
    fn of_next() -> Self {
        let seen = PANICS.get();
        PANICS.set(seen.map(|seen| seen.saturating_add(1)));
        match seen {
            None => Self::Loose,
            Some(0) => Self::Caught,
            Some(_) => Self::Last,
        }
    }
}

/// From now on panics that are caught print nothing, and `last` is called before one ends the process: a library that panics
/// while it unwinds cannot be caught.
pub fn install(last: impl Fn() + Send + Sync + 'static) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match Fate::of_next() {
        Fate::Loose => usual(panic),
        Fate::Caught => {}
        Fate::Last => last(),
    }));
}

/// Run `work`; if it panics, what it said. Whatever `work` had its hands on must not be used any more.
///
/// # Errors
/// The message of the panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = PANICS.replace(Some(0));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    PANICS.set(outer);
    outcome.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        said.unwrap_or("without a message").chars().filter(|c| !c.is_control()).take(200).collect()
    })
}

/// A value whose end may panic too: redb writes once more when a database is closed.
pub struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    /// From now on `value` ends quietly.
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("only the end takes it"),
        }
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        if let Err(said) = caught(|| drop(value)) {
            tracing::debug!("a damaged file could not be closed: {said}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_panic_within_a_caught_one_is_the_last() {
        let fates = caught(|| {
            let first = Fate::of_next();
            let inner = caught(Fate::of_next);
            (first, inner, Fate::of_next())
        });
        assert_eq!(fates, Ok((Fate::Caught, Ok(Fate::Caught), Fate::Last)));
        assert_eq!(Fate::of_next(), Fate::Loose);
    }

    #[test]
    fn a_panic_at_the_end_is_contained() {
        struct Ends<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.set(true);
                panic!("while it ended");
            }
        }
        let ended = std::cell::Cell::new(false);
        let value = Contained::new(Ends(&ended));
        assert!(!(*value).0.get(), "it is still there");
        drop(value);
        assert!(ended.get());
    }

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(caught(|| 7), Ok(7));
        let page = 7;
        assert_eq!(caught(|| assert_eq!(page, 8, "page {page}\n")).map_err(|said| said.contains("page 7")), Err(true));
    }
}
