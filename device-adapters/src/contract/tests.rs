//! The live check against plugs in memory: one that keeps every rule, and for each rule some that break it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plug;
mod socket;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use self::plug::{Flaw, PLUG};
use self::socket::Socket;

/// What the check says of a plug.
async fn judged(flaw: Option<Flaw>) -> Result<(), String> {
    let mut socket = Socket::new(flaw);
    super::live(&PLUG, &json!({}), &mut socket).await
}

async fn refused(flaw: Flaw, words: &str) {
    let why = judged(Some(flaw)).await.expect_err(&format!("{flaw:?} was taken"));
    assert!(why.contains(words), "{flaw:?} was refused with {why:?}, and not with {words:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_every_rule_is_taken() {
    judged(None).await.unwrap();
    judged(Some(Flaw::MeasuresFirst)).await.unwrap();
    judged(Some(Flaw::EndsInSilence)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_device_ignores_must_time_out() {
    refused(
        Flaw::TrustsAcknowledgements,
        "ignored commands: Switch { on: true }, which the device ignored, ended as Confirmed",
    )
    .await;
    refused(Flaw::FailsEarly, "which the device ignored, ended as Failed").await;
    refused(Flaw::NeverGivesUp, "ignored commands: waited for the end of a command").await;
    refused(Flaw::GivesUpWithoutWords, "which does not say why").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_ignore_says_why() {
    let mut socket = Socket::new(None).that_cannot_ignore("a lever in a wall");
    super::live(&PLUG, &json!({}), &mut socket).await.unwrap();
    let mut socket = Socket::new(None).that_cannot_ignore(" ");
    let why = super::live(&PLUG, &json!({}), &mut socket).await.unwrap_err();
    assert!(why.contains("does not say why it cannot ignore"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_fault_counts_whenever_it_is_told() {
    refused(Flaw::MeasuresNonsenseWhenWrong, "wrong messages: message 0: it measured power as Number(NaN)")
        .await;
    refused(Flaw::EndsTwiceAtItsStop, "shutdown: command").await;
    refused(Flaw::MeasuresNonsenseAtItsEnd, "offline: it measured power as Number(NaN)").await;
}

#[tokio::test(start_paused = true)]
async fn only_one_that_is_told_online_is_back() {
    refused(Flaw::ComesBackUntold, "recovery: waited for that the device is back in vain").await;
    refused(Flaw::ComesBackAsAnother, "the availability of plug-2, which this node does not own").await;
    refused(Flaw::ComesBackTooSoon, "recovery: it says that the device is online, which is still silent")
        .await;
    refused(Flaw::NeverMissesIt, "offline: waited for that the device is gone in vain").await;
    refused(Flaw::MissesItWithoutWords, "the device is Offline, and does not say why").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_owned_is_left_alone() {
    let before = "before it is owned: the device was polled or changed";
    refused(Flaw::PollsAtOnce, before).await;
    refused(Flaw::RefreshesForAll, before).await;
    refused(Flaw::CommandsForAll, before).await;
    refused(Flaw::TellsAtOnce, "before it is owned: it tells the state of plug-1").await;
    refused(Flaw::ObeysAll, "a command to a device of another node ended as Confirmed").await;
    refused(Flaw::NeverLetsGo, "a device of another node: the device was polled or changed").await;
}

#[tokio::test(start_paused = true)]
async fn the_pace_counts_all_the_time() {
    refused(Flaw::HurriesCommands, "a slider: the device was asked").await;
    refused(Flaw::HurriesInSilence, "pace: the device was asked").await;
    refused(Flaw::HurriesWhenWrong, "pace: the device was asked").await;
    refused(Flaw::HurriesToItsEnd, "recovery: the device was asked").await;
}

#[tokio::test(start_paused = true)]
async fn no_run_ends_without_a_reason() {
    let unsaid = "it ended by itself, and does not say why";
    refused(Flaw::ReturnsInSilence, &format!("offline: {unsaid}")).await;
    refused(Flaw::EndsInSilenceWithoutWords, &format!("offline: {unsaid}")).await;
    refused(Flaw::ReturnsWhenWrong, &format!("wrong messages: message 0: {unsaid}")).await;
    refused(Flaw::PanicsWhenWrong, "wrong messages: message 0: it panicked").await;
    refused(Flaw::FallsSilentItself, "it says no more, and did not end").await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_run_is_told_at_once_with_its_reason() {
    let began = Instant::now();
    refused(Flaw::EndsForGood, "recovery: it ended by itself: plug: the fuse is gone").await;
    // A minute is what a device may take that is only slow.
    assert!(began.elapsed() < Duration::from_secs(45), "after {:?}", began.elapsed());
    let began = Instant::now();
    refused(Flaw::EndsOnceOwned, "first report: it ended by itself: plug: the fuse is gone").await;
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_to_own_it_is_told_all_of_it() {
    refused(Flaw::NeverReports, "first report: waited for its state in vain").await;
    refused(Flaw::NeverMeasures, "first report: waited for its power, its voltage in vain").await;
    refused(Flaw::ForgetsASensor, "first report: waited for its voltage in vain").await;
    refused(Flaw::NamesNoSensor, "it measured \"weight\", which its description does not name").await;
    refused(Flaw::IsALight, "of a switch").await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_in_time() {
    refused(Flaw::StopsLate, "shutdown: it did not stop within").await;
}
