//! Go's JSON decoding: generated documents against a model of Go's rules, and hostile ones against the stack.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod model;

use metactl::oci::json::{Decode, document};
use metactl::oci::time::{Time, parse};
use metactl::oci::{Descriptor, Empty, Image, Index, Manifest};
use model::{Piece, Shown, Type, Written, decoded};
use proptest::prelude::*;

// ---------------------------------------------------------------- generators

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => "[a-zA-Z0-9 .:/_=+-]{0,6}".prop_map(Piece::Plain),
        1 => "[äſKéΩ😀\u{7f}\u{2028}\u{fffd}]{1,2}".prop_map(Piece::Plain),
        2 => prop::sample::select(vec![
            (r"\n", "\n"), (r"\r", "\r"), (r"\t", "\t"), (r"\b", "\u{8}"), (r"\f", "\u{c}"), (r"\/", "/"),
            (r"\\", "\\"), (r#"\""#, "\""), (r"\u0041", "A"), (r"\u00e4", "ä"), (r"\u0000", "\0"),
            (r"\ud83d\ude00", "😀"), (r"\uD83D\uDE00", "😀"), (r"\ud83d", "\u{fffd}"), (r"\ude00", "\u{fffd}"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"), (r"\ud83dx", "\u{fffd}x"), (r"\ud83d\n", "\u{fffd}\n"),
            (r"\ud83d\u0041", "\u{fffd}A"), (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
        ]).prop_map(|(sequence, meaning)| Piece::Escape(sequence, meaning)),
        // Every byte for itself, even where Rust's lossy conversion takes the beginning of a character for one.
        2 => prop::sample::select(vec![
            (&b"\xff"[..], "\u{fffd}"), (b"\xc0", "\u{fffd}"), (b"\xf5", "\u{fffd}"), (b"\x80", "\u{fffd}"),
            (b"\xe2\x82!", "\u{fffd}\u{fffd}!"), (b"\xf0\x9f\x98!", "\u{fffd}\u{fffd}\u{fffd}!"),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"), (b"\xc3!", "\u{fffd}!"),
        ]).prop_map(|(bytes, meaning)| Piece::Invalid(bytes, meaning)),
    ]
}

/// A string whose parts mean the same apart and together: a lone half of a surrogate pair must not meet the other, nor an
/// orphaned continuation byte a lead byte (there are none among the pieces).
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop::collection::vec(piece(), 0..4).prop_map(|pieces| {
        let mut out: Vec<Piece> = Vec::new();
        for piece in pieces {
            let high = matches!(out.last(), Some(Piece::Escape(last, _)) if last.ends_with(r"\ud83d"));
            let low = matches!(piece, Piece::Escape(next, _) if next.starts_with(r"\ude00"));
            let nothing = matches!(&piece, Piece::Plain(text) if text.is_empty());
            if !(high && low || nothing) {
                out.push(piece);
            }
        }
        out
    })
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<i64>().prop_map(|number| number.to_string()),
        2 => (0_i64..300).prop_map(|number| number.to_string()),
        2 => prop::sample::select(vec![
            "-0", "0", "1.0", "1e3", "1E+2", "1e-2", "-1", "9223372036854775807", "9223372036854775808",
            "-9223372036854775808", "-9223372036854775809", "99999999999999999999999999", "0.5", "-0.0", "255", "256",
        ]).prop_map(str::to_owned),
    ]
}

fn time_text() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05.123456789Z",
        "2024-01-02T3:04:05,5+01:00",
        "0001-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "",
        "2024-01-02",
        "2024-02-30T00:00:00Z",
        "9999-12-31T23:59:59.999999999-24:60",
    ])
    .prop_map(str::to_owned)
}

fn plain(text: String) -> Written {
    Written::Text(vec![Piece::Plain(text)])
}

/// Any value at all.
fn anything() -> impl Strategy<Value = Written> {
    let leaf = prop_oneof![
        Just(Written::Null),
        any::<bool>().prop_map(Written::Bool),
        number().prop_map(Written::Number),
        pieces().prop_map(Written::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Written::List),
            prop::collection::vec((pieces(), inner), 0..3).prop_map(Written::Object),
        ]
    })
}

/// Member names as somebody might spell `name`.
fn spelling(name: &'static str) -> impl Strategy<Value = Vec<Piece>> {
    let folded = name.replacen('s', "\u{17f}", 1).replacen('k', "\u{212a}", 1);
    prop_oneof![
        8 => Just(name.to_owned()),
        1 => Just(name.to_ascii_uppercase()),
        1 => Just(name.to_ascii_lowercase()),
        1 => Just(folded),
        1 => Just(format!("{name}_")),
    ]
    .prop_map(|name| vec![Piece::Plain(name)])
}

