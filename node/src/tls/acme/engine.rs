//! The owner of this node's public certificate: when something is due, what came of it, and who is told.

mod attempt;
mod means;
mod shown;

use std::{path::PathBuf, sync::Arc, time::Duration};

use instant_acme::HttpClient;
use mesh_proto::Value;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use self::means::means;
use super::Domain;
use super::account::About;
use super::check::{Checked, check};
use super::client::Client;
use super::der::Certificate;
use super::files::{CertificateFile, Files};
use super::pace::{Counted, Tries, forbidden, set_of};
use super::record::{News, Record, Records, TURN_S, Turn, may_go, steps_back};
use super::refusal::OrderError;
use super::renewal::{Plan, Window, name_of, shown_name};
use super::report::{Report, SERVED};
use super::solve::Solver;
use crate::config::{Directory, TlsConfig};
use crate::store::files::FileError;
use crate::tls::local_ca::WallClock;

/// How often a node that orders says so anew.
const TURN_EVERY: Duration = Duration::from_secs(60);
/// How long what is said in a household takes to be heard by all, mostly.
const SETTLE: Duration = Duration::from_secs(2);
/// Until a node that waits for its turn looks again, in seconds.
const WAIT_S: u64 = 15;
/// Until a clock that is not known to be right is looked at again, in seconds.
const CLOCK_S: u64 = 60;
/// Until the disk is tried again, in seconds.
const DISK_S: u64 = 600;
/// The longest sleep: a clock that is set in between is noticed.
const LONGEST_SLEEP: u64 = 3_600;
/// The same after a failure: a file that was missing and is there now is noticed sooner.
const MENDED_S: u64 = 60;

/// Serves a certificate from now on to whoever asks for one of the names.
pub type Serve = Box<dyn Fn(Arc<CertifiedKey>, Vec<Domain>) + Send + Sync>;

/// What the owner is made of.
pub struct EngineParts<S> {
    /// The settings; there are domains.
    pub config: TlsConfig,
    /// Its folder.
    pub folder: PathBuf,
    /// HTTP to the authority.
    pub transport: Arc<dyn HttpClient>,
    /// How proofs come to where the authority looks.
    pub solver: S,
    /// What the household knows.
    pub records: Records,
    /// Where certificates are served from.
    pub serve: Serve,
    /// What is shown.
    pub report: watch::Sender<Report>,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// Nothing is due, or it is not time.
    Nothing,
    /// There is a new certificate, and it is served.
    Renewed,
    /// The authority's directory for tries is satisfied: the next attempt counts.
    Passed,
    /// An attempt failed.
    Failed,
}

/// A look at what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What came of it.
    pub did: Did,
    /// When to look again, in seconds since 1970.
    pub next: u64,
}

/// The certificate that is served.
struct Held {
    validity: (u64, u64),
    /// SHA-256 of it.
    fingerprint: String,
    /// How the authority knows it.
    name: Option<(Vec<u8>, Vec<u8>)>,
    /// What it is made out to.
    names: Vec<String>,
    /// Whether it is what the settings ask for.
    fits: bool,
}

/// The owner.
pub struct Engine<S> {
    config: TlsConfig,
    files: Files,
    client: Client,
    solver: S,
    records: Records,
    serve: Serve,
    report: watch::Sender<Report>,
    held: Option<Held>,
    plan: Option<Plan>,
    tries: Tries,
    /// Whether the folder was read.
    is_loaded: bool,
    /// What was wrong with the folder at the last look, and when.
    broken: Option<(u64, String)>,
    /// Whether a turn of this node may be in its record.
    has_turn: bool,
    /// What the household was told last.
    told: Option<(Value, Counted)>,
}

impl<S: Solver> Engine<S> {
    /// Serves the certificate that was served before, and reads what else there is. What cannot be read now is read again at
    /// each look, and nothing is ordered before.
    pub async fn open(parts: EngineParts<S>) -> Self {
        let mut engine = Self {
            files: Files::new(&parts.folder),
            client: Client::new(parts.transport),
            solver: parts.solver,
            records: parts.records,
            serve: parts.serve,
            report: parts.report,
            held: None,
            plan: None,
            tries: Tries::default(),
            is_loaded: false,
            broken: None,
            // One that was killed while it ordered.
            has_turn: true,
            told: None,
            config: parts.config,
        };
        if let Err(error) = engine.load().await {
            warn!(%error, "the folder of certificates cannot be read");
        }
        engine.show("nothing was looked at yet".to_owned(), None);
        engine
    }

    /// Reads the folder, once.
    async fn load(&mut self) -> Result<(), FileError> {
        if self.is_loaded {
            return Ok(());
        }
        if self.held.is_none()
            && let Some(saved) = self.files.certificate().await?
        {
            self.serve_saved(&saved);
        }
        let mut tries = self.files.tries().await?.unwrap_or_default();
        tries.begin(&wanted(&self.config));
        self.plan = self.files.plan().await?;
        self.tries = tries;
        self.is_loaded = true;
        Ok(())
    }

