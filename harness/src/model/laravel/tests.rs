use super::*;

const KNOWN: &str = "0189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";
const OTHER: &str = "1189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";
const STRANGER: &str = "f189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";

fn laravel() -> Laravel {
    laravel_with(LaravelConfig::default())
}

fn laravel_with(config: LaravelConfig) -> Laravel {
    let mut laravel = Laravel::new(config);
    laravel.add_account(KNOWN);
    laravel.add_account(OTHER);
    laravel
}

fn post(path: &str, body: &Value) -> Request {
    Request::new("POST", path).with_json(body.to_string())
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).expect("a JSON body")
}

#[test]
fn a_qr_sets_the_state_to_pending() {
    let mut laravel = laravel();
    laravel.handle(
        0,
        &post(
            "/api/whatsapp/status",
            &json!({"session_id": KNOWN, "estado_qr": "active"}),
        ),
    );
    let answer = laravel.handle(
        1,
        &post("/api/qr", &json!({"session_id": KNOWN, "qr": "2@a"})),
    );
    assert_eq!(
        (answer.status, &body(&answer)["success"]),
        (200, &json!(true))
    );
    let account = laravel.account(KNOWN).expect("known");
    assert_eq!(
        (account.estado_qr.as_str(), account.last_qr.as_deref()),
        ("pending", Some("2@a"))
    );
}

#[test]
fn an_unknown_account_is_skipped_on_post_and_not_found_on_get() {
    let mut laravel = laravel();
    let answer = laravel.handle(
        0,
        &post("/api/qr", &json!({"session_id": STRANGER, "qr": "2@a"})),
    );
    let expected = json!({"success": true, "skipped": true, "reason": "account_not_found"});
    assert_eq!((answer.status, body(&answer)), (200, expected));
    let read = Request::new("GET", format!("/api/whatsapp/status/{STRANGER}"));
    let answer = laravel.handle(0, &read);
    assert_eq!(answer.status, 404);
    assert!(body(&answer)["error"].is_string());
}

#[test]
fn a_read_shows_the_state() {
    let mut laravel = laravel();
    let state = json!({"session_id": KNOWN, "estado_qr": "connecting"});
    laravel.handle(0, &post("/api/whatsapp/status", &state));
    let read = Request::new("GET", format!("/api/whatsapp/status/{KNOWN}"));
    assert_eq!(body(&laravel.handle(0, &read))["estado_qr"], "connecting");
}

#[test]
fn one_bad_item_rejects_the_whole_batch_and_is_named() {
    let mut laravel = laravel();
    let batch = json!({"qrs": [
        {"session_id": KNOWN, "qr": "2@a"},
        {"session_id": "nonsense", "qr": 7},
        {"sessionId": OTHER, "qr": "2@b"},
    ]});
    let answer = laravel.handle(0, &post("/api/qr/batch", &batch));
    assert_eq!(answer.status, 422);
    let errors = body(&answer)["errors"].clone();
    let fields: Vec<&String> = errors.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["qrs.1.qr", "qrs.1.session_id", "qrs.2.session_id"]);
    assert!(
        laravel.journal().entries().is_empty(),
        "nothing may be stored"
    );
    assert_eq!(laravel.account(KNOWN).and_then(|a| a.last_qr.clone()), None);
}

#[test]
fn without_accept_json_first_a_failed_validation_is_a_redirect() {
    let mut request = Request::new("POST", "/api/qr").with_header("accept", "*/*");
    request.body = "{}".into();
    let answer = laravel().handle(0, &request);
    assert_eq!((answer.status, answer.header("location")), (302, Some("/")));
}

