//! Authorities that are away, refuse, or cannot be believed: what was said is shown, the old certificate stays, and nobody is
//! asked more often than it is fit to.

use hearth_tests::pebble::{Canned, Fault, Listener, Plan, Rule, Step};
use node::tls::acme::engine::Did;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use super::{
    gateway::high_time,
    owner::{DAY, HOUR, NAME, Owner},
};

/// An owner with a certificate that is to be renewed now.
async fn due() -> (Owner, CertificateDer<'static>) {
    let mut owner = Owner::of(&[NAME]).await;
    owner.proxy.rule(Rule::on(Step::RenewalInfo, Fault::Answer(Canned::new(200, high_time()))).times(1));
    let first = owner.certified().await;
    // What was just made is left alone for a while, whatever the authority says.
    assert_eq!(owner.look().await.did, Did::Nothing);
    owner.now += 4 * DAY;
    owner.proxy.forget();
    (owner, first)
}

#[tokio::test]
async fn an_authority_that_was_away_and_forgot_everything_is_registered_with_again() {
    let (mut owner, first) = due().await;
    owner.pebble.stop().await.unwrap();
    let began = owner.now;
    let looks = owner.look_until(began + 6 * HOUR).await;
    let failed = looks.iter().filter(|(_, look)| look.did == Did::Failed).count();
    assert!((4..=12).contains(&failed), "{failed} attempts in six hours: {looks:?}");
    assert!(owner.wrong().contains("is not reached"), "{}", owner.wrong());
    assert_eq!(owner.served(), [first]);

    owner.pebble.again().await.unwrap();
    owner.proxy.forget();
    owner.certified().await;
    assert_eq!(owner.proxy.done(Step::NewAccount), 1, "{:#?}", owner.proxy.steps());
    assert_eq!(owner.wrong(), "");
}

#[tokio::test]
async fn one_that_asks_for_patience_gets_it() {
    let mut owner = Owner::of(&[NAME]).await;
    let words = "too many certificates (5) already issued for this exact set of domains in the last 168h0m0s";
    let limited = Canned::problem(429, "rateLimited", words).retry_after(34 * HOUR);
    owner.proxy.rule(Rule::on(Step::NewOrder, Fault::Answer(limited)));
    let began = owner.now;
    assert_eq!(owner.look().await.did, Did::Failed);
    assert!(owner.wrong().contains(words) && owner.wrong().contains("rateLimited"), "{}", owner.wrong());
    owner.look_until(began + 34 * HOUR).await;
    assert_eq!(owner.proxy.asked(Step::NewOrder), 1, "not once in the time that it asked for");
    owner.proxy.clear();
    owner.certified().await;
}

#[tokio::test]
async fn one_that_is_down_for_maintenance_is_asked_once_at_a_time_and_the_order_goes_on() {
    let (mut owner, first) = due().await;
    for step in [Step::Directory, Step::NewOrder, Step::Ready, Step::Finalize] {
        let down = Canned::problem(503, "serverInternal", "the service is down for maintenance");
        owner.proxy.rule(Rule::on(step, Fault::Answer(down)));
        for attempt in 1..=2 {
            let look = owner.look().await;
            assert_eq!(look.did, Did::Failed, "{step:?} {:#?}", owner.proxy.steps());
            assert!(owner.wrong().contains("the service is down for maintenance"), "{}", owner.wrong());
            let refused = owner.seen(step).iter().filter(|seen| seen.status == Some(503)).count();
            assert!(refused <= 2 * attempt, "{step:?} {:#?}", owner.proxy.steps());
            owner.now = look.next;
        }
        owner.proxy.clear();
        assert_eq!(owner.served(), std::slice::from_ref(&first));
    }
    owner.certified().await;
    assert_eq!(
        owner.proxy.done(Step::NewOrder),
        1,
        "the same order all the time: {:#?}",
        owner.proxy.steps()
    );
}

#[tokio::test]
async fn an_answer_without_words_and_one_that_is_cut_off_are_failures_like_others() {
    let mut owner = Owner::of(&[NAME]).await;
    for fault in [Fault::Answer(Canned::new(500, json!("<html>"))), Fault::Cut, Fault::Lose] {
        for step in [Step::Directory, Step::NewAccount, Step::NewOrder, Step::Authorization, Step::Ready] {
            owner.proxy.rule(Rule::on(step, fault.clone()).times(1));
            let look = owner.look().await;
            // What is only read, or was done all the same, may be asked for again.
            let passed = look.did == Did::Renewed;
            assert!(
                passed || (look.did == Did::Failed && !owner.wrong().is_empty()),
                "{fault:?} at {step:?}: {look:?}"
            );
            owner.now = look.next.max(owner.now + 1);
            owner.proxy.clear();
            if passed {
                return;
            }
        }
    }
    owner.certified().await;
}

#[tokio::test]
async fn a_storm_of_bad_nonces_ends() {
    let mut owner = Owner::with(&[NAME], Plan { refused_nonces: 30, ..Plan::new(1, 1) }).await;
    let bad = Canned::problem(400, "badNonce", "JWS has an invalid anti-replay nonce");
    owner.proxy.rule(Rule::on(Step::NewOrder, Fault::Answer(bad)));
    let mut failed = 0;
    while owner.proxy.asked(Step::NewOrder) == 0 || failed < 2 {
        let look = owner.look().await;
        assert_eq!(look.did, Did::Failed);
        failed += 1;
        owner.now = look.next;
    }
    assert!(owner.wrong().contains("badNonce"), "{}", owner.wrong());
    assert!(owner.proxy.asked(Step::NewOrder) <= 3 * failed, "{:#?}", owner.proxy.steps());
    owner.proxy.clear();
    let looks = owner.look_until(owner.now + 4 * DAY).await;
    assert!(looks.iter().any(|(_, look)| look.did == Did::Renewed), "{looks:?} {}", owner.wrong());
}

#[tokio::test]
async fn one_that_is_not_who_it_should_be_is_told_nothing() {
    let mut owner = Owner::of(&[NAME]).await;
    let stranger = Listener::make("127.0.0.1".parse().unwrap()).unwrap();
    owner.again(stranger.root_pem()).await;
    assert_eq!(owner.look().await.did, Did::Failed);
    assert!(owner.proxy.seen().is_empty(), "{:#?}", owner.proxy.steps());
    assert!(owner.wrong().to_lowercase().contains("certificate"), "{}", owner.wrong());
}

#[tokio::test]
async fn a_name_that_it_may_not_have_is_refused_in_its_words() {
    let mut owner = Owner::of(&["one.blocked.test"]).await;
    assert_eq!(owner.look().await.did, Did::Failed);
    let wrong = owner.wrong();
    assert!(wrong.contains("rejectedIdentifier") && wrong.contains("forbidden by policy"), "{wrong}");
}

#[tokio::test]
async fn a_name_whose_dns_is_broken_is_told_of_and_the_old_certificate_stays() {
    let (mut owner, first) = due().await;
    owner.pebble.names.broken(&format!("_acme-challenge.{NAME}"), true).await.unwrap();
    let look = owner.look().await;
    assert_eq!(look.did, Did::Failed);
    let wrong = owner.wrong();
    assert!(wrong.contains(NAME) && wrong.contains("urn:ietf:params:acme:error:"), "{wrong}");
    assert_eq!(owner.served(), [first]);
    owner.pebble.names.broken(&format!("_acme-challenge.{NAME}"), false).await.unwrap();
    owner.now = look.next;
    owner.certified().await;
}
