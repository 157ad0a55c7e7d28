//! Whether a zot is at work on a metaDB that has no locks.

use super::context::Context;
use super::exit::Failure;
use super::ui::Ui;
use metactl::identity;
use metactl::metadb::Place;
use metactl::secret;

/// What a walk beside a zot cannot protect.
const RISK: &str = "DynamoDB has no locks: what zot writes from a record that it read before metactl wrote it (a pull's \
                    count, a star, a tag) replaces what metactl wrote";

/// Refuse to write where zot may be writing, unless that is wanted. Says on what it relies.
pub fn allowed(place: &Place, context: &Context<'_>, online: bool, ui: Ui) -> Result<(), Failure> {
    if !matches!(place, Place::DynamoDb(_)) {
        return Ok(());
    }
    let asked: Vec<String> =
        context.global.zot_url.iter().cloned().chain(context.config.http_address().url()).collect();
    let answers = asked.iter().find(|url| identity::answers(url));
    match (answers, online) {
        (Some(url), false) => {
            let message = format!("a zot answers at {}. {RISK}", secret::redact_url(url));
            Err(Failure::unknown("zot-online", message)
                .hint("stop zot first; or walk with --online, while nobody pushes, pulls or stars"))
        }
        (Some(url), true) => {
            ui.notice(&format!("a zot answers at {}. {RISK}", secret::redact_url(url)));
            Ok(())
        }
        (None, _) => {
            let asked: Vec<String> = asked.iter().map(|url| secret::redact_url(url)).collect();
            let looked = if asked.is_empty() {
                "no address of it is known".to_owned()
            } else {
                format!("nothing answers at {}", asked.join(" or "))
            };
            ui.notice(&format!("zot is assumed to be stopped, and every other zot of this metaDB: {looked}"));
            Ok(())
        }
    }
}
