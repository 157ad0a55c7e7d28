//! `verify`: options, the run, and what it comes to. How it looks is [`super::findings`]' business.

use super::args::{Format, Global};
use super::bars::Bars;
use super::context::{Access, Context, Expected};
use super::exit::{Exit, Failure};
use super::findings::{self, View};
use super::memory;
use super::ui::{self, Ui};
use super::walk::{globs, root_exists};
use clap::Args;
use globset::GlobSet;
use metactl::cancel::Cancel;
use metactl::decision::Facts;
use metactl::metadb::{MetaDb, Place};
use metactl::progress::Progress;
use metactl::stamp::{Comparison, StoredStamp};
use metactl::state::State;
use metactl::storage::routing::Stores;
use metactl::verify::{Depth, Report, Severity, StampFacts, Verify, VerifyError};
use metactl::walk::WalkError;

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Compare listings, times, tags and digests only
    #[arg(long, conflicts_with = "deep")]
    pub quick: bool,

    /// Also rebuild every record from storage, check digests and compare field by field
    #[arg(long)]
    pub deep: bool,

    /// Only repos that match; `*` stops at `/`, `**` does not (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub repo: Vec<String>,

    /// Read this share of the unchanged repos too, those verified longest ago first
    #[arg(long, value_name = "P%", value_parser = percent)]
    pub sample: Option<f64>,

    /// Read all repos, whatever earlier runs remember
    #[arg(long, conflicts_with = "sample")]
    pub full: bool,

    /// Show so many findings, the gravest [default: all; with nagios 20]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage such as 10%".to_owned()),
    }
}

/// `verify`.
pub fn run(args: &VerifyArgs, global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    let context = Context::load_valid(global, Access::Read)?;
    let place = context.place()?;
    root_exists(&context)?;
    let db = place.open(cancel)?;
    let stored = StoredStamp::new(db.stamp()?.unwrap_or_default());
    let expected = context.expected(&stored)?;
    if global.format == Format::Table {
        expected.notices.iter().for_each(|notice| ui.notice(notice));
    }
    let stores = context.stores(cancel)?;
    let state = memory::open(&context, &place, ui);
    let depth = match (args.quick, args.deep) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Deep,
        _ => Depth::Records,
    };
    let bars = Bars::new(!global.no_progress && ui.quiet == 0).watching(place.pressure());
    let globs = globs(&args.repo)?;
    let check = Check {
        context: &context,
        place: &place,
        stores: &stores,
        db: db.as_ref(),
        stored: &stored,
        expected: &expected,
        repos: globs.as_ref(),
        state: state.as_ref(),
        full: args.full,
        sample: args.sample,
        cancel,
    };
    let report = check.run(depth, &bars)?;
    if let Some(problem) = &report.state_problem {
        ui.warning(&format!("nothing is remembered of this run: {problem}"));
    }
    let exit = exit(&report);
    let view = View { report: &report, depth, place: &place, exit };
    let metrics = findings::metrics(&view);
    ui.result(&match global.format {
        Format::Table => findings::table(ui, &view, args.limit),
        Format::Json => ui::json(&findings::json(&view)),
        Format::Nagios => findings::nagios(&view, args.limit),
        Format::Prometheus => metrics.text().to_owned(),
    });
    Ok(global.metrics_file.as_ref().map_or(exit, |path| metrics.write_beside(path, ui, exit)))
}

/// The gravest finding decides.
pub fn exit(report: &Report) -> Exit {
    match report.worst() {
        None | Some(Severity::Info) => Exit::Ok,
        Some(Severity::Warning) => Exit::Warning,
        Some(Severity::Critical) => Exit::Critical,
    }
}

/// All that a verification needs, for `verify` and for `stamp write`.
pub struct Check<'a> {
    pub context: &'a Context<'a>,
    pub place: &'a Place,
    pub stores: &'a Stores,
    pub db: &'a dyn MetaDb,
    pub stored: &'a StoredStamp,
    pub expected: &'a Expected,
    pub repos: Option<&'a GlobSet>,
    pub state: Option<&'a State>,
    pub full: bool,
    pub sample: Option<f64>,
    pub cancel: &'a Cancel,
}

impl Check<'_> {
    /// Verify to `depth`.
    pub fn run(&self, depth: Depth, progress: &dyn Progress) -> Result<Report, Failure> {
        let comparison = self.expected.stamp.as_ref().map(|stamp| self.stored.compare(stamp));
        let stored = self.stored.text();
        let expected = self.expected.stamp.as_ref().map(metactl::stamp::Stamp::text).unwrap_or_default();
        let verify = Verify {
            stores: self.stores,
            db: self.db,
            repos: self.repos,
            depth,
            rules: self.expected.rules(),
            jobs: self.context.global.jobs.into(),
            stamp: StampFacts { facts: self.facts(comparison.as_ref()), stored: &stored, expected: &expected },
            state: self.state,
            full: self.full,
            sample: self.sample,
            progress,
            cancel: self.cancel,
        };
        Ok(verify.run()?)
    }

    fn facts<'c>(&self, comparison: Option<&'c Comparison>) -> Facts<'c> {
        Facts {
            metadb_used: self.context.metadb.used,
            zots_metadb: self.place.is_zots(),
            fast_restart: self.context.storage.fast_restart().unwrap_or_default(),
            release_has_stamp: self.expected.no_stamp.is_none(),
            comparison,
            stamped: !self.stored.is_empty(),
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Storage(error) => error.into(),
            VerifyError::MetaDb(error) => error.into(),
            VerifyError::NoRepo => WalkError::NoRepo.into(),
            VerifyError::Cancelled => WalkError::Cancelled.into(),
        }
    }
}
