//! Which adapters this node runs, and with which settings.
//!
//! | object | field | what | written by |
//! | --- | --- | --- | --- |
//! | `adapter/ID` | `enabled`, `nodes`, `settings.KEY`, `round` | what the household decided | the node that was asked |
//! | | `sealed.KEY.NODE` | a secret, for one node (see [`vault`](super::vault)) | whoever knows it |
//! | | `state.NODE` | where it stands on a node | that node |
//! | | `pair`, `pairing` | somebody wants to pair; how it goes | the node that was asked; who runs it |
//!
//! What the configuration file of a board says goes before what the household decided, on that board alone. An adapter
//! of which one runs in the household stays where it runs well; else the winner of rendezvous hashing runs it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use device_adapters::{Directive, Event, Hint, Registration, Scope, model::DeviceId};
use mesh_proto::{FieldName, ObjectId, ShortId, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Duration, Instant},
};
use tracing::error;

use super::{
    AdapterSettings, Devices,
    convert::{clipped, decode, encode, map, millis, text, to_json},
    ownership,
    secrets::Boxes,
    supervise::{AdapterState, AdapterStatus, Plan, supervise},
    vault::Vault,
};
use crate::service::{Change, ObjectView};

/// How long a node that starts waits to hear of the others.
const ASKS: Duration = Duration::from_secs(5);
/// For how long others go before a node on which an adapter failed.
const IN_VAIN: Duration = Duration::from_secs(60);

/// Where an adapter stands on one node, in the field `state.NODE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) state: AdapterState,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) restarts: u32,
    /// It tried in vain with what it is told now: of which one runs, others go before it.
    #[serde(default)]
    pub(super) in_vain: bool,
    /// It cannot run there whatever the household wants: that node's configuration file says so.
    #[serde(default)]
    pub(super) never: bool,
    /// Of which [`wish`](Decided::wish) it says so. Whoever failed with an earlier one may well bear the present one.
    #[serde(default)]
    pub(super) of: u32,
}

/// What the household decided of an adapter, and what its nodes say of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Decided {
    pub(super) enabled: Option<bool>,
    /// Ids of the nodes that may run it; empty for all.
    pub(super) nodes: Vec<String>,
    pub(super) settings: Map<String, Json>,
    /// The secrets by setting.
    pub(super) sealed: BTreeMap<String, Boxes>,
    pub(super) round: i64,
    pub(super) standing: BTreeMap<ShortId, Standing>,
    /// Until when somebody wants to pair, in milliseconds since 1970.
    pub(super) pair_until_ms: Option<u64>,
    /// How pairing goes.
    pub(super) pairing: Option<String>,
    /// Which pairing is over, by its `pair_until_ms`.
    pub(super) paired_until_ms: Option<u64>,
}

/// One adapter of the registry.
pub(super) struct Slot {
    pub(super) registration: Registration,
    pub(super) object: ObjectId,
    /// What this board's configuration file says.
    pub(super) local: AdapterSettings,
    pub(super) decided: Decided,
    /// The settings that hold here, or which secret is missing. Opened once: that costs the processor something.
    pub(super) settings: Result<Json, String>,
    plans: watch::Sender<Plan>,
    /// Where it stands here.
    pub(super) here: Standing,
    /// Whether its supervisor has said so.
    is_settled: bool,
    /// What it tried last in vain, and until when that counts; without an end as long as nobody sets anything else.
    vain: Option<(Plan, Option<Instant>)>,
    /// Where its directives and hints go while it runs.
    pub(super) running: Option<(mpsc::Sender<Directive>, mpsc::Sender<Hint>)>,
    /// The pairing that it was told of.
    pub(super) told_pair: Option<u64>,
    /// Devices that it is to be shown, because it shows the home.
    pub(super) unshown: BTreeSet<DeviceId>,
    /// What happened that it is to be told of, because it shows the home.
    pub(super) untold: VecDeque<Event>,
    /// Announcements that it is to hear of, by type and name.
    pub(super) unhinted: BTreeSet<(String, String)>,
}

/// The slots by adapter.
pub(super) type Slots = BTreeMap<&'static str, Slot>;

