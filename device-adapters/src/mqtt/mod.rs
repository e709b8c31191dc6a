//! Devices of other software at an MQTT broker, and this home's devices for others, by the announcements of Home
//! Assistant. This file is the connection; [`driver`] decides.
//!
//! Source: <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>. Lights, switches, buttons, sensors and
//! binary sensors are taken in; events and device triggers are not.

mod config;
mod driver;
mod export;
mod import;
mod link;
mod output;
mod template;
#[cfg(test)]
mod tests;
mod wire;
#[cfg(any(fuzzing, test))]
pub(crate) use import::fuzzing;

use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::ending::{pass_on, stopped};

use self::config::{Broker, Config};
use self::driver::Driver;
use self::link::{Event, Fault, Link};

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "mqtt";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "MQTT",
        scope: Scope::Single,
        mdns: &[],
        shows_home: true,
        settings_schema: config::schema,
    },
    build,
};

/// While more readings than this wait for a slow node, nothing new is taken in.
const MOST_BACKLOG: usize = 1_024;
/// While more messages than this wait for a slow broker, no directive is taken: more than what others can make wait.
const MOST_UNSENT: usize = 8_192;
/// How long the broker may be away before another board tries.
const GIVES_UP_AFTER: Duration = Duration::from_secs(10);
/// The first pause before it is tried again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that lasted so long counts as a good one.
const GOOD: Duration = Duration::from_secs(30);
/// So many bad ones in a row end the run.
const MOST_BAD: u32 = 8;

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(Mqtt { config }))
}

struct Mqtt {
    config: Config,
}

impl Adapter for Mqtt {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(run(self.config, ctx))
    }
}

async fn run(config: Config, ctx: Context) -> Result<(), AdapterError> {
    let Some(broker) = config.broker.clone() else {
        let what = "set `broker` to the address of the MQTT broker, such as 192.168.1.2, and `username` and \
                    `password` if it wants them";
        return Err(AdapterError::Unconfigured { adapter: ID, what: what.to_owned() });
    };
    let tls = if broker.tls { Some(link::tls(&config).await?) } else { None };
    let Context { readings, mut commands, mut shutdown, .. } = ctx;
    let mut driver = Driver::new(&config, broker.to_string());
    let client_id = format!("{}-{:08x}", config.client_id, random() & 0xffff_ffff);
    let will = driver.status_topic().to_owned();
    let mut line = Line::new(broker);
    let ended = loop {
        let now = Instant::now();
        driver.handle_timeout(now);
        if let Err(error) = line.check(now) {
            break Err(error);
        }
        if line.is_due(now) {
            line.link = Some(Link::start(&config, &line.broker, tls.clone(), &client_id, &will));
        }
        line.send(&mut driver);
        let backlog = driver.backlog();
        let free = backlog < MOST_BACKLOG;
        let wake = line.poll_timeout().into_iter().chain(driver.poll_timeout(now)).min();
        // Commands are taken even while readings wait: a node that waits for us to take a command
        // before it reads on would otherwise wait for ever.
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break Ok(()),
            permit = readings.reserve(), if backlog > 0 => match permit {
                Ok(permit) => if let Some(reading) = driver.poll_reading() { permit.send(reading) },
                Err(_) => break Ok(()),
            },
            directive = commands.recv(), if free && driver.unsent() < MOST_UNSENT => match directive {
                Some(directive) => driver.directive(Instant::now(), directive),
                None => break Ok(()),
            },
            event = line.next(free) => {
                if let Err(error) = line.handle(event, &mut driver) {
                    break Err(error);
                }
            }
            () = until(wake) => {}
        }
    };
    driver.shut_down(if ended.is_ok() { "the MQTT adapter stops" } else { "the MQTT broker is lost" });
    pass_on(&readings, || driver.poll_reading());
    line.end(&mut driver).await;
    tracing::debug!(dropped = ?driver.dropped(), "MQTT adapter stopped");
    ended
}

/// The connection, and the attempts to make it.
struct Line {
    broker: Broker,
    link: Option<Link>,
    up_since: Option<Instant>,
    down_since: Instant,
    retry_at: Instant,
    pause: Duration,
    bad: u32,
    why: String,
}

impl Line {
    fn new(broker: Broker) -> Self {
        let now = Instant::now();
        Self {
            broker,
            link: None,
            up_since: None,
            down_since: now,
            retry_at: now,
            pause: FIRST_PAUSE,
            bad: 0,
            why: "it does not answer".to_owned(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.link.is_none() && self.retry_at <= now
    }

    /// Whether it makes sense to go on.
    fn check(&self, now: Instant) -> Result<(), AdapterError> {
        let is_late = self.up_since.is_none() && now >= self.down_since + GIVES_UP_AFTER;
        if !is_late && self.bad < MOST_BAD {
            return Ok(());
        }
        let what = format!("there is no connection with the broker {}: {}", self.broker, self.why);
        Err(AdapterError::Unreachable { adapter: ID, what })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.up_since.is_some() {
            return None;
        }
        let gives_up = self.down_since + GIVES_UP_AFTER;
        Some(if self.link.is_none() { self.retry_at.min(gives_up) } else { gives_up })
    }

    fn send(&mut self, driver: &mut Driver) {
        let Some(link) = self.link.as_mut().filter(|_| self.up_since.is_some()) else { return };
        while link.has_room() {
            match driver.poll_transmit() {
                Some(transmit) => link.send(transmit),
                None => return,
            }
        }
    }

    async fn next(&mut self, takes_messages: bool) -> Event {
        match &mut self.link {
            Some(link) => link.next(takes_messages).await,
            None => pending().await,
        }
    }

    fn handle(&mut self, event: Event, driver: &mut Driver) -> Result<(), AdapterError> {
        let now = Instant::now();
        match event {
            Event::Up => {
                tracing::info!(broker = %self.broker, "connected to the MQTT broker");
                self.up_since = Some(now);
                driver.connected(now);
            }
            Event::Message { topic, payload, retained } => driver.message(now, &topic, &payload, retained),
            Event::Published(token, result) => driver.published(now, token, &result),
            Event::Down(Fault::Refused(why)) => {
                let what = format!(
                    "the broker {} does not let Hearth in ({why}): check `username` and `password`",
                    self.broker
                );
                return Err(AdapterError::Refused { adapter: ID, what });
            }
            Event::Down(Fault::Broken(why)) => self.lost(now, why, driver),
        }
        Ok(())
    }

    fn lost(&mut self, now: Instant, why: String, driver: &mut Driver) {
        self.link = None;
        if let Some(since) = self.up_since.take() {
            tracing::warn!(broker = %self.broker, why, "the connection with the MQTT broker is lost");
            self.down_since = now;
            self.bad = if now >= since + GOOD { 0 } else { self.bad + 1 };
            self.pause = FIRST_PAUSE;
            driver
                .disconnected(now, &format!("the connection with the broker {} is lost: {why}", self.broker));
        }
        // Up to half as long again, so that boards which lost it together do not come back together.
        let jitter = self.pause.mul_f64(f64::from(u8::try_from(random() & 0x7f).unwrap_or(0)) / 256.0);
        self.retry_at = now + self.pause + jitter;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.why = why;
    }

    async fn end(self, driver: &mut Driver) {
        if let Some(link) = self.link.filter(|_| self.up_since.is_some()) {
            link.end(std::iter::from_fn(|| driver.poll_transmit()).take(64)).await;
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
