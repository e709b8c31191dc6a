//! That the authority and the proxy of these tests do what the tests believe, shown with a client of its own.

use std::{pin::Pin, sync::Arc};

use hearth_tests::pebble::{Canned, Fault, Pebble, Plan, Proxy, Rule, Step, Trust, ask};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use serde_json::json;

/// Speaks to the proxy alone.
struct Web(Trust);

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let trust = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let authority = head.uri.authority().unwrap().as_str().parse().unwrap();
            let headers: Vec<(&str, &str)> =
                head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            let path = head.uri.path_and_query().unwrap().as_str();
            let reply = ask(authority, &trust, head.method.as_str(), path, &headers, body).await;
            let reply = reply.map_err(|error| Error::Other(error.into()))?;
            let mut response = Response::builder().status(reply.status);
            *response.headers_mut().unwrap() = reply.headers;
            Ok(response.body(Full::new(reply.body)).unwrap().into())
        })
    }
}

async fn account(pebble: &Pebble, proxy: &Proxy) -> Result<Account, Error> {
    let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let web = Box::new(Web(pebble.listener().trust().unwrap()));
    Ok(Account::builder_with_http(web).create(&new, proxy.directory(), None).await?.0)
}

/// A certificate for a name, by DNS-01; its chain in PEM.
async fn order(pebble: &Pebble, account: &Account, name: &str) -> Result<String, Error> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        assert_eq!(authorization.status, AuthorizationStatus::Pending, "none is used again");
        let mut challenge = authorization.challenge(ChallengeType::Dns01).unwrap();
        let value = challenge.key_authorization().dns_value();
        pebble.names.text(&format!("_acme-challenge.{name}"), &value).await.unwrap();
        challenge.set_ready().await?;
    }
    if order.poll_ready(&RetryPolicy::default()).await? != OrderStatus::Ready {
        return Err(Error::Str("the order did not become ready"));
    }
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::new(vec![name.to_owned()]).unwrap().serialize_request(&key).unwrap();
    order.finalize_csr(csr.der()).await?;
    order.poll_certificate(&RetryPolicy::default()).await
}

#[tokio::test]
async fn the_authority_issues_through_the_proxy_which_counts() {
    let pebble = Pebble::start(Plan { refused_nonces: 0, ..Plan::new(1, 1) }).await.unwrap();
    let proxy = pebble.proxy().await.unwrap();
    let account = account(&pebble, &proxy).await.unwrap();
    let chain = order(&pebble, &account, "one.hearth.test").await.unwrap();

    for step in [Step::NewAccount, Step::NewOrder, Step::Ready, Step::Finalize, Step::Certificate] {
        assert_eq!(proxy.done(step), 1, "{step:?} in {:#?}", proxy.steps());
    }
    let seen = proxy.seen();
    for step in [Step::NewOrder, Step::Ready] {
        let named = seen.iter().find(|seen| seen.step == step).unwrap();
        assert_eq!(named.names, ["one.hearth.test"], "{named:?}");
    }
    // The chain leads to the root that the authority shows.
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let Trust::Tls(_) = pebble.listener().trust().unwrap() else { panic!() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pebble.root().await.unwrap().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let name = ServerName::try_from("one.hearth.test").unwrap();
    use rustls::client::danger::ServerCertVerifier as _;
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).unwrap();
    // Whoever asks when to renew it hears what the test says.
    let window =
        json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } });
    let pem = chain_pem(&chain[0]);
    pebble.renewal_info(&pem, &window.to_string()).await.unwrap();
}

fn chain_pem(certificate: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn good_nonces_are_refused_and_broken_names_fail() {
    let pebble = Pebble::start(Plan { refused_nonces: 60, ..Plan::new(1, 1) }).await.unwrap();
    let proxy = pebble.proxy().await.unwrap();
    // A client gives up after a few; the next try goes on.
    let account = loop {
        if let Ok(account) = account(&pebble, &proxy).await {
            break account;
        }
    };
    pebble.names.broken("_acme-challenge.two.hearth.test", true).await.unwrap();
    for _ in 0..20 {
        order(&pebble, &account, "two.hearth.test").await.unwrap_err();
        if proxy.done(Step::Ready) > 0 {
            break;
        }
    }
    assert!(proxy.done(Step::Ready) > 0 && proxy.done(Step::Finalize) == 0, "{:#?}", proxy.steps());
    let bad_nonces = proxy
        .seen()
        .into_iter()
        .filter(|seen| seen.problem.as_deref() == Some("urn:ietf:params:acme:error:badNonce"));
    assert!(bad_nonces.count() > 0, "{:#?}", proxy.steps());
    assert!(pebble.names.asked("_acme-challenge.two.hearth.test").await.unwrap() > 0);
}

#[tokio::test]
async fn the_proxy_holds_cuts_loses_and_answers_itself() {
    let pebble = Pebble::start(Plan { refused_nonces: 0, ..Plan::new(1, 1) }).await.unwrap();
    let proxy = pebble.proxy().await.unwrap();
    let account = account(&pebble, &proxy).await.unwrap();

    proxy.rule(Rule::on(
        Step::NewOrder,
        Fault::Answer(Canned::problem(429, "rateLimited", "slowly").retry_after(3)),
    ));
    let refused = order(&pebble, &account, "three.hearth.test").await.unwrap_err();
    assert!(refused.to_string().contains("slowly"), "{refused}");
    proxy.clear();

    for fault in [Fault::Cut, Fault::Lose] {
        proxy.rule(Rule::on(Step::NewOrder, fault).times(1));
        order(&pebble, &account, "three.hearth.test").await.unwrap_err();
        proxy.clear();
    }
    assert_eq!(proxy.asked(Step::NewOrder), 3);
    assert_eq!(
        proxy.done(Step::NewOrder),
        1,
        "the authority did what it was asked before the answer was lost"
    );

    proxy.rule(Rule::on(Step::Finalize, Fault::HoldBefore));
    let ordered = order(&pebble, &account, "three.hearth.test");
    let looked = async {
        proxy.holds().await.unwrap();
        assert_eq!(proxy.done(Step::Finalize), 0);
        proxy.clear();
    };
    let (ordered, ()) = tokio::join!(ordered, looked);
    ordered.unwrap();
    assert_eq!(proxy.done(Step::Finalize), 1);
}