    /// Looks at what is due until the node stops, or forever where the disk fails.
    pub async fn run(mut self, clock: impl Fn() -> WallClock, mut shutdown: watch::Receiver<bool>) {
        loop {
            let look = tokio::select! {
                look = self.look(clock()) => look,
                // What is under way goes on by its URL at the next start.
                _ = shutdown.wait_for(|stops| *stops) => return,
            };
            let now = clock().unix;
            let longest = if self.tries.not_before > now { MENDED_S } else { LONGEST_SLEEP };
            let pause = look.next.saturating_sub(now).clamp(1, longest);
            tokio::select! {
                () = sleep(Duration::from_secs(pause)) => {}
                _ = shutdown.wait_for(|stops| *stops) => return,
            }
        }
    }

    /// Does what is due at this time, if anything is.
    pub async fn look(&mut self, clock: WallClock) -> Look {
        let now = clock.unix;
        if !clock.trusted {
            let why = "waits: this node's clock is not known to be right, and a certificate holds for a time (see `hearth doctor`)";
            return self.wait(why.to_owned(), now + CLOCK_S).await;
        }
        self.client.begin(now);
        self.broken = None;
        match self.due(now).await {
            Ok(None) => self.attempt(now).await,
            Ok(Some((why, next))) => self.wait(why, next).await,
            Err(error) => {
                warn!(%error, "the folder of certificates cannot be used");
                self.broken = Some((now, error.to_string()));
                self.wait(format!("waits: {error}"), now + DISK_S).await
            }
        }
    }

    /// Nothing, if an order is due and may be made now; else why not, and when to look again.
    async fn due(&mut self, now: u64) -> Result<Option<(String, u64)>, FileError> {
        self.load().await?;
        if self.tries.mend(now) {
            self.files.set_tries(&self.tries).await?;
        }
        self.plan_renewal(now).await?;
        if let (Some(Held { fits: true, .. }), Some(plan)) = (&self.held, &self.plan)
            && plan.at > now
        {
            return Ok(Some((SERVED.to_owned(), plan.at.min(plan.look).max(now + 1))));
        }
        self.lift_pause(now).await?;
        if self.tries.not_before > now {
            return Ok(Some(("waits after a failure".to_owned(), self.tries.not_before)));
        }
        let others = self.others(now).await;
        if !self.goes_to_trial() {
            let counted = self.household(&others);
            if let Some((until, limit)) = forbidden(now, &counted, &self.set(), self.replaces().is_some()) {
                let why = format!(
                    "waits: the household has had {} {}, as many as the authority grants",
                    limit.most, limit.of
                );
                return Ok(Some((why, until)));
            }
        }
        Ok(self.take_turn(now, &others).await)
    }

    /// Ends the pause after a failure, once, when there are other means than those that failed.
    async fn lift_pause(&mut self, now: u64) -> Result<(), FileError> {
        if self.tries.not_before > now && self.tries.lift(&means(&self.config).await) {
            info!(
                "the settings of the certificate, or a file that they name, have changed: it is tried again"
            );
            self.files.set_tries(&self.tries).await?;
        }
        Ok(())
    }

    /// Nothing, once it is this node's turn; else why it waits.
    async fn take_turn(
        &mut self,
        now: u64,
        others: &[(mesh_proto::ShortId, Record)],
    ) -> Option<(String, u64)> {
        let me = self.records.me();
        let waits = |why: &str| Some((why.to_owned(), now + WAIT_S));
        if !may_go(me, now, others) {
            self.tell_turn(Some(Turn { orders: false, until: now + TURN_S })).await;
            return waits("waits for its turn: another node of the household orders first");
        }
        if !self.tell_turn(Some(Turn { orders: true, until: now + TURN_S })).await {
            return waits("waits for its turn: the household cannot be told of it now");
        }
        if others.is_empty() {
            return None;
        }
        // Somebody else may have seen the same, and said the same at the same time.
        sleep(SETTLE).await;
        if steps_back(me, now, &self.others(now).await) {
            self.tell_turn(Some(Turn { orders: false, until: now + TURN_S })).await;
            return waits("waits for its turn: another node began at the same time");
        }
        None
    }

    /// Decides when the certificate that is served is renewed, and asks the authority what it suggests when that is due.
    async fn plan_renewal(&mut self, now: u64) -> Result<(), FileError> {
        let Some(held) = &self.held else { return Ok(()) };
        let known = self.plan.take().filter(|plan| plan.certificate == held.fingerprint);
        let mut plan = known.clone().unwrap_or_else(|| Plan::new(&held.fingerprint, held.validity, chance()));
        plan.mend(now);
        // What is due stays due: it may be under way.
        if held.fits && plan.look <= now && plan.at > now {
            match self.suggested(held).await {
                Some(window) => plan.suggest(now, window, held.validity, chance()),
                None => plan.keep(now),
            }
        }
        plan.rest(self.tries.made, held.validity);
        let is_news = known.as_ref() != Some(&plan);
        self.plan = Some(plan.clone());
        if is_news { self.files.set_plan(&plan).await } else { Ok(()) }
    }

