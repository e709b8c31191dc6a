//! `hearth doctor`: what a person should look at.

use std::path::PathBuf;

use tokio::sync::watch;

use super::door;
use crate::{
    api::ports::{Check, CheckStatus, PortError},
    auth::jwt::IssuersHandle,
    devices::{AdapterState, AdapterStatus},
    discovery::{Report, State},
    history::{self, Keeping},
    plain_http::{PortStatus, way_out},
    service::{Service, Status},
    store::{RecoveryReport, repairs, restored, worker::StoreJobs},
    timekeeping::unix_seconds,
    tls::acme,
};

/// Free space below which a person should look, in bytes.
const LITTLE_SPACE: u64 = 64 << 20;
/// A clock that differs by more than this is worth a look, in milliseconds.
const CLOCK_DIFFERS_MS: i64 = 2_000;

/// What the checks look at.
pub struct Doctor {
    /// The event loop.
    pub service: Service,
    /// How the store was found at the start.
    pub recovery: RecoveryReport,
    /// What of the small files was mended at the start.
    pub notes: Vec<String>,
    /// The store's thread.
    pub jobs: StoreJobs,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Where each adapter stands.
    pub adapters: watch::Receiver<Vec<AdapterStatus>>,
    /// How the history is.
    pub history: watch::Receiver<history::Report>,
    /// How it is with the public certificate.
    pub certificate: watch::Receiver<acme::report::Report>,
    /// Where the HTTP port stands.
    pub http_port: watch::Receiver<PortStatus>,
    /// The outside issuers.
    pub issuers: IssuersHandle,
}

impl Doctor {
    /// Runs every check.
    ///
    /// # Errors
    /// [`PortError::Stopping`].
    pub async fn checks(&self) -> Result<Vec<Check>, PortError> {
        let status = self.service.status().await.map_err(|_| PortError::Stopping)?;
        let mut checks = vec![self.store(&status), self.space(), clock(&status), nodes(&status)];
        checks.push(self.small_files());
        checks.push(self.size().await);
        checks.extend(self.set_back());
        checks.extend(self.repairs());
        checks.push(discovery(&status.discovery));
        checks.extend(membership(&status));
        checks.push(self.lost_and_found());
        checks.extend(self.adapters.borrow().iter().map(adapter));
        checks.push(history(&self.history.borrow()));
        checks.extend(super::certificates::check(&self.certificate.borrow(), unix_seconds()));
        checks.extend(http_port(&self.http_port.borrow()));
        checks.extend(door::issuers::checks(&self.issuers.known_now(), unix_seconds().saturating_mul(1_000)));
        checks.push(tombstones(&status));
        checks.push(offences(&status));
        checks.push(incomplete(&status));
        Ok(checks)
    }

    fn store(&self, status: &Status) -> Check {
        if let Some(reason) = &status.store_error {
            return check("store", CheckStatus::Fail, reason.clone(), Some("free space or replace the card"));
        }
        let steps = self.recovery.steps.join("; ");
        match (self.recovery.may_have_lost_writes(), steps.is_empty()) {
            (false, true) => check("store", CheckStatus::Ok, self.recovery.outcome.to_string(), None),
            (false, false) => {
                check("store", CheckStatus::Warn, steps, Some("nothing was lost; watch the card"))
            }
            (true, _) => check(
                "store",
                CheckStatus::Warn,
                format!("{}: {steps}", self.recovery.outcome),
                Some("the peers fill in what is missing; think of a new card"),
            ),
        }
    }

    fn small_files(&self) -> Check {
        if self.notes.is_empty() {
            return check("state folder", CheckStatus::Ok, "its small files are whole".into(), None);
        }
        let is_old = |note: &String| note.contains("older hearth");
        let (status, fix) = match self.notes.iter().all(is_old) {
            true => (CheckStatus::Ok, None),
            false => {
                (CheckStatus::Warn, Some("think of a new card; `hearth backup FILE` keeps a copy elsewhere"))
            }
        };
        check("state folder", status, self.notes.join(" "), fix)
    }

