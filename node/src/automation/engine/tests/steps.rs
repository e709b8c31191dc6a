//! What steps are: how long they take, what they are filled with, how they are stored, and what is told of them beforehand.

use super::*;

fn program(actions: Json) -> serde_json::Map<String, Json> {
    on_bell(actions).as_object().unwrap().clone()
}

impl Bench {
    /// Writes an automation as a client does.
    async fn put(&self, name: &str, program: serde_json::Map<String, Json>) -> AutomationView {
        self.node.automations.put(name.to_owned(), program).await.unwrap();
        self.find(name).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_may_take_its_deadline_after_its_transition() {
    let bench = Bench::new().await;
    let fade = json!({"device": "device/lamp", "change": {"brightness": 40, "transition_ms": 60_000}});
    bench.held.send_replace(Holds::Everything);
    bench.make("x", on_bell(json!([fade, command("desk")]))).await;
    bench.tell("bell", 1).await;
    bench.given(1).await;
    sleep(Duration::from_secs(65)).await;
    assert_eq!(bench.count("x", State::Running).await, 1);
    bench.held.send_replace(Holds::Nothing);
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices(), ["lamp", "desk"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_filled_in_anew_is_another_command_unless_it_comes_out_alike() {
    let mut bench = Bench::new().await;
    let lux = async |bench: &Bench, lux: u32| {
        bench.fake.put("device/desk", "readings", encode(&json!({"lux": {"value": lux, "at": 1}}))).await;
    };
    lux(&bench, 40).await;
    let dim = json!({"device": "device/lamp", "change": {"brightness": "{{ device('device/desk').lux }}"}});
    bench.held.send_replace(Holds::Everything);
    bench.put("x", program(json!([dim, command("lamp")]))).await;
    bench.tell("bell", 1).await;
    bench.given(1).await;
    for (count, seen) in [(2, 40), (3, 60)] {
        bench.node.dies().await;
        lux(&bench, seen).await;
        bench.node = bench.engine(ME);
        bench.given(count).await;
    }
    bench.held.send_replace(Holds::Nothing);
    bench.ends("x", State::Done, 1).await;
    let keys = bench.keys();
    assert!(keys[0] == keys[1] && keys[1] != keys[2] && keys[3].ends_with(".1"), "{keys:?}");
    assert!(keys.iter().all(|key| key.len() <= 64), "{keys:?}");
}

/// As deep as actions and conditions may stand in one another.
fn deepest() -> Json {
    let mut condition = json!({"not": {"time": {"before": "03:00"}}});
    for _ in 0..6 {
        condition = json!({"any": [condition]});
    }
    let mut action = command("lamp");
    action["undo"] = json!([command("desk")]);
    for _ in 0..5 {
        action = json!({"choose": [{"if": [condition], "do": [action]}]});
    }
    action
}

#[tokio::test(start_paused = true)]
async fn the_deepest_program_is_stored_shown_and_done_after_a_restart() {
    let mut bench = Bench::new().await;
    let put = bench.put("x", program(json!([deepest()]))).await;
    assert_eq!((put.state, put.reason), ("waiting", None));
    bench.node.dies().await;
    bench.node = bench.engine(ME);
    bench.until("it is known", async || bench.find("x").await.is_some()).await;
    assert_eq!(bench.find("x").await.unwrap().program["actions"], json!([deepest()]));
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    bench.ends("x", State::Done, 1).await;
    assert_eq!(bench.devices(), ["lamp"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_to_be_stored_is_refused_with_its_length_and_a_way_out() {
    let bench = Bench::new().await;
    let said = json!({"event": "x", "data": "y".repeat(70)});
    let refused = bench.node.automations.put("x".to_owned(), program(json!(vec![said; 42]))).await;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(
        refused.contains("`actions` has 39")
            && refused.contains("3900 are the most")
            && refused.contains("two automations"),
        "{refused}"
    );
    assert!(bench.find("x").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_tells_of_what_is_not_there_and_of_nothing_else() {
    let bench = Bench::new().await;
    bench.fake.put("group/down", "name", Value::Text("down".into())).await;
    bench.fake.put("group/down", "member.lamp", Value::Bool(true)).await;
    bench.fake.put("device/desk", "area", Value::Text("Study".into())).await;
    bench.fake.put("device/desk", "capabilities", encode(&json!({"kind": "light"}))).await;
    bench.fake.put("scene/evening", "transition_ms", Value::Int(0)).await;
    let to = |target: &str| json!({"device": target, "change": {"on": true}});
    let there =
        [to("down"), to("group/down"), to("study"), to("{{ trigger.device }}"), json!({"scene": "evening"})];
    let gone = [to("attic"), json!({"scene": "morning"})];
    let branch = json!({"choose": [{"if": [], "do": gone}]});
    let actions: Vec<Json> = there.into_iter().chain([branch]).collect();
    bench.put("x", program(json!(actions))).await;
    let told = bench.node.automations.rehearse("x".to_owned()).await.unwrap().steps;
    let missing: Vec<_> = told.iter().filter(|step| step.contains("there is no")).collect();
    assert_eq!((told.len(), missing.len()), (7, 2), "{told:#?}");
    assert!(told[5].ends_with(": there is no device `attic`"), "{told:#?}");
    assert!(told[6].ends_with(": there is no scene `morning`"), "{told:#?}");
}
