//! `stamp show | write | clear`.

use super::args::{Format, Global};
use super::context::{Access, Context, Expected};
use super::exit::{EXIT_STATUS, Exit, Failure};
use super::memory;
use super::metrics::Metrics;
use super::render::{cell, for_nagios, lines, paint, table};
use super::ui::{self, Ui, clean, count};
use super::verify::Check;
use clap::{Args, Subcommand};
use metactl::cancel::Cancel;
use metactl::decision::{self, Decision, Facts};
use metactl::metadb::{Place, WriteToken, check_version};
use metactl::progress::Silent;
use metactl::stamp::{Comparison, Part, StoredStamp, Verdict};
use metactl::state::{Change, StampRecord};
use metactl::verify::{Depth, Finding, Report};
use serde_json::json;

/// `stamp …`
#[derive(Debug, Subcommand)]
pub enum StampCommand {
    /// Compare the stored stamp with the expected one, and say what zot will do at its next start
    #[command(after_help = EXIT_STATUS)]
    Show(ShowArgs),
    /// Store the expected stamp, so that zot skips its next walk
    #[command(after_help = EXIT_STATUS)]
    Write(WriteArgs),
    /// Remove the stamp, so that zot walks at its next start
    #[command(after_help = EXIT_STATUS)]
    Clear,
}

/// `stamp show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Exit 1 if the stamp is absent or stale
    #[arg(long)]
    pub check: bool,
}

/// `stamp write`
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Do not check first that every repo is recorded
    #[arg(long)]
    pub force: bool,
}

pub fn run(command: &StampCommand, global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    match command {
        StampCommand::Show(args) => show(args, global, ui, cancel),
        StampCommand::Write(args) => write(args, global, ui, cancel),
        StampCommand::Clear => clear(global, ui, cancel),
    }
}

/// Everything `stamp show` says.
struct Shown<'a> {
    place: &'a Place,
    exists: bool,
    stored: StoredStamp,
    expected: Expected,
    comparison: Option<Comparison>,
    decision: Decision,
    fast_restart: bool,
    /// The config under which the stored stamp was written, and what changed since, if that is remembered.
    changed: Option<(StampRecord, Vec<Change>)>,
}

impl<'a> Shown<'a> {
    fn look(
        context: &Context<'_>,
        place: &'a Place,
        exists: bool,
        stored: StoredStamp,
        ui: Ui,
    ) -> Result<Self, Failure> {
        let expected = context.expected(&stored)?;
        let comparison = expected.stamp.as_ref().map(|stamp| stored.compare(stamp));
        let fast_restart = context.storage.fast_restart().unwrap_or_default();
        let decision = decision::decide(Facts {
            metadb_used: context.metadb.used,
            zots_metadb: place.is_zots(),
            fast_restart,
            release_has_stamp: expected.no_stamp.is_none(),
            comparison: comparison.as_ref(),
            stamped: !stored.is_empty(),
        });
        let changed = memory::changes(context, place, &stored, &expected, ui);
        Ok(Self { place, exists, stored, expected, comparison, decision, fast_restart, changed })
    }

