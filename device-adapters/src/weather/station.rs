//! What is known of a weather service, what is told of it, and when it is asked next. Pure: the time and a seed come from
//! whoever calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use crate::adapter::{AdapterError, Directive, Reading};
use crate::model::{
    Availability, Change, CommandId, Description, DeviceId, Forecast, Measurement, Stage,
    weather::{MOST_DAYS, MOST_HOURS},
};

use super::Service;
use super::fetch::{Fault, Freshness, Outcome};
use super::schedule::Policy;
use super::trouble::Trouble;

/// Readings that may wait for a slow node; then no directive is taken in.
const MOST_BACKLOG: usize = 64;
/// Requests in a row that reach nothing, after which another board should try.
const MOST_UNREACHABLE: u32 = 3;
/// An answer older than this is no reason to go on where nothing is reached, and tells nothing of now where nothing comes.
const TOO_OLD: Duration = Duration::from_secs(3 * 60 * 60);
/// From this age on the day is told with the time of an answer, in seconds.
const OF_ANOTHER_DAY: i64 = 20 * 60 * 60;
const HOUR: i64 = 60 * 60;

/// A weather service, as far as it is known.
pub(crate) struct Station<S: Service> {
    adapter: &'static str,
    service: Arc<S>,
    description: Description,
    policy: Policy,
    random: u64,
    owned: bool,
    kept: Option<Kept<S::Answer>>,
    fault: Option<Fault>,
    failures: u32,
    unreachable: u32,
    is_deprecated: bool,
    next_request: Instant,
    /// When the next hour begins, and what was expected becomes now.
    next_view: Option<Instant>,
    readings: VecDeque<Reading>,
    told: Told,
}

/// The last good answer.
struct Kept<A> {
    answer: A,
    last_modified: Option<String>,
    /// When it came, or was called the newest.
    at: Instant,
    /// The same moment, in seconds since 1970.
    unix: i64,
}

/// What the node was told last.
#[derive(Default)]
struct Told {
    availability: Option<(Availability, Option<String>)>,
    values: BTreeMap<String, Measurement>,
    forecast: Option<Forecast>,
}

impl<S: Service> Station<S> {
    /// Nothing is known yet. The device is found at once: it is there by its settings.
    pub(crate) fn new(
        adapter: &'static str,
        service: Arc<S>,
        description: Description,
        refresh: Duration,
        seed: u64,
        now: Instant,
    ) -> Self {
        let found = Reading::Found { device: description.clone() };
        Self {
            adapter,
            service,
            description,
            policy: Policy { refresh },
            random: seed | 1, // a xorshift never leaves zero
            owned: false,
            kept: None,
            fault: None,
            failures: 0,
            unreachable: 0,
            is_deprecated: false,
            next_request: now,
            next_view: None,
            readings: VecDeque::from([found]),
            told: Told::default(),
        }
    }

    /// Goes on where the last run gave up.
    pub(crate) fn go_on_from(&mut self, trouble: Trouble) {
        let Trouble { fault, failures, next_request } = trouble;
        (self.fault, self.failures, self.next_request) = (Some(fault), failures, next_request);
    }

    /// What the next run goes on from.
    pub(crate) fn into_trouble(self) -> Option<Trouble> {
        let (failures, next_request) = (self.failures, self.next_request);
        self.fault.map(|fault| Trouble { fault, failures, next_request })
    }

    /// What to send as `If-Modified-Since`.
    pub(crate) fn last_modified(&self) -> Option<String> {
        self.kept.as_ref()?.last_modified.clone()
    }

