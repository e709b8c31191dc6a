//! What is wrong is shown to people in the authority's own words, wherever they look, and the old certificate is served meanwhile.

use hearth_tests::{
    daemon::{Daemon, PATIENCE, wait_until},
    pebble::{Canned, Fault, Plan, Rule, Step},
};

use super::gateway::{NAME, Site, high_time};

const WORDS: &str = "too many certificates already issued for hearth.test, said the authority";

/// All that a person may look at.
async fn shown(node: &Daemon) -> [(&'static str, String); 4] {
    let status = node.cli(&["status"]).await.unwrap().text();
    let json = node.cli(&["status", "--json"]).await.unwrap().text();
    let doctor = node.cli(&["doctor"]).await.unwrap().text();
    [("status", status), ("status --json", json), ("doctor", doctor), ("log", node.log())]
}

async fn metric(node: &Daemon, name: &str) -> Vec<String> {
    let metrics = node.client().get("/metrics").await.unwrap().body;
    metrics.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn in_its_own_words_and_the_old_certificate_stays() {
    let site = Site::with(|plan| Plan { refused_nonces: 0, ..plan }).await;
    site.proxy.rule(Rule::on(Step::RenewalInfo, Fault::Answer(Canned::new(200, high_time()))).times(1));
    let limited = Canned::problem(429, "rateLimited", WORDS).retry_after(7_200);
    site.proxy.rule(Rule::on(Step::NewOrder, Fault::Answer(limited)).after(1));
    let node = site.plan("one", &site.config_of("minutes", "http-01", &[NAME])).start().await.unwrap();
    let told = wait_until("what the authority said is shown", PATIENCE, async || {
        Ok(shown(&node).await.iter().all(|(_, text)| text.contains(WORDS)))
    });
    if let Err(error) = told.await {
        panic!("{error:#}: {:#?}\n{:#?}", shown(&node).await, site.proxy.steps());
    }
    let metrics = metric(&node, "hearth_certificate").await;
    assert!(metrics.iter().any(|line| line.contains("failures") && line.ends_with(" 1")), "{metrics:#?}");
    site.certified(&node, NAME).await;
    assert_eq!(site.proxy.asked(Step::NewOrder), 2, "{:#?}", site.proxy.steps());
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_named() {
    let site = Site::new().await;
    site.pebble.names.point(NAME, &[]).await.unwrap();
    let node = site.plan("one", &site.config("http-01", &[NAME])).start().await.unwrap();
    let told = wait_until("what the authority said is shown", PATIENCE, async || {
        let shown = shown(&node).await;
        Ok(shown.iter().all(|(_, text)| text.contains(NAME) && text.contains("could not resolve URL")))
    });
    if let Err(error) = told.await {
        panic!("{error:#}: {:#?}\n{:#?}", shown(&node).await, site.proxy.steps());
    }
    assert_eq!(site.proxy.done(Step::Ready), 1);
    // The home goes on with its own certificate.
    assert_eq!(node.web(None).await.unwrap().get("/healthz").await.unwrap().status, 200);
}