    fn verdict(&self) -> &'static str {
        match self.comparison.as_ref().map(|comparison| comparison.verdict) {
            Some(Verdict::Current) => "current",
            Some(Verdict::Stale) => "stale",
            Some(Verdict::Absent) => "absent",
            Some(Verdict::NothingExpected) => "none-expected",
            None if self.expected.no_stamp.is_some() => "none-expected",
            None if self.stored.is_empty() => "absent",
            None => "unknown",
        }
    }

    fn exit(&self) -> Exit {
        match self.verdict() {
            "current" => Exit::Ok,
            "unknown" => Exit::Unknown,
            _ => Exit::Warning,
        }
    }

    fn json(&self) -> serde_json::Value {
        let part = |wanted: Part, stored: bool| {
            let comparison = self.comparison.as_ref()?;
            let found = comparison.parts.iter().find(|found| found.part == wanted)?;
            Some(if stored { found.stored.clone() } else { found.expected.clone() })
        };
        let own = metactl::identity::Identity::parse(self.stored.identity_text().unwrap_or_default());
        let stored = (!self.stored.is_empty()).then(|| {
            json!({
                "stamp": self.stored.text(),
                "release_tag": part(Part::ReleaseTag, true).unwrap_or(own.release_tag),
                "commit": part(Part::Commit, true).unwrap_or(own.commit),
                "fingerprint": self.stored.fingerprint(),
            })
        });
        let expected = self.expected.stamp.as_ref().map(|stamp| {
            json!({
                "stamp": stamp.text(),
                "release_tag": stamp.identity.release_tag,
                "commit": stamp.identity.commit,
                "fingerprint": stamp.fingerprint,
            })
        });
        json!({
            "schema_version": 1,
            "metadb": { "driver": self.place.driver(), "location": self.place.location(), "exists": self.exists },
            "stored": stored,
            "expected": expected,
            "identity_source": self.expected.identity.as_ref().map(|identity| identity.source.to_string()),
            "fingerprint": self.expected.fingerprint.as_str(),
            "verdict": self.verdict(),
            "reason": self.decision.reason.word(),
            "zot": { "action": self.decision.action.word(), "explanation": self.decision.sentence() },
            "fast_restart": self.fast_restart,
            "changed_keys": self.changed.as_ref().map(|(_, changes)| {
                changes
                    .iter()
                    .map(|change| json!({ "key": change.key, "before": change.before, "now": change.now }))
                    .collect::<Vec<_>>()
            }),
            "warnings": self.expected.notices,
        })
    }

    fn table(&self, ui: Ui) -> String {
        let mut out = format!("metaDB   {} {}\n", self.place.driver(), clean(&self.place.location()));
        if !self.exists {
            out.push_str("         it does not exist yet\n");
        }
        if let Some(identity) = &self.expected.identity {
            out.push_str(&format!("build    {}\n", clean(&identity.source.to_string())));
        }
        out.push('\n');
        match &self.comparison {
            Some(comparison) => out.push_str(&parts(comparison, ui)),
            None => {
                let unknown = self.expected.no_stamp.as_deref().unwrap_or("unknown build");
                out.push_str(&format!("stored   {}\n", clean(or_dash(&self.stored.text()))));
                out.push_str(&format!("expected {}\n", clean(unknown)));
            }
        }
        let color = if self.exit() == Exit::Ok { "32" } else { "33" };
        let verdict = paint(ui, color, &format!("stamp {}", self.verdict()));
        out.push_str(&format!("\n{verdict}: {}\n", self.decision.sentence()));
        out.push_str(&self.changed_keys(ui));
        out
    }

    /// What a fingerprint cannot tell: which keys changed since the stamp was written.
    fn changed_keys(&self, ui: Ui) -> String {
        let Some((record, changes)) = &self.changed else { return String::new() };
        let when = jiff::Timestamp::from_second(record.written_at).map(|at| at.to_string()).unwrap_or_default();
        if changes.is_empty() {
            return format!("\nchanged since {when}: a secret, or what this version of metactl reads otherwise\n");
        }
        let text = |value: &Option<serde_json::Value>| value.as_ref().map_or("–".to_owned(), ToString::to_string);
        let mut rows = table(ui, &["changed key", &format!("on {when}"), "now"]);
        for change in changes {
            rows.add_row(vec![cell(&change.key), cell(&text(&change.before)), cell(&text(&change.now))]);
        }
        format!("\n{}", lines(&rows))
    }

    /// One status line with performance data, then what was compared.
    fn nagios(&self) -> String {
        let (present, current) = (!self.stored.is_empty(), self.verdict() == "current");
        let mut out = format!(
            "STAMP {} - {}: {} | present={};;;0;1 current={};;;0;1\n",
            self.exit().nagios(),
            self.verdict(),
            self.decision.sentence(),
            u8::from(present),
            u8::from(current),
        );
        let expected = self.expected.stamp.as_ref().map(metactl::stamp::Stamp::text).unwrap_or_default();
        for (name, text) in [("stored", self.stored.text().as_ref()), ("expected", expected.as_str())] {
            out.push_str(&format!("{name} {}\n", for_nagios(or_dash(text))));
        }
        for change in self.changed.iter().flat_map(|(_, changes)| changes) {
            out.push_str(&format!("changed {}\n", for_nagios(&change.key)));
        }
        out
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let labels = [("driver", self.place.driver())];
        metrics
            .gauge("metactl_stamp_present", "Whether a stamp is stored.")
            .sample("metactl_stamp_present", &labels, flag(!self.stored.is_empty()))
            .gauge("metactl_stamp_current", "Whether the stored stamp is the one zot will compute.")
            .sample("metactl_stamp_current", &labels, flag(self.verdict() == "current"))
            .gauge("metactl_fast_restart", "Whether storage.fastRestart is on.")
            .sample("metactl_fast_restart", &[], flag(self.fast_restart))
            .success("stamp show");
        metrics
    }
}

