//! A real certificate authority: Pebble, with the name server that it asks, and a [`Proxy`] before it that counts and
//! disturbs.
//!
//! All of them listen where [`Plan`] says, on ports of their own. A test in a network namespace runs them there, for
//! programs and sockets are where the thread is that starts them.

mod listener;
mod names;
mod proxy;
mod seen;
mod served;
mod web;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::daemon::{Folder, PATIENCE, free_port, wait_until};

pub use listener::Listener;
pub use names::Names;
pub use proxy::{Canned, Fault, Proxy, Rule};
pub use seen::{Seen, Step};
pub use served::{presented, trusting};
pub use web::{Reply, Trust, ask};

/// How many sets of ports are tried: somebody else may take one between the look and the start.
const MOST_TRIES: usize = 8;

/// How a certificate authority is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it listens, and its name server.
    pub address: IpAddr,
    /// The port on which it looks for answers to HTTP-01.
    pub http_port: u16,
    /// The port on which it looks for answers to TLS-ALPN-01.
    pub tls_port: u16,
    /// How many of a hundred good nonces it refuses.
    pub refused_nonces: u8,
    /// Another name server than its own.
    pub dns: Option<SocketAddr>,
}

impl Plan {
    /// On loopback; it looks at these ports, and refuses every twentieth nonce.
    #[must_use]
    pub fn new(http_port: u16, tls_port: u16) -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), http_port, tls_port, refused_nonces: 5, dns: None }
    }
}

/// A certificate authority with its name server. It ends when dropped.
#[derive(Debug)]
pub struct Pebble {
    /// Its name server.
    pub names: Arc<Names>,
    plan: Plan,
    acme: SocketAddr,
    management: SocketAddr,
    listener: Listener,
    process: Option<Child>,
    folder: Folder,
}

impl Pebble {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed, or does not answer in time.
    pub async fn start(plan: Plan) -> Result<Self> {
        let folder = Folder::new()?;
        let listener = Listener::make(plan.address)?;
        let names = Arc::new(Names::start(plan.address).await?);
        let nowhere = SocketAddr::new(plan.address, 0);
        let mut pebble =
            Self { names, plan, acme: nowhere, management: nowhere, listener, process: None, folder };
        for _ in 0..MOST_TRIES {
            pebble.acme = SocketAddr::new(pebble.plan.address, free_port()?);
            pebble.management = SocketAddr::new(pebble.plan.address, free_port()?);
            if pebble.begin().await? {
                return Ok(pebble);
            }
        }
        bail!("pebble started on none of {MOST_TRIES} pairs of ports: {}", pebble.log())
    }

    /// Starts the program; false when it ends at once, as it does when a port is taken.
    async fn begin(&mut self) -> Result<bool> {
        let (certificate, key) = (self.folder.join("listener.pem"), self.folder.join("listener.key"));
        fs::write(&certificate, self.listener.certificate_pem())?;
        fs::write(&key, self.listener.key_pem())?;
        let config = self.folder.join("pebble.json");
        fs::write(&config, self.config(&certificate, &key).to_string())?;
        let log = fs::File::create(self.folder.join("pebble.log"))?;
        let dns = self.plan.dns.unwrap_or_else(|| self.names.address());
        let mut command = Command::new(program("pebble")?);
        command.arg("-config").arg(&config).args(["-dnsserver", &dns.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_WFE_NONCEREJECT", self.plan.refused_nonces.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut process = command.spawn().context("pebble does not start")?;
        let mut runs = false;
        wait_until("pebble answers, or ends", PATIENCE, async || {
            if process.try_wait()?.is_some() {
                return Ok(true);
            }
            // Both listeners: the one for its management is opened first.
            self.management("GET", "/roots/0", "").await?;
            let reply = ask(self.acme, &self.listener.trust()?, "GET", "/dir", &[], "").await?;
            ensure!(reply.status == 200, "pebble answered {reply:?}");
            runs = true;
            Ok(runs)
        })
        .await?;
        self.process = runs.then_some(process);
        Ok(runs)
    }

    fn config(&self, certificate: &Path, key: &Path) -> Value {
        json!({ "pebble": {
            "listenAddress": self.acme,
            "managementListenAddress": self.management,
            "certificate": certificate,
            "privateKey": key,
            "httpPort": self.plan.http_port,
            "tlsPort": self.plan.tls_port,
            "domainBlocklist": ["blocked.test"],
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": {
                "default": { "description": "Ninety days", "validityPeriod": 7_776_000 },
                "shortlived": { "description": "Six days", "validityPeriod": 518_400 },
                "minutes": { "description": "Four minutes", "validityPeriod": 240 },
                "minute": { "description": "A little more than a minute", "validityPeriod": 70 },
            },
        }})
    }

    /// Where it listens, without a proxy before it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acme
    }

    /// With which certificate it and what stands before it listen.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// A proxy before it.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn proxy(&self) -> Result<Proxy> {
        Proxy::start(self.acme, &self.listener).await
    }

    /// The root of the certificates that it issues, in PEM. It is another after each start.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn root(&self) -> Result<String> {
        self.management("GET", "/roots/0", "").await
    }

    /// What it answers from now on to whoever asks when to renew this certificate, be it nonsense.
    ///
    /// # Errors
    /// When it did not issue it.
    pub async fn renewal_info(&self, certificate_pem: &str, answer: &str) -> Result<()> {
        let body = json!({ "certificate": certificate_pem, "ariResponse": answer }).to_string();
        self.management("POST", "/set-renewal-info/", &body).await.map(|_| ())
    }

    async fn management(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let reply = ask(self.management, &self.listener.trust()?, method, path, &[], body.to_owned()).await?;
        ensure!(reply.status == 200, "pebble's management answered {reply:?}");
        Ok(reply.text())
    }

    /// Ends it, as a power cut does. All that it knew is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        Ok(process.kill().await?)
    }

    /// Starts it again at the same place, with another root and without any account.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn again(&mut self) -> Result<()> {
        ensure!(self.begin().await?, "pebble does not start again at {}: {}", self.acme, self.log());
        Ok(())
    }

    /// What it has said since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("pebble.log")).unwrap_or_default()
    }
}

/// One of the programs that tests/setup fetched.
fn program(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/pebble/usr/bin").join(name);
    ensure!(path.exists(), "{} is missing: run tests/setup, which fetches it", path.display());
    Ok(path)
}
