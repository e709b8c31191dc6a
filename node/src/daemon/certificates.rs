//! The public certificate: its owner is put together and kept going, and what it shows goes to `hearth doctor` and `/metrics`.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{ShortId, error::NameError};
use tokio::{sync::watch, time::timeout};
use tracing::error;

use crate::{
    api::{
        metrics::{Kind, MetricsSource, Sample},
        ports::{Check, CheckStatus},
    },
    config::TlsConfig,
    service::{HouseholdTime, Service},
    timekeeping::unix_seconds,
    tls::{
        WallClock, WebResolver,
        acme::{
            answers::AnswersHandle,
            client::Https,
            engine::{Engine, EngineParts},
            record::Records,
            report::{ORDERS, Report},
            solve::Ways,
        },
    },
};

/// How long after the start the others are waited for.
const HEARS_WITHIN: Duration = Duration::from_secs(60);

/// What the public certificate is made of.
pub(super) struct Certificates {
    /// The settings.
    pub(super) config: TlsConfig,
    /// The folder of its files.
    pub(super) folder: PathBuf,
    /// The event loop.
    pub(super) service: Service,
    /// This node.
    pub(super) me: ShortId,
    /// The nodes that live.
    pub(super) alive: watch::Receiver<BTreeSet<ShortId>>,
    /// Whether nothing is missing here of what the others hold; none where there are no others.
    pub(super) hears: Option<watch::Receiver<bool>>,
    /// The household's time.
    pub(super) time: watch::Receiver<HouseholdTime>,
    /// Where certificates are served from.
    pub(super) resolver: Arc<WebResolver>,
    /// Where it is told how it is.
    pub(super) report: watch::Sender<Report>,
    /// Whether the node stops.
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Certificates {
    /// Runs the owner until the node stops.
    pub(super) async fn run(self, clock: impl Fn() -> WallClock) {
        let mut shutdown = self.shutdown.clone();
        if self.config.domains.is_empty() {
            let _stops = shutdown.wait_for(|stops| *stops).await;
            return;
        }
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(rule) => {
                error!(%rule, "no public certificate can be ordered");
                let _stops = shutdown.wait_for(|stops| *stops).await;
                return;
            }
        };
        tokio::select! {
            () = hear_out(self.hears) => {}
            _ = shutdown.wait_for(|stops| *stops) => return,
        }
        engine.run(clock, shutdown).await;
    }

    async fn engine(&self) -> Result<Engine<Ways>, NameError> {
        let answers =
            AnswersHandle::new(self.service.clone(), self.me, self.alive.clone(), self.time.clone());
        let resolver = self.resolver.clone();
        let parts = EngineParts {
            config: self.config.clone(),
            folder: self.folder.clone(),
            transport: Arc::new(Https::to(&self.config)),
            solver: Ways::new(&self.config, answers),
            records: Records::new(self.service.clone(), self.me)?,
            serve: Box::new(move |key, names| resolver.set_public(key, names)),
            report: self.report.clone(),
        };
        Ok(Engine::open(parts).await)
    }
}

/// Waits until this node knows what the others have had and whose turn it is, as long as they may be expected to answer.
async fn hear_out(hears: Option<watch::Receiver<bool>>) {
    if let Some(mut hears) = hears {
        let _late_or_stopping = timeout(HEARS_WITHIN, hears.wait_for(|all| *all)).await;
    }
}

/// What `hearth doctor` says of it; nothing where no names are configured.
pub(super) fn check(report: &Report, now: u64) -> Option<Check> {
    if report.names.is_empty() {
        return None;
    }
    let left = report.until.map(|until| until.saturating_sub(now));
    let held = match (report.until, left) {
        (None, _) => "there is none".to_owned(),
        (_, Some(0)) => "it has ended".to_owned(),
        (_, Some(left)) => format!("it holds for another {} h", left / 3_600),
        (Some(_), None) => String::new(),
    };
    let mut detail = format!("{}: {held}; {}", report.names.join(", "), report.doing);
    if let Some(wrong) = &report.error {
        detail.push_str(&format!("; {} min ago: {}", now.saturating_sub(wrong.at) / 60, wrong.words));
    }
    let is_late = report.doing != ORDERS && report.renewal.as_ref().is_some_and(|renewal| renewal.at < now);
    let (status, fix) = match (left, &report.error) {
        // Browsers warn of it, whatever the reason.
        (Some(0), _) | (None, Some(_)) => (CheckStatus::Fail, Some(FIX)),
        (Some(_), Some(_)) => (CheckStatus::Warn, Some(FIX)),
        (None, None) => (CheckStatus::Warn, Some("nothing, if it was just configured; else see the log")),
        (Some(_), None) if is_late => {
            (CheckStatus::Warn, Some("see what it waits for, and the log: it should have been renewed"))
        }
        (Some(_), None) => (CheckStatus::Ok, None),
    };
    let fix = fix.map(str::to_owned);
    Some(Check { name: "certificate".into(), status, detail, fix })
}

