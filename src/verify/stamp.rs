//! What there is to find about the stamp.

use super::findings::{Finding, Id};
use crate::decision::Facts;
use crate::stamp::{Part, Verdict};

/// Stored and expected stamp, and what decides over their use.
#[derive(Debug, Clone, Copy)]
pub struct StampFacts<'a> {
    /// What zot's decision depends on.
    pub facts: Facts<'a>,
    /// The stored stamp, for people.
    pub stored: &'a str,
    /// The stamp that zot will compute, for people; empty if it is not known.
    pub expected: &'a str,
}

impl StampFacts<'_> {
    /// Whether the stored stamp is the expected one.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.facts.comparison.is_some_and(|comparison| comparison.verdict == Verdict::Current)
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let facts = &self.facts;
        let stored = if self.stored.is_empty() { "none" } else { self.stored };
        let mut findings = Vec::new();
        if !facts.metadb_used && facts.zots_metadb {
            findings.push(Finding::new(Id::MetaDbUnused).found("nothing in the config needs a metaDB"));
        }
        // A release without stamps, or a build without a name, has nothing to compare.
        let compared = facts.comparison.map(|comparison| comparison.verdict);
        if !facts.release_has_stamp || compared == Some(Verdict::NothingExpected) {
            return findings;
        }
        if !facts.fast_restart {
            let finding = Finding::new(Id::FastRestartOff).reference("storage.fastRestart");
            findings.push(finding.expected("true").found(format!("not true; the stored stamp is {stored}")));
            return findings;
        }
        let stale = |id| {
            let finding = Finding::new(id).found(stored);
            if self.expected.is_empty() { finding } else { finding.expected(self.expected) }
        };
        if !facts.stamped {
            findings.push(stale(Id::StampAbsent));
            return findings;
        }
        if let Some(comparison) = facts.comparison.filter(|_| compared == Some(Verdict::Stale)) {
            let differs = |config: bool| {
                comparison.parts.iter().any(|part| (part.part == Part::Fingerprint) == config && !part.equal)
            };
            if differs(false) || !differs(true) {
                findings.push(stale(Id::StampIdentity));
            }
            if differs(true) {
                findings.push(stale(Id::StampConfig));
            }
        }
        findings
    }

    /// A stamp that vouches for what is not so.
    pub(super) fn premature(&self, findings: &[Finding]) -> Option<Finding> {
        let wrong = |finding: &&Finding| finding.is_drift() || finding.id == Id::RecordUndecodable;
        let drift = findings.iter().filter(wrong).count();
        if drift == 0 || !self.is_current() || !self.facts.fast_restart {
            return None;
        }
        let finding = Finding::new(Id::StampPremature).expected("no stamp, or no drift");
        Some(finding.found(format!("a current stamp over {drift} findings of drift")))
    }
}
