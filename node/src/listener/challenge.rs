//! TLS-ALPN-01 (RFC 8737): a certificate authority speaks a protocol of its own and looks at the certificate alone.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use crate::tls::alpn_challenge::ALPN_ACME;

/// A TLS record with the fatal alert `unrecognized_name` (RFC 8446, sections 5.1 and 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// What is read of a client that has its answer, in bytes.
const REST: u64 = 4 << 10;

/// Whether a certificate authority asks: it offers the one protocol and no other (RFC 8737, section 3).
pub(super) fn is_asked(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|offered| offered.eq([ALPN_ACME]))
}

/// Completes the handshake with this certificate.
pub(super) async fn answer(
    hello: StartHandshake<TcpStream>,
    certificate: Arc<CertifiedKey>,
) -> io::Result<TlsStream<TcpStream>> {
    let config = config(certificate).map_err(io::Error::other)?;
    hello.into_stream(Arc::new(config)).await
}

/// Closes: nothing is served under this protocol.
pub(super) async fn close(mut stream: TlsStream<TcpStream>) {
    // A client that is gone has seen what it wanted.
    let _ = stream.shutdown().await;
    drain(stream.get_mut().0).await;
}

/// Ends a handshake that asks for a name of which nobody here knows a challenge.
pub(super) async fn refuse(mut stream: TcpStream) {
    // The client sees the alert or it does not; there is nothing else to do.
    if stream.write_all(&UNRECOGNIZED_NAME).await.is_ok() && stream.shutdown().await.is_ok() {
        drain(&mut stream).await;
    }
}

/// Waits until the client closes: a socket that is closed with unread bytes in it takes along what was sent. The
/// deadline of the handshake bounds it.
async fn drain(stream: &mut TcpStream) {
    let _ = tokio::io::copy(&mut stream.take(REST), &mut tokio::io::sink()).await;
}

fn config(certificate: Arc<CertifiedKey>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![ALPN_ACME.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
