//! Who goes on with a run where clocks were wrong, or nobody knows the time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_run_that_was_begun_by_a_clock_hours_ahead_has_one_node_that_goes_on_with_it() {
    for dies in [true, false] {
        let (name, bench, mut other) = Bench::of_two().await;
        bench.make(&name, on_bell(json!([{"delay": "1m"}, command("lamp")]))).await;
        sleep(LONG).await;
        bench.clock(at("12:00:00"), true);
        sleep(TICK * 2).await;
        bench.tell("bell", 1).await;
        bench.until("it runs", async || bench.count(&name, State::Running).await == 1).await;
        bench.clock(at("06:05:00"), true);
        sleep(TICK * 2).await;
        if dies {
            other.dies().await;
        }
        bench.live(&[ME]);
        bench.ends(&name, State::Done, 1).await;
        sleep(LONG * 4).await;
        assert_eq!(bench.devices(), ["lamp"], "{dies}");
        let mut runs: Vec<_> =
            bench.runs(&name).await.into_iter().map(|((node, _), run)| (node, run.end)).collect();
        runs.sort_by_key(|(node, _)| *node != ME);
        assert_eq!(runs[0], (ME, String::new()));
        let given_up = (OTHER, "another node goes on with it".to_owned());
        assert_eq!(runs[1..], if dies { vec![] } else { vec![given_up] });
    }
}

/// A node whose run of before it was started anew waits for the time.
async fn without_time(program: Json) -> Bench {
    let mut bench = Bench::new().await;
    bench.make("x", program).await;
    bench.tell("bell", 1).await;
    bench.given(1).await;
    sleep(TICK).await;
    bench.node.dies().await;
    bench.clock(at("06:30:00"), false);
    bench.node = bench.engine(ME);
    bench
        .until("it knows the run", async || bench.find("x").await.is_some_and(|view| view.state == "held"))
        .await;
    sleep(SETTLE * 2).await;
    assert_eq!(bench.state("x").await, "held");
    bench
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_the_time_refuses_no_start_and_ends_with_it() {
    for mode in ["single", "restart"] {
        let mut program = on_bell(json!([command("lamp"), {"delay": "10m"}, command("desk")]));
        program["mode"] = json!(mode);
        let bench = without_time(program).await;
        bench.tell("bell", 1).await;
        bench.given(2).await;
        bench.ends("x", State::Stopped, 1).await;
        let runs = bench.runs("x").await;
        let old = runs.values().find(|run| run.state == State::Stopped).unwrap();
        assert_eq!(old.end, "it was started again before it could go on");
        assert_eq!(bench.state("x").await, "running");
        bench.clock(at("06:40:00"), true);
        sleep(LONG * 30).await;
        bench.ends("x", State::Done, 1).await;
        assert_eq!(bench.devices(), ["lamp", "lamp", "desk"], "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_the_time_goes_on_then_where_several_may_run() {
    for mode in ["queued", "parallel"] {
        let program = on_bell(json!([command("lamp"), {"delay": "1m"}, command("desk")]));
        let bench = without_time(with_mode(program, mode, 1)).await;
        bench.tell("bell", 1).await;
        bench.given(2).await;
        bench.tell("bell", 1).await;
        bench.ends("x", State::Refused, 1).await;
        bench.clock(at("06:40:00"), true);
        let running = async || bench.count("x", State::Running).await;
        bench
            .until("both are open", async || running().await + bench.count("x", State::Queued).await == 2)
            .await;
        sleep(SETTLE * 2).await;
        // Its delay is over long since.
        assert_eq!(bench.count("x", State::Done).await, usize::from(mode == "parallel"), "one after another");
        bench.ends("x", State::Done, 2).await;
        assert_eq!(bench.devices(), ["lamp", "lamp", "desk", "desk"], "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_is_called_after_another_while_an_older_one_waits_for_the_time() {
    let program = on_bell(json!([command("lamp"), {"delay": "10s"}, command("desk")]));
    let bench = without_time(with_mode(program, "queued", 3)).await;
    bench.tell("bell", 2).await;
    bench.ends("x", State::Done, 2).await;
    assert_eq!(bench.devices(), ["lamp", "lamp", "desk", "lamp", "desk"]);
    bench.clock(at("06:40:00"), true);
    bench.ends("x", State::Done, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_node_that_is_gone_refuses_no_start_before_the_time_is_known() {
    let (name, bench, mut other) = Bench::of_two().await;
    bench.make(&name, on_bell(json!([{"delay": "1m"}, command("lamp")]))).await;
    sleep(LONG).await;
    bench.tell("bell", 1).await;
    bench.until("it runs", async || bench.count(&name, State::Running).await == 1).await;
    bench.clock(at("06:30:00"), false);
    other.dies().await;
    bench.live(&[ME]);
    sleep(SETTLE * 2).await;
    bench.tell("bell", 1).await;
    bench.ends(&name, State::Done, 1).await;
    sleep(LONG * 4).await;
    assert_eq!(bench.devices(), ["lamp"]);
    let runs = bench.runs(&name).await;
    assert!(runs.keys().all(|(node, _)| *node == ME), "{runs:?}");
    assert!(runs.values().any(|run| run.end == "it was started again before it could go on"), "{runs:?}");
}