/// A value that mostly fits `kind`.
fn fitting(kind: &'static Type) -> BoxedStrategy<Written> {
    let value = match kind {
        Type::Text => pieces().prop_map(Written::Text).boxed(),
        Type::Int => prop_oneof![(0_i64..10).prop_map(|n| n.to_string()), number()].prop_map(Written::Number).boxed(),
        Type::Bool => any::<bool>().prop_map(Written::Bool).boxed(),
        Type::Bytes => prop_oneof![
            prop::collection::vec(any::<u8>(), 0..7).prop_map(|bytes| {
                use base64::Engine as _;
                plain(base64::engine::general_purpose::STANDARD.encode(bytes))
            }),
            "[A-Za-z0-9+/]{0,8}={0,3}".prop_map(plain),
            Just(Written::Text(vec![Piece::Plain("aG".into()), Piece::Escape(r"\n", "\n"), Piece::Plain("k=".into())])),
            prop::collection::vec((0_i64..260).prop_map(|n| Written::Number(n.to_string())), 0..4)
                .prop_map(Written::List),
        ]
        .boxed(),
        Type::Time => time_text().prop_map(plain).boxed(),
        Type::List(kind) => prop::collection::vec(fitting(kind), 0..4).prop_map(Written::List).boxed(),
        Type::Map(kind) => {
            let key = prop_oneof![pieces(), "[ab]".prop_map(|key| vec![Piece::Plain(key)])];
            prop::collection::vec((key, fitting(kind)), 0..4).prop_map(Written::Object).boxed()
        }
        Type::Record(fields) => {
            let mut members: Vec<BoxedStrategy<(Vec<Piece>, Written)>> =
                fields.iter().map(|(name, kind)| (spelling(name), fitting(kind)).boxed()).collect();
            members.push((pieces(), anything()).boxed());
            let member = prop::sample::select(members).prop_flat_map(|member| member);
            prop::collection::vec(member, 0..8).prop_map(Written::Object).boxed()
        }
        Type::Optional(kind) => fitting(kind),
    };
    prop_oneof![40 => value, 4 => Just(Written::Null), 1 => anything()].boxed()
}

