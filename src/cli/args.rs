//! Options that every command takes.

use super::exit::EXIT_STATUS;
use super::ui::ColorWhen;
use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Look after the metaDB of a zot OCI registry
///
/// zot fills its metaDB at every start by walking its image storage, unless a stamp in the metaDB says that this was
/// done already by the same build under the same storage config. metactl shows, writes and clears that stamp, performs
/// the walk itself, in parallel, and tells what zot will do at its next start.
#[derive(Debug, Parser)]
#[command(name = "metactl", version, after_help = EXIT_STATUS, max_term_width = 100, disable_help_subcommand = true, args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show, write or clear the fast-restart stamp
    #[command(subcommand)]
    Stamp(super::stamp::StampCommand),
    /// Bring the metaDB up to what storage holds, then stamp it
    #[command(after_help = EXIT_STATUS)]
    Walk(super::walk::WalkArgs),
    /// Find every disagreement between storage and metaDB; writes to neither
    #[command(after_help = format!("{EXIT_STATUS}\n\nFor cron, systemd, Nagios, Prometheus and Kubernetes: man 7 {}", super::monitoring::PAGE))]
    Verify(super::verify::VerifyArgs),
    /// Look at the registry's configuration
    #[command(subcommand)]
    Config(super::config::ConfigCommand),
    /// Print a completion script
    Completions(super::generate::CompletionsArgs),
    /// Write the manual pages into a directory
    Man(super::generate::ManArgs),
}

const REGISTRY: &str = "Registry options";
const BUILD: &str = "zot build options";
const OUTPUT: &str = "Output options";
const LIMITS: &str = "Limits";

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The registry's own configuration file
    #[arg(
        long,
        global = true,
        env = "METACTL_CONFIG", hide_env_values = true,
        value_name = "FILE",
        default_value = "/etc/zot/config.json",
        help_heading = REGISTRY
    )]
    pub config: PathBuf,

    /// Use this metaDB instead of the configured one: bolt:PATH, redb:PATH, a Redis URL, or
    /// dynamodb:ENDPOINT?region=REGION&prefix=PREFIX
    #[arg(long, global = true, env = "METACTL_METADB", hide_env_values = true, value_name = "URL", help_heading = REGISTRY)]
    pub metadb: Option<String>,

    /// Trust these certificates (PEM) for a Redis metaDB with TLS, instead of the system's
    #[arg(long, global = true, env = "METACTL_REDIS_CA_FILE", hide_env_values = true, value_name = "FILE", help_heading = REGISTRY)]
    pub redis_ca_file: Option<PathBuf>,

    /// Client certificate (PEM) for a Redis metaDB with TLS
    #[arg(long, global = true, env = "METACTL_REDIS_CERT_FILE", hide_env_values = true, value_name = "FILE", requires = "redis_key_file", help_heading = REGISTRY)]
    pub redis_cert_file: Option<PathBuf>,

    /// Key (PEM) of that certificate
    #[arg(long, global = true, env = "METACTL_REDIS_KEY_FILE", hide_env_values = true, value_name = "FILE", requires = "redis_cert_file", help_heading = REGISTRY)]
    pub redis_key_file: Option<PathBuf>,

    /// Whether zot's hard-link probe succeeds on its host, if that is another one than this
    #[arg(long, global = true, env = "METACTL_DEDUPE_EFFECTIVE", hide_env_values = true, value_name = "on|off", help_heading = REGISTRY)]
    pub dedupe_effective: Option<OnOff>,

    /// Release tag of the zot build that will start, for example v2.1.20 (may be empty)
    #[arg(long, global = true, env = "METACTL_RELEASE_TAG", hide_env_values = true, value_name = "TAG", help_heading = BUILD)]
    pub release_tag: Option<String>,

    /// Commit of that build as `zot --version` prints it, for example v2.1.20-0-g3b5796d (may be empty)
    #[arg(long, global = true, env = "METACTL_COMMIT", hide_env_values = true, value_name = "COMMIT", help_heading = BUILD)]
    pub commit: Option<String>,

    /// Read the build's identity from this executable, without running it
    #[arg(long, global = true, env = "METACTL_ZOT_BINARY", hide_env_values = true, value_name = "PATH", help_heading = BUILD)]
    pub zot_binary: Option<PathBuf>,

    /// Ask a running zot for its identity
    #[arg(long, global = true, env = "METACTL_ZOT_URL", hide_env_values = true, value_name = "URL", help_heading = BUILD)]
    pub zot_url: Option<String>,

    /// Trust these certificates (PEM) for --zot-url, instead of the public ones
    #[arg(long, global = true, env = "METACTL_ZOT_CA_FILE", hide_env_values = true, value_name = "FILE", help_heading = BUILD)]
    pub zot_ca_file: Option<PathBuf>,

    /// Log in to --zot-url with the `user:password` in this file
    #[arg(long, global = true, env = "METACTL_ZOT_AUTH_FILE", hide_env_values = true, value_name = "FILE", help_heading = BUILD)]
    pub zot_auth_file: Option<PathBuf>,

    /// Format of the result
    #[arg(
        long,
        global = true,
        env = "METACTL_FORMAT", hide_env_values = true,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = OUTPUT
    )]
    pub format: Format,

    /// Also write the result as Prometheus metrics to this file, atomically
    #[arg(long, global = true, env = "METACTL_METRICS_FILE", hide_env_values = true, value_name = "FILE", help_heading = OUTPUT)]
    pub metrics_file: Option<PathBuf>,

    /// When to use colour
    #[arg(long, global = true, env = "METACTL_COLOR", hide_env_values = true, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    pub color: ColorWhen,

    /// Print less: -q result and errors, -qq exit code only
    #[arg(short, long, global = true, action = ArgAction::Count, env = "METACTL_QUIET", hide_env_values = true, help_heading = OUTPUT)]
    pub quiet: u8,

    /// Print more: -v what is done, -vv details
    #[arg(short, long, global = true, action = ArgAction::Count, env = "METACTL_VERBOSE", hide_env_values = true, help_heading = OUTPUT)]
    pub verbose: u8,

    /// Show no progress
    #[arg(long, global = true, env = "METACTL_NO_PROGRESS", hide_env_values = true, value_parser = FalseyValueParser::new(), help_heading = OUTPUT)]
    pub no_progress: bool,

    /// Format of log lines
    #[arg(
        long,
        global = true,
        env = "METACTL_LOG_FORMAT", hide_env_values = true,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = OUTPUT
    )]
    pub log_format: LogFormat,

    /// Threads that read, at most; one a processor begins, and the others come where storage makes it wait
    #[arg(
        long,
        global = true,
        env = "METACTL_JOBS", hide_env_values = true,
        value_name = "N",
        default_value = "16",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = LIMITS
    )]
    pub jobs: u16,

    /// Requests under way at a time to S3, Google Cloud Storage and Azure, all stores together
    #[arg(
        long,
        global = true,
        env = "METACTL_IO_CONCURRENCY", hide_env_values = true,
        value_name = "N",
        default_value = "64",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = LIMITS
    )]
    pub io_concurrency: u16,

    /// How long to wait for the metaDB's lock, for example 30s or 2m
    #[arg(
        long,
        global = true,
        env = "METACTL_LOCK_TIMEOUT", hide_env_values = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = duration,
        help_heading = LIMITS
    )]
    pub lock_timeout: Duration,

    /// Use at most this many capacity units of a DynamoDB metaDB a second, reads and writes together
    #[arg(
        long,
        global = true,
        env = "METACTL_RATE", hide_env_values = true,
        value_name = "UNITS",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = LIMITS
    )]
    pub rate: Option<u32>,

    /// Stop after this time, as if interrupted
    #[arg(long, global = true, env = "METACTL_TIMEOUT", hide_env_values = true, value_name = "DURATION", value_parser = duration, help_heading = LIMITS)]
    pub timeout: Option<Duration>,

    /// Answer yes to the one question there is: whether many repos may be deleted from the metaDB
    #[arg(long, global = true, env = "METACTL_YES", hide_env_values = true, value_parser = FalseyValueParser::new(), help_heading = LIMITS)]
    pub yes: bool,

    /// File for what metactl remembers between runs
    #[arg(long, global = true, env = "METACTL_STATE", hide_env_values = true, value_name = "FILE", help_heading = LIMITS)]
    pub state: Option<PathBuf>,

    /// Remember nothing
    #[arg(long, global = true, env = "METACTL_NO_STATE", hide_env_values = true, value_parser = FalseyValueParser::new(), help_heading = LIMITS)]
    pub no_state: bool,
}

