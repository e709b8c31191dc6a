//! Renewals one after the other under connections that go on: none is dropped, and whoever comes new sees the new certificate.

use std::{collections::BTreeSet, sync::Arc};

use hearth_tests::{
    daemon::{Daemon, PATIENCE, wait_until},
    pebble::{Canned, Fault, Rule, Step, presented},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::gateway::{NAME, Site, high_time, pem};

const RENEWALS: usize = 20;
const WATCHERS: usize = 20;
const SESSIONS: usize = 20;

/// A connection to the public name, which is kept.
async fn session(node: &Daemon, client: &Arc<ClientConfig>) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(node.address()).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let tls = TlsConnector::from(client.clone()).connect(name, stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    drop(tokio::spawn(connection));
    sender
}

async fn is_alive(session: &mut SendRequest<Empty<Bytes>>) {
    let request = Request::get("/healthz").header("host", NAME).body(Empty::new()).unwrap();
    let response = session.send_request(request).await.unwrap();
    // Who asks so often may be told to wait: what counts is that it is told over the same connection.
    assert!(matches!(response.status().as_u16(), 200 | 429), "{response:?}");
    response.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn twenty_renewals_drop_no_connection() {
    let site = Site::new().await;
    site.proxy.rule(Rule::on(Step::RenewalInfo, Fault::HoldBefore));
    let node = site.plan("one", &site.config_of("minute", "http-01", &[NAME])).start().await.unwrap();
    let first = site.certified(&node, NAME).await;
    site.proxy.holds().await.unwrap();

    let (client, token) = (site.client().await, node.token("viewer").await.unwrap());
    let web = node.web(Some(&token)).await.unwrap();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut watcher = web.watch().await.unwrap();
        watcher.subscribe(&["note/"], None).await.unwrap();
        watchers.push(watcher);
    }
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(session(&node, &client).await);
    }

    // Now they begin: as soon as the node asks when to renew, it is high time, for each certificate but the last.
    site.pebble.renewal_info(&pem(&first[0]), &high_time().to_string()).await.unwrap();
    site.proxy.clear();
    let at_once = Fault::Answer(Canned::new(200, high_time()));
    site.proxy.rule(Rule::on(Step::RenewalInfo, at_once).times(RENEWALS - 1));
    let mut seen = BTreeSet::new();
    wait_until("the last renewal is made", 3 * PATIENCE, async || {
        seen.insert(presented(node.address(), NAME, &client).await?[0].to_vec());
        for session in &mut sessions {
            is_alive(session).await;
        }
        Ok(site.proxy.done(Step::Certificate) > RENEWALS)
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{:#?}\n{}", site.proxy.steps(), node.log()));
    wait_until("the last certificate is served", PATIENCE, async || {
        seen.insert(presented(node.address(), NAME, &client).await?[0].to_vec());
        Ok(seen.len() > RENEWALS)
    })
    .await
    .unwrap();
    for session in &mut sessions {
        is_alive(session).await;
    }
    // Nobody of them was dropped: each hears what is written now.
    node.put("note/last", json!({ "text": "still here" })).await.unwrap();
    for watcher in &mut watchers {
        watcher.until("the note", |message| message["object"]["id"] == "note/last").await.unwrap();
    }
    let orders: Vec<_> = site.proxy.seen().into_iter().filter(|seen| seen.step == Step::NewOrder).collect();
    let replacing = orders.iter().filter(|order| order.went_well() && order.replaces.is_some()).count();
    assert!(replacing >= RENEWALS / 2, "{orders:#?}");
}
