//! A scene as it is kept: what devices shall be, and what they were before.

use std::collections::BTreeMap;

use mesh_proto::{FieldName, ObjectId, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    devices::{decode, encode},
    service::{ObjectView, Op},
};

const TRANSITION: &str = "transition_ms";
const ACTIVATED: &str = "activated";
/// Of the fields that say what a device shall be.
const SET: &str = "set.";
/// Of the fields that say what it was.
const BEFORE: &str = "before.";

/// Changes in the form of the API, by the names of the devices: `lifx-d073d5000001`.
pub(crate) type Changes = BTreeMap<String, Json>;

/// When a scene was activated last, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activated {
    /// In milliseconds since 1970.
    pub(crate) at: u64,
    /// As the audit trail calls him; `client`, or the schedule's object, where an older version wrote it.
    pub(crate) by: String,
}

/// A scene.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    pub(crate) object: ObjectId,
    /// What each device shall be.
    pub(crate) set: Changes,
    /// How long the change takes, in milliseconds, unless somebody says otherwise.
    pub(crate) transition_ms: u32,
    /// What each was before.
    pub(crate) before: Changes,
    /// None for one that was not activated, or put back.
    pub(crate) activated: Option<Activated>,
}

impl Scene {
    /// One that is not kept yet.
    pub(in crate::automation) fn new(object: ObjectId) -> Self {
        let (set, before) = (Changes::new(), Changes::new());
        Self { object, set, transition_ms: 0, before, activated: None }
    }

    pub(in crate::automation) fn read(view: &ObjectView) -> Self {
        let mut scene = Self::new(view.id.clone());
        for (name, field) in &view.fields {
            let name = name.as_str();
            if let Some(device) = name.strip_prefix(SET) {
                scene.set.extend(decode(&field.value).map(|change| (device.to_owned(), change)));
            } else if let Some(device) = name.strip_prefix(BEFORE) {
                scene.before.extend(decode(&field.value).map(|change| (device.to_owned(), change)));
            } else if name == TRANSITION {
                scene.transition_ms = decode(&field.value).unwrap_or_default();
            } else if name == ACTIVATED {
                scene.activated = decode(&field.value);
            }
        }
        scene
    }

    /// Whether a device's change can be kept.
    ///
    /// # Errors
    /// Why not, in words.
    pub(in crate::automation) fn fits(device: &str, change: &Json) -> Result<(), &'static str> {
        // The longest of the two.
        FieldName::new(&format!("{BEFORE}{device}")).map_err(|_| "its id is too long for a scene")?;
        encode(change).encode().map(drop).map_err(|_| "what it shows is too much for a scene")
    }

    /// What makes it what `next` says.
    pub(in crate::automation) fn become_ops(&self, next: &Self) -> Vec<Op> {
        let mut ops = self.differences(SET, &self.set, &next.set);
        ops.extend(self.write(TRANSITION, Value::Int(next.transition_ms.into())));
        ops
    }

    /// What notes that it was activated, or put back, and what devices were before.
    pub(super) fn note_ops(&self, before: &Changes, activated: Option<&Activated>) -> Vec<Op> {
        let mut ops = self.differences(BEFORE, &self.before, before);
        ops.extend(match activated {
            Some(activated) => self.write(ACTIVATED, encode(activated)),
            None => FieldName::new(ACTIVATED).ok().map(|field| Op::Unset(self.object.clone(), field)),
        });
        ops
    }

    fn differences(&self, prefix: &str, old: &Changes, new: &Changes) -> Vec<Op> {
        let field = |device: &String| FieldName::new(&format!("{prefix}{device}")).ok();
        let gone = old.keys().filter(|device| !new.contains_key(*device));
        let unset = gone.filter_map(|device| Some(Op::Unset(self.object.clone(), field(device)?)));
        let news = new.iter().filter(|(device, change)| old.get(*device) != Some(*change));
        let set = news.filter_map(|(device, change)| {
            Some(Op::Set(self.object.clone(), field(device)?, encode(change)))
        });
        unset.chain(set).collect()
    }

    fn write(&self, field: &str, value: Value) -> Option<Op> {
        FieldName::new(field).ok().map(|field| Op::Set(self.object.clone(), field, value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::service::FieldView;

    /// The object after these writes.
    fn written(view: Option<ObjectView>, object: &ObjectId, ops: Vec<Op>) -> ObjectView {
        let empty = ObjectView { id: object.clone(), fields: BTreeMap::new(), complete: true };
        let mut view = view.unwrap_or(empty);
        for op in ops {
            match op {
                Op::Set(id, field, value) => {
                    assert_eq!(&id, object);
                    assert!(value.encode().is_ok());
                    let field_view = FieldView { value, at_ms: 0, by: String::new(), durable: true };
                    view.fields.insert(field, field_view);
                }
                Op::Unset(_, field) => {
                    assert!(view.fields.remove(&field).is_some() || field.as_str() == ACTIVATED)
                }
                Op::Delete(_) => unreachable!("nothing deletes it"),
            }
        }
        view
    }

    fn changes(of: &[(&str, Json)]) -> Changes {
        of.iter().map(|(device, change)| ((*device).to_owned(), change.clone())).collect()
    }

    #[test]
    fn a_scene_comes_back_as_it_was_and_what_left_it_is_gone() {
        let object = ObjectId::new("scene/evening").unwrap();
        let empty = Scene::new(object.clone());
        let dim = json!({"on": true, "brightness": 40.25, "color": {"x": 0.45, "y": 0.41}});
        let scene = Scene {
            set: changes(&[("lifx-1", dim.clone()), ("plug-2", json!({"on": false}))]),
            transition_ms: 2_000,
            ..empty.clone()
        };
        let kept = written(None, &object, empty.become_ops(&scene));
        assert_eq!(Scene::read(&kept), scene);

        let activated = Activated { at: 7, by: "schedule:x".to_owned() };
        let before = changes(&[("lifx-1", json!({"on": false}))]);
        let kept = written(Some(kept), &object, scene.note_ops(&before, Some(&activated)));
        let active = Scene { before, activated: Some(activated), ..scene };
        assert_eq!(Scene::read(&kept), active);

        let smaller = Scene { set: changes(&[("lifx-1", dim)]), transition_ms: 0, ..active.clone() };
        let kept = written(Some(kept), &object, active.become_ops(&smaller));
        assert_eq!(Scene::read(&kept), smaller, "what was before is still known");
        let kept = written(Some(kept), &object, smaller.note_ops(&Changes::new(), None));
        assert_eq!(Scene::read(&kept), Scene { before: Changes::new(), activated: None, ..smaller });
    }

    #[test]
    fn what_fits_no_field_is_refused_in_words() {
        assert_eq!(Scene::fits("lifx-1", &json!({"on": true})), Ok(()));
        assert!(Scene::fits(&"x".repeat(60), &json!({"on": true})).unwrap_err().contains("too long"));
        let zones: Vec<_> =
            (0..400).map(|_| json!({"count": 1, "brightness": 1.5, "kelvin": 2700})).collect();
        assert!(Scene::fits("lifx-1", &json!({ "zones": zones })).unwrap_err().contains("too much"));
    }
}
