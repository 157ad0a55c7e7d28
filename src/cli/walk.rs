//! `walk`: plan, consent, walk, report.

use super::args::{Format, Global};
use super::bars::Bars;
use super::consent;
use super::context::{Access, Context, Expected};
use super::exit::{Exit, Failure};
use super::memory;
use super::metrics::Metrics;
use super::online;
use super::render::{cell, lines, table, tinted};
use super::ui::{self, Ui, clean, count};
use clap::Args;
use comfy_table::Color;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use indicatif::{HumanBytes, HumanCount};
use metactl::cancel::Cancel;
use metactl::decision::Reason;
use metactl::metadb::{MetaDb, Place, WriteToken, check_version};
use metactl::stamp::StoredStamp;
use metactl::walk::plan::{MaxDelete, Plan, Scope, plan};
use metactl::walk::{Problem, StampOutcome, Walk, WalkReport};
use serde_json::{Value, json};
use std::path::Path;

/// `walk`
#[derive(Debug, Args)]
pub struct WalkArgs {
    /// Read every repo, whatever the stamp and the times say
    #[arg(long)]
    pub force: bool,

    /// Only repos that match; `*` stops at `/`, `**` does not (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub repo: Vec<String>,

    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Repos that may be deleted from the metaDB without a question [default: 10 or 10%, whichever is more; never all]
    #[arg(long, value_name = "N|N%", value_parser = max_delete)]
    pub max_delete: Option<MaxDelete>,

    /// Also remove image records that no repo reaches
    #[arg(long, conflicts_with = "repo")]
    pub prune: bool,

    /// Walk a DynamoDB metaDB even though a zot answers that may be at work on it
    #[arg(long)]
    pub online: bool,

    /// Create DynamoDB tables that are missing, as zot does
    #[arg(long)]
    pub create_tables: bool,

    /// Do not write the stamp, even after a complete walk
    #[arg(long)]
    pub no_stamp: bool,
}

fn max_delete(text: &str) -> Result<MaxDelete, String> {
    let wrong = || "expected a number of repos, or a percentage such as 25%".to_owned();
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxDelete::Percent(percent)),
            _ => Err(wrong()),
        },
        None => text.parse().map(MaxDelete::Count).map_err(|_| wrong()),
    }
}

pub fn run(args: &WalkArgs, global: &Global, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    super::stamp::plain_formats(global)?;
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let context = Context::load_valid(global, access)?;
    let place = creating(context.place()?, args.create_tables);
    if place.is_zots() && !context.metadb.used && !context.overridden() {
        let reason = context.metadb.reasons.join("; ");
        return Err(Failure::unknown("metadb-unused", format!("zot opens no metaDB with this config: {reason}"))
            .hint("there is nothing to walk for; --metadb bolt:PATH or redb:PATH walks all the same"));
    }
    root_exists(&context)?;
    let scope = Scope { repos: globs(&args.repo)?, force: args.force };
    let command = Command { args, global, ui, cancel, context: &context, place: &place, scope };
    if args.dry_run { command.dry_run() } else { command.walk() }
}

fn creating(place: Place, tables: bool) -> Place {
    match place {
        Place::DynamoDb(options) => Place::DynamoDb(Box::new(options.with_create_tables(tables))),
        other => other,
    }
}

/// zot would create a missing root; a walk of nothing is more likely a mistake.
pub fn root_exists(context: &Context<'_>) -> Result<(), Failure> {
    let stores = context.storage.stores();
    for (key, store) in stores.filter(|(_, store)| store.storage_driver.is_none()) {
        let root = Path::new(&store.root_directory);
        let wrong = match root.metadata() {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => "is not a directory".to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            Err(error) => format!("cannot be looked at: {error}"),
        };
        let message = format!("{key}.rootDirectory {} {wrong}", root.display());
        return Err(Failure::unknown("root-directory", message)
            .hint("check the path, and that its file system is mounted; relative paths start where zot starts"));
    }
    Ok(())
}

/// Patterns for repo names; `*` stops at `/`.
pub fn globs(patterns: &[String]) -> Result<Option<GlobSet>, Failure> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let wrong = |error: globset::Error| Failure::unknown("usage", format!("--repo: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(wrong)?);
    }
    set.build().map(Some).map_err(wrong)
}

struct Command<'a> {
    args: &'a WalkArgs,
    global: &'a Global,
    ui: Ui,
    cancel: &'a Cancel,
    context: &'a Context<'a>,
    place: &'a Place,
    scope: Scope,
}

