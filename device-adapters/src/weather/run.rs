//! The sockets and the clock of a weather adapter; [`Station`] decides.

use std::future::{Future, pending};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::adapter::{AdapterError, Context};
use crate::ending::{pass_on, stopped};
use crate::http::{AGENT, Client, Origin, public_tls};
use crate::model::Description;

use super::config::Config;
use super::fetch::{Outcome, fetch};
use super::station::Station;
use super::trouble;
use super::{About, Service};

/// A request under way; it owns the client and gives it back.
type Asking<A> = Pin<Box<dyn Future<Output = (Client, Outcome<A>)> + Send>>;

/// Whom an adapter asks, and how.
pub(crate) struct Server {
    /// The path before the service's own.
    pub(crate) base: String,
    adapter: &'static str,
    description: Description,
    refresh: Duration,
    /// That of [`Config::number`].
    settings: u64,
    client: Client,
}

impl Server {
    /// The one of the settings, or the public one. It is told the name of this program and whom it can reach.
    ///
    /// # Errors
    /// [`AdapterError::Unreachable`] where TLS is needed and this system trusts no certificate.
    pub(crate) fn new(about: &About, config: &Config, public: &str) -> Result<Self, AdapterError> {
        let unreachable = |what| AdapterError::Unreachable { adapter: about.adapter, what };
        let (origin, base) = match &config.server {
            Some(server) => server.clone(),
            None => Origin::parse(public).map_err(|error| unreachable(error.to_string()))?,
        };
        let tls = origin.tls.then(public_tls).transpose().map_err(unreachable)?;
        let agent = match &config.contact {
            Some(contact) => format!("{AGENT} {contact}"),
            None => AGENT.to_owned(),
        };
        let description = about.describe(config.name.as_deref(), &origin)?;
        let client = Client::new(origin, config.route.clone(), tls).with_agent(agent);
        let (adapter, refresh, settings) = (about.adapter, config.refresh, config.number);
        Ok(Self { base, adapter, description, refresh, settings, client })
    }
}

/// Runs a service until shutdown, or until another board should try.
pub(crate) async fn run<S: Service + Sync>(
    service: S,
    server: Server,
    ctx: Context,
) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut shutdown, .. } = ctx;
    let service = Arc::new(service);
    let Server { adapter, description, refresh, settings, client, .. } = server;
    let mut station = Station::new(adapter, service.clone(), description, refresh, seed(), Instant::now());
    if let Some(trouble) = trouble::take(adapter, settings, Instant::now()) {
        station.go_on_from(trouble);
    }
    let mut idle = Some(client);
    let mut asking: Option<Asking<S::Answer>> = None;
    loop {
        let now = Instant::now();
        station.handle_timeout(now);
        if let Some(error) = station.gives_up(now) {
            pass_on(&readings, || station.poll_reading());
            if let Some(trouble) = station.into_trouble() {
                trouble::leave(adapter, settings, trouble);
            }
            return Err(error);
        }
        if station.is_due(now)
            && let Some(client) = idle.take()
        {
            asking = Some(ask(client, service.clone(), station.last_modified()));
        }
        let is_asking = asking.is_some();
        // Commands are taken even while readings wait: a node that waits for us to take a command
        // before it reads on would otherwise wait for ever.
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Ok(()),
            permit = readings.reserve(), if station.has_reading() => match permit {
                Ok(permit) => if let Some(reading) = station.poll_reading() { permit.send(reading) },
                Err(_) => return Ok(()),
            },
            directive = commands.recv(), if station.has_room() => match directive {
                Some(directive) => station.handle_directive(Instant::now(), directive),
                None => return Ok(()),
            },
            (client, outcome) = answer(&mut asking) => {
                (idle, asking) = (Some(client), None);
                station.handle_outcome(Instant::now(), Timestamp::now().as_second(), outcome);
            }
            () = until(station.poll_timeout(is_asking)) => {}
        }
    }
}

fn ask<S: Service + Sync>(
    mut client: Client,
    service: Arc<S>,
    last_modified: Option<String>,
) -> Asking<S::Answer> {
    Box::pin(async move {
        let outcome = fetch(&mut client, &*service, last_modified.as_deref()).await;
        (client, outcome)
    })
}

/// What comes of a request under way; never, where there is none. Safe to cancel.
async fn answer<A>(asking: &mut Option<Asking<A>>) -> (Client, Outcome<A>) {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Another one each time, on each board.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
