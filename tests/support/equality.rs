//! When two metaDBs are interchangeable: the semantic equality of two decoded states, placeholders dropped.

use serde_json::{Map, Value, json};

static EMPTY: Value = Value::Null;

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The member, or what counts as absent.
fn or(value: &Value, member: &str, absent: Value) -> Value {
    value.get(member).cloned().unwrap_or(absent)
}

/// Drop what the equality treats as absent: empty strings, lists and maps, false, 0 and "" keys.
pub fn prune(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members
                .iter()
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, value)| (key.clone(), prune(value)))
                .filter(|(_, value)| {
                    ![json!(""), json!([]), json!({}), json!(null), json!(false), json!(0), json!("0")].contains(value)
                });
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(prune).collect()),
        other => other.clone(),
    }
}

fn sorted(mut list: Vec<String>) -> Value {
    list.sort();
    json!(list)
}

fn texts(list: &Value) -> Vec<String> {
    items(list).iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// The normal form of a decoded metaDB. `before` is the state before the walk: tags found there keep their times.
pub fn normal(db: &Value, before: &Value) -> Value {
    let images = members(&db["ImageMeta"]).map(|(digest, image)| (digest.clone(), prune(image)));
    let metas = members(&db["RepoMeta"]).map(|(repo, meta)| {
        let old = before.get("RepoMeta").and_then(|metas| metas.get(repo)).unwrap_or(&EMPTY);
        (repo.clone(), if meta.is_object() { normal_meta(meta, old) } else { meta.clone() })
    });
    let blobs = members(&db["RepoBlobsMeta"])
        .filter(|(repo, _)| !repo.starts_with("<bucket>"))
        .map(|(repo, record)| (repo.clone(), if record.is_object() { normal_blobs(record) } else { record.clone() }));
    json!({
        "ImageMeta": images.collect::<Map<_, _>>(),
        "RepoMeta": metas.collect::<Map<_, _>>(),
        "RepoBlobs": blobs.collect::<Map<_, _>>(),
    })
}

fn normal_meta(meta: &Value, old: &Value) -> Value {
    let named = |field: &str| members(&meta[field]).filter(|(key, _)| !key.is_empty());
    let tags = named("Tags").map(|(tag, descriptor)| {
        let time = or(descriptor, "TaggedTimestamp", json!(null));
        let kept = old.get("Tags").is_some_and(|tags| tags.get(tag).is_some());
        let time = if kept { time } else { json!(!time.is_null()) };
        let entry = json!([or(descriptor, "Digest", json!("")), or(descriptor, "MediaType", json!("")), time]);
        (tag.clone(), entry)
    });
    let statistics = named("Statistics").map(|(digest, entry)| {
        let entry = json!([
            or(entry, "DownloadCount", json!(0)),
            or(entry, "LastPullTimestamp", json!(null)),
            or(entry, "PushTimestamp", json!(null)),
            or(entry, "PushedBy", json!("")),
        ]);
        (digest.clone(), entry)
    });
    let layer = |layer: &Value| json!(["LayerDigest", "LayerContent", "SignatureKey"].map(|m| or(layer, m, json!(""))));
    let signature = |info: &Value| {
        let layers: Vec<Value> = items(&info["LayersInfo"]).iter().map(layer).collect();
        json!([or(info, "SignatureManifestDigest", json!("")), layers])
    };
    let signatures = named("Signatures").filter_map(|(digest, entry)| {
        let kinds: Map<_, _> = members(&entry["map"])
            .filter(|(kind, _)| !kind.is_empty())
            .map(|(kind, infos)| (kind.clone(), items(&infos["list"]).iter().map(signature).collect()))
            .collect();
        (!kinds.is_empty()).then(|| (digest.clone(), Value::Object(kinds)))
    });
    let referrers = named("Referrers")
        .filter(|(_, entry)| !items(&entry["list"]).is_empty())
        .map(|(digest, entry)| (digest.clone(), items(&entry["list"]).iter().map(prune).collect()));
    json!({
        "Tags": tags.collect::<Map<_, _>>(),
        "Statistics": statistics.collect::<Map<_, _>>(),
        "Signatures": signatures.collect::<Map<_, _>>(),
        "Referrers": referrers.collect::<Map<_, _>>(),
        "Stars": or(meta, "Stars", json!(0)),
        "Size": or(meta, "Size", json!("0")),
        "Platforms": sorted(items(&meta["Platforms"]).iter().map(|platform| prune(platform).to_string()).collect()),
        "Vendors": sorted(texts(&meta["Vendors"])),
        "LastUpdatedImage": meta["LastUpdatedImage"],
    })
}

fn normal_blobs(record: &Value) -> Value {
    let blobs = members(&record["Blobs"]).filter(|(digest, _)| !digest.is_empty()).map(|(digest, blob)| {
        let platforms: Vec<Value> = items(&blob["Platforms"]).iter().map(prune).collect();
        let entry = json!([
            or(blob, "Size", json!("0")),
            sorted(texts(&blob["Vendors"])),
            or(blob, "SubBlobs", json!([])),
            platforms,
            or(blob, "LastUpdated", json!(null)),
        ]);
        (digest.clone(), entry)
    });
    Value::Object(blobs.collect())
}

/// The decoded state with nothing pruned: placeholders and the presence of optional fields count, only what zot itself
/// leaves to chance (order of platforms and vendors, instants of the run) is evened out.
pub fn strict(db: &Value, before: &Value) -> Value {
    let mut db = db.clone();
    for (repo, meta) in db["RepoMeta"].as_object_mut().into_iter().flatten() {
        if !meta.is_object() {
            continue;
        }
        for list in ["Platforms", "Vendors"] {
            if let Some(list) = meta.get_mut(list).and_then(Value::as_array_mut) {
                list.sort_by_key(Value::to_string);
            }
        }
        for (tag, descriptor) in meta["Tags"].as_object_mut().into_iter().flatten() {
            if before["RepoMeta"][repo.as_str()]["Tags"].get(tag).is_none()
                && let Some(time) = descriptor.get_mut("TaggedTimestamp")
            {
                *time = json!("now");
            }
        }
    }
    let blobs = db["RepoBlobsMeta"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let blobs: serde_json::Map<_, _> = blobs.into_iter().filter(|(repo, _)| !repo.starts_with('<')).collect();
    json!({"ImageMeta": db["ImageMeta"], "RepoMeta": db["RepoMeta"], "RepoBlobsMeta": blobs})
}

/// Where `got` is not `expected`, one line each.
pub fn differences(expected: &Value, got: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare(expected, got, "", &mut out);
    out
}

fn compare(expected: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
    if let (Value::Object(left), Value::Object(right)) = (expected, got) {
        for (key, value) in left {
            match right.get(key) {
                Some(other) => compare(value, other, &format!("{path}/{key}"), out),
                None => out.push(format!("{path}/{key}: missing, expected {}", short(value))),
            }
        }
        for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
            out.push(format!("{path}/{key}: extra {}", short(value)));
        }
    } else if expected != got {
        out.push(format!("{path}: expected {} got {}", short(expected), short(got)));
    }
}
