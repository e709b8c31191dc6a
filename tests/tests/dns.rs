//! DNS-01 at real name servers, which take dynamic updates: Knot DNS and BIND.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::Ipv4Addr;
use std::time::Duration;

use hearth_tests::daemon::free_port;
use hearth_tests::fakes::name_server::{KEY, NameServer, Program, SECRET, Zone};
use node::config::{DnsConfig, DnsProviderConfig, TsigAlgorithm, TsigKeyConfig};
use node::tls::acme::Domain;
use node::tls::acme::dns::{DnsError, DnsProvider, LookupError, TsigError, UpdateError};

/// How long it may take on a busy machine until all servers show a value.
const WITHIN: Duration = Duration::from_secs(60);
/// Where values stand.
const AT: &str = "_acme-challenge.example.org";
/// Where a second name server listens.
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Each server, with the algorithm of its key.
const SERVERS: [(Program, &str); 2] = [(Program::Knot, "hmac-sha256"), (Program::Bind, "hmac-sha512")];

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

/// The settings for a server; a test makes one of them wrong.
#[derive(Clone)]
struct Settings {
    zone: Option<&'static str>,
    key: &'static str,
    algorithm: &'static str,
    secret: &'static str,
    within: Duration,
}

impl Settings {
    fn of(server: &NameServer) -> Self {
        Self { zone: None, key: KEY, algorithm: server.algorithm(), secret: SECRET, within: WITHIN }
    }

    /// A provider with these settings, in a DNS that the server knows all of.
    fn open(&self, server: &NameServer) -> DnsProvider {
        let algorithm = match self.algorithm {
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            _ => TsigAlgorithm::HmacSha256,
        };
        let file = server.file("secret", self.secret).unwrap();
        let config = DnsConfig {
            provider: DnsProviderConfig::Rfc2136 {
                host: server.at.ip().to_string(),
                port: server.at.port(),
                zone: self.zone.map(str::to_owned),
                key: Some(TsigKeyConfig { name: self.key.to_owned(), algorithm, file }),
            },
            propagation: self.within,
            resolvers: Vec::new(),
        };
        DnsProvider::open(&config).unwrap().in_dns_of(vec![server.at], server.at.port())
    }

    async fn refused(&self, server: &NameServer, name: &str) -> DnsError {
        let refused = self.open(server).publish(&domain(name), "value").await;
        refused.expect_err("the server takes it all the same")
    }
}

#[tokio::test]
async fn two_values_of_one_name_stand_side_by_side() {
    for (program, algorithm) in SERVERS {
        let server = NameServer::start(program, algorithm, &[Zone::new("example.org")]).await.unwrap();
        for zone in [None, Some("example.org")] {
            let provider = Settings { zone, ..Settings::of(&server) }.open(&server);
            let (plain, wild) = (domain("example.org"), domain("*.example.org"));
            let (one, two) = tokio::join!(provider.publish(&plain, "one"), provider.publish(&wild, "two"));
            one.unwrap();
            two.unwrap();
            assert_eq!(server.texts(AT).await.unwrap(), ["one", "two"], "{program:?}");
            // Again, as after a restart: what is there stays.
            provider.publish(&plain, "one").await.unwrap();
            provider.withdraw(&plain, "one").await;
            assert_eq!(server.texts(AT).await.unwrap(), ["two"], "{program:?}");
            provider.withdraw(&plain, "never published").await;
            provider.withdraw(&plain, "never-published").await;
            assert_eq!(server.texts(AT).await.unwrap(), ["two"], "{program:?}");
            provider.withdraw(&wild, "two").await;
            assert!(server.texts(AT).await.unwrap().is_empty(), "{program:?}");
        }
    }
}

