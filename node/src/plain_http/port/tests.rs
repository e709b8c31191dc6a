//! The HTTP port over real TCP on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use tokio::net::TcpStream;

use super::*;
use crate::{
    tls::{WebNames, acme::answers::Served},
    transport::testing::{PATIENCE, eventually, loopback},
};

struct Bench {
    address: SocketAddr,
    counters: Arc<HttpCounters>,
    serves: watch::Receiver<Option<Serves>>,
}

fn site() -> Site {
    Site {
        answers: watch::channel(Arc::new(Served::of_http(&[("home.example.org", "tok", "tok.print")]))).1,
        domains: vec!["home.example.org".parse().unwrap()],
        names: watch::channel(WebNames::default()).1,
        api_port: 7843,
        public_port: 7843,
    }
}

type Watched = (HttpPort, watch::Receiver<PortStatus>, watch::Receiver<Option<Serves>>);

fn port(address: SocketAddr, counters: Arc<HttpCounters>) -> Watched {
    let (status, status_rx) = watch::channel(PortStatus::Opening);
    let (serves, serves_rx) = watch::channel(Some(Serves { http: false, tls_alpn: true }));
    (HttpPort::new(address, site(), counters, status, serves), status_rx, serves_rx)
}

async fn start() -> Bench {
    let counters = Arc::new(HttpCounters::default());
    let (port, mut status, serves) = port(loopback(), counters.clone());
    tokio::spawn(port.run());
    let open = status.wait_for(|status| matches!(status, PortStatus::Open(_))).await.unwrap().clone();
    let PortStatus::Open(address) = open else { panic!() };
    Bench { address, counters, serves }
}

impl Bench {
    async fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _ = stream.write_all(request).await;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn it_answers_challenges_and_redirects_and_closes() {
    let bench = start().await;
    assert_eq!(*bench.serves.borrow(), Some(Serves { http: true, tls_alpn: true }));
    let path = "/.well-known/acme-challenge/tok";
    let request = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: home.example.org\r\n\r\n");
    let answer = bench.ask(request("GET").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain") && body == "tok.print",
        "{answer}"
    );
    assert!(head.contains("Content-Length: 9\r\n") && head.ends_with("Connection: close"), "{answer}");
    let answer = bench.ask(request("HEAD").as_bytes()).await;
    assert!(answer.contains("Content-Length: 9\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = bench.ask(b"GET /a HTTP/1.1\r\nHost: home.example.org\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("\r\nLocation: https://home.example.org:7843/a\r\n"), "{answer}");
    // One request a connection, whatever the client wants.
    let two = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    assert_eq!(bench.ask(two.as_bytes()).await.matches("HTTP/1.1 ").count(), 1);
    assert_eq!(bench.counters.get("http_port_challenge_answered"), 2);
    assert_eq!(bench.counters.get("http_port_redirected"), 2);
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_no_body_is_read() {
    let bench = start().await;
    let answer =
        bench.ask(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\nhello").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    let answer = bench.ask(b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
    let answer = bench.ask(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(bench.counters.get("http_port_refused"), 3);
}

#[tokio::test]
async fn many_silent_connections_keep_nobody_out() {
    let bench = start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS + 16 {
        idle.push(TcpStream::connect(bench.address).await.unwrap());
    }
    let answer = bench.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    eventually("the oldest gave way", || bench.counters.get("http_port_evicted") >= 16).await;
    let mut rest = Vec::new();
    // Closed, however it is.
    let _ = timeout(PATIENCE, idle[0].read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_ends_at_its_deadline() {
    let (mut client, server) = tokio::io::duplex(64);
    let counters = Arc::new(HttpCounters::default());
    let talking = tokio::spawn(talk(server, site(), counters.clone()));
    // A byte a second is no sign of an end.
    for byte in b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    talking.await.unwrap();
    assert_eq!(counters.get("http_port_timeout"), 1);
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_told_and_no_challenge_over_http_promised() {
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let (port, mut status, serves) = port(address, Arc::default());
    let running = tokio::spawn(port.run());
    let closed = status.wait_for(|status| matches!(status, PortStatus::Closed { .. })).await.unwrap().clone();
    assert!(closed.to_string().contains(&address.to_string()), "{closed}");
    assert_eq!(*serves.borrow(), Some(Serves { http: false, tls_alpn: true }));
    let PortStatus::Closed { kind, .. } = closed else { panic!() };
    assert!(way_out(kind).contains("ss -ltp"));
    assert!(way_out(io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
    running.abort();
}
