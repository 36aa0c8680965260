use alloc::borrow::ToOwned;

use super::*;

const KEY: HashKey = HashKey::from_bytes([7; 16]);

fn read_at(body: &str, pointer: &str) -> Option<String> {
    let pointer = Pointer::parse(pointer).unwrap();
    let document = read(body.as_bytes(), &[&pointer], &[], KEY).unwrap();
    document
        .at(0)
        .and_then(Scalar::as_text)
        .map(ToOwned::to_owned)
}

fn refusal(body: &[u8]) -> Option<Unreadable> {
    read(body, &[], &[], KEY).err()
}

fn same(body: &str, pointer: &str) -> Option<u128> {
    let pointer = Pointer::parse(pointer).unwrap();
    read(body.as_bytes(), &[], &[pointer], KEY)
        .unwrap()
        .digests()[0]
}

#[test]
fn pointers_find_decoded_values_at_any_depth() {
    assert_eq!(
        read_at(r#"{"a":{"b":"x\u0041"}}"#, "/a/b").as_deref(),
        Some("xA")
    );
    assert_eq!(
        read_at(r#"{"a":[1,{"b":"y"}]}"#, "/a/1/b").as_deref(),
        Some("y")
    );
    assert_eq!(
        read_at(r#"{"a/b~c":"z"}"#, "/a~1b~0c").as_deref(),
        Some("z")
    );
    assert_eq!(
        read_at(r#"{"id":42}"#, "/id").as_deref(),
        Some("42"),
        "numbers read as strings"
    );
    assert_eq!(read_at(r#"{"id":4.5}"#, "/id"), None);
    assert_eq!(read_at(r#"{"id":null}"#, "/id"), None);
    assert_eq!(read_at(r#"{"other":1}"#, "/id"), None);
}

#[test]
fn what_php_would_refuse_or_read_otherwise_is_unreadable() {
    assert_eq!(refusal(b""), Some(Unreadable::Syntax));
    assert_eq!(refusal(b"qr=1&session_id=2"), Some(Unreadable::Syntax));
    assert_eq!(refusal(br#"{"a":1"#), Some(Unreadable::Syntax));
    assert_eq!(refusal(br#"{"a":1} x"#), Some(Unreadable::Syntax));
    assert_eq!(refusal(b"{\"a\":\"\xff\"}"), Some(Unreadable::Syntax));
    assert_eq!(refusal(b"{\"\xff\":1}"), Some(Unreadable::Syntax));
    assert_eq!(
        refusal(b"{\"a\":\"\0\"}"),
        Some(Unreadable::Syntax),
        "a raw NUL"
    );
    assert_eq!(
        refusal(br#"{"a":"\ud800"}"#),
        Some(Unreadable::Syntax),
        "unpaired surrogate"
    );
    assert_eq!(
        refusal(br#"{"a":{"b":"\udc00x"}}"#),
        Some(Unreadable::Syntax)
    );
    assert_eq!(refusal(br#"[{"a":1}]"#), Some(Unreadable::NotAnObject));
    assert_eq!(refusal(br#""a""#), Some(Unreadable::NotAnObject));
    assert_eq!(
        refusal(br#"{"a":1,"b":2,"a":3}"#),
        Some(Unreadable::DuplicateKey)
    );
    assert_eq!(
        refusal(br#"{"a":1,"\u0061":3}"#),
        Some(Unreadable::DuplicateKey)
    );
    assert_eq!(
        refusal(br#"{"x":[{"a":1,"a":2}]}"#),
        Some(Unreadable::DuplicateKey)
    );
    assert_eq!(refusal(br#" {"a":"\ud83d\ude00 \u0000"} "#), None);
}

#[test]
fn a_key_that_is_named_twice_is_found_among_any_number() {
    for count in [1, 15, 16, 17, 2_000] {
        let keys: Vec<String> = (0..count)
            .map(|key| alloc::format!("\"{key}\":1"))
            .collect();
        let body = |more: &str| alloc::format!("{{{},{more}}}", keys.join(","));
        assert_eq!(refusal(body("\"other\":1").as_bytes()), None, "{count}");
        let twice = body("\"\\u0030\":1");
        assert_eq!(
            refusal(twice.as_bytes()),
            Some(Unreadable::DuplicateKey),
            "{count}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let mut body = String::from("{\"a\":");
        body.push_str(&"[".repeat(levels - 1));
        body.push_str(&"]".repeat(levels - 1));
        body.push('}');
        body
    };
    assert_eq!(refusal(nested(DEPTH_MAX as usize).as_bytes()), None);
    assert_eq!(
        refusal(nested(DEPTH_MAX as usize + 1).as_bytes()),
        Some(Unreadable::TooDeep)
    );
    assert!(
        refusal(nested(30_000).as_bytes()).is_some(),
        "and costs no stack"
    );
}

#[test]
fn a_digest_compares_what_was_meant_and_not_how_it_was_escaped() {
    let a = same(r#"{"d":{"k":"A","n":[1,2]}}"#, "/d");
    assert!(a.is_some());
    assert_eq!(a, same(r#"{"d": {"k":"\u0041", "n":[1, 2]}, "e":5}"#, "/d"));
    assert_ne!(a, same(r#"{"d":{"k":"A","n":["1",2]}}"#, "/d"));
    assert_ne!(a, same(r#"{"d":{"k":"A","n":[1],"m":2}}"#, "/d"));
    assert_eq!(same(r#"{"e":5}"#, "/d"), None);
}

fn says(body: &str, volatile: &[&str]) -> (u128, u64) {
    let volatile: Vec<Pointer> = volatile
        .iter()
        .map(|text| Pointer::parse(text).unwrap())
        .collect();
    let document = read_rule(body.as_bytes(), &[], &[], 0, &volatile, KEY).unwrap();
    (document.says(), document.members())
}

#[test]
fn what_a_document_says_is_all_its_members_in_any_order_but_what_is_volatile() {
    let body = r#"{"a":"x","b":{"c":[1,2],"d":null},"at":5}"#;
    let at = says(body, &["/at", "/b/at"]);
    for (same, other) in [
        (true, r#" {"at":6, "b":{"d":null,"c":[1,2]}, "a":"\u0078"}"#),
        (true, r#"{"a":"x","b":{"c":[1,2],"d":null,"at":{"n":[1]}}}"#),
        (false, r#"{"a":"x","b":{"c":[2,1],"d":null}}"#),
        (false, r#"{"a":"x","b":{"c":[1,2],"d":false}}"#),
        (false, r#"{"a":"x","b":{"c":[1,2]},"d":null}"#),
        (false, r#"{"a":"x","b":{"c":[1,2],"d":null},"e":""}"#),
        (false, r#"{"b":"x","a":{"c":[1,2],"d":null}}"#),
    ] {
        let (said, _) = says(other, &["/at", "/b/at"]);
        assert_eq!(said == at.0, same, "{other}");
    }
    assert_ne!(says(body, &[]).0, at.0, "nothing is volatile there");
}

#[test]
fn the_members_are_told_apart_by_their_names_and_places_only() {
    let of = |body: &str| says(body, &["/at"]).1;
    let members = of(r#"{"a":"x","b":{"c":1}}"#);
    assert_eq!(members, of(r#"{"b":{"c":null},"at":1,"a":7}"#));
    assert_ne!(members, of(r#"{"a":"x"}"#));
    assert_ne!(members, of(r#"{"a":"x","b":{"c":1,"d":1}}"#));
    assert_ne!(members, of(r#"{"a":"x","c":{"b":1}}"#));
    assert_eq!(of(r#"{"b":1,"a":"x"}"#), members_of(&["a", "b"]));
    assert_eq!(
        of(r#"{"a":[1,{"b":2}]}"#),
        of(r#"{"a":[]}"#),
        "a list is one"
    );
    assert_eq!(of(r#"{"a":[[]]}"#), members_of(&["a"]));
    assert_ne!(of("{}"), of(r#"{"a":{}}"#));
}

#[test]
fn an_object_has_all_members_of_another() {
    let volatile = [Pointer::parse("/at").unwrap()];
    let has_all = |a: &str, b: &str| has_all(a.as_bytes(), b.as_bytes(), &volatile, KEY);
    let (state, phone) = (r#"{"s":1,"at":5}"#, r#"{"phone":{"n":"4"},"s":2}"#);
    assert!(has_all(phone, state) && !has_all(state, phone));
    assert!(has_all(state, state), "what is volatile is nothing to have");
    assert!(
        has_all(r#"{"a":[1]}"#, r#"{"a":[2,3]}"#),
        "a list is one member"
    );
    assert!(!has_all(r#"{"phone":{"m":"4"},"s":2}"#, phone));
    assert!(!has_all("[]", state) && !has_all("{", state));
}

#[test]
fn the_elements_of_an_array_are_found_as_far_as_the_text_goes() {
    let at = |text: &str, pointer: &str| {
        let pointer = Pointer::parse(pointer).unwrap();
        let found = elements_at(text.as_bytes(), &pointer);
        found.map(|(elements, is_whole)| (elements.len(), is_whole))
    };
    assert_eq!(
        at(r#" {"qrs" : [ {"a":1} , 2,"x"] } "#, "/qrs"),
        Some((3, true))
    );
    assert_eq!(at(r#"{"qrs":[]}"#, "/qrs"), Some((0, true)));
    assert_eq!(at(r#"{"data":{"qrs":[1]}}"#, "/data/qrs"), Some((1, true)));
    for (text, count) in [
        (r#"{"n":1,"qrs":[1,2]}"#, 2),
        (r#"{"qrs":[1],"n":1}"#, 1),
        (r#"{"qrs":[1],"qrs":[2]}"#, 1),
        (r#"{"qrs":[1]} x"#, 1),
        (r#"{"qrs":[1,2"#, 2),
        (r#"{"qrs":[1,{"a":"#, 1),
        (r#"{"qrs":[1,]}"#, 1),
    ] {
        assert_eq!(at(text, "/qrs"), Some((count, false)), "{text}");
    }
    for text in ["", "[1]", r#"{"qrs":{}}"#, r#"{"other":[1]}"#, r#"{"qrs"#] {
        assert_eq!(at(text, "/qrs"), None, "{text}");
    }
}