#[test]
fn a_body_php_cannot_read_is_an_empty_input() {
    let mut laravel = laravel();
    let mut bodies = vec![b"nonsense".to_vec(), b"[1]".to_vec(), Vec::new()];
    bodies.push(format!(r#"{{"session_id":"{KNOWN}","qr":"\ud800"}}"#).into_bytes());
    bodies.push(
        [
            format!(r#"{{"session_id":"{KNOWN}","qr":""#).as_bytes(),
            b"\xff\"}",
        ]
        .concat(),
    );
    for bytes in bodies {
        let answer = laravel.handle(0, &Request::new("POST", "/api/qr").with_json(bytes));
        assert_eq!(answer.status, 422);
        assert!(body(&answer)["errors"]["session_id"].is_array());
    }
}

#[test]
fn the_states_are_a_closed_set() {
    let bad = json!({"session_id": KNOWN, "estado_qr": "sleeping"});
    assert_eq!(
        laravel()
            .handle(0, &post("/api/whatsapp/status", &bad))
            .status,
        422
    );
}

#[test]
fn a_batch_is_journalled_item_by_item_under_one_call() {
    let mut laravel = laravel();
    let batch = json!({"statuses": [
        {"session_id": KNOWN, "estado_qr": "active", "timestamp": 5},
        {"session_id": STRANGER, "estado_qr": "inactive", "timestamp": 6},
    ]});
    let answer = laravel.handle(9, &post("/api/whatsapp/status/batch", &batch));
    assert_eq!((answer.items, &body(&answer)["processed"]), (2, &json!(2)));
    let seen: Vec<_> = laravel
        .journal()
        .entries()
        .iter()
        .map(|e| {
            (
                e.seq,
                e.call,
                e.value.as_str(),
                e.timestamp,
                e.batched,
                e.stored,
            )
        })
        .collect();
    let expected = [
        (1, 1, "active", Some(5), true, true),
        (2, 1, "inactive", Some(6), true, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn switched_off_batch_routes_are_404_and_405() {
    let off = LaravelConfig {
        qr_batch: false,
        status_batch: false,
        ..LaravelConfig::default()
    };
    let mut laravel = laravel_with(off);
    assert_eq!(
        laravel.handle(0, &post("/api/qr/batch", &json!({}))).status,
        404
    );
    let answer = laravel.handle(0, &post("/api/whatsapp/status/batch", &json!({})));
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn the_throttle_opens_again_a_minute_after_its_first_hit() {
    let throttled = LaravelConfig {
        throttle_per_minute: Some(1),
        ..LaravelConfig::default()
    };
    let mut laravel = laravel_with(throttled);
    let read = Request::new("GET", format!("/api/whatsapp/status/{KNOWN}"));
    assert_eq!(laravel.handle(1_000, &read).status, 200);
    let refused = laravel.handle(31_000, &read);
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("30"))
    );
    assert_eq!(laravel.handle(61_000, &read).status, 200);
}

#[test]
fn an_item_costs_time_and_a_slow_fault_adds_to_it() {
    let mut laravel = laravel();
    laravel.set_faults(Faults::new(
        1,
        vec![Fault::always(Misbehaviour::Slow { ms: 100 })],
    ));
    let batch = json!({"qrs": [{}, {}, {}]});
    let call = laravel.begin(0, post("/api/qr/batch", &batch));
    assert_eq!(call.busy_ms, 20 + 3 + 100);
}

#[test]
fn what_hangs_takes_effect_later_and_over_a_newer_value() {
    let mut laravel = laravel();
    let hang = Misbehaviour::Hang {
        finish_after_ms: 900,
    };
    laravel.set_faults(Faults::new(1, vec![Fault::always(hang).times(1)]));
    let state = |value| {
        post(
            "/api/whatsapp/status",
            &json!({"session_id": KNOWN, "estado_qr": value}),
        )
    };
    let older = laravel.begin(0, state("pending"));
    let newer = laravel.begin(10, state("active"));
    assert!(matches!(laravel.finish(30, newer), Reply::Whole(_)));
    assert_eq!(laravel.finish(older.busy_ms, older), Reply::Never);
    let values: Vec<_> = laravel
        .journal()
        .of_session(KNOWN)
        .map(|e| e.value.as_str())
        .collect();
    assert_eq!(values, ["active", "pending"]);
    assert_eq!(laravel.journal().check_overlap().len(), 1);
}

#[test]
fn a_status_fault_processes_only_if_it_says_so() {
    let mut laravel = laravel();
    let fault = |processed| Misbehaviour::Status {
        code: 500,
        headers: Vec::new(),
        body: String::new(),
        processed,
    };
    let rules = vec![
        Fault::always(fault(false)).times(1),
        Fault::always(fault(true)).times(1),
    ];
    laravel.set_faults(Faults::new(1, rules));
    let qr = |qr| post("/api/qr", &json!({"session_id": KNOWN, "qr": qr}));
    assert_eq!(laravel.handle(0, &qr("2@a")).status, 500);
    assert_eq!(laravel.account(KNOWN).and_then(|a| a.last_qr.clone()), None);
    assert_eq!(laravel.handle(0, &qr("2@b")).status, 500);
    assert_eq!(
        laravel
            .account(KNOWN)
            .and_then(|a| a.last_qr.clone())
            .as_deref(),
        Some("2@b")
    );
}

#[test]
fn a_webhook_echoes_length_and_digest() {
    let mut request = Request::new("POST", "/api/whatsapp-webhook/t");
    request.body = vec![0, 255, 1].into();
    let answer = body(&laravel().handle(0, &request));
    assert_eq!(
        (&answer["length"], &answer["digest"]),
        (&json!(3), &json!(digest(&[0, 255, 1])))
    );
}

/// A batch route that judges its items one by one.
fn by_item() -> LaravelConfig {
    LaravelConfig {
        results: true,
        ..LaravelConfig::default()
    }
}

fn poisoned(config: LaravelConfig) -> Laravel {
    laravel_with(LaravelConfig {
        poison: [(OTHER.to_owned(), 0)].into(),
        ..config
    })
}

fn qrs(sessions: &[&str]) -> Value {
    let item = |session: &&str| json!({"session_id": session, "qr": "2@a"});
    json!({ "qrs": sessions.iter().map(item).collect::<Vec<_>>() })
}

#[test]
fn with_results_every_item_has_an_answer_of_its_own_in_its_place() {
    let mut laravel = poisoned(by_item());
    let mut batch = qrs(&[STRANGER, KNOWN, OTHER, KNOWN]);
    batch["qrs"][3]["qr"] = json!(7);
    let answer = laravel.handle(0, &post("/api/qr/batch", &batch));
    assert_eq!(answer.status, 200);
    let invalid = |session| {
        let message = "The qr field is invalid.";
        json!({"session_id": session, "status": 422, "message": message})
    };
    let expected = json!({"success": true, "processed": 2, "results": [
        {"session_id": STRANGER, "status": "skipped", "reason": "account_not_found"},
        {"session_id": KNOWN, "status": "ok"},
        invalid(OTHER),
        invalid(KNOWN),
    ]});
    assert_eq!(body(&answer), expected);
    let stored = laravel.journal().entries().iter();
    let stored: Vec<&str> = stored.filter(|e| e.stored).map(|e| &*e.session).collect();
    assert_eq!(stored, [KNOWN]);
}

#[test]
fn a_poison_session_spoils_its_batch_and_is_named_unless_the_answer_names_nobody() {
    for (poison_indexes, field) in [(true, "qrs.1.qr"), (false, "qrs")] {
        let mut laravel = poisoned(LaravelConfig {
            poison_indexes,
            ..LaravelConfig::default()
        });
        let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN, OTHER])));
        assert_eq!(answer.status, 422);
        let errors = body(&answer)["errors"].clone();
        let fields: Vec<&String> = errors.as_object().expect("an object").keys().collect();
        assert_eq!(fields, [field]);
        assert!(laravel.journal().entries().is_empty(), "all or nothing");
        let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN])));
        assert_eq!(answer.status, 200, "without it, the batch is taken");
    }
}

