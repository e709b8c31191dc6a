//! The API's port over real TCP and TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    tls::{LocalCa, WallClock, WebNames, WebResolver, resolver::WebRenewal},
    transport::testing::{PATIENCE, TestNode, eventually, identity, loopback},
};

/// A port whose API sends back what it gets.
pub(crate) struct Web {
    address: SocketAddr,
    counters: Arc<TransportCounters>,
    resolver: Arc<WebResolver>,
    challenges: watch::Sender<Arc<Served>>,
    names: watch::Sender<WebNames>,
    /// The node whose mesh it accepts.
    pub(crate) mesh: TestNode,
    roots: RootCertStore,
}

fn wall_clock() -> WallClock {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    WallClock { unix: now.as_secs(), trusted: true }
}

impl Web {
    pub(crate) async fn start(limits: TcpLimits) -> Self {
        let (web, mut connections) = mpsc::channel::<WebConnection>(4);
        tokio::spawn(async move {
            while let Some(mut connection) = connections.recv().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(count) = connection.stream.read(&mut buffer).await {
                        if count == 0 || connection.stream.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self::with_api(limits, web).await
    }

    async fn with_api(limits: TcpLimits, web: mpsc::Sender<WebConnection>) -> Self {
        Self::with_limits(limits, crate::transport::Limits::default(), web).await
    }

    /// A port whose mesh has these limits, and whose API nobody serves.
    pub(crate) async fn with_mesh_limits(limits: crate::transport::Limits) -> Self {
        let (web, mut connections) = mpsc::channel(1);
        tokio::spawn(async move { while connections.recv().await.is_some() {} });
        Self::with_limits(TcpLimits::default(), limits, web).await
    }

    async fn with_limits(
        limits: TcpLimits,
        mesh_limits: crate::transport::Limits,
        web: mpsc::Sender<WebConnection>,
    ) -> Self {
        let ca = LocalCa::generate("kitchen").unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.ca_pem().as_bytes()).unwrap()).unwrap();
        let (names, watched) = watch::channel(WebNames { hostname: "kitchen".into(), addresses: vec![] });
        let renewal = WebRenewal::new(ca, watched, wall_clock).unwrap();
        let resolver = renewal.resolver();
        tokio::spawn(renewal.run());
        let ports = bind_ports(loopback()).await.unwrap();
        let counters = Arc::new(TransportCounters::default());
        let (challenges, answers) = watch::channel(Arc::default());
        let tls = WebTls { config: Arc::new(resolver.web_tls().unwrap()), answers };
        let mesh = TestNode::on(1, ports.udp, counters.clone(), mesh_limits);
        let websocket = mesh.websocket.clone();
        tokio::spawn(serve(ports.tcp, tls, websocket, web, counters.clone(), limits));
        Self { mesh, address: ports.address, counters, resolver, challenges, names, roots }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counters(&self) -> &TransportCounters {
        &self.counters
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self, alpn: &[&[u8]]) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.secure(alpn, self.raw().await).await
    }

    async fn secure(
        &self,
        alpn: &[&[u8]],
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn serves_a_good_client(&self) {
        for alpn in [[b"http/1.1".as_slice()].as_slice(), &[]] {
            let mut client = tokio::time::timeout(PATIENCE, self.connect(alpn)).await.unwrap().unwrap();
            echoes(&mut client).await;
        }
    }
}

async fn echoes(client: &mut tokio_rustls::client::TlsStream<TcpStream>) {
    client.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"hello");
}

/// Soon over, and time enough for a good client on a busy machine.
fn short() -> TcpLimits {
    TcpLimits { deadline: Duration::from_secs(2), ..TcpLimits::default() }
}

#[tokio::test]
async fn a_new_certificate_drops_no_connection() {
    let web = Web::start(TcpLimits::default()).await;
    let mut old = web.connect(&[]).await.unwrap();
    let certificate = |client: &tokio_rustls::client::TlsStream<TcpStream>| {
        client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = certificate(&old);
    web.names.send_modify(|names| names.addresses.push("192.168.1.20".parse().unwrap()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut new = web.connect(&[]).await.unwrap();
        echoes(&mut new).await;
        if certificate(&new) != first {
            break;
        }
        assert!(Instant::now() < deadline, "the certificate was never renewed");
    }
    echoes(&mut old).await;
    assert_eq!(certificate(&old), first);
    drop(web.resolver);
}

#[tokio::test]
async fn plain_http_is_told_what_this_port_speaks() {
    let web = Web::start(TcpLimits::default()).await;
    let mut client = web.raw().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: kitchen.local\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("this port speaks HTTPS"), "{answer}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{} in {head}", body.len());
    assert_eq!(web.counters.get("tcp_plain_http"), 1);
    web.serves_a_good_client().await;
}

#[tokio::test]
async fn the_watchdogs_own_look_is_not_counted_as_a_clients_mistake() {
    use crate::supervisor::Health;
    let web = Web::start(TcpLimits::default()).await;
    let mut health = Health::new(Vec::new(), Some(web.address), PATIENCE);
    assert!(health.stalled().await.is_empty());
    assert!(health.stalled().await.is_empty());
    assert_eq!(web.counters.get("tcp_plain_http"), 0);
}

#[tokio::test]
async fn random_bytes_are_counted_and_a_good_client_is_served() {
    let web = Web::start(TcpLimits::default()).await;
    for bytes in [
        [0x00_u8, 0xff, 0x31, 0x99].as_slice(),
        &[0x80; 600],
        b"\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff",
        &[0x16; 70_000],
    ] {
        let mut client = web.raw().await;
        let _ = client.write_all(bytes).await;
        let mut rest = Vec::new();
        // It is closed, with an alert or without.
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap();
    }
    web.serves_a_good_client().await;
    assert_eq!(web.counters.get("tcp_not_tls"), 2);
    assert_eq!(web.counters.get("tcp_handshake_failed"), 2);
}

#[tokio::test]
async fn half_and_slow_handshakes_end_at_one_deadline_and_a_good_client_is_served() {
    let web = Web::start(short()).await;
    let start = Instant::now();
    let mut silent = web.raw().await;
    let mut half = web.raw().await;
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]).await.unwrap();
    let mut slow = web.raw().await;
    let dripping = tokio::spawn(async move {
        let mut record = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
        record.resize(517, 0);
        // A byte now and then must not extend the deadline.
        for byte in record {
            if slow.write_all(&[byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        false
    });
    web.serves_a_good_client().await;
    for client in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap();
    }
    assert!(dripping.await.unwrap(), "the slow one was never cut off");
    // Half of what the slow one would take.
    assert!(start.elapsed() < Duration::from_secs(10));
    eventually("all three are counted", || web.counters.get("tcp_handshake_timeout") == 3).await;
}

#[tokio::test]
async fn many_unfinished_handshakes_keep_nobody_out() {
    let web = Web::start(TcpLimits { handshakes: 8, guests: 100, deadline: PATIENCE }).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(web.raw().await);
    }
    web.serves_a_good_client().await;
    eventually("the oldest are dropped", || web.counters.get("tcp_handshake_evicted") >= 32).await;
}

/// A connection from another address of this machine.
async fn raw_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(from), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn one_address_crowds_out_itself_and_nobody_else() {
    let web = Web::start(TcpLimits { handshakes: 64, guests: 4, deadline: PATIENCE }).await;
    let neighbour = raw_from([127, 0, 0, 3], web.address).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(raw_from([127, 0, 0, 2], web.address).await);
    }
    eventually("its oldest give way", || web.counters.get("tcp_crowded") == 16).await;
    let mut rest = Vec::new();
    for oldest in &mut idle[..16] {
        // Closed, however it is.
        let _ = tokio::time::timeout(PATIENCE, oldest.read_to_end(&mut rest)).await.unwrap();
    }
    web.serves_a_good_client().await;
    // Even from the same address, and at the cost of that address.
    let stream = raw_from([127, 0, 0, 2], web.address).await;
    let mut client = web.secure(&[], stream).await.unwrap();
    echoes(&mut client).await;
    assert_eq!(web.counters.get("tcp_handshake_evicted"), 0);
    for stays in idle[17..].iter().chain([&neighbour]) {
        let nothing = stays.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "it was closed");
    }
}

