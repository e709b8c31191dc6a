#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;

use super::fake::{FakeDns, Reply};
use super::message::{kind, rcode};
use super::transport::ask;
use super::*;
use crate::cli::testing::TempDir;
use crate::config::TsigAlgorithm;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const AT: &str = "_acme-challenge.example.org";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn config(provider: DnsProviderConfig) -> DnsConfig {
    DnsConfig { provider, propagation: Duration::from_secs(30), resolvers: Vec::new() }
}

/// What a zone with one server answers but for its texts: the server is at loopback.
fn zone(asked: &str, of: u16) -> Reply {
    match (asked, of) {
        ("example.org", kind::NS) => Reply::new().server("example.org", "ns.example.org"),
        ("ns.example.org", kind::A) => Reply::new().address("ns.example.org", LOCAL),
        _ => Reply::none("example.org"),
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_comes_over_tcp() {
    let long = "x".repeat(255);
    let text = long.clone();
    let server =
        FakeDns::start(move |_, _, _| (0..4).fold(Reply::new(), |r, _| r.text(AT, &text)).truncated()).await;
    let answer = ask(&[server.at], &name(AT), kind::TXT, false).await.unwrap();
    assert_eq!(answer.texts().collect::<Vec<_>>(), [long.as_bytes(); 4]);
    assert!(server.asked() >= 2, "by a datagram first");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_gives_way_to_the_next() {
    let server = FakeDns::start(|_, _, _| Reply::new().text(AT, "v")).await;
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(ask(&[nobody, server.at], &name(AT), kind::TXT, false).await.is_ok());
    assert!(matches!(ask(&[nobody], &name(AT), kind::TXT, false).await, Err(AskError::Io(_))));
    assert!(matches!(ask(&[], &name(AT), kind::TXT, false).await, Err(AskError::Nowhere)));
}

#[tokio::test]
async fn the_servers_of_a_zone_are_found_by_any_name_in_it() {
    let server = FakeDns::start(|asked, of, _| match (asked, of) {
        // A resolver that leaves out what no one asked for: the zone is found further up.
        (AT | "a.b.example.org" | "b.example.org", _) => Reply::new(),
        ("example.org", kind::SOA) => Reply::none("example.org"),
        ("example.net", kind::SOA) => Reply::none("example.net"),
        _ => zone(asked, of),
    })
    .await;
    let resolver = Resolver::new(vec![server.at], 5353);
    for asked in [AT, "a.b.example.org"] {
        let found = resolver.authorities(&name(asked)).await.unwrap();
        assert_eq!(
            found,
            [Server { name: "ns.example.org".to_owned(), addresses: vec![(LOCAL, 5353).into()] }]
        );
    }
    let error = resolver.authorities(&name("example.net")).await.unwrap_err();
    assert!(matches!(error, LookupError::NoServers(zone) if zone == name("example.net")));
}

#[tokio::test]
async fn a_resolver_that_fails_gives_way_to_the_next() {
    let ill = FakeDns::start(|_, _, _| Reply::new().code(2)).await;
    let well = FakeDns::start(|asked, of, _| zone(asked, of)).await;
    let both = Resolver::new(vec![ill.at, well.at], 53);
    assert_eq!(both.authorities(&name(AT)).await.unwrap().len(), 1);
    let told = Resolver::new(vec![ill.at], 53).authorities(&name(AT)).await.unwrap_err().to_string();
    assert!(told.contains("SERVFAIL") && told.contains("`resolvers`"), "{told}");
}

#[tokio::test]
async fn a_challenge_is_delegated_by_aliases() {
    let server = FakeDns::start(|asked, of, _| match (asked, of) {
        (AT, kind::CNAME) => Reply::new().alias(AT, "one.example.net"),
        ("one.example.net", kind::CNAME) => Reply::new().alias("one.example.net", "two.example.net"),
        ("_acme-challenge.loop.org", kind::CNAME) => {
            Reply::new().alias("_acme-challenge.loop.org", "a.loop.org")
        }
        ("a.loop.org", kind::CNAME) => Reply::new().alias("a.loop.org", "_acme-challenge.loop.org"),
        _ => Reply::none("example.net"),
    })
    .await;
    let resolver = Resolver::new(vec![server.at], 53);
    assert_eq!(resolver.follow(&[], &name(AT), false).await.unwrap(), name("two.example.net"));
    assert_eq!(resolver.follow(&[server.at], &name(AT), false).await.unwrap(), name("two.example.net"));
    let none = name("_acme-challenge.example.net");
    assert_eq!(resolver.follow(&[], &none, false).await.unwrap(), none);
    let circle = resolver.follow(&[], &name("_acme-challenge.loop.org"), false).await.unwrap_err();
    assert!(matches!(circle, LookupError::Aliases(_)));
}

#[tokio::test]
async fn an_alias_of_a_wildcard_yields_to_a_record() {
    let server = FakeDns::start(|asked, of, _| match of {
        kind::CNAME if asked.ends_with(".example.org") => Reply::new().alias(asked, "home.example.net"),
        _ => Reply::none("example.org"),
    })
    .await;
    let resolver = Resolver::new(vec![server.at], 53);
    assert_eq!(resolver.follow(&[], &name(AT), false).await.unwrap(), name(AT));
    assert_eq!(resolver.follow(&[], &name(AT), true).await.unwrap(), name("home.example.net"));
}

#[tokio::test]
async fn a_value_is_waited_for_until_all_show_it() {
    let quick = FakeDns::start(|_, _, _| Reply::new().text(AT, "old").text(AT, "v")).await;
    let slow = FakeDns::start(|_, _, before| match before {
        0 => Reply::none("example.org"),
        1 => Reply::new().text(AT, "old"),
        _ => Reply::new().text(AT, "v"),
    })
    .await;
    let servers = [Server::at(quick.at), Server::at(slow.at)];
    propagation::wait(&servers, &name(AT), "v", Duration::from_secs(30), false).await.unwrap();
    // A question may be asked twice when an answer is late.
    assert!(slow.asked() >= 3 && quick.asked() < slow.asked(), "who has shown it is not asked again");
}

#[tokio::test]
async fn the_error_says_which_server_shows_what() {
    let good = FakeDns::start(|_, _, _| Reply::new().text(AT, "v")).await;
    let old = FakeDns::start(|_, _, _| Reply::new().text(AT, "old")).await;
    let none = FakeDns::start(|_, _, _| Reply::none("example.org")).await;
    let refuses = FakeDns::start(|_, _, _| Reply::new().code(rcode::REFUSED)).await;
    let all = [good.at, old.at, none.at, refuses.at];
    let mut servers: Vec<Server> = all.into_iter().map(Server::at).collect();
    servers.push(Server { name: "lost.example.org".to_owned(), addresses: Vec::new() });
    let error = propagation::wait(&servers, &name(AT), "v", Duration::from_secs(3), false).await.unwrap_err();
    let told = error.to_string();
    for part in [
        format!("{} shows it", good.at),
        format!("{} shows only \"old\"", old.at),
        format!("{} shows no value", none.at),
        format!("{} cannot be asked (it answered REFUSED)", refuses.at),
        "lost.example.org cannot be asked (it has no address)".to_owned(),
    ] {
        assert!(told.contains(&part), "{told}");
    }
}

fn provider_of_hook(folder: &TempDir, text: &str) -> DnsProvider {
    let command = folder.script("hook", text);
    DnsProvider::open(&config(DnsProviderConfig::Hook { command })).unwrap()
}

#[tokio::test]
async fn a_command_publishes_where_the_challenge_is_delegated_to() {
    let folder = TempDir::new();
    let (shown, log) = (folder.path().join("shown"), folder.path().join("log"));
    let text = format!("#!/bin/sh\necho \"$1 $2\" >> {}\ntouch {}\n", log.display(), shown.display());
    let server = FakeDns::start(move |asked, of, _| match (asked, of) {
        (AT, kind::CNAME) => Reply::new().alias(AT, "to.example.org"),
        ("to.example.org", kind::TXT) if shown.exists() => Reply::new().text("to.example.org", "v"),
        _ => zone(asked, of),
    })
    .await;
    let provider = provider_of_hook(&folder, &text).in_dns_of(vec![server.at], server.at.port());
    provider.publish(&domain("*.example.org"), "v").await.unwrap();
    provider.withdraw(&domain("*.example.org"), "v").await;
    assert_eq!(fs::read_to_string(log).unwrap(), "present to.example.org.\ncleanup to.example.org.\n");
    assert!(!provider.holds_one_value());
}

#[tokio::test]
async fn set_resolvers_are_asked_whether_a_value_is_seen() {
    let folder = TempDir::new();
    let seen = FakeDns::start(|asked, of, _| match (asked, of) {
        (AT, kind::TXT) => Reply::new().text(AT, "v"),
        _ => Reply::none("example.org"),
    })
    .await;
    let mut settings = config(DnsProviderConfig::Hook { command: folder.path().join("hook") });
    settings.resolvers = vec![seen.at];
    provider_of_hook(&folder, "#!/bin/sh\n");
    DnsProvider::open(&settings).unwrap().publish(&domain("example.org"), "v").await.unwrap();
}

#[tokio::test]
async fn only_values_of_challenges_are_published() {
    let folder = TempDir::new();
    let provider = provider_of_hook(&folder, "#!/bin/sh\n");
    let long = "x".repeat(256);
    for value in ["", "a b", "a;b", "$(x)", "ä", "a\n", &long] {
        let error = provider.publish(&domain("example.org"), value).await.unwrap_err();
        assert!(matches!(error, DnsError::Value), "{value:?}");
    }
    let whole = format!("{}org", "abcdefgh.".repeat(27));
    let error = provider.publish(&domain(&whole), "v").await.unwrap_err();
    assert!(matches!(error, DnsError::Name(_)));
}

/// Opens a provider whose secret's file holds that.
fn with_secret(folder: &TempDir, duck: bool, secret: &[u8]) -> Result<DnsProvider, DnsError> {
    let file = folder.path().join("secret");
    fs::write(&file, secret).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    DnsProvider::open(&config(if duck {
        DnsProviderConfig::DuckDns { token_file: file }
    } else {
        let key = TsigKeyConfig { name: "key".to_owned(), algorithm: TsigAlgorithm::HmacSha256, file };
        DnsProviderConfig::Rfc2136 { host: "127.0.0.1".to_owned(), port: 53, zone: None, key: Some(key) }
    }))
}

#[test]
fn secrets_are_read_and_never_shown() {
    let folder = TempDir::new();
    let key = with_secret(&folder, false, b"  c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\n").unwrap();
    let token = with_secret(&folder, true, b"abc-def-0123\n").unwrap();
    let shown = format!("{key:?} {token:?}");
    assert!(token.holds_one_value() && !key.holds_one_value());
    assert!(!shown.contains("c2Vj") && !shown.contains("115, 101") && !shown.contains("abc-def"), "{shown}");
}

#[test]
fn a_wrong_secret_is_told_by_its_file_and_rule_alone() {
    let folder = TempDir::new();
    let long = vec![b'a'; 1025];
    for (duck, secret, rule) in [
        (false, b"topsecret!!".as_slice(), "in base64"),
        (false, b"dG9wc2VjcmV0", "at least 16 bytes"),
        (false, b"topsecret topsecret", "one line"),
        (false, b"key \"topsecret\" {\n};\n", "one line"),
        (true, b"topsecret&domains=x", "letters, digits"),
        (true, b"", "one line"),
        (true, b"\xfftopsecret", "text"),
        (true, &long, "at most 1024 bytes"),
    ] {
        let error = with_secret(&folder, duck, secret).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(rule) && told.contains("/secret"), "{told}");
        assert!(!told.contains("topsecret") && !told.contains("dG9w"), "{told}");
    }
    let folder_as_file = DnsProviderConfig::DuckDns { token_file: folder.path().to_owned() };
    assert!(DnsProvider::open(&config(folder_as_file)).unwrap_err().to_string().contains("must be a file"));
    let missing = DnsProviderConfig::DuckDns { token_file: folder.path().join("missing") };
    assert!(DnsProvider::open(&config(missing)).unwrap_err().to_string().contains("cannot be read"));
}
