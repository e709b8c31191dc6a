//! Stalled parts are noticed, and systemd hears nothing while they stall: an event loop that stands
//! still, a store whose disk hangs, a listener that accepts and never answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::Future,
    sync::mpsc,
    thread,
    time::{Duration, Instant as StdInstant},
};

use super::*;
use crate::{
    eventloop,
    listener::{self, TcpLimits},
    store::{Batch, Store, StoreError, worker::StoreHandle},
};

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
    let pulses = vec![Pulse { name: "store", beats: store.heartbeat() }];
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
    let nobody = Systemd { watchdog: None, tell: Box::new(|_| Ok(())) };
    let health = Health::new(pulses, None, PATIENCE);
    let running = tokio::spawn(run(health, nobody, "x".into(), sender, shutdown));
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

/// A thread of its own for one part, which stands still for as long as one likes.
struct OwnThread {
    runtime: tokio::runtime::Handle,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl OwnThread {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || runtime.block_on(ended));
        Self { runtime: handle, _end: end }
    }

    async fn run<T: Send + 'static>(&self, part: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(part).await.unwrap()
    }

    /// It stands still until the answer is dropped.
    fn freeze(&self) -> mpsc::Sender<()> {
        let (go_on, hang) = mpsc::channel::<()>();
        self.runtime.spawn(async move { hang.recv() });
        go_on
    }
}

/// A systemd that wants to hear of the node, and what it heard.
fn systemd() -> (Systemd, mpsc::Receiver<String>) {
    let (heard, hears) = mpsc::channel();
    let tell = move |states: &[NotifyState<'_>]| {
        states.iter().for_each(|state| heard.send(state.to_string()).unwrap());
        Ok(())
    };
    (Systemd { watchdog: Some(Duration::from_millis(300)), tell: Box::new(tell) }, hears)
}

#[tokio::test(start_paused = true)]
async fn systemd_is_asked_for_time_while_the_store_is_opened_and_no_longer() {
    let (systemd, hears) = systemd();
    let asked = || hears.try_iter().filter(|told| told.starts_with("EXTEND_TIMEOUT_USEC=")).count();
    assert_eq!(systemd.while_opening(async { 7 }).await, 7);
    assert_eq!(asked(), 0, "a start as every other");
    systemd.while_opening(tokio::time::sleep(Duration::from_secs(3_601))).await;
    assert_eq!(asked(), 120);
    // A disk that never answers.
    let hangs = systemd.while_opening(std::future::pending::<()>());
    timeout(2 * OPENING, hangs).await.unwrap_err();
    let times = asked() as u64;
    assert!(times.abs_diff(OPENING.as_secs() / ASK_EVERY.as_secs()) <= 1, "asked {times} times");
}

/// The pings come, stop while the part of that name stalls, and come again when it goes on.
async fn pings_stop_while_it_stalls<S>(health: Health, name: &'static str, stall: impl FnOnce() -> S) {
    const PING: &str = "WATCHDOG=1";
    let (systemd, hears) = systemd();
    let (sender, mut looked) = watch::channel(Vec::new());
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(run(health, systemd, "here".into(), sender, shutdown));
    let mut look = async || {
        timeout(DEADLINE, looked.changed()).await.expect("it looks again").unwrap();
        looked.borrow_and_update().clone()
    };
    for _ in 0..3 {
        assert!(look().await.is_empty());
    }
    let first: Vec<String> = hears.try_iter().collect();
    assert_eq!(first[..3], ["READY=1", "STATUS=here", PING]);

    let stalling = stall();
    let deadline = StdInstant::now() + DEADLINE;
    while look().await != [name] {
        assert!(StdInstant::now() < deadline, "nobody noticed");
    }
    hears.try_iter().for_each(drop);
    for _ in 0..3 {
        assert_eq!(look().await, [name]);
    }
    assert_eq!(hears.try_iter().collect::<Vec<_>>(), [""; 0], "systemd heard of a stalled {name}");

    drop(stalling);
    let deadline = StdInstant::now() + DEADLINE;
    while !look().await.is_empty() {
        assert!(StdInstant::now() < deadline, "it went on, and nobody noticed");
    }
    stop.send(true).unwrap();
    running.await.unwrap();
    let last: Vec<String> = hears.try_iter().collect();
    assert!(!last.is_empty() && last.iter().all(|told| told == PING), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_event_loop_stops_the_pings() {
    let thread = OwnThread::start();
    let bench = eventloop::tests::Bench::new();
    let pulses = vec![Pulse { name: "event loop", beats: bench.heartbeat() }];
    thread.runtime.spawn(bench.run());
    // With nothing to do it turns every 5 s.
    let health = Health::new(pulses, None, Duration::from_secs(8));
    pings_stop_while_it_stalls(health, "event loop", || thread.freeze()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_store_stops_the_pings() {
    let (go_on, hang) = mpsc::channel();
    let (store, _committed) = StoreHandle::spawn(Box::new(Hanging(hang))).unwrap();
    let pulses = vec![Pulse { name: "store", beats: store.heartbeat() }];
    let batch = Batch { puts: vec![(b"k".to_vec(), b"v".to_vec())], deletes: vec![] };
    // A disk that goes on with an error ends the commit as well as one that goes on without.
    let stall = || {
        store.commit(1, batch).unwrap();
        go_on
    };
    // With nothing to do it turns twice a second, on a busy machine late.
    pings_stop_while_it_stalls(Health::new(pulses, None, SHORT * 4), "store", stall).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_listener_stops_the_pings() {
    let thread = OwnThread::start();
    let web = thread.run(listener::tests::Web::start(TcpLimits::default())).await;
    let health = Health::new(Vec::new(), Some(web.address()), SHORT);
    pings_stop_while_it_stalls(health, "listener", || thread.freeze()).await;
}
