//! INT and TERM: the first asks for an orderly stop, the second ends at once.

use metactl::cancel::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Installed handlers.
pub struct Signals {
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on signals trip `cancel`.
    pub fn install(cancel: &Cancel) -> std::io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag as the *earlier* signal left it.
            signal_hook::flag::register_conditional_default(signal, cancel.flag())?;
            signal_hook::flag::register(signal, cancel.flag())?;
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&received), number)?;
        }
        Ok(Self { received })
    }

    /// If a signal came, end by it, so that shells and cron see 130 or 143 as of any interrupted program.
    pub fn reraise(&self) {
        let signal = i32::try_from(self.received.load(Ordering::Relaxed)).unwrap_or_default();
        if signal != 0 {
            // Only fails for signals that cannot be raised; these two can.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    }
}
