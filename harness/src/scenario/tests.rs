//! What a file may say.

use super::*;

fn scenario(more: &str) -> Scenario {
    let text = format!(
        "name = \"x\"\nsessions = 3\nseconds = 1\nsettled_within_seconds = 1\nexpect = []\n{more}"
    );
    toml::from_str(&text).expect("a scenario")
}

#[test]
fn a_file_says_how_laravel_judges_batches() {
    let scenario = scenario(
        "[laravel]\nresults = true\npoison = 2\npoison_indexes = false\nbody_bytes_max = 4096\n\
         throttle_per_minute = 60\nretry_after = \"date\"",
    );
    let config = scenario.laravel_config();
    assert!(config.results && !config.poison_indexes);
    assert_eq!(config.body_bytes_max, 4096);
    assert_eq!(config.throttle_per_minute, Some(60));
    assert_eq!(config.retry_after, RetryAfter::Date);
    let poison = session_ids(1, 3).into_iter().take(2);
    let poison = poison.map(|name| (name, 0)).collect();
    assert_eq!(config.poison, poison, "the first sessions of the run");
    assert!(config.qr_batch && config.status_batch && !config.catch_all);
}

#[test]
fn a_file_says_what_is_behind_the_paths_of_the_batches() {
    for (route, is_there, catches_all) in [
        ("there", true, false),
        ("missing", false, false),
        ("page", false, true),
    ] {
        let scenario = scenario(&format!("[laravel]\nbatch_route = \"{route}\""));
        let config = scenario.laravel_config();
        assert_eq!((config.qr_batch, config.status_batch), (is_there, is_there));
        assert_eq!(config.catch_all, catches_all, "{route}");
    }
}

#[test]
fn a_webhook_has_its_own_faults_and_happenings() {
    let scenario = scenario(
        "[webhook]\nrequest_ms = 7\n[[webhook.fault]]\nwhat = {status = {code = 500}}\ncount = 1\n\
         [[happening]]\nat_ms = 1\ndo = \"webhook_down\"",
    );
    let webhook = scenario.webhook.expect("a webhook");
    assert_eq!((webhook.request_ms, webhook.faults.len()), (7, 1));
    assert!(matches!(scenario.happenings[0].what, Verb::WebhookDown));
}

#[test]
fn the_secrets_are_those_that_go_along_with_requests() {
    let scenario = scenario("tenants = 2");
    let sent = (0..3).filter_map(|session| scenario.authorization(session));
    assert_eq!(scenario.secrets(), sent.collect());
    assert_eq!(scenario.secrets().len(), 2);
}
