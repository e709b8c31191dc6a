//! What could not be stored is stored later, unless something newer took its place.

use super::*;

/// A field of an automation, as it is stored.
async fn field(bench: &Bench, name: &str, field: &FieldName) -> Option<Value> {
    let object = ObjectId::new(&format!("automation/{name}")).unwrap();
    let view = bench.fake.service().get(object).await.unwrap()?;
    view.fields.get(field).map(|field| field.value.clone())
}

/// Writes a record and waits until that was tried.
async fn write(ledger: &mut Ledger, name: &str, value: Option<i64>) {
    let object = ObjectId::new(&format!("automation/{name}")).unwrap();
    let is_over = ledger.write(&object, run_field(ME, 5).unwrap(), value.map(Value::Int));
    ledger.hand_over();
    ledger.has_written().await;
    is_over.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_the_disk_brings_nothing_back_that_was_removed_meanwhile() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let mut ledger = Ledger::new(bench.fake.service());
    write(&mut ledger, "gone", Some(1)).await;
    write(&mut ledger, "x", Some(1)).await;
    let get = async |name: &str| bench.fake.service().get(ObjectId::new(name).unwrap()).await.unwrap();
    assert!(get("automation/gone").await.is_none());
    assert_eq!(field(&bench, "x", &run_field(ME, 5).unwrap()).await, Some(Value::Int(1)));
}

#[tokio::test(start_paused = true)]
async fn how_a_run_ended_on_a_full_disk_is_stored_once_there_is_room() {
    let mut bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp"), command("desk")]))).await;
    bench.held.send_replace(Holds::Device("lamp"));
    bench.tell("bell", 1).await;
    bench.given(1).await;
    bench.fake.break_store(Some("no space left on device"));
    bench.held.send_replace(Holds::Nothing);
    bench.until("it is over", async || bench.state("x").await == "waiting").await;
    assert_eq!(bench.count("x", State::Running).await, 1, "nobody else knows");
    sleep(LONG).await;
    bench.fake.break_store(None);
    bench.ends("x", State::Done, 1).await;
    // Weeks later nothing is done once more.
    bench.node.dies().await;
    bench.node = bench.engine(ME);
    sleep(LONG).await;
    assert_eq!(bench.devices(), ["lamp", "desk"]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_takes_the_place_of_nothing_newer() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let mut ledger = Ledger::new(bench.fake.service());
    for newer in [Some(2), None] {
        bench.fake.break_store(Some("no space left on device"));
        write(&mut ledger, "x", Some(1)).await;
        bench.fake.break_store(None);
        write(&mut ledger, "x", newer).await;
        sleep(LONG).await;
        ledger.hand_over();
        assert!(timeout(LONG, ledger.has_written()).await.is_err(), "nothing is left to write");
        assert_eq!(field(&bench, "x", &run_field(ME, 5).unwrap()).await, newer.map(Value::Int));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_could_not_store_it_tries_again_before_it_stops() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let mut ledger = Ledger::new(bench.fake.service());
    bench.fake.break_store(Some("no space left on device"));
    write(&mut ledger, "x", Some(1)).await;
    ledger.close().await;
    assert_eq!(field(&bench, "x", &run_field(ME, 5).unwrap()).await, None);
    bench.fake.break_store(None);
    ledger.close().await;
    assert_eq!(field(&bench, "x", &run_field(ME, 5).unwrap()).await, Some(Value::Int(1)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_breaks_a_rule_keeps_no_other_from_being_stored() {
    let bench = Bench::new().await;
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let mut ledger = Ledger::new(bench.fake.service());
    let object = ObjectId::new("automation/x").unwrap();
    let tripped = FieldName::new("tripped").unwrap();
    let too_long = Value::Text("x".repeat(5_000).as_str().into());
    drop(ledger.write(&object, tripped.clone(), Some(too_long)));
    write(&mut ledger, "x", Some(1)).await;
    assert_eq!(field(&bench, "x", &run_field(ME, 5).unwrap()).await, Some(Value::Int(1)));
    assert_eq!(field(&bench, "x", &tripped).await, None);
    sleep(LONG).await;
    ledger.hand_over();
    assert!(timeout(LONG, ledger.has_written()).await.is_err(), "nor is it tried for ever");
}

#[tokio::test(start_paused = true)]
async fn one_that_ran_away_on_a_full_disk_is_not_switched_off_after_somebody_switched_it_on() {
    let bench = Bench::new().await;
    bench.make("x", with_mode(on_bell(json!([command("lamp")])), "parallel", 8)).await;
    bench.fake.break_store(Some("no space left on device"));
    for _ in 0..40 {
        // Refused once it is off.
        let _ = bench.node.automations.start("x".to_owned(), "user:ann".to_owned()).await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.state("x").await, "tripped");
    bench.fake.break_store(None);
    bench.node.automations.enable("x".to_owned(), true).await.unwrap();
    sleep(LONG).await;
    assert_eq!(bench.state("x").await, "waiting");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_no_part_of_another_of_that_name() {
    let bench = Bench::new().await;
    let program = on_bell(json!([command("lamp"), {"delay": "10h"}]));
    bench.make("x", program.clone()).await;
    bench.fake.break_store(Some("no space left on device"));
    bench.tell("bell", 1).await;
    bench.given(1).await;
    bench.until("it runs", async || bench.state("x").await == "running").await;
    sleep(TICK).await;
    bench.fake.break_store(None);
    bench.node.automations.remove("x".to_owned()).await.unwrap();
    bench.make("x", program).await;
    sleep(LONG).await;
    assert!(bench.runs("x").await.is_empty());
}