    /// What the store takes on the disk.
    async fn size(&self) -> Check {
        const NAME: &str = "store size";
        let Ok(size) = self.jobs.size().await else {
            return check(NAME, CheckStatus::Warn, "the store does not answer".into(), None);
        };
        let kib = |bytes: u64| bytes.div_ceil(1_024);
        let mut detail = format!(
            "{} records, {} KiB, take {} KiB on the disk",
            size.records,
            kib(size.live_bytes),
            kib(size.disk_bytes)
        );
        if let Some(rebuilt) = size.rebuilt {
            detail.push_str(&format!(
                "; it had grown to {} KiB and was written anew in {} KiB",
                kib(rebuilt.from_bytes),
                kib(rebuilt.to_bytes)
            ));
        }
        check(NAME, CheckStatus::Ok, detail, None)
    }

    /// A store that was restored or repaired, as long as no peer's state has taken its place.
    fn set_back(&self) -> Option<Check> {
        let mark = restored::mark(&self.state_dir);
        if matches!(mark, Ok(None)) {
            return None;
        }
        let detail = "it was restored or repaired, and may lack what was written last: the state of the first \
                      node that is met takes its place, and what has no place there goes to the lost-and-found";
        let fix = "nothing, if this is the only node; else see that it reaches another one (`hearth status`)";
        Some(check("set back", CheckStatus::Warn, detail.into(), Some(fix)))
    }

    /// What was mended at this start and at earlier ones.
    fn repairs(&self) -> Option<Check> {
        const SHOWN: usize = 6;
        let all = repairs::list(&self.state_dir);
        let newest = all.get(all.len().saturating_sub(SHOWN)..).filter(|newest| !newest.is_empty())?;
        let detail = format!("{} steps so far, the newest: {}", all.len(), newest.join("; "));
        Some(check("repairs", CheckStatus::Ok, detail, None))
    }

    fn lost_and_found(&self) -> Check {
        const NAME: &str = "lost-and-found";
        match crate::store::restored::lost_files(&self.state_dir) {
            Ok(files) if files.is_empty() => check(NAME, CheckStatus::Ok, "empty".into(), None),
            Ok(files) => {
                let names: Vec<String> = files.iter().map(|(_, path)| path.display().to_string()).collect();
                let detail = format!("this store held what the others do not have: {}", names.join(", "));
                let fix = "set again what you miss, then remove the files";
                check(NAME, CheckStatus::Warn, detail, Some(fix))
            }
            Err(reason) => check(NAME, CheckStatus::Warn, format!("cannot be listed: {reason}"), None),
        }
    }

    fn space(&self) -> Check {
        match crate::store::free_bytes(&self.state_dir) {
            Some(free) if free < LITTLE_SPACE => check(
                "disk space",
                CheckStatus::Warn,
                format!("{} MiB are free in {}", free >> 20, self.state_dir.display()),
                Some("free some space"),
            ),
            Some(free) => check("disk space", CheckStatus::Ok, format!("{} MiB are free", free >> 20), None),
            None => check("disk space", CheckStatus::Warn, "cannot be measured".into(), None),
        }
    }
}

fn check(name: &str, status: CheckStatus, detail: String, fix: Option<&str>) -> Check {
    Check { name: name.into(), status, detail, fix: fix.map(str::to_owned) }
}

fn discovery(report: &Report) -> Check {
    let is_well = matches!(report.state, State::On | State::Off | State::Starting);
    Check {
        name: "discovery".into(),
        status: if is_well { CheckStatus::Ok } else { CheckStatus::Warn },
        detail: format!("{}: {}", report.state, report.detail),
        fix: report.way_out.clone(),
    }
}

/// Nothing is said of a port that nobody wants.
fn http_port(status: &PortStatus) -> Option<Check> {
    let (state, fix) = match status {
        PortStatus::NotNeeded | PortStatus::Off => return None,
        PortStatus::Opening | PortStatus::Open(_) => (CheckStatus::Ok, None),
        PortStatus::Closed { kind, .. } => (CheckStatus::Warn, Some(way_out(*kind))),
    };
    Some(check("HTTP port", state, status.to_string(), fix))
}

