//! Thirty days in which nothing works, by the authority's own count: what Let's Encrypt grants is never used up
//! (<https://letsencrypt.org/docs/rate-limits/>).

use std::{collections::BTreeSet, sync::Arc};

use hearth_tests::pebble::{Canned, Fault, Proxy, Rule, Step};
use hyper::{Request, Uri, body::Bytes};
use instant_acme::{BodyWrapper, HttpClient};
use node::{config::tls::Directory, tls::acme::engine::Did};
use serde_json::json;

use super::{
    five::{Five, NODES},
    owner::{Answer, DAY, HOUR, NAME, Owner, quickly, transport, within},
};

const MONTH: u64 = 30 * DAY;
const NAMES: [&str; 2] = [NAME, "two.hearth.test"];

/// What an authority was asked for.
#[derive(Debug, Default)]
struct Asked {
    /// When each order was placed, by which account.
    orders: Vec<(u64, String)>,
    /// When each name was looked at, for which account: in vain, where its DNS is broken.
    failed: Vec<(u64, String, String)>,
    /// When each certificate was made.
    issued: Vec<u64>,
    /// When each account was made.
    accounts: Vec<u64>,
}

impl Asked {
    fn count(&mut self, proxy: &Proxy, at: u64) {
        for seen in proxy.seen().into_iter().filter(|seen| seen.went_well()) {
            let account = seen.account.unwrap_or_default();
            match seen.step {
                Step::NewOrder => self.orders.push((at, account)),
                Step::Ready => {
                    self.failed.extend(seen.names.into_iter().map(|name| (at, account.clone(), name)));
                }
                Step::Finalize => self.issued.push(at),
                Step::NewAccount => self.accounts.push(at),
                _ => {}
            }
        }
        proxy.forget();
    }

    fn ordered(&self) -> Vec<u64> {
        self.orders.iter().map(|(at, _)| *at).collect()
    }

    fn failed_of(&self, name: &str) -> Vec<u64> {
        self.failed.iter().filter(|(_, _, whose)| whose == name).map(|(at, ..)| *at).collect()
    }

    /// The authority's limits: 5 failed validations of a name in an hour for an account, 300 orders in 3 hours, 5 certificates for the
    /// same names in 7 days. All accounts of a household together stay inside what is granted to one.
    fn keeps_inside(&self) {
        for name in NAMES {
            assert!(within(&self.failed_of(name), 5, HOUR), "{name}: {self:?}");
        }
        assert!(within(&self.ordered(), 300, 3 * HOUR), "{self:?}");
        assert!(within(&self.issued, 5, 7 * DAY), "{self:?}");
    }

    /// So many accounts still try after a month, each once in a day or so.
    fn goes_on(&self, accounts: usize, now: u64) {
        let all: BTreeSet<&str> = self.orders.iter().map(|(_, account)| account.as_str()).collect();
        assert_eq!((all.len(), self.accounts.len()), (accounts, accounts), "{self:?}");
        for account in all {
            let orders = self.orders.iter().filter(|(_, whose)| whose == account);
            let at: Vec<u64> = orders.map(|(at, _)| *at).collect();
            assert!((20..=60).contains(&at.len()), "{account}: {} orders", at.len());
            assert!(now - at[at.len() - 1] <= 2 * DAY, "{account}: {self:?}");
        }
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
        let look = quickly(owner.look()).await;
        assert!(look.next > owner.now, "{look:?}");
        asked.count(&owner.proxy, owner.now);
        // As the daemon does, which looks once an hour whatever comes.
        owner.now = look.next.min(owner.now + HOUR);
    }
    asked
}

/// The same for a household; what each of these proxies was asked for.
async fn month_of_five<const N: usize>(five: &mut Five, proxies: [&Proxy; N]) -> [Asked; N] {
    let (end, mut asked) = (five.now + MONTH, std::array::from_fn(|_| Asked::default()));
    while five.now < end {
        five.look().await;
        for (asked, proxy) in asked.iter_mut().zip(proxies) {
            Asked::count(asked, proxy, five.now);
        }
    }
    asked
}

