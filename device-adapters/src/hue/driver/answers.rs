//! What the answers of a bridge mean.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{CommandId, DeviceId, Stage, State};

use super::super::command::Verdict;
use super::super::home::Home;
use super::super::resource::Rid;
use super::super::wire::{self, Put, WireError};
use super::{Answer, Ask, Driver};

/// Failures in a row, over so long, after which the devices count as gone; two that took longer do as well.
const GONE_AFTER: u32 = 3;
const GONE_WITHIN: Duration = Duration::from_secs(3);
const GONE_AT_LATEST: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn answered(&mut self, now: Instant, ask: Ask, asked: Instant, answer: Answer) {
        match (answer.status, &ask) {
            (429 | 503, _) => {
                self.hear(now);
                self.trouble = Some(format!("it is too busy (HTTP status {})", answer.status));
                self.pace.leave_alone(now, answer.retry_after);
                self.again(now, &ask);
            }
            (401 | 403, _) => self.withdrawn(now),
            (200..=299, Ask::All) => match wire::resources(&answer.body) {
                Ok(resources) if !resources.is_empty() => {
                    self.hear(now);
                    if self.home.replace(resources, &self.host) {
                        self.stream.doubt(now, self.read_all);
                    }
                    self.read_all = Some(now);
                    self.news.reach();
                    self.refresh.iter().for_each(|device| self.news.forget(device));
                    self.refresh.clear();
                    self.judge_read(now, &ask, asked, None);
                }
                Ok(_) => self.came_to_nothing(now, &ask, "the bridge lists no resources"),
                Err(error) => self.came_to_nothing(now, &ask, &error.to_string()),
            },
            (200..=299, Ask::Light { .. }) => match wire::resources(&answer.body) {
                Ok(resources) => {
                    let told = self.home.lay(resources);
                    self.light_read(now, &ask, asked, &told);
                }
                Err(error) => self.came_to_nothing(now, &ask, &error.to_string()),
            },
            (200..=299, Ask::Alive) => match wire::resources(&answer.body) {
                Ok(_) => self.hear(now),
                Err(error) => self.came_to_nothing(now, &ask, &error.to_string()),
            },
            (status, Ask::Put { device, command, .. }) if status < 500 => {
                let (device, command) = (device.clone(), *command);
                self.put_answered(now, &ask, device, command, &answer);
            }
            (404, Ask::Light { .. }) => {
                self.read_all_soon(now); // it is gone, and so may be more
                self.light_read(now, &ask, asked, &BTreeSet::new());
            }
            (status, _) => {
                let why = format!("the bridge at {} answered with HTTP status {status}", self.host);
                self.came_to_nothing(now, &ask, &why);
            }
        }
    }

    /// A light was read, and these resources told. It is not asked again at once, also if it is not among them.
    fn light_read(&mut self, now: Instant, ask: &Ask, asked: Instant, told: &BTreeSet<Rid>) {
        self.hear(now);
        let refresh = std::mem::take(&mut self.refresh);
        let (read, left): (BTreeSet<_>, BTreeSet<_>) =
            refresh.into_iter().partition(|device| self.is_read_by(device, ask));
        self.refresh = left;
        for device in read.iter().filter(|device| is_told(&self.home, device, told)) {
            self.news.forget(device);
        }
        self.judge_read(now, ask, asked, Some(told));
    }

    fn put_answered(&mut self, now: Instant, ask: &Ask, device: DeviceId, id: CommandId, answer: &Answer) {
        let put = match wire::put(&answer.body) {
            Ok(put) => put,
            Err(error) if answer.status < 300 => return self.came_to_nothing(now, ask, &error.to_string()),
            Err(_) => {
                let objection = Some(format!("HTTP status {}", answer.status));
                Put { taken: false, is_unreached: false, objection }
            }
        };
        self.hear(now);
        let Some(command) = self.commands.get_mut(&device).filter(|command| command.id == id) else {
            return; // superseded meanwhile
        };
        // Of a group that has lights without power as well, the others show whether they took it.
        let is_in_vain = put.is_unreached && !self.home.is_reached_in_part(&device);
        if answer.status < 300 && (put.taken || put.objection.is_none()) && !is_in_vain {
            if command.acknowledge(now, put.objection) {
                self.progress(device, id, Stage::Acknowledged);
            }
            return;
        }
        if answer.status == 404 {
            self.read_all_soon(now);
        }
        self.commands.remove(&device);
        let objection = put.objection.unwrap_or_default();
        let reason = match is_in_vain {
            true => WireError::Unreached(objection),
            false => WireError::Refused(objection),
        };
        self.progress(device, id, Stage::Failed { reason: reason.to_string() });
    }

    /// Judges the commands of all devices that show what events touched.
    pub(super) fn judge_touched(&mut self, now: Instant, touched: &BTreeSet<Rid>) {
        let concerned = |device: &&DeviceId| is_told(&self.home, device, touched);
        let devices: Vec<_> = self.commands.keys().filter(concerned).cloned().collect();
        for device in devices {
            let seen = self.home.evidence(&device);
            self.judge(now, device, None, seen);
        }
    }

    /// Judges the commands that an answer is about, which told these resources or all.
    fn judge_read(&mut self, now: Instant, ask: &Ask, asked: Instant, told: Option<&BTreeSet<Rid>>) {
        let devices: Vec<_> =
            self.commands.keys().filter(|device| self.is_read_by(device, ask)).cloned().collect();
        for device in devices {
            let seen = match told.is_none_or(|told| is_told(&self.home, &device, told)) {
                true => self.home.evidence(&device),
                false => Err("the bridge does not tell its state when it is asked for it".to_owned()),
            };
            self.judge(now, device, Some(asked), seen);
        }
        self.retry(now, ask); // those that were acknowledged after it was asked
    }

    fn judge(&mut self, now: Instant, device: DeviceId, asked: Option<Instant>, seen: Result<State, String>) {
        let Some(command) = self.commands.get_mut(&device) else { return };
        if command.judge(now, asked, seen) == Verdict::Confirmed {
            let id = command.id;
            self.stream.effect(asked.is_some() && command.missed_event());
            self.commands.remove(&device);
            self.news.follow(&device, id);
            self.progress(device, id, Stage::Confirmed);
        }
    }

    /// What was asked must be asked again.
    pub(super) fn again(&mut self, now: Instant, ask: &Ask) {
        if *ask == Ask::All {
            self.all_due = now;
        }
        self.retry(now, ask);
    }

    /// Commands that wait for an answer which did not help them need another one.
    fn retry(&mut self, now: Instant, ask: &Ask) {
        let concerned: Vec<_> = self
            .commands
            .keys()
            .filter(|device| match ask {
                Ask::Put { device: put, .. } => *device == put,
                _ => self.is_read_by(device, ask),
            })
            .cloned()
            .collect();
        for device in concerned {
            if let Some(command) = self.commands.get_mut(&device) {
                command.failed(now);
            }
        }
    }

    pub(super) fn came_to_nothing(&mut self, now: Instant, ask: &Ask, why: &str) {
        self.again(now, ask);
        self.fail(now, why);
    }

    pub(super) fn fail(&mut self, now: Instant, why: &str) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(why.to_owned());
        self.pace.pause(now, self.failures);
        tracing::debug!(
            bridge = self.host,
            why,
            failures = self.failures,
            "a Hue bridge does not answer as it should"
        );
        let failing = now.saturating_duration_since(*self.unanswered.get_or_insert(now));
        let is_gone = self.failures >= GONE_AFTER && failing >= GONE_WITHIN;
        // One answer that does not come is none to speak of, however long it was waited for.
        if is_gone || self.failures > 1 && failing >= GONE_AT_LATEST {
            let reason = format!(
                "no good answer from the bridge at {} to {} requests, last heard {} s ago: {why}",
                self.host,
                self.failures,
                now.saturating_duration_since(self.heard).as_secs()
            );
            if self.news.lose(&self.home, &reason, &mut self.out) {
                tracing::warn!(bridge = self.host, why, "a Hue bridge does not answer");
            }
        }
    }

    /// The bridge said something that it should.
    pub(super) fn hear(&mut self, now: Instant) {
        (self.heard, self.failures, self.trouble) = (now, 0, None);
        self.unanswered = None;
        if self.news.is_lost() {
            self.all_due = self.all_due.min(now); // what happened meanwhile
        }
    }
}

fn is_told(home: &Home, device: &DeviceId, told: &BTreeSet<Rid>) -> bool {
    home.roles().get(device).is_some_and(|role| told.iter().any(|rid| role.shows(*rid)))
}