/// Part by part, as in a diff: one below the other, so that two fingerprints fit 80 columns.
fn parts(comparison: &Comparison, ui: Ui) -> String {
    let absent = comparison.verdict == Verdict::Absent;
    let mut out = String::new();
    let mut add = |name: &str, what: &str| out.push_str(&format!("{name:11} {what}\n"));
    for found in &comparison.parts {
        let name = match found.part {
            Part::ReleaseTag => "release tag",
            Part::Commit => "commit",
            Part::Fingerprint => "fingerprint",
        };
        let (stored, expected) = (clean(or_dash(&found.stored)), clean(or_dash(&found.expected)));
        let expected_line = paint(ui, "32", &format!("+ {expected}"));
        match (absent, found.equal) {
            (true, _) => add(name, &expected_line),
            (false, true) => add(name, &format!("  {expected}")),
            (false, false) => {
                add(name, &paint(ui, "31", &format!("- {stored}")));
                add("", &expected_line);
            }
        }
    }
    match (absent, comparison.parts.iter().all(|found| found.equal)) {
        (true, _) => add("", &paint(ui, "2", "nothing stored, + expected")),
        (false, true) => {}
        (false, false) => add("", &paint(ui, "2", "- stored, + expected")),
    }
    out
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

fn show(args: &ShowArgs, global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    let context = Context::load_valid(global, Access::Read)?;
    let place = context.place()?;
    let db = context.open(&place, cancel)?;
    let stored = match &db {
        Some(db) => {
            check_version(db.as_ref(), &place.location())?;
            StoredStamp::new(db.stamp()?.unwrap_or_default())
        }
        None => StoredStamp::default(),
    };
    let shown = Shown::look(&context, &place, db.is_some(), stored, ui)?;
    if global.format == Format::Table {
        shown.expected.notices.iter().for_each(|notice| ui.notice(notice));
    }
    let metrics = shown.metrics();
    ui.result(&match global.format {
        Format::Table => shown.table(ui),
        Format::Json => ui::json(&shown.json()),
        Format::Nagios => shown.nagios(),
        Format::Prometheus => metrics.text().to_owned(),
    });
    let checked = args.check || global.format == Format::Nagios;
    let exit = if checked { shown.exit() } else { Exit::Ok };
    Ok(match &global.metrics_file {
        Some(path) => metrics.write_beside(path, ui, exit),
        None => exit,
    })
}

fn write(args: &WriteArgs, global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    plain_formats(global)?;
    let context = Context::load_valid(global, Access::Write)?;
    let place = context.place()?;
    let Some(db) = context.open(&place, cancel)? else {
        return Err(Failure::unknown("metadb-absent", format!("there is no metaDB at {}", place.location()))
            .hint("`metactl walk` creates, fills and stamps it"));
    };
    check_version(db.as_ref(), &place.location())?;
    let stored = StoredStamp::new(db.stamp()?.unwrap_or_default());
    drop(db);
    let expected = context.expected(&stored)?;
    expected.notices.iter().for_each(|notice| ui.notice(notice));
    let stamp = match (&expected.stamp, &expected.no_stamp) {
        (Some(stamp), _) if !stamp.text().is_empty() => stamp.text(),
        (Some(_), _) => return Err(Failure::unknown("no-identity", "a zot without identity uses no stamp")),
        (None, Some(reason)) => return Err(Failure::unknown("release-without-stamp", reason.clone())),
        (None, None) => return Err(identity_unknown()),
    };
    let mut writer = place.open_writer(WriteToken::for_writing_command(), global.lock_timeout, cancel)?;
    if !args.force {
        super::walk::root_exists(&context)?;
        let stores = context.stores(cancel)?;
        let check = Check {
            context: &context,
            place: &place,
            stores: &stores,
            db: writer.reader(),
            stored: &stored,
            expected: &expected,
            repos: None,
            state: None,
            full: false,
            sample: None,
            cancel,
        };
        refuse_drift(&check.run(Depth::Quick, &Silent)?)?;
    }
    let before = (!stored.is_empty()).then(|| stored.as_bytes());
    writer.set_stamp(before, Some(stamp.as_bytes()))?;
    drop(writer);
    memory::remember_stamp(&context, &place, &expected, &stamp, ui);
    ui.result(&match global.format {
        Format::Json => ui::json(&json!({
            "schema_version": 1,
            "metadb": { "driver": place.driver(), "location": place.location() },
            "before": before.map(|_| stored.text()),
            "stamp": stamp,
        })),
        _ => format!("stamp written to {} {}\n  {}\n", place.driver(), clean(&place.location()), clean(&stamp)),
    });
    Ok(Exit::Ok)
}

/// A stamp over records that do not say what storage says would make zot serve wrong data.
fn refuse_drift(report: &Report) -> Result<(), Failure> {
    let wrong: Vec<&Finding> = report.findings.iter().filter(|found| found.forbids_stamp()).collect();
    let Some(first) = wrong.first() else { return Ok(()) };
    let example = match &first.repo {
        Some(repo) => format!("{} in {repo}", first.id),
        None => first.id.to_string(),
    };
    let more = if wrong.len() > 1 { ", …" } else { "" };
    let message =
        format!("refused: the metaDB does not reflect storage ({}: {example}{more})", count(wrong.len(), "finding"));
    Err(Failure { exit: Exit::Warning, ..Failure::unknown("drift", message) }
        .hint("`metactl verify --quick` lists them, `metactl walk` records and stamps; --force stamps all the same"))
}

/// The failure of commands that cannot do without an identity.
pub fn identity_unknown() -> Failure {
    Failure::unknown("identity-unknown", "it is not known which build of zot will start")
        .hint("name it with --release-tag and --commit, or point --zot-binary at its executable")
}

fn clear(global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    plain_formats(global)?;
    let context = Context::load_valid(global, Access::Read)?;
    let place = context.place()?;
    let stored = match context.open(&place, cancel)? {
        Some(db) => {
            check_version(db.as_ref(), &place.location())?;
            db.stamp()?
        }
        None => None,
    };
    if let Some(stored) = &stored {
        let mut writer = place.open_writer(WriteToken::for_writing_command(), global.lock_timeout, cancel)?;
        writer.set_stamp(Some(stored), None)?;
    }
    let before = stored.map(|stored| StoredStamp::new(stored).text().into_owned());
    ui.result(&match (global.format, &before) {
        (Format::Json, _) => ui::json(&json!({
            "schema_version": 1,
            "metadb": { "driver": place.driver(), "location": place.location() },
            "before": before,
            "stamp": null,
        })),
        (_, Some(before)) => format!("stamp cleared, zot will walk at its next start\n  was {}\n", clean(before)),
        (_, None) => "there was no stamp\n".into(),
    });
    Ok(Exit::Ok)
}

/// Formats for monitoring exist where there is a state to monitor.
pub fn plain_formats(global: &Global) -> Result<(), Failure> {
    match global.format {
        Format::Table | Format::Json => Ok(()),
        Format::Nagios | Format::Prometheus => {
            Err(Failure::unknown("usage", "this command prints --format table or json only")
                .hint("`stamp show` has --format nagios and prometheus; `walk` has --metrics-file"))
        }
    }
}
