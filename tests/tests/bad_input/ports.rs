//! What anybody on the network can send to the two ports, TCP and UDP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hearth_tests::hostile::{
    Home, PATIENCE,
    peer::{Stranger, noise, within},
    tcp_from, wait_until,
};
use node::tls::identity::{ALPN_JOIN, ALPN_MESH};
use rustls::pki_types::ServerName;
use tokio::task::block_in_place;

fn tcp(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// Reads until the node ends the connection, however it does.
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the node keeps it open"),
        _ => answer,
    }
}

#[test]
fn random_bytes_on_the_udp_port_are_counted_and_forgotten() {
    let home = Home::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut sent = 0_u64;
    for round in 0..4_000_usize {
        let mut packet = noise(1 + round * 7 % 1_400);
        // Half of them look like QUIC at their first bit, some like the start of a connection.
        match round % 4 {
            0 => packet[0] |= 0x40,
            1 if packet.len() > 5 => packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]),
            _ => packet[0] &= !0x40,
        }
        sent += u64::from(socket.send_to(&packet, home.a.address).is_ok() && packet[0] & 0x40 == 0);
        if round % 100 == 99 {
            // As fast as the node reads: what the system drops where a buffer is full is no bad input.
            home.a.wait_counter("udp_not_quic", sent * 9 / 10);
        }
    }
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn random_bytes_on_the_tcp_port_are_named_by_what_they_are() {
    let home = Home::new();
    let a = home.a.address;
    for _ in 0..50 {
        let mut stream = tcp(a);
        let mut bytes = noise(2_000);
        bytes[0] = 0x80;
        // The node may end the connection before it has all of it.
        let _ = stream.write_all(&bytes);
        until_closed(&mut stream);
    }
    home.a.wait_counter("tcp_not_tls", 50);
    for _ in 0..50 {
        let mut stream = tcp(a);
        let _ = stream.write_all(&[&[0x16, 3, 1, 1, 0], noise(2_000).as_slice()].concat());
        until_closed(&mut stream);
    }
    home.a.wait_counter("tcp_handshake_failed", 50);
    let mut stream = tcp(a);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is sent");
    let answer = String::from_utf8_lossy(&until_closed(&mut stream)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("hearth ca export"), "{answer}");
    home.a.wait_counter("tcp_plain_http", 1);
    home.is_served();
    home.memory_is_bounded();
}

/// Speaks TLS with one ALPN and no key over TCP until the node says no, in words.
fn offer(to: SocketAddr, alpn: &[u8]) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = tcp(to);
    tls.complete_io(&mut stream).expect_err("the node refuses").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_of_somebody_else_is_refused_in_the_handshake() {
    let home = Home::new();
    block_in_place(|| {
        let error = offer(home.a.address, b"imap");
        assert!(error.contains("NoApplicationProtocol"), "{error}");
        home.a.wait_counter("tcp_unknown_alpn", 1);
        offer(home.a.address, ALPN_MESH);
        home.a.wait_counter("tcp_mesh_refused", 1);
    });
    let stranger = Stranger::new();
    let refused = within("a refusal", stranger.try_connect(home.a.address, b"h3")).await;
    let refused = refused.expect_err("the node refuses").to_string();
    assert!(refused.contains("no application protocol") || refused.contains("120"), "{refused}");
    block_in_place(|| {
        home.a.wait_counter("unknown_alpn", 1);
        home.is_served();
        home.memory_is_bounded();
    });
}

#[test]
fn half_and_slow_handshakes_over_tcp_keep_nobody_out() {
    let home = Home::new();
    let a = home.a.address;
    // One address has no more than its share, and an honest client from it is served all the same.
    let silent: Vec<TcpStream> = (0..50).map(|_| tcp(a)).collect();
    home.a.wait_counter("tcp_crowded", 50 - 32);
    assert_eq!(home.a.https_from(1, "GET", "/healthz", b"").0, 200);
    home.is_served();
    // A client hello announces 512 bytes and sends three of them.
    let half: Vec<TcpStream> = (0..150)
        .map(|number| {
            let mut stream = tcp_from(2 + number % 6, a);
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).expect("it is sent");
            stream
        })
        .collect();
    home.a.wait_counter("tcp_handshake_evicted", 150 - 64);
    for number in [1, 2] {
        assert_eq!(
            home.a.https_from(number, "GET", "/healthz", b"").0,
            200,
            "it shares an address with them"
        );
    }
    home.is_served();
    let mut slow = tcp(a);
    let open = Arc::new(AtomicBool::new(true));
    let still = open.clone();
    let mut writer = slow.try_clone().expect("a handle");
    let dribble = thread::spawn(move || {
        let hello = [[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].as_slice(), &[0; 500]].concat();
        for byte in hello {
            if !still.load(Ordering::Relaxed) || writer.write_all(&[byte]).is_err() {
                break;
            }
            thread::park_timeout(Duration::from_millis(100));
        }
    });
    until_closed(&mut slow);
    open.store(false, Ordering::Relaxed);
    dribble.join().expect("the slow client");
    home.a.wait_counter("tcp_handshake_timeout", 1);
    home.is_served();
    home.memory_is_bounded();
    drop((half, silent));
}