#[tokio::test]
async fn unknown_protocols_get_an_alert_and_the_mesh_wants_a_key() {
    let web = Web::start(TcpLimits::default()).await;
    let error = web.connect(&[b"h2"]).await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    for alpn in [ALPN_MESH, ALPN_JOIN] {
        web.connect(&[alpn]).await.unwrap_err();
    }
    eventually("each is counted by its kind", || {
        (web.counters.get("tcp_mesh_refused"), web.counters.get("tcp_unknown_alpn")) == (2, 1)
    })
    .await;
    web.serves_a_good_client().await;
}

/// Speaks the mesh's TLS with a key of its own.
async fn mesh_client(web: &Web, seed: u8) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tls = identity(seed).client_tls(ALPN_MESH).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, web.raw().await).await.unwrap()
}

#[tokio::test]
async fn what_is_not_the_meshs_websocket_is_refused_and_the_deadline_covers_it() {
    let web = Web::start(short()).await;
    for request in [
        "GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        "GET /mesh HTTP/1.1\r\nHost: x\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = mesh_client(&web, 2).await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(web.counters.get("websocket_refused"), 3);
    // TLS is done and nothing follows.
    let mut silent = mesh_client(&web, 2).await;
    let _ = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(web.counters.get("tcp_handshake_timeout"), 1);
    web.serves_a_good_client().await;
}

#[tokio::test]
async fn connections_that_the_api_does_not_take_are_closed() {
    let (web, mut connections) = mpsc::channel(1);
    let web = Web::with_api(short(), web).await;
    let _first = web.connect(&[]).await.unwrap();
    let mut second = web.connect(&[]).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, second.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(web.counters.get("tcp_busy"), 1);
    assert_eq!(connections.recv().await.unwrap().guest.address.ip(), loopback().ip());
}

/// Takes any certificate, as an authority does that looks at it itself.
async fn ask_as_authority(
    web: &Web,
    alpn: &[&[u8]],
    name: Option<&str>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(crate::tls::resolver::testing::AnyCertificate(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.enable_sni = name.is_some();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    let name = ServerName::try_from(name.unwrap_or("unsaid.example.org").to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, web.raw().await).await
}

#[tokio::test]
async fn an_authority_gets_the_certificate_of_its_challenge_and_nothing_else() {
    use crate::tls::{
        acme::Domain,
        alpn_challenge::{ALPN_ACME, certificate},
    };
    let web = Web::start(TcpLimits::default()).await;
    let domain: Domain = "home.example.org".parse().unwrap();
    let made = certificate(&domain, &[7; 32]).unwrap();
    web.challenges.send_replace(Arc::new(Served::of_tls_alpn("home.example.org", made.clone())));
    let mut client = ask_as_authority(&web, &[ALPN_ACME], Some("HOME.example.org")).await.unwrap();
    let shown = client.get_ref().1;
    assert_eq!(shown.alpn_protocol(), Some(ALPN_ACME));
    assert_eq!(shown.peer_certificates().unwrap()[0], made.cert[0]);
    let _ = client.write_all(b"GET /api/v1/ca HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty(), "the API is not served under this protocol");
    eventually("it is counted", || web.counters.get("tcp_acme_answered") == 1).await;
    // Somebody else's client, which also looks whether the key is the certificate's.
    let output = tokio::process::Command::new("openssl")
        .args(["s_client", "-alpn", "acme-tls/1", "-servername", "home.example.org", "-connect"])
        .arg(web.address.to_string())
        .stdin(std::process::Stdio::null())
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap().expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("ALPN protocol: acme-tls/1"), "{output:?}");
    web.serves_a_good_client().await;
}

#[tokio::test]
async fn other_names_and_other_protocols_get_no_certificate_of_a_challenge() {
    use crate::tls::alpn_challenge::{ALPN_ACME, certificate};
    let web = Web::start(TcpLimits::default()).await;
    let made = certificate(&"home.example.org".parse().unwrap(), &[7; 32]).unwrap();
    web.challenges.send_replace(Arc::new(Served::of_tls_alpn("home.example.org", made.clone())));
    for name in [Some("other.example.org"), Some("x.home.example.org"), Some("localhost"), None] {
        let error = ask_as_authority(&web, &[ALPN_ACME], name).await.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{name:?}: {error}");
    }
    assert_eq!(web.counters.get("tcp_acme_unknown"), 4);
    // Two protocols: whoever asks is no authority.
    for alpn in [[ALPN_ACME, b"http/1.1"], [b"http/1.1", ALPN_ACME]] {
        let client = ask_as_authority(&web, &alpn, Some("home.example.org")).await.unwrap();
        let shown = client.get_ref().1;
        assert_eq!(shown.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_ne!(shown.peer_certificates().unwrap()[0], made.cert[0]);
    }
    let error = ask_as_authority(&web, &[ALPN_ACME, b"h2"], Some("home.example.org")).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    ask_as_authority(&web, &[ALPN_ACME, ALPN_MESH], Some("home.example.org")).await.unwrap_err();
    web.serves_a_good_client().await;
}

#[tokio::test]
async fn plain_http_gets_the_way_and_a_body_does_not_hide_it() {
    let web = Web::start(TcpLimits::default()).await;
    for (request, link) in [
        ("GET /x HTTP/1.1\r\nHost: kitchen.local:7843\r\n\r\n", Some("https://kitchen.local:7843/x")),
        (
            "POST /x HTTP/1.1\r\nHost: kitchen.local\r\nContent-Length: 5\r\n\r\nhello",
            Some("https://kitchen.local/x"),
        ),
        ("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", None),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", None),
    ] {
        let mut client = web.raw().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("Location"), "{answer}");
        assert!(link.map_or(!answer.contains("href"), |link| answer.contains(link)), "{answer}");
    }
    // More than a head may have is not waited for.
    let mut client = web.raw().await;
    client.write_all(&[b'A'; 10_000]).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(web.counters.get("tcp_plain_http"), 5);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_protocol() {
    let ports = bind_ports(loopback()).await.unwrap();
    assert_eq!(ports.udp.local_addr().unwrap(), ports.address);
    let error = bind_ports(ports.address).await.unwrap_err();
    assert!(matches!(error, BindError::InUse(_, _, "TCP")), "{error}");
    drop(ports.tcp);
    let error = bind_ports(ports.address).await.unwrap_err();
    assert!(matches!(error, BindError::InUse(_, _, "UDP")), "{error}");
    assert!(error.to_string().contains(&ports.address.port().to_string()), "{error}");
}
