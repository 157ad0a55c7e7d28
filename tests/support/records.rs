//! zot's records decoded by a table of their own (the schema as published, with zot's field names), so that a mistake in
//! the library's generated types cannot hide itself.

use super::driver::Raw;
use base64::Engine as _;
use serde_json::{Map, Value, json};

#[derive(Clone, Copy)]
pub enum Kind {
    Str,
    I64,
    I32,
    Bool,
    Bytes,
    Time,
    Msg(&'static str),
}

#[derive(Clone, Copy)]
pub enum Field {
    One(Kind),
    Many(Kind),
    Map(Kind),
}

use Field::{Many, Map as MapOf, One};
use Kind::{Bool, Bytes, I32, I64, Msg, Str, Time};

pub type Schema = &'static [(u64, &'static str, Field)];

/// Fields of a message: number, name, shape.
pub fn schema(message: &str) -> Schema {
    match message {
        "TagDescriptor" => &[(1, "MediaType", One(Str)), (2, "Digest", One(Str)), (3, "TaggedTimestamp", One(Time))],
        "ImageMeta" => &[
            (1, "MediaType", One(Str)),
            (2, "Manifests", Many(Msg("ManifestMeta"))),
            (3, "Index", One(Msg("IndexMeta"))),
        ],
        "ManifestMeta" => &[
            (1, "Digest", One(Str)),
            (2, "Size", One(I64)),
            (3, "Manifest", One(Msg("Manifest"))),
            (4, "Config", One(Msg("Image"))),
        ],
        "IndexMeta" => &[(1, "Digest", One(Str)), (2, "Size", One(I64)), (3, "Index", One(Msg("Index")))],
        "RepoLastUpdatedImage" => {
            &[(1, "LastUpdated", One(Time)), (2, "MediaType", One(Str)), (3, "Digest", One(Str)), (4, "Tag", One(Str))]
        }
        "RepoMeta" => &[
            (1, "Name", One(Str)),
            (2, "Tags", MapOf(Msg("TagDescriptor"))),
            (3, "Statistics", MapOf(Msg("DescriptorStatistics"))),
            (4, "Signatures", MapOf(Msg("ManifestSignatures"))),
            (5, "Referrers", MapOf(Msg("ReferrersInfo"))),
            (6, "IsStarred", One(Bool)),
            (7, "IsBookmarked", One(Bool)),
            (8, "Rank", One(I32)),
            (9, "Stars", One(I32)),
            (10, "Size", One(I64)),
            (11, "Vendors", Many(Str)),
            (12, "Platforms", Many(Msg("Platform"))),
            (13, "LastUpdatedImage", One(Msg("RepoLastUpdatedImage"))),
            (14, "Downloads", One(I32)),
        ],
        "RepoBlobs" => &[(1, "Name", One(Str)), (2, "Blobs", MapOf(Msg("BlobInfo")))],
        "BlobInfo" => &[
            (1, "Size", One(I64)),
            (2, "Vendors", Many(Str)),
            (3, "SubBlobs", Many(Str)),
            (4, "Platforms", Many(Msg("Platform"))),
            (5, "LastUpdated", One(Time)),
        ],
        "DescriptorStatistics" => &[
            (1, "DownloadCount", One(I32)),
            (2, "LastPullTimestamp", One(Time)),
            (3, "PushTimestamp", One(Time)),
            (4, "PushedBy", One(Str)),
        ],
        "ReferrersInfo" => &[(1, "list", Many(Msg("ReferrerInfo")))],
        "ReferrerInfo" => &[
            (1, "Digest", One(Str)),
            (2, "Count", One(I64)),
            (3, "MediaType", One(Str)),
            (4, "ArtifactType", One(Str)),
            (5, "Size", One(I64)),
            (6, "Annotations", MapOf(Str)),
        ],
        "ManifestSignatures" => &[(1, "map", MapOf(Msg("SignaturesInfo")))],
        "SignaturesInfo" => &[(1, "list", Many(Msg("SignatureInfo")))],
        "SignatureInfo" => &[(1, "SignatureManifestDigest", One(Str)), (2, "LayersInfo", Many(Msg("LayersInfo")))],
        "LayersInfo" => &[
            (1, "LayerDigest", One(Str)),
            (2, "LayerContent", One(Bytes)),
            (3, "SignatureKey", One(Str)),
            (4, "Signer", One(Str)),
            (5, "Date", One(Time)),
        ],
        "Versioned" => &[(1, "SchemaVersion", One(I32))],
        "Descriptor" => &[
            (1, "MediaType", One(Str)),
            (2, "Digest", One(Str)),
            (3, "Size", One(I64)),
            (4, "URLs", Many(Str)),
            (5, "Data", One(Bytes)),
            (6, "Platform", One(Msg("Platform"))),
            (7, "ArtifactType", One(Str)),
            (8, "Annotations", MapOf(Str)),
        ],
        "Platform" => &[
            (1, "Architecture", One(Str)),
            (2, "OS", One(Str)),
            (3, "OSVersion", One(Str)),
            (4, "OSFeatures", Many(Str)),
            (5, "Variant", One(Str)),
        ],
        "Manifest" => &[
            (1, "Versioned", One(Msg("Versioned"))),
            (2, "MediaType", One(Str)),
            (3, "ArtifactType", One(Str)),
            (4, "Config", One(Msg("Descriptor"))),
            (5, "Layers", Many(Msg("Descriptor"))),
            (6, "Subject", One(Msg("Descriptor"))),
            (7, "Annotations", MapOf(Str)),
        ],
        "Index" => &[
            (1, "Versioned", One(Msg("Versioned"))),
            (2, "MediaType", One(Str)),
            (3, "ArtifactType", One(Str)),
            (4, "Manifests", Many(Msg("Descriptor"))),
            (5, "Subject", One(Msg("Descriptor"))),
            (6, "Annotations", MapOf(Str)),
        ],
        "Image" => &[
            (1, "Created", One(Time)),
            (2, "Author", One(Str)),
            (3, "Platform", One(Msg("Platform"))),
            (4, "Config", One(Msg("ImageConfig"))),
            (5, "RootFS", One(Msg("RootFS"))),
            (6, "History", Many(Msg("History"))),
        ],
        "ImageConfig" => &[
            (1, "ExposedPorts", MapOf(Msg("EmptyMessage"))),
            (2, "Volumes", MapOf(Msg("EmptyMessage"))),
            (3, "Labels", MapOf(Str)),
            (4, "User", One(Str)),
            (5, "Env", Many(Str)),
            (6, "Entrypoint", Many(Str)),
            (7, "Cmd", Many(Str)),
            (8, "WorkingDir", One(Str)),
            (9, "StopSignal", One(Str)),
            (10, "ArgsEscaped", One(Bool)),
        ],
        "RootFS" => &[(1, "Type", One(Str)), (2, "DiffIDs", Many(Str))],
        "History" => &[
            (1, "Created", One(Time)),
            (2, "CreatedBy", One(Str)),
            (3, "Author", One(Str)),
            (4, "Comment", One(Str)),
            (5, "EmptyLayer", One(Bool)),
        ],
        _ => &[],
    }
}

