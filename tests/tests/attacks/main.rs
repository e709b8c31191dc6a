//! The front door under attack: a corpus of bad inputs, each with the refusal that it must get, sent to a real
//! node while a good client is served.
//!
//! After every single attack the good client writes an object and sees it come over its WebSocket. No answer to an attack, no log
//! and no export holds a secret. To add an attack, add a line to one of the files below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod bombs;
mod browser;
mod credentials;
mod floods;
mod http;
mod members;
mod outside;
mod roles;
mod sockets;
mod squatting;
mod tls;

use bench::Bench;

/// So many bad inputs the corpus holds: whoever adds one counts it here, so that none is lost unnoticed.
const CORPUS: usize = 288;

/// The node logs all that it can, which is more than it does by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_is_refused_while_a_good_client_is_served() {
    let mut bench = Bench::logging(Some("trace")).await;
    let silent = sockets::Silent::new(&bench);
    http::attack(&mut bench).await;
    bombs::attack(&mut bench).await;
    tls::attack(&mut bench).await;
    browser::attack(&mut bench).await;
    sockets::attack(&mut bench).await;
    roles::attack(&mut bench).await;
    squatting::attack(&mut bench).await;
    members::attack(&mut bench).await;
    outside::attack(&mut bench).await;
    credentials::attack(&mut bench).await;
    floods::attack(&mut bench).await;
    silent.ends(&mut bench).await;
    let refused = bench.finish().await;
    assert_eq!(refused, CORPUS, "bad inputs");
}
