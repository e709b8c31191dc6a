//! Five boards with one name, and an authority that reaches one of them only: each orders for itself, whoever is asked answers,
//! and no private key leaves its board.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use hearth_tests::{
    daemon::{Daemon, Launch, PATIENCE, Plan, free_port, wait_until},
    fakes::name_server::{NameServer, Program, Zone},
    pebble::{self, Fault, Rule, Step, presented},
};
use rustix::process::Signal;

use super::{
    gateway::{Site, nothing_is_left},
    lan::{CHALLENGES, Lan, NAME},
};

/// What must be in no place but the folder of its own node: each key as it may be written, and where it is kept.
fn secrets(node: &Daemon) -> Vec<Vec<u8>> {
    let mut secrets = Vec::new();
    let folder = node.state_dir().join("acme");
    let files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for key in text.split("\"key\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let der = BASE64URL_NOPAD.decode(key.as_bytes()).unwrap();
            // PKCS #8 of P-256: the scalar follows 36 bytes that are the same for every key.
            let scalar = &der[36..68];
            secrets.extend([der.clone(), scalar.to_vec(), HEXLOWER.encode(scalar).into_bytes()]);
            let texts =
                [BASE64.encode(&der), key.to_owned(), BASE64.encode(scalar), BASE64URL_NOPAD.encode(scalar)];
            secrets.extend(texts.map(String::into_bytes));
        }
    }
    assert!(secrets.len() >= 14, "an account's key and a certificate's, each in seven forms");
    secrets
}

