//! What is recognised, and what passes by.

use super::head::DESTINATION_BYTES_MAX;
use super::*;
use crate::headers::borrowed;

pub(crate) const KEY: HashKey = HashKey::from_bytes([9; 16]);

pub(crate) fn rules(json: &str) -> Rules {
    Rules {
        config: Config::parse(json.as_bytes()).unwrap(),
        key: KEY,
    }
}

fn headers(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let base = [
        (":method", method),
        (":path", path),
        (":authority", "laravel.test"),
        ("content-type", "application/json"),
        ("x-forwarded-proto", "http"),
    ];
    base.iter()
        .chain(more)
        .map(|(name, value)| ((*name).into(), value.as_bytes().to_vec()))
        .collect()
}

fn bypass(method: &str, path: &str, more: &[(&str, &str)]) -> Option<Bypass> {
    rules("{}")
        .head(borrowed(&headers(method, path, more)))
        .err()
}

#[test]
fn a_sessions_shard_is_the_rest_of_its_hash() {
    for (max_sessions, shards) in [(1, 1_u128), (24, 3), (16_384, 2_048), (1_048_576, 131_072)] {
        let rules = rules(&format!("{{\"max_sessions\":{max_sessions}}}"));
        for session in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978] {
            assert_eq!(u128::from(rules.shard_of(session)), session % shards);
        }
    }
}

#[test]
fn the_default_rules_take_in_exactly_their_paths() {
    let rules = rules("{}");
    for (path, name, prefix) in [
        ("/qr", "qr", ""),
        ("/api/qr", "qr", "/api"),
        ("/whatsapp/status", "status", ""),
        ("/api/whatsapp/status", "status", "/api"),
    ] {
        let head = rules
            .head(borrowed(&headers("POST", path, &[])))
            .expect(path);
        assert_eq!(rules.route(head.route).unwrap().name, name);
        assert_eq!(head.destination.prefix, prefix);
        assert_eq!(head.destination.authority, "laravel.test");
    }
    for path in [
        "/api/qr/",
        "/api/qr?x=1",
        "/v2/qr",
        "/api/qr/batch",
        "/apiqr",
        "/api//qr",
    ] {
        assert_eq!(bypass("POST", path, &[]), Some(Bypass::Path), "{path}");
    }
    assert_eq!(bypass("GET", "/api/qr", &[]), Some(Bypass::Path));
    assert_eq!(bypass("HEAD", "/api/qr", &[]), Some(Bypass::Path));
}

#[test]
fn what_a_batch_could_not_carry_passes_through() {
    let reason = |name, value| bypass("POST", "/api/qr", &[(name, value)]);
    assert_eq!(reason("content-encoding", "gzip"), Some(Bypass::Encoding));
    assert_eq!(reason("content-type", "text/plain"), Some(Bypass::Encoding));
    assert_eq!(
        reason("content-type", "application/vnd.api+json; charset=utf-8"),
        None
    );
    assert_eq!(reason("content-length", "65537"), Some(Bypass::TooLarge));
    assert_eq!(reason("content-length", "65536"), None);
    assert_eq!(
        reason("x-hub-signature-256", "sha256=00"),
        Some(Bypass::Signature)
    );
    assert_eq!(reason("x-embudo-bypass", "1"), Some(Bypass::Header));
    assert_eq!(
        reason("authorization", "Bearer t"),
        None,
        "whether it is trusted is in the store"
    );
    let long = "a".repeat(DESTINATION_BYTES_MAX);
    assert_eq!(reason(":authority", &long), Some(Bypass::HeaderBytes));
}

#[test]
fn header_bytes_that_are_not_utf8_pass_through() {
    let mut odd = headers("POST", "/api/qr", &[]);
    odd.push(("x-other".into(), Vec::from([0xff])));
    assert!(
        rules("{}").head(borrowed(&odd)).is_ok(),
        "where nobody needs them they do not matter"
    );
    odd.push((":authority".into(), Vec::from([0xff])));
    assert_eq!(rules("{}").head(borrowed(&odd)), Err(Bypass::HeaderBytes));
}

#[test]
fn trusted_credentials_become_part_of_the_destination() {
    let rules = rules(r#"{"credentials":{"trust":"always"}}"#);
    let with = |token| {
        rules
            .head(borrowed(&headers(
                "POST",
                "/api/qr",
                &[("authorization", token)],
            )))
            .unwrap()
            .destination
    };
    assert_ne!(with("a").credential(KEY), with("b").credential(KEY));
    assert_eq!(with("a").credential(KEY), with("a").credential(KEY));
    assert_eq!(Destination::decode(&with("a").encode()), Some(with("a")));
    let nobody = rules
        .head(borrowed(&headers("POST", "/api/qr", &[])))
        .unwrap()
        .destination;
    assert_eq!(nobody.credential(KEY), 0);
}

#[test]
fn every_bypass_knows_its_place() {
    for (index, bypass) in Bypass::ALL.into_iter().enumerate() {
        assert_eq!(bypass.index(), index, "{bypass}");
    }
}
