//! When a certificate is renewed: the authority says so (ARI), or its life does.

use std::sync::Arc;

use hearth_tests::pebble::{Canned, Fault, Rule, Step};
use node::tls::acme::{der::Certificate, engine::Did, renewal};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::{
    gateway::{high_time, pem},
    owner::{DAY, HOUR, NAME, Owner},
};

/// How the authority names a certificate.
fn name_of(certificate: &CertificateDer<'_>) -> String {
    renewal::shown_name(&renewal::name_of(&Certificate::read(certificate).unwrap()).unwrap())
}

#[tokio::test]
async fn it_is_renewed_when_the_authority_says_so_and_replaces_the_old_one() {
    let mut owner = Owner::of(&[NAME]).await;
    let first = owner.certified().await;
    let look = owner.look().await;
    assert_eq!(look.did, Did::Nothing);
    let asked = owner.seen(Step::RenewalInfo);
    assert!(asked.len() == 1 && asked[0].path.ends_with(&name_of(&first)), "{asked:?}");
    let planned = owner.report.borrow().renewal.clone().unwrap();
    assert!((owner.now + 50 * DAY..owner.now + 70 * DAY).contains(&planned.at), "{planned:?}");

    // It changes its mind, as after an incident: the next look sees that.
    owner.pebble.renewal_info(&pem(&first), &high_time().to_string()).await.unwrap();
    assert!(look.next - owner.now <= 24 * HOUR, "it asks daily at least");
    let begins = owner.now;
    let looks = owner.look_until(begins + 6 * DAY).await;
    let renewed: Vec<u64> =
        looks.iter().filter(|(_, look)| look.did == Did::Renewed).map(|(at, _)| *at).collect();
    assert!(renewed.len() == 1, "once only: {looks:?}");
    assert!((begins + 3 * DAY..begins + 4 * DAY).contains(&renewed[0]), "not at once: {looks:?}");
    assert_ne!(owner.served().pop(), Some(first.clone()));
    let orders = owner.seen(Step::NewOrder);
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert_eq!((&orders[0].replaces, &orders[1].replaces), (&None, &Some(name_of(&first))));
}

#[tokio::test]
async fn a_moment_inside_the_window_is_drawn_once_and_kept_over_a_restart() {
    let mut owner = Owner::of(&[NAME]).await;
    owner.certified().await;
    owner.look().await;
    let drawn = owner.report.borrow().renewal.clone().unwrap().at;
    let root = owner.pebble.listener().root_pem().to_owned();
    for _ in 0..3 {
        owner.again(&root).await;
        owner.now += 24 * HOUR;
        assert_eq!(owner.look().await.did, Did::Nothing);
        assert_eq!(owner.report.borrow().renewal.clone().unwrap().at, drawn);
    }
    owner.now = drawn;
    owner.certified().await;
    assert_eq!(owner.proxy.done(Step::NewOrder), 2);
}

#[tokio::test]
async fn a_certificate_that_counts_as_replaced_already_is_replaced_all_the_same() {
    let mut owner = Owner::of(&[NAME]).await;
    owner.proxy.rule(Rule::on(Step::RenewalInfo, Fault::Answer(Canned::new(200, high_time()))).times(1));
    let first = owner.certified().await;
    // The second is signed, but never fetched, and the board loses what it knew of it.
    let down = Canned::problem(503, "serverInternal", "down");
    owner.proxy.rule(Rule::on(Step::Certificate, Fault::Answer(down)));
    owner.now += 4 * DAY;
    let look = owner.look().await;
    assert_eq!(look.did, Did::Failed, "{:#?}", owner.proxy.steps());
    assert_eq!(owner.served(), std::slice::from_ref(&first), "the old one is served meanwhile");
    owner.proxy.clear();
    owner.lose("order");
    owner.now = look.next;
    let second = owner.certified().await;
    assert_ne!(first, second);
    let orders = owner.seen(Step::NewOrder);
    let problem = orders[2].problem.as_deref().unwrap_or_default();
    assert!(orders[2].status == Some(409) && problem.ends_with("alreadyReplaced"), "{orders:#?}");
    assert_eq!((&orders[2].replaces, &orders[3].replaces), (&Some(name_of(&first)), &None), "{orders:#?}");
}

#[tokio::test]
async fn without_a_word_of_the_authority_it_is_renewed_after_two_thirds_of_its_life() {
    let mut owner = Owner::of(&[NAME]).await;
    let silent = |directory: &mut Value| {
        directory.as_object_mut().unwrap().remove("renewalInfo");
    };
    owner.proxy.rule(Rule::on(Step::Directory, Fault::Rewrite(Arc::new(silent))));
    owner.certified().await;
    let begins = owner.now;
    let looks = owner.look_until(begins + 59 * DAY).await;
    assert!(looks.iter().all(|(_, look)| look.did == Did::Nothing), "{looks:?}");
    let at = owner.report.borrow().renewal.clone().unwrap().at;
    assert!((begins + 60 * DAY - HOUR..=begins + 64 * DAY).contains(&at), "{at}, begun at {begins}");
    owner.now = at;
    owner.certified().await;
    assert_eq!(owner.proxy.asked(Step::RenewalInfo), 0);
    assert!(owner.seen(Step::NewOrder).iter().all(|order| order.replaces.is_none()));
}

#[tokio::test]
async fn nonsense_from_the_authority_about_renewal_changes_nothing() {
    let mut owner = Owner::of(&[NAME]).await;
    let first = owner.certified().await;
    let by_life = owner.now + 59 * DAY..owner.now + 65 * DAY;
    for nonsense in [
        "",
        "null",
        "{\"suggestedWindow\":{}}",
        "{\"suggestedWindow\":{\"start\":\"2026-01-02T00:00:00Z\",\"end\":\"2026-01-01T00:00:00Z\"}}",
        "{\"suggestedWindow\":{\"start\":\"soon\",\"end\":\"later\"}}",
        &"[".repeat(100_000),
    ] {
        owner.pebble.renewal_info(&pem(&first), nonsense).await.unwrap();
        owner.now = owner.look().await.next;
        let planned = owner.report.borrow().renewal.clone().unwrap();
        // Where nothing at all is answered, Pebble tells its own window.
        assert!(
            nonsense.is_empty() || by_life.contains(&planned.at) || planned.at > owner.now,
            "{planned:?}"
        );
    }
    assert_eq!(owner.proxy.done(Step::NewOrder), 1);
}
