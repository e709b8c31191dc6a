//! Who goes on with a run where clocks were wrong, or nobody knows the time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_run_that_was_begun_by_a_clock_hours_ahead_has_one_node_that_goes_on_with_it() {
    for dies in [true, false] {
        let name = Bench::won_by(OTHER);
        let bench = Bench::with(&[OTHER]).await;
        bench.live(&BOTH);
        let mut other = bench.engine(OTHER);
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