/// Carries packets from clients to the node and none back: every handshake stops half way.
struct OneWay {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OneWay {
    fn start(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline");
        let address = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = thread::spawn(move || {
            let mut packet = [0; 2_048];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut packet)
                    && from != to
                {
                    // What is lost was not to be answered anyway.
                    let _ = socket.send_to(&packet[..length], to);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for OneWay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_and_slow_handshakes_over_quic_keep_nobody_out() {
    let home = Home::new();
    let a = home.a.address;
    let one_way = OneWay::start(a);
    let strangers: Vec<Stranger> = (0..8).map(|_| Stranger::new()).collect();
    let half: Vec<_> = (0..200)
        .map(|number| strangers[number % 8].start_connect(one_way.address, ALPN_MESH))
        .map(|connecting| tokio::spawn(async move { connecting.await.map(|_| ()) }))
        .collect();
    block_in_place(|| {
        // Beyond a few, a client must first show that it receives at its address.
        home.a.wait_counter("address_validation", 1);
        home.is_served();
        // Those let in before that never finish.
        home.a.wait_counter("handshake_timeout", 1);
    });
    half.iter().for_each(tokio::task::JoinHandle::abort);
    drop(one_way);
    // Slow: a whole handshake and then nothing, or one byte of a frame or of a request and then
    // nothing.
    let slow = Stranger::new();
    let silent = slow.connect(a, ALPN_MESH).await;
    let mut dribbling = slow.open(a, ALPN_MESH).await;
    dribbling.bytes(&[0]).await;
    let mut joining = slow.open(a, ALPN_JOIN).await;
    joining.bytes(&[0]).await;
    let before = block_in_place(|| home.a.counter("handshake_timeout"));
    within("the silent one is dropped", silent.closed()).await;
    block_in_place(|| home.a.wait_counter("handshake_timeout", before.max(1)));
    within("the dribbling one is dropped", dribbling.connection.closed()).await;
    within("the joining one is dropped", joining.connection.closed()).await;
    block_in_place(|| {
        home.a.wait_counter("join_timeout", 1);
        wait_until("the stranger is counted", || {
            home.a.counter("offence_before_hello") + home.a.counter("stranger_timeout") >= 1
        });
        home.is_served();
        home.memory_is_bounded();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_hold_links_are_bounded_and_keep_no_member_out() {
    let home = Home::new();
    let mut open = Vec::new();
    for _ in 0..40 {
        let stranger = Stranger::new();
        let connection = stranger.connect(home.a.address, ALPN_MESH).await;
        // Beyond some the node says `busy` instead.
        if let Ok((mut send, recv)) = within("a stream", connection.open_bi()).await {
            let _ = within("a byte", send.write_all(&[0])).await;
            open.push((stranger, connection, send, recv));
        }
    }
    block_in_place(|| {
        home.a.wait_counter("stranger_busy", 1);
        home.is_served();
        home.memory_is_bounded();
    });
}

#[test]
fn requests_over_their_size_are_refused_over_tls() {
    let home = Home::new();
    // What the node does not read any more may reset the connection under its own answer.
    let refused = (0..20).any(|_| {
        let mut client = home.a.tls_client();
        let _ =
            write!(client, "GET /api/v1/objects/note/{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(64 * 1024));
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 431") || answer.starts_with(b"HTTP/1.1 414")
    });
    assert!(refused);
    // No more than fits the connection's buffers, for the same reason.
    let (status, body) = home.a.https("POST", "/api/v1/setup", &vec![b' '; 128 << 10]);
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("urn:hearth:problem:too-large"), "{body}");
    assert!(home.a.requests("/api/v1/setup", "4xx") >= 1);
    home.is_served();
    home.memory_is_bounded();
}

/// Their handshakes are done, and then they ask half a question. A head that never ends is hung up
/// on after 15 s, a body after 30: whoever is served much sooner did not wait for them.
#[test]
fn clients_that_dribble_after_their_handshake_keep_the_api_from_nobody() {
    // Whoever waited for a dribbler waited 15 s at least.
    const SOON: Duration = Duration::from_secs(12);
    let home = Home::new();
    let head = b"POST /api/v1/setup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let body = b"Content-Length: 1000\r\n\r\n{";
    let open: Vec<_> = (0..300)
        .map(|number| {
            let mut client = home.a.tls_over(tcp_from(2, home.a.address));
            client.write_all(head).expect("half a head");
            // No more than one address may ask at once: who is refused is not held.
            if number % 4 == 0 {
                client.write_all(body).expect("half a body");
            }
            client
        })
        .collect();
    // The commands of this machine do not wait for them, nor does a client from elsewhere.
    let began = Instant::now();
    home.a.put("note/socket", "text", &serde_json::json!("served"));
    for _ in 0..3 {
        assert_eq!(home.a.https("GET", "/healthz", b"").0, 200);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    home.a.wait_counter("tcp_crowded", 300 - 32);
    // Nor does one from the same address, which is served at the cost of the oldest of them.
    let began = Instant::now();
    assert_eq!(home.a.https_from(2, "GET", "/healthz", b"").0, 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    home.is_served();
    home.memory_is_bounded();
    drop(open);
}
