//! Lights and switches that speak the LIFX LAN protocol. This file is the sockets; [`driver`] decides: of the hardware on the
//! network each piece is a [`hardware`], which has one or several devices as its [`part`]s.
//!
//! Source: the public protocol documentation, <https://lan.developer.lifx.com>.

mod action;
mod basis;
mod chain;
mod cleaning;
mod command;
mod config;
mod driver;
mod face;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hardware;
mod identity;
mod infrared;
mod layout;
mod light;
mod line;
mod news;
mod output;
mod pace;
mod part;
mod pending;
mod poll;
mod products;
mod reading;
mod recipe;
mod relay;
mod rival;
mod sockets;
#[cfg(test)]
mod tests;
mod wire;
mod words;

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::ending::{pass_on, stopped};

use self::config::Config;
use self::driver::Driver;
use self::sockets::Sockets;

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "lifx";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "LIFX over the LAN",
        scope: Scope::Household,
        mdns: &[],
        shows_home: false,
        settings_schema: config::schema,
    },
    build,
};

/// While more readings than this wait for a slow node, nothing new is taken in.
const MOST_BACKLOG: usize = 1_024;
/// Errors of the socket in a row that end the run.
const MOST_ERRORS: u32 = 20;
/// Larger than every message; what is longer is cut and then dropped for its wrong length.
const BUFFER: usize = 2_048;

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(Lifx { config }))
}

struct Lifx {
    config: Config,
}

impl Adapter for Lifx {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(run(self.config, ctx))
    }
}

async fn run(config: Config, ctx: Context) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut shutdown, .. } = ctx;
    let mut sockets = Sockets::open(&config).await.map_err(|source| failed("use", &config, source))?;
    let mut driver = Driver::new(&config, random_source(), Instant::now());
    let mut buffer = [0; BUFFER];
    let mut errors = 0;
    loop {
        driver.handle_timeout(Instant::now());
        while let Some(datagram) = driver.poll_transmit() {
            sockets.send(&datagram).await;
        }
        let free = driver.backlog() < MOST_BACKLOG;
        // Commands are taken even while readings wait: a node that waits for us to take a command
        // before it reads on would otherwise wait for ever.
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            permit = readings.reserve(), if driver.backlog() > 0 => match permit {
                Ok(permit) => if let Some(reading) = driver.poll_reading() { permit.send(reading) },
                Err(_) => return Ok(()),
            },
            directive = commands.recv(), if free => match directive {
                Some(directive) => driver.handle_directive(Instant::now(), directive),
                None => break,
            },
            received = sockets.receive(&mut buffer), if free => match received {
                Ok((length, from)) => {
                    errors = 0;
                    driver.handle_datagram(Instant::now(), from, buffer.get(..length).unwrap_or_default());
                }
                Err(source) => {
                    errors += 1;
                    if errors > MOST_ERRORS {
                        return Err(failed("receive", &config, source));
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            },
            () = sleep_until(driver.poll_timeout()) => {}
        }
    }
    driver.shut_down();
    pass_on(&readings, || driver.poll_reading());
    tracing::debug!(dropped = ?driver.dropped(), "LIFX adapter stopped");
    Ok(())
}

fn failed(what: &str, config: &Config, source: io::Error) -> AdapterError {
    AdapterError::Io { adapter: ID, what: format!("cannot {what} UDP {}", config.bind), source }
}

/// A number that tells answers to this run from those to others. Not zero: bulbs answer that one
/// to everybody (<https://lan.developer.lifx.com/docs/packet-contents>).
fn random_source() -> u32 {
    let random = RandomState::new().build_hasher().finish().to_le_bytes();
    let source = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
    source.max(2)
}
