//! The tests of [`super`]: they are about the shipped file as much as about the code.

use super::*;

fn port_of(bootstrap: &Bootstrap, pointer: &str) -> Value {
    bootstrap.value.pointer(pointer).unwrap()["port_value"].clone()
}

#[test]
fn the_shipped_file_takes_every_change_a_run_makes() {
    let mut shipped = Bootstrap::shipped().unwrap();
    shipped.listen_on(([127, 0, 0, 1], 0).into()).unwrap();
    shipped.admin_on(([127, 0, 0, 1], 0).into()).unwrap();
    for cluster in ["laravel", "laravel_batch", "webhook"] {
        let endpoint = Endpoint {
            host: "laravel.test".into(),
            port: 4321,
        };
        shipped.point(cluster, &endpoint).unwrap();
    }
    shipped.module(Path::new("/somewhere/embudo.wasm")).unwrap();
    shipped.filter_config(&json!({"max_in_flight": 2})).unwrap();

    assert_eq!(port_of(&shipped, "/admin/address/socket_address"), 0);
    assert_eq!(
        port_of(
            &shipped,
            "/static_resources/listeners/0/address/socket_address"
        ),
        0
    );
    let filter = shipped.filter().unwrap();
    assert_eq!(
        filter["vm_config"]["code"]["local"]["filename"],
        "/somewhere/embudo.wasm"
    );
    assert_eq!(filter["configuration"]["value"], r#"{"max_in_flight":2}"#);
    assert_eq!(shipped.to_json().matches("\"laravel.test\"").count(), 3);
}

#[test]
fn the_shipped_file_enables_the_filter_on_four_posts_their_batches_and_one_get_and_nowhere_else() {
    let mut shipped = Bootstrap::shipped().unwrap();
    let listener = named(&mut shipped.value, LISTENERS, LISTENER).unwrap();
    let routes = at(
        listener,
        &format!("{MANAGER}/route_config/virtual_hosts/0/routes"),
    )
    .unwrap();
    let (enabled, rest): (Vec<_>, Vec<_>) = routes
        .as_array()
        .unwrap()
        .iter()
        .partition(|route| route["typed_per_filter_config"].get(FILTER).is_some());
    let found: Vec<_> = enabled
        .iter()
        .map(|route| {
            let matches = &route["match"];
            let path = matches["path"].as_str();
            let path = path.or(matches["safe_regex"]["regex"].as_str());
            let method = &matches["headers"][0]["string_match"]["exact"];
            (method.as_str().unwrap(), path.unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("POST", "/qr"),
            ("POST", "/api/qr"),
            ("POST", "/whatsapp/status"),
            ("POST", "/api/whatsapp/status"),
            ("POST", "(/api)?/(qr|whatsapp/status)/batch"),
            ("GET", "(/api)?/whatsapp/status/[^/]+"),
        ]
    );
    assert_eq!(rest.len(), 1, "everything else is one route");
    assert_eq!(rest[0]["match"]["prefix"], "/");
}

#[test]
fn the_shipped_file_keeps_what_the_filter_depends_on() {
    let mut shipped = Bootstrap::shipped().unwrap();
    let filter = shipped.filter().unwrap().clone();
    assert_eq!(filter["allow_on_headers_stop_iteration"], true);
    assert_eq!(filter["failure_policy"], "FAIL_RELOAD");
    assert_eq!(filter["vm_config"]["vm_id"], "embudo");
    let backoff = &filter["reload_config"]["backoff"];
    assert_eq!(backoff["base_interval"], "0.01s");
    let batch = named(&mut shipped.value, CLUSTERS, "laravel_batch").unwrap();
    assert_eq!(
        batch["common_lb_config"]["healthy_panic_threshold"]["value"],
        0
    );
    assert_eq!(batch["outlier_detection"]["always_eject_one_host"], true);
    assert_eq!(batch["outlier_detection"]["enforcing_consecutive_5xx"], 0);
    let laravel = named(&mut shipped.value, CLUSTERS, "laravel").unwrap();
    assert!(
        laravel.get("outlier_detection").is_none(),
        "a broken route must not cost a message"
    );
    for cluster in ["laravel", "laravel_batch", "webhook"] {
        let cluster = named(&mut shipped.value, CLUSTERS, cluster).unwrap();
        assert_eq!(
            cluster["wait_for_warm_on_init"], false,
            "a silent name server must not keep the listeners shut"
        );
    }
    let listener = named(&mut shipped.value, LISTENERS, LISTENER).unwrap();
    let routes = at(at(listener, MANAGER).unwrap(), ROUTES).unwrap();
    for route in routes.as_array().unwrap() {
        let route = &route["route"];
        let times = (route["timeout"].clone(), route["idle_timeout"].clone());
        let wanted = match route["timeout"] == "60s" {
            true => (json!("60s"), Value::Null),
            false => (json!("15s"), json!("20s")),
        };
        assert_eq!(times, wanted, "the idle timeout never cuts an answer");
    }
}

#[test]
fn every_snippet_fits_into_the_shipped_file() {
    for preset in [
        "evolution",
        "evolution-go",
        "codechat",
        "waha",
        "wppconnect",
        "wwebjs-api",
        "open-wa",
        "baileys-api",
        "baileys-api-fazer",
        "wa-gateway",
    ] {
        let mut shipped = Bootstrap::shipped().unwrap();
        let over = json!({"batch_webhooks": true});
        shipped.preset(preset, &over).expect(preset);

        let filter = shipped.filter().unwrap();
        let config = filter["configuration"]["value"].as_str().unwrap();
        let config: Value = serde_json::from_str(config).unwrap();
        assert_eq!(config["preset"], preset);
        assert_eq!(config["batch_webhooks"], true);
        let listener = named(&mut shipped.value, LISTENERS, LISTENER).unwrap();
        let routes = at(at(listener, MANAGER).unwrap(), ROUTES).unwrap();
        let routes = routes.as_array().unwrap();
        assert_eq!(routes.len(), 2, "the snippet's route and everything else");
        assert!(enables_filter(&routes[0]) && !enables_filter(&routes[1]));
        assert_eq!(routes[1]["match"]["prefix"], "/");
        // What envoy.yaml says of its own routes holds here too.
        let mut original = Bootstrap::shipped().unwrap();
        let listener = named(&mut original.value, LISTENERS, LISTENER).unwrap();
        let theirs = &at(at(listener, MANAGER).unwrap(), ROUTES).unwrap()[0];
        for same in [
            "request_body_buffer_limit",
            "route",
            "typed_per_filter_config",
        ] {
            assert_eq!(routes[0][same], theirs[same], "{preset}: {same}");
        }
    }
}

#[test]
fn without_embudo_nothing_of_it_is_left_but_its_clusters() {
    let mut shipped = Bootstrap::shipped().unwrap();
    shipped.without_embudo().unwrap();
    assert!(shipped.filter().is_err());
    assert!(!shipped.to_json().contains("typed_per_filter_config"));
    assert!(
        shipped.without_embudo().is_err(),
        "a second time there is nothing to take out"
    );
}

#[test]
fn a_listener_that_is_moved_out_is_a_resource_with_a_version() {
    let mut shipped = Bootstrap::shipped().unwrap();
    let mut file = shipped
        .listener_from(Path::new("/run/lds/lds.json"))
        .unwrap();
    file.filter_config(&json!({"max_in_flight": 3})).unwrap();

    let written: Value = serde_json::from_str(&file.to_json("7")).unwrap();
    assert_eq!(written["version_info"], "7");
    assert_eq!(written["resources"][0]["name"], LISTENER);
    assert_eq!(written["resources"].as_array().unwrap().len(), 1);
    let source = &shipped.value["dynamic_resources"]["lds_config"]["path_config_source"];
    assert_eq!(source["watched_directory"]["path"], "/run/lds");
    assert!(
        shipped.listen_on(([127, 0, 0, 1], 0).into()).is_err(),
        "it is no longer in the file"
    );
}

#[test]
fn a_missing_piece_is_named() {
    let mut shipped = Bootstrap::shipped().unwrap();
    let text = shipped
        .point(
            "nobody",
            &Endpoint {
                host: "h".into(),
                port: 1,
            },
        )
        .unwrap_err();
    assert_eq!(
        text.to_string(),
        "the Envoy configuration has no `nobody` in /static_resources/clusters"
    );
    shipped.value["admin"] = json!({});
    let text = shipped
        .admin_on(([127, 0, 0, 1], 0).into())
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "the Envoy configuration has no /admin/address/socket_address"
    );
}

#[test]
fn an_endpoint_is_a_host_and_a_port() {
    let parse = |text: &str| text.parse::<Endpoint>();
    assert_eq!(parse("laravel:8000").unwrap().to_string(), "laravel:8000");
    assert_eq!(
        parse("[::1]:80").unwrap(),
        Endpoint {
            host: "::1".into(),
            port: 80
        }
    );
    assert_eq!(parse("[::1]:80").unwrap().to_string(), "[::1]:80");
    for wrong in [
        "laravel",
        "laravel:http",
        ":80",
        "http://laravel:80",
        "laravel:80/api",
    ] {
        assert!(parse(wrong).is_err(), "{wrong} is not host:port");
    }
}

#[test]
fn a_twin_differs_from_the_gateways_listener_in_one_thing() {
    let mut shipped = Bootstrap::shipped().unwrap();
    let gateway = named(&mut shipped.value, LISTENERS, LISTENER)
        .unwrap()
        .clone();
    for twin in [
        Twin::WithoutEmbudo,
        Twin::Module("/somewhere/floor.wasm".into()),
        Twin::DirectResponse("{}".into()),
        Twin::Backend("other".into()),
    ] {
        shipped.twin(&twin).unwrap();
        let listener = named(&mut shipped.value, LISTENERS, twin.name()).unwrap();
        let manager = at(listener, MANAGER).unwrap();
        let filters = array(at(manager, "/http_filters").unwrap()).unwrap().len();
        let marked = array(at(manager, ROUTES).unwrap()).unwrap();
        let marked = marked.iter().filter(|route| enables_filter(route)).count();
        let expected = match twin {
            Twin::WithoutEmbudo => (1, 0),
            Twin::Module(_) | Twin::Backend(_) => (2, 6),
            Twin::DirectResponse(_) => (2, 0),
        };
        assert_eq!((filters, marked), expected, "{twin:?}");
    }
    let after = named(&mut shipped.value, LISTENERS, LISTENER).unwrap();
    assert_eq!(*after, gateway, "the gateway's own is as it was");
}

#[test]
fn whatever_an_operator_may_have_written_can_be_said() {
    let mut bootstrap = Bootstrap::shipped().unwrap();
    let retries = json!({"num_retries": 1});
    bootstrap
        .change("clusters/laravel_batch/a/retry_policy", &retries)
        .unwrap();
    bootstrap
        .change("clusters/+", &json!({"name": "other"}))
        .unwrap();
    let cluster = |bootstrap: &Bootstrap, name: &str| {
        let all = bootstrap.value["static_resources"]["clusters"].as_array();
        let mut all = all.into_iter().flatten();
        all.find(|cluster| cluster["name"] == name).cloned()
    };
    let changed = cluster(&bootstrap, "laravel_batch").unwrap();
    assert_eq!(changed["a"]["retry_policy"], retries);
    assert!(cluster(&bootstrap, "other").is_some());
    let gone = "clusters/laravel_batch/a";
    bootstrap.change(gone, &Value::Null).unwrap();
    let changed = cluster(&bootstrap, "laravel_batch").unwrap();
    assert!(changed.get("a").is_none());
    assert!(bootstrap.change("clusters/nowhere/a", &retries).is_err());
}