const FIX: &str = "mend what the authority names: for http-01 port 80 of the name's address must reach this node, for tls-alpn-01 \
                   port 443, for dns-01 `[tls.dns]` must be able to change the zone. It is tried again by itself";

/// How it is with it, in numbers.
pub(super) fn metrics(report: watch::Receiver<Report>) -> MetricsSource {
    Arc::new(move || {
        let report = report.borrow();
        if report.names.is_empty() {
            return Vec::new();
        }
        let sample = |name, help, kind, value| Sample { name, label: None, help, kind, value };
        let left = report.until.map_or(0, |until| until.saturating_sub(unix_seconds()));
        vec![
            sample(
                "hearth_certificate_expires_seconds",
                "Seconds until the public certificate ends that is served; 0 without one.",
                Kind::Gauge,
                left as f64,
            ),
            sample(
                "hearth_certificate_attempts_total",
                "Attempts to get a public certificate since the start.",
                Kind::Counter,
                report.attempts as f64,
            ),
            sample(
                "hearth_certificate_failures_total",
                "Attempts to get a public certificate since the start that failed.",
                Kind::Counter,
                report.failures as f64,
            ),
        ]
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::acme::report::{BY_LIFE, Renewal, Wrong};

    const NOW: u64 = 1_800_000_000;

    fn report(until: Option<u64>, wrong: Option<&str>) -> Report {
        Report {
            names: vec!["a.example.org".into()],
            doing: "D".into(),
            until,
            renewal: until.map(|at| Renewal { at: at - 86_400, why: BY_LIFE }),
            error: wrong.map(|words| Wrong { at: NOW - 120, words: words.into() }),
            ..Report::default()
        }
    }

    #[test]
    fn a_certificate_that_is_missing_or_late_is_worth_a_look() {
        assert!(check(&Report::default(), NOW).is_none(), "nobody asked for one");
        let status = |until, wrong| check(&report(until, wrong), NOW).unwrap().status;
        assert_eq!(status(Some(NOW + 9 * 86_400), None), CheckStatus::Ok);
        assert_eq!(status(Some(NOW + 9 * 86_400), Some("no")), CheckStatus::Warn);
        assert_eq!(status(Some(NOW + 3_600), None), CheckStatus::Warn, "it should have been renewed");
        assert_eq!(status(None, None), CheckStatus::Warn);
        assert_eq!(status(Some(NOW - 1), Some("no")), CheckStatus::Fail);
        assert_eq!(
            status(Some(NOW - 1), None),
            CheckStatus::Fail,
            "browsers warn of it, whatever the reason"
        );
        assert_eq!(status(None, Some("no")), CheckStatus::Fail);
        let mut late = Report {
            renewal: Some(Renewal { at: NOW - 60, why: BY_LIFE }),
            ..report(Some(NOW + 30 * 86_400), None)
        };
        assert_eq!(check(&late, NOW).unwrap().status, CheckStatus::Warn, "past its moment");
        late.doing = ORDERS.into();
        assert_eq!(check(&late, NOW).unwrap().status, CheckStatus::Ok, "it is being renewed");
        let shown = check(&report(None, Some("no such host")), NOW).unwrap();
        assert_eq!(shown.detail, "a.example.org: there is none; D; 2 min ago: no such host");
        assert!(shown.fix.unwrap().contains("port 80"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_are_heard_out_but_not_for_ever() {
        let began = tokio::time::Instant::now();
        hear_out(None).await;
        let (told, hears) = watch::channel(false);
        let heard = tokio::spawn(hear_out(Some(hears.clone())));
        tokio::task::yield_now().await;
        assert!(!heard.is_finished());
        told.send_replace(true);
        heard.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        told.send_replace(false);
        hear_out(Some(hears)).await;
        assert_eq!(began.elapsed(), HEARS_WITHIN, "nobody is there");
    }

    #[test]
    fn numbers_are_told_where_there_is_something_to_tell() {
        assert!(metrics(watch::channel(Report::default()).1)().is_empty());
        let failing = Report { attempts: 3, failures: 2, ..report(Some(u64::MAX), None) };
        let samples = metrics(watch::channel(failing).1)();
        let of = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap().value;
        assert!(of("hearth_certificate_expires_seconds") > 1.0e9);
        assert_eq!(
            (of("hearth_certificate_attempts_total"), of("hearth_certificate_failures_total")),
            (3.0, 2.0)
        );
    }
}
