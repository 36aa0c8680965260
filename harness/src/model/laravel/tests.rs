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

#[test]
fn a_refused_session_is_a_422_alone_and_for_its_whole_batch_from_its_time_on() {
    let mut laravel = laravel();
    laravel.refuse_session(OTHER, 10);
    let alone = post("/api/qr", &json!({"session_id": OTHER, "qr": "2@a"}));
    assert_eq!(laravel.handle(9, &alone).status, 200);
    assert_eq!(laravel.handle(10, &alone).status, 422);
    let batch = json!({"qrs": [
        {"session_id": KNOWN, "qr": "2@b"},
        {"session_id": OTHER, "qr": "2@c"},
    ]});
    let answer = laravel.handle(10, &post("/api/qr/batch", &batch));
    assert_eq!(answer.status, 422);
    assert!(body(&answer)["errors"]["qrs.1.session_id"].is_array());
    assert_eq!(
        laravel.journal().entries().len(),
        1,
        "only what came before its time took effect"
    );
}
