//! What becomes of a board when a request to it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{Availability, DeviceId, Stage};

use super::{Board, Fault, LOCKED_PAUSE, Need};

/// Requests in vain after which a board is offline.
pub(super) const MOST_FAILURES: u32 = 3;
/// The first wait after a request in vain; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The first and the last wait while a command waits for the board.
const FIRST_HURRY: Duration = Duration::from_millis(250);
const LAST_HURRY: Duration = Duration::from_secs(2);

impl Board {
    pub(super) fn fault(&mut self, now: Instant, fault: Fault) {
        match fault {
            Fault::Failed(why) => self.failed(now, &why),
            Fault::Other(other) => self.displaced(now, &other),
            Fault::Rejected(why) => {
                self.heard(now);
                self.read_at = now + self.timing.poll;
                let commands = self.units.values_mut().filter_map(|unit| unit.command.as_mut());
                for command in commands.filter(|command| command.need().1 == Need::ReadBack) {
                    command.refused(now, &why);
                }
                self.offline(&why);
            }
            Fault::Locked(why) => {
                self.heard(now);
                self.locked = true;
                self.read_at = now + self.timing.poll.max(LOCKED_PAUSE);
                self.offline(&why);
                for unit in self.units.values_mut() {
                    unit.end(Stage::Failed { reason: why.clone() }, &mut self.out);
                }
            }
        }
    }

    /// Nothing good came.
    fn failed(&mut self, now: Instant, why: &str) {
        self.place.doubt();
        self.ask_later(now, why);
        let silent = now.saturating_duration_since(self.last_heard);
        let reason = format!(
            "no good answer from {} to {} requests, last heard {} s ago: {why}",
            self.place,
            self.failures,
            silent.as_secs()
        );
        if self.failures >= MOST_FAILURES {
            self.missing(now, &reason);
        }
    }

    /// Another board is where it was.
    fn displaced(&mut self, now: Instant, other: &str) {
        let why = format!("another device, {other}, has its address {}: it is looked for", self.place);
        self.place.take();
        self.ask_later(now, &why);
        // More and more rarely, for each search asks everybody.
        self.sought = self.failures.is_power_of_two();
        self.missing(now, &why);
    }

    /// It is asked again who it is, at first soon and then more and more rarely. What has to be told and read waits for that.
    fn ask_later(&mut self, now: Instant, why: &str) {
        self.failures = self.failures.saturating_add(1);
        let mut waits = false;
        for command in self.units.values_mut().filter_map(|unit| unit.command.as_mut()) {
            command.note(why);
            waits = true;
        }
        self.identify_at = now
            + match (waits, self.is_owned()) {
                (true, _) => self.backoff(FIRST_HURRY, LAST_HURRY),
                (false, true) => self.retry(self.timing.poll.min(self.timing.discover)),
                (false, false) => self.retry(self.timing.discover),
            };
        if !self.locked {
            self.read_at = now;
        }
        tracing::debug!(board = %self.identity.hardware, failures = self.failures, why, "a request failed");
    }

    fn missing(&mut self, now: Instant, reason: &str) {
        let silent = now.saturating_duration_since(self.last_heard);
        // One that sleeps is not gone because it sleeps.
        if self.sleeps.is_some_and(|period| silent < period * 2) {
            return;
        }
        self.offline(reason);
        if self.announced && silent >= self.lost_after() {
            self.announced = false;
            let lost =
                |device: &DeviceId| Reading::Lost { device: device.clone(), reason: reason.to_owned() };
            self.out.extend(self.units.keys().map(lost));
        }
    }

    /// It has to say who it is before anything else.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.place.doubt();
        self.identify_at = now;
    }

    fn offline(&mut self, why: &str) {
        for unit in self.units.values_mut().filter(|unit| unit.owned) {
            unit.available(Availability::Offline, why, &mut self.out);
        }
    }

    pub(super) fn retry(&self, most: Duration) -> Duration {
        self.backoff(FIRST_RETRY, most)
    }

    fn backoff(&self, first: Duration, most: Duration) -> Duration {
        (first * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(8))).min(most)
    }

    pub(super) fn lost_after(&self) -> Duration {
        self.timing.lost().max(self.sleeps.unwrap_or_default() * 2)
    }
}
