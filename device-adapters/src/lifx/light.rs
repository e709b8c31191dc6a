//! A light: its colour and power, and where it has them its zones and its effect.

use tokio::time::Instant;

use crate::model::{Capabilities, Change, State};

use super::basis::Basis;
use super::face::{Face, Judgement, Set, Shown};
use super::identity::Identity;
use super::pending::Pending;
use super::reading::Partial;
use super::recipe::{self, Means};
use super::wire::{Effect, Reply, Request};

/// A light.
#[derive(Debug, Default)]
pub(crate) struct Light {
    basis: Basis,
    reading: Partial,
    /// The effect that it ran when it was last read, or was last told to run.
    effect: Option<Effect>,
}

impl Face for Light {
    fn capabilities(&self, identity: &Identity) -> Option<(Capabilities, Option<String>)> {
        let (can, note) = identity.light()?;
        Some((Capabilities::Light(can), note))
    }

    fn questions(&mut self, now: Instant, identity: &Identity) -> Vec<Request> {
        self.reading.questions(now, identity.layout())
    }

    fn read(&mut self, pending: &Pending, reply: &Reply, identity: &Identity) -> Option<Shown> {
        match reply {
            Reply::StateUnhandled(_) => self.reading.refused(pending.at, &pending.request),
            _ => self.reading.take(pending.at, reply, identity.layout()),
        }
        let (asked, state, effect) = self.reading.complete(identity.layout())?;
        self.effect = Some(effect);
        Some(Shown::state(asked, State::Light(state)))
    }

    fn basis(&self, now: Instant, wanted: &Change, identity: &Identity) -> Vec<Request> {
        let Change::Light(wanted) = wanted else { return Vec::new() };
        let layout = identity.layout();
        self.basis.questions(now, &recipe::needs(wanted, layout), layout)
    }

    fn without_basis(&self, wanted: &Change) -> &'static str {
        match wanted {
            Change::Light(light) if light.zones.is_none() => {
                " (give both brightness and color to do without)"
            }
            _ => "",
        }
    }

    fn plan(&mut self, now: Instant, wanted: &Change, identity: &Identity) -> Option<Vec<Set>> {
        let Change::Light(wanted) = wanted else { return None };
        let layout = identity.layout();
        let runs_effect = self.effect != Some(Effect::Off);
        let means = Means { whites: identity.whites(), layout, runs_effect };
        let (base, kept) = self.basis.known(now, &recipe::needs(wanted, layout))?;
        Some(recipe::sets(wanted, base, &kept, means))
    }

    fn judge(&self, wanted: &Change, state: &State, identity: &Identity) -> Judgement {
        let (Change::Light(wanted), State::Light(state)) = (wanted, state) else {
            return Judgement { is_shown: false, first: None };
        };
        // Somebody else has started an effect since the Sets were made.
        let hidden = wanted.effect.is_none() && recipe::shows_colors(wanted) && state.effect.is_some();
        let first = identity.layout().set_effect(Effect::Off).filter(|_| hidden);
        Judgement { is_shown: recipe::is_shown(wanted, state), first }
    }

    fn told(&mut self, now: Instant, pending: &Pending, reply: &Reply, identity: &Identity) {
        if let Reply::LightState { hsbk, power, .. } = reply {
            self.basis.light_told(pending, *hsbk, *power > 0);
        }
        if let Some(zones) = identity.layout().told(reply) {
            self.basis.zones_told(now, pending, zones);
        }
    }

    fn acknowledged(&mut self, now: Instant, pending: &Pending) {
        self.basis.acknowledged(now, pending);
        if let Request::SetMultiZoneEffect(effect) | Request::SetTileEffect(effect) = pending.request {
            self.effect = Some(effect);
        }
    }

    fn refused(&mut self, request: &Request) {
        if matches!(request, Request::SetMultiZoneEffect(_) | Request::SetTileEffect(_)) {
            self.effect = Some(Effect::Off); // what it does not know it does not run
        }
    }

    fn sending(&mut self) {
        self.basis.outdate();
    }

    fn clear(&mut self) {
        self.reading.clear();
    }

    fn forget(&mut self) {
        self.basis.forget();
    }

    fn retry(&mut self) {
        self.reading.retry();
    }

    fn is_stuck(&self) -> bool {
        self.reading.is_stuck()
    }
}