fn clock(status: &Status) -> Check {
    let far: Vec<String> = status
        .nodes
        .iter()
        .filter_map(|node| Some((node, node.clock_offset_ms?)))
        .filter(|(_, offset)| offset.abs() > CLOCK_DIFFERS_MS)
        .map(|(node, offset)| format!("{} is off by {offset} ms", node.name))
        .collect();
    if !far.is_empty() {
        return check("clock", CheckStatus::Warn, far.join(", "), Some("let NTP run on every node"));
    }
    if status.clock_synchronised {
        check("clock", CheckStatus::Ok, "known to be right".into(), None)
    } else {
        let fix = "let systemd-timesyncd (`timedatectl set-ntp true`), chrony or ntpd keep it; where a \
                   battery clock does, set `clock = \"trusted\"`";
        check("clock", CheckStatus::Warn, "not known to be right".into(), Some(fix))
    }
}

fn nodes(status: &Status) -> Check {
    let in_state = |state: &'static str| {
        let names =
            status.nodes.iter().filter(move |node| node.state == state).map(|node| node.name.as_str());
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| format!("{state}: {}", names.join(", ")))
    };
    let missing: Vec<String> = ["dead", "unreachable"].into_iter().filter_map(in_state).collect();
    if missing.is_empty() {
        return check("nodes", CheckStatus::Ok, format!("{} known, none dead", status.nodes.len()), None);
    }
    check("nodes", CheckStatus::Warn, missing.join("; "), Some("look at their power and network"))
}

/// Whether this node is in, and every node one board.
fn membership(status: &Status) -> Vec<Check> {
    let mut checks = Vec::new();
    match &status.outside {
        Some(outside) => checks.push(Check {
            fix: Some(outside.fix.clone()),
            ..check("membership", CheckStatus::Fail, outside.detail.clone(), None)
        }),
        None => checks.push(check("membership", CheckStatus::Ok, "this node is in".into(), None)),
    }
    for copies in &status.copies {
        let detail = format!(
            "two boards run under the key of {} ({}): one card is a copy of the other; turned away at: {}",
            copies.name,
            copies.id,
            copies.turned_away_at.join(", ")
        );
        let fix = "run `hearth leave` on the board that is turned away, then join it with a new invite";
        checks.push(check("copied card", CheckStatus::Warn, detail, Some(fix)));
    }
    checks
}

fn adapter(adapter: &AdapterStatus) -> Check {
    let reason = adapter.reason.as_deref().unwrap_or("without a reason");
    let restarts = match adapter.restarts {
        0 => String::new(),
        1 => "; started again once".to_owned(),
        times => format!("; started again {times} times"),
    };
    let (status, detail, fix) = match adapter.state {
        AdapterState::Running => (CheckStatus::Ok, "runs".to_owned(), None),
        AdapterState::Off | AdapterState::Elsewhere | AdapterState::Waiting => {
            (CheckStatus::Ok, reason.to_owned(), None)
        }
        AdapterState::Failed => (
            CheckStatus::Warn,
            reason.to_owned(),
            Some("see the log; look at the network and at what the adapter speaks to"),
        ),
        AdapterState::Refused => (
            CheckStatus::Fail,
            reason.to_owned(),
            Some(
                "correct it with `hearth adapter set`, or its table in the config file (`hearth config show` names the \
                 line) and start again",
            ),
        ),
    };
    check(&format!("adapter {}", adapter.id), status, detail + &restarts, fix)
}

fn history(report: &history::Report) -> Check {
    const NAME: &str = "history";
    let kib = |bytes: usize| bytes.div_ceil(1_024);
    if let Some(reason) = &report.failing {
        let fix = "free some space, or see that the daemon may write its folder `history`; a card that gives errors should be \
                   replaced. Meanwhile it goes on in memory";
        return check(NAME, CheckStatus::Warn, reason.clone(), Some(fix));
    }
    match report.keeping {
        Keeping::Recording => {}
        Keeping::Paused => {
            return check(NAME, CheckStatus::Ok, "switched off: what was recorded stays".into(), None);
        }
        Keeping::Nothing => return check(NAME, CheckStatus::Ok, "none is kept".into(), None),
    }
    let written = match report.written_at {
        Some(at) => format!("last written {} min ago", at.elapsed().as_secs() / 60),
        None => "nothing written since the start".to_owned(),
    };
    let mut detail = format!("{} KiB of {} MiB; {written}", kib(report.disk_bytes), report.megabytes);
    if report.dropped > 0 {
        detail.push_str(&format!("; {} values found no room", report.dropped));
    }
    if report.damaged == 0 {
        return check(NAME, CheckStatus::Ok, detail, None);
    }
    detail.push_str(&format!("; {} damaged entries are passed over", report.damaged));
    let fix = "nothing, if it happened once: they go with the oldest; else think of a new card";
    check(NAME, CheckStatus::Warn, detail, Some(fix))
}