#[tokio::test]
async fn thirty_days_of_broken_dns_stay_inside_the_limits() {
    let mut owner = Owner::of(&NAMES).await;
    for name in NAMES {
        owner.pebble.names.broken(&format!("_acme-challenge.{name}"), true).await.unwrap();
    }
    let asked = month(&mut owner).await;
    asked.keeps_inside();
    asked.goes_on(1, owner.now);
    assert_eq!(asked.issued.len(), 0, "{asked:?}");

    // When the DNS works again, there is a certificate within a day or so, by one order.
    for name in NAMES {
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
    asked.keeps_inside();
    assert!(asked.issued.len() >= 15, "it goes on trying: {asked:?}");
    assert!(owner.served().is_empty());
}

/// Five with one authority behind one proxy.
async fn five() -> (Five, Proxy) {
    let pebble = Five::authority().await;
    let proxy = pebble.proxy().await.unwrap();
    let (directory, way) = (Directory::Other(proxy.directory()), transport(pebble.listener().root_pem()));
    (Five::of(pebble, &NAMES, directory, || way.clone()).await, proxy)
}

#[tokio::test]
async fn thirty_days_of_broken_dns_keep_a_household_of_five_inside_the_limits() {
    let (mut five, proxy) = five().await;
    five.broken(&NAMES, true).await;
    let [asked] = month_of_five(&mut five, [&proxy]).await;
    asked.keeps_inside();
    asked.goes_on(NODES, five.now);
    assert_eq!(asked.issued.len(), 0, "{asked:?}");

    five.broken(&NAMES, false).await;
    let (end, mut asked, mut renewed) = (five.now + 2 * DAY, Asked::default(), 0);
    while five.now < end {
        renewed += usize::from(five.look().await.did == Did::Renewed);
        asked.count(&proxy, five.now);
    }
    assert_eq!((renewed, asked.issued.len()), (NODES, NODES), "{asked:?}");
}

#[tokio::test]
async fn certificates_that_are_worth_nothing_keep_a_household_of_five_inside_the_limits() {
    let (mut five, proxy) = five().await;
    proxy.rule(Rule::on(Step::Certificate, Fault::Answer(Canned::new(200, json!("not a certificate")))));
    let [asked] = month_of_five(&mut five, [&proxy]).await;
    asked.keeps_inside();
    assert!(asked.issued.len() >= 15, "they go on trying: {asked:?}");
}

/// Leads to proxies in the place of Let's Encrypt and of its directory for tries.
struct InPlaceOfLetsEncrypt {
    way: Arc<dyn HttpClient>,
    /// Which address leads to which.
    directories: [(&'static str, String); 2],
}

impl HttpClient for InPlaceOfLetsEncrypt {
    fn request(&self, mut request: Request<BodyWrapper<Bytes>>) -> Answer {
        let asked = request.uri().to_string();
        if let Some((_, proxy)) = self.directories.iter().find(|(url, _)| *url == asked) {
            *request.uri_mut() = proxy.parse::<Uri>().unwrap();
        }
        self.way.request(request)
    }
}

#[tokio::test]
async fn a_household_of_five_proves_itself_where_it_costs_nothing_before_it_spends_again() {
    let pebble = Five::authority().await;
    let (counts, tries) = (pebble.proxy().await.unwrap(), pebble.proxy().await.unwrap());
    let root = pebble.listener().root_pem().to_owned();
    let way = || -> Arc<dyn HttpClient> {
        let directories = [
            (Directory::LetsEncrypt.url(), counts.directory()),
            (Directory::Staging.url(), tries.directory()),
        ];
        Arc::new(InPlaceOfLetsEncrypt { way: transport(&root), directories })
    };
    let mut five = Five::of(pebble, &NAMES, Directory::LetsEncrypt, way).await;
    five.broken(&NAMES, true).await;
    let [spent, tried] = month_of_five(&mut five, [&counts, &tries]).await;
    spent.keeps_inside();
    assert_eq!((spent.failed.len(), spent.orders.len()), (NODES, NODES), "each once: {spent:?}");
    tried.goes_on(NODES, five.now);

    // When the DNS works again, each passes there first.
    five.broken(&NAMES, false).await;
    let (end, mut passed) = (five.now + 2 * DAY, 0);
    while passed < NODES {
        assert!(five.now < end, "{:#?} {:#?}", tries.steps(), counts.steps());
        passed += usize::from(five.look().await.did == Did::Passed);
        let seen = counts.seen();
        let orders = seen.iter().filter(|seen| seen.step == Step::NewOrder);
        let ordered: BTreeSet<&str> = orders.filter_map(|seen| seen.account.as_deref()).collect();
        assert!(ordered.len() <= passed, "{:#?} {:#?}", tries.steps(), counts.steps());
    }
    assert!(counts.done(Step::Finalize) > 0, "{:#?}", counts.steps());
}