/// All that is in a folder, with where it is, but for the files below `except`.
fn everything(folder: &Path, except: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        if kind.is_dir() && path != except {
            found.extend(everything(&path, except));
        } else if kind.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn holds(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// No key is anywhere but in its own node's folder for certificates.
async fn no_key_has_left(nodes: &[Daemon]) {
    let mut places: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for node in nodes {
        let state = node.state_dir();
        let objects = node.client().objects("").await.unwrap();
        places.push((PathBuf::from("objects"), format!("{objects:?}").into_bytes()));
        let backup = state.join("backup-of-the-test");
        node.cli(&["backup", backup.to_str().unwrap()]).await.unwrap().ok().unwrap();
        for words in [&["doctor"][..], &["status", "--json"], &["config", "show"], &["export"]] {
            let said = node.cli(words).await.unwrap();
            places.push((PathBuf::from(words[0]), said.text().into_bytes()));
        }
        places.push((PathBuf::from("log"), node.log().into_bytes()));
        places.extend(everything(state, &state.join("acme")));
    }
    for node in nodes {
        for secret in secrets(node) {
            for (place, content) in &places {
                assert!(!holds(content, &secret), "a key of {} is in {}", node.name(), place.display());
            }
        }
    }
}

/// Each value is taken away before the next is put: the household orders one after the other.
fn one_value_at_a_time(hooked: &[String]) {
    assert_eq!(hooked.len(), 10, "{hooked:#?}");
    for pair in hooked.chunks(2) {
        let value = pair[0].strip_prefix("present ").unwrap_or_else(|| panic!("{hooked:#?}"));
        assert_eq!(pair[1], format!("cleanup {value}"), "{hooked:#?}");
    }
}

async fn orders(lan: &Lan, challenge: &str) {
    let site = lan.site().await;
    // The first is alone at its start, and the authority would find nobody: it is not asked before all are there.
    site.proxy.rule(Rule::on(Step::Directory, Fault::HoldBefore));
    let first = lan.ordering(&site, challenge, 0).start().await.unwrap();
    let mut nodes = vec![first];
    for at in 1..5 {
        let node = nodes[0].joined_by(lan.ordering(&site, challenge, at)).await.unwrap();
        nodes.push(node);
    }
    site.proxy.clear();
    let client = site.client().await;
    let mut leaves = BTreeSet::new();
    for node in &nodes {
        leaves.insert(site.certified(node, NAME).await[0].to_vec());
        presented(node.address(), NAME, &client).await.unwrap();
    }
    assert_eq!(leaves.len(), 5, "each has a certificate of its own");
    let accounts: BTreeSet<_> = site.proxy.seen().into_iter().filter_map(|seen| seen.account).collect();
    assert_eq!(accounts.len(), 5, "and an account of its own");
    assert!(site.proxy.done(Step::Finalize) == 5, "{:#?}", site.proxy.steps());
    for node in &nodes {
        nothing_is_left(node).await;
    }
    no_key_has_left(&nodes).await;
    if challenge == "dns-01" {
        one_value_at_a_time(&site.hooked());
    }
}

/// By each challenge in a household of its own, at the same time: nodes that wait take none of the processor's.
fn side_by_side(challenges: &[&str], test: impl AsyncFn(&Lan, &str) + Sync) {
    thread::scope(|scope| {
        for challenge in challenges {
            scope.spawn(|| {
                let lan = Lan::new();
                lan.run(async || test(&lan, challenge).await);
            });
        }
    });
}

#[test]
fn whoever_is_asked_answers_for_the_one_that_orders() {
    side_by_side(&CHALLENGES, orders);
}

/// A gateway that sleeps is waited for until it is taken for dead: had the authority asked it before, it would have had no answer.
async fn waits(lan: &Lan, challenge: &str) {
    let site = lan.site().await;
    let reached = lan.answering(&site, challenge, 4).start().await.unwrap();
    let sleeper = reached.joined_by(lan.answering(&site, challenge, 1)).await.unwrap();
    // The last that is asked for before there is an answer to give.
    site.proxy.rule(Rule::on(Step::Authorization, Fault::HoldBefore));
    let orderer = reached.joined_by(lan.ordering(&site, challenge, 0)).await.unwrap();
    site.proxy.holds().await.unwrap();
    orderer.sees(&sleeper, "alive").await.unwrap();
    wait_until("all three are known as gateways", PATIENCE, async || {
        Ok(orderer.client().objects("certificate/").await?.len() == 3)
    })
    .await
    .unwrap();
    sleeper.signal(Signal::STOP).unwrap();
    site.proxy.clear();
    wait_until("the authority is told", PATIENCE, async || {
        let is_told = site.proxy.asked(Step::Ready) > 0;
        // Read after it: what slept when the authority was told sleeps still.
        if is_told {
            assert_ne!(orderer.state_of(sleeper.name()).await?, "alive", "{}", orderer.log());
        }
        Ok(is_told)
    })
    .await
    .unwrap();
    site.certified(&orderer, NAME).await;
    sleeper.signal(Signal::CONT).unwrap();
    nothing_is_left(&sleeper).await;
}

#[test]
fn the_authority_is_told_when_every_living_gateway_has_the_answer() {
    // A value of the DNS is no gateway's to acknowledge.
    side_by_side(&["http-01", "tls-alpn-01"], waits);
}

/// Of two households that share a name nobody says whose turn it is: their values stand side by side, at a real name server.
#[tokio::test]
async fn two_that_do_not_wait_for_each_other_prove_one_name_at_the_same_time() {
    let zone = Zone { changeable: &["_acme-challenge"], ..Zone::new(NAME) };
    let server = NameServer::start(Program::Knot, "hmac-sha256", &[zone]).await.unwrap();
    let site = Site::with(|plan| pebble::Plan { dns: Some(server.at), ..plan }).await;
    let config = site.config_at(server.at, NAME, &[NAME]);
    // The value of the first is there, and the authority does not look yet.
    site.proxy.rule(Rule::on(Step::Ready, Fault::HoldBefore).times(1));
    let first = site.plan("one", &config).start().await.unwrap();
    site.proxy.holds().await.unwrap();
    let free = SocketAddr::new(site.http.ip(), free_port().unwrap());
    let config = config.replace(&site.http.to_string(), &free.to_string());
    let second = Plan::new("two").config(config).launch(Launch::new().synchronised()).start().await.unwrap();
    site.certified(&second, NAME).await;
    // The second has taken its own value away and no other.
    site.proxy.clear();
    site.certified(&first, NAME).await;
    for step in [Step::NewOrder, Step::Ready, Step::Finalize] {
        assert_eq!(site.proxy.done(step), 2, "{step:?}: {:#?}", site.proxy.steps());
    }
}