/// Value of one field on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

type Result<T> = std::result::Result<T, &'static str>;

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first().ok_or("truncated number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        match byte {
            0..0x80 => return Ok(value),
            _ if shift > 63 => return Err("number too long"),
            _ => {}
        }
    }
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                out.push((tag >> 3, Wire::Number(varint(&mut bytes)?)));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).map_err(|_| "length")?,
            5 => 4,
            _ => return Err("wire type"),
        };
        let (value, rest) = bytes.split_at_checked(length).ok_or("truncated field")?;
        out.push((tag >> 3, Wire::Bytes(value)));
        bytes = rest;
    }
    Ok(out)
}

/// A protobuf timestamp as RFC 3339 text; beyond the years 1…9999 as `@seconds.nanos`.
pub fn timestamp(bytes: &[u8]) -> Result<String> {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, value) in fields(bytes)? {
        match (number, value) {
            (1, Wire::Number(value)) => seconds = value.cast_signed(),
            (2, Wire::Number(value)) => nanos = value,
            _ => return Err("timestamp"),
        }
    }
    // Whole days up to this one fit the calendar that jiff knows as well as zot's.
    if !(-62_135_596_800..253_402_300_800).contains(&seconds) {
        return Ok(format!("@{seconds}.{nanos:09}"));
    }
    let day = jiff::civil::date(1970, 1, 1) + jiff::Span::new().days(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let mut text = format!("{day}T{:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60);
    if nanos != 0 {
        let mut digits = format!("{nanos:09}");
        while digits.ends_with("000") {
            digits.truncate(digits.len() - 3);
        }
        text = format!("{text}.{digits}");
    }
    Ok(text + "Z")
}

fn value_of(kind: Kind, wire: &Wire<'_>) -> Result<Value> {
    Ok(match (kind, wire) {
        (Str, Wire::Bytes(bytes)) => json!(std::str::from_utf8(bytes).map_err(|_| "text is not UTF-8")?),
        (Bytes, Wire::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        (Bool, Wire::Number(value)) => json!(*value != 0),
        (I64, Wire::Number(value)) => json!(value.cast_signed().to_string()),
        (I32, Wire::Number(value)) => json!(value.cast_signed()),
        (Time, Wire::Bytes(bytes)) => json!(timestamp(bytes)?),
        (Msg(name), Wire::Bytes(bytes)) => message(name, bytes)?,
        _ => return Err("wire type does not fit the field"),
    })
}

/// Decode a message of the schema; fields that the schema does not have appear as `?number`.
pub fn message(name: &str, bytes: &[u8]) -> Result<Value> {
    let mut out = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((_, field, shape)) = schema(name).iter().find(|(known, ..)| *known == number) else {
            let value = match wire {
                Wire::Number(value) => json!(value),
                Wire::Bytes(bytes) => json!(hex(bytes)),
            };
            out.insert(format!("?{number}"), value);
            continue;
        };
        match *shape {
            One(kind) => {
                out.insert((*field).into(), value_of(kind, &wire)?);
            }
            Many(kind) => {
                let list = out.entry(*field).or_insert_with(|| json!([]));
                list.as_array_mut().unwrap().push(value_of(kind, &wire)?);
            }
            MapOf(kind) => {
                let Wire::Bytes(entry) = wire else { return Err("map entry") };
                let mut key = json!("");
                let mut value = if matches!(kind, Str) { json!("") } else { json!({}) };
                for (number, wire) in fields(entry)? {
                    match number {
                        1 => key = value_of(Str, &wire)?,
                        _ => value = value_of(kind, &wire)?,
                    }
                }
                let map = out.entry(*field).or_insert_with(|| json!({}));
                map.as_object_mut().unwrap().insert(key.as_str().unwrap().to_owned(), value);
            }
        }
    }
    Ok(Value::Object(out))
}

fn decoded<T: Into<Value>>(result: Result<T>) -> Value {
    result.map_or_else(|error| json!(format!("undecodable: {error}")), Into::into)
}

/// A whole metaDB, decoded, in the shape of the recorded ones.
pub fn decode(raw: &Raw) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = Map::new();
    for (bucket, records) in &raw.0 {
        let record = match bucket.as_str() {
            "RepoBlobsMeta" => Some("RepoBlobs"),
            "ImageMeta" | "RepoMeta" => Some(bucket.as_str()),
            _ => None,
        };
        let decoded = records.iter().map(|(key, value)| {
            let value = match (bucket.as_str(), record) {
                ("RepoLastUpdated", _) => decoded(timestamp(value)),
                (_, Some(record)) => decoded(message(record, value)),
                _ => json!(text(value)),
            };
            (text(key), value)
        });
        out.insert(bucket.clone(), Value::Object(decoded.collect()));
    }
    if let Some(times) = out.remove("RepoLastUpdated") {
        out.entry("RepoBlobsMeta").or_insert_with(|| json!({}))["<bucket>RepoLastUpdated"] = times;
    }
    Value::Object(out)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of base64 text.
pub fn unbase64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Bytes of hex.
pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// [`decode`] without the instants that a walk gives to what it sees for the first time.
pub fn decode_timeless(raw: &super::driver::Raw) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("TaggedTimestamp");
                fields.remove("<bucket>RepoLastUpdated");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut state = decode(raw);
    strip(&mut state);
    state
}

/// The records as everybody sees them: without instants, and without the placeholders under "" that zot's walk leaves, more
/// of them each time it reads a repo.
pub fn visible(state: &Raw) -> Value {
    fn strip(value: &mut Value) {
        if let Some(map) = value.as_object_mut() {
            map.retain(|name, _| !name.is_empty() && !name.starts_with('<'));
            map.values_mut().for_each(strip);
        }
    }
    let mut value = decode_timeless(state);
    strip(&mut value);
    value
}
