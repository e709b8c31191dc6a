//! The owner with an issuer on loopback that can be changed, broken and counted.

use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    api::fake::{FakeLoop, TestFolder},
    auth::Secret,
    service::HouseholdTime,
    timekeeping::unix_seconds,
};

/// What an issuer publishes, and how often it was asked.
struct Published {
    url: String,
    /// A status and the body of the keys.
    keys: Mutex<(u16, String)>,
    fetches: AtomicUsize,
}

impl Published {
    async fn start(keys: &[Json]) -> Arc<Self> {
        Self::start_with(keys, None).await
    }

    /// Over TLS, where there is a configuration for it.
    async fn start_with(keys: &[Json], tls: Option<Arc<ServerConfig>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match &tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        let this = Arc::new(Self { url, keys: Mutex::default(), fetches: AtomicUsize::new(0) });
        this.publish(keys);
        let (served, tls) = (Arc::clone(&this), tls.map(TlsAcceptor::from));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => served.serve(stream).await,
                    // A client that does not trust it says so, and goes.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            served.serve(stream).await;
                        }
                    }
                }
            }
        });
        this
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = vec![0; 2_048];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let (status, body) = self.answer(&String::from_utf8_lossy(&request[..length]));
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.flush().await;
    }

    fn answer(&self, request: &str) -> (u16, String) {
        if request.starts_with("GET /.well-known/openid-configuration ") {
            return (200, json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)}).to_string());
        }
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.keys.lock().unwrap().clone()
    }

    fn publish(&self, keys: &[Json]) {
        *self.keys.lock().unwrap() = (200, json!({"keys": keys}).to_string());
    }

    fn breaks(&self, status: u16, body: &str) {
        *self.keys.lock().unwrap() = (status, body.to_owned());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

struct Home {
    fake: FakeLoop,
    folder: TestFolder,
    time: watch::Sender<HouseholdTime>,
    issuers: IssuersHandle,
}

impl Home {
    fn start() -> Self {
        let (fake, folder) = (FakeLoop::start(), TestFolder::new());
        let time = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true }).0;
        let issuers = owner(&fake, folder.path().into(), &time);
        Self { fake, folder, time, issuers }
    }

    /// Trusts the issuer, and waits for its keys.
    async fn trust(&self, url: &str) {
        self.issuers.put("sso".into(), Spec::parse(setting(url)).unwrap()).await.unwrap();
        self.issuers.fetch("sso".into()).await;
    }

    async fn verify(&self, token: &str) -> Result<Role, Refused> {
        self.issuers.verify(&Secret::new(token)).await.map(|vouched| vouched.role)
    }
}

fn owner(fake: &FakeLoop, folder: PathBuf, time: &watch::Sender<HouseholdTime>) -> IssuersHandle {
    let parts = IssuersParts { service: fake.service(), time: time.subscribe(), folder };
    let (handle, owner) = Issuers::new(parts);
    tokio::spawn(owner.run());
    handle
}

fn now_s() -> i64 {
    unix_seconds().try_into().unwrap()
}

fn token(pair: &Pair, kid: &str, url: &str) -> String {
    pair.token(Algorithm::Es256, &json!({"alg": "ES256", "kid": kid}), &claims(url, now_s()))
}

#[tokio::test]
async fn a_new_key_is_fetched_once_somebody_shows_it_and_a_flood_of_unknown_ones_is_not() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let issuer = Published::start(&[old.jwk("old")]).await;
    let home = Home::start();
    home.trust(&issuer.url).await;
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(home.verify(&token(&old, "old", &issuer.url)).await, Ok(Role::Admin));
    issuer.publish(&[new.jwk("new")]);
    assert_eq!(home.verify(&token(&new, "new", &issuer.url)).await, Ok(Role::Admin));
    assert_eq!(home.verify(&token(&old, "old", &issuer.url)).await, Err(Refused::UnknownKey));
    let flood = (0..200).map(|n| token(&old, &format!("k{n}"), &issuer.url)).collect::<Vec<_>>();
    for outcome in futures_util::future::join_all(flood.iter().map(|token| home.verify(token))).await {
        assert_eq!(outcome, Err(Refused::UnknownKey));
    }
    assert_eq!(issuer.fetches(), 2, "twice a minute");
    assert_eq!(home.verify(&token(&new, "new", &issuer.url)).await, Ok(Role::Admin));
}

#[tokio::test]
async fn keys_count_while_the_issuer_is_down_or_raves_also_after_a_restart() {
    let pair = Pair::p256();
    for (status, body) in [(503, ""), (200, "<html>"), (200, "{\"keys\":7}")] {
        let issuer = Published::start(&[pair.jwk("k")]).await;
        let home = Home::start();
        home.trust(&issuer.url).await;
        issuer.breaks(status, body);
        let known = token(&pair, "k", &issuer.url);
        assert_eq!(home.verify(&token(&pair, "other", &issuer.url)).await, Err(Refused::UnknownKey));
        assert_eq!(home.verify(&known).await, Ok(Role::Admin));
        assert!(home.issuers.known().await.unwrap()["sso"].error.is_some());
        let again = owner(&home.fake, home.folder.path().into(), &home.time);
        again.fetch("sso".into()).await;
        assert!(again.verify(&Secret::new(&*known)).await.is_ok(), "{status} {body}");
        assert!(again.known().await.unwrap()["sso"].fetched_ms.is_some());
    }
}