impl Command<'_> {
    fn bars(&self) -> Bars {
        Bars::new(!self.global.no_progress && self.ui.quiet == 0).watching(self.place.pressure())
    }

    /// The stored stamp and what is expected; notices are said.
    fn stamps(&self, db: Option<&dyn MetaDb>) -> Result<(StoredStamp, Expected), Failure> {
        let stored = StoredStamp::new(match db {
            Some(db) => db.stamp()?.unwrap_or_default(),
            None => Vec::new(),
        });
        let expected = self.context.expected(&stored)?;
        expected.notices.iter().for_each(|notice| self.ui.notice(notice));
        Ok((stored, expected))
    }

    fn plan(&self, db: Option<&dyn MetaDb>) -> Result<Plan, Failure> {
        let stores = self.context.stores(self.cancel)?;
        Ok(plan(&stores, db, &self.scope, self.global.jobs.into(), &self.bars(), self.cancel)?)
    }

    fn dry_run(&self) -> Result<Exit, Failure> {
        let db = self.context.open(self.place, self.cancel)?;
        if let Some(db) = &db {
            check_version(db.as_ref(), &self.place.location())?;
        }
        let (stored, expected) = self.stamps(db.as_deref())?;
        if let Some(stamp) = self.nothing_to_do(&stored, &expected) {
            return Ok(self.skipped(&stamp));
        }
        let plan = self.plan(db.as_deref())?;
        self.ui.result(&match self.global.format {
            Format::Json => ui::json(&json!({
                "schema_version": 1,
                "result": "planned",
                "new": plan.new_repos(),
                "changed": plan.changed_repos(),
                "unchanged": plan.unchanged.len(),
                "deleted": plan.gone,
                "failed": problems_json(&plan.unreadable),
            })),
            _ => self.plan_table(&plan),
        });
        Ok(Exit::Ok)
    }

    fn plan_table(&self, plan: &Plan) -> String {
        let mut rows = table(self.ui, &["repo", "would be"]);
        let mut add = |repos: &[&str], what: &str, color| {
            for repo in repos {
                rows.add_row(vec![cell(repo), tinted(what, color)]);
            }
        };
        let gone: Vec<&str> = plan.gone.iter().map(String::as_str).collect();
        add(&plan.new_repos(), "recorded", Color::Green);
        add(&plan.changed_repos(), "read again", Color::Cyan);
        add(&gone, "deleted from the metaDB", Color::Red);
        let due = plan.due.len() + gone.len();
        let mut out = if due == 0 { String::new() } else { lines(&rows) };
        out.push_str(&problem_table(self.ui, &[("cannot be read", &plan.unreadable)]));
        out.push_str(&format!("{} would change, {} stay as they are\n", count(due, "repo"), plan.unchanged.len()));
        out
    }

    /// The stamp that makes this walk unnecessary, if there is one.
    fn nothing_to_do(&self, stored: &StoredStamp, expected: &Expected) -> Option<String> {
        let stamp = expected.stamp.as_ref().map(metactl::stamp::Stamp::text).filter(|text| !text.is_empty())?;
        let asked_for_more = self.args.force || self.args.prune || self.scope.repos.is_some();
        (!asked_for_more && stored.as_bytes() == stamp.as_bytes()).then_some(stamp)
    }

    fn skipped(&self, stamp: &str) -> Exit {
        self.ui.result(&match self.global.format {
            Format::Json => ui::json(&json!({
                "schema_version": 1,
                "result": "skipped",
                "reason": Reason::StampCurrent.word(),
                "stamp": { "outcome": "current", "stamp": stamp, "reason": null },
            })),
            _ => "nothing to do: the stamp is current (--force walks all the same)\n".into(),
        });
        self.say_if_zot_walks();
        Exit::Ok
    }

    /// Whether opening the metaDB makes no new file.
    fn place_exists(&self) -> bool {
        match self.place {
            Place::Bolt(path) | Place::Redb(path) => path.exists(),
            Place::Redis(_) | Place::DynamoDb(_) => true,
        }
    }

    /// A stamp does nothing for a zot that does not look at it.
    fn say_if_zot_walks(&self) {
        if self.place.is_zots() && !self.context.storage.fast_restart().unwrap_or_default() {
            self.ui.notice("zot will walk all the same: storage.fastRestart is not true in its config");
        }
    }

    fn walk(&self) -> Result<Exit, Failure> {
        online::allowed(self.place, self.context, self.args.online, self.ui)?;
        let stores = self.context.stores(self.cancel)?;
        let bars = self.bars();
        let plan =
            |db: Option<&dyn MetaDb>| plan(&stores, db, &self.scope, self.global.jobs.into(), &bars, self.cancel);
        // A metaDB is made only for a walk that can begin.
        let without = if self.place_exists() { None } else { Some(plan(None)?) };
        let token = WriteToken::for_writing_command();
        let mut writer = self.place.open_writer(token, self.global.lock_timeout, self.cancel)?;
        let (stored, expected) = self.stamps(Some(writer.reader()))?;
        if let Some(stamp) = self.nothing_to_do(&stored, &expected) {
            return Ok(self.skipped(&stamp));
        }
        let plan = match without {
            Some(plan) if writer.reader().repo_names()?.is_empty() => plan,
            _ => plan(Some(writer.reader()))?,
        };
        consent::deletions(&plan, self.args.max_delete.unwrap_or(MaxDelete::Default), self.global, self.cancel)?;
        let stamp = self.stamp_to_write(&expected);
        let walk = Walk {
            stores: &stores,
            scope: &self.scope,
            rules: expected.rules(),
            jobs: self.global.jobs.into(),
            prune: self.args.prune,
            stamp: stamp.as_deref().map_err(|reason| *reason),
            progress: &bars,
            cancel: self.cancel,
        };
        let report = walk.run(writer.as_mut(), plan)?;
        drop(writer);
        if let StampOutcome::Written(stamp) = &report.stamp {
            memory::remember_stamp(self.context, self.place, &expected, stamp, self.ui);
        }
        self.report(&report)
    }

    fn stamp_to_write(&self, expected: &Expected) -> Result<String, &'static str> {
        if self.args.no_stamp {
            return Err("--no-stamp");
        }
        if expected.no_stamp.is_some() {
            return Err("this release of zot has no stamp");
        }
        let stamp = expected.stamp.as_ref().ok_or(
            "it is not known which build of zot will start: name it with --release-tag and --commit, or --zot-binary",
        )?;
        Some(stamp.text()).filter(|text| !text.is_empty()).ok_or("a zot without release tag and commit uses no stamp")
    }

    fn report(&self, report: &WalkReport) -> Result<Exit, Failure> {
        // Time that ran out is a walk that is not complete yet, nothing worse.
        let timed_out = report.broken_off.is_some() && self.cancel.timed_out();
        let exit = match (&report.broken_off, report.complete()) {
            (Some(_), _) if !timed_out => Exit::Critical,
            (Some(_), _) => Exit::Warning,
            (None, false) => Exit::Warning,
            (None, true) => Exit::Ok,
        };
        self.ui.result(&match self.global.format {
            Format::Json => ui::json(&report_json(report)),
            _ => report_table(self.ui, report),
        });
        if let Some(reason) = &report.broken_off {
            let message = match (timed_out, self.cancel.is_cancelled()) {
                (true, _) => "the walk was stopped: --timeout is over".to_owned(),
                (false, true) => "the walk was stopped by a signal".to_owned(),
                (false, false) => format!("the walk broke off: {reason}"),
            };
            self.ui.error(&message, Some("what is recorded so far is sound and unstamped: run it again"));
        }
        if report.stamp.is_there() {
            self.say_if_zot_walks();
        }
        if self.args.prune && !report.complete() {
            self.ui.notice("nothing was pruned: only a complete walk knows what is still reached");
        }
        if let Some(path) = &self.global.metrics_file {
            return Ok(metrics(report).write_beside(path, self.ui, exit));
        }
        Ok(exit)
    }
}

