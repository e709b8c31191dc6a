//! A great deal at once, and what turns in circles: the task is heard of all the while, and clients are answered.

use super::*;

/// So often the heart beats, and clients are answered, until something holds.
async fn meanwhile(bench: &Bench, what: &str, mut holds: impl AsyncFnMut() -> bool) -> (u64, u64) {
    let (before, mut asked) = (bench.node.heartbeat.load(Ordering::Relaxed), 0);
    bench
        .until(what, async || {
            asked += 1;
            bench.node.automations.list().await.unwrap();
            holds().await
        })
        .await;
    (bench.node.heartbeat.load(Ordering::Relaxed) - before, asked)
}

#[tokio::test(start_paused = true)]
async fn when_the_clock_jumps_all_that_is_due_at_that_time_is_started_once() {
    let bench = Bench::new().await;
    for number in 0..MAX_AUTOMATIONS {
        let program = json!({"triggers": [{"at": "cron 0 7 * * *"}], "actions": [command("lamp")]});
        bench.write(&format!("x{number}"), program).await;
    }
    let count = async || bench.node.automations.list().await.unwrap().len();
    bench.until("all are seen", async || count().await == MAX_AUTOMATIONS).await;
    sleep(TICK).await;
    bench.clock(at("07:00:00"), true);
    let done = async || {
        for number in 0..MAX_AUTOMATIONS {
            if bench.count(&format!("x{number}"), State::Done).await == 0 {
                return false;
            }
        }
        true
    };
    let (beats, asked) = meanwhile(&bench, "all are done", done).await;
    assert!(beats > 10 && asked > 1, "{beats} {asked}");
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), MAX_AUTOMATIONS);
    // Where halves that were cut off have more together, the first by their names are followed.
    bench.write("one-more", on_bell(json!([command("lamp")]))).await;
    bench.until("the last is left alone", async || bench.state("x99").await == "held").await;
    let reason = bench.find("x99").await.unwrap().reason.unwrap();
    assert!(reason.contains("there are more than 128 automations"), "{reason}");
    assert!(bench.node.automations.start("x99".to_owned(), "user:ann".to_owned()).await.is_err());
    assert_eq!((count().await, bench.state("x98").await), (MAX_AUTOMATIONS + 1, "waiting"));
    bench.tell("bell", 1).await;
    bench.ends("one-more", State::Done, 1).await;
    bench
        .fake
        .service()
        .write(Author::Node, vec![Op::Delete(ObjectId::new("automation/one-more").unwrap())])
        .await
        .unwrap();
    bench.until("it is followed again", async || bench.state("x99").await == "waiting").await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_events_at_once_are_borne() {
    let bench = Bench::new().await;
    for number in 0..20 {
        bench.write(&format!("x{number}"), on_bell(json!([command("lamp"), {"delay": "5s"}]))).await;
    }
    let count = async || bench.node.automations.list().await.unwrap().len();
    bench.until("all are seen", async || count().await == 20).await;
    bench.tell("bell", 1_000).await;
    let done = async || {
        for number in 0..20 {
            if bench.count(&format!("x{number}"), State::Done).await == 0 {
                return false;
            }
        }
        true
    };
    let (beats, asked) = meanwhile(&bench, "each was started", done).await;
    assert!(beats > 10 && asked > 1, "{beats} {asked}");
    sleep(LONG).await;
    assert_eq!(bench.keys().len(), 20, "and what came while it ran was refused");
    for number in 0..20 {
        assert_eq!(bench.count(&format!("x{number}"), State::Refused).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_turns_in_circles_holds_up_nobody() {
    let bench = Bench::new().await;
    let costly = json!([{"expression": "range(2000) | list | length > 1"}]);
    let circle = json!({"repeat": 1000, "while": costly, "do": [{"delay": "0s"}]});
    let circles = json!([{"repeat": 1000, "do": [circle]}]);
    for number in 0..4 {
        bench.make(&format!("x{number}"), on_bell(circles.clone())).await;
    }
    bench.make("plain", on_bell(json!([command("lamp")]))).await;
    bench.tell("bell", 1).await;
    // Time does not pass while they turn, so nothing is waited for.
    let before = bench.node.heartbeat.load(Ordering::Relaxed);
    while bench.count("plain", State::Done).await == 0 {
        assert_eq!(bench.count("x0", State::Failed).await, 0, "the other one is done long before");
        bench.node.automations.list().await.unwrap();
    }
    for number in 0..4 {
        bench.ends(&format!("x{number}"), State::Failed, 1).await;
    }
    let beats = bench.node.heartbeat.load(Ordering::Relaxed) - before;
    assert!(beats > 100, "{beats}");
    assert!(bench.runs("x0").await[&(ME, 0)].end.contains("turns in circles"));
    let told = bench.node.automations.rehearse("x0".to_owned()).await.unwrap();
    assert!(told.end.contains("turns in circles"), "{}", told.end);
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_large_home_looks_at_what_is_new() {
    let bench = Bench::new().await;
    let mut engine = bench.engine_by_hand();
    engine.home =
        HomeText { zone: "Europe/Berlin".to_owned(), place: Some((52.5, 13.4)), ..HomeText::default() };
    for number in 0..500 {
        let id = format!("device/d{number}");
        bench.fake.put(&id, "adapter", Value::Text("lifx".into())).await;
        bench.fake.put(&id, "name", Value::Text(format!("Device {number}").as_str().into())).await;
        bench
            .fake
            .put(&id, "reported", encode(&json!({"value": {"kind": "light", "on": false, "brightness": 7}})))
            .await;
    }
    for number in 0..MAX_AUTOMATIONS {
        let triggers: Vec<Json> = (0..8)
            .flat_map(|trigger| {
                let device = format!("device {}", (number * 7 + trigger * 31) % 500);
                let at = ["sunset", "sunrise - 1h", "cron 0 7 * * *", "cron */5 * * * *"][trigger % 4];
                [json!({"state": device, "to": true}), json!({"at": at})]
            })
            .collect();
        bench.write(&format!("x{number}"), json!({"triggers": triggers, "actions": [command("lamp")]})).await;
    }
    let watcher =
        bench.fake.service().watch(vec!["device/".into(), "automation/".into()], None).await.unwrap();
    loop {
        let changes = bench.fake.service().next_changes(watcher.watcher).await.unwrap();
        for change in changes.changes {
            engine.see(change, true);
        }
        if changes.caught_up {
            break;
        }
    }
    let mut turns = |what: &str, mut before: Box<dyn FnMut(&mut Engine)>| {
        while engine.turn() {}
        let began = std::time::Instant::now();
        let mut turns = 0;
        for _ in 0..50 {
            before(&mut engine);
            turns += 1;
            while engine.turn() {
                turns += 1;
            }
        }
        println!("{what}: {:?} for each of {turns} turns", began.elapsed() / turns);
    };
    turns("nothing is new", Box::new(|_| {}));
    turns("a device has changed", Box::new(Engine::tell_news));
    // How long that takes depends on the machine; that it is not done each time does not.
    assert!(engine.automations.values().all(|entry| !entry.is_news && entry.sentry.due().is_some()));
}