#[tokio::test]
async fn every_algorithm_is_the_servers() {
    for (program, _) in SERVERS {
        for algorithm in ["hmac-sha256", "hmac-sha384", "hmac-sha512"] {
            let server = NameServer::start(program, algorithm, &[Zone::new("example.org")]).await.unwrap();
            Settings::of(&server).open(&server).publish(&domain("home.example.org"), "v").await.unwrap();
            assert_eq!(server.texts("_acme-challenge.home.example.org").await.unwrap(), ["v"]);
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_by_what_is_wrong_with_it() {
    for (program, algorithm) in SERVERS {
        let server = NameServer::start(program, algorithm, &[Zone::new("example.org")]).await.unwrap();
        let right = Settings::of(&server);
        let wrong_secret = Settings { secret: "YW5vdGhlciBzZWNyZXQgb2YgdGhhdCBuYW1l", ..right.clone() };
        let error = wrong_secret.refused(&server, "example.org").await;
        assert!(error.to_string().contains("(BADSIG)"), "{program:?}: {error}");
        assert!(!error.to_string().contains("YW5v"), "{error}");
        let wrong_name = Settings { key: "somebody-else", ..right.clone() };
        let wrong_algorithm = Settings { algorithm: "hmac-sha384", ..right.clone() };
        for wrong in [wrong_name, wrong_algorithm] {
            let error = wrong.refused(&server, "example.org").await;
            let is_it = |source: &TsigError| matches!(source, TsigError::UnknownKey { .. });
            assert!(
                matches!(&error, DnsError::Update(UpdateError::Signature { source, .. }) if is_it(source)),
                "{program:?}: {error}"
            );
            let told = error.to_string();
            assert!(
                told.contains(wrong.key) && told.contains(wrong.algorithm) && told.contains("BADKEY"),
                "{told}"
            );
        }
        assert!(server.texts(AT).await.unwrap().is_empty(), "{program:?}");
    }
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    // BIND does not start with a library that changes its time.
    let zone = [Zone::new("example.org")];
    let server = NameServer::with_clock(Program::Knot, "hmac-sha256", &zone, Some("+1h")).await.unwrap();
    let error = Settings::of(&server).refused(&server, "example.org").await;
    let is_it = |source: &TsigError| matches!(source, TsigError::Clock(3_000..=4_200));
    assert!(
        matches!(&error, DnsError::Update(UpdateError::Signature { source, .. }) if is_it(source)),
        "{error}"
    );
}

#[tokio::test]
async fn what_the_servers_rules_forbid_is_told_with_the_name() {
    for (program, algorithm) in SERVERS {
        let server = NameServer::start(program, algorithm, &[Zone::new("example.org")]).await.unwrap();
        let error = Settings::of(&server).refused(&server, "www.example.org").await.to_string();
        assert!(error.contains("_acme-challenge.www.example.org"), "{program:?}: {error}");
        assert!(error.contains("allow"), "{program:?}: {error}");
        assert!(error.contains("REFUSED") || error.contains("BADKEY"), "{program:?}: {error}");
        assert!(server.texts("_acme-challenge.www.example.org").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_zone_that_is_not_the_servers_is_told() {
    for (program, algorithm) in SERVERS {
        let server = NameServer::start(program, algorithm, &[Zone::new("example.org")]).await.unwrap();
        let right = Settings::of(&server);
        let error = right.refused(&server, "example.net").await;
        assert!(matches!(&error, DnsError::Update(UpdateError::NoZone { .. })), "{program:?}: {error}");
        let elsewhere = Settings { zone: Some("example.net"), ..right.clone() };
        let error = elsewhere.refused(&server, "example.org").await;
        assert!(matches!(&error, DnsError::Update(UpdateError::Outside { .. })), "{program:?}: {error}");
        let error = elsewhere.refused(&server, "example.net").await;
        assert!(error.to_string().contains("NOTAUTH"), "{program:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_is_told() {
    let zone = [Zone::new("example.org")];
    let mut server = NameServer::start(Program::Knot, "hmac-sha256", &zone).await.unwrap();
    let right = Settings::of(&server);
    let provider = right.open(&server);
    provider.publish(&domain("example.org"), "value").await.unwrap();
    server.hold().unwrap();
    let error = right.refused(&server, "example.org").await.to_string();
    assert!(error.contains("no answer within") && error.contains(&server.at.to_string()), "{error}");
    server.kill().await.unwrap();
    let error = right.refused(&server, "example.org").await.to_string();
    assert!(error.contains("cannot be asked") && error.contains("refused"), "{error}");
    // It is only logged.
    provider.withdraw(&domain("example.org"), "value").await;
}

/// A primary and a secondary (BIND listens at no second address of loopback) at one port, the second perhaps never told of changes nor able to fetch them.
async fn two_servers(programs: [Program; 2], is_told: bool) -> [NameServer; 2] {
    let mut zone = Zone::new("example.org");
    zone.records = "@ NS ns1\n@ NS ns2\nns1 A 127.0.0.1\nns2 A 127.0.0.2\n".to_owned();
    let mut second = zone.clone();
    if is_told {
        zone.told = vec![SECOND];
        second.from = Some(Ipv4Addr::LOCALHOST);
    }
    for _ in 0..8 {
        let port = free_port().unwrap();
        let at = (Ipv4Addr::LOCALHOST, port).into();
        let first = NameServer::begin(programs[0], at, "hmac-sha256", &[zone.clone()], None).await.unwrap();
        let at = (SECOND, port).into();
        let second =
            NameServer::begin(programs[1], at, "hmac-sha256", &[second.clone()], None).await.unwrap();
        if let (Some(first), Some(second)) = (first, second) {
            return [first, second];
        }
    }
    panic!("no port is free at both addresses")
}

#[tokio::test]
async fn a_value_is_waited_for_until_the_secondary_has_fetched_it() {
    for programs in [[Program::Bind, Program::Knot], [Program::Knot, Program::Knot]] {
        let [first, second] = two_servers(programs, true).await;
        let provider = Settings::of(&first).open(&first);
        for value in ["one", "two"] {
            provider.publish(&domain("example.org"), value).await.unwrap();
            assert!(second.texts(AT).await.unwrap().contains(&value.to_owned()), "{programs:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_never_shows_the_value_is_named() {
    let [first, second] = two_servers([Program::Bind, Program::Knot], false).await;
    let short = Settings { within: Duration::from_secs(5), ..Settings::of(&first) };
    let error = short.refused(&first, "example.org").await.to_string();
    assert!(error.contains("ns1.example.org shows it"), "{error}");
    assert!(error.contains("ns2.example.org shows no value"), "{error}");
    drop(second);
    let error = short.refused(&first, "example.org").await.to_string();
    assert!(error.contains("ns2.example.org cannot be asked"), "{error}");
}

#[tokio::test]
async fn the_server_that_took_the_update_counts_where_no_other_is_found() {
    let server = NameServer::start(Program::Bind, "hmac-sha256", &[Zone::new("example.org")]).await.unwrap();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let provider = Settings::of(&server).open(&server).in_dns_of(vec![nobody], server.at.port());
    provider.publish(&domain("example.org"), "value").await.unwrap();
    assert_eq!(server.texts(AT).await.unwrap(), ["value"]);
}

#[tokio::test]
async fn a_challenge_is_delegated_to_another_zone() {
    for (program, algorithm) in SERVERS {
        let mut fixed = Zone::new("example.org");
        fixed.changeable = &[];
        fixed.records.push_str("_acme-challenge CNAME home.dyn.example.net.\n* CNAME example.net.\n");
        fixed.records.push_str("_acme-challenge.home CNAME _acme-challenge\n");
        let mut open = Zone::new("dyn.example.net");
        open.changeable = &["home"];
        let server = NameServer::start(program, algorithm, &[fixed, open]).await.unwrap();
        let provider = Settings::of(&server).open(&server);
        provider.publish(&domain("*.example.org"), "one").await.unwrap();
        provider.publish(&domain("home.example.org"), "two").await.unwrap();
        assert_eq!(server.texts("home.dyn.example.net").await.unwrap(), ["one", "two"], "{program:?}");
        provider.withdraw(&domain("example.org"), "one").await;
        assert_eq!(server.texts("home.dyn.example.net").await.unwrap(), ["two"], "{program:?}");
        // Only a wildcard's alias is there: a record of the name's own would take its place.
        let error = Settings::of(&server).refused(&server, "other.example.org").await.to_string();
        assert!(error.contains("_acme-challenge.other.example.org"), "{program:?}: {error}");
    }
}

#[tokio::test]
async fn names_that_stand_for_each_other_are_refused() {
    let mut zone = Zone::new("example.org");
    zone.records.push_str("_acme-challenge CNAME a\na CNAME _acme-challenge\n");
    let server = NameServer::start(Program::Bind, "hmac-sha256", &[zone]).await.unwrap();
    let error = Settings::of(&server).refused(&server, "example.org").await;
    assert!(matches!(error, DnsError::Lookup(LookupError::Aliases(_))), "{error}");
}
