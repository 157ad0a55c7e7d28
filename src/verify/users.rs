//! Users' records, and the stars they give (spec §4.5).

use super::findings::{Finding, Id};
use crate::metadb::{MetaDb, MetaDbError};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};

/// The members of UserData that matter here; Go reads absent and null lists alike.
#[derive(Deserialize)]
struct UserData {
    #[serde(default, rename = "StarredRepos")]
    starred: Option<Vec<String>>,
    #[serde(default, rename = "BookmarkedRepos")]
    _bookmarked: Option<Vec<String>>,
    #[serde(default, rename = "Groups")]
    _groups: Option<Vec<String>>,
    #[serde(default, rename = "APIKeys")]
    _api_keys: Option<HashMap<String, serde_json::Map<String, serde_json::Value>>>,
}

/// How many users starred each repo, and which records cannot be decoded.
///
/// # Errors
/// If the records cannot be read.
pub fn stars(db: &dyn MetaDb) -> Result<(HashMap<String, i32>, Vec<Finding>), MetaDbError> {
    let (mut stars, mut findings) = (HashMap::new(), Vec::new());
    db.users(&mut |user, data| match serde_json::from_slice::<UserData>(data) {
        Ok(data) => {
            let repos: BTreeSet<String> = data.starred.unwrap_or_default().into_iter().collect();
            for repo in repos {
                *stars.entry(repo).or_default() += 1;
            }
        }
        Err(error) => {
            // Never the text itself: it holds hashes of API keys.
            let found = format!("line {}, column {}: {:?}", error.line(), error.column(), error.classify());
            findings.push(Finding::new(Id::UserRecordUndecodable).reference(user).found(found));
        }
    })?;
    Ok((stars, findings))
}
