//! Who has answered, and what that means.

use super::*;

fn answerer(details: Option<&[u8]>, attempts: Option<u64>, local_address: bool) -> Answerer {
    Answerer::of(details, || attempts, || local_address)
}

#[test]
fn an_upstreams_answer_is_known_by_its_details_alone() {
    let asked = || -> Option<u64> { panic!("nothing else is asked for") };
    let answerer = Answerer::of(Some(b"via_upstream"), asked, || panic!("nor this"));
    assert_eq!(answerer, Answerer::Upstream);
}

#[test]
fn a_request_that_certainly_never_left_is_told_from_one_that_may_have() {
    use Answerer::{NeverSent, Unknown};
    for (details, attempts, local_address, expected) in [
        (
            "upstream_reset_before_response_started{remote_connection_failure}",
            1,
            false,
            NeverSent,
        ),
        ("no_healthy_upstream", 1, false, NeverSent),
        (
            "upstream_reset_before_response_started{connection_termination}",
            1,
            true,
            Unknown,
        ),
        (
            "upstream_reset_before_response_started{remote_connection_failure}",
            2,
            false,
            Unknown,
        ),
        ("no_healthy_upstream", 2, true, Unknown),
        ("response_timeout", 1, true, Unknown),
        (
            "rbac_access_denied_matched_policy[none]",
            0,
            false,
            NeverSent,
        ),
        ("", 0, false, NeverSent),
        ("downstream_remote_disconnect", 0, false, NeverSent),
        ("downstream_remote_disconnect", 1, true, Unknown),
        ("internal_redirect", 1, true, NeverSent),
    ] {
        assert_eq!(
            answerer(Some(details.as_bytes()), Some(attempts), local_address),
            expected,
            "{details}, {attempts} tries"
        );
    }
    assert_eq!(
        answerer(None, None, false),
        Unknown,
        "a host without properties"
    );
}

#[test]
fn only_an_upstreams_2xx_that_says_no_failure_is_an_acceptance() {
    use Answerer::{NeverSent, Unknown, Upstream};
    for (answerer, status, body, expected) in [
        (
            Upstream,
            Some(200),
            br#"{"success":true}"#.as_slice(),
            Fate::Accepted,
        ),
        (Upstream, Some(204), b"", Fate::Accepted),
        (Upstream, Some(200), br#"{"success":false}"#, Fate::Refused),
        (
            Upstream,
            Some(200),
            br#"{"success":true,"skipped":true}"#,
            Fate::Refused,
        ),
        (Upstream, Some(500), b"", Fate::Failed),
        (Upstream, Some(503), b"", Fate::Failed),
        (Upstream, Some(422), b"", Fate::Refused),
        (Upstream, Some(502), b"", Fate::Unknown),
        (Upstream, Some(522), b"", Fate::Unknown),
        (Upstream, None, b"", Fate::Unknown),
        (NeverSent, Some(503), b"", Fate::NeverHad),
        (NeverSent, None, b"", Fate::NeverHad),
        (Unknown, Some(504), b"", Fate::Unknown),
        (Unknown, Some(200), b"", Fate::Unknown),
    ] {
        assert_eq!(
            Fate::of(answerer, status, body, None),
            expected,
            "{answerer:?} {status:?}"
        );
    }
}

#[test]
fn a_503_of_an_envoy_in_between_that_has_lost_the_request_is_no_certain_no() {
    let lost = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    let refused = b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    let of = |body: &[u8]| Fate::of(Answerer::Upstream, Some(503), body, Some(Voice::Json));
    assert_eq!(of(lost), Fate::Unknown, "PHP may be at work on it");
    assert_eq!(
        of(b"no healthy upstream"),
        Fate::Unknown,
        "it may be its second try"
    );
    assert_eq!(of(refused), Fate::Failed);
    assert_eq!(of(br#"{"message":"Service Unavailable"}"#), Fate::Failed);
}

#[test]
fn what_leaves_late_leaves_laravel_less_time_and_what_leaves_too_late_does_not_leave() {
    let rules = crate::route::tests::rules("{}");
    let times = &rules.config.times;
    let through = WriteThrough {
        said: Said::of_seen(
            &crate::route::Seen::default(),
            crate::route::Bypass::Signature,
            b"",
            &rules,
        ),
        number: 1,
        seq: 1,
        manner: Manner::Claimed,
        before: Before::default(),
        begun_ms: 0,
        send_by_ms: times.send_window_ms,
        body: 0,
        is_seen: false,
        item: None,
    };
    let (window_ms, call_ms) = (times.send_window_ms, times.call_timeout_ms);
    let asks = |mono_ms| through.may_take(call_ms, times, mono_ms);
    assert_eq!(asks(window_ms), Some(call_ms), "within the window");
    assert_eq!(asks(window_ms + 400), Some(call_ms - 400));
    assert_eq!(asks(window_ms + call_ms - LEAST_MS), Some(LEAST_MS));
    assert_eq!(asks(window_ms + call_ms - LEAST_MS + 1), None);
}
