//! Findings for people, programs, Nagios and Prometheus.

use super::exit::Exit;
use super::metrics::Metrics;
use super::render::{cell, for_nagios, lines, table as new_table, terminal_width, tinted};
use super::ui::{Ui, clean, count};
use comfy_table::{Color, ColumnConstraint, ContentArrangement, Width};
use indicatif::{HumanBytes, HumanCount};
use metactl::metadb::Place;
use metactl::verify::{Depth, Finding, Id, Report, Severity};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use unicode_width::UnicodeWidthStr as _;

/// Detail lines in Nagios' long output, unless `--limit` says otherwise: its buffer is small.
const NAGIOS_LINES: usize = 20;

/// On a terminal of fewer columns than this a table of five is unreadable.
const NARROW: u16 = 100;
/// Commands that are worth naming one by one.
const REPAIRS: usize = 10;
/// The walk of everything, and what those of single repos begin with.
const FORCED: &str = "metactl walk --force";

/// What there is to show.
pub struct View<'a> {
    pub report: &'a Report,
    pub depth: Depth,
    pub place: &'a Place,
    pub exit: Exit,
}

/// The whole report for programs.
pub fn json(view: &View<'_>) -> Value {
    let report = view.report;
    let finding = |found: &Finding| {
        json!({
            "id": found.id.text(),
            "severity": found.severity().word(),
            "repo": found.repo,
            "reference": found.reference,
            "digest": found.digest,
            "expected": found.expected,
            "found": found.found,
            "repair": found.repair,
        })
    };
    let counts: Map<String, Value> =
        report.counts().into_iter().map(|(id, number)| (id.text().to_owned(), number.into())).collect();
    let severities: Map<String, Value> =
        Severity::ALL.iter().map(|severity| (severity.word().to_owned(), report.of(*severity).into())).collect();
    json!({
        "schema_version": 1,
        "result": result(view.exit),
        "depth": view.depth.word(),
        "metadb": { "driver": view.place.driver(), "location": view.place.location() },
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "counts": counts,
        "severities": severities,
        "repos": { "listed": report.listed, "checked": report.checked, "unchanged": report.unchanged },
        "manifests": report.manifests,
        "bytes": report.bytes,
        "elapsed_seconds": report.elapsed.as_secs_f64(),
    })
}

fn result(exit: Exit) -> &'static str {
    match exit {
        Exit::Ok => "consistent",
        Exit::Warning => "warning",
        Exit::Critical => "critical",
        Exit::Unknown => "unknown",
    }
}

fn color(severity: Severity) -> Color {
    match severity {
        Severity::Info => Color::Cyan,
        Severity::Warning => Color::Yellow,
        Severity::Critical => Color::Red,
    }
}

