#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cli::testing::TempDir;
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::UnixListener;

type Answer = Response<Full<Bytes>>;

/// Serves every connection on the socket of a state folder with one function.
fn serve(folder: &TempDir, answer: fn(Request<Incoming>) -> Answer) -> Client {
    let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request)) });
            tokio::spawn(
                server::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades(),
            );
        }
    });
    Client::new(folder.path().into())
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn requests_carry_method_path_body_and_type() {
    let folder = TempDir::new();
    let client = serve(&folder, |request| {
        let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let seen =
            json!({"method": request.method().as_str(), "uri": request.uri().to_string(), "type": kind});
        answer(200, seen.to_string())
    });
    let seen = client.call(Method::PATCH, "/api/v1/objects/note/x?a=%20", Some(&json!({}))).await.unwrap();
    assert_eq!(
        seen,
        json!({"method": "PATCH", "uri": "/api/v1/objects/note/x?a=%20", "type": "application/json"})
    );
    assert_eq!(client.get("/x").await.unwrap()["type"], Value::Null);
}

#[tokio::test]
async fn an_empty_answer_is_null() {
    let folder = TempDir::new();
    let client = serve(&folder, |_| answer(204, ""));
    assert_eq!(client.call(Method::DELETE, "/x", None).await.unwrap(), Value::Null);
}

#[tokio::test]
async fn problems_become_exit_codes_with_detail_and_fix() {
    let folder = TempDir::new();
    let client = serve(&folder, |request| {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        let body = json!({"type": "urn:hearth:problem:x", "title": "X", "status": status, "detail": "the detail", "fix": "the fix"});
        answer(status, body.to_string())
    });
    for (status, exit) in [
        (400, Exit::Refused),
        (401, Exit::NotPermitted),
        (403, Exit::NotPermitted),
        (404, Exit::NotFound),
        (409, Exit::Refused),
        (413, Exit::Refused),
        (429, Exit::Refused),
        (500, Exit::Failure),
        (503, Exit::Failure),
        (504, Exit::TimedOut),
    ] {
        let failure = client.get(&format!("/{status}")).await.unwrap_err();
        assert_eq!(failure.exit, exit, "{status}");
        assert_eq!((failure.detail.as_str(), failure.fix.as_deref()), ("the detail", Some("the fix")));
        assert_eq!(failure.to_json()["type"], "urn:hearth:problem:x");
    }
}

#[tokio::test]
async fn answers_that_are_no_documents_are_told_apart() {
    let folder = TempDir::new();
    let client = serve(&folder, |request| match request.uri().path() {
        "/plain" => answer(500, "it broke"),
        _ => answer(200, "<html>"),
    });
    let failure = client.get("/plain").await.unwrap_err();
    assert_eq!((failure.exit, failure.detail.as_str()), (Exit::Failure, "the node answered 500: it broke"));
    let failure = client.get("/html").await.unwrap_err();
    assert!(failure.detail.contains("not JSON") && failure.fix.unwrap().contains("same version"));
}

#[tokio::test]
async fn a_node_that_is_not_there_is_started_by_the_command_that_is_shown() {
    let folder = TempDir::new();
    let missing = folder.path().join("none");
    let failure = Client::new(missing.clone()).get("/x").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.contains("no state folder"), "{}", failure.detail);
    assert!(failure.fix.unwrap().contains(&format!("hearth run --state-dir {}", missing.display())));

    let failure = Client::new(folder.path().into()).get("/x").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.starts_with("no node runs in"), "{}", failure.detail);

    drop(UnixListener::bind(folder.path().join(SOCKET)).unwrap());
    let failure = Client::new(folder.path().into()).get("/x").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.contains("nobody listens"), "{}", failure.detail);

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failure = Client::new(file).get("/x").await.unwrap_err();
    assert!(failure.detail.contains("is not a folder"), "{}", failure.detail);
}

#[test]
fn a_socket_that_may_not_be_opened_says_which_group_may() {
    // Root may open everything, so the operating system's answer is given as it is.
    let folder = TempDir::new();
    let socket = folder.path().join(SOCKET);
    let refused = io::Error::from(ErrorKind::PermissionDenied);
    let failure = explain(folder.path(), &socket, &refused);
    assert_eq!(failure.exit, Exit::NotPermitted);
    assert!(failure.fix.unwrap().contains("sudo"));
    // Nothing to be seen: the usual group, where there is one.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let groups = |own: u32| format!("root:x:0:\nhearth:x:998:\nbroken\nhome:x:{own}:pi\n");
    assert_eq!(socket_group(&socket, &groups(4242)).as_deref(), Some("hearth"));
    assert_eq!(socket_group(&socket, "root:x:0:\n"), None, "no group to join");
    // An existing socket names its own group; that of root is nobody's to enter.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o660)).unwrap();
    let own = std::fs::metadata(&socket).unwrap().gid();
    let expected = if own == 0 { "hearth" } else { "home" };
    assert_eq!(socket_group(&socket, &groups(own)).as_deref(), Some(expected));
    let failure =
        explain(Path::new("/var/lib/hearth"), &socket, &io::Error::from(ErrorKind::ConnectionRefused));
    assert!(failure.fix.unwrap().contains("sudo systemctl start hearth"));
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_explained() {
    let folder = TempDir::new();
    let long = folder.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let failure = Client::new(long).get("/x").await.unwrap_err();
    assert!(failure.detail.contains("107 bytes"), "{}", failure.detail);
    assert!(failure.fix.unwrap().contains("--state-dir"));
}

#[tokio::test]
async fn a_node_that_hangs_or_breaks_off_is_told_apart() {
    let folder = TempDir::new();
    let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
    let client = Client::new(folder.path().into()).patient(Duration::from_millis(50));
    let failure = client.get("/x").await.unwrap_err();
    assert_eq!(failure.exit, Exit::TimedOut);
    let held = listener.accept().await.unwrap();
    drop(held);
    let client = Client::new(folder.path().into());
    let (answer, ()) = tokio::join!(client.get("/x"), async {
        drop(listener.accept().await.unwrap());
    });
    let failure = answer.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.contains("broke off"), "{}", failure.detail);
}

#[tokio::test]
async fn a_watch_that_is_refused_shows_the_problem() {
    let folder = TempDir::new();
    let client = serve(&folder, |_| answer(403, json!({"detail": "no", "fix": "ask"}).to_string()));
    let failure = client.watch().await.unwrap_err();
    assert_eq!((failure.exit, failure.detail.as_str()), (Exit::NotPermitted, "no"));
}

#[test]
fn segments_keep_names_apart_from_paths() {
    assert_eq!(segment("lifx-1:2"), "lifx-1%3A2");
    assert_eq!(segment("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
}
