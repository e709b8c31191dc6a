//! What steps are: how long they take, what they are filled with, how they are stored, and what is told of them beforehand.

use super::*;

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
