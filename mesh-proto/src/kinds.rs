//! The kinds of object that Hearth itself gives a meaning, and the rules of their fields.
//!
//! A kind that is not listed is free-form: anybody may write any field, and each write is
//! flushed before it is acknowledged.

use crate::id::{Key, ShortId};

/// What a write promises when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed, then acknowledged, then pushed.
    Config,
    /// Visible everywhere at once; flushed within [`STATE_FLUSH_MS`] after coalescing.
    State,
    /// Visible everywhere at once; flushed within [`MEASURED_FLUSH_MS`] after coalescing: for what changes all the time
    /// and is measured again soon, so that it does not wear the disk.
    Measured,
    /// In memory only, until its writer's incarnation ends.
    Presence,
}

/// Longest time a [`Durability::State`] write stays unflushed, in milliseconds.
pub const STATE_FLUSH_MS: u64 = 5_000;

/// Longest time a [`Durability::Measured`] write stays unflushed, in milliseconds: ten minutes.
pub const MEASURED_FLUSH_MS: u64 = 600_000;

/// Who may write a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Anybody with access: people, scripts, nodes.
    Anyone,
    /// The nodes themselves, never a client.
    Node,
    /// Only the node after whose short name the object is called; peers check it.
    Named,
}

/// On whose behalf a local write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// A client of the API.
    Client,
    /// This node.
    Node,
}

/// The rule of a field, or of all fields with a prefix.
#[derive(Debug)]
pub struct FieldRule {
    /// The field's name; one that ends in `.` stands for every field that starts with it.
    pub name: &'static str,
    /// What an acknowledged write promises.
    pub durability: Durability,
    /// Who may write it.
    pub writer: Writer,
    /// Whether an object without it reads as absent and is listed as incomplete.
    pub required: bool,
}

/// A kind and its fields.
#[derive(Debug)]
pub struct KindRule {
    /// The kind.
    pub kind: &'static str,
    /// How long an overlay entry lasts after its stamp, in milliseconds; none: until its
    /// writer's incarnation ends.
    pub overlay_ttl_ms: Option<u64>,
    /// Its fields. Others are free-form.
    pub fields: &'static [FieldRule],
}

const fn field(name: &'static str, durability: Durability, writer: Writer) -> FieldRule {
    FieldRule { name, durability, writer, required: false }
}

const fn required(name: &'static str, durability: Durability, writer: Writer) -> FieldRule {
    FieldRule { name, durability, writer, required: true }
}

