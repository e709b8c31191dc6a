//! What switches an automation off, and what does not.

use super::{super::super::called::Called, *};

/// Somebody calls the path of an automation.
async fn call(bench: &Bench, name: &str) {
    static NUMBER: AtomicU64 = AtomicU64::new(1 << 48);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let data = encode(&Called::by_webhook(name, Json::Null).to_data());
    bench.fake.put(&format!("event/hearth.start:{number:016x}"), "data", data).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_has_a_path_starts_its_automation_at_a_pace_and_does_not_switch_it_off() {
    let bench = Bench::new().await;
    let program = json!({"triggers": [{"webhook": true}, {"event": "bell"}], "actions": [command("lamp")]});
    bench.make("x", with_mode(program, "parallel", 8)).await;
    let is_over = async || bench.state("x").await != "running";
    // As many as several boards admit.
    for _ in 0..50 {
        call(&bench, "x").await;
        bench.until("it is over", is_over).await;
    }
    sleep(TICK).await;
    assert_eq!((bench.state("x").await, bench.keys().len()), ("waiting", 10));
    // Nor are they added to what starts it otherwise.
    for _ in 0..25 {
        bench.tell("bell", 1).await;
        bench.until("it is over", is_over).await;
    }
    bench.given(35).await;
    assert_eq!(bench.state("x").await, "waiting");
    sleep(Duration::from_secs(4)).await;
    call(&bench, "x").await;
    bench.given(36).await;
}

#[tokio::test(start_paused = true)]
async fn where_a_hundred_are_started_as_often_some_are_named_and_it_is_stored() {
    let bench = Bench::new().await;
    let mut engine = bench.engine_by_hand();
    let name = |number: usize| format!("{number:02}{}", "x".repeat(62));
    for number in 0..100 {
        bench.write(&name(number), on_bell(json!([command("lamp")]))).await;
        let id = ObjectId::new(&format!("automation/{}", name(number))).unwrap();
        let view = bench.fake.service().get(id).await.unwrap().unwrap();
        engine.see_automation(&view);
        let firings = (0..15).map(|id| Firing { id, ..by_hand(at("06:00:00")) });
        engine.automations.get_mut(&name(number)).unwrap().fire(firings, at("06:00:00"));
    }
    engine.trip(&name(50), &"y".repeat(5_000));
    engine.ledger.hand_over();
    engine.ledger.has_written().await;
    let id = ObjectId::new(&format!("automation/{}", name(50))).unwrap();
    let view = bench.fake.service().get(id).await.unwrap().unwrap();
    let tripped = Spec::read(&view, None).tripped.unwrap();
    let named = format!("`{}`, `{}`, `{}` or 96 more,", name(0), name(1), name(2));
    assert!(tripped.contains(&named) && tripped.contains("switch it on again"), "{tripped}");
}
