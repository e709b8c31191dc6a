//! Renewals one after the other under connections that go on: none is dropped, and whoever comes new sees the new certificate.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use hearth_tests::{
    daemon::{Daemon, Observer, PATIENCE, wait_until},
    hostile::peer::{Member, Stranger, Wire},
    pebble::{Canned, Fault, Rule, Step, presented},
};
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{Value, wire::Message};
use node::tls::acme::der::Certificate;
use rustls::ClientConfig;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::gateway::{NAME, Site, high_time, pem};

const RENEWALS: usize = 20;
const WEBSOCKETS: usize = 200;
const LINKS: usize = 50;
/// Of the WebSockets those that show the same token: nobody may have them all.
const OF_ONE: usize = 50;
/// How often somebody comes new.
const COMES_EVERY: Duration = Duration::from_millis(25);
/// What the node logs as soon as it serves another certificate.
const SWAPPED: &str = "a new public certificate is served";

/// Those who hear of notes over a WebSocket to the public name.
async fn websockets(node: &Daemon, client: &Arc<ClientConfig>) -> Vec<Observer> {
    let mut sockets = Vec::new();
    while sockets.len() < WEBSOCKETS {
        let token = node.token("viewer").await.unwrap();
        let web = node.web(Some(&token)).await.unwrap().named(NAME, client);
        for _ in 0..OF_ONE {
            let mut socket = web.watch().await.unwrap();
            socket.subscribe(&["note/"], None).await.unwrap();
            sockets.push(socket);
        }
    }
    sockets
}

/// Members of the household, each with its link over QUIC.
async fn links(node: &Daemon) -> Vec<(Member, Wire)> {
    let (client, role, mut links) = (node.client(), json!({ "roles": ["member"] }), Vec::new());
    for _ in 0..LINKS {
        let invite = client.send("POST", "/api/v1/invites", Some(&role)).await.unwrap().success().unwrap();
        let member = Stranger::new().join(invite["token"].as_str().unwrap()).await;
        let wire = member.link(node.address()).await;
        links.push((member, wire));
    }
    links
}

/// Whether a node tells a peer of an object by this.
fn tells_of(message: &Message, object: &str) -> bool {
    match message {
        Message::Push(items) | Message::TreeItems(items) | Message::Page { items, .. } => {
            items.iter().any(|item| item.key.object.as_str() == object)
        }
        _ => false,
    }
}

/// Somebody who came new: when, and until when the certificate counts that was shown, by which it is known.
#[derive(Debug, Clone, Copy)]
struct Visit {
    begun: Timestamp,
    until: u64,
    done: Timestamp,
}

/// Lets somebody come new all the time, until the task is aborted.
async fn visit(node: SocketAddr, client: Arc<ClientConfig>, visits: Arc<Mutex<Vec<Visit>>>) {
    let mut pace = interval(COMES_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let begun = Timestamp::now();
        let chain = presented(node, NAME, &client).await.unwrap();
        let until = Certificate::read(&chain[0]).unwrap().not_after;
        visits.lock().unwrap().push(Visit { begun, until, done: Timestamp::now() });
    }
}

/// How many certificates were seen.
fn seen(visits: &Mutex<Vec<Visit>>) -> usize {
    visits.lock().unwrap().iter().map(|visit| visit.until).collect::<BTreeSet<u64>>().len()
}

