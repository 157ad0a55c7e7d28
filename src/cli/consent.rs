//! The one question there is: whether a walk may delete many repos from the metaDB.

use super::args::Global;
use super::exit::Failure;
use super::ui::{above_bars, clean, count};
use metactl::cancel::Cancel;
use metactl::walk::plan::{MaxDelete, Plan};
use std::io::IsTerminal as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Let the walk go on, or refuse it. A terminal is asked; without one, `--yes` or a higher `--max-delete` answers.
pub fn deletions(plan: &Plan, limit: MaxDelete, global: &Global, cancel: &Cancel) -> Result<(), Failure> {
    if limit.allows(plan.gone.len(), plan.known) || global.yes {
        return Ok(());
    }
    let examples = plan.gone.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if plan.gone.len() > 3 { ", …" } else { "" };
    let what = format!(
        "storage lists {} and the metaDB {}: {} would lose their records ({examples}{more}), download statistics and \
         stars included",
        count(plan.listed, "repo"),
        count(plan.known, "repo"),
        plan.gone.len(),
    );
    if asked(&what, cancel)? {
        return Ok(());
    }
    Err(Failure::unknown("max-delete", format!("refused: {what}")).hint(
        "check that rootDirectory is the right one and is mounted; if the repos are really gone, use --yes or \
         --max-delete",
    ))
}

/// y/N on the terminal; no answer without one.
fn asked(what: &str, cancel: &Cancel) -> Result<bool, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(false);
    }
    let failed = |error| Failure::unknown("io", format!("cannot ask: {error}"));
    above_bars(&format!("{}\nDelete them? [y/N] ", clean(what))).map_err(failed)?;
    // Reading would go on after a signal, so that Ctrl-C would seem to do nothing: another thread reads.
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = sender.send(std::io::stdin().read_line(&mut answer).map(|_| answer));
    });
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(answer) => return Ok(matches!(answer.map_err(failed)?.trim(), "y" | "Y" | "yes")),
            Err(RecvTimeoutError::Timeout) if !cancel.is_cancelled() => {}
            Err(_) => {
                let _ = above_bars("\n");
                return Err(Failure::cancelled(cancel));
            }
        }
    }
}
