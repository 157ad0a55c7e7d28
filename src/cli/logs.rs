//! Log lines on stderr: above the bars, with hostile text escaped. Only metactl's own: what libraries log about requests
//! may hold secrets.

use super::args::{Cli, LogFormat};
use super::ui::{Ui, above_bars, clean, clean_json};
use std::fmt;
use std::io;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Log from now on as the options say; with -q only errors.
pub fn install(cli: &Cli, ui: Ui) {
    let level = match (cli.global.quiet, cli.global.verbose) {
        (2.., _) => LevelFilter::OFF,
        (1, _) => LevelFilter::ERROR,
        (0, 0) => LevelFilter::INFO,
        (0, 1) => LevelFilter::DEBUG,
        (0, 2..) => LevelFilter::TRACE,
    };
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let json = cli.global.log_format == LogFormat::Json;
    let builder = tracing_subscriber::fmt().with_ansi(false).with_max_level(level).with_writer(move || Lines { json });
    if json {
        builder.json().flatten_event(true).with_target(false).finish().with(ours).init();
    } else {
        builder.event_format(Line { color: ui.color_err }).finish().with(ours).init();
    }
}

/// Writes each event above the bars; the subscriber hands over whole events.
struct Lines {
    json: bool,
}

impl io::Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        // A log that cannot be written must not end a walk.
        let _ = if self.json { above_bars(&clean_json(&text)) } else { above_bars(&text) };
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-01-31T12:00:00Z info: message`
struct Line {
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let (label, color) = match *event.metadata().level() {
            Level::ERROR => ("error", "1;31"),
            Level::WARN => ("warning", "33"),
            Level::INFO => ("info", "32"),
            Level::DEBUG => ("debug", "34"),
            Level::TRACE => ("trace", "35"),
        };
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
        if self.color {
            writeln!(writer, "\x1b[2m{now}\x1b[0m \x1b[{color}m{label}\x1b[0m: {}", clean(&text.0))
        } else {
            writeln!(writer, "{now} {label}: {}", clean(&text.0))
        }
    }
}

/// An event's message, then its other fields.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
