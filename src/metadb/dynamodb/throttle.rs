//! How hard the service is pushed: requests at once, capacity units a second, pauses after refusals.
//!
//! Nobody knows beforehand what a table bears: it is found out. The number of requests at once doubles every round trip
//! until the service throttles for the first time; from then on it grows by one a round trip and shrinks by a third
//! whenever the service throttles, as TCP does. A request that was refused pauses for a random time whose limit doubles
//! with every refusal, so that requests refused together do not come back together.

use super::errors::Fault;
use crate::cancel::Cancel;
use crate::progress::Pressure;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most requests at once: beyond that a table hardly gets faster.
pub const AT_ONCE: usize = 128;
/// Requests at once to begin with.
const FIRST: f64 = 8.0;
/// What is left of it after the service throttled.
const SHRINK: f64 = 0.66;
/// Limit of the first pause, and of any.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(5));
/// How often throttling is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// How often a pausing request looks whether it should stop.
const NAP: Duration = Duration::from_millis(50);

/// How many requests may be on their way at once.
struct Level {
    at_once: f64,
    /// Not throttled yet.
    climbing: bool,
    shrunk_at: Option<Instant>,
}

impl Level {
    fn new() -> Self {
        Self { at_once: FIRST, climbing: true, shrunk_at: None }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and AT_ONCE")]
    fn limit(&self) -> usize {
        self.at_once as usize
    }

    /// A request was served while `in_flight` were on their way. A limit that nobody reaches says nothing.
    #[expect(clippy::cast_precision_loss, reason = "at most AT_ONCE")]
    fn served(&mut self, in_flight: usize) {
        if 2 * in_flight >= self.limit() {
            let step = if self.climbing { 1.0 } else { 1.0 / self.at_once };
            self.at_once = (self.at_once + step).min(AT_ONCE as f64);
        }
    }

    /// A request of `sent_at` was throttled. Those sent before the limit shrank last say nothing new.
    fn throttled(&mut self, sent_at: Instant, now: Instant) {
        if self.shrunk_at.is_some_and(|at| sent_at < at) {
            return;
        }
        self.at_once = (self.at_once * SHRINK).max(1.0);
        self.climbing = false;
        self.shrunk_at = Some(now);
    }
}

/// A ceiling in capacity units a second; may be overdrawn by one second's worth, never in the mean.
struct Bucket {
    per_second: f64,
    /// When all units spent so far have been earned.
    earned_at: Instant,
}

impl Bucket {
    /// Spend `units` and return how long to wait before doing so.
    fn spend(&mut self, units: f64, now: Instant) -> Duration {
        let earned = self.earned_at.max(now);
        self.earned_at = earned + Duration::from_secs_f64(units / self.per_second);
        earned.duration_since(now).saturating_sub(Duration::from_secs(1))
    }

    /// What was spent in truth, where that is more than was thought.
    fn correct(&mut self, more: f64) {
        if more > 0.0 {
            self.earned_at += Duration::from_secs_f64(more / self.per_second);
        }
    }
}

/// The one way to the service.
pub struct Gate {
    state: Mutex<State>,
    left: Notify,
    cancel: Cancel,
    pressure: Arc<Pressure>,
}

struct State {
    level: Level,
    bucket: Option<Bucket>,
    in_flight: usize,
    logged_at: Option<Instant>,
}

/// A request on its way; dropping it ends that.
pub struct Sent<'g> {
    gate: &'g Gate,
    at: Instant,
    units: f64,
}

impl Gate {
    /// At most `rate` capacity units a second.
    pub fn new(rate: Option<u32>, cancel: Cancel, pressure: Arc<Pressure>) -> Self {
        let bucket = rate.map(|rate| Bucket { per_second: f64::from(rate.max(1)), earned_at: Instant::now() });
        let state = State { level: Level::new(), bucket, in_flight: 0, logged_at: None };
        Self { state: Mutex::new(state), left: Notify::new(), cancel, pressure }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until a request that will cost about `units` may be sent.
    pub async fn enter(&self, units: f64) -> Result<Sent<'_>, Fault> {
        let mut sent = loop {
            let left = self.left.notified();
            let mut left = std::pin::pin!(left);
            // Registered before looking, so that nobody leaves unnoticed in between.
            left.as_mut().enable();
            if let Some(sent) = self.try_enter(units) {
                break sent;
            }
            left.await;
        };
        let wait = match &mut self.state().bucket {
            Some(bucket) => bucket.spend(units, Instant::now()),
            None => Duration::ZERO,
        };
        self.sleep(wait).await?;
        sent.at = Instant::now();
        Ok(sent)
    }

