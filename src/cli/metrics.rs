//! Prometheus' text format, and files in it for node_exporter's textfile collector.

use super::exit::Exit;
use super::ui::Ui;
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

    /// Write them to `path`, beside a result that is printed already. Returns the exit code of the command, whose own
    /// one is `exit`: metrics that nobody gets are a failure, but not a second result.
    pub fn write_beside(&self, path: &Path, ui: Ui, exit: Exit) -> Exit {
        let Err(error) = self.replace(path) else { return exit };
        let message = format!("cannot write metrics to {}: {error}", path.display());
        ui.error(&message, Some("name a file in an existing directory that this user may write to"));
        if exit == Exit::Critical { exit } else { Exit::Unknown }
    }

    /// Replace `path` in one step, so that no reader ever sees half of it.
    fn replace(&self, path: &Path) -> std::io::Result<()> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Not ending in .prom, so that the collector leaves it alone.
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(self.0.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, path))
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
