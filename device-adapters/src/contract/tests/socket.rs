//! A socket in a wall, in memory: the peer.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::plug::Flaw;
use crate::contract::{Ignores, Peer};
use crate::model::{Change, DeviceId};

/// Wrong messages that it knows.
const WRONG: usize = 2;

thread_local! {
    /// What the adapters of this test speak to: the one that was made last.
    static SOCKET: RefCell<Option<Socket>> = const { RefCell::new(None) };
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    Nothing,
    Nonsense,
    Is(bool),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Ignores,
    Silent,
    Wrong,
}

/// The device; clones are the same one.
#[derive(Clone)]
pub(super) struct Socket {
    /// What is wrong with the adapters that speak to it.
    pub(super) flaw: Option<Flaw>,
    cannot_ignore: Option<&'static str>,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    on: bool,
    asked: Vec<Instant>,
    touched: usize,
    was_silent: bool,
}

impl Socket {
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        let state = State { mood: Mood::Well, on: false, asked: Vec::new(), touched: 0, was_silent: false };
        let socket = Self { flaw, cannot_ignore: None, state: Arc::new(Mutex::new(state)) };
        SOCKET.set(Some(socket.clone()));
        socket
    }

    pub(super) fn that_cannot_ignore(self, why: &'static str) -> Self {
        Self { cannot_ignore: Some(why), ..self }
    }

    /// The one of this test.
    pub(super) fn of_test() -> Self {
        SOCKET.with_borrow(Clone::clone).unwrap()
    }

    /// Whether it was silent once.
    pub(super) fn was_silent(&self) -> bool {
        self.state().was_silent
    }

    /// Asks who it is; whether it answers.
    pub(super) fn identify(&self) -> bool {
        let mut state = self.state();
        state.asked.push(Instant::now());
        state.mood != Mood::Silent
    }

    pub(super) fn read(&self) -> Answer {
        let state = self.touch();
        match state.mood {
            Mood::Silent => Answer::Nothing,
            Mood::Wrong => Answer::Nonsense,
            Mood::Well | Mood::Ignores => Answer::Is(state.on),
        }
    }

    /// Switches it; whether it acknowledges that.
    pub(super) fn switch(&self, on: bool) -> bool {
        let mut state = self.touch();
        if state.mood == Mood::Well {
            state.on = on;
        }
        state.mood != Mood::Silent
    }

    fn touch(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.asked.push(Instant::now());
        state.touched += 1;
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Socket {
    fn device(&self) -> DeviceId {
        DeviceId::new("plug-1").unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        [true, false].map(|on| Change::Switch { on }).to_vec()
    }

    async fn ignore(&mut self) -> Ignores {
        match self.cannot_ignore {
            Some(why) => Ignores::Nothing(why),
            None => {
                self.state().mood = Mood::Ignores;
                Ignores::Commands
            }
        }
    }

    async fn silence(&mut self) {
        let mut state = self.state();
        (state.mood, state.was_silent) = (Mood::Silent, true);
    }

    async fn recover(&mut self) {
        self.state().mood = Mood::Well;
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.state().mood = Mood::Wrong;
        number < WRONG
    }

    fn asked(&self) -> Vec<Instant> {
        self.state().asked.clone()
    }

    fn most_a_second(&self) -> usize {
        50
    }

    fn touched(&self) -> usize {
        self.state().touched
    }
}
