//! The owner of a node's certificate without its node: the test says what time it is.

use std::{
    fs,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    time::SystemTime,
};

use device_adapters::web::Web;
use hearth_tests::{
    daemon::Folder,
    pebble::{Names, Pebble, Plan, Proxy, Seen, Step},
};
use hyper::{Request, body::Bytes};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
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
use tokio::{sync::watch, task::spawn_blocking};

pub(crate) const HOUR: u64 = 3_600;
pub(crate) const DAY: u64 = 24 * HOUR;
/// The name that most of these tests are about.
pub(crate) const NAME: &str = "one.hearth.test";

/// Puts values into the name server of the tests.
pub(crate) struct Txt(Arc<Names>);

fn record(domain: &Domain) -> String {
    format!("_acme-challenge.{}", domain.base())
}

impl Solver for Txt {
    async fn publish(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        let ProofBy::Dns { value } = proof else { return Err(SolveError("not a TXT record".into())) };
        let done = in_real_time(self.0.text(&record(domain), value)).await;
        done.map_err(|error| SolveError(error.to_string()))
    }

    async fn withdraw(&self, domain: &Domain, _: &ProofBy) {
        in_real_time(self.0.no_text(&record(domain))).await.unwrap();
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
    board: Board,
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
        let config = config(names, Directory::Other(proxy.directory()));
        let me = Records::alone("0000000000000001".parse().unwrap());
        let board = Board::new(config, me, &pebble.names, transport(pebble.listener().root_pem()));
        let (engine, report) = board.open().await;
        Self { pebble, proxy, now: now(), report, board, engine }
    }

    /// Begins anew on the same folder, as a node that was started again; this PEM text says whom it trusts.
    pub(crate) async fn again(&mut self, root: &str) {
        self.board.transport = transport(root);
        (self.engine, self.report) = self.board.open().await;
    }

    /// The same with another profile in its settings.
    pub(crate) async fn asks_for(&mut self, profile: &str) {
        self.board.config.profile = Some(profile.to_owned());
        (self.engine, self.report) = self.board.open().await;
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
        self.board.served.lock().unwrap().clone()
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
        fs::remove_file(self.board.folder.join("acme").join(file)).unwrap();
    }
}

/// What an owner is made of, and what of it stays over a restart.
pub(crate) struct Board {
    config: TlsConfig,
    records: Records,
    names: Arc<Names>,
    transport: Arc<dyn HttpClient>,
    folder: Folder,
    served: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl Board {
    pub(crate) fn new(
        config: TlsConfig,
        records: Records,
        names: &Arc<Names>,
        transport: Arc<dyn HttpClient>,
    ) -> Self {
        let (names, folder, served) = (names.clone(), Folder::new().unwrap(), Arc::default());
        Self { config, records, names, transport, folder, served }
    }

    /// Begins on its folder, for the first time or anew.
    pub(crate) async fn open(&self) -> (Engine<Txt>, watch::Receiver<Report>) {
        let (report, shown) = watch::channel(Report::default());
        let served = self.served.clone();
        let parts = EngineParts {
            config: self.config.clone(),
            folder: self.folder.join("acme"),
            transport: self.transport.clone(),
            solver: Txt(self.names.clone()),
            records: self.records.clone(),
            serve: Box::new(move |key, _| served.lock().unwrap().push(key.cert[0].clone())),
            report,
        };
        (Engine::open(parts).await, shown)
    }
}

/// Settings for these names at this directory, whose default profile is asked for: where none is, Pebble takes one by chance.
pub(crate) fn config(names: &[&str], directory: Directory) -> TlsConfig {
    TlsConfig {
        domains: names.iter().map(|name| name.parse().unwrap()).collect(),
        directory,
        challenge: Challenge::Dns,
        profile: Some("default".to_owned()),
        ..TlsConfig::default()
    }
}

/// The way to an authority for which this PEM text vouches.
pub(crate) fn transport(root: &str) -> Arc<dyn HttpClient> {
    Arc::new(InRealTime(Https::over(Web::trusting(root.as_bytes()).unwrap())))
}

/// A look in which what is waited for passes at once, unless somebody is asked: see [`in_real_time`].
pub(crate) async fn quickly<T>(look: impl Future<Output = T>) -> T {
    tokio::time::pause();
    let looked = look.await;
    tokio::time::resume();
    looked
}

/// Asks somebody outside of this program. A paused clock runs on as soon as nobody here has anything to do, unless a thread is
/// busy.
async fn in_real_time<T>(asks: impl Future<Output = T>) -> T {
    let (ends, ended) = mpsc::channel::<()>();
    let standing = spawn_blocking(move || ended.recv());
    let answered = asks.await;
    drop(ends);
    // It ends because nobody sends.
    drop(standing.await);
    answered
}

/// Asks an authority.
struct InRealTime(Https);

impl HttpClient for InRealTime {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        Box::pin(in_real_time(self.0.request(request)))
    }
}

/// What an authority answers.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

/// In seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Whether no window of this length holds more of these moments.
pub(crate) fn within(moments: &[u64], most: usize, seconds: u64) -> bool {
    moments
        .iter()
        .all(|from| moments.iter().filter(|at| (*from..*from + seconds).contains(at)).count() <= most)
}
