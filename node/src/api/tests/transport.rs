#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
//! Real sockets: limits, slow clients, panics, the end.

use std::{path::PathBuf, time::Duration};

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::UnixStream,
    task::JoinHandle,
};

use super::*;
use crate::{
    api::serve::{HttpServer, ServeError, accept_unix, bind_unix},
    listener::{Crowd, Guest},
};

impl Bench {
    /// The router on a real Unix socket.
    pub(super) async fn listen(&self, router: Router) -> (PathBuf, JoinHandle<Result<(), ServeError>>) {
        let path = self.folder.path().join("hearth.sock");
        let server =
            HttpServer::new(router, Arc::clone(&self.context.metrics), self.context.shutdown.clone());
        let at = path.clone();
        let task = tokio::spawn(async move {
            accept_unix(bind_unix(&at, "hearth").await?, &server).await;
            Ok(())
        });
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&path).await.is_err() {
            assert!(
                tokio::time::Instant::now() < deadline && !task.is_finished(),
                "the socket never answered"
            );
            tokio::task::yield_now().await;
        }
        (path, task)
    }
}

async fn get_over(path: &PathBuf, route: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let request = format!("GET {route} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn whoever_opens_the_socket_is_admin_until_the_node_stops() {
    let bench = Bench::new();
    let (path, task) = bench.listen(bench.router(Access::Socket)).await;
    let answer = get_over(&path, "/api/v1/tokens").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("{\"tokens\":[]}"), "{answer}");
    // An idle connection does not hold the end up.
    let _idle = UnixStream::connect(&path).await.unwrap();
    bench.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_request_only() {
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let bench = Bench::new();
    let outermost = axum::middleware::from_fn_with_state(Arc::clone(&bench.context), super::super::outermost);
    let broken = Router::new().route("/broken", get(broken)).layer(outermost);
    let (path, _task) = bench.listen(bench.router(Access::Socket).merge(broken)).await;
    let answer = get_over(&path, "/broken").await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("urn:hearth:problem:internal"), "{answer}");
    assert!(!answer.contains("on purpose"));
    assert!(get_over(&path, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get_over(&path, "/metrics").await.contains("hearth_http_panics_total 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_answered_for() {
    let bench = Bench::new();
    let outermost = axum::middleware::from_fn_with_state(Arc::clone(&bench.context), super::super::outermost);
    let hanging = Router::new().route("/hang", get(std::future::pending::<()>)).layer(outermost);
    let request = Request::get("/hang").body(Body::empty()).unwrap();
    let response = hanging.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_hung_up_on() {
    let bench = Bench::new();
    let metrics = Arc::clone(&bench.context.metrics);
    let server = HttpServer::new(bench.router(Access::Bearer), metrics, bench.context.shutdown.clone());
    let (mut client, served) = tokio::io::duplex(1024);
    let task = tokio::spawn(async move {
        let guest = "127.0.0.1:9".parse::<std::net::SocketAddr>().ok().map(Guest::from);
        server.serve_stream(served, guest).await
    });
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("the connection ends").unwrap();
}

#[tokio::test]
async fn garbage_and_endless_heads_end_the_connection_and_no_other() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    for garbage in
        [vec![0xff; 4096], vec![b'a'; 200_000], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(9)]
    {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // The server may hang up in the middle of it.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
    }
    assert!(get_over(&path, "/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn attempts_are_paced_by_the_address_of_the_connection() {
    let bench = Bench::new();
    let metrics = Arc::clone(&bench.context.metrics);
    let server = HttpServer::new(bench.router(Access::Bearer), metrics, bench.context.shutdown.clone());
    let attempt = |peer: &'static str| {
        let server = server.clone();
        async move {
            let (mut client, served) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                let guest = peer.parse::<std::net::SocketAddr>().ok().map(Guest::from);
                server.serve_stream(served, guest).await
            });
            let request = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hth_x\r\nConnection: close\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer.get(9..12).unwrap().to_owned()
        }
    };
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(attempt("10.0.0.1:5").await);
    }
    assert_eq!((seen[0].as_str(), seen[7].as_str()), ("401", "429"), "{seen:?}");
    assert_eq!(attempt("10.0.0.2:5").await, "401");
}

/// A guest from an address, and whether its connection has ended.
async fn guest(crowd: &mut Crowd, server: &HttpServer, address: &str) -> (DuplexStream, JoinHandle<()>) {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let (place, _) = crowd.enter(address.ip());
    let (client, served) = tokio::io::duplex(16 * 1024);
    let server = server.clone();
    (client, tokio::spawn(async move { server.serve_stream(served, Some(Guest { address, place })).await }))
}

async fn ask(client: &mut DuplexStream, token: &str) -> String {
    let request =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let length = client.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn whoever_has_shown_a_token_gives_way_to_nobody() {
    let bench = Bench::new();
    let metrics = Arc::clone(&bench.context.metrics);
    let server = HttpServer::new(bench.router(Access::Bearer), metrics, bench.context.shutdown.clone());
    let token = bench.token(Role::Viewer).await;
    let mut crowd = Crowd::new(2, 100);
    let (mut known, known_task) = guest(&mut crowd, &server, "10.0.0.1:1").await;
    assert!(ask(&mut known, &token).await.starts_with("HTTP/1.1 200"));
    let (mut wrong, wrong_task) = guest(&mut crowd, &server, "10.0.0.1:2").await;
    assert!(ask(&mut wrong, "hth_wrong").await.starts_with("HTTP/1.1 401"));
    // Dribblers of the same address: the one with the wrong token is the first to go.
    let mut dribblers = Vec::new();
    for port in 3..9 {
        let (mut client, task) = guest(&mut crowd, &server, &format!("10.0.0.1:{port}")).await;
        client.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.unwrap();
        dribblers.push((client, task));
    }
    let within = Duration::from_secs(10);
    tokio::time::timeout(within, wrong_task).await.expect("it gives way").unwrap();
    for (_, task) in &mut dribblers[..4] {
        tokio::time::timeout(within, task).await.expect("it gives way").unwrap();
    }
    assert!(dribblers[4..].iter().all(|(_, task)| !task.is_finished()));
    // It idled meanwhile, and is still served.
    assert!(!known_task.is_finished());
    assert!(ask(&mut known, &token).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_websocket_without_a_token_counts_until_it_shows_one() {
    let bench = Bench::new();
    let metrics = Arc::clone(&bench.context.metrics);
    let server = HttpServer::new(bench.router(Access::Bearer), metrics, bench.context.shutdown.clone());
    let token = bench.token(Role::Viewer).await;
    let mut crowd = Crowd::new(1, 100);
    let upgrade = b"GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: hearth.v1\r\n\r\n";
    let mut sockets = Vec::new();
    for shows_token in [true, false] {
        let (mut client, _task) = guest(&mut crowd, &server, "10.0.0.1:1").await;
        client.write_all(upgrade).await.unwrap();
        let mut answer = [0; 4096];
        let length = client.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 101"));
        if shows_token {
            let text = json!({"type": "auth", "token": token}).to_string();
            // One masked text frame (RFC 6455, section 5.2); the mask is zero.
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 126);
            client.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()).await.unwrap();
            let observers = || bench.context.metrics.observers();
            while observers() == 0 {
                tokio::task::yield_now().await;
            }
        }
        sockets.push(client);
    }
    let _newest = guest(&mut crowd, &server, "10.0.0.1:2").await;
    let mut rest = Vec::new();
    let ended = sockets[1].read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it gives way").unwrap();
    assert_eq!(bench.context.metrics.observers(), 1);
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    sockets[0].write_all(&ping).await.unwrap();
    // The node may have sent a ping of its own before.
    let mut frame = [0x89, 0];
    while frame == [0x89, 0] {
        let read = sockets[0].read_exact(&mut frame);
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    }
    assert_eq!(frame, [0x8a, 0], "a pong");
}