/// Every kind with rules of its own.
pub const KINDS: &[KindRule] = &[
    KindRule {
        kind: "node",
        overlay_ttl_ms: None,
        fields: &[
            field("name", Durability::Config, Writer::Anyone),
            field("version", Durability::Config, Writer::Named),
            field("addresses", Durability::Config, Writer::Named),
            field("closed.", Durability::Config, Writer::Named),
            field("status", Durability::Presence, Writer::Named),
        ],
    },
    KindRule {
        kind: "device",
        overlay_ttl_ms: None,
        fields: &[
            required("adapter", Durability::Config, Writer::Node),
            field("model", Durability::Config, Writer::Node),
            field("label", Durability::Config, Writer::Node),
            field("capabilities", Durability::Config, Writer::Node),
            field("effects", Durability::Config, Writer::Node),
            field("palettes", Durability::Config, Writer::Node),
            field("sensors", Durability::Config, Writer::Node),
            field("note", Durability::Config, Writer::Node),
            field("name", Durability::Config, Writer::Anyone),
            field("area", Durability::Config, Writer::Anyone),
            // Clients ask by command, which is checked, has a deadline and a life that is told.
            field("desired", Durability::State, Writer::Node),
            field("reported", Durability::State, Writer::Node),
            field("availability", Durability::State, Writer::Node),
            field("readings", Durability::Measured, Writer::Node),
            field("hourly", Durability::Measured, Writer::Node),
            field("daily", Durability::Measured, Writer::Node),
            field("reach.", Durability::Presence, Writer::Node),
        ],
    },
    KindRule {
        kind: "adapter",
        overlay_ttl_ms: None,
        fields: &[
            // Checked before they are written: clients ask the owner of the adapters.
            field("enabled", Durability::Config, Writer::Node),
            field("nodes", Durability::Config, Writer::Node),
            field("round", Durability::Config, Writer::Node),
            field("settings.", Durability::Config, Writer::Node),
            field("sealed.", Durability::Config, Writer::Node),
            field("pair", Durability::State, Writer::Node),
            field("pairing", Durability::State, Writer::Node),
            field("state.", Durability::Presence, Writer::Node),
        ],
    },
    KindRule {
        kind: "home",
        overlay_ttl_ms: None,
        fields: &[
            // Checked before they are written: clients ask the owner of the schedules.
            field("zone", Durability::Config, Writer::Node),
            field("latitude", Durability::Config, Writer::Node),
            field("longitude", Durability::Config, Writer::Node),
            field("since", Durability::Config, Writer::Node),
            field("http.", Durability::Config, Writer::Node),
        ],
    },
    KindRule {
        kind: "schedule",
        overlay_ttl_ms: None,
        fields: &[
            required("when", Durability::Config, Writer::Node),
            field("only", Durability::Config, Writer::Node),
            field("except", Durability::Config, Writer::Node),
            field("missed", Durability::Config, Writer::Node),
            field("do", Durability::Config, Writer::Node),
            field("enabled", Durability::Config, Writer::Node),
            field("since", Durability::Config, Writer::Node),
            // Flushed before the first command is given: what a node began is known after its death.
            field("run.", Durability::Config, Writer::Node),
        ],
    },
    KindRule {
        kind: "scene",
        overlay_ttl_ms: None,
        fields: &[
            required("transition_ms", Durability::Config, Writer::Node),
            field("set.", Durability::Config, Writer::Node),
            // Written at each activation, which may come often.
            field("before.", Durability::State, Writer::Node),
            field("activated", Durability::State, Writer::Node),
        ],
    },
    KindRule {
        kind: "automation",
        overlay_ttl_ms: None,
        fields: &[
            required("triggers", Durability::Config, Writer::Node),
            field("conditions", Durability::Config, Writer::Node),
            required("actions", Durability::Config, Writer::Node),
            field("mode", Durability::Config, Writer::Node),
            field("max", Durability::Config, Writer::Node),
            field("enabled", Durability::Config, Writer::Node),
            field("tripped", Durability::Config, Writer::Node),
            field("webhook", Durability::Config, Writer::Node),
            // Flushed before each step: somebody goes on where a node died.
            field("run.", Durability::Config, Writer::Node),
        ],
    },
    KindRule {
        kind: "command",
        overlay_ttl_ms: Some(600_000),
        fields: &[
            field("request", Durability::Presence, Writer::Node),
            field("life", Durability::Presence, Writer::Node),
        ],
    },
    KindRule {
        // Told and forgotten: long enough for a node that is started anew not to miss it.
        kind: "event",
        overlay_ttl_ms: Some(30_000),
        fields: &[field("data", Durability::Presence, Writer::Node)],
    },
    KindRule {
        kind: "token",
        overlay_ttl_ms: None,
        fields: &[
            required("hash", Durability::Config, Writer::Node),
            field("role", Durability::Config, Writer::Node),
            field("label", Durability::Config, Writer::Node),
            field("created", Durability::Config, Writer::Node),
        ],
    },
    KindRule {
        kind: "certificate",
        overlay_ttl_ms: None,
        fields: &[
            // The challenges of a certificate authority that a living node answers.
            field("gateway", Durability::Presence, Writer::Named),
            // What it says of its public certificate: the others wait for their turn by it, and count with it.
            field("standing", Durability::State, Writer::Named),
            field("turn", Durability::State, Writer::Named),
            field("issued", Durability::Config, Writer::Named),
            field("failed", Durability::Config, Writer::Named),
        ],
    },
    KindRule {
        kind: "challenge",
        overlay_ttl_ms: None,
        fields: &[
            // Flushed: the authority may look while its maker is down.
            required("answer", Durability::Config, Writer::Node),
            // A gateway that starts anew takes it in anew.
            field("ack.", Durability::Presence, Writer::Node),
        ],
    },
];

/// The prefix of the fields by which a node closes a generation (`node/SHORT.closed.G`).
pub(crate) const CLOSED_PREFIX: &str = "closed.";

/// The rules of a kind, if it has any.
pub fn kind_rule(kind: &str) -> Option<&'static KindRule> {
    KINDS.iter().find(|rule| rule.kind == kind)
}

fn field_rule(key: &Key) -> Option<&'static FieldRule> {
    let name = key.field.as_str();
    kind_rule(key.object.kind())?
        .fields
        .iter()
        .find(|rule| rule.name == name || (rule.name.ends_with('.') && name.starts_with(rule.name)))
}

