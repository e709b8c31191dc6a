//! A node gets a certificate by itself, by each challenge, and serves it beside that of the local authority.

use std::sync::Arc;

use hearth_tests::{
    daemon::{PATIENCE, trusting, wait_until},
    fakes::name_server::{NameServer, Program, Zone},
    pebble::{Fault, Plan, Rule, Step, presented},
};
use node::tls::acme::{der::Certificate, engine::Did};
use serde_json::{Value, json};

use super::{
    gateway::{NAME, Site, nothing_is_left},
    owner::{self, DAY, Owner},
};

/// One name, by a challenge.
async fn one(challenge: &str) -> Site {
    let site = Site::new().await;
    let node = site.plan("one", &site.config(challenge, &[NAME])).start().await.unwrap();
    let chain = site.certified(&node, NAME).await;
    assert!(chain.len() >= 2, "the authority between is sent, too");
    nothing_is_left(&node).await;
    for step in [Step::NewAccount, Step::NewOrder, Step::Ready, Step::Finalize] {
        assert_eq!(site.proxy.done(step), 1, "{step:?}: {:#?}", site.proxy.steps());
    }
    // Whoever comes by its address or a name of the home sees the local authority's, as before.
    let local = node.cli(&["ca", "export"]).await.unwrap().ok().unwrap().stdout;
    let (local, public) = (trusting(&local).unwrap().into(), site.client().await);
    for name in ["127.0.0.1", "localhost"] {
        presented(node.address(), name, &local).await.unwrap();
        presented(node.address(), name, &public).await.unwrap_err();
    }
    presented(node.address(), NAME, &local).await.unwrap_err();
    presented(node.address(), "other.hearth.test", &public).await.unwrap_err();
    assert_eq!(node.web(None).await.unwrap().get("/healthz").await.unwrap().status, 200);
    drop(node);
    site
}

#[tokio::test]
async fn by_http_01() {
    one("http-01").await;
}

#[tokio::test]
async fn by_tls_alpn_01() {
    one("tls-alpn-01").await;
}

#[tokio::test]
async fn by_dns_01_with_a_command() {
    let site = one("dns-01").await;
    let hooked = site.hooked();
    let (present, cleanup) = (&hooked[0], &hooked[1]);
    let value = present.strip_prefix(&format!("present _acme-challenge.{NAME} ")).unwrap();
    assert_eq!(*cleanup, format!("cleanup _acme-challenge.{NAME} {value}"), "{hooked:?}");
}

/// A name and its wildcard, whose values stand side by side at one name.
async fn wildcard(program: Program) {
    let zone = Zone { changeable: &["_acme-challenge"], ..Zone::new("hearth.test") };
    let server = NameServer::start(program, "hmac-sha256", &[zone]).await.unwrap();
    let site = Site::with(|plan| Plan { dns: Some(server.at), ..plan }).await;
    site.proxy.rule(Rule::on(Step::Ready, Fault::HoldBefore));
    let config = site.config_at(server.at, "hearth.test", &["hearth.test", "*.hearth.test"]);
    let node = site.plan("one", &config).start().await.unwrap();
    site.proxy.holds().await.unwrap();
    let stand = server.texts("_acme-challenge.hearth.test").await.unwrap();
    assert_eq!(stand.len(), 2, "before the authority looks at either: {stand:?}");
    site.proxy.clear();
    let chain = site.certified(&node, "hearth.test").await;
    wait_until("both values are gone", PATIENCE, async || {
        Ok(server.texts("_acme-challenge.hearth.test").await?.is_empty())
    })
    .await
    .unwrap();
    assert_eq!(site.certified(&node, "lamp.hearth.test").await, chain);
    presented(node.address(), "a.lamp.hearth.test", &site.client().await).await.unwrap_err();
    assert_eq!((site.proxy.done(Step::Ready), site.proxy.done(Step::NewOrder)), (2, 1));
}

#[tokio::test]
async fn a_wildcard_by_dns_01_at_knot() {
    wildcard(Program::Knot).await;
}

#[tokio::test]
async fn a_wildcard_by_dns_01_at_bind() {
    wildcard(Program::Bind).await;
}

#[tokio::test]
async fn a_profile_is_asked_for_by_its_name() {
    let mut owner = Owner::of(&[owner::NAME]).await;
    for (profile, days) in [("default", 90), ("shortlived", 6)] {
        owner.asks_for(profile).await;
        let leaf = owner.certified().await;
        let leaf = Certificate::read(&leaf).unwrap();
        let life = leaf.not_after - leaf.not_before;
        assert!((days * DAY - 60..=days * DAY + 60).contains(&life), "{profile}: {life} s");
        let asked: Vec<_> = owner.seen(Step::NewOrder).into_iter().map(|order| order.profile).collect();
        assert_eq!(asked, [Some(profile.to_owned())]);
        owner.proxy.forget();
    }
}

#[tokio::test]
async fn a_profile_that_the_authority_does_not_have_is_told_with_those_that_it_has() {
    let mut owner = Owner::of(&[owner::NAME]).await;
    owner.asks_for("eternal").await;
    let look = owner.look().await;
    assert_eq!(look.did, Did::Failed);
    for word in ["`eternal`", "tls.profile", "default", "shortlived"] {
        assert!(owner.wrong().contains(word), "{word}: {}", owner.wrong());
    }
    assert_eq!(owner.proxy.asked(Step::NewOrder), 0, "nothing was ordered: {:#?}", owner.proxy.steps());

    // One that it names and refuses all the same, in its own words.
    let named = |directory: &mut Value| directory["meta"]["profiles"]["eternal"] = json!("For ever");
    owner.proxy.rule(Rule::on(Step::Directory, Fault::Rewrite(Arc::new(named))));
    owner.now = look.next;
    assert_eq!(owner.look().await.did, Did::Failed);
    let refused = owner.seen(Step::NewOrder).pop().unwrap();
    let kind = refused.problem.unwrap();
    assert!(owner.wrong().contains(&kind) && owner.wrong().contains("eternal"), "{kind}: {}", owner.wrong());
}
