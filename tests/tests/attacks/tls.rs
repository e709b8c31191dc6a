//! What is sent before anybody has said who he is: TLS of yesterday, no TLS at all, resumption, protocols of somebody else.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use hearth_tests::hostile::peer::Stranger;
use node::tls::identity::{ALPN_JOIN, ALPN_MESH};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, SignatureScheme, client::ResolvesClientCert,
    pki_types::ServerName, sign::CertifiedKey, version,
};
use tokio::task::block_in_place;

use super::bench::{Bench, Hangup, Status, read_reply, request};

pub(crate) async fn attack(bench: &mut Bench) {
    plain(bench).await;
    handshakes(bench).await;
    resumption(bench).await;
}

async fn plain(bench: &mut Bench) {
    let cases: [(&str, Vec<u8>, _); 6] = [
        ("HTTP without TLS", b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Status(400)),
        (
            "HTTP without TLS, for the host of an attacker",
            b"GET / HTTP/1.1\r\nHost: evil.example\"><script>\r\n\r\n".to_vec(),
            Status(400),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Status(400)),
        ("a hello of SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], Hangup),
        (
            "a record of 64 KiB in the place of a hello",
            [vec![0x16, 3, 1, 0xff, 0xff], vec![0; 70_000]].concat(),
            Hangup,
        ),
        ("a hello that is cut off", vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3], Hangup),
    ];
    for (name, bytes, refusal) in cases {
        let reply = block_in_place(|| {
            let mut stream = bench.tcp();
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_reply(&mut stream)
        });
        // Letters are taken for HTTP and answered so; the rest for broken TLS, which may be told by an alert.
        bench.judge(name, reply.as_ref(), refusal).await;
    }
}

fn client(
    bench: &Bench,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(bench_roots(bench))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    config
}

fn bench_roots(bench: &Bench) -> rustls::RootCertStore {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bench.pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// A client that has no key to show, and would show a raw one (RFC 7250), as the mesh has them.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A client of the mesh that takes any server for a node, as the attacker is the one who dials.
fn without_key(alpn: &[u8]) -> ClientConfig {
    let mut config = Stranger::new().identity.client_tls(alpn).unwrap();
    config.client_auth_cert_resolver = Arc::new(NoKey);
    config
}

/// How a handshake ends, be it after the client takes it for done: in TLS 1.3 that is before the server has said no.
fn end_of(bench: &Bench, config: ClientConfig) -> Option<rustls::Error> {
    let mut tls =
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut stream = bench.tcp();
    let ended = tls.complete_io(&mut stream).err().or_else(|| {
        let mut stream = rustls::Stream::new(&mut tls, &mut stream);
        stream.read_exact(&mut [0; 1]).err()
    });
    ended.and_then(|error| error.downcast::<rustls::Error>().ok())
}

async fn handshakes(bench: &mut Bench) {
    use AlertDescription::{
        CertificateRequired, HandshakeFailure, NoApplicationProtocol, ProtocolVersion, UnrecognisedName,
    };
    let web = |bench: &Bench, version, alpn: &[u8]| client(bench, &[version], &[alpn]);
    let cases = [
        ("TLS 1.2", web(bench, &version::TLS12, b"http/1.1"), ProtocolVersion),
        ("HTTP/2 alone", web(bench, &version::TLS13, b"h2"), NoApplicationProtocol),
        (
            "a challenge of ACME for a name that has none",
            web(bench, &version::TLS13, b"acme-tls/1"),
            UnrecognisedName,
        ),
        ("the mesh without a key", without_key(ALPN_MESH), CertificateRequired),
        ("the joiners' protocol without a key", without_key(ALPN_JOIN), CertificateRequired),
        (
            "the mesh with the certificates of the web",
            web(bench, &version::TLS13, ALPN_MESH),
            HandshakeFailure,
        ),
    ];
    for (name, config, expected) in cases {
        let ended = block_in_place(|| end_of(bench, config));
        bench.must(name, ended, Some(rustls::Error::AlertReceived(expected))).await;
    }
}

/// Data before the handshake is done could be replayed: a client that resumes a session is offered no place for it.
async fn resumption(bench: &mut Bench) {
    let mut config = client(bench, &[&version::TLS13], &[b"http/1.1"]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let attempts = block_in_place(|| {
        let name = ServerName::try_from("localhost").unwrap();
        (0..2)
            .map(|_| {
                let mut tls = ClientConnection::new(config.clone(), name.clone()).unwrap();
                let early = tls.early_data().is_some();
                let mut stream = bench.tcp();
                let mut stream = rustls::Stream::new(&mut tls, &mut stream);
                stream.write_all(&request("GET", "/healthz", &[], b"")).unwrap();
                assert_eq!(read_reply(&mut stream).unwrap().status, 200);
                early
            })
            .collect::<Vec<_>>()
    });
    assert!(attempts.iter().all(|early| !early), "data before the handshake was taken");
    bench.passed("data before the handshake is done (0-RTT)").await;
}
