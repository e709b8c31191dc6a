//! What a backup holds, as lines of JSON for `hearth import`: the way back for a home of which no node
//! and no key is left.

use std::{collections::BTreeMap, io::Write, path::Path};

use mesh_proto::{Value, kinds::guards_the_door, record::Record};
use serde_json::{Map, Value as Json, json};

use super::format::BackupError;
use crate::{
    json::from_value,
    store::{DiskError, export},
};

/// Writes the objects of an export to `out`, one a line; answers with their number. Tokens, users and
/// sessions are left out: they are secret and of no use elsewhere.
///
/// # Errors
/// What is wrong with the export, or what `out` says.
pub fn write_lines(from: &Path, out: &mut dyn Write) -> Result<usize, BackupError> {
    let mut objects: BTreeMap<String, Object> = BTreeMap::new();
    export::read(from, &mut |key, value| {
        // What makes no sense here is left out at a start, too.
        let Ok(Record::Register(key, entry)) = Record::decode(key, value) else { return };
        if key.object.kind() == "command" || guards_the_door(key.object.kind()) {
            return;
        }
        let object = objects.entry(key.object.as_str().to_owned()).or_default();
        let stamp = entry.stamp.to_bits();
        if key.field.is_object() {
            object.deleted = object.deleted.max(Some(stamp));
        } else if let Some(value) = entry.value.as_deref().and_then(|bytes| Value::decode(bytes).ok()) {
            object.fields.insert(key.field.as_str().to_owned(), (stamp, from_value(&value)));
        }
    })?;
    let mut written = 0;
    for (id, object) in objects {
        let fields = object.fields.into_iter().filter(|(_, (stamp, _))| Some(*stamp) > object.deleted);
        let fields: Map<String, Json> = fields.map(|(name, (_, value))| (name, value)).collect();
        if fields.is_empty() {
            continue;
        }
        writeln!(out, "{}", json!({ "id": id, "fields": fields }))
            .map_err(|error| DiskError::new("write the objects of", from, error))?;
        written += 1;
    }
    Ok(written)
}

#[derive(Default)]
struct Object {
    /// The stamp of its deletion.
    deleted: Option<u64>,
    fields: BTreeMap<String, (u64, Json)>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::{Batch, Store as _, memory::MemoryStore, tests::Folder};
    use mesh_proto::{Dot, FieldName, Hlc, Key, ObjectId, Origin, ShortId, merge::Entry, record};
    use std::time::SystemTime;

    fn register(object: &str, field: Option<&str>, ms: u64, value: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let field = field.map_or_else(FieldName::object, |field| FieldName::new(field).unwrap());
        let dot = Dot { origin: Origin { node: ShortId(7), generation: 1 }, seq: ms };
        let value = value.map(|text| Value::from(text).encode().unwrap());
        let key = Key { object: ObjectId::new(object).unwrap(), field };
        record::register(&key, &Entry { stamp: Hlc::from_ms(ms), dot, value })
    }

    #[test]
    fn what_is_visible_is_written_and_what_was_deleted_or_secret_is_not() {
        let folder = Folder::new();
        let mut store = MemoryStore::new();
        let puts = vec![
            register("note/kept", Some("text"), 5, Some("milk")),
            register("note/kept", Some("gone"), 6, None),
            register("note/deleted", Some("text"), 5, Some("old")),
            register("note/deleted", None, 9, None),
            register("note/revived", None, 9, None),
            register("note/revived", Some("text"), 10, Some("again")),
            register("token/0123", Some("hash"), 5, Some("secret")),
            register("user/ann", Some("password"), 5, Some("secret")),
            register("session/0123", Some("hash"), 5, Some("secret")),
            record::ceiling(Hlc::from_ms(10)),
        ];
        store.commit(&Batch { puts, deletes: vec![] }).unwrap();
        let file = folder.join("a.hx");
        export::write(&mut store, &file, SystemTime::now(), &mut || ()).unwrap();
        let mut out = Vec::new();
        assert_eq!(write_lines(&file, &mut out).unwrap(), 2);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"fields\":{\"text\":\"milk\"},\"id\":\"note/kept\"}\n{\"fields\":{\"text\":\"again\"},\"id\":\"note/revived\"}\n"
        );
    }
}
