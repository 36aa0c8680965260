//! The page, from files as the commands write them.

use serde_json::json;

use super::*;

fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    dir
}

fn run() -> Value {
    let distribution = Distribution {
        up_to_ms: vec![1.0, 10.0],
        count: vec![3, 1],
    };
    let series = ArmSeries {
        sent_per_second: vec![120, 130],
        laravel_per_second: vec![120, 130],
        post_latency: distribution.clone(),
        get_latency: distribution.clone(),
        qr_staleness: distribution.clone(),
        state_staleness: distribution,
    };
    json!({"sessions": 1000, "direct": {"series": series}, "through": {"series": series}})
}

fn chaos() -> Value {
    let series = ChaosSeries {
        sent_per_second: vec![9, 9, 9],
        laravel_per_second: vec![1, 0, 1],
        failed_per_second: vec![0, 0, 0],
        outage_from_s: 1.0,
        outage_to_s: 2.0,
        ..ChaosSeries::default()
    };
    json!({"series": series})
}

#[test]
fn every_file_that_is_there_has_its_place_on_the_page() {
    let arms =
        json!({"arms": [{"name": "a < b", "cpu_us": 5}], "ratios": {"embudo_to_bare": 1.25}});
    let all = [
        (
            "run.json",
            run(),
            "Requests that reach Laravel, 1000 sessions",
        ),
        ("chaos.json", chaos(), "Laravel is down"),
        ("bench.json", arms.clone(), "What a request costs"),
        ("peers.json", arms.clone(), "Beside others"),
        ("full-stack.json", arms, "A real gateway"),
    ];
    for (name, content, said) in &all {
        let dir = folder(&[(name, content.clone())]);
        let page = html(dir.path()).unwrap().expect("a page");
        for (_, _, text) in &all {
            assert_eq!(page.contains(text), text == said, "{name}: {text}");
        }
    }
    let files: Vec<_> = all
        .iter()
        .map(|(name, content, _)| (*name, content.clone()))
        .collect();
    let page = html(folder(&files).path()).unwrap().expect("a page");
    assert!(page.contains("a &lt; b") && page.contains("1.25"), "{page}");
    assert!(page.matches("<svg ").count() >= 8, "{page}");
}

#[test]
fn the_page_needs_nothing_from_anywhere() {
    let page = html(folder(&[("run.json", run())]).path())
        .unwrap()
        .expect("a page");
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for foreign in [
        "<script", "http:", "https:", "<link", "<img", "@import", "url(",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn without_figures_there_is_no_page_and_a_broken_file_is_named() {
    assert_eq!(html(folder(&[]).path()).unwrap(), None);
    let earlier = json!({"sessions": 1, "direct": {}, "through": {}});
    assert_eq!(html(folder(&[("run.json", earlier)]).path()).unwrap(), None);
    let error = html(folder(&[("chaos.json", json!([1]))]).path()).unwrap_err();
    assert!(error.to_string().contains("chaos.json"), "{error:#}");
}