#[test]
fn a_poison_session_alone_gets_its_422_and_a_redirect_without_accept() {
    let mut laravel = poisoned(LaravelConfig::default());
    let single = json!({"session_id": OTHER, "estado_qr": "active"});
    let answer = laravel.handle(0, &post("/api/whatsapp/status", &single));
    assert_eq!(answer.status, 422);
    let expected = json!({"estado_qr": ["The estado qr field is invalid."]});
    assert_eq!(body(&answer)["errors"], expected);
    let mut request = post("/api/whatsapp/status", &single);
    request.headers.retain(|(name, _)| name != "accept");
    assert_eq!(laravel.handle(0, &request).status, 302);
}

#[test]
fn a_batch_that_is_partly_taken_says_of_which_items() {
    for (status, shown) in [("error", json!("error")), ("503", json!(503))] {
        let mut laravel = laravel();
        let partly = Misbehaviour::Partly {
            one_in: 2,
            status: status.to_owned(),
        };
        laravel.set_faults(Faults::new(1, vec![Fault::always(partly)]));
        let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN, OTHER])));
        let results = body(&answer)["results"].clone();
        let failed = [KNOWN, OTHER]
            .iter()
            .zip(results.as_array().expect("a list"));
        for (session, line) in failed {
            let is_stored = laravel
                .account(session)
                .is_some_and(|a| a.last_qr.is_some());
            let expected = if is_stored {
                json!("ok")
            } else {
                shown.clone()
            };
            assert_eq!(line["status"], expected, "{session}");
        }
        assert_eq!(laravel.journal().entries().len(), 1, "one of the two");
        let single = json!({"session_id": KNOWN, "qr": "2@b"});
        let answer = laravel.handle(0, &post("/api/qr", &single));
        assert_eq!(
            body(&answer)["success"],
            true,
            "a single post is none of its business"
        );
    }
}

