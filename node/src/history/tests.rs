#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use mesh_proto::{ObjectId, kinds::Author};
use proptest::prelude::*;
use serde_json::json;

use super::{
    answer::{Gathering, Grid, Shown},
    batch::Value,
    recorder::{
        Which,
        tests::{number, truth},
    },
    ring::Appended,
    *,
};
use crate::{
    api::{
        fake::FakeLoop,
        ports::history::{HistoryHandle, SeriesView},
    },
    json::to_value,
    service::{HouseholdTime, Op},
    store::tests::Folder,
};

/// A recorder with rings, whose time is what a test says.
struct Bench {
    disk: Option<Disk>,
    recorder: Recorder,
    written: usize,
    pages: usize,
}

impl Bench {
    fn open(folder: &Path, megabytes: u32, now: u64) -> Self {
        let disk = Some(Disk::open(folder, megabytes).unwrap());
        Self { disk, recorder: Recorder::new(now), written: 0, pages: 0 }
    }

    fn flush(&mut self, now: u64, must: bool) {
        let ended = self.disk.take().unwrap().write(disk::jobs(&self.recorder, now, must));
        assert!(ended.failed.is_none());
        for (ring, batch, Appended { bytes, .. }) in &ended.written {
            self.recorder.written(*ring, batch);
            self.written += bytes;
            // The pages that were made dirty, as the kernel counts them: also the one in which the batch began.
            let end = ended.disk.ring(*ring).end();
            self.pages += end.div_ceil(4_096) - (end - bytes) / 4_096;
        }
        self.disk = Some(ended.disk);
    }

    fn ask(&self, device: &str, since: u64, until: u64, now: u64, points: usize) -> HistoryView {
        let query = HistoryQuery {
            device: ObjectId::new(&format!("device/{device}")).unwrap(),
            since: Moment::At(since),
            until: Moment::At(until),
            key: None,
            points,
        };
        let grid = Grid::new(since, until, points);
        Reading::new(&query, grid, &self.recorder, self.disk.as_ref(), now).answer()
    }
}

fn numbers(view: &HistoryView, key: &str) -> Vec<(u64, f64, f64, f64)> {
    match view.series.get(key) {
        Some(SeriesView::Numeric { points, .. }) => points.clone(),
        other => panic!("{other:?}"),
    }
}

