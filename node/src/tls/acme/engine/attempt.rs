//! One attempt, from the account to what is served, and what follows from how it ended.

use rustls::RootCertStore;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::super::check::Checked;
use super::super::order::Job;
use super::super::pace::{Failure, Tries};
use super::super::record::{News, Turn};
use super::super::refusal::OrderError;
use super::super::report::{ORDERS, SERVED};
use super::super::solve::Solver;
use super::super::words;
use super::{Did, Engine, Look, TURN_EVERY, TURN_S, chance, held, means};
use crate::config::Directory;

impl<S: Solver> Engine<S> {
    /// One attempt, from the account to what is served.
    pub(super) async fn attempt(&mut self, now: u64) -> Look {
        let is_trial = self.goes_to_trial();
        self.show(ORDERS.to_owned(), None);
        self.report.send_modify(|report| report.attempts += 1);
        self.tries.with = means(&self.config).await;
        let mut tries = self.tries.clone();
        let began = Instant::now();
        let ended = self.order(now, is_trial, &mut tries).await;
        self.tries = tries;
        // Pauses count from the end, and so does what the authority counts.
        let now = now + began.elapsed().as_secs();
        let did = match ended {
            Ok(checked) if is_trial => {
                let until = checked.validity.1;
                info!(names = %self.names(), until, "the directory for tries is satisfied: the next order counts");
                self.tries.pass_trial(now);
                Did::Passed
            }
            Ok(checked) => {
                self.tries.succeed(now);
                self.take(checked, now).await;
                Did::Renewed
            }
            Err(error) => {
                self.fail(now, &error);
                Did::Failed
            }
        };
        if let Err(error) = self.files.set_tries(&self.tries).await {
            warn!(%error, "what was tried cannot be written");
            self.broken = Some((now, error.to_string()));
        }
        self.tell_turn(None).await;
        let next = match did {
            Did::Renewed | Did::Passed => now + 1,
            Did::Failed | Did::Nothing => self.tries.not_before,
        };
        let doing = match did {
            Did::Renewed => SERVED,
            Did::Passed => "orders again, this time for good",
            Did::Failed | Did::Nothing => "waits after a failure",
        };
        self.show(doing.to_owned(), Some(next));
        self.tell().await;
        Look { did, next }
    }

    /// Orders, and says meanwhile that it still does.
    async fn order(&self, now: u64, is_trial: bool, tries: &mut Tries) -> Result<Checked, OrderError> {
        let directory = if is_trial { Directory::Staging } else { self.config.directory.clone() };
        let roots = match (is_trial, &self.config.directory) {
            (false, Directory::LetsEncrypt) => Some(public_roots()?),
            _ => None,
        };
        let began = Instant::now();
        let job = Job {
            files: &self.files,
            client: &self.client,
            solver: &self.solver,
            config: &self.config,
            directory: directory.url(),
            is_trial,
            household: self.household(&self.others(now).await),
            replaces: self.replaces().filter(|_| !is_trial),
            now,
            began,
            roots,
        };
        let mut ordering = std::pin::pin!(job.run(tries));
        let mut again = interval(TURN_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.tick().await;
        loop {
            tokio::select! {
                ended = &mut ordering => return ended,
                _ = again.tick() => {
                    let until = now + began.elapsed().as_secs() + TURN_S;
                    self.records.tell(vec![News::Turn(Some(Turn { orders: true, until }))]).await;
                }
            }
        }
    }

    /// Serves a new certificate, and decides when the next one is due.
    async fn take(&mut self, checked: Checked, now: u64) {
        let names = self.config.domains.iter().map(ToString::to_string).collect();
        let held = held(&checked, names, true);
        (self.serve)(checked.key, self.config.domains.clone());
        info!(
            names = %self.names(),
            directory = %self.config.directory,
            until = held.validity.1,
            "a new public certificate is served"
        );
        self.held = Some(held);
        if let Err(error) = self.plan_renewal(now).await {
            warn!(%error, "when to renew cannot be written");
        }
    }

    fn fail(&mut self, now: u64, error: &OrderError) {
        let failure = error.failure();
        let was_trial = self.goes_to_trial();
        if failure == Failure::Validation && !was_trial {
            self.tries.counted.fail(now);
        }
        let has_trials = self.config.directory == Directory::LetsEncrypt;
        let asked = match error {
            OrderError::Spent { until, .. } => Some(until.saturating_sub(now)),
            _ => self.client.later_s(),
        };
        self.tries.fail(now, failure, asked, chance(), has_trials);
        let text = error.to_string();
        let words = if was_trial { format!("in a try at the staging directory: {text}") } else { text };
        warn!(
            names = %self.names(),
            directory = %self.config.directory,
            reason = words,
            next_try_s = self.tries.not_before.saturating_sub(now),
            "no public certificate yet, trying again later"
        );
        self.tries.wrong = Some((now, words));
        self.report.send_modify(|report| report.failures += 1);
    }
}

/// Whoever is to be served by it must trust what this system trusts.
fn public_roots() -> Result<RootCertStore, OrderError> {
    device_adapters::web::public_roots().map_err(|reason| OrderError::Lost(words::shown(&reason)))
}
