//! What became of each repo, even when writing breaks off: a report counts what was recorded.

use crate::metadb::{MetaDbError, MetaDbWriter, Outcome, Refusal, RepoWork};
use crate::records::{RepoChange, RepoState};
use std::sync::atomic::{AtomicBool, Ordering};

/// Work whose end is noted.
struct Noted<'a> {
    work: &'a dyn RepoWork,
    written: AtomicBool,
}

impl RepoWork for Noted<'_> {
    fn repo(&self) -> &str {
        self.work.repo()
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        self.work.images()
    }

    fn is_images_only(&self) -> bool {
        self.work.is_images_only()
    }

    fn prepare(&self) {
        self.work.prepare();
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        self.work.build(prior)
    }

    fn written(&self) {
        self.written.store(true, Ordering::Relaxed);
    }
}

/// Write `work`. Outcomes are in its order; where writing failed, those are missing that are not known.
pub(super) fn write(
    writer: &mut dyn MetaDbWriter,
    work: &[&dyn RepoWork],
) -> (Vec<Option<Outcome>>, Result<(), MetaDbError>) {
    if work.is_empty() {
        return (Vec::new(), Ok(()));
    }
    let noted: Vec<Noted<'_>> =
        work.iter().map(|work| Noted { work: *work, written: AtomicBool::new(false) }).collect();
    match writer.write(&noted.iter().map(|noted| noted as &dyn RepoWork).collect::<Vec<_>>()) {
        Ok(outcomes) => (outcomes.into_iter().map(Some).collect(), Ok(())),
        Err(error) => {
            let known = |noted: &Noted<'_>| noted.written.load(Ordering::Relaxed).then_some(Outcome::Done);
            (noted.iter().map(known).collect(), Err(error))
        }
    }
}