/// Slots for a registry; none runs yet.
pub(super) fn slots(registry: &'static [Registration], local: &BTreeMap<String, AdapterSettings>) -> Slots {
    let slot = |registration: &Registration| {
        let id = registration.descriptor.id;
        let object = ObjectId::new(&format!("adapter/{id}")).ok()?;
        let rest = Plan::Rest(AdapterState::Off, "the node starts".to_owned());
        let here = Standing {
            state: AdapterState::Off,
            reason: None,
            restarts: 0,
            in_vain: false,
            never: false,
            of: 0,
        };
        let local = local.get(id).cloned().unwrap_or_default();
        let slot = Slot {
            registration: *registration,
            object,
            decided: Decided::default(),
            settings: Ok(local.settings.clone()),
            local,
            plans: watch::channel(rest).0,
            here,
            is_settled: false,
            vain: None,
            running: None,
            told_pair: None,
            unshown: BTreeSet::new(),
            untold: VecDeque::new(),
            unhinted: BTreeSet::new(),
        };
        Some((id, slot))
    };
    registry.iter().filter_map(slot).collect()
}

impl Decided {
    fn of(view: &ObjectView) -> Self {
        let mut decided = Self::default();
        for (name, field) in &view.fields {
            decided.take(name.as_str(), &field.value);
        }
        decided
    }

    /// What the household wants it to try, as a short number that is the same on every node.
    fn wish(&self) -> u32 {
        let secrets: BTreeMap<&str, Option<u64>> =
            self.sealed.iter().map(|(key, boxes)| (key.as_str(), boxes.newest())).collect();
        let wish = serde_json::to_vec(&(&self.settings, secrets, self.round)).unwrap_or_default();
        let [a, b, c, d, ..] = *blake3::hash(&wish).as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn take(&mut self, name: &str, value: &Value) {
        if let Some(key) = name.strip_prefix("settings.") {
            self.settings.insert(key.to_owned(), to_json(value));
        } else if let Some((key, node)) = name.strip_prefix("sealed.").and_then(|rest| rest.rsplit_once('.'))
        {
            if let Ok(node) = node.parse() {
                self.sealed.entry(key.to_owned()).or_default().take(node, value);
            }
        } else if let Some(node) = name.strip_prefix("state.") {
            if let (Ok(node), Some(standing)) = (node.parse(), decode(value)) {
                self.standing.insert(node, standing);
            }
        } else {
            match name {
                "enabled" => self.enabled = decode(value),
                "nodes" => self.nodes = decode(value).unwrap_or_default(),
                "round" => self.round = value.as_int().unwrap_or_default(),
                "pair" => self.pair_until_ms = value.as_int().and_then(|ms| u64::try_from(ms).ok()),
                "pairing" => {
                    self.pairing = value.get("detail").and_then(Value::as_text).map(clipped);
                    let is_over = value.get("is_over") == Some(&Value::Bool(true));
                    let until = value.get("until").and_then(Value::as_int).filter(|_| is_over);
                    self.paired_until_ms = until.and_then(|ms| u64::try_from(ms).ok());
                }
                _ => {}
            }
        }
    }
}

impl Slot {
    /// Whether it runs and wants to see all devices.
    pub(super) fn shows_home(&self) -> bool {
        self.registration.descriptor.shows_home && self.running.is_some()
    }

    /// Whether a node may run it; where none is named all may.
    fn may_run(&self, node: ShortId) -> bool {
        let id = node.to_string();
        self.decided.nodes.is_empty() || self.decided.nodes.contains(&id)
    }

    /// Takes in what its object says now.
    fn decide(&mut self, decided: Decided, vault: &Vault, me: ShortId) {
        let is_same = decided.settings == self.decided.settings && decided.sealed == self.decided.sealed;
        self.decided = decided;
        if !is_same {
            self.settings = self.opened(vault, me);
        }
    }

    /// The settings that hold here, secrets opened. An error says which secret this node cannot read yet.
    fn opened(&self, vault: &Vault, me: ShortId) -> Result<Json, String> {
        let id = self.registration.descriptor.id;
        let mut settings = self.decided.settings.clone();
        for (key, boxes) in &self.decided.sealed {
            match boxes.open(vault, me, id, key) {
                Some(secret) => drop(settings.insert(key.clone(), Json::from(secret.as_str()))),
                None if self.local.settings.get(key).is_some() => {}
                None => {
                    return Err(format!(
                        "the secret {key:?} has not been handed to this node yet: another one that runs does so"
                    ));
                }
            }
        }
        for (key, value) in self.local.settings.as_object().into_iter().flatten() {
            settings.insert(key.clone(), value.clone());
        }
        Ok(Json::Object(settings))
    }
}

impl Devices {
    /// Has every adapter do what it should. The objects are known by now.
    pub(super) fn start_adapters(&mut self, supervisors: &mut JoinSet<()>, stopping: &watch::Receiver<bool>) {
        self.looked_around_at = Instant::now() + super::objects::LOOK_AROUND;
        let unknown: Vec<String> = self
            .unknown_adapters
            .iter()
            .filter(|id| !self.slots.contains_key(id.as_str()))
            .cloned()
            .collect();
        let known = self.slots.keys().copied().collect::<Vec<_>>().join(", ");
        for id in unknown {
            let reason = format!("there is no adapter {id:?}: there are {known}");
            error!(adapter = %id, %reason, "an adapter stays off");
            let status = AdapterStatus {
                id: id.clone(),
                state: AdapterState::Refused,
                reason: Some(reason),
                restarts: 0,
            };
            self.statuses.insert(id, status);
        }
        let ids: Vec<&'static str> = self.slots.keys().copied().collect();
        for id in ids {
            self.settle_adapter(id);
            let Some(slot) = self.slots.get(id) else { continue };
            let (events, plans) = (self.event_sender.clone(), slot.plans.subscribe());
            let board = self.by_me.clone();
            supervisors.spawn(supervise(slot.registration, board, plans, events, stopping.clone()));
        }
    }

