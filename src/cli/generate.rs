//! `completions` and `man`: generated from the command line's own definition.

use super::args::Cli;
use super::exit::{Exit, Failure};
use super::monitoring;
use super::ui::Ui;
use clap::{Args, CommandFactory as _};
use std::path::PathBuf;

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

pub fn completions(args: &CompletionsArgs, ui: Ui) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "metactl", &mut script);
    ui.result(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}

pub fn man(args: &ManArgs, ui: Ui) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        Failure::unknown("io", format!("cannot write manual pages to {}: {error}", args.directory.display()))
    };
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)?;
    let monitoring = args.directory.join(monitoring::PAGE).with_extension("7");
    std::fs::write(monitoring, monitoring::page()).map_err(failed)?;
    ui.notice(&format!("manual pages are in {}", args.directory.display()));
    Ok(Exit::Ok)
}