/// When the node began to serve each of its certificates, and until when each counts.
fn swaps(node: &Daemon) -> Vec<(Timestamp, u64)> {
    let of = |line: &str| {
        let until = line.split_whitespace().find_map(|word| word.strip_prefix("until="))?;
        Some((line.split_whitespace().next()?.parse().ok()?, until.parse().ok()?))
    };
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(SWAPPED));
    lines.map(|line| of(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// Nobody who came after a swap was shown what was served before it, and so it was seen in no time; answers with the longest that
/// it took from a swap until somebody had seen the new certificate, which says more of this machine.
fn each_was_seen(swaps: &[(Timestamp, u64)], visits: &[Visit]) -> SignedDuration {
    let mut longest = SignedDuration::ZERO;
    for (swap, until) in swaps {
        let late: Vec<&Visit> =
            visits.iter().filter(|visit| visit.begun >= *swap && visit.until < *until).collect();
        assert!(late.is_empty(), "the certificate until {until} was served from {swap} on: {late:?}");
        let seen = visits.iter().find(|visit| visit.until >= *until).expect("each was seen");
        longest = longest.max(seen.done.duration_since(*swap));
    }
    longest
}

/// A note reaches each of them, over the connection that it has.
async fn hear(node: &Daemon, note: &str, sockets: &mut [Observer], links: &mut [(Member, Wire)]) {
    node.put(note, json!({ "text": "still here" })).await.unwrap();
    let sockets = sockets.iter_mut().map(|socket| async {
        socket.until(note, |message| message["object"]["id"] == note).await.unwrap();
    });
    let links = links.iter_mut().map(|(_, wire)| wire.hear(note, |message| tells_of(message, note)));
    tokio::join!(join_all(sockets), join_all(links));
}

/// The node takes in what each member says over its link.
async fn is_heard(node: &Daemon, links: &mut [(Member, Wire)]) {
    for (number, (member, wire)) in links.iter_mut().enumerate() {
        let text = Value::from("and here").encode().unwrap().to_vec();
        let write = member.write(&format!("note/of-{number}"), "text", text);
        wire.say(&[Message::Push(vec![write])]).await;
    }
    wait_until("what every member says is taken in", PATIENCE, async || {
        Ok(node.client().objects("note/of-").await?.len() == links.len())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_renewals_under_two_hundred_and_fifty_connections_drop_none() {
    let site = Site::new().await;
    site.proxy.rule(Rule::on(Step::RenewalInfo, Fault::HoldBefore));
    let node = site.plan("one", &site.config_of("minute", "http-01", &[NAME])).start().await.unwrap();
    let first = site.certified(&node, NAME).await;
    site.proxy.holds().await.unwrap();
    let client = site.client().await;
    let mut sockets = websockets(&node, &client).await;
    let mut links = links(&node).await;
    let visits = Arc::<Mutex<Vec<Visit>>>::default();
    let visiting = tokio::spawn(visit(node.address(), client, visits.clone()));

    // Now they begin: as soon as the node asks when to renew, it is high time, for each certificate but the last.
    site.pebble.renewal_info(&pem(&first[0]), &high_time().to_string()).await.unwrap();
    site.proxy.clear();
    let at_once = Fault::Answer(Canned::new(200, high_time()));
    site.proxy.rule(Rule::on(Step::RenewalInfo, at_once).times(RENEWALS - 1));
    let mut heard = 0;
    let renewed = wait_until("the last certificate is seen", 3 * PATIENCE, async || {
        let seen = seen(&visits);
        if heard < seen {
            hear(&node, &format!("note/round-{seen}"), &mut sockets, &mut links).await;
            heard = seen;
        }
        Ok(seen > RENEWALS || visiting.is_finished())
    });
    renewed.await.unwrap_or_else(|error| panic!("{error:#}\n{:#?}\n{}", site.proxy.steps(), node.log()));
    assert!(!visiting.is_finished(), "somebody who came new was not let in");
    visiting.abort();
    is_heard(&node, &mut links).await;
    assert_eq!((sockets.len(), links.len()), (WEBSOCKETS, LINKS));

    let swaps = swaps(&node);
    assert!(swaps.len() > RENEWALS, "{swaps:?}");
    let took = each_was_seen(&swaps[1..=RENEWALS], &visits.lock().unwrap());
    println!("new connections saw each new certificate within {took:?}");
    let orders: Vec<_> = site.proxy.seen().into_iter().filter(|seen| seen.step == Step::NewOrder).collect();
    let replacing = orders.iter().filter(|order| order.went_well() && order.replaces.is_some()).count();
    assert!(replacing >= RENEWALS / 2, "{orders:#?}");
}
