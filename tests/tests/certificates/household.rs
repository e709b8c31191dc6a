//! Five boards with one name, and an authority that reaches one of them only: each orders for itself, whoever is asked answers,
//! and no private key leaves its board.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use hearth_tests::{
    daemon::{Daemon, Launch, Plan},
    network::Network,
    pebble::{self, Fault, Rule, Step, presented},
};

use super::gateway::{Site, nothing_is_left};

const NAME: &str = "home.hearth.test";
const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
/// Where the authority is.
const AUTHORITY: &str = "10.91.0.100";

fn address(board: usize) -> IpAddr {
    format!("10.91.0.{}", board + 1).parse().unwrap()
}

/// The boards and the authority at one switch. Answers with their namespaces, the authority's last.
fn lan() -> (Network, Vec<String>, String) {
    let mut network = Network::new(&["lan"]).unwrap();
    let mut plug = |name: &str, address: &str| {
        let board = network.board(name).unwrap();
        network.plug(&board, "eth0", "lan").unwrap();
        network.address(&board, "eth0", &format!("{address}/24")).unwrap();
        board
    };
    let boards = NAMES.iter().enumerate().map(|(at, name)| plug(name, &address(at).to_string())).collect();
    let authority = plug("ca", AUTHORITY);
    (network, boards, authority)
}

fn plan(site: &Site, challenge: &str, at: usize, board: &str) -> Plan {
    let own = |port| SocketAddr::new(address(at), port);
    let config = site.config(challenge, &[NAME]).replace(&site.http.to_string(), &own(80).to_string());
    let launch = Launch::new().on_board(board).listen(own(443)).synchronised();
    Plan::new(NAMES[at]).config(config).launch(launch)
}

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

/// The authority reaches the last board only.
async fn orders(challenge: &str, boards: &[String]) {
    let plan_of_ca = pebble::Plan { address: AUTHORITY.parse().unwrap(), ..pebble::Plan::new(80, 443) };
    let site = Site::at(address(0), plan_of_ca).await;
    site.pebble.names.point(NAME, &[address(4)]).await.unwrap();
    // The first is alone at its start, and the authority would find nobody: it is not asked before all are there.
    site.proxy.rule(Rule::on(Step::Directory, Fault::HoldBefore));
    let first = plan(&site, challenge, 0, &boards[0]).start().await.unwrap();
    let mut nodes = vec![first];
    for (at, board) in boards.iter().enumerate().skip(1) {
        let node = nodes[0].joined_by(plan(&site, challenge, at, board)).await.unwrap();
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
}

fn household(challenge: &str) {
    let (network, boards, authority) = lan();
    network.on(&authority, async || orders(challenge, &boards).await).unwrap();
}

#[test]
fn whoever_is_asked_over_http_answers_for_the_one_that_orders() {
    household("http-01");
}

#[test]
fn whoever_is_asked_over_tls_answers_for_the_one_that_orders() {
    household("tls-alpn-01");
}
