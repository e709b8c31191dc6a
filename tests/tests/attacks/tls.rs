//! What is sent before anybody has said who he is: TLS of yesterday, no TLS at all, resumption, protocols of somebody else.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName, version};
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

async fn handshakes(bench: &mut Bench) {
    type Versions = Vec<&'static rustls::SupportedProtocolVersion>;
    let cases: [(&str, Versions, Vec<&[u8]>, &str); 4] = [
        ("TLS 1.2", vec![&version::TLS12], vec![b"http/1.1"], "ProtocolVersion"),
        ("HTTP/2 alone", vec![&version::TLS13], vec![b"h2"], "NoApplicationProtocol"),
        ("a challenge of ACME for a name that has none", vec![&version::TLS13], vec![b"acme-tls/1"], "alert"),
        ("the mesh without a key", vec![&version::TLS13], vec![b"hearth/1"], "alert"),
    ];
    for (name, versions, alpn, expected) in cases {
        let config = client(bench, &versions, &alpn);
        let error = block_in_place(|| {
            let mut tls =
                ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
            let mut stream = bench.tcp();
            let first = tls.complete_io(&mut stream).err();
            // In TLS 1.3 the client is done before the server has said no.
            let second = first.or_else(|| {
                let mut end = [0; 1];
                let mut stream = rustls::Stream::new(&mut tls, &mut stream);
                stream.read_exact(&mut end).err()
            });
            second.map(|error| error.to_string()).unwrap_or_default()
        });
        assert!(!error.is_empty(), "{name} got in");
        assert!(
            error.to_lowercase().contains(&expected.to_lowercase()) || expected == "alert",
            "{name}: {error}"
        );
        bench.passed(name).await;
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
