//! metactl's own lock: two walks at once would interleave. It names its owner, lives a minute without renewal, and
//! counts what was written under it.

use super::connect::Link;
use super::errors::Fault;
use super::wire::{self, Batch};
use base64::Engine as _;
use redis::Value;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Life of the lock without renewal: longer than a server may be away.
const LIFE: Duration = Duration::from_secs(60);
/// Time between renewals, and after a failed one.
const RENEWAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);

/// A token as zot's lock library makes them: 16 random bytes in base64.
pub fn token() -> Result<Vec<u8>, Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Fault::Other(format!("no random numbers: {error}")))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes())
}

/// The lock, held. Dropping it only ends the renewal: [`WalkLock::leave`] lets go of it.
pub struct WalkLock {
    key: String,
    token: Vec<u8>,
    renewal: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Who holds a lock that is not ours.
pub struct Holder(pub String);

impl WalkLock {
    /// Try once.
    pub fn take(link: &mut Link, key: &str, token: &[u8]) -> Result<Result<Self, Holder>, Fault> {
        let mut batch = Batch::default();
        batch.take_walk(key, token, &owner(), LIFE.as_millis());
        match link.once_ok(&batch)?.pop().unwrap_or_default() {
            Value::Int(_) => Ok(Ok(Self {
                key: key.to_owned(),
                token: token.to_owned(),
                renewal: Some(renew(link.another(), key.to_owned(), token.to_owned())),
            })),
            held => {
                let mut parts = wire::list(held)?.into_iter();
                let owner = wire::text(parts.next().unwrap_or_default())?;
                let age = wire::int(&parts.next().unwrap_or_default()).unwrap_or(0);
                let owner: String = owner.chars().filter(|c| !c.is_control()).take(200).collect();
                Ok(Err(Holder(format!("{owner} for {age} s"))))
            }
        }
    }

    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// End the renewal and let go. A lock that cannot be released expires.
    pub fn leave(&mut self, link: &mut Link) {
        self.stop();
        let mut batch = Batch::default();
        batch.leave_walk(&self.key, &self.token);
        if let Err(fault) = link.once_ok(&batch) {
            tracing::debug!("redis: the walk lock stays until it expires: {fault:?}");
        }
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.renewal.take() {
            drop(stop);
            // It panics only with a bug of its own, which has then been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for WalkLock {
    fn drop(&mut self) {
        self.stop();
    }
}

fn renew(mut link: Link, key: String, token: Vec<u8>) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel();
    let thread = std::thread::spawn(move || {
        let mut pause = RENEWAL;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let mut batch = Batch::default();
            batch.renew_walk(&key, &token, LIFE.as_millis());
            // A lost lock is noticed by the next write.
            pause = match link.once_ok(&batch) {
                Ok(_) => RENEWAL,
                Err(_) => RETRY,
            };
        }
    });
    (stop, thread)
}

/// What the holder of the lock is called.
fn owner() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("metactl {} on {host}, process {}", env!("CARGO_PKG_VERSION"), std::process::id())
}
