//! Two nodes of one household, and what only one of them may do at a time: who does it, and who goes on with it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::daemon::{Daemon, PATIENCE, Plan, wait_until};

/// What a takeover may take, from the moment in which the owner is killed.
pub const TAKEOVER: Duration = Duration::from_secs(10);
/// How long one command may take to a device that answers.
const COMMAND_MS: u32 = 20_000;

/// Two nodes with the same configuration.
///
/// # Errors
/// When one does not start, or they do not find each other.
pub async fn two_nodes(config: &str) -> Result<(Daemon, Daemon)> {
    let one = Plan::new("one").config(config).start().await?;
    let two = one.joined_by(Plan::new("two").config(config)).await?;
    Ok((one, two))
}

/// Waits until both see the device online; the one that speaks to it, of so many that reach it, is the first.
///
/// # Errors
/// When that does not come to pass.
pub async fn owner_and_heir(
    one: Daemon,
    two: Daemon,
    device: &str,
    reached_by: usize,
) -> Result<(Daemon, Daemon)> {
    for node in [&one, &two] {
        online(node, device).await?;
        wait_until("it knows who reaches the device", PATIENCE, async || {
            Ok(reachers(&node.fields(device).await?).len() == reached_by)
        })
        .await?;
    }
    let owner = match reachers(&one.fields(device).await?).as_slice() {
        [only] => only.clone(),
        // Whoever owns a device writes what becomes of its commands. The owner may just be changing.
        _ => {
            obeys(&two, device).await?;
            obeys(&two, device).await?
        }
    };
    Ok(if one.id().await?.starts_with(&owner) { (one, two) } else { (two, one) })
}

/// The short ids of the nodes that reach a device.
fn reachers(fields: &Value) -> Vec<String> {
    let names = fields.as_object().into_iter().flat_map(|fields| fields.keys());
    names.filter_map(|name| name.strip_prefix("reach.")).map(str::to_owned).collect()
}

/// Waits until a node sees a device online.
///
/// # Errors
/// When it does not.
pub async fn online(node: &Daemon, device: &str) -> Result<()> {
    wait_until(&format!("{} sees {device} online", node.name()), PATIENCE, async || {
        Ok(node.fields(device).await?["availability"]["state"] == "online")
    })
    .await
}

/// Which node wrote a field of an object last, by its short id.
///
/// # Errors
/// When there is no such field.
pub async fn writer(node: &Daemon, object: &str, field: &str) -> Result<String> {
    let mut answer = node.client().get(&format!("/api/v1/objects/{object}")).await?.success()?;
    Ok(serde_json::from_value(answer["meta"][field]["by"].take())?)
}

/// Turns a device on or off; answers with the command as it ended.
///
/// # Errors
/// When the node refuses it or does not answer.
pub async fn turn(node: &Daemon, device: &str, on: bool, deadline_ms: u32) -> Result<Value> {
    let body = json!({"device": device, "change": {"on": on}, "deadline_ms": deadline_ms, "wait": true});
    node.client().send("POST", "/api/v1/commands", Some(&body)).await?.success()
}

/// Has a device turned on; answers with the short id of the node that did so.
///
/// # Errors
/// When it does not come on.
pub async fn obeys(node: &Daemon, device: &str) -> Result<String> {
    let ended = turn(node, device, true, COMMAND_MS).await?;
    ensure!(ended["state"] == "confirmed", "{ended}");
    let id = ended["id"].as_str().context("a command has an id")?;
    writer(node, &format!("command/{id}"), "life").await
}

/// Kills the owner of a device, and has the heir carry out commands.
///
/// # Errors
/// When none of them is confirmed within [`TAKEOVER`].
pub async fn takes_over(mut owner: Daemon, heir: &Daemon, device: &str) -> Result<()> {
    let who = obeys(heir, device).await?;
    ensure!(owner.id().await?.starts_with(&who), "{who} carries out commands, not {}", owner.name());
    let mut on = false;
    owner.kill().await?;
    wait_until("a command to the survivor is confirmed", TAKEOVER, async || {
        let ended = turn(heir, device, on, 2_000).await?;
        on = !on;
        ensure!(ended["state"] == "confirmed", "{ended}");
        Ok(true)
    })
    .await
}