fn result_word(report: &WalkReport) -> &'static str {
    match (&report.broken_off, report.complete()) {
        (Some(_), _) => "broken-off",
        (None, true) => "complete",
        (None, false) => "partial",
    }
}

fn stamp_parts(outcome: &StampOutcome) -> (&'static str, Option<&str>, Option<&str>) {
    match outcome {
        StampOutcome::Written(stamp) => ("written", Some(stamp), None),
        StampOutcome::Current(stamp) => ("current", Some(stamp), None),
        StampOutcome::Restored(stamp) => ("restored", Some(stamp), None),
        StampOutcome::Absent(reason) => ("absent", None, Some(reason)),
        StampOutcome::Untouched(reason) => ("untouched", None, Some(reason)),
    }
}

fn problems_json(problems: &[Problem]) -> Vec<Value> {
    let one = |found: &Problem| json!({ "repo": found.repo, "digest": found.digest, "reason": found.reason });
    problems.iter().map(one).collect()
}

fn report_json(report: &WalkReport) -> Value {
    let (outcome, stamp, reason) = stamp_parts(&report.stamp);
    json!({
        "schema_version": 1,
        "result": result_word(report),
        "reason": report.broken_off,
        "repos": {
            "listed": report.listed,
            "parsed": report.parsed,
            "new": report.new,
            "unchanged": report.unchanged,
            "deleted": report.deleted.len(),
            "partial": report.partial.len(),
            "failed": report.failed.len(),
            "moving": report.moving.len(),
        },
        "manifests": report.manifests,
        "bytes": report.bytes,
        "pruned": report.pruned,
        "deleted": report.deleted,
        "partial": problems_json(&report.partial),
        "failed": problems_json(&report.failed),
        "moving": report.moving,
        "stamp": { "outcome": outcome, "stamp": stamp, "reason": reason },
        "elapsed_seconds": report.elapsed.as_secs_f64(),
    })
}

