//! What clients are told, and what this node knows by that.

use tokio::sync::oneshot;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_read_back_for_a_client_takes_the_place_of_nothing_newer() {
    let bench = Bench::new().await;
    let mut engine = bench.engine_by_hand();
    bench.make("x", on_bell(json!([command("lamp")]))).await;
    let id = ObjectId::new("automation/x").unwrap();
    let read = async || {
        let object = bench.fake.service().get(id.clone()).await.unwrap();
        Change { id: id.clone(), object }
    };
    engine.watched(read().await, true);
    let (reply, is_written) = oneshot::channel();
    engine.request(AutomationsRequest::Enable("x".to_owned(), false, reply));
    let is_off = async || {
        let fields = read().await.object.unwrap().fields;
        let enabled = fields.get(&FieldName::new("enabled").unwrap());
        enabled.is_some_and(|field| field.value == Value::Bool(false))
    };
    bench.until("it is written", is_off).await;
    sleep(TICK).await;
    // It was read back. Before the engine comes to that, somebody else switches it on, and the watch shows it.
    bench.write("x", json!({"enabled": true})).await;
    engine.watched(read().await, true);
    assert!(engine.automations["x"].spec.enabled);
    while let Some(written) = engine.writes.join_next().await {
        engine.written(written.unwrap());
    }
    is_written.await.unwrap().unwrap();
    assert!(engine.automations["x"].spec.enabled, "nothing shows it again");
    assert!(engine.shown_last.is_empty());
}
