//! The owner of a node's certificate without its node: the test says what time it is.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use device_adapters::web::Web;
use hearth_tests::{
    daemon::Folder,
    pebble::{Names, Pebble, Plan, Proxy, Seen, Step},
};
use node::{
    config::tls::{Challenge, Directory, TlsConfig},
    tls::{
        WallClock,
        acme::{
            Domain,
            client::Https,
            engine::{Did, Engine, EngineParts, Look},
            record::Records,
            report::Report,
            solve::{ProofBy, SolveError, Solver},
        },
    },
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

pub(crate) const HOUR: u64 = 3_600;
pub(crate) const DAY: u64 = 24 * HOUR;
/// The name that most of these tests are about.
pub(crate) const NAME: &str = "one.hearth.test";

/// Puts values into the name server of the tests.
struct Txt(Arc<Names>);

fn record(domain: &Domain) -> String {
    format!("_acme-challenge.{}", domain.base())
}

impl Solver for Txt {
    async fn publish(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        let ProofBy::Dns { value } = proof else { return Err(SolveError("not a TXT record".into())) };
        let done = self.0.text(&record(domain), value).await;
        done.map_err(|error| SolveError(error.to_string()))
    }

    async fn withdraw(&self, domain: &Domain, _: &ProofBy) {
        self.0.no_text(&record(domain)).await.unwrap();
    }
}

/// An owner, its authority, and its time.
pub(crate) struct Owner {
    pub(crate) pebble: Pebble,
    pub(crate) proxy: Proxy,
    /// In seconds since 1970.
    pub(crate) now: u64,
    /// What is shown.
    pub(crate) report: watch::Receiver<Report>,
    pub(crate) folder: Folder,
    config: TlsConfig,
    served: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    engine: Engine<Txt>,
}

impl Owner {
    /// One that wants a certificate for these names, whose authority refuses no nonce.
    pub(crate) async fn of(names: &[&str]) -> Self {
        Self::with(names, Plan { refused_nonces: 0, ..Plan::new(1, 1) }).await
    }

    pub(crate) async fn with(names: &[&str], plan: Plan) -> Self {
        let pebble = Pebble::start(plan).await.unwrap();
        let proxy = pebble.proxy().await.unwrap();
        let config = TlsConfig {
            domains: names.iter().map(|name| name.parse().unwrap()).collect(),
            directory: Directory::Other(proxy.directory()),
            challenge: Challenge::Dns,
            // Where none is asked for, Pebble takes one by chance.
            profile: Some("default".to_owned()),
            ..TlsConfig::default()
        };
        let folder = Folder::new().unwrap();
        let served = Arc::default();
        let (engine, report) = open(&pebble, pebble.listener().root_pem(), &config, &folder, &served).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Self { pebble, proxy, now, report, folder, config, served, engine }
    }

    /// Begins anew on the same folder, as a node that was started again; this PEM text says whom it trusts.
    pub(crate) async fn again(&mut self, root: &str) {
        (self.engine, self.report) = open(&self.pebble, root, &self.config, &self.folder, &self.served).await;
    }

    /// Looks at what is due now.
    pub(crate) async fn look(&mut self) -> Look {
        self.engine.look(WallClock { unix: self.now, trusted: true }).await
    }

    /// Looks whenever it wants to, up to this time.
    pub(crate) async fn look_until(&mut self, end: u64) -> Vec<(u64, Look)> {
        let mut looks = Vec::new();
        while self.now < end {
            let look = self.look().await;
            assert!(look.next > self.now, "it would look for ever: {look:?}");
            looks.push((self.now, look));
            self.now = look.next;
        }
        looks
    }

    /// Has a certificate now.
    pub(crate) async fn certified(&mut self) -> CertificateDer<'static> {
        let look = self.look().await;
        assert_eq!(look.did, Did::Renewed, "{:?}; {:#?}", self.report.borrow(), self.proxy.steps());
        self.served().pop().unwrap()
    }

    /// Each certificate that was served so far.
    pub(crate) fn served(&self) -> Vec<CertificateDer<'static>> {
        self.served.lock().unwrap().clone()
    }

    /// What was wrong last, as people are shown it.
    pub(crate) fn wrong(&self) -> String {
        self.report.borrow().error.as_ref().map(|wrong| wrong.words.clone()).unwrap_or_default()
    }

    /// The requests of a step.
    pub(crate) fn seen(&self, step: Step) -> Vec<Seen> {
        self.proxy.seen().into_iter().filter(|seen| seen.step == step).collect()
    }

    /// Takes one of its files away.
    pub(crate) fn lose(&self, file: &str) {
        fs::remove_file(self.folder.join("acme").join(file)).unwrap();
    }
}

async fn open(
    pebble: &Pebble,
    root: &str,
    config: &TlsConfig,
    folder: &Folder,
    served: &Arc<Mutex<Vec<CertificateDer<'static>>>>,
) -> (Engine<Txt>, watch::Receiver<Report>) {
    let (report, shown) = watch::channel(Report::default());
    let served = served.clone();
    let parts = EngineParts {
        config: config.clone(),
        folder: folder.join("acme"),
        transport: Arc::new(Https::over(Web::trusting(root.as_bytes()).unwrap())),
        solver: Txt(pebble.names.clone()),
        records: Records::alone("0000000000000001".parse().unwrap()),
        serve: Box::new(move |key, _| served.lock().unwrap().push(key.cert[0].clone())),
        report,
    };
    (Engine::open(parts).await, shown)
}

/// Whether no window of this length holds more of these moments.
pub(crate) fn within(moments: &[u64], most: usize, seconds: u64) -> bool {
    moments
        .iter()
        .all(|from| moments.iter().filter(|at| (*from..*from + seconds).contains(at)).count() <= most)
}