#[test]
fn a_catch_all_route_answers_a_batch_with_a_page() {
    let mut laravel = laravel_with(LaravelConfig {
        qr_batch: false,
        status_batch: false,
        catch_all: true,
        ..LaravelConfig::default()
    });
    for path in ["/api/qr/batch", "/api/whatsapp/status/batch"] {
        let answer = laravel.handle(0, &post(path, &qrs(&[KNOWN])));
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(b"<!DOCTYPE html>"), "{path}");
    }
    assert!(laravel.journal().entries().is_empty());
}

#[test]
fn a_throttle_names_the_seconds_or_the_moment() {
    let config = |retry_after| LaravelConfig {
        throttle_per_minute: Some(1),
        retry_after,
        // Ten seconds before the last second of 1999.
        unix_zero_ms: 946_684_789_000,
        ..LaravelConfig::default()
    };
    // The throttle's window ends ten seconds after 50 000 ms, and the fault's ten seconds after 0.
    for (retry_after, window, fault) in [
        (RetryAfter::Seconds, "10", "10"),
        (
            RetryAfter::Date,
            "Sat, 01 Jan 2000 00:00:49 GMT",
            "Fri, 31 Dec 1999 23:59:59 GMT",
        ),
    ] {
        let mut laravel = laravel_with(config(retry_after));
        let read = Request::new("GET", format!("/api/whatsapp/status/{KNOWN}"));
        let mut at = |now_ms: u64| laravel.handle(now_ms, &read);
        assert_eq!(at(0).status, 200);
        let refused = at(50_000);
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (429, Some(window))
        );
        assert_eq!(at(60_000).status, 200, "a new window");

        let throttled = Misbehaviour::Throttled {
            retry_after_s: 10,
            retry_after,
        };
        laravel.set_faults(Faults::new(1, vec![Fault::always(throttled)]));
        let refused = laravel.handle(0, &read);
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (429, Some(fault))
        );
    }
}

#[test]
fn a_refusal_looks_as_laravels_own() {
    let mut laravel = laravel();
    let mut answers = |code| {
        laravel.set_faults(Faults::new(
            1,
            vec![Fault::always(Misbehaviour::status(code))],
        ));
        laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN])))
    };
    let redirect = answers(302);
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, Some("/login"))
    );
    assert_eq!(body(&answers(419))["message"], "CSRF token mismatch.");
    assert_eq!(body(&answers(401))["message"], "Unauthenticated.");
    assert_eq!(
        answers(413).header("content-type"),
        Some("text/html; charset=UTF-8")
    );
}