/// The report for people: findings by repo. At most `limit` of them, then the gravest; the totals hide nothing.
pub fn table(ui: Ui, view: &View<'_>, limit: Option<usize>) -> String {
    let report = view.report;
    let (shown, hidden) = chosen(&report.findings, limit);
    let mut out = match terminal_width().filter(|width| *width < NARROW) {
        Some(width) => narrow(ui, &shown, usize::from(width)),
        None => wide(ui, &shown),
    };
    if !hidden.is_empty() {
        out.push_str(&format!("and {} more: {}\n", count(hidden.len(), "finding"), by_id(&hidden)));
    }
    let repairs = repairs(report);
    if !repairs.is_empty() {
        out.push_str("\nrepair\n");
        for (repair, number) in &repairs {
            out.push_str(&format!("  {}    ({})\n", clean(repair), count(*number, "finding")));
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("{}\n", summary(view)));
    out
}

/// Which findings are shown, and which are not; both in their order.
fn chosen(findings: &[Finding], limit: Option<usize>) -> (Vec<&Finding>, Vec<&Finding>) {
    let mut gravest: Vec<usize> = (0..findings.len()).collect();
    gravest.sort_by_key(|at| std::cmp::Reverse(findings.get(*at).map(Finding::severity)));
    gravest.truncate(limit.unwrap_or(usize::MAX));
    let gravest: BTreeSet<usize> = gravest.into_iter().collect();
    let (shown, hidden): (Vec<_>, Vec<_>) = findings.iter().enumerate().partition(|(at, _)| gravest.contains(at));
    let alone = |list: Vec<(usize, _)>| list.into_iter().map(|(_, found)| found).collect();
    (alone(shown), alone(hidden))
}

/// How many of each kind.
fn by_id(findings: &[&Finding]) -> String {
    let mut numbers: BTreeMap<Id, usize> = BTreeMap::new();
    findings.iter().for_each(|found| *numbers.entry(found.id).or_default() += 1);
    numbers.iter().map(|(id, number)| format!("{number} {id}")).collect::<Vec<_>>().join(", ")
}

fn wide(ui: Ui, shown: &[&Finding]) -> String {
    if shown.is_empty() {
        return String::new();
    }
    let mut rows = new_table(ui, &["repo", "finding", "tag or digest", "expected", "found"]);
    let mut repo = None;
    for found in shown {
        // A repo's name stands once, before its findings.
        let name = if repo == Some(&found.repo) { "" } else { found.repo.as_deref().unwrap_or("–") };
        repo = Some(&found.repo);
        rows.add_row(vec![
            cell(name),
            tinted(found.id.text(), color(found.severity())),
            cell(&subject(found)),
            cell(&found.expected.as_deref().map_or("–".into(), short)),
            cell(&found.found.as_deref().map_or("–".into(), short)),
        ]);
    }
    lines(&rows)
}

/// The same on a narrow terminal: a repo's name stands on a line of its own, and no id is broken.
fn narrow(ui: Ui, shown: &[&Finding], width: usize) -> String {
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default() + 2;
    let ids = widest(&mut shown.iter().map(|found| found.id.text().len()));
    let subjects = widest(&mut shown.iter().map(|found| subject(found).width())).min(width.saturating_sub(ids) / 2);
    let rest = width.saturating_sub(ids + subjects);
    let mut out = String::new();
    for group in shown.chunk_by(|one, next| one.repo == next.repo) {
        let repo = group.first().and_then(|found| found.repo.as_deref()).unwrap_or("–");
        out.push_str(&format!("{}\n", clean(repo)));
        let mut rows = new_table(ui, &[]);
        rows.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
        for found in group {
            let parts = [("expected", &found.expected), ("found", &found.found)];
            let parts =
                parts.into_iter().filter_map(|(name, text)| Some(format!("{name} {}", short(text.as_deref()?))));
            rows.add_row(vec![
                tinted(found.id.text(), color(found.severity())),
                cell(&subject(found)),
                cell(&parts.collect::<Vec<_>>().join(", ")),
            ]);
        }
        let fixed = |width: usize| ColumnConstraint::Absolute(Width::Fixed(u16::try_from(width).unwrap_or(u16::MAX)));
        rows.set_constraints([ids, subjects, rest].map(fixed));
        out.push_str(&lines(&rows));
    }
    out
}

/// The tag, and the digest if it says more.
fn subject(found: &Finding) -> String {
    match (&found.reference, &found.digest) {
        (Some(reference), Some(digest)) => format!("{reference} {}", short(digest)),
        (Some(text), None) => text.clone(),
        (None, Some(digest)) => short(digest),
        (None, None) => "–".into(),
    }
}

/// A digest as people compare them; the whole of it is in the JSON.
fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) if hex.len() > 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{algorithm}:{}…", hex.get(..12).unwrap_or(hex))
        }
        _ => digest.to_owned(),
    }
}

/// Commands and how many findings each puts right. Nobody runs hundreds for one repo each: one does it all.
fn repairs(report: &Report) -> BTreeMap<&str, usize> {
    let mut repairs = BTreeMap::new();
    for repair in report.findings.iter().filter_map(|found| found.repair.as_deref()) {
        *repairs.entry(repair).or_default() += 1;
    }
    if repairs.len() > REPAIRS {
        let single: BTreeMap<&str, usize> = repairs.extract_if(.., |repair, _| repair.starts_with(FORCED)).collect();
        *repairs.entry(FORCED).or_default() += single.values().sum::<usize>();
    }
    repairs
}

fn numbers(report: &Report) -> String {
    let parts: Vec<String> = [Severity::Critical, Severity::Warning, Severity::Info]
        .into_iter()
        .map(|severity| (severity, report.of(severity)))
        .filter(|(_, number)| *number > 0)
        .map(|(severity, number)| format!("{number} {}", severity.word()))
        .collect();
    if parts.is_empty() { "no findings".into() } else { parts.join(", ") }
}

fn summary(view: &View<'_>) -> String {
    let report = view.report;
    let mut out = format!("{} in {}", numbers(report), count(report.listed, "repo"));
    if report.unchanged > 0 {
        out.push_str(&format!(" ({} unchanged since they were verified)", report.unchanged));
    }
    let work = format!(
        "{} verify, {} manifests, {}, {:.2} s",
        view.depth.word(),
        HumanCount(report.manifests),
        HumanBytes(report.bytes),
        report.elapsed.as_secs_f64()
    );
    format!("{out}: {work}")
}

/// One status line with performance data, then the findings.
pub fn nagios(view: &View<'_>, limit: Option<usize>) -> String {
    let report = view.report;
    let number = |severity| report.of(severity);
    let mut out = format!(
        "VERIFY {} - {} in {} | critical={};;0;0 warning={};0;;0 info={};;;0 repos={};;;0 unchanged={};;;0 time={:.3}s;;;0\n",
        view.exit.nagios(),
        numbers(report),
        count(report.listed, "repo"),
        number(Severity::Critical),
        number(Severity::Warning),
        number(Severity::Info),
        report.listed,
        report.unchanged,
        report.elapsed.as_secs_f64(),
    );
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|found| std::cmp::Reverse(found.severity()));
    let shown = limit.unwrap_or(NAGIOS_LINES).min(findings.len());
    for found in findings.iter().take(shown) {
        let parts = [
            Some(found.severity().word()),
            Some(found.id.text()),
            found.repo.as_deref(),
            found.reference.as_deref(),
            found.digest.as_deref(),
            found.found.as_deref(),
        ];
        let line = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        out.push_str(&format!("{}\n", for_nagios(&line)));
    }
    if shown < findings.len() {
        out.push_str(&format!("and {} more\n", count(findings.len() - shown, "finding")));
    }
    out
}

