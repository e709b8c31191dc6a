//! Stalled parts are noticed: a counter that stands still, a store whose disk hangs, a listener
//! that accepts and never answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::mpsc,
    time::{Duration, Instant as StdInstant},
};

use super::*;
use crate::store::{Batch, Store, StoreError, worker::StoreHandle};

const SHORT: Duration = Duration::from_millis(900);
const DEADLINE: Duration = Duration::from_secs(20);

async fn until(health: &mut Health, expected: &[&str]) {
    let deadline = StdInstant::now() + DEADLINE;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        let stalled = health.stalled().await;
        if stalled == expected {
            return;
        }
        assert!(StdInstant::now() < deadline, "still {stalled:?}, expected {expected:?}");
        look.tick().await;
    }
}

/// A disk that hangs until it is told to go on.
struct Hanging(mpsc::Receiver<()>);

impl Store for Hanging {
    fn load(&mut self, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, _: &Batch) -> Result<(), StoreError> {
        self.0.recv().map_err(|_| StoreError::Closed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_is_noticed_and_forgiven_when_it_goes_on() {
    let (go_on, hang) = mpsc::channel();
    let (store, _committed) = StoreHandle::spawn(Box::new(Hanging(hang))).unwrap();
    let pulses = vec![Pulse { name: "store", beats: store.heartbeat_counter() }];
    let mut health = Health::new(pulses, None, SHORT);
    assert!(health.stalled().await.is_empty());
    store.commit(1, Batch { puts: vec![(b"k".to_vec(), b"v".to_vec())], deletes: vec![] }).unwrap();
    until(&mut health, &["store"]).await;
    go_on.send(()).unwrap();
    until(&mut health, &[]).await;
}

#[tokio::test]
async fn an_event_loop_that_stands_still_is_noticed() {
    let beats = Arc::new(AtomicU64::new(0));
    let pulses = vec![Pulse { name: "event loop", beats: beats.clone() }];
    let mut health = Health::new(pulses, None, SHORT);
    assert!(health.stalled().await.is_empty());
    until(&mut health, &["event loop"]).await;
    beats.fetch_add(1, Ordering::Relaxed);
    until(&mut health, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_told_what_stalls_and_that_it_goes_on() {
    let beats = Arc::new(AtomicU64::new(0));
    let pulses = vec![Pulse { name: "devices", beats: beats.clone() }];
    let (sender, mut stalled) = watch::channel(Vec::new());
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(run(Health::new(pulses, None, PATIENCE), "x".into(), sender, shutdown));
    let began = Instant::now();
    timeout(DEADLINE * 3, stalled.wait_for(|names| *names == ["devices"])).await.unwrap().unwrap();
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    beats.fetch_add(1, Ordering::Relaxed);
    timeout(DEADLINE, stalled.wait_for(Vec::is_empty)).await.unwrap().unwrap();
    stop.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test]
async fn a_listener_that_accepts_and_never_answers_is_noticed() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut health = Health::new(Vec::new(), Some(silent.local_addr().unwrap()), SHORT);
    assert_eq!(health.stalled().await, ["listener"]);
}