    /// What the authority suggests for the certificate, if it suggests anything (RFC 9773).
    async fn suggested(&self, held: &Held) -> Option<Window> {
        let name = shown_name(held.name.as_ref()?);
        let asked = async {
            let about = About::read(&self.client, self.config.directory.url()).await?;
            let Some(url) = about.renewal_info else { return Ok(None) };
            let (document, again) = self.client.get(&format!("{}/{name}", url.trim_end_matches('/'))).await?;
            Ok(Window::read(&document, again))
        };
        asked.await.unwrap_or_else(|error: OrderError| {
            info!(%error, "when to renew is not known from the authority now");
            None
        })
    }

    fn serve_saved(&mut self, saved: &CertificateFile) {
        let names: Result<Vec<Domain>, _> = saved.domains.iter().map(|name| name.parse()).collect();
        let begins = CertificateDer::from_pem_slice(saved.chain.as_bytes())
            .ok()
            .and_then(|leaf| Certificate::read(&leaf).ok().map(|read| read.not_before));
        let (Ok(names), Some(begins)) = (names, begins) else { return };
        match check(&saved.chain, &saved.key.0, &names, begins, None) {
            Ok(checked) => {
                let fits = saved.directory == self.config.directory.url()
                    && set_of(saved.domains.iter().map(String::as_str)) == self.set()
                    && saved.profile == self.config.profile;
                self.held = Some(held(&checked, saved.domains.clone(), fits));
                (self.serve)(checked.key, names);
            }
            Err(error) => {
                warn!(%error, "the saved public certificate is not served, and a new one is ordered")
            }
        }
    }

    /// The certificate that the next order takes the place of, if the authority has suggested when.
    fn replaces(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let held = self.held.as_ref().filter(|held| held.fits)?;
        self.plan.as_ref()?.window?;
        held.name.clone()
    }

    fn goes_to_trial(&self) -> bool {
        self.tries.trial && self.config.directory == Directory::LetsEncrypt
    }

    fn set(&self) -> String {
        let names: Vec<String> = self.config.domains.iter().map(ToString::to_string).collect();
        set_of(names.iter().map(String::as_str))
    }

    fn names(&self) -> String {
        self.config.domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    async fn others(&self, now: u64) -> Vec<(mesh_proto::ShortId, Record)> {
        self.records.others(now).await.unwrap_or_else(|error| {
            info!(%error, "what the other nodes have had of the authority is not known now");
            Vec::new()
        })
    }

    /// What this node and the others have had.
    fn household(&self, others: &[(mesh_proto::ShortId, Record)]) -> Vec<Counted> {
        let counted = others.iter().map(|(_, record)| record.counted.clone());
        counted.chain([self.tries.counted.clone()]).collect()
    }

    async fn wait(&mut self, why: String, next: u64) -> Look {
        if !why.starts_with("waits for its turn") {
            self.tell_turn(None).await;
        }
        self.show(why, Some(next));
        self.tell().await;
        Look { did: Did::Nothing, next }
    }

    /// Tells the household of this node's turn, if that is news; whether it knows.
    async fn tell_turn(&mut self, turn: Option<Turn>) -> bool {
        if turn.is_none() && !self.has_turn {
            return true;
        }
        let is_told = self.records.tell(vec![News::Turn(turn)]).await;
        // One that may be in the record, for all that is known, is to be taken back.
        self.has_turn = turn.is_some() || !is_told;
        is_told
    }

    /// Tells the household how it is with the certificate, if that is news.
    async fn tell(&mut self) {
        let now = (self.standing(), self.tries.counted.clone());
        if self.told.as_ref() != Some(&now)
            && self.records.tell(vec![News::Standing(now.0.clone()), News::Counted(now.1.clone())]).await
        {
            self.told = Some(now);
        }
    }
}

fn held(checked: &Checked, names: Vec<String>, fits: bool) -> Held {
    let hash = ring::digest::digest(&ring::digest::SHA256, &checked.leaf);
    Held {
        validity: checked.validity,
        fingerprint: data_encoding::HEXLOWER.encode(hash.as_ref()),
        name: Certificate::read(&checked.leaf).ok().as_ref().and_then(name_of),
        names,
        fits,
    }
}

/// What the settings ask for: other settings are tried afresh.
fn wanted(config: &TlsConfig) -> String {
    let names: Vec<String> = config.domains.iter().map(ToString::to_string).collect();
    let profile = config.profile.as_deref().unwrap_or_default();
    let (directory, challenge) = (config.directory.url(), config.challenge.as_str());
    set_of([names.join(" ").as_str(), directory, challenge, &format!("profile {profile}")])
}

/// A number by chance. A system without any gives 0, which is as good as another here.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    let _fills_or_stays_zero = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
