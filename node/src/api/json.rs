//! Objects as JSON, as readers of the API see them.

use mesh_proto::kinds;
use serde_json::{Map, Value as Json, json};

use crate::{json::from_value, service::ObjectView};

/// An object as readers of the API see it. Hashes of tokens and passwords are never among its fields.
pub fn from_object(object: &ObjectView) -> Json {
    let (mut fields, mut meta) = (Map::new(), Map::new());
    for (name, field) in &object.fields {
        if is_hidden(object.id.kind(), name.as_str()) {
            continue;
        }
        fields.insert(name.as_str().to_owned(), from_value(&field.value));
        let about = json!({ "at": timestamp(field.at_ms), "by": field.by, "durable": field.durable });
        meta.insert(name.as_str().to_owned(), about);
    }
    json!({ "id": object.id.as_str(), "fields": fields, "meta": meta, "complete": object.complete })
}

/// What of the kinds of the door and of adapters is a secret, or as good as one.
const SECRETS: [&str; 4] = ["hash", "password", "rehashed", "basis"];

/// The secret part of the kinds: what no reader may see, whoever they are, and what is sealed and of no use to
/// any. What says who may come in shows the fields that its kind declares, without its secrets.
fn is_hidden(kind: &str, field: &str) -> bool {
    let of_door = kinds::guards_the_door(kind);
    let is_sealed = field.starts_with("sealed.") && (of_door || kind == "adapter");
    let is_known =
        || kinds::kind_rule(kind).is_none() || kinds::field_names(kind).any(|known| is_of(field, known));
    is_sealed || of_door && (SECRETS.contains(&field) || !is_known())
}

/// Whether a field is the one of this rule, which ends in `.` when it stands for many.
fn is_of(field: &str, known: &str) -> bool {
    field == known || known.ends_with('.') && field.starts_with(known)
}

/// Milliseconds since 1970 as RFC 3339 in UTC, with milliseconds.
pub fn timestamp(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_milliseconds_in_utc() {
        assert_eq!(timestamp(1_795_327_200_123), "2026-11-22T06:00:00.123Z");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert!(timestamp(u64::MAX).starts_with("9999-12-30"), "{}", timestamp(u64::MAX));
    }
}
