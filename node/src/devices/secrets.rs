//! The settings of adapters in their objects, the secrets among them sealed for each member of the household.
//!
//! A secret that is set gets a version, and a box for each member under it: a box of an older version is worth nothing, so
//! that of two nodes that know different secrets only the newer one hands its own on.

use std::collections::BTreeMap;

use device_adapters::Registration;
use mesh_proto::{FieldName, ShortId, Value};
use serde_json::Value as Json;
use tracing::error;
use zeroize::Zeroizing;

use super::{
    Devices,
    adapters::Slot,
    convert::{from_json, map, millis},
    ownership,
    vault::Vault,
};

/// A secret, sealed for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// When the secret was set, in milliseconds since 1970.
    version: u64,
    sealed: Box<[u8]>,
}

/// The boxes of one secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Boxes(BTreeMap<ShortId, Sealed>);

impl Boxes {
    /// Takes in the field of a node; what is no box is passed over.
    pub(super) fn take(&mut self, node: ShortId, field: &Value) {
        let version =
            field.get("version").and_then(Value::as_int).and_then(|version| u64::try_from(version).ok());
        if let (Some(version), Some(Value::Bytes(sealed))) = (version, field.get("sealed")) {
            self.0.insert(node, Sealed { version, sealed: sealed.as_ref().into() });
        }
    }

    /// The nodes that have one, of whichever version.
    pub(super) fn nodes(&self) -> impl Iterator<Item = ShortId> {
        self.0.keys().copied()
    }

    /// The newest version that any node has.
    pub(super) fn newest(&self) -> Option<u64> {
        self.0.values().map(|one| one.version).max()
    }

    /// The nodes that have one of the newest version.
    fn up_to_date(&self) -> impl Iterator<Item = ShortId> {
        let newest = self.newest();
        self.0.iter().filter(move |(_, one)| Some(one.version) == newest).map(|(node, _)| *node)
    }

    /// The newest secret, where this node has it.
    pub(super) fn open(
        &self,
        vault: &Vault,
        me: ShortId,
        adapter: &str,
        key: &str,
    ) -> Option<Zeroizing<String>> {
        let mine = self.0.get(&me).filter(|mine| Some(mine.version) == self.newest())?;
        vault.open(&purpose(adapter, key, mine.version), &mine.sealed)
    }
}

/// What a box is sealed for.
fn purpose(adapter: &str, key: &str, version: u64) -> String {
    format!("adapter/{adapter} {key} {version}")
}

/// Whether a setting is one of the adapter.
pub(super) fn is_setting(registration: &Registration, key: &str) -> bool {
    property(registration, key).is_some()
}

/// Whether a setting is a secret, by the schema.
pub(super) fn is_secret(registration: &Registration, key: &str) -> bool {
    property(registration, key).is_some_and(|property| property.get("writeOnly") == Some(&Json::Bool(true)))
}

fn property(registration: &Registration, key: &str) -> Option<Json> {
    (registration.descriptor.settings_schema)().get("properties")?.get(key).cloned()
}

type Fields = Vec<(FieldName, Option<Value>)>;

impl Devices {
    /// An adapter learnt a setting: it is kept for the household, sealed if it is a secret.
    pub(super) fn learnt(&mut self, id: &str, key: &str, value: &str) {
        let Some(slot) = self.slots.get(id) else { return };
        match self.setting_fields(slot, key, &Json::from(value)) {
            Ok(fields) => self.put_all(id, fields),
            Err(reason) => {
                error!(adapter = id, setting = key, %reason, "what an adapter learnt cannot be kept");
            }
        }
    }

    /// The fields that a setting is written as; null takes it out.
    pub(super) fn setting_fields(&self, slot: &Slot, key: &str, value: &Json) -> Result<Fields, String> {
        let plain = field(format!("settings.{key}"))?;
        let mut fields = BTreeMap::new();
        for node in slot.decided.sealed.get(key).into_iter().flat_map(Boxes::nodes) {
            fields.insert(field(format!("sealed.{key}.{node}"))?, None);
        }
        if is_secret(&slot.registration, key) {
            fields.insert(plain, None);
            if let Some(secret) = value.as_str() {
                let newest = slot.decided.sealed.get(key).and_then(Boxes::newest).unwrap_or_default();
                let version = self.clock.now_ms().max(newest.saturating_add(1));
                for node in self.vault.members().into_keys() {
                    fields.insert(
                        field(format!("sealed.{key}.{node}"))?,
                        Some(self.sealed(slot, key, version, node, secret)?),
                    );
                }
            }
        } else {
            fields.insert(plain, Some(from_json(value.clone())).filter(|value| *value != Value::Null));
        }
        Ok(fields.into_iter().collect())
    }

    /// Hands the secrets of an adapter to members that have none, or an old one, and takes out those of nodes that are gone:
    /// one of the nodes that are able to does so for all.
    pub(super) fn reseal(&mut self, id: &str) {
        let Some(slot) = self.slots.get(id).filter(|slot| !slot.decided.sealed.is_empty()) else { return };
        let members = self.vault.members();
        let mut changes: Fields = Vec::new();
        for (key, boxes) in &slot.decided.sealed {
            let able = boxes.up_to_date().filter(|node| self.living.contains(node));
            if ownership::winner(able, id) != Some(self.me) {
                continue;
            }
            let gone = boxes.nodes().filter(|node| !members.contains_key(node));
            changes.extend(gone.filter_map(|node| Some((field(format!("sealed.{key}.{node}")).ok()?, None))));
            let has: Vec<ShortId> = boxes.up_to_date().collect();
            let lacks: Vec<ShortId> = members.keys().copied().filter(|node| !has.contains(node)).collect();
            // Opening costs the processor something, and nearly always nobody lacks it.
            let (false, Some(version)) = (lacks.is_empty(), boxes.newest()) else { continue };
            let Some(secret) = boxes.open(&self.vault, self.me, id, key) else { continue };
            for node in lacks {
                if let (Ok(field), Ok(sealed)) =
                    (field(format!("sealed.{key}.{node}")), self.sealed(slot, key, version, node, &secret))
                {
                    changes.push((field, Some(sealed)));
                }
            }
        }
        self.put_all(id, changes);
    }

    fn put_all(&mut self, id: &str, fields: Fields) {
        let Some(slot) = self.slots.get(id) else { return };
        for (field, value) in fields {
            self.config.put(&slot.object, field, value);
        }
    }

    /// The box of a member.
    fn sealed(
        &self,
        slot: &Slot,
        key: &str,
        version: u64,
        node: ShortId,
        secret: &str,
    ) -> Result<Value, String> {
        let members = self.vault.members();
        let whole = members.get(&node).ok_or_else(|| format!("node {node} is no member"))?;
        let purpose = purpose(slot.registration.descriptor.id, key, version);
        let sealed = Vault::seal(whole, &purpose, secret).map_err(|rule| rule.to_string())?;
        Ok(map([("version", millis(version)), ("sealed", Value::Bytes(sealed.as_slice().into()))]))
    }
}

fn field(name: String) -> Result<FieldName, String> {
    FieldName::new(&name).map_err(|rule| rule.to_string())
}
