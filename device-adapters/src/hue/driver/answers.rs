//! What the answers of a bridge mean.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{CommandId, DeviceId, Stage};

use super::super::wire::{self, Put, WireError};
use super::{Answer, Ask, Driver};

/// Failures in a row, over so long, after which the devices count as gone.
const GONE_AFTER: u32 = 3;
const GONE_WITHIN: Duration = Duration::from_secs(3);

impl Driver {
    pub(super) fn answered(&mut self, now: Instant, ask: Ask, asked: Instant, answer: Answer) {
        match (answer.status, &ask) {
            (429 | 503, _) => {
                self.hear(now);
                self.trouble = Some(format!("it is too busy (HTTP status {})", answer.status));
                self.pace.leave_alone(now, answer.retry_after);
                self.again(now, &ask);
            }
            (401 | 403, _) => self.withdrawn(),
            (200..=299, Ask::All) => match wire::resources(&answer.body) {
                Ok(resources) if !resources.is_empty() => {
                    self.hear(now);
                    self.home.replace(resources, &self.host);
                    self.read_all = Some(now);
                    self.news.reach();
                    self.refresh.iter().for_each(|device| self.news.forget(device));
                    self.refresh.clear();
                    self.judge_all(now, asked);
                }
                Ok(_) => self.came_to_nothing(now, &ask, "the bridge lists no resources"),
                Err(error) => self.came_to_nothing(now, &ask, &error.to_string()),
            },
            (200..=299, Ask::Light { .. }) => match wire::resources(&answer.body) {
                Ok(resources) => {
                    self.hear(now);
                    let touched = self.home.lay(resources);
                    let news = &mut self.news;
                    let roles = self.home.roles();
                    self.refresh.retain(|device| {
                        let is_read =
                            roles.get(device).is_none_or(|role| touched.iter().any(|rid| role.shows(*rid)));
                        if is_read {
                            news.forget(device);
                        }
                        !is_read
                    });
                    self.judge(now, &touched, Some(asked));
                    self.again(now, &ask); // of those that it did not show after all
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
            (404, _) => {
                self.hear(now);
                self.refresh.clear();
                self.all_due = now; // it is gone, and so may be more
                self.again(now, &ask);
            }
            (status, _) => {
                let why = format!("the bridge at {} answered with HTTP status {status}", self.host);
                self.came_to_nothing(now, &ask, &why);
            }
        }
    }

    fn put_answered(&mut self, now: Instant, ask: &Ask, device: DeviceId, id: CommandId, answer: &Answer) {
        let put = match wire::put(&answer.body) {
            Ok(put) => put,
            Err(error) if answer.status < 300 => return self.came_to_nothing(now, ask, &error.to_string()),
            Err(_) => {
                let objection = Some(format!("HTTP status {}", answer.status));
                Put { taken: false, objection }
            }
        };
        self.hear(now);
        let Some(command) = self.commands.get_mut(&device).filter(|command| command.id == id) else {
            return; // superseded meanwhile
        };
        if answer.status < 300 && (put.taken || put.objection.is_none()) {
            if command.acknowledge(now, put.objection) {
                self.progress(device, id, Stage::Acknowledged);
            }
            return;
        }
        if answer.status == 404 {
            self.all_due = now;
        }
        self.commands.remove(&device);
        let reason = WireError::Refused(put.objection.unwrap_or_default()).to_string();
        self.progress(device, id, Stage::Failed { reason });
    }

    /// What was asked must be asked again.
    pub(super) fn again(&mut self, now: Instant, ask: &Ask) {
        if *ask == Ask::All {
            self.all_due = now;
        }
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
        let silent = now.saturating_duration_since(self.heard);
        if self.failures >= GONE_AFTER && silent >= GONE_WITHIN {
            let reason = format!(
                "no good answer from the bridge at {} to {} requests, last heard {} s ago: {why}",
                self.host,
                self.failures,
                silent.as_secs()
            );
            if self.news.lose(&self.home, &reason, &mut self.out) {
                tracing::warn!(bridge = self.host, why, "a Hue bridge does not answer");
            }
        }
    }

    /// The bridge said something that it should.
    pub(super) fn hear(&mut self, now: Instant) {
        (self.heard, self.failures, self.trouble) = (now, 0, None);
        if self.news.is_lost() {
            self.all_due = self.all_due.min(now); // what happened meanwhile
        }
    }
}