#[test]
fn a_session_is_poison_from_its_time_on() {
    let mut laravel = laravel();
    laravel.refuse_session(OTHER, 10);
    let alone = post("/api/qr", &json!({"session_id": OTHER, "qr": "2@a"}));
    assert_eq!(laravel.handle(9, &alone).status, 200);
    assert_eq!(laravel.handle(10, &alone).status, 422);
    let answer = laravel.handle(10, &post("/api/qr/batch", &qrs(&[KNOWN, OTHER])));
    assert_eq!(answer.status, 422);
    assert_eq!(
        laravel.journal().entries().len(),
        1,
        "only what came before its time took effect"
    );
}

#[test]
fn a_row_that_throws_costs_those_after_it_their_turn_and_is_a_500() {
    let throwing = |results| {
        laravel_with(LaravelConfig {
            results,
            throwing: [(OTHER.to_owned(), 10..20)].into(),
            ..LaravelConfig::default()
        })
    };
    let mut laravel = throwing(false);
    let third = "2189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";
    laravel.add_account(third);
    let batch = post("/api/qr/batch", &qrs(&[KNOWN, OTHER, third]));
    let answer = laravel.handle(10, &batch);
    assert_eq!(answer.status, 500);
    assert_eq!(body(&answer)["message"], "Server Error");
    let stored: Vec<&str> = laravel
        .journal()
        .entries()
        .iter()
        .map(|e| &*e.session)
        .collect();
    assert_eq!(stored, [KNOWN]);
    let alone = post("/api/qr", &json!({"session_id": OTHER, "qr": "2@a"}));
    assert_eq!(laravel.handle(19, &alone).status, 500);
    assert_eq!(laravel.handle(20, &alone).status, 200, "the row was mended");
    let thrown = [(10, OTHER.to_owned()), (19, OTHER.to_owned())];
    assert_eq!(laravel.journal().thrown(), thrown);

    let answer = throwing(true).handle(10, &post("/api/qr/batch", &qrs(&[KNOWN, OTHER])));
    assert_eq!(answer.status, 200);
    let line = json!({"session_id": OTHER, "status": 500});
    assert_eq!(body(&answer)["results"][1], line);
}

#[test]
fn a_header_that_is_wanted_is_missed_by_a_middleware_or_by_the_code() {
    let required = |value: Option<&str>, otherwise| Required {
        header: "x-webhook-secret".to_owned(),
        value: value.map(str::to_owned),
        otherwise,
    };
    for (required, sent, status) in [
        (required(Some("s"), 401), None, 401),
        (required(Some("s"), 401), Some("other"), 401),
        (required(Some("s"), 401), Some("s"), 200),
        (required(None, 500), None, 500),
        (required(None, 500), Some("any"), 200),
    ] {
        let mut laravel = laravel_with(LaravelConfig {
            requires: vec![required],
            ..LaravelConfig::default()
        });
        let mut request = post("/api/qr", &json!({"session_id": KNOWN, "qr": "2@a"}));
        if let Some(sent) = sent {
            request = request.with_header("x-webhook-secret", sent.to_owned());
        }
        assert_eq!(laravel.handle(0, &request).status, status, "{sent:?}");
    }
}

#[test]
fn a_header_tells_tenants_apart_and_the_journal_says_what_arrived() {
    let mut laravel = Laravel::new(LaravelConfig {
        any_account: true,
        tenant_header: Some("x-tenant".to_owned()),
        ..LaravelConfig::default()
    });
    for (tenant, state) in [("acme", "active"), ("globex", "inactive")] {
        let state = json!({"session_id": KNOWN, "estado_qr": state});
        let request = post("/api/whatsapp/status?a=1", &state)
            .with_header("x-tenant", tenant)
            .with_header("host", "laravel.test");
        assert_eq!(laravel.handle(7, &request).status, 200);
    }
    let state = |tenant: &str| {
        laravel
            .account(&format!("{tenant}/{KNOWN}"))
            .map(|a| &*a.estado_qr)
    };
    assert_eq!(
        (state("acme"), state("globex")),
        (Some("active"), Some("inactive"))
    );
    let read = Request::new("GET", format!("/api/whatsapp/status/{KNOWN}"));
    let read = read.with_header("x-tenant", "globex");
    assert_eq!(body(&laravel.handle(8, &read))["estado_qr"], "inactive");
    let journal = laravel.journal();
    let arrived = &journal.entries()[1].arrived;
    assert_eq!(
        (
            &*arrived.method,
            &*arrived.authority,
            &*arrived.path,
            arrived.at_ms
        ),
        ("POST", "laravel.test", "/api/whatsapp/status?a=1", 7)
    );
    assert_eq!(arrived.header("x-tenant"), Some("globex"));
    assert_eq!(journal.arrivals().len(), 3);
}

