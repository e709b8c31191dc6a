#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use rustls::{
    ClientConfig, ClientConnection, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

use super::{testing::AnyCertificate, *};
use crate::tls::alpn_challenge;

fn key(name: &str) -> Arc<CertifiedKey> {
    // Any certificate does: the client does not look.
    alpn_challenge::certificate(&name.parse().unwrap(), &[0; 32]).unwrap()
}

fn client(sni: bool) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.enable_sni = sni;
    Arc::new(config)
}

/// A handshake in memory: the certificate that was shown, and whether the session was resumed.
fn shown(
    tls: &Arc<rustls::ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (CertificateDer<'static>, bool) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(tls.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut from_client = &to_server[..];
        while !from_client.is_empty() {
            server.read_tls(&mut from_client).unwrap();
            server.process_new_packets().unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut from_server = &to_client[..];
        while !from_server.is_empty() {
            client.read_tls(&mut from_server).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    let certificate = client.peer_certificates().unwrap()[0].clone();
    (certificate, client.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
}

#[test]
fn the_public_certificate_is_shown_for_its_names_and_the_local_one_for_all_else() {
    let (local, public) = (key("local.example.org"), key("public.example.org"));
    let resolver = WebResolver::new(local.clone());
    let tls = Arc::new(resolver.web_tls().unwrap());
    let with_sni = client(true);
    assert_eq!(shown(&tls, &with_sni, "home.example.org").0, local.cert[0]);
    let names = ["home.example.org", "*.pi.example.org"].map(|name| name.parse().unwrap());
    resolver.set_public(public.clone(), names.to_vec());
    for (name, expected) in [
        ("home.example.org", &public),
        ("HOME.Example.org", &public),
        ("a.pi.example.org", &public),
        ("a.b.pi.example.org", &local),
        ("pi.example.org", &local),
        ("example.org", &local),
        ("kitchen.local", &local),
        ("localhost", &local),
        ("192.168.1.5", &local),
        ("::1", &local),
    ] {
        assert_eq!(shown(&tls, &client(true), name).0, expected.cert[0], "{name}");
    }
    assert_eq!(shown(&tls, &client(false), "home.example.org").0, local.cert[0], "no name was said");
    assert!(resolver.is_public("Home.example.org") && resolver.is_public("x.pi.example.org"));
    assert!(!resolver.is_public("kitchen.local") && !resolver.is_public("192.168.1.5"));
    // The local authority's renewal leaves the public one alone, and the other way round.
    let (next_local, next_public) = (key("next.example.org"), key("later.example.org"));
    resolver.swap(next_local.clone());
    assert_eq!(shown(&tls, &client(true), "home.example.org").0, public.cert[0]);
    resolver.set_public(next_public.clone(), names.to_vec());
    assert_eq!(shown(&tls, &client(true), "home.example.org").0, next_public.cert[0]);
    assert_eq!(shown(&tls, &client(true), "kitchen.local").0, next_local.cert[0]);
    resolver.set_public(next_public, Vec::new());
    assert_eq!(shown(&tls, &client(true), "home.example.org").0, next_local.cert[0]);
}

#[test]
fn a_client_that_resumes_sees_a_new_certificate_at_once() {
    let (first, second) = (key("a.example.org"), key("b.example.org"));
    let resolver = WebResolver::new(first.clone());
    let tls = Arc::new(resolver.web_tls().unwrap());
    // One configuration, hence one store of tickets.
    let browser = client(true);
    assert_eq!(shown(&tls, &browser, "kitchen.local"), (first.cert[0].clone(), false));
    assert_eq!(shown(&tls, &browser, "kitchen.local"), (first.cert[0].clone(), true), "tickets work");
    resolver.swap(second.clone());
    assert_eq!(shown(&tls, &browser, "kitchen.local"), (second.cert[0].clone(), false));
    assert_eq!(shown(&tls, &browser, "kitchen.local"), (second.cert[0].clone(), true));
}
