//! Findings for people, programs, Nagios and Prometheus.

use super::exit::Exit;
use super::metrics::Metrics;
use super::render::{cell, lines, table as new_table, tinted};
use super::ui::{Ui, clean, count};
use comfy_table::Color;
use indicatif::{HumanBytes, HumanCount};
use metactl::metadb::Place;
use metactl::verify::{Depth, Finding, Id, Report, Severity};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Detail lines in Nagios' long output, unless `--limit` says otherwise: its buffer is small.
const NAGIOS_LINES: usize = 20;

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

/// The report for people: findings by repo, at most `limit` of them, the gravest repos not first but nothing hidden in
/// the totals.
pub fn table(ui: Ui, view: &View<'_>, limit: Option<usize>) -> String {
    let report = view.report;
    let mut out = String::new();
    let shown = limit.unwrap_or(usize::MAX).min(report.findings.len());
    let mut rows = new_table(ui, &["repo", "finding", "tag or digest", "expected", "found"]);
    let mut repo = None;
    for found in report.findings.iter().take(shown) {
        // A repo's name stands once, before its findings.
        let name = if repo == Some(&found.repo) { "" } else { found.repo.as_deref().unwrap_or("–") };
        repo = Some(&found.repo);
        rows.add_row(vec![
            cell(name),
            tinted(found.id.text(), color(found.severity())),
            cell(&subject(found)),
            cell(found.expected.as_deref().unwrap_or("–")),
            cell(found.found.as_deref().unwrap_or("–")),
        ]);
    }
    if shown > 0 {
        out.push_str(&lines(&rows));
    }
    if shown < report.findings.len() {
        out.push_str(&format!("and {} more\n", count(report.findings.len() - shown, "finding")));
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
        Some((algorithm, hex)) if hex.len() > 16 => {
            format!("{algorithm}:{}…", hex.get(..12).unwrap_or(hex))
        }
        _ => digest.to_owned(),
    }
}

fn repairs(report: &Report) -> BTreeMap<&str, usize> {
    let mut repairs = BTreeMap::new();
    for repair in report.findings.iter().filter_map(|found| found.repair.as_deref()) {
        *repairs.entry(repair).or_default() += 1;
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
        // What follows a bar is performance data to Nagios.
        out.push_str(&format!("{}\n", clean(&line).replace('|', "¦")));
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
