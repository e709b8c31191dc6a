//! A node that is killed while it orders, at every step and by each challenge: it goes on where it was, and nothing is left.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use hearth_tests::{
    daemon::Daemon,
    pebble::{Fault, Rule, Step},
};

use super::gateway::{NAME, Site, nothing_is_left};

/// Rounds at the same time.
const LANES: usize = 3;

/// Where it is killed: at the so-manieth request of a step, from 0.
#[derive(Debug, Clone, Copy)]
struct Point {
    step: Step,
    after: usize,
    /// Whether the authority has done what it was asked.
    is_done: bool,
}

/// Thirty rounds: every step, before and after it is done; then twice in one order.
fn rounds() -> Vec<Vec<Point>> {
    let again = [Step::Authorization, Step::Order, Step::Directory].map(|step| (step, 1));
    let steps = Step::OF_AN_ORDER.map(|step| (step, 0)).into_iter().chain(again);
    let once = steps.flat_map(|(step, after)| [false, true].map(|is_done| Point { step, after, is_done }));
    let mut rounds: Vec<Vec<Point>> = once.map(|point| vec![point]).collect();
    let point = |step, is_done| Point { step, after: 0, is_done };
    for (first, second) in [
        (Step::NewAccount, Step::NewOrder),
        (Step::NewOrder, Step::Ready),
        (Step::Authorization, Step::Finalize),
        (Step::Ready, Step::Finalize),
        (Step::Ready, Step::Certificate),
        (Step::Finalize, Step::Certificate),
    ] {
        rounds.push(vec![point(first, true), point(second, true)]);
    }
    assert_eq!(rounds.len(), 30);
    rounds
}

async fn round(challenge: &str, points: &[Point]) {
    let site = Site::new().await;
    let plan = site.plan("one", &site.config(challenge, &[NAME]));
    let mut node: Option<Daemon> = None;
    for point in points {
        let fault = if point.is_done { Fault::HoldAfter } else { Fault::HoldBefore };
        site.proxy.rule(Rule::on(point.step, fault).after(point.after));
        match &mut node {
            Some(node) => node.start().await.unwrap(),
            None => node = Some(plan.clone().start().await.unwrap()),
        }
        let node = node.as_mut().unwrap();
        if let Err(error) = site.proxy.holds().await {
            panic!("{challenge} {point:?}: {error:#}\n{}", node.log());
        }
        node.kill().await.unwrap();
        site.proxy.clear();
    }
    let mut node = node.unwrap();
    node.start().await.unwrap();
    site.certified(&node, NAME).await;
    nothing_is_left(&node).await;

    let (seen, steps) = (site.proxy.seen(), site.proxy.steps());
    let accounts: BTreeSet<_> = seen.iter().filter_map(|seen| seen.account.clone()).collect();
    assert_eq!(accounts.len(), 1, "{challenge} {points:?}: {steps:#?}");
    // One whose address was never heard cannot be gone on with, and one at which the authority looked while nobody was there
    // to answer has failed. Every other one is gone on with.
    let lost = points.iter().filter(|it| it.is_done && [Step::NewOrder, Step::Ready].contains(&it.step));
    let (orders, most) = (site.proxy.done(Step::NewOrder), 1 + lost.count());
    assert!((1..=most).contains(&orders), "{challenge} {points:?}: {orders} orders: {steps:#?}");
    assert_eq!(site.proxy.done(Step::Finalize), 1, "{challenge} {points:?}: {steps:#?}");
    assert!(!node.state_dir().join("acme/order").exists(), "{challenge} {points:?}");
    if challenge == "dns-01" {
        let hooked = site.hooked();
        let last = |action: &str| hooked.iter().rposition(|line| line.starts_with(action));
        assert!(last("cleanup") > last("present"), "{points:?}: {hooked:?}");
    }
}

async fn thirty_rounds(challenge: &'static str) {
    let rounds = stream::iter(rounds()).map(|points| async move { round(challenge, &points).await });
    rounds.buffer_unordered(LANES).collect::<()>().await;
}

#[tokio::test]
async fn thirty_times_by_http_01() {
    thirty_rounds("http-01").await;
}

#[tokio::test]
async fn thirty_times_by_tls_alpn_01() {
    thirty_rounds("tls-alpn-01").await;
}

#[tokio::test]
async fn thirty_times_by_dns_01() {
    thirty_rounds("dns-01").await;
}
