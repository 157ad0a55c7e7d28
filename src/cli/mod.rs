//! The command line: arguments in, exit code out. Everything that talks to a person is here.

mod args;
mod bars;
mod config;
mod consent;
mod context;
mod exit;
mod findings;
mod generate;
mod memory;
mod metrics;
mod render;
mod signals;
mod stamp;
mod ui;
mod verify;
mod walk;

use args::{Cli, Command, Format, LogFormat};
use clap::Parser as _;
use exit::{Exit, Failure};
use metactl::cancel::Cancel;
use std::process::ExitCode;
use std::time::Instant;
use ui::Ui;

/// Run the command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; anything else is a usage error, which must not page as critical.
            let exit = if error.use_stderr() { Exit::Unknown } else { Exit::Ok };
            let _ = error.print();
            return exit.into();
        }
    };
    let global = &cli.global;
    let ui = Ui::new(global.color, global.quiet);
    log(&cli, ui);
    let cancel = Cancel::with_deadline(global.timeout.map(|after| Instant::now() + after));
    let signals = match signals::Signals::install(&cancel) {
        Ok(signals) => signals,
        Err(error) => {
            ui.error(&format!("cannot install signal handlers: {error}"), None);
            return Exit::Unknown.into();
        }
    };
    let outcome = run(&cli, ui, &cancel);
    let exit = outcome.unwrap_or_else(|failure| report(&failure, global.format, ui));
    signals.reraise();
    exit.into()
}

fn run(cli: &Cli, ui: Ui, cancel: &Cancel) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Stamp(command) => stamp::run(command, &cli.global, ui, cancel),
        Command::Walk(args) => walk::run(args, &cli.global, ui, cancel),
        Command::Verify(args) => verify::run(args, &cli.global, ui, cancel),
        Command::Config(command) => config::run(command, &cli.global, ui),
        Command::Completions(args) => generate::completions(args, ui),
        Command::Man(args) => generate::man(args, ui),
    }
}

/// Tell people on stderr, and programs on stdout, why nothing came of it.
fn report(failure: &Failure, format: Format, ui: Ui) -> Exit {
    ui.error(&failure.message, failure.hint.as_deref());
    match format {
        Format::Json => ui.result(&ui::json(&serde_json::json!({
            "schema_version": 1,
            "error": { "reason": failure.reason, "message": failure.message, "hint": failure.hint },
        }))),
        Format::Nagios => {
            ui.result(&format!("METACTL {} - {}\n", failure.exit.nagios(), ui::clean(&failure.message)));
        }
        Format::Table | Format::Prometheus => {}
    }
    failure.exit
}

/// Log lines go to stderr; with -q only errors do.
fn log(cli: &Cli, ui: Ui) {
    use tracing::level_filters::LevelFilter;
    let level = match (cli.global.quiet, cli.global.verbose) {
        (1.., _) => LevelFilter::ERROR,
        (0, 0) => LevelFilter::INFO,
        (0, 1) => LevelFilter::DEBUG,
        (0, 2..) => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(ui.color_err)
        .with_target(false);
    match cli.global.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
