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
    let head = rules("{}").head(borrowed(&headers(method, path, more)));
    head.map_or_else(Some, |head| head.bypass)
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
    for path in ["/api/qr/", "/v2/qr", "/api/qr/batch", "/apiqr", "/api//qr"] {
        assert_eq!(bypass("POST", path, &[]), Some(Bypass::Path), "{path}");
    }
    assert_eq!(bypass("POST", "/api/qr?x=1", &[]), Some(Bypass::Query));
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
    assert_eq!(
        reason("content-digest", "sha-256=:x:"),
        Some(Bypass::Signature)
    );
    assert_eq!(
        reason("x-http-method-override", "DELETE"),
        Some(Bypass::Override)
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
    assert_eq!(rules("{}").head(borrowed(&odd)), Err(Bypass::HeaderBytes));
    odd.pop();
    odd.push(("x-request-id".into(), Vec::from([0xff])));
    assert!(
        rules("{}").head(borrowed(&odd)).is_ok(),
        "where nobody needs them they do not matter"
    );
    odd.push((":authority".into(), Vec::from([0xff])));
    assert_eq!(rules("{}").head(borrowed(&odd)), Err(Bypass::HeaderBytes));
}

/// Where a request is and whose, and its session's name.
fn origin(json: &str, more: &[(&str, &str)]) -> (Head, u128) {
    let rules = rules(json);
    let head = rules
        .head(borrowed(&headers("POST", "/api/qr", more)))
        .unwrap();
    let update = rules
        .update(&head, br#"{"session_id":"s","qr":"x"}"#)
        .unwrap();
    let session = update.session;
    (head, session)
}

#[test]
fn what_laravel_could_tell_apart_is_told_apart() {
    let of = |more: &[(&str, &str)]| {
        let (head, session) = origin("{}", more);
        (session, head.origin.caller, head.destination.encode())
    };
    let (session, caller, destination) = of(&[]);
    assert_eq!(caller, 0, "a caller without any header");
    // Other session, other caller, other batch.
    for (name, value, parts) in [
        ("x-tenant", "acme", (true, true, true)),
        ("x-forwarded-host", "acme.test", (true, true, true)),
        ("authorization", "Bearer t", (false, true, true)),
        ("cookie", "session=1", (false, true, true)),
        ("referer", "http://a/", (false, false, false)),
        ("x-csrf-token", "1", (false, false, false)),
        ("x-webhook-secret", "s", (false, true, true)),
        ("resource-owner", "1@s.whatsapp.net", (false, true, true)),
        ("x-forwarded-proto", "https", (false, false, true)),
        ("x-forwarded-for", "10.0.0.1", (false, false, true)),
        ("user-agent", "axios/1", (false, false, false)),
        ("x-request-id", "1", (false, false, false)),
        ("x-webhook-timestamp", "1", (false, false, false)),
        ("x-envoy-attempt-count", "1", (false, false, false)),
    ] {
        let found = of(&[(name, value)]);
        let apart = (
            found.0 != session,
            found.1 != caller,
            found.2 != destination,
        );
        assert_eq!(apart, parts, "{name}");
        let again = of(&[(name, value), ("x-b3-spanid", "7")]);
        assert_eq!(found, again, "{name}");
    }
    let of_two = |one, two| of(&[one, two]);
    assert_eq!(
        of_two(("x-a", "1"), ("x-b", "2")),
        of_two(("x-b", "2"), ("x-a", "1")),
        "in whatever order they come"
    );
}

#[test]
fn what_a_browser_says_of_its_page_is_a_credential_beside_a_cookie_only() {
    const COOKIE: (&str, &str) = ("cookie", "laravel_session=1");
    let names = ["origin", "referer", "x-csrf-token", "x-xsrf-token"];
    let caller = |json: &str, more: &[(&str, &str)]| origin(json, more).0.origin.caller;
    let of = |more: &[(&str, &str)]| caller("{}", more);
    for name in names {
        let (one, two) = ((name, "https://a.test"), (name, "https://b.test"));
        assert_eq!(of(&[one]), 0, "{name} is nobody's");
        assert_ne!(of(&[COOKIE, one]), of(&[COOKIE]), "{name}");
        assert_ne!(of(&[COOKIE, one]), of(&[COOKIE, two]), "{name}");
        assert_eq!(of(&[COOKIE, one]), of(&[one, COOKIE]), "{name}");

        let (alone, beside) = (origin("{}", &[one]).0, origin("{}", &[one, COOKIE]).0);
        let is_carried = |head: &Head| head.destination.headers.iter().any(|(n, _)| n == name);
        let base = headers("POST", "/api/qr", &[]).len() as u32;
        let is_neutral = |head: &Head| head.neutral & 1 << base != 0;
        assert!(
            !is_carried(&alone) && is_neutral(&alone),
            "{name} goes with a single"
        );
        assert!(is_carried(&beside) && !is_neutral(&beside), "{name}");

        // What the operator says counts; and so does a cookie that every call has.
        let credential = format!(r#"{{"headers":{{"credential":["{name}"]}}}}"#);
        assert_ne!(caller(&credential, &[one]), caller(&credential, &[two]));
        let neutral = r#"{"headers":{"neutral":["cookie"]}}"#;
        assert_eq!(caller(neutral, &[COOKIE, one]), 0, "{name}");
        let added = r#"{"upstream":{"headers":{"cookie":"a=b"}}}"#;
        assert_ne!(caller(added, &[one]), caller(added, &[two]), "{name}");
        // An item in the store is its caller's.
        let rules = rules("{}");
        assert_eq!(
            rules
                .head_to(beside.route, beside.destination.clone())
                .origin,
            beside.origin
        );
    }
}

#[test]
fn another_page_is_another_reader_and_the_same_caller() {
    let rules = rules("{}");
    let asked = |more: &[(&str, &str)]| {
        let all = headers("GET", "/api/whatsapp/status/s", more);
        rules.asked(borrowed(&all)).unwrap()
    };
    for name in ["origin", "referer", "x-csrf-token", "x-xsrf-token"] {
        let (none, one, two) = (asked(&[]), asked(&[(name, "a")]), asked(&[(name, "b")]));
        assert_eq!((none.caller, one.caller), (0, 0), "{name}");
        assert_eq!(one.subject, two.subject, "{name}");
        assert_ne!(one.reader, two.reader, "{name}");
        assert_ne!(one.reader, none.reader, "{name}");
    }
}

#[test]
fn a_rotating_header_is_carried_and_tells_nobody_apart() {
    let json = r#"{"headers":{"rotating":["authorization"]}}"#;
    let [one, two] = ["a", "b"].map(|token| origin(json, &[("authorization", token)]));
    assert_eq!((one.0.origin, one.1), (two.0.origin, two.1));
    assert_eq!(one.0.origin.caller, 0);
    assert_ne!(
        one.0.destination, two.0.destination,
        "but they share no batch"
    );
}

#[test]
fn an_authority_is_compared_without_case_and_port_and_carried_as_it_came() {
    let of = |authority| origin("{}", &[(":authority", authority)]);
    let ((plain, session), (odd, same)) = (of("laravel.test"), of("Laravel.TEST:80"));
    assert_eq!((plain.origin, session), (odd.origin, same));
    assert_eq!(odd.destination.authority, "Laravel.TEST:80");
    assert_ne!(of("laravel.test:8080").1, session);
}

#[test]
fn another_backend_is_another_destination() {
    let of = |json| origin(json, &[]).1;
    let all = [
        of("{}"),
        of(r#"{"upstream":{"cluster":"other"}}"#),
        of(r#"{"upstream":{"authority":"other.test"}}"#),
        of(r#"{"upstream":{"prefix_rewrite":"/v2"}}"#),
        of(r#"{"upstream":{"headers":{"x-tenant":"acme"}}}"#),
        of(r#"{"prefixes":["/api/v1","/api"],"webhook_path":"/x"}"#),
    ];
    for (at, one) in all.iter().enumerate() {
        let same = all.iter().filter(|other| *other == one).count();
        // The last one is the first one's destination.
        let wanted = if at == 0 || at == 5 { 2 } else { 1 };
        assert_eq!(same, wanted, "{at}");
    }
    let (head, _) = origin(
        r#"{"upstream":{"cluster":"c","authority":"a","prefix_rewrite":"/v2","headers":{"x-key":"k"}}}"#,
        &[],
    );
    assert_eq!(
        head.origin.caller, 0,
        "what every call has tells nobody apart"
    );
    let destination = head.destination;
    assert_eq!(
        (
            &*destination.cluster,
            &*destination.authority,
            &*destination.prefix
        ),
        ("c", "a", "/v2")
    );
    assert!(destination.headers.contains(&("x-key".into(), "k".into())));
}

#[test]
fn a_tenants_place_is_part_of_the_sessions_name() {
    let rules = rules(r#"{"preset":"waha"}"#);
    let head = rules
        .head(borrowed(&headers("POST", "/webhook", &[])))
        .unwrap();
    let of = |more: &str| {
        let body = format!(
            r#"{{"event":"session.status","session":"s",{more}"payload":{{"status":"WORKING"}}}}"#
        );
        rules.update(&head, body.as_bytes()).unwrap().said.session
    };
    let plain = of("");
    let acme = of(r#""metadata":{"tenant":"acme"},"#);
    assert_ne!(plain, acme);
    assert_ne!(acme, of(r#""metadata":{"tenant":"globex"},"#));
    assert_eq!(acme, of(r#""metadata": { "tenant" : "\u0061cme" },"#));
    assert_eq!(plain, of(r#""metadata":null,"#), "null is nothing");
    assert_eq!(plain, of(r#""metadata":"","#), "and so is empty text");
}

/// Two rules of one event, and one of any.
const RULES: &str = r#"{"preset":"wa-gateway","routes":[
    {"name":"session","enabled":false},
    {"name":"qr","path":"/e","match":{"pointer":"/event","values":["c"]},"session":["/id","/id2"],
     "value":["/data/qr"]},
    {"name":"state","path":"/e","match":{"pointer":"/event","values":["c"]},"session":["/id","/id2"],
     "value":["/data/state","/data/old"],"order":["/at","/ts"]},
    {"name":"any","path":"/e","session":["/other"],"value":["/value"]}]}"#;

/// What a body is to these rules: the rule and the session's name, or why not and what is seen of it.
fn recognised(body: &str, more: &[(&str, &str)]) -> Result<(String, Said), Bypassed> {
    let rules = rules(RULES);
    let head = rules.head(borrowed(&headers("POST", "/e", more)))?;
    let said = rules.update(&head, body.as_bytes())?.said;
    Ok((rules.route(said.route).unwrap().name.clone(), said))
}

/// The session of this name, as any request of these rules has it.
fn session(id: &str) -> u128 {
    let body = format!(r#"{{"event":"c","id":"{id}","data":{{"qr":"x"}}}}"#);
    recognised(&body, &[]).unwrap().1.session
}

#[test]
fn a_rule_that_finds_no_session_or_no_value_gives_way_to_the_next() {
    let of = |body: &str| recognised(body, &[]).map(|(name, said)| (name, said.session));
    let s = session("s");
    for (body, name) in [
        (r#"{"event":"c","id":"s","data":{"qr":"x"}}"#, "qr"),
        (r#"{"event":"c","id":"s","data":{"state":"open"}}"#, "state"),
        (
            r#"{"event":"c","id":"s","data":{"qr":null,"state":"open"}}"#,
            "state",
        ),
        (
            r#"{"event":"c","id":"s","data":{"qr":"","state":"open"}}"#,
            "state",
        ),
        (
            r#"{"event":"c","id":"s","data":{"qr":7,"state":"open"}}"#,
            "state",
        ),
    ] {
        assert_eq!(of(body), Ok((name.into(), s)), "{body}");
    }
    let other = of(r#"{"event":"c","data":{"qr":"x"},"other":"s","value":"v"}"#);
    assert_eq!(other, Ok(("any".into(), s)));
    let why = of(r#"{"event":"c","id":"s","data":{"news":1}}"#).unwrap_err();
    assert_eq!(why.reason, Bypass::NoValue);
    assert_eq!(
        why.seen.map(|seen| (seen.route, seen.session)),
        Some((0, s))
    );
    let why = of(r#"{"event":"d"}"#).unwrap_err();
    assert_eq!(why, Bypass::NoSession.into(), "nothing is seen");
}

#[test]
fn null_and_empty_text_are_no_hit_in_any_list() {
    // But for what is compared: that is all of it.
    let of = |body: &str| {
        let said = recognised(body, &[]).map(|(_, said)| said);
        said.map(|said| Said {
            value: 0,
            members: 0,
            ..said
        })
    };
    let plain = of(r#"{"event":"c","id":"s","data":{"state":"open"},"at":5}"#).unwrap();
    for blank in ["null", "\"\""] {
        let body = format!(
            r#"{{"event":"c","id":{blank},"id2":"s","data":{{"state":{blank},"old":"open"}},"at":{blank},"ts":5}}"#
        );
        assert_eq!(of(&body).unwrap(), plain, "{body}");
    }
    let list = of(r#"{"event":"c","id":["s"],"id2":"s","data":{"qr":"x"}}"#);
    assert_eq!(
        list.unwrap_err().reason,
        Bypass::NoSession,
        "a list is there"
    );
    let rules = rules("{}");
    let item = rules.item(0, br#"{"session_id":null,"sessionId":"s","qr":"x"}"#);
    assert_eq!(item.unwrap().session_json, "\"s\"");
}

#[test]
fn a_bypass_shows_the_session_that_can_be_seen() {
    let s = Some(session("s"));
    let seen = |body: &str, more: &[(&str, &str)]| {
        let why = recognised(body, more).unwrap_err();
        (why.reason, why.seen.map(|seen| seen.session))
    };
    let plain = r#"{"event":"c","id":"s","data":{"qr":"x"}}"#;
    for (name, reason) in [
        ("x-webhook-signature", Bypass::Signature),
        ("x-http-method-override", Bypass::Override),
    ] {
        assert_eq!(seen(plain, &[(name, "v")]), (reason, s));
    }
    assert_eq!(seen(plain, &[(":path", "/e?x=1")]), (Bypass::Query, s));
    for (body, reason) in [
        (
            r#"{"event":"c","id":"s","_method":"PUT","data":{"qr":"x"}}"#,
            Bypass::Override,
        ),
        (
            r#"{"event":"c","id":"t","id":"s","data":{"qr":"x"}}"#,
            Bypass::DuplicateKey,
        ),
        (
            r#"{"\u0000k":1,"event":"c","id":"s","data":{"qr":"x"}}"#,
            Bypass::OddKey,
        ),
        (
            r#"{"event":"c","id":"s","data":{"\u0000":1,"qr":"x"}}"#,
            Bypass::OddKey,
        ),
    ] {
        assert_eq!(seen(body, &[]), (reason, s), "{body}");
    }
    let deep = format!(
        r#"{{"deep":{}{},"event":"c","id":"s"}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    assert_eq!(seen(&deep, &[]), (Bypass::TooDeep, s));
    let long = |begin: &str, end: &str| format!("{begin}{}{end}", "x".repeat(BODY_BYTES_MAX));
    let early = long(r#"{"event":"c","id":"s","data":{"qr":""#, r#""}}"#);
    assert_eq!(seen(&early, &[]), (Bypass::TooLarge, s));
    let late = long(r#"{"event":"c","data":{"qr":""#, r#""},"id":"s"}"#);
    assert_eq!(seen(&late, &[]), (Bypass::TooLarge, None));
    assert_eq!(
        seen(r#"{"event":"c","id":"s","#, &[]),
        (Bypass::Syntax, None)
    );
    // Its digits may go on where the first 64 KiB end.
    let begin = r#"{"event":"c","pad":""#;
    let pad = "x".repeat(BODY_BYTES_MAX - begin.len() - r#"","id":12"#.len());
    let cut = format!(r#"{begin}{pad}","id":1234,"data":{{}}}}"#);
    assert_eq!(seen(&cut, &[]), (Bypass::TooLarge, None));
}

#[test]
fn a_session_that_a_header_names_arrives_with_it_and_parts_no_callers() {
    let rules = rules(
        r#"{"routes":[{"name":"by_header","path":"/h","session":[{"header":"x-session"}],"value":["/v"]}]}"#,
    );
    let of = |name: &str| {
        let all = headers("POST", "/h", &[("x-session", name)]);
        let head = rules.head(borrowed(&all)).unwrap();
        let said = rules.update(&head, br#"{"v":"1"}"#).unwrap().said;
        (head.destination, said)
    };
    let ((destination, one), (_, two)) = (of("one"), of("two"));
    assert_ne!(one.session, two.session);
    assert_eq!((one.caller, two.caller), (0, 0));
    assert!(
        destination
            .headers
            .contains(&("x-session".into(), "one".into()))
    );
}

#[test]
fn a_read_is_of_the_session_and_the_caller_that_its_updates_are_of() {
    let rules = rules("{}");
    let more = [
        ("x-tenant", "acme"),
        ("x-key", "k"),
        (":authority", "Laravel.test:80"),
    ];
    let head = rules
        .head(borrowed(&headers("POST", "/api/qr", &more)))
        .unwrap();
    let update = rules
        .update(&head, br#"{"session_id":"s","qr":"x"}"#)
        .unwrap()
        .said;
    let asked = |more: &[(&str, &str)]| {
        let mut all = headers("GET", "/api/whatsapp/status/s", more);
        all.retain(|(name, _)| name != "content-type");
        rules.asked(borrowed(&all)).unwrap()
    };
    let read = asked(&more);
    assert_eq!(
        (read.session, read.caller, read.destination_hash),
        (update.session, update.caller, update.destination_hash)
    );
    let other = asked(&[("x-tenant", "globex"), ("x-key", "k")]);
    assert_ne!(other.session, read.session);
}

#[test]
fn carried_headers_are_bounded() {
    let names: Vec<String> = (0..40).map(|n| format!("x-{n}")).collect();
    let with = |count: usize, value: &str| {
        let more: Vec<(&str, &str)> = names.iter().take(count).map(|n| (&**n, value)).collect();
        bypass("POST", "/api/qr", &more)
    };
    // Two of them are there already: the content type and the scheme.
    assert_eq!(with(14, "v"), None);
    assert_eq!(with(15, "v"), Some(Bypass::HeaderBytes));
    assert_eq!(with(5, &"v".repeat(900)), Some(Bypass::HeaderBytes));
    let neutral: Vec<(&str, &str)> = (0..40).map(|_| ("user-agent", "v")).collect();
    assert_eq!(bypass("POST", "/api/qr", &neutral), None);
}

#[test]
fn every_bypass_knows_its_place() {
    for (index, bypass) in Bypass::ALL.into_iter().enumerate() {
        assert_eq!(bypass.index(), index, "{bypass}");
    }
}

#[test]
fn only_a_signed_body_that_says_something_is_an_update_of_its_route() {
    let rules = rules("{}");
    let (route, _) = rules.config.route_named("status").unwrap();
    let seen = Seen {
        route,
        ..Seen::default()
    };
    let is_update = |reason, body: &str| {
        Said::of_seen(&seen, reason, body.as_bytes(), &rules).value == SEEN_UPDATE
    };
    let said = r#"{"session_id":"s","estado_qr":"active"}"#;
    assert!(is_update(Bypass::Signature, said));
    for reason in [
        Bypass::Query,
        Bypass::Override,
        Bypass::TooDeep,
        Bypass::Header,
    ] {
        assert!(!is_update(reason, said), "{reason:?}");
    }
    for body in [
        r#"{"session_id":"s"}"#,
        r#"{"session_id":"s","estado_qr":null}"#,
        r#"{"session_id":"s","estado_qr":"active","_method":"DELETE"}"#,
        "",
    ] {
        assert!(!is_update(Bypass::Signature, body), "{body}");
    }
}
