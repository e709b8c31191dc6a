//! What starts an automation, and what comes of it in each mode.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_nobody_acted_upon_before_the_death_the_new_winner_begins_once() {
    let name = Bench::won_by(OTHER);
    let bench = Bench::with(&[OTHER]).await;
    bench.live(&BOTH);
    bench.make(&name, on_bell(json!([command("lamp")]))).await;
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    sleep(Duration::from_secs(5)).await;
    assert!(bench.keys().is_empty(), "the other one wins");
    bench.live(&[ME]);
    let died = Instant::now();
    bench.given(1).await;
    assert!(died.elapsed() >= SETTLE - Duration::from_millis(100));
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1);
    // What came long ago is not made up for.
    bench.live(&BOTH);
    bench.tell("bell", 1).await;
    sleep(LONG + SETTLE).await;
    bench.live(&[ME]);
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_dead_one_acted_upon_is_not_begun_again_though_its_places_are_few() {
    let (name, bench, mut other) = Bench::of_two().await;
    let program = on_bell(json!([{"delay": "1s"}, command("lamp")]));
    bench.make(&name, with_mode(program, "parallel", 8)).await;
    sleep(LONG).await;
    bench.tell("bell", 20).await;
    bench.ends(&name, State::Done, 8).await;
    other.dies().await;
    bench.live(&[ME]);
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 8, "the others were too many");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_before_peers_are_heard_out_nor_by_the_clock_before_the_time_is_known() {
    let bench = Bench::with(&[OTHER]).await;
    bench.caught_up.send_replace(false);
    bench.make("bell", on_bell(json!([command("lamp")]))).await;
    bench.make("cron", json!({"triggers": [{"at": "cron 0 7 * * *"}], "actions": [command("desk")]})).await;
    let view = bench.find("bell").await.unwrap();
    assert_eq!(view.state, "held");
    assert!(view.reason.unwrap().contains("heard out"));
    bench.tell("bell", 1).await;
    sleep(HEAR_OUT / 2).await;
    assert!(bench.keys().is_empty());
    bench.caught_up.send_replace(true);
    assert_eq!(bench.given(1).await.device, "device/lamp");
    bench.clock(at("06:59:59"), false);
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1, "nobody knows the time");
    let view = bench.find("cron").await.unwrap();
    assert_eq!(view.state, "held");
    assert!(view.reason.unwrap().contains("hearth time"));
    assert_eq!(bench.state("bell").await, "waiting", "what goes by no clock goes on");
    bench.tell("bell", 1).await;
    bench.given(2).await;
    bench.clock(at("06:59:59"), true);
    assert_eq!(bench.given(3).await.device, "device/desk");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_by_years_leaves_what_must_stay_so_as_long_as_it_was() {
    for year in ["2031", "2022"] {
        let bench = Bench::new().await;
        bench.lamp(false).await;
        let trigger = json!({"state": "device/lamp", "to": true, "for": "60s"});
        bench.make("x", json!({"triggers": [trigger], "actions": [command("desk")]})).await;
        bench.lamp(true).await;
        let began = Instant::now();
        sleep(Duration::from_secs(20)).await;
        bench.clock(format!("{year}-06-01T12:00:00Z").parse().unwrap(), true);
        bench.given(1).await;
        let waited = began.elapsed();
        assert!((Duration::from_secs(58)..Duration::from_secs(63)).contains(&waited), "{year}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn single_refuses_while_it_runs_at_whichever_node() {
    let (name, bench, _other) = Bench::of_two().await;
    bench.make(&name, on_bell(json!([{"delay": "1m"}, command("lamp")]))).await;
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.count(&name, State::Running).await == 1).await;
    bench.tell("bell", 1).await;
    bench.ends(&name, State::Refused, 1).await;
    let runs = bench.runs(&name).await;
    assert!(runs.values().any(|run| run.end == "it runs already"));
    bench.given(1).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn restart_ends_what_runs_at_another_node() {
    let name = Bench::won_by(ME);
    let bench = Bench::with(&[OTHER]).await;
    bench.make(&name, with_mode(on_bell(json!([{"delay": "1m"}, command("lamp")])), "restart", 1)).await;
    sleep(LONG).await;
    let other = bench.engine(OTHER);
    bench.until("it knows it", async || !other.automations.list().await.unwrap().is_empty()).await;
    // The other one thinks for a while that it is alone.
    bench.live(&[OTHER]);
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.count(&name, State::Running).await == 1).await;
    assert!(bench.runs(&name).await.keys().all(|(node, _)| *node == OTHER));
    bench.live(&BOTH);
    sleep(HEAR_OUT).await;
    bench.tell("bell", 1).await;
    bench.ends(&name, State::Stopped, 1).await;
    bench.until("one goes on", async || bench.count(&name, State::Running).await == 1).await;
    let runs = bench.runs(&name).await;
    let ((node, _), stopped) = runs.iter().find(|(_, run)| run.state == State::Stopped).unwrap();
    assert_eq!((*node, stopped.end.as_str()), (OTHER, "it was started again"));
    bench.given(1).await;
    sleep(LONG * 3).await;
    assert_eq!(bench.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn queued_runs_come_one_after_another_in_the_order_of_their_starts_over_all_nodes() {
    let name = Bench::won_by(ME);
    let bench = Bench::with(&[OTHER]).await;
    let other = bench.engine(OTHER);
    bench.make(&name, with_mode(on_bell(json!([{"delay": "10s"}, command("lamp")])), "queued", 4)).await;
    bench.until("both know it", async || !other.automations.list().await.unwrap().is_empty()).await;
    sleep(LONG).await;
    // Each node gets two of them.
    for alone in [OTHER, ME, OTHER, ME] {
        bench.live(&[alone]);
        sleep(SETTLE).await;
        bench.tell("bell", 1).await;
        sleep(Duration::from_millis(100)).await;
        bench.live(&BOTH);
    }
    let runs = bench.runs(&name).await;
    assert_eq!(runs.values().filter(|run| run.state == State::Queued).count(), 3, "{runs:?}");
    bench.tell("bell", 1).await;
    bench.ends(&name, State::Refused, 1).await;
    bench.given(4).await;
    let ids: Vec<u64> = {
        let mut open: Vec<_> = runs.values().filter(|run| run.state.is_open()).collect();
        open.sort_by_key(|run| run.at);
        open.iter().map(|run| run.id).collect()
    };
    let given = bench.given.lock().unwrap().clone();
    let keys: Vec<String> = ids.iter().map(|id| format!("automation/{name}#{id:016x}.0")).collect();
    assert_eq!(given.iter().map(|given| given.key.clone()).collect::<Vec<_>>(), keys);
    for two in given.windows(2) {
        assert!(two[1].at.duration_since(two[0].at).as_millis() >= 9_900, "one after another");
    }
}

#[tokio::test(start_paused = true)]
async fn parallel_runs_are_as_many_as_it_says() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([{"delay": "10s"}, command("lamp")])), "parallel", 3)).await;
    bench.tell("bell", 5).await;
    bench.until("three run", async || bench.count("x", State::Running).await == 3).await;
    bench.ends("x", State::Refused, 1).await;
    bench.given(3).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 3);
    assert_eq!(bench.count("x", State::Done).await, 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_pushes_out_nothing_that_was_done() {
    let bench = Bench::new().await;
    let program = |side: &str| {
        let mut program = on_bell(json!([command("lamp")]));
        program["conditions"] = json!([{"expression": format!("trigger.data.side == '{side}'")}]);
        program
    };
    bench.make("x", program("front")).await;
    for number in 1..=7 {
        bench.tell("bell", 1).await;
        bench.ends("x", State::Done, number).await;
    }
    bench.make("x", program("back")).await;
    bench.write("x", json!({"conditions": [{"expression": "trigger.data.side == 'back'"}]})).await;
    sleep(TICK).await;
    for _ in 0..20 {
        bench.tell("bell", 1).await;
        sleep(TICK).await;
    }
    assert_eq!((bench.count("x", State::Done).await, bench.count("x", State::Refused).await), (7, 1));
    assert_eq!(bench.keys().len(), 7);
    // Nor do they wear the card: the first one is written, and the next a minute later.
    let written =
        async || bench.runs("x").await.values().find(|run| run.state == State::Refused).map(|run| run.at);
    let first = written().await;
    bench.tell("bell", 1).await;
    sleep(TICK).await;
    assert_eq!(written().await, first);
    sleep(Duration::from_secs(60)).await;
    bench.tell("bell", 1).await;
    bench.until("it is written", async || written().await != first).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_itself_is_stopped_and_says_by_what() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([command("lamp"), {"event": "bell"}])), "parallel", 8)).await;
    bench.tell("bell", 1).await;
    bench.until("it trips", async || bench.state("x").await == "tripped").await;
    let reason = bench.find("x").await.unwrap().reason.unwrap();
    assert!(reason.contains("event bell") && reason.contains("start itself"), "{reason}");
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 30, "so often it was started");
    bench.tell("bell", 1).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 30);
    // Somebody has looked at it.
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    bench.node.automations.enable("x".to_owned(), true).await.unwrap();
    bench.until("it is on again", async || bench.state("x").await == "waiting").await;
    bench.tell("bell", 1).await;
    bench.given(31).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stopped_stays_so_where_that_cannot_be_stored() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([command("lamp")])), "parallel", 8)).await;
    for _ in 0..31 {
        bench.tell("bell", 1).await;
        bench.until("it is over", async || bench.state("x").await != "running").await;
    }
    assert_eq!(bench.state("x").await, "tripped");
    assert_eq!(bench.keys().len(), 30);
    // It is told of in its object as well, and read back from there.
    let other = bench.engine(OTHER);
    bench
        .until("all know it", async || {
            other.automations.list().await.unwrap().iter().any(|view| view.state == "tripped")
        })
        .await;
    bench.node.automations.enable("x".to_owned(), true).await.unwrap();
    bench.until("it is on again", async || bench.state("x").await == "waiting").await;
    bench.tell("bell", 1).await;
    bench.given(31).await;
    bench.fake.break_store(Some("no space left on device"));
    for _ in 0..40 {
        // Refused once it is off.
        let _ = bench.node.automations.start("x".to_owned(), "user:ann".to_owned()).await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(TICK).await;
    assert_eq!((bench.state("x").await, bench.keys().len()), ("tripped", 60));
    bench.fake.break_store(None);
    // Its object changes, and does not know of it.
    bench.write("x", json!({"mode": "parallel"})).await;
    sleep(LONG).await;
    assert_eq!(bench.state("x").await, "tripped");
}