fn problem_table(ui: Ui, groups: &[(&str, &[Problem])]) -> String {
    let mut rows = table(ui, &["repo", "", "digest", "reason"]);
    let mut any = false;
    for (what, problems) in groups {
        for found in *problems {
            any = true;
            let digest = found.digest.as_deref().unwrap_or("–");
            rows.add_row(vec![cell(&found.repo), tinted(what, Color::Red), cell(digest), cell(&found.reason)]);
        }
    }
    if any { format!("{}\n", lines(&rows)) } else { String::new() }
}

/// The first few names; JSON has all.
fn some_of(names: &[String]) -> String {
    const FEW: usize = 5;
    let more = if names.len() > FEW { ", …" } else { "" };
    format!("{}{more}", names.get(..FEW.min(names.len())).unwrap_or_default().join(", "))
}

fn report_table(ui: Ui, report: &WalkReport) -> String {
    let mut out = problem_table(ui, &[("failed", &report.failed), ("partial", &report.partial)]);
    for repo in &report.moving {
        out.push_str(&format!("{} kept changing while it was read\n", clean(repo)));
    }
    let (outcome, stamp, reason) = stamp_parts(&report.stamp);
    out.push_str(&format!(
        "{} in {:.2} s: {} manifests, {}\n",
        count(report.listed, "repo"),
        report.elapsed.as_secs_f64(),
        HumanCount(report.manifests),
        HumanBytes(report.bytes)
    ));
    let mut rows = table(ui, &[]);
    let mut row = |name: &str, number: usize, note: &str| {
        rows.add_row(vec![cell(name), cell(&HumanCount(number as u64).to_string()), cell(note)]);
    };
    row("parsed", report.parsed, "");
    row("unchanged", report.unchanged, "");
    row("deleted", report.deleted.len(), &some_of(&report.deleted));
    row("partial", report.partial.len(), "");
    row("failed", report.failed.len(), "");
    if report.pruned > 0 {
        row("pruned", report.pruned, "image records");
    }
    out.push_str(&lines(&rows));
    out.push_str(&format!("stamp {outcome}: {}\n", clean(stamp.or(reason).unwrap_or_default())));
    out
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn metrics(report: &WalkReport) -> Metrics {
    let mut metrics = Metrics::default();
    metrics.gauge("metactl_walk_repos", "Repos by what the last walk did to them.");
    let counts = [
        ("parsed", report.parsed),
        ("unchanged", report.unchanged),
        ("deleted", report.deleted.len()),
        ("partial", report.partial.len()),
        ("failed", report.failed.len()),
        ("moving", report.moving.len()),
    ];
    for (outcome, number) in counts {
        metrics.sample("metactl_walk_repos", &[("outcome", outcome)], number as f64);
    }
    metrics
        .gauge("metactl_walk_manifests", "Manifests and indexes read by the last walk.")
        .sample("metactl_walk_manifests", &[], report.manifests as f64)
        .gauge("metactl_walk_duration_seconds", "Duration of the last walk.")
        .sample("metactl_walk_duration_seconds", &[], report.elapsed.as_secs_f64());
    metrics.gauge("metactl_walk_stamped", "Whether the last walk left a stamp.").sample(
        "metactl_walk_stamped",
        &[],
        if report.stamp.is_there() { 1.0 } else { 0.0 },
    );
    if report.complete() {
        metrics.success("walk");
    }
    metrics
}