#[test]
fn a_validation_may_take_so_many_items_and_names_the_array() {
    let mut laravel = laravel_with(LaravelConfig {
        batch_items_max: Some(1),
        ..LaravelConfig::default()
    });
    assert_eq!(
        laravel
            .handle(0, &post("/api/qr/batch", &qrs(&[KNOWN])))
            .status,
        200
    );
    let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN, OTHER])));
    assert_eq!(answer.status, 422);
    let fields = body(&answer)["errors"].clone();
    assert_eq!(
        fields,
        json!({"qrs": ["The qrs field must not have more than 1 items."]})
    );
}

#[test]
fn an_orphan_may_be_a_404_alone_and_for_its_batch() {
    for results in [false, true] {
        let mut laravel = laravel_with(LaravelConfig {
            unknown_is_404: true,
            results,
            ..LaravelConfig::default()
        });
        let alone = post("/api/qr", &json!({"session_id": STRANGER, "qr": "2@a"}));
        assert_eq!(laravel.handle(0, &alone).status, 404);
        let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[STRANGER, KNOWN])));
        let line = body(&answer)["results"][0]["status"].clone();
        match results {
            false => assert_eq!(answer.status, 404),
            true => assert_eq!((answer.status, line), (200, json!(404))),
        }
    }
}

#[test]
fn a_batch_may_be_taken_without_a_word() {
    let mut laravel = laravel_with(LaravelConfig {
        silent_batches: true,
        ..LaravelConfig::default()
    });
    let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN])));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(laravel.journal().entries().len(), 1);
}

#[test]
fn a_proxy_answers_in_laravels_stead_whether_or_not_the_work_is_done() {
    for processed in [false, true] {
        let mut laravel = laravel();
        let lost = Misbehaviour::Proxy {
            says: Proxy::EnvoyLost,
            processed,
        };
        laravel.set_faults(Faults::new(1, vec![Fault::always(lost)]));
        let answer = laravel.handle(0, &post("/api/qr/batch", &qrs(&[KNOWN])));
        assert_eq!(
            (answer.status, &answer.body[..]),
            (503, ENVOY_LOST.as_bytes())
        );
        assert_eq!(laravel.journal().entries().len(), usize::from(processed));
    }
    let page = Proxy::Nginx(404).response();
    assert_eq!(
        (page.status, page.header("content-type")),
        (404, Some("text/html"))
    );
}

#[test]
fn a_page_may_lead_elsewhere_and_an_answer_may_have_many_headers() {
    let mut laravel = laravel();
    let soon = Misbehaviour::Page {
        code: 302,
        location: Some("/soon".to_owned()),
    };
    let many = Misbehaviour::Headers { lines: 110 };
    let faults = [soon, many].map(|what| Fault::always(what).times(1));
    laravel.set_faults(Faults::new(1, faults.into()));
    let batch = post("/api/qr/batch", &qrs(&[KNOWN]));
    let answer = laravel.handle(0, &batch);
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("/soon"))
    );
    let answer = laravel.handle(0, &batch);
    assert_eq!((answer.status, answer.headers.len()), (200, 111));
}

#[test]
fn a_token_that_is_new_in_each_request_is_known_by_its_beginning() {
    let mut tenants = Tenants::default();
    tenants.add("acme", KNOWN);
    let mut laravel = laravel_with(LaravelConfig {
        tenants,
        ..LaravelConfig::default()
    });
    for (token, status) in [("acme.1", 200), ("acme.2", 200), ("globex.1", 401)] {
        let request = post("/api/qr", &json!({"session_id": KNOWN, "qr": "2@a"}));
        let request = request.with_header("authorization", format!("Bearer {token}"));
        assert_eq!(laravel.handle(0, &request).status, status);
    }
}
