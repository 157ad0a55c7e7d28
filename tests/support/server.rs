//! What every server that a test starts needs: a port that is free, and patience until it answers.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time for a server to start or settle.
const SETTLE: Duration = Duration::from_secs(30);

/// A port that nobody uses. Two tests never get the same one, as long as they run in one process.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // Below the range that the system gives to outgoing connections; spread, because several processes do this.
        let spread = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        let port = 10_000 + u16::try_from((spread / 1000 + std::process::id() * 97) % 12_000).unwrap();
        let bus = port + 10_000;
        if !given.contains(&port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", bus)).is_ok()
        {
            given.push(port);
            return port;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Ask until the answer is yes.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + SETTLE;
    while !ask() {
        assert!(Instant::now() < deadline, "in {SETTLE:?} not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
