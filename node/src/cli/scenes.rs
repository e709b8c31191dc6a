//! `hearth scene`.

use std::time::Duration;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::args::{SceneActivateArgs, SceneCommand, SceneSaveArgs};
use super::client::segment;
use super::exit::Exit;
use super::model::{read_list, show_moment};
use super::output::{Done, printable};
use super::{Session, light, schedules, values};

const SCENES: &str = "/api/v1/scenes";

impl Session {
    pub(super) async fn scene(&self, command: &SceneCommand) -> Done<Exit> {
        match command {
            SceneCommand::List => {
                let answer = self.client.get(SCENES).await?;
                let scenes: Vec<Value> = read_list(&answer, "scenes")?;
                self.out.either(&answer, || all(&scenes))?;
                Ok(Exit::Ok)
            }
            SceneCommand::Show { name } => {
                let answer = self.client.get(&path(name)).await?;
                self.out.either(&answer, || one(&answer))?;
                Ok(Exit::Ok)
            }
            SceneCommand::Save(args) => self.save_scene(args).await,
            SceneCommand::Activate(args) => self.play_scene(args, "activate").await,
            SceneCommand::Undo(args) => self.play_scene(args, "undo").await,
            SceneCommand::Remove { name } => {
                let answer = self.client.call(Method::DELETE, &path(name), None).await?;
                self.done(answer, format!("{name} is deleted"))
            }
        }
    }

    async fn save_scene(&self, args: &SceneSaveArgs) -> Done<Exit> {
        let mut body = json!({"save": args.devices});
        if let (Some(time), Some(members)) = (args.transition, body.as_object_mut()) {
            members.insert("transition_ms".to_owned(), light::millis(time));
        }
        let answer = self.client.call(Method::PUT, &path(&args.name), Some(&body)).await?;
        self.out.either(&answer, || one(&answer))?;
        Ok(self.tell_refused(schedules::list(&answer, "refused")).unwrap_or(Exit::Ok))
    }

    async fn play_scene(&self, args: &SceneActivateArgs, how: &str) -> Done<Exit> {
        let manner = &args.manner;
        let members = [
            ("transition_ms", args.transition.map(light::millis)),
            ("deadline_ms", Some(light::millis(manner.deadline))),
            ("key", manner.key.as_ref().map(|key| json!(key))),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let body = Value::Object(given.collect::<Map<_, _>>());
        let answer =
            self.client.call(Method::POST, &format!("{}/{how}", path(&args.name)), Some(&body)).await?;
        let takes = answer.get("transition_ms").and_then(Value::as_u64).unwrap_or(0);
        self.follow_all(&answer, "scene", manner, Duration::from_millis(takes)).await
    }
}

fn path(name: &str) -> String {
    format!("{SCENES}/{}", segment(name))
}

fn all(scenes: &[Value]) -> String {
    if scenes.is_empty() {
        return "there is no scene: hearth scene save evening hall 'Desk lamp'".to_owned();
    }
    scenes.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// A scene: when it was activated, and what it makes of whom.
fn one(scene: &Value) -> String {
    let mut head = schedules::text(scene, "name").to_owned();
    match scene.get("transition_ms").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(ms) => head.push_str(&format!("  within {} s", Duration::from_millis(ms).as_secs_f64())),
    }
    if let Some(last) = scene.get("activated").filter(|last| last.is_object()) {
        let at = last.get("at").map(show_moment).unwrap_or_default();
        let by = match schedules::text(last, "by") {
            "client" | "" => String::new(),
            by => format!(" by {by}"),
        };
        head.push_str(&format!("  (activated {at}{by})"));
    }
    let gone = schedules::list(scene, "gone");
    let devices = scene.get("devices").and_then(Value::as_object);
    let lines = devices.into_iter().flatten().map(|(device, change)| {
        let is_gone = gone.iter().any(|gone| gone == device.as_str());
        let gone = if is_gone { "  (it is gone)" } else { "" };
        format!("  {device}: {}{gone}", values::show_change(change))
    });
    std::iter::once(head).chain(lines).map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_tells_what_it_makes_of_whom_and_who_is_gone() {
        let shown = one(&json!({
            "name": "evening", "transition_ms": 2_500, "activated": {"at": "2026-11-29T20:00:00.000Z", "by": "schedule:dusk"},
            "devices": {"device/lifx-1": {"on": true, "brightness": 40.0}, "device/plug": {"on": false}},
            "before": {}, "gone": ["device/plug"],
        }));
        for part in [
            "evening  within 2.5 s  (activated ",
            " by schedule:dusk)",
            "\n  device/lifx-1: brightness 40.0, on true",
            "\n  device/plug: on false  (it is gone)",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(all(&[]).contains("hearth scene save"));
    }
}