/// Formats of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs; carries schema_version
    Json,
    /// For Nagios and Icinga (stamp show, verify)
    Nagios,
    /// Prometheus' text format (stamp show, verify)
    Prometheus,
}

/// Formats of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// A switch with an explicit value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Yes
    On,
    /// No
    Off,
}

/// `30s`, `2m`, `1h30m`, `500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let span: jiff::SignedDuration =
                text.parse().map_err(|_| "expected a duration such as 30s or 2m".to_owned())?;
            Duration::try_from(span).map_err(|_| "must not be negative".to_owned())?
        }
    };
    // Beyond this an instant cannot be told any more on some systems.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    if parsed > LONGEST { Err("must not exceed 100 years".to_owned()) } else { Ok(parsed) }
}

impl Cli {
    /// Parse the command line and the environment.
    ///
    /// # Errors
    /// Usage errors, and requests for help or the version.
    pub fn from_command_line(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        // An empty variable is how units and compose files say "not set". Tag and commit of a build may really be empty.
        let unset = |name: &std::ffi::OsStr| {
            name != "METACTL_RELEASE_TAG"
                && name != "METACTL_COMMIT"
                && std::env::var_os(name).is_some_and(|value| value.is_empty())
        };
        let mut command = Self::command().mut_args(|arg| match arg.get_env() {
            Some(name) if unset(name) => arg.env(None::<&str>),
            _ => arg,
        });
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.settle(&matches, &mut command)?;
        Ok(cli)
    }

    /// Options that rule each other out: two on the command line are an error, one there beats one in the environment.
    fn settle(&mut self, matches: &ArgMatches, command: &mut clap::Command) -> Result<(), clap::Error> {
        let given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        for (first, second) in [("quiet", "verbose"), ("state", "no_state")] {
            if given(first) && given(second) {
                let message = format!("--{first} cannot be used with --{}", second.replace('_', "-"));
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        let global = &mut self.global;
        if given("verbose") {
            global.quiet = 0;
        }
        if given("state") {
            global.no_state = false;
        }
        if global.no_state {
            global.state = None;
        }
        Ok(())
    }
}
