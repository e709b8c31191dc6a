//! A list of a program as it is stored: one text of JSON. Lists and maps of a value stand in one another less deep than a program may.

use mesh_proto::Value;
use serde_json::Value as Json;

use crate::devices::decode;

/// The value of a list.
pub(crate) fn keep(list: &[Json]) -> Value {
    Value::Text(Json::Array(list.to_vec()).to_string().into())
}

/// Reads a list back; none for what is no list. Until it was a text, a list was stored as one.
pub(crate) fn kept(value: &Value) -> Option<Vec<Json>> {
    match value {
        Value::Text(text) => serde_json::from_str(text).ok(),
        list => decode(list),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::devices::encode;

    #[test]
    fn a_list_is_read_as_it_was_kept_however_deep_it_is_and_whatever_kept_it() {
        let mut deep = json!({"event": "x", "data": 1.5});
        for _ in 0..30 {
            deep = json!([deep]);
        }
        let list = vec![deep, json!({"state": "x", "is": "\u{7}ü"})];
        assert_eq!(kept(&Value::decode(&keep(&list).encode().unwrap()).unwrap()), Some(list));
        let flat = vec![json!({"event": "x"}), json!({"delay": "1s"})];
        assert_eq!(kept(&encode(&flat)), Some(flat));
        for wrong in [Value::Text("[1".into()), Value::Text("{}".into()), Value::Int(5)] {
            assert_eq!(kept(&wrong), None);
        }
    }
}