/// Gauges of the run. Every id is there, also with 0, so that alerts can rest on its absence meaning "not run".
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn metrics(view: &View<'_>) -> Metrics {
    let report = view.report;
    let counts = report.counts();
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let absent = |id: Id| !counts.contains_key(&id);
    let mut metrics = Metrics::default();
    metrics.gauge("metactl_verify_findings", "Findings of the last verify.");
    for id in Id::ALL {
        let labels = [("id", id.text()), ("severity", id.severity().word())];
        metrics.sample("metactl_verify_findings", &labels, counts.get(id).copied().unwrap_or_default() as f64);
    }
    metrics
        .gauge("metactl_verify_status", "Outcome of the last verify: 0 consistent, 1 warning, 2 critical.")
        .sample("metactl_verify_status", &[], f64::from(view.exit.code()))
        .gauge("metactl_verify_repos", "Repos by how the last verify treated them.")
        .sample("metactl_verify_repos", &[("outcome", "checked")], report.checked as f64)
        .sample("metactl_verify_repos", &[("outcome", "unchanged")], report.unchanged as f64)
        .gauge("metactl_verify_manifests", "Manifests and indexes read by the last verify.")
        .sample("metactl_verify_manifests", &[], report.manifests as f64)
        .gauge("metactl_verify_duration_seconds", "Duration of the last verify.")
        .sample("metactl_verify_duration_seconds", &[("depth", view.depth.word())], report.elapsed.as_secs_f64())
        .gauge("metactl_stamp_usable", "Whether the stamp is there, current and true.");
    let usable = [Id::StampAbsent, Id::StampIdentity, Id::StampConfig, Id::StampPremature, Id::FastRestartOff];
    metrics.sample("metactl_stamp_usable", &[], flag(usable.into_iter().all(absent)));
    metrics.success("verify");
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Ui = Ui { color: false, color_err: false, quiet: 0 };

    fn found(id: Id, repo: &str) -> Finding {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let mut found =
            Finding::new(id).reference("v1.0").digest(&digest).expected(digest.clone()).found("something else");
        found.repo = Some(repo.to_owned()).filter(|repo| !repo.is_empty());
        found.settle_repair(true);
        found
    }

    fn report(repos: usize) -> Report {
        let ids = [Id::TagDigest, Id::RepoHidden, Id::StarsDiffer];
        let names: Vec<String> = (0..repos).map(|at| format!("team/application-{at}")).collect();
        let mut findings: Vec<Finding> = names.iter().flat_map(|name| ids.map(|id| found(id, name))).collect();
        findings.push(found(Id::StampPremature, ""));
        findings.sort();
        Report { findings, ..Report::default() }
    }

    #[test]
    fn a_limit_shows_the_gravest_in_their_order_and_counts_the_others() {
        let report = report(3);
        let ids = |list: &[&Finding]| list.iter().map(|found| found.id.text()).collect::<Vec<_>>();
        let (shown, hidden) = chosen(&report.findings, Some(5));
        assert_eq!(ids(&shown), ["stamp-premature", "repo-hidden", "tag-digest", "repo-hidden", "repo-hidden"]);
        assert_eq!(by_id(&hidden), "2 tag-digest, 3 stars-differ");
        for all in [None, Some(10), Some(99)] {
            let (shown, hidden) = chosen(&report.findings, all);
            assert!(shown.into_iter().eq(&report.findings) && hidden.is_empty());
        }
        assert_eq!(chosen(&report.findings, Some(0)).0, Vec::<&Finding>::new());
    }

    #[test]
    fn nobody_is_told_hundreds_of_commands() {
        let few =
            repairs(&report(9)).into_iter().map(|(repair, number)| (repair.to_owned(), number)).collect::<Vec<_>>();
        assert_eq!(few.len(), 10);
        assert_eq!(few[1], ("metactl walk --force --repo team/application-0".to_owned(), 2));
        let many = report(200);
        assert_eq!(repairs(&many).into_iter().collect::<Vec<_>>(), [("metactl walk --force", 401)]);
    }

    #[test]
    fn a_narrow_terminal_breaks_no_id_and_no_line() {
        let report = report(2);
        let shown: Vec<&Finding> = report.findings.iter().collect();
        for width in [40, 60, 80, 99] {
            let text = narrow(PLAIN, &shown, width);
            assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
            for found in &shown {
                assert!(text.contains(&format!(" {} ", found.id)), "{width}:\n{text}");
            }
            assert_eq!(text.lines().filter(|line| line.starts_with("team/application-")).count(), 2, "{text}");
        }
        assert!(wide(PLAIN, &shown).contains("sha256:0123456789ab…"));
        assert_eq!(short("index of 2024-01-01T00:00:00.123456789Z"), "index of 2024-01-01T00:00:00.123456789Z");
    }
}
