//! Progress on stderr: bars on a terminal, a log line every 30 seconds otherwise, nothing with `-q` or `--no-progress`.

use super::ui::{BARS, clean};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use metactl::progress::{Phase, Progress};
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Operations shorter than this draw nothing.
const DELAY: Duration = Duration::from_millis(250);
/// How often progress is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Progress of one command.
pub struct Bars {
    target: Target,
    state: Mutex<Option<State>>,
    repos: AtomicU64,
    manifests: AtomicU64,
    bytes: AtomicU64,
}

enum Target {
    Terminal,
    Log,
    None,
}

struct State {
    phase: Phase,
    total: u64,
    started: Instant,
    logged: Instant,
    bar: Option<ProgressBar>,
}

impl Bars {
    /// As the options and the terminal have it.
    pub fn new(wanted: bool) -> Self {
        let target = match (wanted, std::io::stderr().is_terminal()) {
            (false, _) => Target::None,
            (true, true) => Target::Terminal,
            (true, false) => Target::Log,
        };
        Self {
            target,
            state: Mutex::new(None),
            repos: AtomicU64::new(0),
            manifests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.state.lock()
            && let Some(state) = state.as_mut()
        {
            act(state);
        }
    }

    /// Manifests, bytes and rate so far.
    fn work(&self, since: Instant) -> String {
        let manifests = self.manifests.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate"
        )]
        let rate = (manifests as f64 / seconds) as u64;
        format!("{} manifests, {}, {}/s", HumanCount(manifests), HumanBytes(bytes), HumanCount(rate))
    }
}

impl Progress for Bars {
    fn begin(&self, phase: Phase, repos: u64) {
        for counter in [&self.repos, &self.manifests, &self.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        let bar = match &self.target {
            Target::Terminal => Some(BARS.add(bar(phase, repos))),
            Target::Log | Target::None => None,
        };
        if let Ok(mut state) = self.state.lock() {
            let now = Instant::now();
            *state = Some(State { phase, total: repos, started: now, logged: now, bar });
        }
    }

    fn reading(&self, repo: &str) {
        self.with(|state| {
            if let Some(bar) = &state.bar
                && state.started.elapsed() > DELAY
            {
                bar.set_message(clean(repo).into_owned());
            }
        });
    }

    fn repo_done(&self, manifests: u64, bytes: u64) {
        let done = self.repos.fetch_add(1, Ordering::Relaxed) + 1;
        self.manifests.fetch_add(manifests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if matches!(self.target, Target::None) {
            return;
        }
        self.with(|state| {
            if let Some(bar) = &state.bar {
                if state.started.elapsed() > DELAY {
                    bar.set_position(done);
                    if state.phase == Phase::Walk {
                        bar.set_prefix(self.work(state.started));
                    }
                }
            } else if state.logged.elapsed() >= LOG_EVERY {
                state.logged = Instant::now();
                tracing::info!("{}: {done}/{} repos, {}", name(state.phase), state.total, self.work(state.started));
            }
        });
    }

    fn end(&self) {
        if let Ok(mut state) = self.state.lock()
            && let Some(bar) = state.take().and_then(|state| state.bar)
        {
            bar.finish_and_clear();
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Plan => "planning",
        Phase::Walk => "walking",
        Phase::Recheck => "rechecking",
        Phase::Verify => "verifying",
    }
}

/// Nothing is drawn before the first update, which comes after [`DELAY`]; until it is [`BARS`]' own, a bar would draw
/// beside it whatever it is told.
fn bar(phase: Phase, repos: u64) -> ProgressBar {
    let template = match phase {
        Phase::Walk | Phase::Verify => {
            "{spinner} {wide_bar:.cyan/blue} {human_pos}/{human_len} repos, ETA {eta}\n  {wide_msg}\n  {prefix}"
                .to_owned()
        }
        Phase::Plan | Phase::Recheck => format!("{{spinner}} {} {{human_pos}}/{{human_len}} repos", name(phase)),
    };
    let bar = ProgressBar::with_draw_target(Some(repos), ProgressDrawTarget::hidden());
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
