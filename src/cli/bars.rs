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
/// Steps of the bar for one repo, so that a huge one is seen to go on.
const STEPS: u64 = 1000;
/// How often progress is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Progress of one command.
pub struct Bars {
    target: Target,
    state: Mutex<Option<State>>,
    repos: Arc<AtomicU64>,
    /// Parts of repos that are read, in [`STEPS`] of a repo.
    steps: AtomicU64,
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
            repos: Arc::default(),
            steps: AtomicU64::new(0),
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

    /// Nothing is drawn before the first update, which comes after [`DELAY`]; until it is [`BARS`]' own, a bar would draw
    /// beside it whatever it is told.
    fn bar(&self, phase: Phase, repos: u64) -> ProgressBar {
        let template = match phase {
            Phase::Walk | Phase::Verify => {
                "{spinner} {wide_bar:.cyan/blue} {repos} repos, ETA {eta}\n  {wide_msg}\n  {prefix}{pressure}"
                    .to_owned()
            }
            Phase::Plan | Phase::Recheck => format!("{{spinner}} {} {{repos}} repos", name(phase)),
        };
        let bar = ProgressBar::with_draw_target(Some(repos * STEPS), ProgressDrawTarget::hidden());
        let Ok(style) = ProgressStyle::with_template(&template) else { return bar };
        let (done, pressure) = (Arc::clone(&self.repos), self.pressure.clone());
        // A bar has no way to tell that it cannot be drawn.
        bar.with_style(
            style
                .with_key("repos", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = write!(out, "{}/{}", HumanCount(done.load(Ordering::Relaxed)), HumanCount(repos));
                })
                .with_key("pressure", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = pressure.as_ref().map(|pressure| out.write_str(&after(pressure)));
                }),
        )
    }

    /// Show how far it is, or log it from time to time.
    fn update(&self) {
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
                    // Of a repo that fails not all parts are read; some phases know none.
                    let steps = self.steps.load(Ordering::Relaxed).max(self.repos.load(Ordering::Relaxed) * STEPS);
                    bar.set_position(steps.min(state.total * STEPS));
                    if self.manifests.load(Ordering::Relaxed) > 0 {
                        bar.set_prefix(self.work(state.started));
                    }
                }
            } else if state.logged.elapsed() >= LOG_EVERY {
                state.logged = Instant::now();
                let done = self.repos.load(Ordering::Relaxed);
                let (name, work, pressure) = (name(state.phase), self.work(state.started), self.pressure());
                tracing::info!("{name}: {done}/{} repos, {work}{pressure}", state.total);
            }
        });
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
        for counter in [&*self.repos, &self.steps, &self.manifests, &self.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        let bar = match &self.target {
            Target::Terminal => Some(BARS.add(self.bar(phase, repos))),
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

    fn part_read(&self, manifests: u64, bytes: u64, share: f64) {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share"
        )]
        self.steps.fetch_add((share * STEPS as f64) as u64, Ordering::Relaxed);
        self.manifests.fetch_add(manifests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.update();
    }

    fn repo_done(&self) {
        self.repos.fetch_add(1, Ordering::Relaxed);
        self.update();
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
