//! Which state file a command uses. Whatever is wrong with it costs a warning, never the command.

use super::context::{Context, Expected};
use super::ui::Ui;
use metactl::error::chain;
use metactl::metadb::Place;
use metactl::stamp::StoredStamp;
use metactl::state::{self, Change, StampRecord, State};
use std::path::PathBuf;

/// The state file that the options and the environment name; `None` if there is to be none.
fn path(context: &Context<'_>, ui: Ui) -> Option<PathBuf> {
    let global = context.global;
    if global.no_state {
        return None;
    }
    if let Some(path) = &global.state {
        return Some(path.clone());
    }
    let root = rustix::process::geteuid().is_root();
    let path = state::default_path(|name| std::env::var_os(name), root);
    if path.is_none() {
        ui.notice("nothing is remembered between runs: there is no home directory; name a file with --state");
    }
    path
}

/// Open or create the state file for this registry.
pub fn open(context: &Context<'_>, place: &Place, ui: Ui) -> Option<State> {
    let path = path(context, ui)?;
    let stores: Vec<&str> = context.storage.stores().map(|(_, store)| store.root_directory.as_str()).collect();
    let registry = format!("{} {}\n{}", place.driver(), absolute(&place.location()), stores.join("\n"));
    match State::open(&path, &registry) {
        Ok(state) => Some(state),
        Err(error) => {
            ui.warning(&format!("going on without what earlier runs remember: {}", chain(&error)));
            None
        }
    }
}

/// Relative paths mean another file in another directory.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

/// Remember under which config a stamp was written. Only for a stamp that metactl computed itself.
pub fn remember_stamp(context: &Context<'_>, place: &Place, expected: &Expected, stamp: &str, ui: Ui) {
    let Some(own) = expected.stamp.as_ref().filter(|own| own.text() == stamp) else { return };
    let Some(config) = config(context, expected) else { return };
    let Some(state) = open(context, place, ui) else { return };
    let record = StampRecord {
        stamp: stamp.to_owned(),
        fingerprint: own.fingerprint.clone(),
        written_at: jiff::Timestamp::now().as_second(),
        config,
    };
    if let Err(error) = state.remember_stamp(&record) {
        ui.warning(&format!("the stamp's config is not remembered: {}", chain(&error)));
    }
}

/// The storage section as the expected release hashes it, redacted.
fn config(context: &Context<'_>, expected: &Expected) -> Option<serde_json::Value> {
    let identity = &expected.stamp.as_ref()?.identity;
    let fields = metactl::config::FieldSet::for_release(&identity.release_tag, &identity.commit).ok()?.fields;
    Some(context.storage_for(fields).ok()?.redacted_json())
}

/// Which keys changed since the stored stamp was written; `None` if nobody remembers.
pub fn changes(
    context: &Context<'_>,
    place: &Place,
    stored: &StoredStamp,
    expected: &Expected,
    ui: Ui,
) -> Option<(StampRecord, Vec<Change>)> {
    let fingerprint = stored.fingerprint();
    let differs = expected.stamp.as_ref().is_some_and(|stamp| stamp.fingerprint != fingerprint);
    // Reading commands create nothing: without a file there is nothing to learn.
    if !differs || fingerprint.is_empty() || !path(context, ui)?.exists() {
        return None;
    }
    let record = open(context, place, ui)?.stamp(&fingerprint)?;
    let changes = state::changes(&record.config, &config(context, expected)?);
    Some((record, changes))
}
