//! What a node tells of itself: health, status, metrics, its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn health_status_and_the_certificate_are_told() {
    let bench = Bench::new();
    assert_eq!(
        bench.bearer(None, Method::GET, "/healthz", Value::Null).await.json(),
        json!({ "status": "ok" })
    );
    let status = bench.call(Method::GET, "/api/v1/status", Value::Null).await.json();
    assert_eq!((&status["listen"], &status["nodes"][0]["name"]), (&json!("[::]:7433"), &json!("attic")));
    assert_eq!(status["api"], json!(["https://attic.local:7433"]));
    assert_eq!(status["public"], json!(["https://attic.example.org"]));
    let ca = bench.bearer(None, Method::GET, "/api/v1/ca", Value::Null).await;
    assert_eq!(ca.headers[header::CONTENT_TYPE], "application/x-pem-file");
    assert!(ca.body.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let full = Bench::over(FakeLoop::start_with(Some("/secret/path: no space")));
    let health = full.bearer(None, Method::GET, "/healthz", Value::Null).await;
    assert_eq!((health.status, health.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "degraded"));
    assert_eq!(health.json()["detail"], "the store cannot be written");
    assert!(!health.json().to_string().contains("/secret"), "strangers learn no path");
    let write = full.call(Method::PATCH, "/api/v1/objects/note/x", json!({ "set": { "a": 1 } })).await;
    assert_eq!((write.status, write.problem().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "store"));
}

#[tokio::test]
async fn health_names_the_parts_that_show_no_sign_of_life() {
    let bench = Bench::new();
    for stalled in [vec!["store"], vec!["listener", "devices"], vec!["event loop"]] {
        bench.stalled.send_replace(stalled.clone());
        let health = bench.bearer(None, Method::GET, "/healthz", Value::Null).await;
        assert_eq!((health.status.as_u16(), health.problem().as_str()), (503, "degraded"));
        let detail = health.json()["detail"].as_str().unwrap().to_owned();
        assert!(stalled.iter().all(|part| detail.contains(part)), "{detail}");
    }
    bench.stalled.send_replace(Vec::new());
    assert_eq!(bench.bearer(None, Method::GET, "/healthz", Value::Null).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn health_answers_for_an_event_loop_that_does_not() {
    let bench = Bench::new();
    let (service, _unserved) = crate::service::Service::channel();
    let health = bench.deserted(service).bearer(None, Method::GET, "/healthz", Value::Null).await;
    assert_eq!((health.status.as_u16(), health.problem().as_str()), (503, "degraded"));
    assert_eq!(health.json()["detail"], "the event loop does not answer");
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() {
    let bench = Bench::new();
    bench.call(Method::GET, "/api/v1/status", Value::Null).await;
    bench.call(Method::GET, "/api/v1/objects/note/none", Value::Null).await;
    bench.call(Method::GET, "/some/unknown/path", Value::Null).await;
    bench.bearer(Some("hth_no"), Method::GET, "/metrics", Value::Null).await;
    let answer = bench.call(Method::GET, "/metrics", Value::Null).await;
    assert!(answer.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "hearth_http_requests_total{route=\"/api/v1/status\",class=\"2xx\"} 1",
        "hearth_http_requests_total{route=\"/api/v1/objects/{kind}/{name}\",class=\"4xx\"} 1",
        "hearth_http_requests_total{route=\"other\",class=\"4xx\"} 1",
        "hearth_events_total{event=\"frames_refused\"} 3",
        "hearth_build_info{version=\"0.1.0\"} 1",
        "hearth_nodes{state=\"self\"} 1",
        "hearth_tokens_denied_total 1",
        "hearth_links 2",
        "# TYPE hearth_links gauge",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            described.insert(name.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(described.contains(series.split('{').next().unwrap()), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    let rss = text.lines().find_map(|line| line.strip_prefix("hearth_resident_memory_bytes ")).unwrap();
    assert!(rss.parse::<u64>().unwrap() > 1 << 20);
}

#[tokio::test]
async fn every_route_has_its_label() {
    let bench = Bench::new();
    for route in super::super::ROUTES {
        let path = route
            .replace("{kind}", "note")
            .replace("{name}", "x")
            .replace("{id}", "1")
            .replace("{node}", "n");
        let answer = bench.call(Method::from_bytes(b"TRACE").unwrap(), &path, Value::Null).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{route} is a route");
    }
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let bench = Bench::new();
    let (service, _) = crate::service::Service::channel();
    let bench = bench.deserted(service);
    for path in ["/api/v1/status", "/api/v1/doctor", "/api/v1/invites", "/api/v1/commands/1", "/metrics"] {
        let answer = bench.call(Method::GET, path, Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "stopping"), "{path}");
    }
}