#[tokio::test]
async fn keys_of_another_source_count_no_more_and_go_with_their_issuer() {
    let pair = Pair::p256();
    let (issuer, other) = (Published::start(&[pair.jwk("k")]).await, Published::start(&[]).await);
    let home = Home::start();
    home.trust(&issuer.url).await;
    let file = home.folder.path().join("sso");
    assert!(file.exists());
    let mut elsewhere = setting(&issuer.url);
    elsewhere["jwks"] = json!(format!("{}/keys", other.url));
    home.issuers.put("sso".into(), Spec::parse(elsewhere).unwrap()).await.unwrap();
    home.issuers.fetch("sso".into()).await;
    assert_eq!(home.verify(&token(&pair, "k", &issuer.url)).await, Err(Refused::UnknownKey));
    home.issuers.remove("sso".into()).await.unwrap();
    assert!(!file.exists());
    assert_eq!(home.verify(&token(&pair, "k", &issuer.url)).await, Err(Refused::Issuer));
    assert_eq!(home.issuers.remove("sso".into()).await, Err(PutError::NotFound));
}

#[tokio::test]
async fn an_issuer_that_never_answered_and_a_node_without_the_time_refuse_for_now() {
    let pair = Pair::p256();
    let issuer = Published::start(&[pair.jwk("k")]).await;
    issuer.breaks(404, "");
    let home = Home::start();
    home.trust(&issuer.url).await;
    let token = token(&pair, "k", &issuer.url);
    assert_eq!(home.verify(&token).await, Err(Refused::NoKeys));
    home.time.send_replace(HouseholdTime::default());
    assert_eq!(home.verify(&token).await, Err(Refused::Clock));
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_not_followed() {
    let pair = Pair::p256();
    let issuer = Published::start(&[pair.jwk("k")]).await;
    let home = Home::start();
    let twin = issuer.url.replace("127.0.0.1", "localhost");
    home.trust(&twin).await;
    let error = home.issuers.known().await.unwrap()["sso"].error.clone().unwrap().why;
    assert!(error.contains("another issuer"), "{error}");
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test]
async fn who_came_in_is_out_when_the_token_ends_or_the_issuer_is_changed_or_removed() {
    let pair = Pair::p256();
    let issuer = Published::start(&[pair.jwk("k")]).await;
    let home = Home::start();
    for end in ["time", "change", "removal"] {
        home.trust(&issuer.url).await;
        let vouched = home.issuers.verify(&Secret::new(token(&pair, "k", &issuer.url))).await.unwrap();
        let ends = home.issuers.ends(&vouched.term);
        tokio::pin!(ends);
        let early = tokio::time::timeout(Duration::ZERO, &mut ends).await;
        assert!(early.is_err(), "{end}: it holds");
        match end {
            "time" => drop(home.time.send_replace(HouseholdTime { ahead_ms: 400_000, trusted: true })),
            "change" => {
                let mut other = setting(&issuer.url);
                other["roles"]["map"] = json!({"kids": "viewer"});
                home.issuers.put("sso".into(), Spec::parse(other).unwrap()).await.unwrap();
            }
            _ => home.issuers.remove("sso".into()).await.unwrap(),
        }
        ends.await;
        home.time.send_replace(HouseholdTime { ahead_ms: 0, trusted: true });
    }
}

#[tokio::test]
async fn two_issuers_have_two_urls() {
    let home = Home::start();
    let issuer = Published::start(&[]).await;
    home.trust(&issuer.url).await;
    let twin = home.issuers.put("twin".into(), Spec::parse(setting(&issuer.url)).unwrap()).await;
    assert_eq!(twin, Err(PutError::Taken("sso".into())));
    let trial = home.issuers.try_out("sso", &Secret::new("a.b.c")).await.unwrap();
    assert!(matches!(trial.outcome, Err(Refused::Base64(_) | Refused::Json(_))), "{trial:?}");
    assert!(home.issuers.try_out("none", &Secret::new("a.b.c")).await.is_none());
}

/// A certificate for `localhost` that vouches for itself, and TLS with it.
fn self_signed() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (made.cert.pem(), Arc::new(config))
}

#[tokio::test]
async fn a_private_authority_vouches_for_its_own_issuer_and_for_no_other() {
    let pair = Pair::p256();
    let ((root, tls), (other, _)) = (self_signed(), self_signed());
    let issuer = Published::start_with(&[pair.jwk("k")], Some(tls)).await;
    let home = Home::start();
    let token = token(&pair, "k", &issuer.url);
    for (root, expected) in [(other, Err(Refused::NoKeys)), (root, Ok(Role::Admin))] {
        let mut said = setting(&issuer.url);
        said["root"] = json!(root);
        home.issuers.put("sso".into(), Spec::parse(said).unwrap()).await.unwrap();
        home.issuers.fetch("sso".into()).await;
        assert_eq!(home.verify(&token).await, expected);
    }
}
