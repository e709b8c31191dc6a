//! Orders in whose midst the node is killed: what the next start makes of them.

use super::*;

impl Node {
    /// Begins an order, and is killed after the request of this number, whose answer never comes.
    async fn killed_at(&mut self, request: usize) {
        let ca = self.ca();
        ca.kill_at(request, true);
        let mut engine = self.open().await;
        tokio::select! {
            look = engine.look(at(NOW)) => panic!("{look:?}: it was to be killed"),
            () = ca.killed() => {}
        }
    }
}

/// Every request of an order is once the last that the node makes, and once the last whose answer never comes.
#[tokio::test(start_paused = true)]
async fn a_node_killed_at_any_step_goes_on_by_the_orders_url() {
    for is_heard in [false, true] {
        for last in 1.. {
            let mut node = Node::new(&["a.example.org", "b.example.org"]);
            let ca = node.ca();
            ca.set(|state| state.window = Some((NOW + 50 * DAY, NOW + 52 * DAY)));
            ca.kill_at(last, is_heard);
            let mut engine = node.open().await;
            let survives = tokio::select! {
                _ = engine.look(at(NOW)) => true,
                () = ca.killed() => false,
            };
            drop(engine);
            let mut engine = node.open().await;
            let mut now = NOW + 60;
            for _ in 0..4 {
                let look = engine.look(at(now)).await;
                if node.report().until.is_some() {
                    break;
                }
                now = look.next;
            }
            let place = format!("request {last}, heard: {is_heard}: {:?}", node.report());
            assert!(node.report().until.is_some(), "{place}");
            assert!(node.shelf.is_empty(), "{place}");
            let (accounts, orders, issued) =
                ca.get(|state| (state.accounts.len(), state.orders.len(), state.issued));
            assert_eq!((accounts, issued), (1, 1), "{place}");
            assert!(orders <= 2, "{place}: {orders} orders");
            assert_eq!(node.report().failures, 0, "{place}");
            let left: Vec<_> = std::fs::read_dir(node.folder.path().join("acme")).unwrap().collect();
            assert!(left.iter().all(|entry| entry.as_ref().unwrap().file_name() != "order"), "{place}");
            if survives {
                assert!(last > 15, "only {last} requests");
                break;
            }
        }
    }
}

/// The authority looks some requests after it was told to, and the node is killed at each of the requests of an order.
#[tokio::test(start_paused = true)]
async fn a_proof_stands_until_the_authority_has_looked_whoever_is_killed_meanwhile() {
    for (holds_many, looks_after, last) in [false, true]
        .into_iter()
        .flat_map(|many| [1, 3, 4, 5].map(|after| (many, after)))
        .flat_map(|(many, after)| (7..=12).map(move |last| (many, after, last)))
    {
        let mut node = Node::new(&["a.example.org", "b.example.org"]);
        node.hold(holds_many);
        let ca = node.ca();
        ca.set(|state| state.looks_after = looks_after);
        node.killed_at(last).await;
        let look = node.open().await.look(at(NOW + 60)).await;
        let place = format!("{holds_many} {looks_after} {last}: {:?}", node.report());
        assert_eq!(look.did, Did::Renewed, "{place}");
        let (failed, orders) = ca.get(|state| (state.failed, state.orders.len()));
        assert_eq!((failed, orders), (0, 1), "{place}");
        assert!(node.shelf.is_empty(), "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_died_while_the_node_was_away_leaves_no_proof_behind() {
    for status in ["invalid", "expired"] {
        let mut node = Node::new(&["a.example.org"]);
        let ca = node.ca();
        ca.set(|state| state.looks_after = 99);
        // The authority was told to look.
        node.killed_at(8).await;
        assert_eq!((ca.get(|state| state.stood.clone()), node.shelf.is_empty()), (vec![1], false));
        ca.turn(status);
        ca.set(|state| state.looks_after = 0);
        let mut engine = node.open().await;
        engine.look(at(NOW + 60)).await;
        assert!(node.shelf.is_empty(), "{status}: {:?}", node.report());
    }
}

#[tokio::test(start_paused = true)]
async fn other_settings_order_anew_and_an_order_for_the_old_ones_is_dropped() {
    let mut node = Node::new(&["a.example.org"]);
    node.killed_at(8).await;
    node.config = config(&["b.example.org"]);
    let mut engine = node.open().await;
    assert_eq!(engine.look(at(NOW)).await.did, Did::Renewed, "{:?}", node.report());
    assert!(node.shelf.is_empty());
    node.config = config(&["b.example.org", "c.example.org"]);
    let mut engine = node.open().await;
    assert_eq!(node.served.lock().unwrap().last().unwrap().1.len(), 1, "the old one is served meanwhile");
    assert_eq!(engine.look(at(NOW + 1)).await.did, Did::Renewed);
    assert_eq!(node.served.lock().unwrap().last().unwrap().1.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_has_expired_is_no_failure_and_a_new_order_is_made() {
    for status in ["expired", "deactivated", "revoked"] {
        let mut node = Node::new(&["a.example.org", "b.example.org"]);
        let ca = node.ca();
        // The order is made and looked at, and nothing of it is proven.
        node.killed_at(7).await;
        assert_eq!(ca.get(|state| state.orders.len()), 1);
        ca.turn(status);
        let mut engine = node.open().await;
        assert_eq!(engine.look(at(NOW)).await.did, Did::Renewed, "{status}: {:?}", node.report());
        assert_eq!(ca.get(|state| state.orders.len()), 2, "{status}");
        assert!(engine.tries.counted.failed.is_empty(), "{status}");
        assert!(node.shelf.is_empty(), "{status}");
    }
}
