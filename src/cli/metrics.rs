//! Prometheus' text format, and files in it for node_exporter's textfile collector.

use super::exit::Failure;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Metrics of one result, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Describe a gauge; its samples follow.
    pub fn gauge(&mut self, name: &str, help: &str) -> &mut Self {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        self
    }

    /// One sample. Never with a time stamp: node_exporter rejects those.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
        self
    }

    /// When this command last did its work.
    pub fn success(&mut self, command: &str) -> &mut Self {
        let name = "metactl_last_success_timestamp_seconds";
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
        let now = jiff::Timestamp::now().as_second() as f64;
        self.gauge(name, "When the command last completed.").sample(name, &[("command", command)], now)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Replace `path` by these metrics in one step, so that no reader ever sees half of them.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::unknown("metrics-file", format!("cannot write metrics to {}: {error}", path.display()))
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Not ending in .prom, so that the collector leaves it alone.
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(self.0.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
