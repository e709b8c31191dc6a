#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = "a7c4d0ad-114e-40ef-ba1d-d217904a50f2";

/// A server that gives one answer, and the first line of what it was asked.
async fn asked(answer: &'static str, clear: bool) -> (String, Result<(), DuckDnsError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = format!("http://{}", listener.local_addr().unwrap());
    let account = DuckDns { service, token: Zeroizing::new(TOKEN.to_owned()) };
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
    });
    let name = "_acme-challenge.a.kitchen.duckdns.org".parse().unwrap();
    let done = if clear { account.clear(&name, "v-1").await } else { account.set(&name, "v-1").await };
    (server.await.unwrap(), done)
}

#[tokio::test]
async fn the_text_of_the_accounts_name_is_set_and_cleared() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK";
    let (line, done) = asked(ok, false).await;
    assert_eq!(line, format!("GET /update?domains=kitchen&token={TOKEN}&txt=v-1 HTTP/1.1"));
    done.unwrap();
    let (line, done) = asked(ok, true).await;
    assert_eq!(line, format!("GET /update?domains=kitchen&token={TOKEN}&txt=v-1&clear=true HTTP/1.1"));
    done.unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_and_never_the_token() {
    for (answer, text) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nKO", "refuses to change kitchen.duckdns.org (\"KO\")"),
        ("HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n", "status 502"),
        ("nonsense\r\n\r\n", "cannot be asked"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\ntoken=a7c4d0ad-114e-40ef-ba1d-d217904a50f2",
            "\"token=\"",
        ),
    ] {
        let (_, done) = asked(answer, false).await;
        let error = done.unwrap_err();
        let (told, shown) = (error.to_string(), format!("{error:?}"));
        assert!(told.contains(text), "{told}");
        assert!(!told.contains("114e") && !shown.contains("114e"), "{told} {shown}");
    }
}

#[tokio::test]
async fn a_service_that_is_down_is_told_without_the_token() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let account = DuckDns { service: format!("http://{unused}"), token: Zeroizing::new(TOKEN.to_owned()) };
    let error = account.set(&"a.duckdns.org".parse().unwrap(), "v").await.unwrap_err();
    assert!(matches!(error, DuckDnsError::Web(_)));
    assert!(!format!("{error} {error:?} {account:?}").contains("114e"));
}

#[tokio::test]
async fn only_names_of_duckdns_can_be_changed() {
    for (name, domain) in [
        ("kitchen.duckdns.org", Some("kitchen")),
        ("_acme-challenge.a.Kitchen.duckdns.org", Some("kitchen")),
        ("duckdns.org", None),
        ("_acme.duckdns.org", None),
        ("kitchen.duckdns.org.example.net", None),
        ("kitchenduckdns.org", None),
    ] {
        assert_eq!(domain_of(&name.parse().unwrap()).as_deref(), domain, "{name}");
    }
    let account = DuckDns::new(Zeroizing::new(TOKEN.to_owned()));
    let error = account.set(&"_acme-challenge.example.org".parse().unwrap(), "v").await.unwrap_err();
    assert!(matches!(error, DuckDnsError::Foreign(_)));
}

#[test]
fn a_token_goes_into_a_url_as_it_is() {
    assert!(DuckDns::is_token(TOKEN));
    assert!(!DuckDns::is_token("a&domains=b") && !DuckDns::is_token("a%20"));
}
