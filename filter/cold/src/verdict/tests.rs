use super::*;

const PREFIX: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

/// A path that nothing is known of.
const NEW: Path = Path {
    voice: None,
    took: false,
    had_body: false,
    members: Members(0),
};

/// One that has accepted JSON, and taken batches.
const KNOWN: Path = Path {
    voice: Some(Voice::Json),
    took: true,
    had_body: true,
    members: Members(0),
};

fn answer(status: u16, body: &str) -> Answer<'_> {
    Answer {
        status: Some(status),
        from_upstream: true,
        body: body.as_bytes(),
        ..Answer::default()
    }
}

fn names() -> Vec<String> {
    ["a", "b", "c", "d"].map(String::from).into()
}

fn verdict(answer: &Answer<'_>, path: Path) -> Verdict {
    let asked = Asked {
        sessions: &names(),
        field: "qrs",
        path,
        wall_ms: 784_111_777_000,
    };
    Verdict::of(answer, &asked)
}

fn judge(status: u16, body: &str, path: Path) -> VerdictLabel {
    verdict(&answer(status, body), path).label()
}

fn single(status: u16, body: &str, path: Path) -> VerdictLabel {
    Verdict::of_single(&answer(status, body), path, 0).label()
}

fn envoys(status: u16, body: &str) -> VerdictLabel {
    let own = Answer {
        from_upstream: false,
        ..answer(status, body)
    };
    let one = Verdict::of_single(&own, KNOWN, 0).label();
    assert_eq!(one, verdict(&own, KNOWN).label(), "alone as together");
    one
}

