//! The task with an event loop and an owner of commands that are fakes, in time that does not pass by itself. The time of day
//! is what a test says, and goes on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Mutex;

use mesh_proto::Value;
use serde_json::json;
use tokio::time::timeout;

use super::{
    fake::{Day, Holds, at, own},
    peers::HEAR_OUT,
    record::State,
    *,
};
use crate::{
    api::{
        fake::FakeLoop,
        ports::{
            CommandRequest,
            events::EventsHandle,
            schedules::{HomeChange, ScheduleView, SchedulesHandle},
        },
    },
    devices::encode,
    devices::ownership::winner,
};

const ME: ShortId = ShortId(0xab);
const OTHER: ShortId = ShortId(0xcd);
/// How long a node has won before it acts.
const SETTLE: Duration = Duration::from_secs(2);
/// Longer than anything takes that happens by itself.
const LONG: Duration = Duration::from_secs(30);

/// A command as it was given, and what its schedule had recorded by then.
#[derive(Debug, Clone)]
struct Given {
    key: String,
    records: BTreeMap<ShortId, Record>,
}

async fn take(service: Service, given: Arc<Mutex<Vec<Given>>>, request: CommandRequest) {
    let key = request.key.unwrap();
    let schedule = ObjectId::new(key.split('@').next().unwrap()).unwrap();
    let object = service.get(schedule).await.unwrap();
    let records = object.map(|object| Spec::read(&object).records).unwrap_or_default();
    given.lock().unwrap().push(Given { key, records });
}

