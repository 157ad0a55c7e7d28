//! The one question there is: whether a walk may delete many repos from the metaDB.

use super::args::Global;
use super::exit::Failure;
use super::ui::count;
use metactl::walk::plan::{MaxDelete, Plan};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Let the walk go on, or refuse it. A terminal is asked; without one, `--yes` or a higher `--max-delete` answers.
pub fn deletions(plan: &Plan, limit: MaxDelete, global: &Global) -> Result<(), Failure> {
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
    if asked(&what)? {
        return Ok(());
    }
    Err(Failure::unknown("max-delete", format!("refused: {what}")).hint(
        "check that rootDirectory is the right one and is mounted; if the repos are really gone, use --yes or \
         --max-delete",
    ))
}

/// y/N on the terminal; no answer without one.
fn asked(what: &str) -> Result<bool, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(false);
    }
    let failed = |error| Failure::unknown("io", format!("cannot ask: {error}"));
    write!(std::io::stderr(), "{}\nDelete them? [y/N] ", super::ui::clean(what)).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
