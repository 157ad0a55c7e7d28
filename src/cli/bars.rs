//! Progress on stderr: bars on a terminal, a log line every 30 seconds otherwise, nothing with `-q` or `--no-progress`.

use super::ui::{BARS, clean};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use metactl::progress::{Phase, Pressure, Progress};
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
    pressure: Option<Arc<Pressure>>,
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
    ticking: bool,
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
            pressure: None,
        }
    }

    /// Also show how a service takes it.
    pub fn watching(self, pressure: Option<Arc<Pressure>>) -> Self {
        Self { pressure, ..self }
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

    /// What is to be known about the service, after other facts.
    fn pressure(&self) -> String {
        self.pressure.as_ref().map(|pressure| after(pressure)).unwrap_or_default()
    }
}

impl Progress for Bars {
    fn begin(&self, phase: Phase, repos: u64) {
        for counter in [&self.repos, &self.manifests, &self.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        let bar = match &self.target {
            Target::Terminal => Some(BARS.add(bar(phase, repos, self.pressure.clone()))),
            Target::Log | Target::None => None,
        };
        if let Ok(mut state) = self.state.lock() {
            let now = Instant::now();
            *state = Some(State { phase, total: repos, started: now, logged: now, bar, ticking: false });
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
                    // A throttled write takes long, and has to be seen while it does.
                    if self.pressure.is_some() && !state.ticking {
                        state.ticking = true;
                        bar.enable_steady_tick(DELAY);
                    }
                    bar.set_position(done);
                    if state.phase == Phase::Walk {
                        bar.set_prefix(self.work(state.started));
                    }
                }
            } else if state.logged.elapsed() >= LOG_EVERY {
                state.logged = Instant::now();
                let (name, work, pressure) = (name(state.phase), self.work(state.started), self.pressure());
                tracing::info!("{name}: {done}/{} repos, {work}{pressure}", state.total);
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

fn after(pressure: &Pressure) -> String {
    pressure.throttling().map(|text| format!(", {text}")).unwrap_or_default()
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
fn bar(phase: Phase, repos: u64, pressure: Option<Arc<Pressure>>) -> ProgressBar {
    let template = match phase {
        Phase::Walk | Phase::Verify => {
            "{spinner} {wide_bar:.cyan/blue} {human_pos}/{human_len} repos, ETA {eta}\n  {wide_msg}\n  {prefix}{pressure}"
                .to_owned()
        }
        Phase::Plan | Phase::Recheck => format!("{{spinner}} {} {{human_pos}}/{{human_len}} repos", name(phase)),
    };
    let bar = ProgressBar::with_draw_target(Some(repos), ProgressDrawTarget::hidden());
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style.with_key("pressure", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            // A bar has no way to tell that it cannot be drawn.
            let _ = pressure.as_ref().map(|pressure| out.write_str(&after(pressure)));
        })),
        Err(_) => bar,
    }
}
