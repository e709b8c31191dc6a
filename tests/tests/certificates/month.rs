//! Thirty days in which nothing works, by the authority's own count: what Let's Encrypt grants is never used up
//! (<https://letsencrypt.org/docs/rate-limits/>).

use hearth_tests::pebble::{Canned, Fault, Rule, Step};
use node::tls::acme::engine::Did;
use serde_json::json;

use super::owner::{DAY, HOUR, NAME, Owner, within};

const MONTH: u64 = 30 * DAY;

/// What one look asked for.
#[derive(Debug, Default)]
struct Asked {
    /// When each order was placed.
    orders: Vec<u64>,
    /// When each name was looked at in vain.
    failed: Vec<(u64, String)>,
    /// When each certificate was made.
    issued: Vec<u64>,
    /// When each account was made.
    accounts: Vec<u64>,
}

impl Asked {
    fn count(&mut self, owner: &Owner, at: u64) {
        for seen in owner.proxy.seen().iter().filter(|seen| seen.went_well()) {
            match seen.step {
                Step::NewOrder => self.orders.push(at),
                Step::Ready => self.failed.extend(seen.names.iter().map(|name| (at, name.clone()))),
                Step::Finalize => self.issued.push(at),
                Step::NewAccount => self.accounts.push(at),
                _ => {}
            }
        }
        owner.proxy.forget();
    }

    fn failed_of(&self, name: &str) -> Vec<u64> {
        self.failed.iter().filter(|(_, whose)| whose == name).map(|(at, _)| *at).collect()
    }
}

/// Looks for a month, and counts; a node that is started anew every other day knows what it did.
async fn month(owner: &mut Owner) -> Asked {
    let (end, mut asked, mut restart) = (owner.now + MONTH, Asked::default(), owner.now + 2 * DAY);
    let root = owner.pebble.listener().root_pem().to_owned();
    while owner.now < end {
        if owner.now >= restart {
            owner.again(&root).await;
            restart += 2 * DAY;
        }
        let look = owner.look().await;
        assert!(look.next > owner.now, "{look:?}");
        asked.count(owner, owner.now);
        // As the daemon does, which looks once an hour whatever comes.
        owner.now = look.next.min(owner.now + HOUR);
    }
    asked
}

#[tokio::test]
async fn thirty_days_of_broken_dns_stay_inside_the_limits() {
    let names = [NAME, "two.hearth.test"];
    let mut owner = Owner::of(&names).await;
    for name in names {
        owner.pebble.names.broken(&format!("_acme-challenge.{name}"), true).await.unwrap();
    }
    let asked = month(&mut owner).await;
    for name in names {
        assert!(within(&asked.failed_of(name), 5, HOUR), "{name}: {asked:?}");
    }
    assert!(within(&asked.orders, 300, 3 * HOUR), "{asked:?}");
    assert_eq!((asked.accounts.len(), asked.issued.len()), (1, 0), "{asked:?}");
    assert!(asked.orders.len() >= 20 && asked.orders.len() <= 60, "{} orders", asked.orders.len());
    assert!(owner.now - asked.orders.last().unwrap() <= 2 * DAY, "it goes on trying: {asked:?}");

    // When the DNS works again, there is a certificate within a day or so, by one order.
    for name in names {
        owner.pebble.names.broken(&format!("_acme-challenge.{name}"), false).await.unwrap();
    }
    let looks = owner.look_until(owner.now + 2 * DAY).await;
    assert_eq!(looks.iter().filter(|(_, look)| look.did == Did::Renewed).count(), 1, "{}", owner.wrong());
    assert_eq!(owner.proxy.done(Step::Finalize), 1);
}

#[tokio::test]
async fn thirty_days_of_certificates_that_are_worth_nothing_stay_inside_the_limits() {
    let mut owner = Owner::of(&[NAME]).await;
    owner
        .proxy
        .rule(Rule::on(Step::Certificate, Fault::Answer(Canned::new(200, json!("not a certificate")))));
    let asked = month(&mut owner).await;
    assert!(within(&asked.issued, 5, 7 * DAY), "{asked:?}");
    assert!(asked.issued.len() >= 15, "it goes on trying: {asked:?}");
    assert!(owner.served().is_empty());
}