fn agrees<T: Decode + Shown>(kind: &Type, value: &Written) -> Result<(), TestCaseError> {
    let mut text = Vec::new();
    value.write(&mut text);
    let got = document::<T>(&text).ok().map(|value| value.shown());
    prop_assert_eq!(got, decoded(kind, value), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn manifests_decode_as_in_go(value in fitting(&model::MANIFEST)) {
        agrees::<Manifest>(&model::MANIFEST, &value)?;
    }

    #[test]
    fn indexes_decode_as_in_go(value in fitting(&model::INDEX)) {
        agrees::<Index>(&model::INDEX, &value)?;
    }

    #[test]
    fn configs_decode_as_in_go(value in fitting(&model::IMAGE)) {
        agrees::<Image>(&model::IMAGE, &value)?;
    }

    #[test]
    fn descriptors_decode_as_in_go(value in fitting(&model::DESCRIPTOR)) {
        agrees::<Descriptor>(&model::DESCRIPTOR, &value)?;
    }

    /// Syntax alone, in members that are ignored: serde_json's skipping follows the same grammar.
    #[test]
    fn the_grammar_is_that_of_json(value in anything(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = b"{\"x\":".to_vec();
        value.write(&mut text);
        text.push(b'}');
        let at = at.index(text.len());
        for edit in 0..3 {
            let mut text = text.clone();
            match edit {
                0 => text[at] = byte,
                1 => drop(text.remove(at)),
                _ => text.truncate(at),
            }
            let expected = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
            let first = text.iter().find(|byte| !b" \t\r\n".contains(byte));
            let expected = expected && matches!(first, Some(b'{' | b'n'));
            let got = document::<Empty>(&text);
            prop_assert_eq!(got.is_ok(), expected, "{:?} {}", got, String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = (document::<Manifest>(&text), document::<Index>(&text), document::<Image>(&text));
    }

    #[test]
    fn times_agree_with_jiff(
        (year, month, day) in (0_i16..=9999, 1_i8..=12, 1_i8..=31),
        (hour, minute, second) in (0_i8..24, 0_i8..60, 0_i8..60),
        fraction in "([.,][0-9]{1,12})?",
        (short_hour, sign) in (any::<bool>(), any::<bool>()),
        (zone_hour, zone_minute) in (0_i64..=25, 0_i64..=61),
        utc in any::<bool>(),
    ) {
        let sign_text = if sign { '-' } else { '+' };
        let zone = if utc { "Z".into() } else { format!("{sign_text}{zone_hour:02}:{zone_minute:02}") };
        let hour_text = if short_hour { hour.to_string() } else { format!("{hour:02}") };
        let text = format!("{year:04}-{month:02}-{day:02}T{hour_text}:{minute:02}:{second:02}{fraction}{zone}");
        let date = jiff::civil::Date::new(year, month, day).ok();
        let expected = date.filter(|_| utc || zone_hour <= 24 && zone_minute <= 60).map(|date| {
            let days = date.since(jiff::civil::date(1970, 1, 1)).unwrap().get_days();
            let offset = if utc { 0 } else { zone_hour * 3600 + zone_minute * 60 };
            let clock = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
            let seconds = i64::from(days) * 86_400 + clock - if sign { -offset } else { offset };
            let digits: String = fraction.chars().skip(1).chain("000000000".chars()).take(9).collect();
            Time { seconds, nanos: digits.parse().unwrap() }
        });
        prop_assert_eq!(parse(&text), expected, "{}", text);
    }

    #[test]
    fn any_text_may_stand_for_a_time(text in "[0-9TZ:+.,-]{0,40}") {
        let _ = parse(&text);
    }
}

// ---------------------------------------------------------------- by hand

/// Run on a stack that recursion over ten thousand levels would overflow.
fn on_a_small_stack<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap().join().unwrap()
}

#[test]
fn nesting_is_limited_as_in_go_and_costs_no_stack() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]"), (r#"{"size":"#, "}")] {
        // The document itself is the first level.
        for (levels, accepted) in [(1, true), (9_998, true), (9_999, true), (10_000, false), (10_001, false)] {
            let per = open.matches(['[', '{']).count();
            if levels % per != 0 {
                continue;
            }
            let text = format!(r#"{{"x":{}0{}}}"#, open.repeat(levels / per), close.repeat(levels / per)).into_bytes();
            let ok = on_a_small_stack(move || {
                [document::<Index>(&text).is_ok(), document::<Image>(&text).is_ok(), document::<Empty>(&text).is_ok()]
            });
            assert_eq!(ok, [accepted; 3], "{levels} x {open}");
        }
        let endless = open.repeat(1_000_000).into_bytes();
        assert!(on_a_small_stack(move || document::<Manifest>(&endless).is_err()));
    }
    // Known members end the descent with an error long before.
    let text = format!(r#"{{"manifests":{}"#, "[".repeat(1_000_000)).into_bytes();
    assert!(on_a_small_stack(move || document::<Index>(&text).is_err()));
}

#[test]
fn the_top_level_is_an_object_or_null() {
    for text in ["{}", " \r\n\t{} ", "null", " null "] {
        assert_eq!(document::<Manifest>(text.as_bytes()).unwrap(), Manifest::default(), "{text:?}");
    }
    for text in
        ["", " ", "[]", "0", "true", "\"\"", "{} {}", "{},", "null null", "\u{feff}{}", "{}\0", "// x\n{}", "nul"]
    {
        assert!(document::<Manifest>(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn integers() {
    for (text, expected) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("null", Some(0)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("1.0", None),
        ("1e3", None),
        ("1E0", None),
        ("01", None),
        ("+1", None),
        ("-", None),
        (".5", None),
        ("\"1\"", None),
        ("true", None),
        ("[]", None),
        ("{}", None),
        ("0x1", None),
        ("NaN", None),
    ] {
        let got = document::<Descriptor>(format!(r#"{{"size":{text}}}"#).as_bytes()).ok();
        assert_eq!(got.map(|descriptor| descriptor.size), expected, "{text}");
    }
}

#[test]
fn embedded_data() {
    for (text, expected) in [
        (r#""""#, Some(&b""[..])),
        (r#""aGk=""#, Some(b"hi")),
        (r#""aG\nk\r=""#, Some(b"hi")),
        (r#""aGl=""#, Some(b"hi")),
        (r#""\u0061Gk=""#, Some(b"hi")),
        ("[104,105]", Some(b"hi")),
        ("[104,null]", Some(b"h\0")),
        ("[]", Some(b"")),
        ("null", Some(b"")),
        (r#""aGk""#, None),
        (r#""aGk==""#, None),
        (r#""aGk=aGk=""#, None),
        (r#""aG k=""#, None),
        (r#""-_==""#, None),
        (r#""=""#, None),
        ("[256]", None),
        ("[-1]", None),
        ("[1.0]", None),
        (r#"["h"]"#, None),
        ("104", None),
        ("{}", None),
    ] {
        let got = document::<Descriptor>(format!(r#"{{"data":{text}}}"#).as_bytes()).ok();
        assert_eq!(got.as_ref().map(|descriptor| descriptor.data.0.as_slice()), expected, "{text}");
    }
}