    /// An object of an adapter changed.
    pub(super) fn see_adapter(&mut self, change: &Change, is_started: bool) {
        let Some(slot) = self.slots.values_mut().find(|slot| slot.object == change.id) else { return };
        let id = slot.registration.descriptor.id;
        let decided = change.object.as_ref().map(Decided::of).unwrap_or_default();
        slot.decide(decided, &self.vault, self.me);
        if is_started {
            self.settle_adapter(id);
            self.settle_pairing(id);
        }
    }

    /// Draws the consequences for every adapter.
    pub(super) fn settle_adapters(&mut self) {
        let ids: Vec<&'static str> = self.slots.keys().copied().collect();
        for id in ids {
            self.settle_adapter(id);
            self.settle_pairing(id);
            self.reseal(id);
        }
    }

    fn settle_adapter(&mut self, id: &'static str) {
        let Some(slot) = self.slots.get(id) else { return };
        let (plan, own) = (self.plan_of(slot), Self::own_plan(slot));
        let Some(slot) = self.slots.get_mut(id) else { return };
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= Instant::now());
        slot.vain = slot.vain.take().filter(|(tried, until)| *tried == own && !is_over(*until));
        slot.here.in_vain = slot.vain.is_some();
        if slot.here.in_vain {
            slot.here.of = slot.decided.wish();
        }
        slot.plans.send_if_modified(|planned| {
            let differs = *planned != plan;
            *planned = plan;
            differs
        });
        self.say_standing(id);
    }

    fn plan_of(&self, slot: &Slot) -> Plan {
        let off = |reason: String| Plan::Rest(AdapterState::Off, reason);
        if !slot.local.enabled {
            return off("switched off in the configuration of this node".to_owned());
        }
        if slot.decided.enabled == Some(false) {
            return off("switched off for the household".to_owned());
        }
        if !slot.may_run(self.me) {
            let named = slot
                .decided
                .nodes
                .iter()
                .map(|node| node.parse().map_or_else(|_| node.clone(), |id| self.call(id)));
            return off(format!("only {} may run it", named.collect::<Vec<_>>().join(", ")));
        }
        if self.living.is_empty() {
            return off("this node stands outside of its household".to_owned());
        }
        if slot.registration.descriptor.scope == Scope::Single && self.must_ask(slot) {
            let reason = "this node waits a moment to hear whether another one runs it".to_owned();
            return Plan::Rest(AdapterState::Elsewhere, reason);
        }
        match self.runner(slot) {
            Some(node) if node != self.me => {
                Plan::Rest(AdapterState::Elsewhere, format!("node {} runs it", self.call(node)))
            }
            _ => Self::own_plan(slot),
        }
    }

    /// Whether a node that has just started has not heard yet who else runs it: the one that does shall go on.
    fn must_ask(&self, slot: &Slot) -> bool {
        let mut others = self.living.iter().filter(|node| **node != self.me).peekable();
        let is_known = others.peek().is_some() && others.all(|node| slot.decided.standing.contains_key(node));
        let is_alone = self.vault.members().len() == 1;
        !is_alone && !is_known && Instant::now() < self.started_at + ASKS
    }

    /// What this node does when it is the one that runs it.
    fn own_plan(slot: &Slot) -> Plan {
        match &slot.settings {
            Ok(settings) => Plan::Run { settings: settings.clone(), round: slot.decided.round },
            Err(reason) => Plan::Rest(AdapterState::Waiting, reason.clone()),
        }
    }

