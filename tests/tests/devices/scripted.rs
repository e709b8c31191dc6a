//! An adapter that does what a test says: who owns a bulb, what becomes of commands, and what
//! becomes of both when something dies.

use std::{collections::BTreeMap, time::Duration};

use device_adapters::model::CommandId;
use hearth_tests::{daemon::PATIENCE, fakes::running::until};
use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use node::{
    api::ports::{Change, Color, CommandState, PortError, Power},
    devices::AdapterState,
    service::{FieldView, ObjectView, Op},
};
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::{
    bulb::Mood,
    home::{Home, Node, availability, brightness, field, life, power, reason},
};
use CommandState::{Accepted, Acknowledged, Confirmed, Sent, Superseded, TimedOut};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_one_node_is_carried_out_by_the_owner_and_seen_by_all() {
    let home = Home::new("far", 2).await;
    let owner = home.settled().await;
    let other = &home.nodes[1 - owner];
    let mut here = other.commands.life();
    let mut there = home.nodes[owner].commands.life();

    let command = other.submit(&home.device, power(Power::On)).await;
    assert_eq!((command.state, command.life.len()), (Accepted, 1));
    assert_eq!(command.deadline_ms, command.at_ms + 30_000);
    let seen = life(&mut here, &command.id).await;
    assert_eq!((seen.first(), seen.last()), (Some(&Accepted), Some(&Confirmed)));
    assert!(seen.is_sorted());
    assert_eq!(life(&mut there, &command.id).await, [Accepted, Sent, Acknowledged, Confirmed]);
    assert!(home.bulb.state().on);
    let told: Vec<_> = home.bulb.log().iter().map(|(node, id, _)| (*node, id.to_string())).collect();
    assert_eq!(told, [(owner as u64 + 1, command.id.clone())], "the owner alone tells the bulb, once");
    assert_eq!(home.bulb.givers(), ["user:ann"], "its adapter hears who gave it");
    for node in &home.nodes {
        let whole = node.ended(&command.id).await;
        assert_eq!(
            whole.life.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
            [Accepted, Sent, Acknowledged, Confirmed]
        );
        let view = node
            .until(&home.device, "the report", |view| {
                field(view, "reported").is_some_and(|reported| {
                    reported.get("command").and_then(|id| id.as_text()) == Some(&command.id)
                })
            })
            .await;
        let reported = field(&view, "reported").unwrap();
        assert_eq!(reported.get("value").unwrap().get("on"), Some(&mesh_proto::Value::Bool(true)));
        assert_eq!(field(&view, "model").unwrap().as_text(), Some("Acme One"));
        assert_eq!(field(&view, "label").unwrap().as_text(), Some("desk"));
    }

    let off = other.submit(&home.device, power(Power::Toggle)).await;
    assert_eq!(other.ended(&off.id).await.state, Confirmed);
    assert!(!home.bulb.state().on, "a toggle becomes off when the bulb is on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_command_on_every_node() {
    let home = Home::new("key", 2).await;
    home.settled().await;
    let [one, two] = &home.nodes[..] else { panic!() };
    let toggle = || power(Power::Toggle);
    let first = one.try_submit(&home.device, toggle(), 30_000, Some("k")).await.unwrap();
    for node in [one, two] {
        assert_eq!(node.ended(&first.id).await.state, Confirmed);
    }
    for node in [one, two] {
        let again = node.try_submit(&home.device, toggle(), 30_000, Some("k")).await.unwrap();
        assert_eq!(again.id, first.id);
        let other = node.try_submit(&home.device, power(Power::Off), 30_000, Some("k")).await;
        assert!(matches!(other, Err(PortError::Conflict { .. })), "{other:?}");
    }
    let (a, b) = tokio::join!(
        one.try_submit(&home.device, brightness(7), 30_000, Some("both")),
        one.try_submit(&home.device, brightness(7), 30_000, Some("both")),
    );
    assert_eq!(a.unwrap().id, b.unwrap().id);
    assert!(home.bulb.state().on);
    let toggles = home.bulb.log().iter().filter(|(_, _, change)| change.on == Some(true)).count();
    assert_eq!(toggles, 1, "a repeated toggle toggles once: {:?}", home.bulb.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_owner_dies_another_takes_the_bulb_and_its_open_command() {
    let mut home = Home::new("heir", 2).await;
    let owner = home.settled().await;
    home.bulb.set(Mood::Deaf);
    let dead = home.nodes.remove(owner);
    let command = home.nodes[0].submit(&home.device, brightness(1_000)).await;
    until(|| !home.bulb.log().is_empty()).await;
    drop(dead);
    home.bulb.set(Mood::Willing);
    let ended = home.nodes[0].ended(&command.id).await;
    assert_eq!(ended.state, Confirmed, "{ended:?}");
    assert_eq!(home.bulb.state().brightness, 1_000);
    let told: Vec<u64> = home.bulb.log().iter().map(|(node, ..)| *node).collect();
    assert_eq!(told, [owner as u64 + 1, 2 - owner as u64]);
    assert_eq!(home.bulb.givers(), ["user:ann"; 2], "whoever goes on with it knows who gave it");
    // What the dead owner said stands if it was flushed; else it went with it, and the survivor
    // says it again.
    home.nodes[0]
        .until(&home.device, "online, and by no overlay of the dead", |view| {
            let name = mesh_proto::FieldName::new("availability").unwrap();
            let stands = |field: &FieldView| field.durable || field.by == home.nodes[0].me.to_string();
            availability(view) == "online" && view.fields.get(&name).is_some_and(stands)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_gives_its_bulb_away() {
    let mut home = Home::new("leave", 2).await;
    let owner = home.settled().await;
    home.nodes[owner].stop_devices().await;
    let command = home.nodes[1 - owner].submit(&home.device, power(Power::On)).await;
    assert_eq!(home.nodes[1 - owner].ended(&command.id).await.state, Confirmed);
    assert_eq!(home.bulb.log().last().unwrap().0, 2 - owner as u64);
    let refused = home.nodes[owner].try_submit(&home.device, power(Power::On), 5_000, None).await;
    assert_eq!(refused, Err(PortError::Stopping));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_panics_is_started_again_and_its_command_is_not_lost() {
    let home = Home::new("panic", 1).await;
    home.settled().await;
    let node = &home.nodes[0];
    home.bulb.set(Mood::Explosive);
    let command = node.submit(&home.device, power(Power::On)).await;
    let stale = node.until(&home.device, "stale", |view| availability(view) == "stale").await;
    assert!(reason(&stale).contains("the bulb exploded"), "{}", reason(&stale));
    // It may have been started again by now, and again explode.
    let mut adapters = node.devices.adapters.clone();
    let failed = adapters.wait_for(|all| all[0].state == AdapterState::Failed).await.unwrap().clone();
    assert_eq!(failed[0].id.as_str(), "bulb");
    assert!(failed[0].reason.as_ref().unwrap().contains("exploded"));
    let beats = node.beats();
    home.bulb.set(Mood::Willing);
    assert_eq!(node.ended(&command.id).await.state, Confirmed);
    assert!(node.beats() > beats, "the task went on");
    node.until(&home.device, "online", |view| availability(view) == "online").await;
    let running = node.devices.adapters.borrow().clone();
    assert_eq!(running[0].state, AdapterState::Running);
    assert!(running[0].restarts >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_hangs_leaves_its_bulb_stale_and_is_started_again_while_the_node_goes_on() {
    let home = Home::new("stuck", 1).await;
    home.settled().await;
    let node = &home.nodes[0];
    home.bulb.set(Mood::Stuck);
    let command = node.submit_within(&home.device, power(Power::On), 120_000).await;
    until(|| home.bulb.log().len() == 1).await;
    home.bulb.set(Mood::Willing); // whoever hangs does not hear of it
    let beats = node.beats();
    let stale = node.until(&home.device, "stale", |view| availability(view) == "stale").await;
    assert!(reason(&stale).contains("it hung"), "{}", reason(&stale));
    assert!(node.beats() > beats, "the node went on meanwhile");
    assert_eq!(node.ended(&command.id).await.state, Confirmed, "whoever came after it carried it out");
    node.until(&home.device, "online", |view| availability(view) == "online").await;
    let running = node.devices.adapters.borrow().clone();
    assert_eq!((running[0].state, running[0].restarts), (AdapterState::Running, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_commands_in_a_row_the_last_stands_and_no_report_goes_back() {
    let home = Home::new("slider", 2).await;
    let owner = home.settled().await;
    let node = &home.nodes[1 - owner];
    let watching = node.service.watch(vec![home.device.as_str().to_owned()], None).await.unwrap();
    let mut ids = vec![node.submit(&home.device, power(Power::On)).await.id];
    for step in 1..=60_u16 {
        ids.push(node.submit(&home.device, brightness(step * 1_000)).await.id);
    }
    for id in &ids {
        let command = node.ended(id).await;
        let fits = [Confirmed, Superseded].contains(&command.state);
        assert!(fits && (command.state == Confirmed || command.reason.is_some()), "{command:?}");
    }
    assert_eq!(node.ended(ids.last().unwrap()).await.state, Confirmed);
    assert_eq!((home.bulb.state().brightness, home.bulb.state().on), (60_000, true));
    let mut newest = 0;
    loop {
        let changes = node.service.next_changes(watching.watcher).await.unwrap();
        let reported = changes.changes.into_iter().filter_map(|change| change.object);
        for view in reported.filter_map(|view| field(&view, "reported").cloned()) {
            let Some(id) = view.get("command").and_then(|id| id.as_text()) else { continue };
            let at = ids.iter().position(|known| known == id).unwrap();
            assert!(at >= newest, "a report of command {at} after one of {newest}");
            newest = at;
        }
        if newest + 1 == ids.len() {
            return;
        }
    }
}

fn on_object(command: &str) -> mesh_proto::ObjectId {
    mesh_proto::ObjectId::new(&format!("command/{command}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_command_keeps_what_an_open_one_asked_for() {
    let home = Home::new("merge", 2).await;
    let owner = home.settled().await;
    home.bulb.set(Mood::Deaf);
    let [one, two] = &home.nodes[..] else { panic!() };
    let on = one.submit(&home.device, power(Power::On)).await;
    two.until(&home.device, "the first command", |view| {
        field(view, "desired")
            .is_some_and(|desired| desired.get("command").and_then(|id| id.as_text()) == Some(&on.id))
    })
    .await;
    // A bulb that is willing before the first command has come to it would carry it out.
    home.nodes[owner]
        .until(&on_object(&on.id), "the first command at the bulb", |view| {
            field(view, "life").is_some_and(|life| format!("{life:?}").contains("acknowledged"))
        })
        .await;
    home.bulb.set(Mood::Willing);
    let dim = two.submit(&home.device, brightness(9)).await;
    assert_eq!(one.ended(&dim.id).await.state, Confirmed);
    assert_eq!((home.bulb.state().on, home.bulb.state().brightness), (true, 9));
    for node in &home.nodes {
        assert_eq!(node.ended(&on.id).await.state, Superseded, "node {owner} owns it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulb_that_acknowledges_and_ignores_ends_timed_out() {
    let home = Home::new("deaf", 2).await;
    let owner = home.settled().await;
    home.bulb.set(Mood::Deaf);
    let node = &home.nodes[1 - owner];
    let command = node.submit_within(&home.device, power(Power::On), 10_000).await;
    let ended = node.ended(&command.id).await;
    assert_eq!(
        ended.life.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
        [Accepted, Sent, Acknowledged, TimedOut]
    );
    assert!(ended.reason.unwrap().contains("does not show"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulb_that_nobody_reaches_is_offline_and_comes_back() {
    let home = Home::new("gone", 2).await;
    home.settled().await;
    home.bulb.set(Mood::Gone);
    for node in &home.nodes {
        let view = node
            .until(&home.device, "offline and unreached", |view| {
                let reached =
                    home.nodes.iter().any(|node| field(view, &format!("reach.{}", node.me)).is_some());
                availability(view) == "offline" && !reached
            })
            .await;
        assert_eq!(reason(&view), "no answer");
    }
    let command = home.nodes[0].submit_within(&home.device, power(Power::On), 100).await;
    let ended = home.nodes[1].ended(&command.id).await;
    assert_eq!((ended.state, ended.reason.as_deref()), (TimedOut, Some("no node reaches the device")));
    home.bulb.set(Mood::Willing);
    home.settled().await;
    // The one after it has come to the bulb; the one before never did.
    let later = home.nodes[0].submit(&home.device, brightness(9)).await;
    assert_eq!(home.nodes[1].ended(&later.id).await.state, Confirmed);
    assert!(home.bulb.log().iter().all(|(_, id, _)| id.to_string() != command.id), "carried out late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulb_whose_only_node_died_is_offline_and_the_node_is_called_by_its_name() {
    let bulb_of = |number| if number == 1 { "wired" } else { "wired-elsewhere" };
    let mut home = Home::with("wired", 2, |number| json!({"bulb": bulb_of(number), "node": number})).await;
    let [wired, other] = &home.nodes[..] else { panic!() };
    let object = mesh_proto::ObjectId::new(&format!("node/{}", wired.me)).unwrap();
    let name = mesh_proto::FieldName::new("name").unwrap();
    let op = node::service::Op::Set(object.clone(), name.clone(), "kitchen".into());
    wired.service.write(mesh_proto::kinds::Author::Client, vec![op]).await.unwrap();
    other.until(&object, "the name of the node", |view| view.fields.contains_key(&name)).await;
    // What was not flushed would go with its writer, and with it all that is known of the bulb.
    let lasting = ["adapter", "availability"].map(|name| mesh_proto::FieldName::new(name).unwrap());
    let flushed = |view: &ObjectView| {
        lasting.iter().all(|name| view.fields.get(name).is_some_and(|field| field.durable))
    };
    other
        .until(&home.device, "the bulb, flushed", |view| availability(view) == "online" && flushed(view))
        .await;
    drop(home.nodes.remove(0));
    let view = home.nodes[0].until(&home.device, "offline", |view| availability(view) == "offline").await;
    assert_eq!(reason(&view), "node kitchen is down, and no other node reaches it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_describes_a_bulb_is_written_once() {
    let home = Home::new("once", 1).await;
    home.settled().await;
    let node = &home.nodes[0];
    let at = |view: &ObjectView| {
        let label = mesh_proto::FieldName::new("label").unwrap();
        (view.fields[&label].at_ms, view.fields[&label].durable)
    };
    let first = at(&node.until(&home.device, "flushed", |view| at(view).1).await);
    home.bulb.set(Mood::Gone);
    node.until(&home.device, "offline", |view| availability(view) == "offline").await;
    home.bulb.set(Mood::Willing);
    home.settled().await;
    let again = node.service.get(home.device.clone()).await.unwrap().unwrap();
    assert_eq!(at(&again), first, "found again, it is as it was: nothing to write");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_way_out() {
    let home = Home::new("refuse", 1).await;
    home.settled().await;
    let node = &home.nodes[0];
    let missing = mesh_proto::ObjectId::new("device/bulb-none").unwrap();
    let refused = node.try_submit(&missing, power(Power::On), 5_000, None).await;
    assert_eq!(refused, Err(PortError::NotFound("device/bulb-none".to_owned())));
    let red = Change { color: Some(Color::Xy(42_000, 21_000)), ..Change::default() };
    for (change, deadline, what) in [
        (red, 5_000, "no colours"),
        (Change::default(), 5_000, "empty"),
        (power(Power::On), 0, "deadline"),
        (power(Power::On), 600_001, "deadline"),
    ] {
        let refused = node.try_submit(&home.device, change, deadline, None).await;
        assert!(
            matches!(&refused, Err(PortError::Invalid { detail, .. }) if detail.contains(what)),
            "{refused:?}"
        );
    }
    assert!(node.commands.get("nonsense".to_owned()).await.is_err());
    assert_eq!(node.commands.get("0".repeat(32)).await, Ok(None));
    assert!(home.bulb.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_leave_an_adapter_off_and_the_node_on() {
    let mut home = Home::with("off", 1, |_| json!({"bulb": 7})).await;
    let node = &mut home.nodes[0];
    let status = node.devices.adapters.wait_for(|all| !all.is_empty()).await.unwrap()[0].clone();
    assert_eq!((status.state, status.restarts), (AdapterState::Refused, 0));
    assert!(status.reason.unwrap().contains("must be a name"));
    let refused = node.try_submit(&home.device, power(Power::On), 5_000, None).await;
    assert!(matches!(refused, Err(PortError::NotFound(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_how_many_objects_the_others_hold() {
    let home = Home::new("count", 2).await;
    home.settled().await;
    let telling: Vec<_> = home
        .nodes
        .iter()
        .map(|node| tokio::spawn(node::daemon::presence::tell_status(node.service.clone(), node.me)))
        .collect();
    let [one, two] = &home.nodes[..] else { panic!() };
    for [one, two] in [[one, two], [two, one]] {
        shows_how_many_objects_the_other_holds(one, two).await;
    }
    telling.iter().for_each(|task| task.abort());
}

async fn shows_how_many_objects_the_other_holds(one: &Node, two: &Node) {
    let deadline = Instant::now() + PATIENCE;
    let mut pace = interval(Duration::from_millis(50));
    let mut others = 0;
    loop {
        let (here, there) = (one.service.status().await.unwrap(), two.service.status().await.unwrap());
        let row = |name: &str| here.nodes.iter().find(|node| node.state == name).unwrap();
        assert_eq!(row("self").objects, Some(here.objects));
        if row("alive").objects == Some(there.objects) {
            others += 1;
            if others == 2 {
                break;
            }
            // It follows what changes.
            let note = mesh_proto::ObjectId::new(&format!("note/by-{}", two.me)).unwrap();
            let field = mesh_proto::FieldName::new("text").unwrap();
            let op = node::service::Op::Set(note, field, "milk".into());
            two.service.write(mesh_proto::kinds::Author::Client, vec![op]).await.unwrap();
            assert!(two.service.status().await.unwrap().objects > there.objects);
        }
        assert!(Instant::now() < deadline, "{here:#?}");
        pace.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_of_which_only_the_wish_is_left_is_not_pressed() {
    let home = Home::new("pressed", 1).await;
    home.settled().await;
    let node = &home.nodes[0];
    let write = async |object: ObjectId, field: &str, value: Value| {
        let op = Op::Set(object, FieldName::new(field).unwrap(), value);
        node.service.write(Author::Node, vec![op]).await.unwrap();
    };
    let first = node.submit(&home.device, power(Power::On)).await;
    assert_eq!(node.ended(&first.id).await.state, Confirmed);
    let view = node.until(&home.device, "what was asked", |view| field(view, "desired").is_some()).await;
    let Some(Value::Map(desired)) = field(&view, "desired").cloned() else { panic!("{view:?}") };
    let Some(at) = desired.get("at").and_then(Value::as_int) else { panic!("{desired:?}") };
    let press = Value::Map([("kind".into(), Value::Text("press".into()))].into());
    let (changed, until) = (("change".into(), press), ("deadline_ms".into(), Value::Int(at + 600_000)));
    let wish = |id: CommandId| {
        let mut wish = desired.clone();
        let command = ("command".into(), Value::Text(id.to_string().as_str().into()));
        wish.extend([command, changed.clone(), until.clone()]);
        Value::Map(wish)
    };
    // As the disk of a node that was started anew holds it: what became of the command was in memory.
    let (forgotten, known) = (CommandId([1; 16]), CommandId([2; 16]));
    write(home.device.clone(), "desired", wish(forgotten)).await;
    // Told after it: by then the node has seen the wish.
    let after = node.submit(&home.device, power(Power::Off)).await;
    assert_eq!(node.ended(&after.id).await.state, Confirmed);
    assert_eq!(home.bulb.presses(), []);
    // One whose command is heard after the wish is pressed, once.
    write(home.device.clone(), "desired", wish(known)).await;
    let request = Value::Map(BTreeMap::from([
        ("device".into(), Value::Text(home.device.as_str().into())),
        ("at".into(), Value::Int(at)),
        ("hash".into(), Value::Bytes([7; 32].as_slice().into())),
        ("by".into(), Value::Text(node.me.to_string().as_str().into())),
        changed.clone(),
        until.clone(),
    ]));
    write(ObjectId::new(&format!("command/{known}")).unwrap(), "request", request).await;
    assert_eq!(node.ended(&known.to_string()).await.state, CommandState::Assumed);
    assert_eq!(home.bulb.presses(), [known]);
}
