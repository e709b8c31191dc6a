//! What readers see: both planes together, without tombstones.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::{
    hlc::Hlc,
    id::{FieldName, Key, ObjectId, ShortId},
    kinds,
    overlay::Overlay,
    replica::Replica,
    value::Value,
};

/// A field as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldView {
    /// What it holds.
    pub value: Value,
    /// When it was written.
    pub stamp: Hlc,
    /// Who wrote it.
    pub writer: ShortId,
    /// Whether it comes from the durable plane.
    pub durable: bool,
}

/// An object as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectView {
    /// Its name.
    pub id: ObjectId,
    /// Its visible fields.
    pub fields: BTreeMap<FieldName, FieldView>,
    /// Whether it has every field that its kind requires; if not, it reads as absent.
    pub complete: bool,
}

/// Reads one object; `None` when no field of it is visible.
pub fn object(replica: &Replica, overlay: &Overlay, id: &ObjectId) -> Option<ObjectView> {
    let held = replica.object(id);
    let durable = held.into_iter().flat_map(|object| object.entries().map(|(name, _)| name.clone()));
    let passing = overlay.fields_of(id).map(|key| key.field.clone());
    let names: BTreeSet<FieldName> = durable.chain(passing).filter(|name| !name.is_object()).collect();
    let fields: BTreeMap<FieldName, FieldView> = names
        .into_iter()
        .filter_map(|name| {
            let key = Key { object: id.clone(), field: name };
            field(replica, overlay, &key).map(|view| (key.field, view))
        })
        .collect();
    if fields.is_empty() {
        return None;
    }
    let complete = kinds::is_complete(id.kind(), |name| fields.keys().any(|field| field.as_str() == name));
    Some(ObjectView { id: id.clone(), fields, complete })
}

/// Reads one field: the later of the two planes; a durable write wins a tie.
pub fn field(replica: &Replica, overlay: &Overlay, key: &Key) -> Option<FieldView> {
    let held = replica.entry(key);
    let below = floor(replica, key);
    let passing = overlay.newest(key).filter(|entry| entry.stamp > below);
    if let Some(entry) = passing {
        let value = Value::decode(entry.value.as_deref()?).ok()?;
        return Some(FieldView { value, stamp: entry.stamp, writer: entry.writer, durable: false });
    }
    let entry = held?;
    let value = Value::decode(entry.value.as_deref()?).ok()?;
    Some(FieldView { value, stamp: entry.stamp, writer: entry.dot.origin.node, durable: true })
}

/// The stamp at or below which overlay entries for a register are not visible.
pub fn floor(replica: &Replica, key: &Key) -> Hlc {
    let Some(object) = replica.object(&key.object) else { return Hlc::ZERO };
    let own = object.entry(key.field.as_str()).map_or(Hlc::ZERO, |entry| entry.stamp);
    own.max(object.tombstone().map_or(Hlc::ZERO, |entry| entry.stamp))
}
