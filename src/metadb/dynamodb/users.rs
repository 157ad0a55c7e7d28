//! UserData items → the JSON that zot's other drivers keep (spec §4.5). They differ in the names of API keys' members
//! only: Go's names here, the JSON tags there.

use super::items::{Item, USER_DATA};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Value};

/// Members of an API key's details: Go's name, JSON's.
const DETAILS: [(&str, &str); 9] = [
    ("CreatedAt", "createdAt"),
    ("ExpirationDate", "expirationDate"),
    ("IsExpired", "isExpired"),
    ("CreatorUA", "creatorUa"),
    ("GeneratedBy", "generatedBy"),
    ("LastUsed", "lastUsed"),
    ("Label", "label"),
    ("Scopes", "scopes"),
    ("UUID", "uuid"),
];

/// JSON text of a user's record; an item without one is, as for zot, a user about whom nothing is known.
pub fn json(item: &Item) -> Vec<u8> {
    let mut data = match item.get(USER_DATA) {
        None | Some(AttributeValue::Null(_)) => Value::Object(Map::new()),
        Some(data) => value(data),
    };
    let keys = data.get_mut("APIKeys").and_then(Value::as_object_mut);
    for details in keys.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        for (go, json) in DETAILS {
            if let Some(value) = details.remove(go) {
                details.insert(json.to_owned(), value);
            }
        }
    }
    data.to_string().into_bytes()
}

fn value(attribute: &AttributeValue) -> Value {
    match attribute {
        AttributeValue::S(text) => Value::String(text.clone()),
        AttributeValue::Bool(flag) => Value::Bool(*flag),
        AttributeValue::N(number) => serde_json::from_str(number).unwrap_or_else(|_| Value::String(number.clone())),
        AttributeValue::L(list) => list.iter().map(value).collect(),
        AttributeValue::Ss(set) => set.iter().cloned().map(Value::String).collect(),
        AttributeValue::M(map) => map.iter().map(|(name, inner)| (name.clone(), value(inner))).collect(),
        AttributeValue::Null(_) => Value::Null,
        // zot writes nothing else, and can read nothing else.
        _ => Value::String("(binary)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_user_with_a_key_reads_as_on_the_other_drivers() {
        let text = |text: &str| AttributeValue::S(text.into());
        let details = HashMap::from([
            ("CreatedAt".to_owned(), text("2026-01-02T03:04:05Z")),
            ("IsExpired".to_owned(), AttributeValue::Bool(false)),
            ("CreatorUA".to_owned(), text("curl")),
            ("Scopes".to_owned(), AttributeValue::Null(true)),
            ("UUID".to_owned(), text("u")),
        ]);
        let user = HashMap::from([
            ("StarredRepos".to_owned(), AttributeValue::L(vec![text("a"), text("b/c")])),
            ("BookmarkedRepos".to_owned(), AttributeValue::Null(true)),
            ("APIKeys".to_owned(), AttributeValue::M(HashMap::from([("hash".to_owned(), AttributeValue::M(details))]))),
        ]);
        let item = HashMap::from([(USER_DATA.to_owned(), AttributeValue::M(user))]);
        let expected = serde_json::json!({
            "StarredRepos": ["a", "b/c"],
            "BookmarkedRepos": null,
            "APIKeys": {"hash": {"createdAt": "2026-01-02T03:04:05Z", "isExpired": false, "creatorUa": "curl", "scopes": null, "uuid": "u"}},
        });
        assert_eq!(serde_json::from_slice::<Value>(&json(&item)).unwrap(), expected);
        assert_eq!(json(&Item::new()), b"{}");
    }
}
