//! The command line: arguments in, exit code out. Everything that talks to a person is here.

mod args;
mod bars;
mod config;
mod consent;
mod context;
mod exit;
mod findings;
mod generate;
mod logs;
mod memory;
mod metrics;
mod monitoring;
mod online;
mod render;
mod signals;
mod stamp;
mod ui;
mod verify;
mod walk;

use args::{Cli, Command, Format};
use exit::{Exit, Failure};
use metactl::cancel::Cancel;
use render::for_nagios;
use std::process::ExitCode;
use std::time::Instant;
use ui::Ui;

/// Run the command line.
pub fn main() -> ExitCode {
    let cli = match Cli::from_command_line(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let global = &cli.global;
    let ui = Ui::new(global.color, global.quiet);
    logs::install(&cli, ui);
    metactl::panics::install(move || give_up(ui));
    let cancel = Cancel::with_deadline(global.timeout.map(|after| Instant::now() + after));
    let signals = match signals::Signals::install(&cancel) {
        Ok(signals) => signals,
        Err(error) => {
            ui.error(&format!("cannot install signal handlers: {error}"), None);
            return Exit::Unknown.into();
        }
    };
    let outcome = run(&cli, ui, &cancel);
    let exit = outcome.unwrap_or_else(|failure| report(&failure.completed(&cancel), global.format, ui));
    signals.reraise();
    ui.delivered(exit).into()
}

/// Before a panic that cannot be caught.
#[expect(clippy::exit, reason = "the process ends here in any case, and cron should know how")]
fn give_up(ui: Ui) {
    ui.error(
        "the metaDB or the state file, whichever is in redb, is damaged in a way that its library does not survive; nothing is stamped",
        Some("move the state file (--state) away, it costs time only; if that does not help, restore the metaDB"),
    );
    std::process::exit(Exit::Critical.code().into())
}

/// Help and version are results; anything else is a usage error, which must not page as critical.
fn usage(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Ok;
    }
    let text = error.render().to_string();
    // The error quotes the command line, which scripts fill with names from elsewhere. Escapes of ours and of others
    // cannot be told apart any more, so such a text goes without colour.
    if text.lines().any(|line| matches!(ui::clean(line), std::borrow::Cow::Owned(_))) {
        let lines: Vec<_> = text.lines().map(ui::clean).collect();
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{}\n", lines.join("\n")).as_bytes());
    } else {
        let _ = error.print();
    }
    let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim();
    let failure =
        Failure::unknown("usage", message).hint("`metactl --help` and `metactl COMMAND --help` list the options");
    let ui = Ui { color: false, color_err: false, quiet: 0 };
    for format in [Format::Json, Format::Nagios].into_iter().filter(|format| wants(*format)) {
        tell(&failure, format, ui);
    }
    Exit::Unknown
}

/// Whether this was meant to be the format, on a command line that cannot be parsed.
fn wants(format: Format) -> bool {
    use clap::ValueEnum as _;
    let name = format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let given = arguments.iter().any(|argument| *argument == *format!("--format={name}"))
        || arguments.windows(2).any(|pair| pair[0] == "--format" && *pair[1] == *name);
    let other = arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--format"));
    given || !other && std::env::var_os("METACTL_FORMAT").is_some_and(|format| *format == *name)
}

fn failure_json(failure: &Failure) -> String {
    ui::json(&serde_json::json!({
        "schema_version": 1,
        "error": { "reason": failure.reason, "message": failure.message, "hint": failure.hint },
    }))
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
    tell(failure, format, ui);
    failure.exit
}

/// Programs look for the reason where they look for results.
fn tell(failure: &Failure, format: Format, ui: Ui) {
    match format {
        Format::Json => ui.result(&failure_json(failure)),
        Format::Nagios => {
            let line = failure.message.lines().next().unwrap_or_default();
            ui.result(&format!("METACTL {} - {}\n", failure.exit.nagios(), for_nagios(line)));
        }
        Format::Table | Format::Prometheus => {}
    }
}
