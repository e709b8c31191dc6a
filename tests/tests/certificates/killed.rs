//! A node that is killed while it orders, at every step and by each challenge, in a household of five of which the authority reaches
//! another one: it goes on where it was, and nothing is left with any of them.

use std::{collections::BTreeSet, fs, thread};

use hearth_tests::{
    daemon::Daemon,
    pebble::{Fault, Rule, Step},
};

use super::{
    gateway::{Site, nothing_is_left},
    lan::{CHALLENGES, Lan, NAME},
};

/// Households that share the rounds of one challenge.
const HOUSEHOLDS: usize = 2;

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

/// A household whose first board orders, and does not run between the rounds.
struct Household {
    site: Site,
    challenge: &'static str,
    orderer: Daemon,
    others: Vec<Daemon>,
}

impl Household {
    async fn form(lan: &Lan, challenge: &'static str) -> Self {
        let site = lan.site().await;
        // The one that the authority reaches.
        let mut others = vec![lan.answering(&site, challenge, 4).start().await.unwrap()];
        for at in 1..4 {
            let other = others[0].joined_by(lan.answering(&site, challenge, at)).await.unwrap();
            others.push(other);
        }
        site.proxy.rule(Rule::on(Step::Directory, Fault::HoldBefore));
        let mut orderer = others[0].joined_by(lan.ordering(&site, challenge, 0)).await.unwrap();
        orderer.kill().await.unwrap();
        site.proxy.clear();
        Self { site, challenge, orderer, others }
    }

    async fn round(&mut self, points: &[Point]) {
        let folder = self.orderer.state_dir().join("acme");
        if folder.exists() {
            // What it had of the authority in the round before: it has no account and no certificate again.
            fs::remove_dir_all(&folder).unwrap();
        }
        self.site.proxy.forget();
        for point in points {
            self.is_killed_at(*point).await;
        }
        self.orderer.start().await.unwrap();
        self.site.certified(&self.orderer, NAME).await;
        for node in self.others.iter().chain([&self.orderer]) {
            nothing_is_left(node).await;
        }
        assert!(!folder.join("order").exists(), "{} {points:?}", self.challenge);
        self.nothing_was_done_twice(points);
        self.orderer.kill().await.unwrap();
    }

    async fn is_killed_at(&mut self, point: Point) {
        let fault = if point.is_done { Fault::HoldAfter } else { Fault::HoldBefore };
        self.site.proxy.rule(Rule::on(point.step, fault).after(point.after));
        self.orderer.start().await.unwrap();
        if let Err(error) = self.site.proxy.holds().await {
            panic!("{} {point:?}: {error:#}\n{}", self.challenge, self.orderer.log());
        }
        self.orderer.kill().await.unwrap();
        self.site.proxy.clear();
    }

    fn nothing_was_done_twice(&self, points: &[Point]) {
        let proxy = &self.site.proxy;
        let context = || format!("{} {points:?}: {:#?}", self.challenge, proxy.steps());
        let accounts: BTreeSet<_> = proxy.seen().into_iter().filter_map(|seen| seen.account).collect();
        assert_eq!(accounts.len(), 1, "{}", context());
        // One whose address was never heard cannot be gone on with. Every other one is, and the authority finds its proof while
        // the node that ordered is dead.
        let lost = points.iter().filter(|it| it.is_done && it.step == Step::NewOrder).count();
        assert_eq!(proxy.done(Step::NewOrder), 1 + lost, "{}", context());
        assert_eq!(proxy.done(Step::Finalize), 1, "{}", context());
        if self.challenge == "dns-01" {
            let hooked = self.site.hooked();
            let last = |action: &str| hooked.iter().rposition(|line| line.starts_with(action));
            assert!(last("cleanup") > last("present"), "{points:?}: {hooked:?}");
        }
    }
}

/// All households at the same time: they mostly wait.
#[test]
fn thirty_times_by_each_challenge() {
    let rounds = rounds();
    thread::scope(|scope| {
        for (challenge, household) in
            CHALLENGES.into_iter().flat_map(|it| (0..HOUSEHOLDS).map(move |at| (it, at)))
        {
            let own = rounds.iter().skip(household).step_by(HOUSEHOLDS);
            scope.spawn(move || {
                let lan = Lan::new();
                lan.run(async || {
                    let mut household = Household::form(&lan, challenge).await;
                    for points in own {
                        household.round(points).await;
                    }
                });
            });
        }
    });
}
