//! Panics of a library as errors. redb documents that it may panic over a file that was damaged behind its back; a damaged
//! file is something to report, not a reason to die.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run `work`; if it panics, what it said. Whatever `work` had its hands on must not be used any more.
///
/// # Errors
/// The message of the panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        said.unwrap_or("without a message").chars().filter(|c| !c.is_control()).take(200).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(caught(|| 7), Ok(7));
        let page = 7;
        assert_eq!(caught(|| assert_eq!(page, 8, "page {page}\n")).map_err(|said| said.contains("page 7")), Err(true));
    }
}