fn tombstones(status: &Status) -> Check {
    if status.held_back_by.is_empty() || status.tombstones == 0 {
        let detail = format!("{} deletions are remembered", status.tombstones);
        return check("deletions", CheckStatus::Ok, detail, None);
    }
    let detail = format!(
        "{} deletions (about {} bytes) are remembered until they have been heard by: {}",
        status.tombstones,
        status.tombstones * 120,
        status.held_back_by.join(", ")
    );
    check("deletions", CheckStatus::Ok, detail, None)
}

fn offences(status: &Status) -> Check {
    let found: Vec<String> = status
        .counters
        .iter()
        .filter(|(name, count)| name.starts_with("offence_") && **count > 0)
        .map(|(name, count)| format!("{} {count}", name.trim_start_matches("offence_")))
        .collect();
    if found.is_empty() {
        return check("peers", CheckStatus::Ok, "no rule was broken".into(), None);
    }
    check(
        "peers",
        CheckStatus::Warn,
        format!("broke rules: {}", found.join(", ")),
        Some("see the log for who it was"),
    )
}

fn incomplete(status: &Status) -> Check {
    if status.incomplete == 0 {
        return check("objects", CheckStatus::Ok, format!("{} objects", status.objects), None);
    }
    let detail = format!("{} objects lack a required field", status.incomplete);
    check("objects", CheckStatus::Warn, detail, Some("`hearth list --incomplete` names them"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tokio::time::Instant;

    use super::*;

    fn shown(state: AdapterState, reason: Option<&str>, restarts: u32) -> Check {
        adapter(&AdapterStatus { id: "lifx".into(), state, reason: reason.map(str::to_owned), restarts })
    }

    #[test]
    fn the_history_is_shown_with_its_room_its_last_write_and_its_damage() {
        let report = history::Report { megabytes: 12, disk_bytes: 4_097, ..Default::default() };
        let shown = |report: &history::Report| {
            let check = super::history(report);
            (check.status, check.detail, check.fix.is_some())
        };
        let calm = "5 KiB of 12 MiB; nothing written since the start".to_owned();
        assert_eq!(shown(&report), (CheckStatus::Ok, calm, false));
        let report = history::Report { written_at: Some(Instant::now()), damaged: 2, dropped: 7, ..report };
        let hurt = "5 KiB of 12 MiB; last written 0 min ago; 7 values found no room; 2 damaged entries are passed over";
        assert_eq!(shown(&report), (CheckStatus::Warn, hurt.to_owned(), true));
        let off = history::Report { keeping: Keeping::Nothing, ..report.clone() };
        assert_eq!(shown(&off), (CheckStatus::Ok, "none is kept".to_owned(), false));
        let failing = history::Report { failing: Some("the disk is full".into()), ..off };
        assert_eq!(shown(&failing), (CheckStatus::Warn, "the disk is full".to_owned(), true));
    }

    #[test]
    fn each_adapter_is_shown_with_why_it_does_not_run() {
        let runs = shown(AdapterState::Running, None, 3);
        assert_eq!((runs.name.as_str(), runs.status, runs.fix), ("adapter lifx", CheckStatus::Ok, None));
        assert_eq!(runs.detail, "runs; started again 3 times");
        let off = shown(AdapterState::Off, Some("switched off in the configuration"), 0);
        assert_eq!((off.status, off.detail.as_str()), (CheckStatus::Ok, "switched off in the configuration"));
        let failed = shown(AdapterState::Failed, Some("the port is taken"), 1);
        assert_eq!(
            (failed.status, failed.detail.as_str()),
            (CheckStatus::Warn, "the port is taken; started again once")
        );
        let refused = shown(AdapterState::Refused, Some("`poll_s` must be 0.5 to 3600"), 0);
        assert_eq!(refused.status, CheckStatus::Fail);
        assert!(refused.detail.contains("poll_s") && refused.fix.unwrap().contains("config"));
    }
}