    fn try_enter(&self, units: f64) -> Option<Sent<'_>> {
        let mut state = self.state();
        if state.in_flight >= state.level.limit() {
            return None;
        }
        state.in_flight += 1;
        if state.in_flight < state.level.limit() {
            // The limit has grown: whoever leaves wakes only one.
            self.left.notify_one();
        }
        Some(Sent { gate: self, at: Instant::now(), units })
    }

    /// The service left a part of a request of `sent_at` undone, for want of capacity.
    pub fn left_over(&self, sent_at: Instant) {
        let (mut state, now) = (self.state(), Instant::now());
        state.level.throttled(sent_at, now);
        self.pressure.throttled(state.level.limit());
        if state.logged_at.is_none_or(|at| now - at >= LOG_EVERY) {
            state.logged_at = Some(now);
            tracing::info!("DynamoDB: {}", self.pressure.throttling().unwrap_or_default());
        }
    }

    /// Pause after the `refusals`th refusal of one request.
    pub async fn pause(&self, refusals: u32) -> Result<(), Fault> {
        let limit = PAUSE.0.saturating_mul(1 << refusals.min(16)).min(PAUSE.1);
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| Fault::Other(format!("no random numbers: {error}")))?;
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        self.sleep(limit.mul_f64(share)).await
    }

    /// Sleep, unless asked to stop.
    pub async fn sleep(&self, time: Duration) -> Result<(), Fault> {
        let until = Instant::now() + time;
        loop {
            if self.cancel.is_cancelled() {
                return Err(Fault::Cancelled);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(NAP)).await;
        }
    }
}

impl Sent<'_> {
    /// The service did what was asked, and charged `units` for it if it tells.
    pub fn served(self, units: Option<f64>, write: bool) {
        let mut state = self.gate.state();
        let in_flight = state.in_flight;
        state.level.served(in_flight);
        let charged = units.unwrap_or(self.units);
        if let Some(bucket) = &mut state.bucket {
            bucket.correct(charged - self.units);
        }
        self.gate.pressure.served(charged, write, state.level.limit());
    }

    /// The service refused for want of capacity.
    pub fn throttled(self) {
        self.gate.left_over(self.at);
    }

    /// Some other failure, which says nothing about capacity.
    pub fn failed(self) {
        self.gate.pressure.failed();
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.gate.state().in_flight -= 1;
        self.gate.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_level_climbs_fast_until_throttled_and_slowly_after() {
        let (mut level, start) = (Level::new(), Instant::now());
        for _ in 0..64 {
            level.served(level.limit());
        }
        assert_eq!(level.limit(), 72);
        level.throttled(start, start + seconds(1.0));
        assert_eq!(level.limit(), 47);
        // Sent before the limit shrank: the same event.
        level.throttled(start + seconds(0.5), start + seconds(1.1));
        assert_eq!(level.limit(), 47);
        for _ in 0..48 {
            level.served(level.limit());
        }
        assert_eq!(level.limit(), 48);
        // Nobody tries: nothing is learned.
        for _ in 0..1000 {
            level.served(3);
        }
        assert_eq!(level.limit(), 48);
        for step in 0..50 {
            level.throttled(start + seconds(2.0 + f64::from(step)), start + seconds(2.0 + f64::from(step)));
        }
        assert_eq!(level.limit(), 1, "one request is always allowed");
        for _ in 0..1_000_000 {
            level.served(level.limit());
        }
        assert_eq!(level.limit(), AT_ONCE);
    }

    #[test]
    fn a_ceiling_holds_in_the_mean() {
        let now = Instant::now();
        let mut bucket = Bucket { per_second: 100.0, earned_at: now };
        // A second's worth may be spent ahead.
        assert_eq!(bucket.spend(50.0, now), Duration::ZERO);
        assert_eq!(bucket.spend(50.0, now), Duration::ZERO);
        assert_eq!(bucket.spend(200.0, now), Duration::ZERO);
        assert_eq!(bucket.spend(1.0, now), seconds(2.0));
        // More than was thought is paid later; less is not given back.
        bucket.correct(99.0);
        bucket.correct(-50.0);
        assert_eq!(bucket.spend(1.0, now), seconds(3.0));
        // Time that nobody used does not add up.
        assert_eq!(bucket.spend(100.0, now + seconds(100.0)), Duration::ZERO);
        assert_eq!(bucket.spend(100.0, now + seconds(100.0)), Duration::ZERO);
        assert_eq!(bucket.spend(1.0, now + seconds(100.0)), seconds(1.0));
    }
}
