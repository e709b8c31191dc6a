//! What clients ask of the adapters: to see them, to change their settings, to pair, to forget them.

use mesh_proto::{FieldName, Value, kinds::Author};
use serde_json::{Map, Value as Json};

use super::{
    Devices,
    adapters::Slot,
    convert::encode,
    secrets::{Boxes, is_secret, is_setting},
    supervise::AdapterState,
};
use crate::{
    api::ports::{
        PortError, Reply,
        adapters::{AdapterChange, AdapterOnNode, AdapterView, AdaptersRequest},
    },
    service::{Op, Service, ServiceError},
};

/// Most changes of one write.
const MAX_OPS: usize = 1_000;
/// Longest time that may be paired, in milliseconds: five minutes.
pub(super) const MAX_PAIR_MS: u64 = 300_000;

impl Devices {
    pub(super) fn adapters_request(&mut self, request: AdaptersRequest) {
        match request {
            AdaptersRequest::List(reply) => {
                let views = self.slots.values().map(|slot| self.view(slot)).collect();
                let _ = reply.send(Ok(views)); // whoever asked is gone
            }
            AdaptersRequest::Change(id, change, reply) => match self.change_ops(&id, &change) {
                Ok(ops) => self.write_for(ops, reply),
                Err(refused) => drop(reply.send(Err(refused))),
            },
            AdaptersRequest::Pair(id, seconds, reply) => match self.pair_ops(&id, seconds) {
                Ok(ops) => self.write_for(ops, reply),
                Err(refused) => drop(reply.send(Err(refused))),
            },
            AdaptersRequest::Forget(id, reply) => match self.forget_ops(&id) {
                Ok(ops) => self.write_for(ops, reply),
                Err(refused) => drop(reply.send(Err(refused))),
            },
        }
    }

    fn view(&self, slot: &Slot) -> AdapterView {
        let descriptor = &slot.registration.descriptor;
        let decided = &slot.decided;
        let mut secrets: Vec<String> = decided.sealed.keys().cloned().collect();
        let local = slot.local.settings.as_object().cloned().unwrap_or_default();
        // A key that the schema does not know may be a secret that somebody mistyped.
        let may_be_shown =
            |key: &str| is_setting(&slot.registration, key) && !is_secret(&slot.registration, key);
        let (shown, hidden): (Map<_, _>, Map<_, _>) =
            local.into_iter().partition(|(key, _)| may_be_shown(key));
        secrets.extend(hidden.into_iter().map(|(key, _)| key));
        secrets.sort();
        secrets.dedup();
        let nodes = decided.standing.iter().filter(|(node, _)| self.living.contains(node));
        AdapterView {
            id: descriptor.id.to_owned(),
            name: descriptor.name.to_owned(),
            scope: match descriptor.scope {
                device_adapters::Scope::Household => "household",
                device_adapters::Scope::Single => "single",
                device_adapters::Scope::Board => "board",
            },
            enabled: decided.enabled.unwrap_or(true),
            nodes: decided
                .nodes
                .iter()
                .map(|node| node.parse().map_or_else(|_| node.clone(), |id| self.call(id)))
                .collect(),
            settings: decided.settings.clone(),
            local: shown,
            secrets,
            schema: (descriptor.settings_schema)(),
            pairing: decided.pairing.clone(),
            on: nodes
                .map(|(node, standing)| AdapterOnNode {
                    node: node.to_string(),
                    name: self.call(*node),
                    state: standing.state,
                    reason: standing.reason.clone(),
                    restarts: standing.restarts,
                })
                .collect(),
        }
    }

    fn slot(&self, id: &str) -> Result<&Slot, PortError> {
        let known = || self.slots.keys().copied().collect::<Vec<_>>().join(", ");
        self.slots.get(id).ok_or_else(|| {
            let id: String = id.chars().take(32).collect();
            PortError::NotFound(format!("adapter {id:?}: there are {}", known()))
        })
    }

    /// The writes of a change, when all of it is possible.
    fn change_ops(&self, id: &str, change: &AdapterChange) -> Result<Vec<Op>, PortError> {
        let slot = self.slot(id)?;
        let mut ops = Vec::new();
        let mut put = |name: &str, value: Option<Value>| -> Result<(), PortError> {
            let field = FieldName::new(name).map_err(|rule| invalid(rule.to_string()))?;
            ops.push(set_or_unset(slot, field, value));
            Ok(())
        };
        if let Some(enabled) = change.enabled {
            put("enabled", Some(Value::Bool(enabled)))?;
        }
        if let Some(nodes) = &change.nodes {
            let ids: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            put("nodes", (!ids.is_empty()).then(|| encode(&ids)))?;
        }
        if change.restart {
            put("round", Some(Value::Int(slot.decided.round.wrapping_add(1))))?;
        }
        if !change.settings.is_empty() {
            self.check_settings(slot, &change.settings)?;
        }
        for (key, value) in &change.settings {
            let fields = self.setting_fields(slot, key, value).map_err(invalid)?;
            ops.extend(fields.into_iter().map(|(field, value)| set_or_unset(slot, field, value)));
        }
        if ops.is_empty() {
            return Err(invalid("the change is empty".to_owned()));
        }
        Ok(ops)
    }

