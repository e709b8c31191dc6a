//! Objects as JSON, as readers of the API see them.

use mesh_proto::kinds;
use serde_json::{Map, Value as Json, json};

use crate::{json::from_value, service::ObjectView};

/// An object as readers of the API see it. The hash of a token is never among its fields.
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

/// The secret part of the kinds: what no reader may see, whoever they are, and the sealed
/// secrets of adapters, which are of no use to any. A token shows the
/// fields that its kind declares, without its hash.
fn is_hidden(kind: &str, field: &str) -> bool {
    let is_sealed = kind == "adapter" && field.starts_with("sealed.");
    is_sealed || kind == "token" && (field == "hash" || !kinds::field_names(kind).any(|known| known == field))
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
