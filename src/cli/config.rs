//! `config show`: the config as zot reads it.

use super::args::{Format, Global};
use super::context::{Access, Context};
use super::exit::{EXIT_STATUS, Exit, Failure};
use super::render::{cell, lines, table};
use super::ui::{self, Ui};
use clap::Subcommand;
use metactl::config::{BlobCacheChoice, FieldSet, MetaDbChoice};
use metactl::fingerprint::fingerprint;
use metactl::storage::object::ObjectOptions;
use serde_json::{Map, Value, json};

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective storage config (secrets redacted), the stores, the metaDB and the fingerprints
    #[command(after_help = EXIT_STATUS)]
    Show,
}

/// Releases whose fingerprint is shown, with the storage fields that they know.
const RELEASES: [(&str, FieldSet); 3] =
    [("v2.1.18", FieldSet::V2_1_18), ("v2.1.19", FieldSet::V2_1_19), ("v2.1.20", FieldSet::V2_1_19)];

pub fn run(command: &ConfigCommand, global: &Global, ui: Ui) -> Result<Exit, Failure> {
    let ConfigCommand::Show = command;
    super::stamp::plain_formats(global)?;
    let context = Context::load(global, Access::Read)?;
    let mut warnings = context.problems.clone();
    warnings.extend(context.metadb.notices.iter().chain(context.storage.notices()).cloned());
    let mut fingerprints = Vec::new();
    for (release, fields) in RELEASES {
        match context.storage_for(fields) {
            Ok(storage) => fingerprints.push((release, Some(fingerprint(&storage).as_str().to_owned()))),
            Err(error) => {
                warnings.push(format!("{release} refuses this config: {error}"));
                fingerprints.push((release, None));
            }
        }
    }
    let (driver, location, used, reason) = metadb(&context)?;
    let stores: Vec<Value> = context.storage.stores().map(|(key, store)| store_json(&key, store)).collect();
    let fast_restart = context.storage.fast_restart().unwrap_or_default();

    ui.result(&match global.format {
        Format::Json => ui::json(&json!({
            "schema_version": 1,
            "config": global.config,
            "fingerprints": fingerprints.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "metadb": { "driver": driver, "location": location, "used": used, "reason": reason },
            "stores": stores,
            "fast_restart": fast_restart,
            "storage": context.storage.redacted_json(),
            "warnings": warnings,
        })),
        _ => {
            let mut out = ui::json(&context.storage.redacted_json());
            // A table of their own, whose rows fit 80 columns.
            let mut releases = table(ui, &["release", "fingerprint"]);
            for (release, found) in &fingerprints {
                let found = found.as_deref().unwrap_or("(this release refuses the config)");
                releases.add_row(vec![cell(release), cell(found)]);
            }
            let mut facts = table(ui, &[]);
            for store in &stores {
                let text = |key: &str| store.get(key).and_then(Value::as_str).unwrap_or_default();
                let mut place = format!("{} {}", text("driver"), text("location"));
                // In a local store only damaged blobs need it.
                if text("driver") != "local" {
                    place.push_str(&format!(", blob cache {}", text("blob_cache")));
                }
                facts.add_row(vec![cell(&format!("store {}", text("key"))), cell(&place)]);
            }
            let state = if used { "used" } else { "not used" };
            facts.add_row(vec![cell("metaDB"), cell(&format!("{driver} {location}, {state}: {reason}"))]);
            facts.add_row(vec![cell("fastRestart"), cell(if fast_restart { "on" } else { "off" })]);
            for warning in &warnings {
                facts.add_row(vec![cell("warning"), cell(warning)]);
            }
            out.push('\n');
            out.push_str(&lines(&releases));
            out.push('\n');
            out.push_str(&lines(&facts));
            out
        }
    });
    Ok(Exit::Ok)
}

/// Driver, place, whether zot opens it, and why.
fn metadb(context: &Context<'_>) -> Result<(String, String, bool, String), Failure> {
    if context.overridden() {
        let place = context.place()?;
        let used = place.is_zots() && context.metadb.used;
        return Ok((place.driver().into(), place.location(), used, "named by --metadb".into()));
    }
    let found = &context.metadb;
    let mut reason = found.reasons.join("; ");
    // zot does not know redb: it would open BoltDB instead.
    let used = found.used && !matches!(found.choice, MetaDbChoice::Redb { .. });
    if matches!(found.choice, MetaDbChoice::Redb { .. }) {
        reason = "metactl's own metaDB; zot never opens it".into();
    }
    Ok((found.choice.driver().into(), found.choice.location(), used, reason))
}

fn store_json(key: &str, store: &metactl::config::Store) -> Value {
    let driver = store.storage_driver.as_ref();
    let mut out = Map::new();
    out.insert("key".into(), key.into());
    out.insert("driver".into(), driver.map_or("local", |driver| driver.name().unwrap_or("?")).into());
    let location = match driver {
        None => store.root_directory.clone(),
        Some(driver) => ObjectOptions::from_params(driver).map(|options| options.location()).unwrap_or_else(|_| {
            let part = |name| driver.text(name).unwrap_or_default();
            let container = if part("bucket").is_empty() { part("container") } else { part("bucket") };
            metactl::secret::redact_text(&format!("{container}{}", part("rootdirectory")))
        }),
    };
    out.insert("location".into(), location.into());
    out.insert("dedupe".into(), store.dedupe.into());
    out.insert("blob_cache".into(), BlobCacheChoice::of(store).to_string().into());
    Value::Object(out)
}