/// What a write to this field promises.
pub fn durability(key: &Key) -> Durability {
    field_rule(key).map_or(Durability::Config, |rule| rule.durability)
}

/// How soon a write to a field that is neither flushed at once nor never is flushed, in milliseconds.
pub(crate) fn flush_within_ms(key: &Key) -> u64 {
    if durability(key) == Durability::Measured { MEASURED_FLUSH_MS } else { STATE_FLUSH_MS }
}

/// Whether a local author may write this field on the node called `node`.
pub fn may_author(key: &Key, author: Author, node: ShortId) -> bool {
    match field_rule(key).map_or(Writer::Anyone, |rule| rule.writer) {
        Writer::Anyone => author == Author::Node || !is_protected_object(key),
        Writer::Node => author == Author::Node,
        Writer::Named => author == Author::Node && is_named_after(key, node),
    }
}

/// An object that only nodes make is only theirs to delete.
fn is_protected_object(key: &Key) -> bool {
    key.field.is_object()
        && matches!(
            key.object.kind(),
            "node"
                | "token"
                | "command"
                | "event"
                | "adapter"
                | "home"
                | "schedule"
                | "scene"
                | "automation"
                | "certificate"
                | "challenge"
        )
}

/// Whether peers accept a write to this field from `node`: the part of the rules that can be
/// judged from the write alone, so that every replica judges alike.
pub fn may_originate(key: &Key, node: ShortId) -> bool {
    field_rule(key).is_none_or(|rule| rule.writer != Writer::Named) || is_named_after(key, node)
}

fn is_named_after(key: &Key, node: ShortId) -> bool {
    key.object.name().parse() == Ok(node)
}

/// The generation that a field closes, if it is such a field.
pub(crate) fn closed_generation(key: &Key) -> Option<u32> {
    if key.object.kind() != "node" {
        return None;
    }
    key.field.as_str().strip_prefix(CLOSED_PREFIX)?.parse().ok()
}

/// The required fields of a kind.
pub fn required_fields(kind: &str) -> impl Iterator<Item = &'static str> {
    kind_rule(kind).map_or(&[][..], |rule| rule.fields).iter().filter(|f| f.required).map(|f| f.name)
}

/// How long an overlay entry of this kind lasts after its stamp.
pub fn overlay_ttl_ms(kind: &str) -> Option<u64> {
    kind_rule(kind)?.overlay_ttl_ms
}

/// Whether an object of this kind that has exactly the fields for which `has` holds is complete.
pub fn is_complete(kind: &str, has: impl Fn(&str) -> bool) -> bool {
    required_fields(kind).all(has)
}

/// The fields of a kind by name, for documentation and completion.
pub fn field_names(kind: &str) -> impl Iterator<Item = &'static str> {
    kind_rule(kind).map_or(&[][..], |rule| rule.fields).iter().map(|f| f.name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::{FieldName, ObjectId};

    fn key(object: &str, field: &str) -> Key {
        Key { object: ObjectId::new(object).unwrap(), field: FieldName::new(field).unwrap() }
    }

    #[test]
    fn rules_are_found_by_name_and_by_prefix() {
        assert_eq!(durability(&key("device/x", "reach.0011")), Durability::Presence);
        assert_eq!(durability(&key("device/x", "desired")), Durability::State);
        assert_eq!(durability(&key("scene/x", "set.lifx-1")), Durability::Config);
        assert_eq!(durability(&key("scene/x", "before.lifx-1")), Durability::State);
        assert_eq!(durability(&key("note/x", "anything")), Durability::Config);
    }

    #[test]
    fn clients_cannot_report_and_nodes_speak_only_for_themselves() {
        let (me, other) = (ShortId(0xab), ShortId(0xcd));
        assert!(!may_author(&key("device/x", "reported"), Author::Client, me));
        assert!(may_author(&key("device/x", "reported"), Author::Node, me));
        assert!(!may_author(&key("device/x", "desired"), Author::Client, me), "clients send commands");
        assert!(may_author(&key("device/x", "desired"), Author::Node, me));
        assert!(may_author(&key("device/x", "name"), Author::Client, me));
        let mine = key("node/00000000000000ab", "version");
        assert!(may_author(&mine, Author::Node, me) && !may_author(&mine, Author::Client, me));
        assert!(may_originate(&mine, me) && !may_originate(&mine, other));
        assert_eq!(closed_generation(&key("node/00000000000000ab", "closed.7")), Some(7));
    }
}