    /// Which node runs an adapter of which one runs; none of the others, which run everywhere.
    fn runner(&self, slot: &Slot) -> Option<ShortId> {
        if slot.registration.descriptor.scope != Scope::Single {
            return None;
        }
        let standing = |node: &ShortId| {
            let here = (*node == self.me).then_some(&slot.here);
            here.or_else(|| slot.decided.standing.get(node))
        };
        let state = |node: &ShortId| standing(node).map(|standing| standing.state);
        let never =
            |node: &ShortId| *node != self.me && standing(node).is_some_and(|standing| standing.never);
        let able: BTreeSet<ShortId> =
            self.living.iter().copied().filter(|node| slot.may_run(*node) && !never(node)).collect();
        let of = |wanted: &dyn Fn(&ShortId) -> bool| {
            let nodes = able.iter().copied().filter(wanted);
            ownership::winner(nodes, slot.registration.descriptor.id)
        };
        let wish = slot.decided.wish();
        let fails = |node: &ShortId| {
            standing(node).filter(|standing| standing.of == wish).is_some_and(|standing| {
                standing.in_vain
                    || matches!(
                        standing.state,
                        AdapterState::Failed | AdapterState::Waiting | AdapterState::Refused
                    )
            })
        };
        // Where it runs it stays; where it failed it is tried again when all others did as well. One that gives way to
        // another forgets nothing, or two that both fail would hand it to each other without a pause.
        of(&|node| state(node) == Some(AdapterState::Running))
            .or_else(|| of(&|node| !fails(node)))
            .or_else(|| of(&|_| true))
    }

    /// Notes where an adapter stands here, and says so.
    pub(super) fn set_standing(&mut self, id: &str, state: AdapterState, reason: Option<String>) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let own = Self::own_plan(slot);
        let is_again = state == AdapterState::Running && slot.here.state == AdapterState::Failed;
        let restarts = slot.here.restarts + u32::from(is_again);
        match state {
            AdapterState::Failed => slot.vain = Some((own, Some(Instant::now() + IN_VAIN))),
            AdapterState::Waiting | AdapterState::Refused => slot.vain = Some((own, None)),
            _ => {}
        }
        let in_vain = slot.vain.is_some();
        let never = !slot.local.enabled;
        let of = slot.decided.wish();
        slot.here = Standing { state, reason: reason.as_deref().map(clipped), restarts, in_vain, never, of };
        slot.is_settled = true;
        let status = AdapterStatus { id: id.to_owned(), state, reason, restarts };
        self.statuses.insert(id.to_owned(), status);
        self.status.send_replace(self.statuses.values().cloned().collect());
        self.say_standing(id);
    }

    /// Says where an adapter stands here, unless its object shows it.
    fn say_standing(&mut self, id: &str) {
        // Before its supervisor has said anything there is nothing to say.
        let Some(slot) = self.slots.get(id).filter(|slot| slot.is_settled) else { return };
        if slot.decided.standing.get(&self.me) != Some(&slot.here)
            && let Ok(field) = FieldName::new(&format!("state.{}", self.me))
        {
            self.state.put(&slot.object, field, Some(encode(&slot.here)));
        }
    }

    /// Tells an adapter that runs here that somebody wants to pair.
    fn settle_pairing(&mut self, id: &str) {
        let now_ms = self.clock.now_ms();
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(until_ms) = slot.decided.pair_until_ms.filter(|until| *until > now_ms) else { return };
        // One that is over is not begun anew by an adapter that starts again, with the key that it brought.
        if [slot.told_pair, slot.decided.paired_until_ms].contains(&Some(until_ms)) {
            return;
        }
        let until =
            Instant::now() + Duration::from_millis((until_ms - now_ms).min(super::requests::MAX_PAIR_MS));
        if slot.running.as_ref().is_some_and(|(to, _)| to.try_send(Directive::Pair { until }).is_ok()) {
            slot.told_pair = Some(until_ms);
        }
    }

    /// An adapter says how pairing goes.
    pub(super) fn pairing(&mut self, id: &str, is_over: bool, detail: &str) {
        let Some(slot) = self.slots.get(id) else { return };
        let Ok(field) = FieldName::new("pairing") else { return };
        let value = map([
            ("detail", text(detail)),
            ("is_over", Value::Bool(is_over)),
            ("until", slot.told_pair.or(slot.decided.pair_until_ms).map_or(Value::Null, millis)),
            ("at", millis(self.clock.now_ms())),
        ]);
        self.state.put(&slot.object, field, Some(value));
    }
}
