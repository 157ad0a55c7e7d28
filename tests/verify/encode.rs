//! Decoded metaDBs back into bytes, by the table that decodes them: zot's recorded results become databases.

use super::support::driver::Raw;
use super::support::records::{Field, Kind, hex, schema, unbase64, unhex};
use serde_json::Value;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn delimited(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// A time as the recorded dumps show it: RFC 3339, or `@seconds.nanos` beyond the calendar.
pub fn timestamp(text: &str) -> Vec<u8> {
    let (seconds, nanos) = match text.strip_prefix('@') {
        Some(beyond) => {
            let (seconds, nanos) = beyond.split_once('.').unwrap();
            (seconds.parse::<i64>().unwrap(), nanos.parse::<u64>().unwrap())
        }
        None => {
            let (day, rest) = text.strip_suffix('Z').unwrap().split_once('T').unwrap();
            let (clock, fraction) = rest.split_once('.').unwrap_or((rest, ""));
            let days = day.parse::<jiff::civil::Date>().unwrap() - jiff::civil::date(1970, 1, 1);
            let parts: Vec<i64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
            let seconds = i64::from(days.get_days()) * 86_400 + parts[0] * 3600 + parts[1] * 60 + parts[2];
            (seconds, format!("{fraction:0<9}").parse().unwrap())
        }
    };
    let mut out = Vec::new();
    for (number, value) in [(1_u64, seconds.cast_unsigned()), (2, nanos)] {
        if value != 0 {
            varint(&mut out, number << 3);
            varint(&mut out, value);
        }
    }
    out
}

fn value(out: &mut Vec<u8>, number: u64, kind: Kind, value: &Value) {
    let text = || value.as_str().unwrap();
    let mut scalar = |plain: u64| {
        varint(out, number << 3);
        varint(out, plain);
    };
    match kind {
        Kind::Bool => scalar(u64::from(value.as_bool().unwrap())),
        Kind::I64 => scalar(text().parse::<i64>().unwrap().cast_unsigned()),
        Kind::I32 => scalar(value.as_i64().unwrap().cast_unsigned()),
        Kind::Str => delimited(out, number, text().as_bytes()),
        Kind::Bytes => delimited(out, number, &unbase64(text())),
        Kind::Time => delimited(out, number, &timestamp(text())),
        Kind::Msg(name) => delimited(out, number, &message(name, value)),
    }
}

/// Encode one record.
pub fn message(name: &str, record: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, found) in record.as_object().unwrap() {
        let (number, _, shape) =
            schema(name).iter().find(|(_, known, _)| known == field).unwrap_or_else(|| panic!("{name}.{field}"));
        match *shape {
            Field::One(kind) => value(&mut out, *number, kind, found),
            Field::Many(kind) => found.as_array().unwrap().iter().for_each(|item| value(&mut out, *number, kind, item)),
            Field::Map(kind) => {
                for (key, item) in found.as_object().unwrap() {
                    let mut entry = Vec::new();
                    delimited(&mut entry, 1, key.as_bytes());
                    value(&mut entry, 2, kind, item);
                    delimited(&mut out, *number, &entry);
                }
            }
        }
    }
    out
}

/// A whole recorded metaDB.
pub fn metadb(after: &Value) -> Raw {
    let mut raw = Raw::new_metadb();
    for (bucket, records) in after.as_object().unwrap() {
        for (key, record) in records.as_object().into_iter().flatten() {
            let bytes = match (bucket.as_str(), key.as_str()) {
                ("hex", _) => continue,
                ("RepoBlobsMeta", "<bucket>RepoLastUpdated") => {
                    for (repo, at) in record.as_object().unwrap() {
                        raw.put("RepoLastUpdated", repo, &timestamp(at.as_str().unwrap()));
                    }
                    continue;
                }
                ("ImageMeta", digest) if after["hex"][digest].is_string() => {
                    unhex(after["hex"][digest].as_str().unwrap())
                }
                ("ImageMeta" | "RepoMeta", _) => message(bucket, record),
                ("RepoBlobsMeta", _) => message("RepoBlobs", record),
                _ => record.as_str().unwrap_or_else(|| panic!("{bucket} {key}: {record}")).into(),
            };
            raw.put(bucket, key, &bytes);
        }
    }
    raw
}

#[test]
fn encoding_is_the_opposite_of_decoding() {
    use super::support::records;
    for case in super::support::walk::Case::all().into_iter().filter(|case| case.complete) {
        let raw = metadb(&case.after);
        for (digest, bytes) in raw.bucket("ImageMeta") {
            let decoded = records::message("ImageMeta", &bytes).unwrap();
            let again = records::message("ImageMeta", &message("ImageMeta", &decoded)).unwrap();
            assert_eq!(again, decoded, "{} {}", case.name, hex(&digest));
        }
        for (bucket, name) in [("RepoMeta", "RepoMeta"), ("RepoBlobsMeta", "RepoBlobs")] {
            for (repo, bytes) in raw.bucket(bucket) {
                let repo = String::from_utf8(repo).unwrap();
                assert_eq!(records::message(name, &bytes).unwrap(), case.after[bucket][&repo], "{} {repo}", case.name);
            }
        }
    }
}