    /// Whether a request is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.owned && self.next_request <= now
    }

    /// When to look again; `is_asking` while a request is under way.
    pub(crate) fn poll_timeout(&self, is_asking: bool) -> Option<Instant> {
        let request = (!is_asking).then_some(self.next_request);
        let next = [request, self.next_view].into_iter().flatten().min();
        next.filter(|_| self.owned)
    }

    /// The next thing to tell.
    pub(crate) fn poll_reading(&mut self) -> Option<Reading> {
        self.readings.pop_front()
    }

    /// Whether there is something to tell.
    pub(crate) fn has_reading(&self) -> bool {
        !self.readings.is_empty()
    }

    /// Whether a directive may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.readings.len() < MOST_BACKLOG
    }

    /// Takes what the node asks for.
    pub(crate) fn handle_directive(&mut self, now: Instant, directive: Directive) {
        directive.log(self.adapter);
        match directive {
            Directive::Own { device, owned } if device == self.description.id => {
                self.told = Told::default(); // whoever owns it anew knows nothing of it
                self.owned = owned;
                self.tell(now);
            }
            Directive::Command { device, command, change, .. } => self.refuse(device, command, &change),
            // Never a reason to burden the service: what is kept is as new as it lets us have it.
            Directive::Refresh { device } if device == self.description.id => {
                self.told.values.clear();
                self.tell(now);
            }
            Directive::Own { .. }
            | Directive::Refresh { .. }
            | Directive::Pair { .. }
            | Directive::Probe
            | Directive::Show(_)
            | Directive::Tell(_)
            | Directive::Hide { .. } => {}
        }
    }

    /// Tells what has become now since the last time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.next_view.is_some_and(|at| at <= now) {
            self.tell(now);
        }
    }

    /// Takes what came of a request. `unix` is our own clock, for a service that does not tell the time.
    pub(crate) fn handle_outcome(&mut self, now: Instant, unix: i64, outcome: Outcome<S::Answer>) {
        let random = self.random();
        match outcome {
            Outcome::Fresh(answer, freshness) => {
                let last_modified = freshness.last_modified.clone();
                self.note_deprecated(freshness.is_deprecated);
                self.kept =
                    Some(Kept { answer, last_modified, at: now, unix: freshness.date.unwrap_or(unix) });
                self.succeed(now, &freshness, random);
            }
            Outcome::Unchanged(freshness) => {
                if let Some(kept) = &mut self.kept {
                    (kept.at, kept.unix) = (now, freshness.date.unwrap_or(unix));
                }
                self.succeed(now, &freshness, random);
            }
            Outcome::Failed(fault) => self.fail(now, fault, random),
        }
        self.tell(now);
    }

    /// Why this board should stop, and another try.
    pub(crate) fn gives_up(&self, now: Instant) -> Option<AdapterError> {
        let is_old = self.kept.as_ref().is_none_or(|kept| now.duration_since(kept.at) > TOO_OLD);
        let fault = self.fault.as_ref().filter(|_| is_old && self.unreachable >= MOST_UNREACHABLE)?;
        let what = format!("asked {} times: {}", self.unreachable, fault.words);
        Some(AdapterError::Unreachable { adapter: self.adapter, what })
    }

    fn succeed(&mut self, now: Instant, freshness: &Freshness, random: u64) {
        if self.fault.take().is_some() {
            tracing::info!(device = %self.description.id, "the weather service answers again");
        }
        (self.failures, self.unreachable) = (0, 0);
        let wait = self.policy.after_answer(freshness.holds, random);
        tracing::debug!(device = %self.description.id, wait_s = wait.as_secs(), "the weather service answered");
        self.next_request = now + wait;
    }

    fn fail(&mut self, now: Instant, fault: Fault, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.unreachable = if fault.is_unreachable { self.unreachable.saturating_add(1) } else { 0 };
        let wait = self.policy.after_failure(self.failures, fault.is_futile, fault.retry_after, random);
        let (device, wait_s) = (&self.description.id, wait.as_secs());
        if self.failures == 1 {
            tracing::warn!(%device, reason = %fault.words, wait_s, "no answer of the weather service");
        } else {
            tracing::debug!(%device, reason = %fault.words, wait_s, "still no answer of the weather service");
        }
        self.next_request = now + wait;
        self.fault = Some(fault);
    }

    /// Warns once, and says so with the device.
    fn note_deprecated(&mut self, is_deprecated: bool) {
        if is_deprecated == self.is_deprecated {
            return;
        }
        self.is_deprecated = is_deprecated;
        self.description.note = is_deprecated.then(|| {
            "the service will soon end the version of its product that is asked for: update Hearth".to_owned()
        });
        if is_deprecated {
            tracing::warn!(
                device = %self.description.id,
                "the weather service calls what it is asked for deprecated: update Hearth"
            );
        }
        self.readings.push_back(Reading::Found { device: self.description.clone() });
    }

    /// A weather service does nothing that could be commanded.
    fn refuse(&mut self, device: DeviceId, command: CommandId, change: &Change) {
        let reason = if device != self.description.id {
            format!("{device} is no device of this adapter: it has {} alone", self.description.id)
        } else if self.owned {
            match self.description.capabilities.fit(change) {
                Err(error) => error.to_string(),
                Ok(_) => "a weather service cannot be changed".to_owned(),
            }
        } else {
            format!("this node does not own {device}: send the command to the node that does")
        };
        self.readings.push_back(Reading::Progress { device, command, stage: Stage::Failed { reason } });
    }

    /// Tells what differs from what was told.
    fn tell(&mut self, now: Instant) {
        if !self.owned {
            return;
        }
        self.tell_availability(now);
        let Some(kept) = &self.kept else { return };
        let unix = kept.unix_at(now);
        let left = u64::try_from(HOUR - unix.rem_euclid(HOUR)).unwrap_or(1);
        self.next_view = Some(now + Duration::from_secs(left));
        let mut view = self.service.view(&kept.answer, unix);
        let mut why = "the service does not tell it for this place and hour".to_owned();
        if self.fault.is_some() && now.duration_since(kept.at) > TOO_OLD {
            view.values.clear();
            why = format!("the last answer is of {}: too old to tell what is now", self.time_of(kept, now));
        }
        let measured = self.description.sensors.iter().map(|(key, sensor)| {
            let value = view.values.remove(key.as_str()).unwrap_or_else(|| Measurement::Unknown(why.clone()));
            (key.clone(), sensor.fit(value))
        });
        let values: BTreeMap<_, _> = measured.collect();
        view.forecast.hourly.truncate(MOST_HOURS);
        view.forecast.daily.truncate(MOST_DAYS);
        let device = self.description.id.clone();
        if values != self.told.values {
            self.told.values.clone_from(&values);
            self.readings.push_back(Reading::Measured { device: device.clone(), values });
        }
        if self.told.forecast.as_ref() != Some(&view.forecast) {
            self.told.forecast = Some(view.forecast.clone());
            self.readings.push_back(Reading::Forecast { device, forecast: view.forecast });
        }
    }

    fn tell_availability(&mut self, now: Instant) {
        let fault = self.fault.as_ref().map(|fault| fault.words.clone());
        let (availability, reason) = match (&self.kept, &fault) {
            (None, None) => return,
            (Some(_), None) => (Availability::Online, "the service answers".to_owned()),
            (Some(kept), Some(words)) => {
                let time = self.time_of(kept, now);
                (Availability::Stale, format!("last answer of {time}, now: {words}"))
            }
            (None, Some(words)) => (Availability::Offline, format!("no answer yet: {words}")),
        };
        // The time in the reason is no news by itself.
        let told = Some((availability, fault));
        if self.told.availability != told {
            self.told.availability = told;
            let device = self.description.id.clone();
            self.readings.push_back(Reading::Availability { device, availability, reason });
        }
    }

    /// The time of an answer as people read it.
    fn time_of(&self, kept: &Kept<S::Answer>, now: Instant) -> String {
        clock(kept.unix, kept.unix_at(now), self.service.zone(&kept.answer))
    }

    /// xorshift64: enough to spread requests.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl<A> Kept<A> {
    /// A moment since then, in seconds since 1970, by the clock of the service and our own count since.
    fn unix_at(&self, now: Instant) -> i64 {
        let since = i64::try_from(now.duration_since(self.at).as_secs()).unwrap_or(i64::MAX);
        self.unix.saturating_add(since)
    }
}

/// A time as people read it at the place: of today without the day.
fn clock(unix: i64, now: i64, zone: TimeZone) -> String {
    let Ok(at) = Timestamp::from_second(unix) else { return "an unknown time".to_owned() };
    let format = if now.saturating_sub(unix) < OF_ANOTHER_DAY { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.to_zoned(zone).strftime(format).to_string()
}
