//! A relay of a switch: on or off, whatever hangs on it.
//!
//! Source: <https://lan.developer.lifx.com/docs/the-lifx-switch>.

use tokio::time::Instant;

use crate::model::{Capabilities, Change, State};

use super::face::{Face, Set, Shown};
use super::identity::Identity;
use super::pending::Pending;
use super::wire::{Reply, Request};

/// A relay, counted from 0 as in messages.
#[derive(Debug)]
pub(crate) struct Relay(pub(crate) u8);

impl Face for Relay {
    fn capabilities(&self, _: &Identity) -> Option<(Capabilities, Option<String>)> {
        Some((Capabilities::Switch, None))
    }

    fn questions(&mut self, _: Instant, _: &Identity) -> Vec<Request> {
        vec![Request::GetRPower(self.0)]
    }

    fn read(&mut self, pending: &Pending, reply: &Reply, _: &Identity) -> Option<Shown> {
        match reply {
            Reply::StateRPower { relay, level } if *relay == self.0 => {
                Some(Shown::state(pending.at, State::Switch { on: *level > 0 }))
            }
            _ => None,
        }
    }

    fn plan(&mut self, _: Instant, wanted: &Change, _: &Identity) -> Option<Vec<Set>> {
        let on = wanted.on()?;
        Some(vec![Set::required(Request::SetRPower(self.0, on))])
    }
}