fn states(view: &HistoryView, key: &str) -> Vec<(u64, serde_json::Value)> {
    match view.series.get(key) {
        Some(SeriesView::State { points, .. }) => points.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_and_states_come_back_from_the_disk_and_from_what_waits() {
    let folder = Folder::new();
    let mut bench = Bench::open(folder.path(), 2, 1_000);
    let lamp: Arc<str> = "lamp".into();
    bench.recorder.see(&lamp, vec![number("t", 100, 1_000), truth("on", false, 1_000)], 1_000);
    bench.recorder.see(&lamp, vec![number("t", 200, 1_100), truth("on", true, 1_100)], 1_100);
    bench.flush(1_200, false);
    bench.recorder.see(&lamp, vec![number("t", 300, 1_300), truth("on", true, 1_100)], 1_300);
    let expected_numbers = [
        (1_000_000, 10.0, 10.0, 10.0),
        (1_100_000, 20.0, 20.0, 20.0),
        (1_200_000, 20.0, 20.0, 20.0),
        (1_300_000, 30.0, 30.0, 30.0),
    ];
    let expected_states = [(1_000_000, json!(false)), (1_100_000, json!(true))];
    let view = bench.ask("lamp", 1_000, 1_400, 1_400, 4);
    assert_eq!(
        (numbers(&view, "t"), states(&view, "on")),
        (expected_numbers.to_vec(), expected_states.to_vec())
    );
    // From the middle on, what it was before is what it was then.
    let view = bench.ask("lamp", 1_150, 1_250, 1_400, 1);
    assert_eq!(numbers(&view, "t"), [(1_150_000, 20.0, 20.0, 20.0)]);
    assert_eq!(states(&view, "on"), [(1_150_000, json!(true))]);
    // A clean stop and a start later on: what was in between nobody knows.
    bench.flush(1_400, true);
    drop(bench);
    let mut bench = Bench::open(folder.path(), 2, 2_000);
    bench.recorder.see(&lamp, vec![number("t", 300, 1_300), truth("on", true, 1_100)], 2_000);
    let view = bench.ask("lamp", 1_000, 2_100, 2_100, 11);
    let known: Vec<u64> = numbers(&view, "t").iter().map(|point| point.0 / 1_000).collect();
    assert_eq!(known, [1_000, 1_100, 1_200, 1_300, 2_000]);
    let expected = [(1_000, json!(false)), (1_100, json!(true)), (1_400, json!(null)), (2_000, json!(true))];
    assert_eq!(states(&view, "on"), expected.map(|(at, value)| (at * 1_000, value)));
    assert!(bench.ask("other", 0, 3_000, 3_000, 10).series.is_empty());
}

#[test]
fn what_the_recent_ring_has_lost_comes_from_the_sums() {
    let folder = Folder::new();
    let mut bench = Bench::open(folder.path(), 2, 0);
    let lamp: Arc<str> = "lamp".into();
    let flood: Arc<str> = "flood".into();
    let (mut now, mut lost_at) = (0, None);
    while lost_at.is_none() {
        bench.recorder.see(&lamp, vec![number("t", i64::try_from(now).unwrap() % 700, now)], now);
        for step in 0..60_u64 {
            let noise = (0..150).map(|key| {
                number(&format!("n{key}"), if step % 2 == 0 { 9_000_000 } else { 0 }, now + step * 10)
            });
            bench.recorder.settle(now + step * 10);
            bench.recorder.see(&flood, noise.collect(), now + step * 10);
        }
        now += 600;
        bench.flush(now, false);
        let from = bench.disk.as_ref().unwrap().ring(Which::Recent).from().unwrap();
        lost_at = Some(from).filter(|from| *from > 3_000);
    }
    let view = bench.ask("lamp", 0, now, now, usize::try_from(now / 600).unwrap());
    let points = numbers(&view, "t");
    assert_eq!(points.len() as u64, now / 600);
    for (at, point) in points.iter().enumerate() {
        let value = (at as f64 * 600.0 % 700.0) / 10.0;
        assert!(point.1 <= value && value <= point.3, "{at}: {point:?}");
    }
}

#[test]
fn a_device_that_is_found_again_does_not_show_what_was_before() {
    let folder = Folder::new();
    let mut bench = Bench::open(folder.path(), 2, 1_000);
    let lamp: Arc<str> = "lamp".into();
    let all = |value| vec![number("t", value, 0), truth("on", value > 500, 0)];
    bench.recorder.see(&lamp, all(100), 1_000);
    bench.flush(1_100, false);
    bench.recorder.forget(&lamp);
    assert!(bench.ask("lamp", 0, 1_200, 1_200, 100).series.is_empty());
    bench.recorder.see(&lamp, all(900), 1_200);
    for _ in 0..2 {
        let view = bench.ask("lamp", 0, 1_300, 1_300, 1);
        assert_eq!(numbers(&view, "t"), [(0, 90.0, 90.0, 90.0)]);
        assert_eq!(states(&view, "on"), [(1_200_000, json!(true))]);
        bench.flush(1_300, false);
    }
}

#[test]
fn nothing_is_written_when_nothing_changes_but_once_an_hour() {
    let folder = Folder::new();
    let mut bench = Bench::open(folder.path(), 2, 0);
    bench.flush(600, true);
    assert_eq!(bench.written, 0, "there is no device");
    bench.recorder.see(&"lamp".into(), vec![number("t", 5, 600), truth("on", true, 600)], 600);
    bench.flush(1_200, false);
    bench.flush(1_800, false);
    let before = bench.written;
    for now in (2_400..24 * 3_600).step_by(600) {
        bench.flush(now, false);
    }
    let written = bench.written - before;
    assert!((24 * 2..24 * 2 * 40).contains(&written), "{written} bytes in a day");
    let view = bench.ask("lamp", 0, 86_000, 86_000, 100);
    assert_eq!(numbers(&view, "t").last().unwrap().0, 85_140_000);
}

/// The budget of docs/disk.md: `cargo test -p node --lib history::tests::an_hour -- --nocapture`.
#[test]
fn an_hour_of_fifty_devices_stays_within_the_budget() {
    let folder = Folder::new();
    let mut bench = Bench::open(folder.path(), 12, 0);
    let mut random = 7_u64;
    let mut next = |range: i64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(random >> 33).unwrap() % range
    };
    // A temperature of one digit, a voltage of one and a power of none, each a little different every time.
    let mut values = vec![[215_i64, 2_301, 500]; 50];
    let hours = 24;
    for now in (0..hours * 3_600).step_by(10) {
        bench.recorder.settle(now);
        for (device, [temperature, voltage, power]) in values.iter_mut().enumerate() {
            *temperature = (*temperature + 1 + next(2) * -2).clamp(-200, 400);
            *voltage = 2_301 + (*voltage - 2_301) / 2 + 1 + next(40) - 20;
            *power = (*power + 1 + next(400) - 200).clamp(0, 3_000);
            let all = vec![
                number("temperature", *temperature, now),
                number("voltage", *voltage, now),
                number("power", *power, now),
            ];
            bench.recorder.see(&format!("shelly-{device:012}").into(), all, now);
        }
        if now % 600 == 590 {
            bench.flush(now + 10, false);
        }
    }
    let (bytes, pages) = (bench.written as u64 / hours, bench.pages as u64 * 4_096 / hours);
    println!("an hour of 50 devices with 3 sensors each: {bytes} bytes, {pages} in pages of 4096");
    assert!(pages <= 200_000, "{pages}");
}

proptest! {
    #[test]
    fn downsampling_keeps_the_least_and_the_greatest(
        given in prop::collection::vec((10..2_000_u64, -1_000..1_000_i64, any::<bool>()), 1..60),
        points in 1..300_usize,
    ) {
        let folder = Folder::new();
        let mut bench = Bench::open(folder.path(), 2, 0);
        let lamp: Arc<str> = "lamp".into();
        let mut now = 0;
        for (step, value, flush) in &given {
            bench.recorder.settle(now);
            bench.recorder.see(&lamp, vec![number("t", *value, now)], now);
            now += step;
            if *flush {
                bench.flush(now, false);
            }
        }
        let view = bench.ask("lamp", 0, now, now, points);
        let shown = numbers(&view, "t");
        prop_assert!(shown.len() <= points);
        let least = shown.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let most = shown.iter().map(|point| point.3).fold(f64::NEG_INFINITY, f64::max);
        prop_assert!(shown.iter().all(|(_, min, mean, max)| min <= mean && mean <= max));
        let values = || given.iter().map(|(_, value, _)| *value as f64 / 10.0);
        prop_assert_eq!(least, values().fold(f64::INFINITY, f64::min));
        prop_assert_eq!(most, values().fold(f64::NEG_INFINITY, f64::max));
    }

    #[test]
    fn no_more_changes_are_shown_than_were_asked_for(changes in 1..300_u64, points in 1..50_usize) {
        let folder = Folder::new();
        let mut bench = Bench::open(folder.path(), 2, 0);
        for at in 0..changes {
            bench.recorder.settle(at * 20);
            bench.recorder.see(&"lamp".into(), vec![truth("on", at % 2 == 0, at * 20)], at * 20);
            if at % 30 == 0 {
                bench.flush(at * 20, true);
            }
        }
        let view = bench.ask("lamp", 0, changes * 20, changes * 20, points);
        let shown = states(&view, "on");
        prop_assert!(shown.len() <= points, "{} of {points}", shown.len());
        prop_assert!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        prop_assert_eq!(&shown[0].0, &0);
    }
}

#[test]
fn batches_of_any_order_and_time_are_taken() {
    let grid = Grid::new(100, 200, 10);
    let mut gathering = Gathering::new(grid, None);
    let lamp: Arc<str> = "lamp".into();
    let mut recorder = Recorder::new(500);
    recorder.see(&lamp, vec![number("t", 5, 0), truth("on", true, 0)], 500);
    let mut batch = recorder.batch(Which::Recent, 600, None);
    gathering.take(&batch, "lamp");
    (batch.from, batch.to) = (90, 80);
    gathering.take(&batch, "lamp");
    (batch.from, batch.to) = (0, u64::MAX);
    batch.series[0].points =
        vec![(3, Value::Number(i64::MAX)), (u64::MAX, Value::Number(i64::MIN)), (0, Value::Unknown)];
    gathering.take(&batch, "lamp");
    let other = Gathering::new(grid, None);
    let shown = gathering.finish(other);
    assert!(matches!(shown.get("t"), Some(Shown::Numbers(stretches)) if stretches.len() <= 10));
}

/// The running task over a made-up event loop.
struct Running {
    fake: FakeLoop,
    handle: HistoryHandle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    report: watch::Receiver<Report>,
}

impl Running {
    fn start(fake: FakeLoop, folder: &Path, megabytes: u32) -> Self {
        Self::start_if(true, fake, folder, megabytes)
    }

    fn start_if(enabled: bool, fake: FakeLoop, folder: &Path, megabytes: u32) -> Self {
        let (handle, requests) = HistoryHandle::channel();
        let (stop, shutdown) = watch::channel(false);
        let HistoryTask { task, report } = History::spawn(HistoryParts {
            service: fake.service(),
            requests,
            folder: folder.join("history"),
            enabled,
            megabytes,
            time: watch::channel(HouseholdTime::default()).1,
            shutdown,
            heartbeat: Arc::default(),
        });
        Self { fake, handle, stop, task, report }
    }

    async fn stop(self) -> FakeLoop {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        self.fake
    }

    async fn put(&self, fields: serde_json::Value) {
        for (name, value) in fields.as_object().unwrap() {
            self.fake.put("device/lamp", name, to_value(value.clone()).unwrap()).await;
        }
    }

    async fn ask(&self) -> Result<HistoryView, PortError> {
        let device = ObjectId::new("device/lamp").unwrap();
        let (since, until) = (Moment::Ago(Duration::from_secs(3_600)), Moment::Ago(Duration::ZERO));
        self.handle.read(HistoryQuery { device, since, until, key: None, points: 100 }).await
    }

    /// Until the history of the lamp is so.
    async fn shows(&self, is_so: impl Fn(&HistoryView) -> bool) -> HistoryView {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let view = self.ask().await.unwrap();
            if is_so(&view) {
                return view;
            }
            assert!(Instant::now() < deadline, "{view:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn is(view: &HistoryView, key: &str, state: &serde_json::Value) -> bool {
    matches!(view.series.get(key), Some(SeriesView::State { points, .. }) if points.last().is_some_and(|(_, last)| last == state))
}

#[tokio::test]
async fn a_node_remembers_over_a_restart_and_forgets_with_the_device() {
    let folder = Folder::new();
    let running = Running::start(FakeLoop::start(), folder.path(), 2);
    running
        .put(json!({
            "adapter": "lifx", "availability": {"state": "online", "since": 1},
            "reported": {"value": {"kind": "light", "on": true}},
        }))
        .await;
    running.shows(|view| is(view, "on", &json!(true)) && is(view, "availability", &json!("online"))).await;
    let running = Running::start(running.stop().await, folder.path(), 2);
    let view = running.shows(|view| is(view, "on", &json!(true))).await;
    assert!(states(&view, "on").len() <= 3, "{view:?}");
    running.put(json!({"reported": {"value": {"kind": "light", "on": false}}})).await;
    running.shows(|view| is(view, "on", &json!(false))).await;
    let delete = vec![Op::Delete(ObjectId::new("device/lamp").unwrap())];
    running.fake.service().write(Author::Client, delete).await.unwrap();
    running.shows(|view| view.series.is_empty()).await;
    let running = Running::start(running.stop().await, folder.path(), 2);
    running.put(json!({"adapter": "lifx", "reported": {"value": {"kind": "light", "on": true}}})).await;
    let view = running.shows(|view| is(view, "on", &json!(true))).await;
    assert_eq!(states(&view, "on").len(), 1, "{view:?}");
    running.stop().await;
}

#[tokio::test]
async fn what_was_kept_stays_while_it_is_switched_off_and_goes_when_there_is_no_room_for_it() {
    let folder = Folder::new();
    let running = Running::start(FakeLoop::start(), folder.path(), 2);
    running.put(json!({"adapter": "lifx", "reported": {"value": {"kind": "switch", "on": true}}})).await;
    running.shows(|view| is(view, "on", &json!(true))).await;
    let report = running.report.clone();
    let fake = running.stop().await;
    let Report { entries, written_bytes, disk_bytes, written_at, .. } = report.borrow().clone();
    assert!(entries > 0 && written_bytes > 0 && written_at.is_some(), "{:?}", report.borrow());
    assert_eq!(disk_bytes as u64, written_bytes, "it is all that there is");
    let paused = Running::start_if(false, fake, folder.path(), 2);
    assert_eq!(paused.report.borrow().keeping, Keeping::Paused);
    assert!(matches!(paused.ask().await, Err(PortError::Conflict { .. })));
    let fake = paused.stop().await;
    assert!(folder.join("history/long/0000000001.hist").exists());
    std::fs::write(folder.join("history/recent/mine.txt"), "a person's").unwrap();
    let without = Running::start(fake, folder.path(), 0);
    assert_eq!(without.report.borrow().keeping, Keeping::Nothing);
    without.stop().await;
    assert!(!folder.join("history/long").exists());
    assert!(folder.join("history/recent/mine.txt").exists());
}

#[tokio::test]
async fn no_room_is_no_history_and_a_disk_that_refuses_leaves_it_in_memory() {
    let folder = Folder::new();
    let running = Running::start(FakeLoop::start(), folder.path(), 0);
    let refused = running.ask().await.unwrap_err();
    assert!(matches!(&refused, PortError::Conflict { fix, .. } if fix.contains("[history]")), "{refused}");
    running.stop().await;
    assert!(!folder.join("history").exists());
    std::fs::write(folder.join("history"), "in the way").unwrap();
    let running = Running::start(FakeLoop::start(), folder.path(), 2);
    running.put(json!({"adapter": "lifx", "reported": {"value": {"kind": "switch", "on": true}}})).await;
    running.shows(|view| is(view, "on", &json!(true))).await;
    running.stop().await;
}
