//! How runs go on: over restarts, deaths, changes, and clocks that are set.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_trigger_starts_one_run_and_each_step_is_stored_before_it_is_done() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp"), command("desk"), {"delay": "5s"}]))).await;
    assert_eq!(bench.state("x").await, "waiting");
    bench.tell("bell", 1).await;
    bench.ends("x", State::Done, 1).await;
    let given = bench.given.lock().unwrap().clone();
    assert_eq!(bench.devices(), ["lamp", "desk"]);
    for (number, given) in given.iter().enumerate() {
        let [run] = &given.runs[..] else { panic!("{given:?}") };
        assert_eq!((run.state, run.trace.len()), (State::Running, number + 1), "the step itself is stored");
        assert!(run.trace[..number].iter().all(|line| line.outcome == "ok"), "and how those before went");
        assert_eq!(given.key, format!("automation/x#{:016x}.{number}", run.id));
    }
    let runs = bench.runs("x").await;
    let [((ME, 0), run)] = &runs.iter().map(|(at, run)| (*at, run)).collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((run.why.as_str(), run.data["kind"].as_str()), ("event bell", Some("event")));
    assert_eq!(run.trace.iter().map(|line| line.outcome.as_str()).collect::<Vec<_>>(), ["ok", "ok", "over"]);
    assert!(run.ended.unwrap() - run.at >= 5_000, "the delay");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_started_anew_goes_on_where_it_was_with_the_same_key() {
    let mut bench = Bench::new().await;
    let actions = json!([command("lamp"), command("desk"), {"delay": "10m"}, command("lamp")]);
    bench.make("x", on_bell(actions)).await;
    bench.held.send_replace(Holds::Device("desk"));
    bench.tell("bell", 1).await;
    let under_way = bench.given(2).await;
    bench.node.dies().await;
    bench.node = bench.engine(ME);
    assert_eq!(bench.given(3).await.key, under_way.key, "the step that was under way");
    bench.held.send_replace(Holds::Nothing);
    let waits = |runs: Runs| runs[&(ME, 0)].clone().course.shift(SignedDuration::ZERO);
    bench.until("it waits", async || waits(bench.runs("x").await)).await;
    let waits = Instant::now();
    sleep(LONG * 4).await;
    bench.node.dies().await;
    sleep(LONG * 4).await;
    bench.node = bench.engine(ME);
    sleep(LONG * 11).await;
    bench.given(4).await;
    let waited = waits.elapsed().as_secs();
    assert!((598..603).contains(&waited), "the delay is as long as it was: {waited}");
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices(), ["lamp", "desk", "desk", "lamp"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_hears_first_that_another_one_went_on_without_it() {
    let mut bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp"), command("desk")]))).await;
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    bench.given(1).await;
    bench.node.dies().await;
    sleep(LONG).await;
    bench.node = bench.engine(ME);
    bench.until("it knows the run", async || bench.find("x").await.is_some()).await;
    sleep(SETTLE / 2).await;
    let ended = Op::Unset(ObjectId::new("automation/x").unwrap(), run_field(ME, 0).unwrap());
    bench.fake.service().write(Author::Node, vec![ended]).await.unwrap();
    bench.held.send_replace(Holds::Nothing);
    sleep(LONG).await;
    assert_eq!(bench.devices(), ["lamp"], "nothing is done once more");
    assert!(bench.runs("x").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_run_of_a_node_that_died_is_gone_on_with_by_the_winner_and_nothing_of_it_is_left() {
    let (name, bench, mut other) = Bench::of_two().await;
    bench.make(&name, on_bell(json!([command("lamp"), command("desk")]))).await;
    sleep(LONG).await;
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    let first = bench.given(1).await;
    assert_eq!(first.runs.len(), 1);
    other.dies().await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1, "as long as the other one is thought to live nobody does it once more");
    bench.live(&[ME]);
    let died = Instant::now();
    let again = bench.given(2).await;
    assert!(died.elapsed() >= SETTLE - Duration::from_millis(100), "{:?}", died.elapsed());
    assert_eq!(again.key, first.key);
    bench.held.send_replace(Holds::Nothing);
    bench.ends(&name, State::Done, 1).await;
    let runs = bench.runs(&name).await;
    assert_eq!(
        runs.keys().map(|(node, _)| *node).collect::<Vec<_>>(),
        [ME],
        "no record says that it goes on"
    );
    assert_eq!(bench.devices(), ["lamp", "lamp", "desk"]);
    // The other one comes back: it has nothing to go on with, and the automation can be started again.
    let _other = bench.engine(OTHER);
    bench.live(&BOTH);
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 3);
    assert_eq!(bench.state(&name).await, "waiting");
    bench.tell("bell", 1).await;
    bench.given(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_taken_over_ends_at_the_node_that_was_not_heard() {
    let (name, bench, _other) = Bench::of_two().await;
    bench.make(&name, on_bell(json!([{"delay": "1m"}, command("lamp")]))).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.count(&name, State::Running).await == 1).await;
    // To this node the other one is dead, and it is not.
    bench.live(&[ME]);
    bench.ends(&name, State::Stopped, 1).await;
    bench.ends(&name, State::Done, 1).await;
    let runs = bench.runs(&name).await;
    assert!(runs.iter().any(|((node, _), run)| *node == OTHER && run.end == "another node goes on with it"));
    assert_eq!(bench.devices(), ["lamp"]);
    assert_eq!(bench.state(&name).await, "waiting", "what is over is over");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_gone_on_with_before_peers_are_heard_out_and_the_time_is_known() {
    let mut bench = Bench::with(&[OTHER]).await;
    bench.make("x", on_bell(json!([{"delay": "20s"}, command("lamp")]))).await;
    sleep(HEAR_OUT).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.count("x", State::Running).await == 1).await;
    bench.node.dies().await;
    sleep(LONG).await;
    bench.caught_up.send_replace(false);
    bench.clock(at("06:30:00"), false);
    bench.node = bench.engine(ME);
    sleep(HEAR_OUT / 2).await;
    assert!(bench.keys().is_empty(), "peers are heard out");
    bench.caught_up.send_replace(true);
    sleep(HEAR_OUT).await;
    assert!(bench.keys().is_empty(), "nobody knows how long it has still to wait");
    bench.clock(at("06:40:00"), true);
    bench.given(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_by_years_leaves_a_delay_as_long_as_it_was() {
    for (name, year) in [("future", "2031"), ("past", "2022")] {
        let bench = Bench::new().await;
        bench.make(name, on_bell(json!([{"delay": "60s"}, command("lamp")]))).await;
        bench.tell("bell", 1).await;
        bench.until("it waits", async || bench.count(name, State::Running).await == 1).await;
        let began = Instant::now();
        sleep(Duration::from_secs(20)).await;
        bench.clock(format!("{year}-06-01T12:00:00Z").parse().unwrap(), true);
        bench.given(1).await;
        let waited = began.elapsed();
        assert!((Duration::from_secs(58)..Duration::from_secs(63)).contains(&waited), "{year}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_seen_when_it_comes_and_written_once() {
    let bench = Bench::new().await;
    bench.lamp(false).await;
    let wait = json!({"wait": [{"state": "device/lamp", "is": true}], "timeout": "3h"});
    bench.make("x", on_bell(json!([wait, command("desk"), {"wait": {"event": "bell2"}, "timeout": "3h"}, command("lamp")]))).await;
    bench.tell("bell", 1).await;
    bench.until("it waits", async || bench.count("x", State::Running).await == 1).await;
    // For longer than the steps of a run would last if each look counted as one.
    let stored = |runs: &Runs| serde_json::to_value(runs.values().next().unwrap()).unwrap();
    let before = stored(&bench.runs("x").await);
    for _ in 0..60 {
        sleep(Duration::from_secs(120)).await;
        bench.lamp(false).await;
    }
    assert_eq!(stored(&bench.runs("x").await), before);
    let came = Instant::now();
    bench.lamp(true).await;
    bench.given(1).await;
    assert!(came.elapsed() < TICK, "{:?}", came.elapsed());
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    bench.tell("bell2", 1).await;
    bench.given(2).await;
    bench.ends("x", State::Done, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_with_the_time_is_seen_as_well() {
    let bench = Bench::new().await;
    let wait = json!({"wait": [{"time": {"after": "06:10"}}], "timeout": "1h"});
    bench.make("x", on_bell(json!([wait, command("desk")]))).await;
    bench.tell("bell", 1).await;
    bench.until("it waits", async || bench.count("x", State::Running).await == 1).await;
    for _ in 0..6 {
        sleep(LONG * 4).await;
    }
    let given = bench.given(1).await;
    assert!((at("06:10:00")..at("06:10:02")).contains(&given.at), "{}", given.at);
}

#[tokio::test(start_paused = true)]
async fn an_automation_that_is_changed_or_switched_off_while_it_runs_ends_its_run_at_once() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([{"delay": "10h"}, command("lamp")]))).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.state("x").await == "running").await;
    bench.make("x", on_bell(json!([{"delay": "9h"}, command("desk")]))).await;
    bench.ends("x", State::Stopped, 1).await;
    assert_eq!(bench.runs("x").await[&(ME, 0)].end, "it was changed while it ran");
    bench.tell("bell", 1).await;
    bench.until("the new one runs", async || bench.count("x", State::Running).await == 1).await;
    bench.node.automations.enable("x".to_owned(), false).await.unwrap();
    bench.ends("x", State::Stopped, 2).await;
    let ends: Vec<String> = bench.runs("x").await.into_values().map(|run| run.end).collect();
    assert!(ends.contains(&"it was switched off while it ran".to_owned()), "{ends:?}");
    bench.tell("bell", 1).await;
    sleep(LONG).await;
    assert_eq!((bench.count("x", State::Running).await, bench.state("x").await), (0, "off"));
    // Nor does it make up for what came while it was off.
    bench.node.automations.enable("x".to_owned(), true).await.unwrap();
    sleep(LONG).await;
    assert_eq!(bench.count("x", State::Running).await, 0);
    assert!(bench.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_understood_any_more_ends_its_run_too() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([{"delay": "10h"}]))).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.state("x").await == "running").await;
    bench.make("x", on_bell(json!([{"dance": true}]))).await;
    bench.ends("x", State::Stopped, 1).await;
    assert_eq!(bench.state("x").await, "invalid");
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_while_it_runs_stays_removed_and_made_anew_it_is_another() {
    let bench = Bench::new().await;
    let program = on_bell(json!([command("lamp"), command("desk")]));
    bench.make("x", program.clone()).await;
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    bench.given(1).await;
    bench.node.automations.remove("x".to_owned()).await.unwrap();
    bench.until("it is gone", async || bench.find("x").await.is_none()).await;
    bench.make("x", program).await;
    bench.tell("bell", 1).await;
    bench.given(2).await;
    // The step of the one that is gone ends, and is none of the new one's.
    bench.held.send_replace(Holds::Nothing);
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices(), ["lamp", "lamp", "desk"]);
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    bench.given(4).await;
    bench.node.automations.remove("x".to_owned()).await.unwrap();
    bench.held.send_replace(Holds::Nothing);
    sleep(LONG).await;
    assert!(bench.runs("x").await.is_empty(), "no record brings it back");
}

#[tokio::test(start_paused = true)]
async fn what_failed_takes_back_what_was_done_before() {
    let bench = Bench::new().await;
    let mut first = command("lamp");
    first["undo"] = json!([command("desk")]);
    let mut second = command("bad");
    second["retry"] = json!(2);
    bench.make("x", on_bell(json!([first, second, command("lamp")]))).await;
    bench.tell("bell", 1).await;
    bench.ends("x", State::Failed, 1).await;
    assert_eq!(bench.devices(), ["lamp", "bad", "bad", "bad", "desk"]);
    let mut keys = bench.keys();
    keys.dedup();
    assert_eq!(keys.len(), 5, "each try is another one");
    let run = bench.runs("x").await.remove(&(ME, 0)).unwrap();
    assert!(run.end.contains("it is broken"), "{}", run.end);
    assert_eq!(
        run.trace.iter().map(|line| line.outcome == "ok").collect::<Vec<_>>(),
        [true, false, false, false, true]
    );
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_stored_the_home_goes_on() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp"), {"delay": "3s"}, command("desk")]))).await;
    bench.fake.break_store(Some("no space left on device"));
    // An event is told all the same: it needs no disk.
    bench.tell("bell", 1).await;
    bench.until("it is done", async || bench.devices().len() == 2).await;
    bench.until("this node knows it", async || bench.state("x").await == "waiting").await;
    assert!(bench.runs("x").await.is_empty());
    assert_eq!(bench.find("x").await.unwrap().runs[0].state, "done");
    bench.fake.break_store(None);
    bench.tell("bell", 1).await;
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_a_little_for_what_is_under_way_and_stores_it() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp"), command("desk")]))).await;
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    bench.given(1).await;
    bench.node.shutdown.send_replace(true);
    sleep(LAST_STEPS / 2).await;
    bench.held.send_replace(Holds::Nothing);
    bench.until("it stops", async || bench.node.task.is_finished()).await;
    let run = bench.runs("x").await.remove(&(ME, 0)).unwrap();
    assert_eq!((run.state, run.trace[0].outcome.as_str()), (State::Running, "ok"));
    let _anew = bench.engine(ME);
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices(), ["lamp", "desk"], "no step is done twice");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_breaks_off_fails_and_the_rest_goes_on() {
    let bench = Bench::new().await;
    let mut engine = bench.engine_by_hand();
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let id = ObjectId::new("automation/x").unwrap();
    let view = bench.fake.service().get(id).await.unwrap().unwrap();
    engine.see_automation(&view);
    engine.home = HomeText { zone: "UTC".to_owned(), place: None, ..HomeText::default() };
    engine.automations.get_mut("x").unwrap().fire([by_hand(now(&engine.clock))], now(&engine.clock));
    engine.turn();
    let stand = engine.under_way.drain().next().unwrap().1;
    engine.steps = JoinSet::new();
    engine.under_way.insert(engine.steps.spawn(async { panic!("a test panics") }).id(), stand);
    let ended = engine.steps.join_next_with_id().await.unwrap();
    engine.stepped(ended);
    engine.turn();
    let run = &engine.automations["x"].own[&0];
    assert_eq!(
        (run.state, run.trace[0].outcome.as_str()),
        (State::Failed, "the step broke off: the log has the reason")
    );
    assert!(engine.under_way.is_empty() && engine.automations["x"].busy.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_begins_in_the_place_of_another_is_not_told_how_that_ones_step_went() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([command("lamp"), command("desk")])), "restart", 1)).await;
    bench.held.send_replace(Holds::Device("lamp"));
    // More than there are places.
    for number in 1..=10 {
        bench.tell("bell", 1).await;
        bench.given(number).await;
    }
    bench.held.send_replace(Holds::Nothing);
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices()[10..], ["desk"], "the last one alone goes on");
    assert_eq!(bench.count("x", State::Running).await, 0);
}
