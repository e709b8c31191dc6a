//! The document of the API against a live node: somebody else's generator of requests (schemathesis of PyPI) reads it, asks what it
//! allows and what it does not, and holds every answer against it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, process::Stdio, time::Duration};

use hearth_tests::{
    daemon::{Daemon, Folder},
    python::python,
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// What is not asked, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("/api/v1/leave", "the node would restart in another household, and the token would be void"),
    ("/api/v1/join", "the same, should an invite ever be guessed"),
    ("/api/v1/import", "lines of JSON, which the generator does not write; tests of its own do"),
    ("/api/v1/watch", "a WebSocket, which the generator does not speak"),
];
/// What every answer is checked for.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
const SEED: &str = "20261130";
const WITHIN: Duration = Duration::from_secs(240);

#[tokio::test]
async fn no_request_that_is_made_up_breaks_the_node_or_the_document() {
    let node = Daemon::found("kitchen").await.unwrap();
    let folder = Folder::new().unwrap();
    let document = node.web(None).await.unwrap().get("/api/v1/openapi.json").await.unwrap();
    assert_eq!(
        (document.status, &*document.media_type),
        (200, "application/json"),
        "nobody needs a token for it"
    );
    let document: Value = document.json().unwrap();
    for (path, _) in LEFT_OUT {
        assert!(document["paths"][path].is_object(), "{path} is not there to be left out");
    }
    let (file, ca) = (folder.join("openapi.json"), folder.join("ca.pem"));
    fs::write(&file, document.to_string()).unwrap();
    fs::write(&ca, node.cli(&["ca", "export"]).await.unwrap().ok().unwrap().stdout).unwrap();
    // Something to be found by those who guess.
    let note = json!({"set": {"text": "milk"}});
    node.client()
        .send("PATCH", "/api/v1/objects/note/shopping", Some(&note))
        .await
        .unwrap()
        .success()
        .unwrap();

    let mut generator = python().unwrap();
    generator.args(["-m", "schemathesis.cli", "run"]).arg(&file);
    generator.args(["--url", &format!("https://{}", node.address())]).arg("--tls-verify").arg(&ca);
    generator.args(["--header", &format!("Authorization: Bearer {}", node.token("admin").await.unwrap())]);
    generator.args([
        "--checks",
        CHECKS,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "20",
        "--seed",
        SEED,
    ]);
    generator.args(["--generation-database", "none", "--no-shrink", "--continue-on-failure", "--no-color"]);
    // A wrong token from here would slow down the right one: those are tried elsewhere.
    generator.args(["--generation-with-security-parameters", "false"]);
    generator.args(["--suppress-health-check", "all", "--request-timeout", "35"]);
    for (path, _) in LEFT_OUT {
        generator.args(["--exclude-path", path]);
    }
    generator.current_dir(folder.join("")).stdin(Stdio::null()).kill_on_drop(true);
    let ran = timeout(WITHIN, generator.output()).await.expect("it did not end in time").unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("generated"), "it asked nothing: {said}");
    // It lives, and nothing panicked.
    let metrics = node.client().get("/metrics").await.unwrap().body;
    let panics = metrics.lines().find(|line| line.starts_with("hearth_http_panics_total")).unwrap();
    assert!(panics.ends_with(" 0"), "{panics}");
    assert_eq!(node.client().get("/healthz").await.unwrap().status, 200);
}