struct Bench {
    fake: FakeLoop,
    schedules: SchedulesHandle,
    given: Arc<Mutex<Vec<Given>>>,
    held: watch::Sender<Holds>,
    alive: watch::Sender<BTreeSet<ShortId>>,
    day: Day,
    caught_up: watch::Sender<bool>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Bench {
    /// A node in its home at six o'clock, alone, with a lamp.
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same in a household of which others are known, though nobody lives.
    async fn with(others: &[ShortId]) -> Self {
        let fake = FakeLoop::start();
        fake.put("home/main", "zone", Value::Text("UTC".into())).await;
        fake.put("device/lamp", "adapter", Value::Text("lifx".into())).await;
        for other in others {
            fake.put(&format!("node/{other}"), "name", Value::Text("other".into())).await;
        }
        let (commands, port) = CommandsHandle::channel();
        let (schedules, requests) = SchedulesHandle::channel();
        let (held, holds) = watch::channel(Holds::Nothing);
        let given = Arc::new(Mutex::new(Vec::new()));
        let (service, all) = (fake.service(), given.clone());
        tokio::spawn(own(port, holds, move |request| take(service.clone(), all.clone(), request)));
        let (alive, living) = watch::channel(BTreeSet::from([ME]));
        let day = Day::begin("06:00:00");
        let (caught_up, is_caught_up) = watch::channel(true);
        let (shutdown, stopping) = watch::channel(false);
        let task = Automation::spawn(AutomationParts {
            service: fake.service(),
            commands,
            requests,
            events: EventsHandle::channel().1,
            alive: living,
            time: day.watch(),
            caught_up: is_caught_up,
            me: ME,
            counts: Arc::default(),
            shutdown: stopping,
            heartbeat: Arc::default(),
        });
        Self { fake, schedules, given, held, alive, day, caught_up, shutdown, task }
    }

    /// The time of day becomes that.
    fn clock(&self, time: &str) {
        self.day.set(at(time), true);
    }

    /// Makes a schedule since six o'clock.
    async fn schedule(&self, name: &str, when: &str, missed: &str) {
        let commands = vec![json!({ "device": "device/lamp", "change": { "on": true } })];
        for (field, value) in [
            ("do", encode(&commands)),
            ("missed", Value::Text(missed.into())),
            ("since", Value::Int(at("06:00:00").as_millisecond())),
            ("when", Value::Text(when.into())),
        ] {
            self.fake.put(&format!("schedule/{name}"), field, value).await;
        }
        self.until("it is seen", async || self.find(name).await.is_some()).await;
    }

    /// The first schedule of this kind of name that is won by a node, of this one and the other.
    fn won_by(node: ShortId) -> String {
        let wins = |name: &String| winner([ME, OTHER], &format!("schedule/{name}")) == Some(node);
        (0..).map(|number| format!("x{number}")).find(wins).unwrap()
    }

    async fn find(&self, name: &str) -> Option<ScheduleView> {
        self.schedules.list().await.unwrap().into_iter().find(|view| view.name == name)
    }

    async fn records(&self, name: &str) -> BTreeMap<ShortId, Record> {
        let id = ObjectId::new(&format!("schedule/{name}")).unwrap();
        let object = self.fake.service().get(id).await.unwrap();
        object.map(|object| Spec::read(&object).records).unwrap_or_default()
    }

    async fn record(&self, name: &str, node: ShortId, record: &Record) {
        let field = run_field(node).unwrap();
        self.fake.put(&format!("schedule/{name}"), field.as_str(), record.to_value()).await;
    }

    /// The keys of the commands that were given.
    fn keys(&self) -> Vec<String> {
        self.given.lock().unwrap().iter().map(|given| given.key.clone()).collect()
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let holds = async {
            while !condition().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(LONG * 4, holds).await.is_ok(), "{what}: {:?}", self.schedules.list().await);
    }

    async fn ends(&self, name: &str, state: State) -> Record {
        let settled = async || self.records(name).await.get(&ME).is_some_and(|record| record.state == state);
        self.until("it ends", settled).await;
        self.records(name).await[&ME].clone()
    }
}

fn key(name: &str, time: &str) -> String {
    format!("schedule/{name}@{}#0", at(time).as_second())
}

#[tokio::test(start_paused = true)]
async fn what_begins_is_recorded_before_its_first_command_and_what_ends_after_its_last() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 7 * * *", "").await;
    assert_eq!(bench.find("x").await.unwrap().state, "waiting");
    bench.held.send_replace(Holds::Everything);
    bench.clock("07:00:01");
    bench.until("the command is given", async || !bench.keys().is_empty()).await;
    let given = bench.given.lock().unwrap()[0].clone();
    assert_eq!(given.key, key("x", "07:00:00"));
    assert_eq!((given.records[&ME].state, given.records[&ME].at), (State::Started, at("07:00:00")));
    assert_eq!(bench.find("x").await.unwrap().state, "running");
    bench.held.send_replace(Holds::Nothing);
    let record = bench.ends("x", State::Done).await;
    assert!(record.ended.is_some() && !record.again);
    assert_eq!(bench.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_peers_recorded_is_heard_before_anything_is_done() {
    let name = Bench::won_by(ME);
    let bench = Bench::with(&[OTHER]).await;
    bench.caught_up.send_replace(false);
    bench.schedule(&name, "cron 0 7 * * *", "").await;
    bench.clock("07:00:01");
    bench.until("it is held", async || bench.find(&name).await.unwrap().state == "held").await;
    bench.alive.send_replace(BTreeSet::from([ME, OTHER]));
    // The other one has done it; only then is everything here.
    bench.record(&name, OTHER, &Record::new(at("07:00:00"), State::Done, at("07:00:00"))).await;
    bench.caught_up.send_replace(true);
    bench.until("it waits", async || bench.find(&name).await.unwrap().state == "waiting").await;
    // Longer than this node waits for anything before it acts.
    sleep(LONG).await;
    assert!(bench.keys().is_empty());
    bench.clock("07:59:59");
    bench.clock("08:00:00");
    bench.schedule(&name, "cron 0 8 * * *", "").await;
    bench.ends(&name, State::Done).await;
    assert_eq!(bench.keys(), [key(&name, "08:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_come_is_waited_for_and_then_not() {
    let bench = Bench::with(&[OTHER]).await;
    bench.caught_up.send_replace(false);
    bench.schedule("x", "cron 0 7 * * *", "").await;
    let began = Instant::now();
    bench.clock("07:00:01");
    bench.ends("x", State::Done).await;
    let waited = began.elapsed();
    assert!((HEAR_OUT - SETTLE..HEAR_OUT + SETTLE * 2).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_came_to_win_leaves_it_for_a_moment_to_whom_others_still_see_win() {
    let name = Bench::won_by(OTHER);
    let bench = Bench::with(&[OTHER]).await;
    bench.alive.send_replace(BTreeSet::from([ME, OTHER]));
    bench.schedule(&name, "cron 0 7 * * *", "").await;
    bench.until("it waits", async || bench.find(&name).await.unwrap().state == "waiting").await;
    sleep(LONG).await;
    bench.clock("07:00:01");
    sleep(LONG).await;
    assert!(bench.keys().is_empty(), "the other one wins");
    // It dies over it, having done it: its record is still on its way.
    bench.alive.send_replace(BTreeSet::from([ME]));
    sleep(SETTLE / 2).await;
    bench.record(&name, OTHER, &Record::new(at("07:00:00"), State::Done, at("07:00:00"))).await;
    sleep(LONG).await;
    assert!(bench.keys().is_empty());
    // Without a record it is taken over.
    bench.clock("07:59:59");
    bench.schedule(&name, "cron 0 8 * * *", "").await;
    bench.clock("08:00:01");
    let began = Instant::now();
    bench.ends(&name, State::Done).await;
    assert!(began.elapsed() <= Duration::from_secs(1), "it has won for long");
    assert_eq!(bench.keys(), [key(&name, "08:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn the_run_of_a_node_that_died_is_taken_over_and_says_so() {
    let name = Bench::won_by(OTHER);
    let bench = Bench::with(&[OTHER]).await;
    bench.alive.send_replace(BTreeSet::from([ME, OTHER]));
    bench.schedule(&name, "cron 0 7 * * *", "").await;
    bench.clock("07:00:01");
    bench.record(&name, OTHER, &Record::new(at("07:00:00"), State::Started, at("07:00:00"))).await;
    sleep(LONG).await;
    assert!(bench.keys().is_empty(), "the other one is at it");
    bench.alive.send_replace(BTreeSet::from([ME]));
    assert!(bench.ends(&name, State::Done).await.again);
    assert_eq!(bench.keys(), [key(&name, "07:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_off_minutes_ago_is_given_anew() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 7 * * *", "run_latest").await;
    // Its command has timed out long since.
    bench.record("x", ME, &Record::new(at("07:00:00"), State::Started, at("07:00:00"))).await;
    bench.clock("07:05:00");
    assert!(bench.ends("x", State::Done).await.again);
    assert_eq!(bench.keys().len(), 1);
    assert_ne!(bench.keys(), [key("x", "07:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_did_not_take_is_not_done_twice_and_recorded_once_it_can_be() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 7 * * *", "run_latest").await;
    bench.fake.break_store(Some("no space left on device"));
    bench.clock("07:00:01");
    bench.until("the command is given", async || !bench.keys().is_empty()).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1, "the home goes on, once");
    assert!(bench.records("x").await.is_empty());
    assert_eq!(bench.find("x").await.unwrap().last[0].state, "done", "this node knows it");
    bench.fake.break_store(None);
    bench.ends("x", State::Done).await;
    assert_eq!(bench.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_time_of_day_makes_up_for_one_and_a_step_back_repeats_none() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 * * * *", "run_latest").await;
    bench.clock("10:20:00");
    let record = bench.ends("x", State::Done).await;
    assert_eq!((record.at, record.passed_over), (at("10:00:00"), 3));
    assert_eq!(bench.keys(), [key("x", "10:00:00")]);
    // Far back: the future was never, and what was before has been.
    bench.clock("07:30:00");
    bench.until("the record is out", async || bench.records("x").await.is_empty()).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1);
    bench.clock("08:00:00");
    assert_eq!(bench.ends("x", State::Done).await.at, at("08:00:00"));
    // A little back: it has been.
    bench.clock("07:55:00");
    sleep(LONG).await;
    bench.clock("08:00:01");
    sleep(LONG).await;
    assert_eq!(bench.keys(), [key("x", "10:00:00"), key("x", "08:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_it_runs_stays_deleted_and_made_anew_it_is_another() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 7 * * *", "").await;
    bench.held.send_replace(Holds::Everything);
    bench.clock("07:00:01");
    bench.until("the command is given", async || !bench.keys().is_empty()).await;
    bench.schedules.remove("x".to_owned()).await.unwrap();
    bench.until("it is gone", async || bench.find("x").await.is_none()).await;
    bench.schedule("x", "cron 0 8 * * *", "").await;
    bench.clock("08:00:01");
    bench.until("the new one is carried out", async || bench.keys().len() == 2).await;
    bench.schedules.remove("x".to_owned()).await.unwrap();
    bench.until("it is gone", async || bench.find("x").await.is_none()).await;
    bench.held.send_replace(Holds::Nothing);
    sleep(LONG).await;
    assert!(bench.records("x").await.is_empty(), "no record brings it back");
    assert_eq!(bench.keys(), [key("x", "07:00:00"), key("x", "08:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn records_of_nodes_that_are_gone_do_not_add_up() {
    let bench = Bench::with(&[OTHER]).await;
    bench.schedule("x", "cron 0 7 * * *", "").await;
    for gone in 1..40 {
        bench.record("x", ShortId(gone), &Record::new(at("06:10:00"), State::Done, at("06:10:00"))).await;
    }
    bench.clock("07:00:01");
    bench.ends("x", State::Done).await;
    assert_eq!(bench.records("x").await.keys().copied().collect::<Vec<_>>(), [ME]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_a_newer_version_is_named_and_the_rest_goes_on() {
    let bench = Bench::new().await;
    bench.schedule("new", "cron 0 7 * * *", "run_all_in_order").await;
    bench.schedule("old", "cron 0 7 * * *", "").await;
    let view = bench.find("new").await.unwrap();
    assert_eq!(view.state, "invalid");
    assert!(view.reason.unwrap().contains("run_all_in_order"));
    bench.clock("07:00:01");
    bench.ends("old", State::Done).await;
    assert_eq!(bench.keys(), [key("old", "07:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_a_day_leaves_nothing_refused_and_clients_are_answered_meanwhile() {
    let bench = Bench::new().await;
    for number in 0..200 {
        let missed = if number % 2 == 0 { "run_latest" } else { "skip" };
        bench.schedule(&format!("x{number}"), "cron * * * * *", missed).await;
    }
    bench.clock("20:00:40");
    let mut asked = 0;
    bench
        .until("all are settled once", async || {
            asked += 1;
            let views = bench.schedules.list().await.unwrap();
            views.iter().filter(|view| view.last.iter().any(|last| last.state != "started")).count() == 200
        })
        .await;
    assert!(asked > 2, "they were answered only then");
    for number in 0..200 {
        let record = bench.records(&format!("x{number}")).await.remove(&ME).unwrap();
        let state = if number % 2 == 0 { State::Done } else { State::PassedOver };
        assert_eq!((record.at, record.state, record.passed_over), (at("20:00:00"), state, 839));
    }
    assert_eq!(bench.keys().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_a_little_for_what_is_under_way() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron 0 7 * * *", "").await;
    bench.held.send_replace(Holds::Everything);
    bench.clock("07:00:01");
    bench.until("the command is given", async || !bench.keys().is_empty()).await;
    bench.shutdown.send_replace(true);
    sleep(LAST_RUNS / 2).await;
    bench.held.send_replace(Holds::Nothing);
    bench.task.await.unwrap();
    let id = ObjectId::new("schedule/x").unwrap();
    let object = bench.fake.service().get(id).await.unwrap().unwrap();
    assert_eq!(Spec::read(&object).records[&ME].state, State::Done);
}

#[tokio::test(start_paused = true)]
async fn ends_that_come_all_at_once_are_all_heard() {
    let bench = Bench::new().await;
    let command = json!({ "device": "device/lamp", "change": { "on": true } });
    for number in 0..200 {
        let name = format!("x{number}");
        bench.schedule(&name, "cron 0 7 * * *", "").await;
        bench.fake.put(&format!("schedule/{name}"), "do", encode(&[command.clone(), command.clone()])).await;
    }
    bench.held.send_replace(Holds::Everything);
    bench.clock("07:00:01");
    bench.until("all commands are given", async || bench.keys().len() == 400).await;
    // More than anybody who listens may fall behind.
    bench.held.send_replace(Holds::Nothing);
    for number in 0..200 {
        bench.ends(&format!("x{number}"), State::Done).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_too_many_the_same_are_followed_by_every_node_whichever_it_saw_first() {
    let bench = Bench::new().await;
    let name = |number: usize| format!("x{number:03}");
    // The last by name is seen first.
    for number in (0..=MAX_SCHEDULES).rev() {
        bench.schedule(&name(number), "cron 0 7 * * *", "").await;
    }
    let view = bench.find(&name(MAX_SCHEDULES)).await.unwrap();
    assert_eq!((view.state, view.next.len()), ("invalid", 0));
    assert!(view.reason.unwrap().contains("more than 256"));
    bench.clock("07:00:01");
    for number in 0..MAX_SCHEDULES {
        bench.ends(&name(number), State::Done).await;
    }
    assert!(bench.records(&name(MAX_SCHEDULES)).await.is_empty());
    // One of them goes, and the last takes its place.
    bench.schedules.remove(name(7)).await.unwrap();
    bench.ends(&name(MAX_SCHEDULES), State::Done).await;
}

#[tokio::test(start_paused = true)]
async fn a_home_that_moves_makes_up_for_nothing_and_repeats_nothing() {
    let bench = Bench::new().await;
    bench.schedule("daily", "cron 0 9 * * *", "run_latest").await;
    bench.schedule("once", "at 2026-06-01 07:00", "").await;
    bench.clock("07:00:00");
    bench.ends("once", State::Done).await;
    bench.clock("07:30:00");
    // In Berlin nine o'clock was half an hour ago; in New York seven o'clock is still to come.
    let zone = |zone: &str| HomeChange { zone: Some(zone.to_owned()), ..HomeChange::default() };
    bench.schedules.set_home(zone("Europe/Berlin")).await.unwrap();
    bench
        .until("the next is tomorrow", async || {
            bench.find("daily").await.unwrap().next[0].at == "2026-06-02T07:00:00Z"
        })
        .await;
    sleep(LONG).await;
    assert_eq!(bench.keys(), [key("once", "07:00:00")]);
    bench.schedules.set_home(zone("America/New_York")).await.unwrap();
    bench
        .until("it comes by the clock of New York", async || {
            bench.find("daily").await.unwrap().next[0].at == "2026-06-01T13:00:00Z"
        })
        .await;
    let once = bench.find("once").await.unwrap();
    assert_eq!((once.state, once.next.len()), ("over", 0));
    bench.clock("11:00:01");
    sleep(LONG).await;
    bench.clock("13:00:01");
    bench.ends("daily", State::Done).await;
    assert_eq!(bench.keys(), [key("once", "07:00:00"), key("daily", "13:00:00")]);
}

#[tokio::test(start_paused = true)]
async fn one_schedule_is_asked_for_alone_and_one_that_comes_often_says_what_that_costs() {
    let bench = Bench::new().await;
    bench.schedule("often", "cron */30 * * * * *", "").await;
    bench.schedule("each_minute", "cron * * * * *", "").await;
    let get = async |name: &str| bench.schedules.get(name.to_owned()).await.unwrap();
    assert!(get("often").await.unwrap().note.unwrap().contains("docs/time.md"));
    let calm = get("each_minute").await.unwrap();
    assert_eq!((calm.note, calm.next.len()), (None, 5));
    assert!(get("nothing").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_one_before_is_under_way_is_not_called_missed() {
    let bench = Bench::new().await;
    bench.schedule("x", "cron * * * * *", "").await;
    bench.held.send_replace(Holds::Everything);
    bench.clock("06:01:00");
    bench.until("the first is given", async || bench.keys().len() == 1).await;
    bench.clock("06:04:10");
    bench.held.send_replace(Holds::Nothing);
    bench.until("the last is given", async || bench.keys().len() == 2).await;
    bench.until("it ends", async || bench.records("x").await[&ME].state == State::Done).await;
    let record = bench.records("x").await.remove(&ME).unwrap();
    assert_eq!((record.at, record.under_way, record.passed_over), (at("06:04:00"), 2, 0));
    let last = bench.find("x").await.unwrap().last.remove(0);
    assert_eq!((last.under_way, last.passed_over), (2, 0));
}
