//! The cleaning cycle of a bulb with light that kills germs (HEV): a switch that is on while a cycle runs.
//!
//! Source: <https://lan.developer.lifx.com/docs/information-messages>, "StateHevCycle" and "StateLastHevCycleResult".

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Capabilities, Change, Measurement, SensorDescription, Sensors, State};

use super::face::{Face, Set, Shown};
use super::identity::Identity;
use super::pending::Pending;
use super::wire::{Reply, Request};

/// The key of the sensor that tells how long the cycle still runs.
const REMAINING: &str = "remaining";
/// The key of the one that tells how the last cycle ended.
const LAST_RESULT: &str = "last_result";

/// The cleaning cycle.
#[derive(Debug)]
pub(crate) struct Cleaning {
    /// How long a cycle is; zero is as the bulb is set.
    length: Duration,
    /// How many seconds it still runs, and when that was asked; of the read that goes on.
    remaining: Option<(Instant, u32)>,
    last_result: Option<Measurement>,
}

impl Cleaning {
    /// Nothing was read; a cycle that is begun here is so long, zero is as the bulb is set.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, remaining: None, last_result: None }
    }

    /// All that is known once the bulb told whether a cycle runs. How the last one ended may be told after it.
    fn shown(&self) -> Option<Shown> {
        let (asked, remaining_s) = self.remaining?;
        let not_told = || Measurement::Unknown("the bulb has not told it yet".to_owned());
        let measured = BTreeMap::from([
            (REMAINING.to_owned(), Measurement::Number(remaining_s.into())),
            (LAST_RESULT.to_owned(), self.last_result.clone().unwrap_or_else(not_told)),
        ]);
        Some(Shown { asked, state: State::Switch { on: remaining_s > 0 }, measured })
    }
}

impl Face for Cleaning {
    fn capabilities(&self, _: &Identity) -> Option<(Capabilities, Option<String>)> {
        Some((Capabilities::Switch, None))
    }

    fn sensors(&self) -> Sensors {
        let remaining = SensorDescription::numeric("Time remaining", Some("duration"), "s", 0);
        let last_result = SensorDescription::text("Last result", None).diagnostic();
        Sensors::from([(REMAINING.to_owned(), remaining), (LAST_RESULT.to_owned(), last_result)])
    }

    fn questions(&mut self, _: Instant, _: &Identity) -> Vec<Request> {
        self.remaining = None;
        vec![Request::GetLastHevCycleResult, Request::GetHevCycle]
    }

    fn read(&mut self, pending: &Pending, reply: &Reply, _: &Identity) -> Option<Shown> {
        match reply {
            Reply::StateHevCycle { remaining_s } => self.remaining = Some((pending.at, *remaining_s)),
            Reply::StateLastHevCycleResult(number) => self.last_result = Some(result(*number)),
            Reply::StateUnhandled(_) if pending.request == Request::GetLastHevCycleResult => {
                self.last_result = Some(Measurement::Unknown("the bulb does not tell it".to_owned()));
            }
            _ => return None,
        }
        self.shown()
    }

    fn clear(&mut self) {
        self.remaining = None;
    }

    fn plan(&mut self, _: Instant, wanted: &Change, _: &Identity) -> Option<Vec<Set>> {
        let on = wanted.on()?;
        let seconds = u32::try_from(self.length.as_secs()).unwrap_or(u32::MAX);
        Some(vec![Set::required(Request::SetHevCycle(on, if on { seconds } else { 0 }))])
    }
}

/// How a cycle ended, by the numbers of <https://lan.developer.lifx.com/docs/field-types>.
fn result(number: u8) -> Measurement {
    let word = match number {
        0 => "success",
        1 => "busy",
        2 => "interrupted by a reset",
        3 => "interrupted by HomeKit",
        4 => "interrupted over the LAN",
        5 => "interrupted by the cloud",
        255 => "none",
        other => {
            return Measurement::Unknown(format!("the bulb told the result {other}, which nobody documents"));
        }
    };
    Measurement::Text(word.to_owned())
}
