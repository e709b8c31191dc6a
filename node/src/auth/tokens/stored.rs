//! A token as an object.
//!
//! The role of a token with a scope or an end stands in `limited`, not in `role`: a node of a version that knows neither would take
//! it for a token without bounds, and is to find no role in it.

use mesh_proto::{FieldName, ObjectId, Value};
use tokio::time::Instant;

use super::{Role, Scope, TokenView};
use crate::service::{ObjectView, Op};

/// What is known of a token.
pub(super) struct Entry {
    pub(super) hash: blake3::Hash,
    /// But for whether it has ended, which only the clock says.
    pub(super) view: TokenView,
    /// When this node said last that it was used.
    pub(super) noted: Option<Instant>,
}

impl Entry {
    pub(super) fn has_ended(&self, now_ms: u64) -> bool {
        self.view.expires_ms.is_some_and(|end| end <= now_ms)
    }

    /// Reads a token. One whose role, scope or end this version does not understand, or whose hash is none, opens nothing.
    pub(super) fn read(object: &ObjectView) -> Option<Self> {
        let field = |name: &str| object.fields.get(&FieldName::new(name).ok()?).map(|field| &field.value);
        let text = |name: &str| field(name).and_then(Value::as_text).unwrap_or_default().to_owned();
        let ms = |name: &str| field(name).and_then(Value::as_int).and_then(|ms| u64::try_from(ms).ok());
        let Some(Value::Bytes(hash)) = field("hash") else { return None };
        let scope = field("scope").map_or(Some(Scope::default()), Scope::from_value)?;
        let expires_ms = match field("expires") {
            Some(_) => Some(ms("expires")?),
            None => None,
        };
        let role: Role = field("role").or(field("limited"))?.as_text()?.parse().ok()?;
        let view = TokenView {
            id: object.id.name().to_owned(),
            role,
            label: text("label"),
            scope,
            created_ms: ms("created").unwrap_or(0),
            expires_ms,
            expired: false,
            by: text("by"),
            used_ms: ms("used"),
        };
        // An admin of a part of the home is none.
        let is_sound = view.scope.is_whole() || role < Role::Admin;
        let hash = blake3::Hash::from_bytes((&**hash).try_into().ok()?);
        is_sound.then_some(Self { hash, view, noted: None })
    }

    /// What writes it.
    pub(super) fn ops(&self, object: &ObjectId) -> Vec<Op> {
        let view = &self.view;
        let is_limited = !view.scope.is_whole() || view.expires_ms.is_some();
        let role = if is_limited { "limited" } else { "role" };
        let mut fields = vec![
            ("hash", Value::Bytes(self.hash.as_bytes().as_slice().into())),
            (role, Value::from(view.role.as_str())),
            ("label", Value::from(view.label.as_str())),
            ("created", millis(view.created_ms)),
            ("by", Value::from(view.by.as_str())),
        ];
        fields.extend(view.expires_ms.map(|end| ("expires", millis(end))));
        fields.extend(Some(&view.scope).filter(|scope| !scope.is_whole()).map(|s| ("scope", s.to_value())));
        fields.into_iter().filter_map(|(name, value)| set(object, name, value)).collect()
    }
}

/// What writes a field.
pub(super) fn set(object: &ObjectId, field: &str, value: Value) -> Option<Op> {
    FieldName::new(field).ok().map(|field| Op::Set(object.clone(), field, value))
}

pub(super) fn object(id: &str) -> Option<ObjectId> {
    ObjectId::new(&format!("token/{id}")).ok()
}

/// Whether it is all that is left of a token that was revoked on one node while it was used on another. What has more than that is
/// a token of which the rest may still be on its way.
pub(super) fn is_remnant(object: &ObjectView) -> bool {
    object.fields.keys().all(|field| field.as_str() == "used")
}

pub(super) fn millis(ms: u64) -> Value {
    Value::Int(i64::try_from(ms).unwrap_or(i64::MAX))
}
