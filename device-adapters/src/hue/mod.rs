//! Philips Hue bridges by their own API on the LAN (CLIP, version 2). This file is the run loop; [`hub`] holds the bridges, and
//! [`driver`] decides for each.
//!
//! Source: <https://developers.meethue.com/develop/hue-api-v2/>. Bridges of the first generation (round) do not speak it. What is
//! trusted, and why, is told in [`tls`].

mod claims;
mod command;
mod config;
mod driver;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod home;
mod hub;
mod keys;
mod link;
mod news;
mod pace;
mod pairing;
mod places;
mod resource;
mod session;
mod sse;
#[cfg(test)]
mod tests;
mod tls;
mod view;
mod wire;

use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::ending::{pass_on, stopped};

use self::config::Config;
use self::hub::Hub;

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "hue";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "Philips Hue",
        scope: Scope::Single,
        mdns: &["_hue._tcp"],
        shows_home: false,
        settings_schema: config::schema,
    },
    build,
};

/// While more readings than this wait for a slow node, nothing new is taken in.
const MOST_BACKLOG: usize = 1_024;

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(Hue { config }))
}

struct Hue {
    config: Config,
}

impl Adapter for Hue {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(run(self.config, ctx))
    }
}

async fn run(config: Config, ctx: Context) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut hints, mut shutdown, .. } = ctx;
    let mut hub = Hub::new(config, Instant::now());
    let ended = loop {
        hub.turn(Instant::now());
        if let Some(error) = hub.verdict(Instant::now()) {
            hub.lose(&error.to_string());
            break Err(error);
        }
        let (free, backlog) = (hub.backlog() < MOST_BACKLOG, hub.backlog() > 0);
        let (wake, is_hinted, is_working) = (hub.poll_timeout(), hub.is_hinted(), hub.is_working());
        // Commands are taken even while readings wait: a node that waits for us to take a command
        // before it reads on would otherwise wait for ever.
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break Ok(()),
            permit = readings.reserve(), if backlog => match permit {
                Ok(permit) => if let Some(reading) = hub.poll_reading() { permit.send(reading) },
                Err(_) => return Ok(()),
            },
            Some(done) = hub.work.next(), if free && is_working => hub.done(Instant::now(), done),
            directive = commands.recv(), if free => match directive {
                Some(directive) => hub.handle_directive(Instant::now(), directive),
                None => break Ok(()),
            },
            Some((bridge, number, heard)) = hub.heard.recv(), if free => {
                hub.hear(Instant::now(), bridge, number, heard);
            }
            hint = hints.recv(), if free && is_hinted => hub.hint(Instant::now(), hint.as_ref()),
            () = sleep_until(wake) => {}
        }
    };
    hub.shut_down();
    pass_on(&readings, || hub.poll_reading());
    ended
}
