use super::*;

const ASKED: Asked<'_> = Asked {
    items: 4,
    field: "qrs",
    is_known: false,
    wall_ms: 784_111_777_000,
};

fn answer(status: u16, from_upstream: bool, body: &str) -> Answer<'_> {
    Answer {
        status: Some(status),
        from_upstream,
        body: body.as_bytes(),
        ..Answer::default()
    }
}

fn judge(status: u16, from_upstream: bool, body: &str) -> VerdictLabel {
    Verdict::of(&answer(status, from_upstream, body), &ASKED).label()
}

fn fates(status: u16, body: &str) -> Vec<ItemFate> {
    match Verdict::of(&answer(status, true, body), &ASKED) {
        Verdict::Items { fates, .. } => fates,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_2xx_with_a_json_object_that_is_not_unsuccessful_delivers() {
    use VerdictLabel::{Delivered, NoRoute, Refused};
    let processed = r#"{"success":true,"processed":3}"#;
    assert_eq!(judge(200, true, processed), Delivered);
    assert_eq!(judge(201, true, "{}"), Delivered);
    assert_eq!(judge(200, true, r#"{"success":false}"#), Refused);
    for body in ["", "<html>login</html>", "[]", "\"ok\"", "{\"success\":tr"] {
        assert_eq!(judge(200, true, body), NoRoute, "{body}");
    }
}

#[test]
fn a_status_means_what_the_table_says() {
    use VerdictLabel::{NoRoute, Refused, Rejected, Retry, TooLarge, Unknown};
    let table = [
        (301, Refused),
        (302, Refused),
        (400, Refused),
        (401, Rejected),
        (403, Refused),
        (404, NoRoute),
        (405, NoRoute),
        (408, Retry),
        (413, TooLarge),
        (419, Refused),
        (422, Refused),
        (425, Retry),
        (429, Retry),
        (500, Retry),
        (502, Unknown),
        (503, Retry),
        (504, Unknown),
    ];
    for (status, expected) in table {
        assert_eq!(judge(status, true, "{}"), expected, "{status}");
    }
    let known = Asked {
        is_known: true,
        ..ASKED
    };
    for status in [404, 405] {
        let verdict = Verdict::of(&answer(status, true, "{}"), &known);
        assert_eq!(verdict.label(), Refused, "{status} where there was a route");
    }
}

#[test]
fn results_decide_each_item() {
    use ItemFate::{Again, Delivered, Skipped, Suspect};
    let body = r#"{"success":true,"results":[{"status":200},{"status":422},{"status":503},{"status":"skipped"}]}"#;
    assert_eq!(fates(200, body), [Delivered, Suspect, Again, Skipped]);
    let words = r#"{"success":false,"results":[{"status":"pending"},{"status":"error"},{"success":false},{"skipped":true}]}"#;
    assert_eq!(fates(200, words), [Delivered, Suspect, Suspect, Skipped]);
    let redirected = r#"{"results":[{"status":302},{"status":201},{},{}]}"#;
    assert_eq!(
        fates(200, redirected),
        [Suspect, Delivered, Delivered, Delivered]
    );
    let fine = r#"{"results":[{"status":"ok"},{"status":"active"},{},1]}"#;
    assert_eq!(judge(200, true, fine), VerdictLabel::Delivered);
}

#[test]
fn results_that_are_not_one_for_each_item_name_nobody() {
    let body = r#"{"success":true,"results":[{"status":422}]}"#;
    assert_eq!(judge(200, true, body), VerdictLabel::Refused);
    let fine = r#"{"success":true,"results":[{"status":200}]}"#;
    assert_eq!(judge(200, true, fine), VerdictLabel::Delivered);
}

#[test]
fn a_validation_that_names_items_leaves_the_others_in_peace() {
    use ItemFate::{Again, Suspect};
    let body =
        r#"{"message":"x","errors":{"qrs.3.qr":["x"],"qrs.1":["x"],"qrs.9.qr":["x"],"a":[]}}"#;
    assert_eq!(fates(422, body), [Again, Suspect, Again, Suspect]);
    for body in ["", "{}", r#"{"errors":{"qr":["x"]}}"#, r#"{"errors":[]}"#] {
        assert_eq!(judge(422, true, body), VerdictLabel::Refused, "{body}");
    }
}

#[test]
fn an_item_alone_gets_the_answer_that_the_gateway_would_have_got() {
    use VerdictLabel::{Delivered, Rejected, Retry, Unknown};
    let cases = [
        (200, Delivered),
        (204, Delivered),
        (302, Rejected),
        (401, Rejected),
        (403, Rejected),
        (404, Rejected),
        (413, Rejected),
        (422, Rejected),
        (429, Retry),
        (500, Retry),
        (504, Unknown),
    ];
    for (status, expected) in cases {
        let verdict = Verdict::of_single(&answer(status, true, "ok"), 0);
        assert_eq!(verdict.label(), expected, "{status}");
    }
}

#[test]
fn what_nobody_can_know_is_unknown() {
    use VerdictLabel::{Retry, Unknown};
    let nothing = Verdict::of(&Answer::default(), &ASKED);
    assert_eq!(nothing.label(), Unknown);
    assert_eq!(judge(504, false, "upstream request timeout"), Unknown);
    let prefix = "upstream connect error or disconnect/reset before headers. reset reason: ";
    let broken = format!("{prefix}connection termination");
    assert_eq!(judge(503, false, &broken), Unknown);
    let refused = "remote connection failure, transport failure reason: delayed connect error: \
                   Connection refused";
    assert_eq!(judge(503, false, &format!("{prefix}{refused}")), Retry);
    assert_eq!(judge(503, false, "no healthy upstream"), Retry);
    assert_eq!(judge(503, true, "maintenance"), Retry);
}

#[test]
fn laravel_is_alive_unless_it_answers_5xx_or_not_at_all() {
    let is_alive = |status, served| Verdict::of(&answer(status, served, "{}"), &ASKED).is_alive();
    for status in [200, 302, 401, 404, 422, 429] {
        assert!(is_alive(status, true), "{status}");
    }
    for status in [500, 502, 503, 504] {
        assert!(!is_alive(status, true), "{status}");
    }
    assert!(!is_alive(503, false));
}

#[test]
fn retry_after_is_honoured_up_to_its_cap() {
    let ask = |raw: &'static str| {
        let asks = Answer {
            retry_after: Some(raw.as_bytes()),
            ..answer(429, true, "")
        };
        match Verdict::of(&asks, &ASKED) {
            Verdict::Retry { retry_after_ms, .. } => retry_after_ms,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("7"), 7_000);
    assert_eq!(ask("86400"), 300_000);
    assert_eq!(ask("soon"), 0);
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:47 GMT"), 10_000);
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:00 GMT"), 0, "over already");
    assert_eq!(ask("Sun, 06 Nov 2094 08:49:00 GMT"), 300_000);
}
