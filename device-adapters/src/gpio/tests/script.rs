//! Lines that a test holds instead of the kernel.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::config::{Config, LineConfig};
use super::super::{Edge, Gpio, Line, Lines, OpenError, REGISTRATION};
use crate::adapter::{Adapter, Registration, SettingsError};
use crate::contract::{Ignores, Peer};
use crate::model::{Change, DeviceId};

/// Polls come every 0.2 s and looks for lines every 5 s: what is read so soon after another read is a poll, unless the line
/// was just opened.
const POLLED_WITHIN: Duration = Duration::from_millis(400);

/// The adapter, on scripted lines.
pub(super) const SCRIPTED: Registration = Registration { descriptor: REGISTRATION.descriptor, build };

/// The scripts of all tests by the names of their chips.
static SCRIPTS: Mutex<BTreeMap<String, Script>> = Mutex::new(BTreeMap::new());

fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&SCRIPTED.descriptor, settings)?;
    Ok(Box::new(Gpio { config, lines: Scripted }))
}

/// A line, as its test sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Script(Arc<(Mutex<State>, Notify)>);

#[derive(Debug, Default)]
struct State {
    level: bool,
    edges: VecDeque<Edge>,
    /// Somebody waits for the next edge.
    is_awaited: bool,
    /// The next read returns the level from before this one's edge, which comes while it lasts.
    overtaken_by: Option<bool>,
    fault: Fault,
    asked: Vec<Instant>,
    /// Whether it was opened and not read since.
    is_new: bool,
    /// Polls and levels that it was given.
    touched: usize,
}

/// What is wrong with the line.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The chip was pulled.
    Gone,
    /// Somebody else holds its level.
    Stuck,
    /// Each second read fails.
    Flaky,
    /// It takes levels and cannot be read.
    Mute,
    /// Edges without end.
    Storm,
}

impl Script {
    /// The level changes, and its edge is told.
    pub(super) fn edge(&self, level: bool) {
        let mut state = self.state();
        state.level = level;
        state.edges.push_back(Edge { at: Instant::now(), level });
        state.is_awaited = false;
        drop(state);
        self.0.1.notify_one();
    }

    /// The level changed at that time, and nobody has been woken for its edge yet.
    pub(super) fn late_edge(&self, at: Instant, level: bool) {
        let mut state = self.state();
        state.level = level;
        state.edges.push_back(Edge { at, level });
    }

    /// Returns when all edges were taken and somebody waits for the next.
    pub(super) async fn awaited(&self) {
        for _ in 0..1_000 {
            if self.state().is_awaited {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("nobody waits for an edge");
    }

    /// While the next read lasts the level changes to this one, and its edge is told.
    pub(super) fn overtake(&self, level: bool) {
        self.state().overtaken_by = Some(level);
    }

    /// The level changes, and its edge is lost.
    pub(super) fn set(&self, level: bool) {
        self.state().level = level;
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.state().fault = fault;
        self.0.1.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes while a read lasts, if something does; returns when it was taken.
    fn is_overtaken(&self) {
        let Some(level) = self.state().overtaken_by.take() else { return };
        self.edge(level);
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !self.state().edges.is_empty() {
            assert!(std::time::Instant::now() < end, "nobody takes an edge");
            std::thread::yield_now();
        }
    }

    fn gone() -> io::Error {
        io::Error::other("No such device")
    }
}

pub(super) struct Scripted;

impl Lines for Scripted {
    fn open(&self, line: &LineConfig, _: &Handle) -> Result<Arc<dyn Line>, OpenError> {
        let scripts = SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner);
        let script = scripts[line.chip.as_deref().unwrap()].clone();
        let fault = script.state().fault;
        match fault {
            Fault::Gone => Err(OpenError::Absent("no such chip".to_owned())),
            Fault::Mute => Err(OpenError::Failed("Device or resource busy".to_owned())),
            _ => {
                script.state().is_new = true;
                Ok(Arc::new(script))
            }
        }
    }
}

impl Line for Script {
    fn level(&self) -> io::Result<bool> {
        let mut state = self.state();
        let now = Instant::now();
        let is_soon = state.asked.last().is_some_and(|last| now < *last + POLLED_WITHIN);
        let is_poll = !std::mem::take(&mut state.is_new) && is_soon;
        state.touched += usize::from(is_poll);
        state.asked.push(now);
        let level = match state.fault {
            Fault::Gone | Fault::Mute => Err(Self::gone()),
            Fault::Flaky if state.asked.len().is_multiple_of(2) => Err(Self::gone()),
            _ => Ok(state.level),
        };
        drop(state);
        self.is_overtaken();
        level
    }

    fn set(&self, on: bool) -> io::Result<()> {
        let mut state = self.state();
        state.touched += 1;
        match state.fault {
            Fault::Gone => return Err(Self::gone()),
            Fault::Stuck => {}
            _ => state.level = on,
        }
        Ok(())
    }

    fn is_debounced(&self) -> bool {
        false
    }

    fn queued(&self) -> io::Result<Option<Edge>> {
        let mut state = self.state();
        match state.fault {
            Fault::Gone => Err(Self::gone()),
            Fault::Storm => {
                state.level = !state.level;
                Ok(Some(Edge { at: Instant::now(), level: state.level }))
            }
            _ => Ok(state.edges.pop_front()),
        }
    }

    fn edge(&self) -> Pin<Box<dyn Future<Output = io::Result<Edge>> + Send + '_>> {
        Box::pin(async move {
            loop {
                tokio::task::yield_now().await; // a storm leaves the others their turn
                match self.queued()? {
                    Some(edge) => return Ok(edge),
                    None => {
                        self.state().is_awaited = true;
                        self.0.1.notified().await;
                        self.state().is_awaited = false;
                    }
                }
            }
        })
    }
}

/// A scripted line as the peer of the contract.
pub(super) struct ScriptedPeer {
    pub(super) script: Script,
    chip: String,
    measures: bool,
}

impl ScriptedPeer {
    pub(super) fn new(chip: &str) -> Self {
        let script = Script::default();
        SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner).insert(chip.to_owned(), script.clone());
        Self { script, chip: chip.to_owned(), measures: false }
    }

    pub(super) fn measuring(self) -> Self {
        Self { measures: true, ..self }
    }

    /// The settings of an adapter that has this line.
    pub(super) fn settings(&self, line: &Value) -> Value {
        let mut line = line.clone();
        line["chip"] = json!(self.chip);
        line["line"] = json!(17);
        json!({ "lines": [line], "poll_s": 0.2 })
    }
}

impl Peer for ScriptedPeer {
    fn device(&self) -> DeviceId {
        DeviceId::new("gpio-0000000000000000-pump").unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        if self.measures { Vec::new() } else { [true, false].map(|on| Change::Switch { on }).to_vec() }
    }

    async fn ignore(&mut self) -> Ignores {
        self.script.fault(Fault::Stuck);
        Ignores::Commands
    }

    async fn silence(&mut self) {
        self.script.fault(Fault::Gone);
    }

    async fn recover(&mut self) {
        self.script.fault(Fault::None);
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        let faults = [Fault::Stuck, Fault::Flaky, Fault::Mute, Fault::Storm];
        let fault = faults.get(number).copied();
        self.script.fault(fault.unwrap_or_default());
        fault.is_some()
    }

    fn asked(&self) -> Vec<Instant> {
        self.script.state().asked.clone()
    }

    fn most_a_second(&self) -> usize {
        40
    }

    fn touched(&self) -> usize {
        self.script.state().touched
    }
}
