//! What adapters of hardware that is wired to a board share: the files of the kernel, reads that may hang, and the
//! bookkeeping of devices, polls and commands.
//!
//! An adapter says how its devices are listed, read and changed ([`Hardware`]); all of that may block. [`run`] does it in
//! threads, one at a time for each bus, and goes on when one never comes back.

mod attribute;
mod config;
mod device;
mod keeper;
#[cfg(test)]
pub(crate) mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::adapter::{AdapterError, Context, Reading};
use crate::ending::{pass_on, stopped};
use crate::model::{Change, Description, DeviceId, IdError, Measurement, State};

pub(crate) use self::attribute::{Attribute, AttributeError, entries};
pub(crate) use self::config::{Polled, root, root_schema};
use self::keeper::Keeper;
use self::work::{Done, Workers};

/// While more readings than this wait for a slow node, nothing new is taken in.
const MOST_BACKLOG: usize = 1_024;
/// A look at the time while all that there is hangs.
const IDLE: Duration = Duration::from_secs(60);
/// What was done and not yet taken in; a thread waits when it is full.
const DONE: usize = 16;

/// One kind of hardware. Every function may block, and is never called twice at once for one lane.
pub(crate) trait Hardware: Send + Sync + 'static {
    /// How one of its devices is reached again.
    type Place: Clone + Send + 'static;

    /// The id of the adapter.
    const ADAPTER: &'static str;

    /// All devices that are there. `known` is where those are that were there the last time.
    ///
    /// # Errors
    /// When it cannot be told which are there: all stay as they are.
    fn list(&self, known: &BTreeMap<DeviceId, Self::Place>) -> io::Result<Listing<Self::Place>>;

    /// Reads a device; `last` is what it yielded the last time that it was believed.
    ///
    /// # Errors
    /// Why it does not answer, for people.
    fn read(&self, place: &Self::Place, last: Option<&Sample>) -> Result<Sample, String>;

    /// Changes a device, and reads it after that.
    ///
    /// # Errors
    /// Why it was not changed.
    fn apply(&self, place: &Self::Place, change: &Change, last: Option<&Sample>) -> Result<Applied, Fault>;
}

/// The devices that are there.
#[derive(Debug)]
pub(crate) struct Listing<P> {
    /// Those that can be used.
    pub(crate) found: Vec<Found<P>>,
    /// Those that were there the last time and may still be: they stay as they are, for an error is no absence.
    pub(crate) unsure: BTreeSet<DeviceId>,
    /// What cannot be used and why, for people: told once.
    pub(crate) remarks: Vec<String>,
}

impl<P> Default for Listing<P> {
    fn default() -> Self {
        Self { found: Vec::new(), unsure: BTreeSet::new(), remarks: Vec::new() }
    }
}

impl<P> Listing<P> {
    /// Something went wrong with the devices of `known` that are there.
    pub(crate) fn doubt(
        &mut self,
        known: &BTreeMap<DeviceId, P>,
        why: String,
        is_there: impl Fn(&P) -> bool,
    ) {
        let doubted = known.iter().filter(|(_, place)| is_there(place));
        self.unsure.extend(doubted.map(|(id, _)| id.clone()));
        self.remarks.push(why);
    }
}

/// A device that is there.
#[derive(Debug)]
pub(crate) struct Found<P> {
    /// What it is.
    pub(crate) description: Description,
    /// The bus it is on, not empty: devices of one lane are read one at a time.
    pub(crate) lane: String,
    /// How it is reached.
    pub(crate) place: P,
}

/// What a device yielded.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    /// Its state, if it has one.
    pub(crate) state: Option<State>,
    /// What its sensors measured.
    pub(crate) values: BTreeMap<String, Measurement>,
}

impl Sample {
    /// Of a device that has a state and no sensors.
    pub(crate) fn state(state: State) -> Self {
        Self { state: Some(state), values: BTreeMap::new() }
    }
}

/// What a device shows after it took a change.
#[derive(Debug)]
pub(crate) struct Applied {
    /// What was read back.
    pub(crate) sample: Sample,
    /// Whether that is what was asked for, as finely as the hardware can.
    pub(crate) follows: bool,
}

/// Why a device did not take a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never will before somebody does something: what, and what to do.
    Refused(String),
    /// It may the next time.
    Failed(String),
}

/// What hardware tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// Somebody pressed a button.
    Pressed {
        /// The device.
        device: DeviceId,
        /// One of the events of its description.
        event: &'static str,
    },
    /// A device shows something else.
    Sampled {
        /// The device.
        device: DeviceId,
        /// What it yielded.
        sample: Sample,
    },
}

/// Runs the hardware until shutdown.
pub(crate) async fn run<H: Hardware>(
    hardware: H,
    poll: Duration,
    ctx: Context,
    mut events: mpsc::Receiver<Event>,
) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut shutdown, .. } = ctx;
    let (done_in, mut done) = mpsc::channel(DONE);
    let workers = Workers::new(Arc::new(hardware), done_in);
    let mut keeper = Keeper::new(H::ADAPTER, poll, Instant::now());
    loop {
        keeper.handle_timeout(Instant::now());
        while let Some(job) = keeper.poll_job(Instant::now()) {
            if let Some(refused) = workers.start(job) {
                take(&mut keeper, refused);
            }
        }
        let free = keeper.backlog() < MOST_BACKLOG;
        // Commands are taken even while readings wait: a node that waits for us to take a command
        // before it reads on would otherwise wait for ever.
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            permit = readings.reserve(), if keeper.backlog() > 0 => match permit {
                Ok(permit) => if let Some(reading) = keeper.poll_reading() { permit.send(reading) },
                Err(_) => return Ok(()),
            },
            directive = commands.recv(), if free => match directive {
                Some(directive) => keeper.handle_directive(Instant::now(), directive),
                None => break,
            },
            Some(done) = done.recv(), if free => take(&mut keeper, done),
            Some(event) = events.recv(), if free => keeper.handle_event(Instant::now(), event),
            () = sleep_until(keeper.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE)) => {}
        }
    }
    keeper.shut_down();
    pass_on(&readings, || keeper.poll_reading());
    Ok(())
}

/// The id of a device that has none of its own: `gpio-0123456789abcdef-pump`.
pub(crate) fn board_id(adapter: &str, board: &str, name: &str) -> Result<DeviceId, IdError> {
    let mut id = format!("{}-{board}-{}", adapter.replace('_', "-"), slug(name));
    id.truncate(crate::model::MAX_DEVICE_ID); // all of it is ASCII
    DeviceId::new(id.trim_end_matches('-'))
}

/// A text as a part of an id: lower case, what is no letter or digit becomes one `-`.
pub(crate) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// A channel of events for hardware that tells nothing unasked.
pub(crate) fn no_events() -> mpsc::Receiver<Event> {
    mpsc::channel(1).1
}

fn take<P: Clone>(keeper: &mut Keeper<P>, done: Done<P>) {
    match done {
        Done::Finished { lane, outcome } => keeper.handle_done(Instant::now(), &lane, outcome),
        // As if it had happened here: the node restarts an adapter that panics, and tells.
        Done::Panicked(payload) => std::panic::resume_unwind(payload),
    }
}

/// What waits to be passed on.
type Readings = VecDeque<Reading>;