    /// Has the adapter judge the settings as they would be.
    fn check_settings(&self, slot: &Slot, changed: &Map<String, Json>) -> Result<(), PortError> {
        let mut whole = match &slot.settings {
            Ok(Json::Object(whole)) => whole.clone(),
            _ => slot.decided.settings.clone(),
        };
        for (key, value) in changed {
            // Null takes a setting out, also one of another version that this adapter does not know; one that is not there
            // and does not exist must be named all the same.
            let was_there = whole.remove(key).is_some();
            if !value.is_null() || !(was_there || is_setting(&slot.registration, key)) {
                whole.insert(key.clone(), value.clone());
            }
        }
        let whole = Json::Object(whole);
        // As where it is started: an adapter that panics costs nothing but its answer.
        let judge = || (slot.registration.build)(&whole).map(drop).map_err(|error| error.to_string());
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge));
        judged.unwrap_or_else(|_| Err("the adapter panicked when it saw these settings".to_owned())).map_err(
            |detail| {
                let fix = format!(
                    "`hearth adapter show {}` explains each setting",
                    slot.registration.descriptor.id
                );
                PortError::Invalid { detail, fix }
            },
        )
    }

    fn pair_ops(&self, id: &str, seconds: u32) -> Result<Vec<Op>, PortError> {
        let slot = self.slot(id)?;
        let within_ms = u64::from(seconds) * 1_000;
        if within_ms == 0 || within_ms > MAX_PAIR_MS {
            return Err(invalid(format!("{seconds} s to pair: 1 to {} are possible", MAX_PAIR_MS / 1_000)));
        }
        let mut standing = slot.decided.standing.iter().filter(|(node, _)| self.living.contains(node));
        if !standing.any(|(_, standing)| standing.state == AdapterState::Running) {
            return Err(PortError::Conflict {
                detail: format!("{id} runs on no node, so nobody waits for a button"),
                fix: format!("`hearth adapter show {id}` says why"),
            });
        }
        let until_ms = self.clock.now_ms().saturating_add(within_ms);
        let field = FieldName::new("pair").map_err(|rule| invalid(rule.to_string()))?;
        Ok(vec![Op::Set(slot.object.clone(), field, super::convert::millis(until_ms))])
    }

    /// Deletes the adapter's settings and its devices, and switches it off.
    fn forget_ops(&self, id: &str) -> Result<Vec<Op>, PortError> {
        let slot = self.slot(id)?;
        let off = FieldName::new("enabled").map_err(|rule| invalid(rule.to_string()))?;
        let of_it = |device: &&super::table::Device| device.adapter_id().as_deref() == Some(id);
        let devices = self.devices.values().filter(of_it).map(|device| Op::Delete(device.object.clone()));
        let gone = slot.decided.settings.keys().map(|key| format!("settings.{key}"));
        let boxes = slot.decided.sealed.iter();
        let boxes = boxes
            .flat_map(|(key, boxes)| Boxes::nodes(boxes).map(move |node| format!("sealed.{key}.{node}")));
        let fields =
            gone.chain(boxes).chain(["nodes".to_owned()]).filter_map(|name| FieldName::new(&name).ok());
        let mut ops = vec![Op::Set(slot.object.clone(), off, Value::Bool(false))];
        ops.extend(fields.map(|field| Op::Unset(slot.object.clone(), field)));
        ops.extend(devices);
        Ok(ops)
    }

    /// Writes, and answers when it is written.
    fn write_for(&self, ops: Vec<Op>, reply: Reply<()>) {
        let service = self.service.clone();
        tokio::spawn(async move {
            let written = write_all(&service, ops).await.map_err(PortError::from);
            let _ = reply.send(written); // whoever asked is gone
        });
    }
}

/// Writes in pieces that a request may have; what switches an adapter off comes first.
async fn write_all(service: &Service, mut ops: Vec<Op>) -> Result<(), ServiceError> {
    while ops.len() > MAX_OPS {
        let rest = ops.split_off(MAX_OPS);
        service.write(Author::Node, std::mem::replace(&mut ops, rest)).await?;
    }
    service.write(Author::Node, ops).await
}

fn set_or_unset(slot: &Slot, field: FieldName, value: Option<Value>) -> Op {
    match value {
        Some(value) => Op::Set(slot.object.clone(), field, value),
        None => Op::Unset(slot.object.clone(), field),
    }
}

fn invalid(detail: String) -> PortError {
    PortError::Invalid { detail, fix: "`hearth adapter list` shows what there is".to_owned() }
}