fn fates(status: u16, body: &str) -> Vec<ItemFate> {
    match verdict(&answer(status, body), KNOWN) {
        Verdict::Items { fates, .. } => fates,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_2xx_in_laravels_voice_that_says_no_failure_delivers() {
    use VerdictLabel::{Delivered, NoRoute, Refused};
    for body in [r#"{"success":true,"processed":3}"#, "{}", "[]", "\"ok\""] {
        assert_eq!(judge(200, body, NEW), Delivered, "{body}");
        assert_eq!(single(201, body, KNOWN), Delivered, "{body}");
    }
    assert_eq!(
        judge(204, "", NEW),
        Delivered,
        "nothing is Laravel's voice too"
    );
    let silent = Path {
        had_body: false,
        ..KNOWN
    };
    assert_eq!(judge(204, "", silent), Delivered);
    assert_eq!(
        judge(204, "", KNOWN),
        NoRoute,
        "a path that has always said something: its items tell"
    );
    for failure in [
        r#"{"success":false}"#,
        r#"{"error":"SQLSTATE"}"#,
        r#"{"ok":false}"#,
    ] {
        assert_eq!(judge(200, failure, KNOWN), Refused, "{failure}");
        assert_eq!(judge(200, failure, NEW), NoRoute, "{failure}");
        assert_eq!(single(200, failure, KNOWN), Refused, "{failure}");
    }
}

#[test]
fn a_status_means_what_the_table_says_from_the_top() {
    use VerdictLabel::{Foreign, NoRoute, Refused, Rejected, Retry, Threw, TooLarge, Unknown};
    let page = "<html></html>";
    let table = [
        // Status, in JSON, as a page, and of a path that never took a batch.
        (301, Foreign, Foreign, NoRoute),
        (302, Foreign, Foreign, NoRoute),
        (400, Refused, Foreign, NoRoute),
        (401, Refused, Foreign, NoRoute),
        (403, Refused, Foreign, NoRoute),
        (404, Refused, Foreign, NoRoute),
        (405, Refused, Foreign, NoRoute),
        (408, Retry, Retry, Retry),
        (410, Refused, Foreign, NoRoute),
        (413, TooLarge, TooLarge, TooLarge),
        (419, Refused, Foreign, NoRoute),
        (422, Rejected, Foreign, NoRoute),
        (425, Retry, Retry, Retry),
        (429, Retry, Retry, Retry),
        (500, Threw, Threw, Threw),
        (501, Retry, Unknown, Retry),
        (502, Unknown, Unknown, Unknown),
        (503, Retry, Unknown, Retry),
        (504, Unknown, Unknown, Unknown),
        (520, Unknown, Unknown, Unknown),
        (527, Unknown, Unknown, Unknown),
        (530, Retry, Unknown, Retry),
    ];
    for (status, json, html, new) in table {
        assert_eq!(judge(status, "{}", KNOWN), json, "{status}");
        assert_eq!(single(status, "{}", KNOWN), json, "{status} alone");
        assert_eq!(judge(status, page, KNOWN), html, "{status} as a page");
        assert_eq!(single(status, page, NEW), html, "{status} as a page, alone");
        assert_eq!(
            judge(status, "{}", NEW),
            new,
            "{status} of a path without batches"
        );
    }
}

#[test]
fn text_is_laravels_where_it_is_the_routes_voice() {
    use VerdictLabel::{Delivered, Foreign, NoRoute, Refused};
    let text = Path {
        voice: Some(Voice::Text),
        ..NEW
    };
    assert_eq!(
        single(200, "saved", NEW),
        Delivered,
        "nobody knows otherwise"
    );
    assert_eq!(single(200, "saved", text), Delivered);
    assert_eq!(single(404, "no session", text), Refused);
    assert_eq!(
        single(200, "saved", KNOWN),
        Foreign,
        "it has always said JSON"
    );
    assert_eq!(single(404, "default backend", KNOWN), Foreign);
    assert_eq!(judge(200, "saved", text), Delivered);
    assert_eq!(judge(200, "saved", NEW), NoRoute);
    assert_eq!(judge(200, "saved", KNOWN), Foreign);
}

#[test]
fn an_answer_without_what_the_paths_answers_had_is_no_answer_of_its() {
    let mut path = NEW;
    path.took(Heard::of(&answer(200, r#"{"success":true,"results":[]}"#)));
    assert_eq!(
        judge(200, r#"{"message":"welcome"}"#, path),
        VerdictLabel::Foreign
    );
    assert_eq!(
        judge(200, r#"{"success":true}"#, path),
        VerdictLabel::Delivered
    );
}

#[test]
fn results_decide_each_item() {
    use ItemFate::{Delivered, Skipped, Suspect, Threw};
    let body = r#"{"success":true,"results":[{"status":200},{"status":422},{"status":503},{"status":"skipped"}]}"#;
    assert_eq!(fates(200, body), [Delivered, Suspect, Threw, Skipped]);
    let words = r#"{"success":false,"results":[{"status":"pending"},{"status":"error"},{"success":false},{"skipped":true}]}"#;
    assert_eq!(fates(200, words), [Delivered, Suspect, Suspect, Skipped]);
    let redirected = r#"{"results":[{"status":302},{"status":201},{},{}]}"#;
    assert_eq!(
        fates(200, redirected),
        [Suspect, Delivered, Delivered, Delivered]
    );
    let fine = r#"{"results":[{"status":"ok"},{"status":"active"},{},1]}"#;
    assert_eq!(judge(200, fine, KNOWN), VerdictLabel::Delivered);
}

#[test]
fn a_line_is_its_sessions_where_the_batch_has_that_name_once_and_its_positions_otherwise() {
    use ItemFate::{Delivered, Suspect};
    let named = r#"{"results":[{"session_id":"c","status":404},{"session_id":"d"},{"session_id":"a"},{"session_id":"b"}]}"#;
    assert_eq!(
        fates(200, named),
        [Delivered, Delivered, Suspect, Delivered]
    );
    let strange = r#"{"results":[{"session":"x","status":404},{"session":"\u0062"},{},{}]}"#;
    assert_eq!(
        fates(200, strange),
        [Suspect, Delivered, Delivered, Delivered]
    );
}

#[test]
fn an_item_without_a_line_goes_alone() {
    use ItemFate::{Delivered, Suspect};
    let one = r#"{"success":true,"results":[{"session_id":"b","status":200}]}"#;
    assert_eq!(fates(200, one), [Suspect, Delivered, Suspect, Suspect]);
    let none = r#"{"success":true,"results":[]}"#;
    assert_eq!(judge(200, none, KNOWN), VerdictLabel::NoRoute);
}

#[test]
fn a_validation_that_names_items_leaves_the_others_in_peace() {
    use ItemFate::{Again, Suspect};
    let body =
        r#"{"message":"x","errors":{"qrs.3.qr":["x"],"qrs.1":["x"],"qrs.9.qr":["x"],"a":[]}}"#;
    assert_eq!(fates(422, body), [Again, Suspect, Again, Suspect]);
    let array = |body| match verdict(&answer(422, body), KNOWN) {
        Verdict::Invalid { array, .. } => array,
        other => panic!("{other:?}"),
    };
    assert!(array(r#"{"errors":{"qrs":["at most 10"]}}"#));
    for body in ["", "{}", r#"{"errors":{"qr":["x"]}}"#, r#"{"errors":[]}"#] {
        assert!(!array(body), "{body}");
    }
}

#[test]
fn an_item_alone_that_was_passed_over_is_over() {
    let verdict = Verdict::of_single(&answer(200, r#"{"skipped":true}"#), KNOWN, 0);
    assert_eq!(verdict, Verdict::Skipped);
}

#[test]
fn only_a_first_try_that_never_left_is_a_certain_no() {
    use VerdictLabel::{Retry, Unknown};
    for reason in [
        "remote connection failure, transport failure reason: delayed connect error: Connection refused",
        "connection timeout",
        "remote refused stream reset",
    ] {
        assert_eq!(envoys(503, &format!("{PREFIX}{reason}")), Retry, "{reason}");
        let retried = format!(
            "upstream connect error or disconnect/reset before headers. retried and the latest reset \
             reason: {reason}"
        );
        assert_eq!(
            envoys(503, &retried),
            Unknown,
            "{reason}, but at a later try"
        );
    }
    for reason in [
        "connection termination",
        "overflow",
        "protocol error",
        "remote reset",
    ] {
        assert_eq!(
            envoys(503, &format!("{PREFIX}{reason}")),
            Unknown,
            "{reason}"
        );
    }
    assert_eq!(
        envoys(503, "no healthy upstream"),
        Unknown,
        "after a try that may have been taken"
    );
}

#[test]
fn what_nobody_can_know_is_unknown() {
    use VerdictLabel::{Retry, Unknown};
    assert_eq!(
        verdict(&Answer::default(), KNOWN).label(),
        Unknown,
        "no headers at all"
    );
    assert_eq!(envoys(504, "upstream request timeout"), Unknown);
    assert_eq!(envoys(408, "upstream max stream duration reached"), Unknown);
    assert_eq!(envoys(502, "protocol error"), Unknown);
    // An Envoy between ours and Laravel: its own texts, with our Envoy's service time.
    let refused = format!("{PREFIX}remote connection failure");
    for text in [
        refused.as_str(),
        "no healthy upstream",
        "upstream request timeout",
    ] {
        assert_eq!(judge(503, text, KNOWN), Unknown, "{text}");
    }
    assert_eq!(
        judge(503, "maintenance", KNOWN),
        Retry,
        "a word of Laravel's"
    );
    let cut = Answer {
        content_type: Some(b"application/json; charset=utf-8"),
        ..answer(200, r#"{"success":true,"proc"#)
    };
    assert_eq!(verdict(&cut, KNOWN).label(), Unknown);
    assert_eq!(Verdict::of_single(&cut, KNOWN, 0).label(), Unknown);
}

#[test]
fn a_500_closes_nothing_and_opens_nothing() {
    let is_alive = |status| verdict(&answer(status, "{}"), KNOWN).is_alive();
    for status in [200, 302, 401, 404, 422, 429] {
        assert_eq!(is_alive(status), Some(true), "{status}");
    }
    for status in [502, 503, 504] {
        assert_eq!(is_alive(status), Some(false), "{status}");
    }
    assert_eq!(is_alive(500), None);
}

#[test]
fn retry_after_is_honoured_up_to_its_cap() {
    let ask = |raw: &'static str| {
        let asks = Answer {
            retry_after: Some(raw.as_bytes()),
            ..answer(429, "")
        };
        match verdict(&asks, KNOWN) {
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

    // By the clock of whoever says it: this one is an hour ahead.
    let asks = Answer {
        retry_after: Some(b"Sun, 06 Nov 1994 09:49:47 GMT"),
        date: Some(b"Sun, 06 Nov 1994 09:49:42 GMT"),
        ..answer(429, "")
    };
    let says = verdict(&asks, KNOWN);
    assert!(
        matches!(
            says,
            Verdict::Retry {
                retry_after_ms: 5_000,
                ..
            }
        ),
        "{says:?}"
    );
}

#[test]
fn a_maintenance_page_with_retry_after_is_a_certain_no() {
    let page = Answer {
        retry_after: Some(b"60"),
        ..answer(503, "<html>soon</html>")
    };
    assert_eq!(verdict(&page, KNOWN).label(), VerdictLabel::Retry);
}
