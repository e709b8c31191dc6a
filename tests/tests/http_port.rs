//! The HTTP port of a gateway: where it is, what it answers, and what becomes of a node that cannot have it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use hearth_tests::daemon::{Daemon, PATIENCE, Plan, wait_until};
use serde_json::{Value, json};

/// A gateway whose authority nobody can reach.
fn gateway(name: &str, http: &str) -> Plan {
    Plan::new(name).config(format!(
        "[tls]\ndomains = [\"home.example.org\"]\ndirectory = \"https://127.0.0.1:9/directory\"\nhttp = \"{http}\"\n"
    ))
}

/// What `hearth doctor` says of the port.
async fn check(node: &Daemon) -> Value {
    let answer = node.client().get("/api/v1/doctor").await.unwrap().success().unwrap();
    let mut checks = answer["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == "HTTP port").cloned().unwrap_or_default()
}

/// Where the port is open.
async fn http_port(node: &Daemon) -> SocketAddr {
    let mut at = None;
    wait_until("the HTTP port is open", PATIENCE, async || {
        let check = check(node).await;
        at = check["detail"].as_str().and_then(|detail| detail.strip_prefix("open at ")?.parse().ok());
        Ok(at.is_some())
    })
    .await
    .unwrap();
    at.unwrap()
}

fn ask(at: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn gateway_field(seen_by: &Daemon, of: &Daemon) -> Value {
    let id = of.id().await.unwrap();
    seen_by.fields(&format!("certificate/{}", &id[..16])).await.unwrap()["gateway"].take()
}

#[tokio::test]
async fn a_gateway_sends_its_own_hosts_to_https_and_answers_no_challenge_that_is_none() {
    let one = gateway("one", "127.0.0.1:0").start().await.unwrap();
    let two = one.joined("two").await.unwrap();
    let (at, api) = (http_port(&one).await, one.address());
    let answer = ask(at, "/a?b", "home.example.org");
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let port = api.port();
    assert!(answer.contains(&format!("\r\nLocation: https://home.example.org:{port}/a?b\r\n")), "{answer}");
    assert!(ask(at, "/", &at.to_string()).contains(&format!("\r\nLocation: https://{api}/\r\n")));
    let answer = ask(at, "/", "evil.example");
    assert!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("Location"), "{answer}");
    let answer = ask(at, "/.well-known/acme-challenge/x", "home.example.org");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    // The API is not there.
    assert!(ask(at, "/api/v1/status", &at.to_string()).starts_with("HTTP/1.1 308 "));
    // The others know that it answers, and what.
    let both = json!({"http-01": true, "tls-alpn-01": true});
    wait_until("the other node knows the gateway", PATIENCE, async || {
        Ok(gateway_field(&two, &one).await == both)
    })
    .await
    .unwrap();
    assert_eq!(gateway_field(&one, &two).await, Value::Null, "that one is none");
    assert_eq!(check(&two).await, Value::Null);
}

#[tokio::test]
async fn a_port_that_is_taken_costs_nothing_but_itself() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let node = gateway("one", &at.to_string()).start().await.unwrap();
    wait_until("the doctor knows", PATIENCE, async || Ok(check(&node).await["status"] == "warn"))
        .await
        .unwrap();
    let check = check(&node).await;
    assert!(check["detail"].as_str().unwrap().contains(&at.to_string()), "{check}");
    assert!(check["fix"].as_str().unwrap().contains("[tls] http"), "{check}");
    let only = json!({"http-01": false, "tls-alpn-01": true});
    wait_until("it says what it answers", PATIENCE, async || Ok(gateway_field(&node, &node).await == only))
        .await
        .unwrap();
    node.put("note/a", json!({"n": 1})).await.unwrap();
}

#[tokio::test]
async fn no_client_writes_answers_to_challenges() {
    let node = gateway("one", "off").start().await.unwrap();
    let name = "challenge/00112233445566778899aabbccddeeff";
    for (object, field) in
        [(name, "answer"), (name, "ack.0000000000000001"), ("certificate/0000000000000001", "gateway")]
    {
        let body = json!({"set": {field: {"http-01": true}}});
        let answer =
            node.client().send("PATCH", &format!("/api/v1/objects/{object}"), Some(&body)).await.unwrap();
        assert_eq!(answer.status, 403, "{object} {field}: {}", answer.body);
    }
    assert_eq!(check(&node).await, Value::Null, "a port that is off is nobody's business");
}

#[tokio::test]
async fn the_local_authority_is_shown_as_openssl_sees_it() {
    let node = Daemon::found("one").await.unwrap();
    let shown = node.json(&["ca"]).await.unwrap();
    let folder = hearth_tests::daemon::Folder::new().unwrap();
    let (pem, der) = (folder.join("ca.pem"), folder.join("ca.der"));
    node.cli(&["ca", "export", pem.to_str().unwrap()]).await.unwrap().ok().unwrap();
    node.cli(&["ca", "export", "--der", "--out", der.to_str().unwrap()]).await.unwrap().ok().unwrap();
    for (file, form) in [(&pem, "PEM"), (&der, "DER")] {
        let output = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-subject", "-inform", form, "-in"])
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for part in ["fingerprint_sha256", "subject"] {
            assert!(text.contains(shown[part].as_str().unwrap()), "{part} of {shown} in {text}");
        }
    }
    assert_eq!(shown["urls"], json!([format!("https://{}/api/v1/ca", node.address())]));
    let text = node.cli(&["ca", "trust", "android"]).await.unwrap().ok().unwrap().stdout;
    assert!(
        text.contains(shown["fingerprint_sha256"].as_str().unwrap())
            && text.contains("Install a certificate"),
        "{text}"
    );
    assert!(!text.contains("Keychain"), "{text}");
}