#[tokio::test(start_paused = true)]
async fn two_that_fight_name_each_other() {
    let bench = Bench::new().await;
    let program = |hears: &str, tells: &str| {
        let program = json!({"triggers": [{"event": hears}], "actions": [{"event": tells}]});
        with_mode(program, "parallel", 8)
    };
    bench.make("day", program("dark", "light")).await;
    bench.make("night", program("light", "dark")).await;
    bench.tell("dark", 1).await;
    let mut reason = None;
    bench
        .until("one of them is stopped", async || {
            for name in ["day", "night"] {
                let view = bench.find(name).await.unwrap();
                reason =
                    reason.take().or(view.reason.filter(|_| view.state == "tripped").map(|why| (name, why)));
            }
            reason.is_some()
        })
        .await;
    let (name, why) = reason.unwrap();
    let other = if name == "day" { "night" } else { "day" };
    assert!(why.contains(&format!("fight with `{other}`")), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_went_while_the_watcher_was_lost_is_forgotten_and_no_event_is_heard_twice() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([command("lamp")])), "parallel", 8)).await;
    bench.make("y", on_bell(json!([command("desk")]))).await;
    bench.lamp(true).await;
    for _ in 0..10 {
        bench.tell("bell", 1).await;
        bench
            .until("both are over", async || {
                bench.state("x").await == "waiting" && bench.state("y").await == "waiting"
            })
            .await;
    }
    bench.given(20).await;
    let object = |id: &str| Op::Delete(ObjectId::new(id).unwrap());
    let service = bench.fake.service();
    // In one go, so that the node hears of neither before it begins anew.
    let gone =
        service.write(Author::Node, vec![object("automation/y"), object("device/desk"), object("home/main")]);
    let (_, written) = tokio::join!(bench.fake.forget_observers(), gone);
    written.unwrap();
    bench.until("it is forgotten", async || bench.find("y").await.is_none()).await;
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 20);
    bench.tell("bell", 1).await;
    bench.given(21).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_is_kept_and_says_why_and_the_rest_goes_on() {
    let bench = Bench::new().await;
    let wrong = json!({"triggers": [{"event": "bell"}], "actions": [{"dance": true}]});
    bench.node.automations.put("wrong".to_owned(), wrong.as_object().unwrap().clone()).await.unwrap();
    bench.make("right", on_bell(json!([command("lamp")]))).await;
    let view = bench.find("wrong").await.unwrap();
    assert_eq!((view.state, &view.program["actions"]), ("invalid", &json!([{"dance": true}])));
    assert!(view.reason.unwrap().contains("actions[0]"), "the reason names the place");
    bench.tell("bell", 1).await;
    bench.given(1).await;
    assert!(bench.runs("wrong").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_automation_whose_times_cannot_be_known_says_why() {
    let bench = Bench::new().await;
    bench.make("x", json!({"triggers": [{"at": "sunset"}], "actions": [command("lamp")]})).await;
    bench.until("it says so", async || bench.state("x").await == "held").await;
    assert!(bench.find("x").await.unwrap().reason.unwrap().contains("place"));
    bench.fake.put("home/main", "latitude", Value::Float(52.5)).await;
    bench.fake.put("home/main", "longitude", Value::Float(13.4)).await;
    bench.until("it waits", async || bench.state("x").await == "waiting").await;
}

#[tokio::test(start_paused = true)]
async fn records_of_nodes_that_are_gone_do_not_add_up() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    for gone in 1..40 {
        let mut run = Run::new(&by_hand(at("05:00:00")), 7, at("05:00:00"));
        run.end(State::Done, "", at("05:00:00") + SignedDuration::from_secs(i64::try_from(gone).unwrap()));
        let field = run_field(ShortId(gone), 0).unwrap();
        bench.fake.put("automation/x", field.as_str(), run.to_value()).await;
    }
    sleep(TICK).await;
    bench.tell("bell", 1).await;
    bench.until("the latest are left", async || bench.runs("x").await.len() == 9).await;
    let left: Vec<u64> = bench.runs("x").await.into_keys().map(|(node, _)| node.0).collect();
    assert_eq!(left, [32, 33, 34, 35, 36, 37, 38, 39, ME.0]);
}
