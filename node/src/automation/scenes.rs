//! Scenes: many devices that are stored and restored as one.
//!
//! Whoever activates a scene writes down what its devices are, and then gives each its command. What a device was before the
//! activation that changed it last is kept until it is put back, so an activation that is repeated, because a device did not answer
//! or a button was pressed twice, takes nothing from what undo knows.

mod kept;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use futures_util::{StreamExt as _, stream};
use mesh_proto::{ObjectId, kinds::Author};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::kept::Activated;
pub(crate) use self::kept::{Changes, Scene};
use super::requests::named;
use crate::{
    api::{
        commands::{CommandBody, Many, change_of, check_deadline, check_kept, hand_in_each},
        devices::{Target, all_devices, find_device, find_target},
        ports::{By, CommandsHandle, MAX_TRANSITION_MS},
        problem::Problem,
        scoped::{outside, reaches},
    },
    auth::{Scope, scope::WHOLE},
    devices::Portrait,
    service::{ObjectView, Op, Service},
};

/// Most scenes of a household.
const MAX_SCENES: usize = 256;
/// Most devices of a scene.
const MAX_DEVICES: usize = 128;
/// Devices that are looked at at once.
const AT_ONCE: usize = 16;

/// How a scene is activated or put back.
#[derive(Debug)]
pub(crate) struct Manner {
    /// How long the change takes, in milliseconds, where that is not as the scene says.
    pub(crate) transition_ms: Option<u32>,
    /// How long each device may take, in milliseconds.
    pub(crate) deadline_ms: Option<u32>,
    /// The idempotency key of the commands.
    pub(crate) key: Option<String>,
}

/// A scene as a schedule names it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    scene: String,
    transition_ms: Option<u32>,
    deadline_ms: Option<u32>,
}

/// What is said to be in a scene.
pub(crate) enum Content {
    /// What these are now: devices, groups and areas; of none, what is in it already.
    Now(Vec<String>),
    /// A change for each device.
    Said(BTreeMap<String, Json>),
}

/// The commands of a scene.
pub(crate) struct Given {
    /// Which commands, and who was refused.
    pub(crate) many: Many,
    /// How long their change takes, in milliseconds.
    pub(crate) transition_ms: u32,
}

/// A device, and whether its last command is under way.
struct Seen {
    view: ObjectView,
    portrait: Portrait,
    under_way: bool,
}

/// Everything about scenes. They belong to nobody: this only knows the way to objects and commands.
pub(crate) struct Scenes<'a> {
    service: &'a Service,
    commands: &'a CommandsHandle,
    /// The part of the home to which whoever asks is confined.
    scope: &'a Scope,
}

impl<'a> Scenes<'a> {
    pub(crate) fn new(service: &'a Service, commands: &'a CommandsHandle) -> Self {
        Self { service, commands, scope: &WHOLE }
    }

    /// The same for whoever is confined to a part of the home: there are scenes by their names, and of what is activated, put back or
    /// replaced every device must be within.
    #[must_use]
    pub(crate) fn within(self, scope: &'a Scope) -> Self {
        Self { scope, ..self }
    }

    /// Every scene, with the names of the devices that there are.
    pub(crate) async fn list(&self) -> Result<(Vec<Scene>, BTreeSet<String>), Problem> {
        let views = self.service.list("scene/", None, MAX_SCENES, false).await?;
        let devices = all_devices(self.service).await?;
        let names = devices.iter().map(|device| device.id.name().to_owned()).collect();
        let seen = views.iter().filter(|view| self.scope.sees(view));
        Ok((seen.map(Scene::read).collect(), names))
    }

    /// Makes a scene, or replaces what is in it; answers with who is not in it, and why. What was before its last activation
    /// can still be put back.
    pub(crate) async fn put(
        &self,
        name: &str,
        content: Content,
        transition_ms: Option<u32>,
    ) -> Result<Vec<Json>, Problem> {
        let object = named("scene", name)?;
        let known = self.service.get(object.clone()).await?;
        if known.is_none() && self.service.list("scene/", None, MAX_SCENES, false).await?.len() >= MAX_SCENES
        {
            let detail = format!("there are {MAX_SCENES} scenes already");
            return Err(conflict("too-many-scenes", detail, "remove one: hearth scene list"));
        }
        let old = known.as_ref().map_or_else(|| Scene::new(object), Scene::read);
        self.check_scope(&old, old.set.keys().chain(old.before.keys())).await?;
        let transition_ms = check_transition(transition_ms)?.unwrap_or(old.transition_ms);
        let (set, refused) = match content {
            Content::Now(names) => self.picture(&names, &old).await?,
            Content::Said(changes) => (self.said(changes).await?, Vec::new()),
        };
        let next = Scene { set, transition_ms, ..old.clone() };
        check_size(&next)?;
        self.service.write(Author::Node, old.become_ops(&next)).await?;
        Ok(refused)
    }

    /// Deletes a scene.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Problem> {
        let scene = self.find(name).await?;
        self.check_scope(&scene, scene.set.keys().chain(scene.before.keys())).await?;
        Ok(self.service.write(Author::Node, vec![Op::Delete(scene.object)]).await?)
    }

    /// A scene that a schedule names, as it is kept: one that there is.
    pub(crate) async fn keep(&self, step: Json) -> Result<Json, Problem> {
        check_step(&step)?;
        self.find(&step_of(&step)?.scene).await?;
        Ok(step)
    }

    /// Activates what a schedule names.
    pub(crate) async fn carry_out(
        &self,
        step: &Json,
        deadline_ms: u32,
        key: String,
        by: &By,
    ) -> Result<Given, Problem> {
        let step = step_of(step)?;
        let deadline_ms = Some(step.deadline_ms.unwrap_or(deadline_ms));
        let manner = Manner { transition_ms: step.transition_ms, deadline_ms, key: Some(key) };
        self.activate(&step.scene, &manner, by).await
    }

    /// Gives every device of a scene its command, and keeps what they were, and who did so.
    pub(crate) async fn activate(&self, name: &str, manner: &Manner, by: &By) -> Result<Given, Problem> {
        let scene = self.find(name).await?;
        self.check_scope(&scene, scene.set.keys()).await?;
        let transition_ms = check_transition(manner.transition_ms)?.unwrap_or(scene.transition_ms);
        let seen = self.look(scene.set.keys()).await?;
        check_any_left(&scene, &seen)?;
        let before = scene.set.iter().filter_map(|(device, wanted)| {
            let was = seen.get(device)?.before(wanted, scene.before.get(device))?;
            Some((device.clone(), was))
        });
        let activated = Activated { at: self.service.time().await?.ms, by: by.who.clone() };
        let ops = scene.note_ops(&before.collect(), Some(&activated));
        self.service.write(Author::Node, ops).await?;
        self.give(&scene, &scene.set, &seen, manner, (transition_ms, by)).await
    }

    /// Puts back what was before. Who refused can be put back later.
    pub(crate) async fn undo(&self, name: &str, manner: &Manner, by: &By) -> Result<Given, Problem> {
        let scene = self.find(name).await?;
        self.check_scope(&scene, scene.before.keys()).await?;
        let transition_ms = check_transition(manner.transition_ms)?.unwrap_or(scene.transition_ms);
        if scene.before.is_empty() {
            let detail = format!("`{name}` has nothing to undo");
            let fix = "it was not activated, or what was before has been put back already";
            return Err(conflict("nothing-to-undo", detail, fix));
        }
        let seen = self.look(scene.before.keys()).await?;
        let given = match check_any_left(&scene, &seen) {
            Ok(()) => self.give(&scene, &scene.before, &seen, manner, (transition_ms, by)).await,
            Err(gone) => Err(gone),
        };
        let is_left = |device: &String| {
            seen.contains_key(device) && given.as_ref().map_or(true, |given| given.has_refused(device))
        };
        let mut left = scene.before.clone();
        left.retain(|device, _| is_left(device));
        let activated = scene.activated.as_ref().filter(|_| !left.is_empty());
        self.service.write(Author::Node, scene.note_ops(&left, activated)).await?;
        given
    }

    /// A scene by its name.
    pub(crate) async fn find(&self, name: &str) -> Result<Scene, Problem> {
        let view = match named("scene", name) {
            Ok(object) => {
                self.service.get(object).await?.filter(|view| view.complete && self.scope.sees(view))
            }
            Err(_) => None,
        };
        if let Some(view) = view {
            return Ok(Scene::read(&view));
        }
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let others = self.service.list("scene/", None, MAX_SCENES, false).await?;
        Err(Problem::not_found(&format!("scene `{shown}`"), "`hearth scene list` shows what there is")
            .with_candidates(
                others
                    .into_iter()
                    .filter(|scene| self.scope.sees(scene))
                    .map(|scene| scene.id.name().to_owned()),
            ))
    }

    /// Refuses a scene of which any device is outside of the scope.
    async fn check_scope(
        &self,
        scene: &Scene,
        devices: impl Iterator<Item = &String>,
    ) -> Result<(), Problem> {
        for device in devices {
            let id = ObjectId::new(&format!("device/{device}"))?;
            if !reaches(self.service, self.scope, &id).await? {
                let what = format!("{} reaches beyond it", scene.object.as_str());
                return Err(outside(&what));
            }
        }
        Ok(())
    }

    /// The changes that make devices what they are now, and who has none.
    async fn picture(&self, names: &[String], old: &Scene) -> Result<(Changes, Vec<Json>), Problem> {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for name in names {
            let devices = match find_target(self.service, self.scope, name).await? {
                Target::Device(device) => vec![device],
                Target::Many { devices, .. } => devices,
            };
            wanted.extend(devices.into_iter().map(|device| device.id.name().to_owned()));
        }
        if names.is_empty() {
            wanted.extend(old.set.keys().cloned());
        }
        let seen = self.look(wanted.iter()).await?;
        let (mut set, mut refused) = (Changes::new(), Vec::new());
        for device in wanted {
            let change = seen.get(&device).map_or(Err(GONE), Seen::kept);
            match change.and_then(|change| Scene::fits(&device, &change).map(|()| change)) {
                Ok(change) => drop(set.insert(device, change)),
                Err(reason) => refused.push(refusal(&device, reason)),
            }
        }
        if set.is_empty() && !refused.is_empty() {
            let said = |refused: &Json, member| {
                refused.get(member).and_then(Json::as_str).unwrap_or_default().to_owned()
            };
            let reason = |refused: &Json| format!("{}: {}", said(refused, "device"), said(refused, "detail"));
            let reasons: Vec<_> = refused.iter().take(4).map(reason).collect();
            let fix = "`hearth devices` shows what each device is and whether it is there";
            return Err(Problem::invalid(reasons.join("; "), fix));
        }
        Ok((set, refused))
    }

    /// Changes that somebody says, each for a device that is there and can do that.
    async fn said(&self, changes: BTreeMap<String, Json>) -> Result<Changes, Problem> {
        let mut set = Changes::new();
        for (name, change) in changes {
            let device = find_device(self.service, self.scope, &name).await?;
            check_kept(&device, &change)?;
            let device = device.id.name().to_owned();
            Scene::fits(&device, &change).map_err(|reason| {
                Problem::invalid(format!("device/{device}: {reason}"), "leave it out, or say less of it")
            })?;
            set.insert(device, change);
        }
        Ok(set)
    }

    /// Those of the devices that there are.
    async fn look(&self, devices: impl Iterator<Item = &String>) -> Result<BTreeMap<String, Seen>, Problem> {
        let devices: Vec<String> = devices.cloned().collect();
        let mut each = stream::iter(devices.into_iter().map(|device| self.look_at(device))).buffered(AT_ONCE);
        let mut seen = BTreeMap::new();
        while let Some(found) = each.next().await {
            seen.extend(found?);
        }
        Ok(seen)
    }

    async fn look_at(&self, device: String) -> Result<Option<(String, Seen)>, Problem> {
        let Ok(id) = ObjectId::new(&format!("device/{device}")) else { return Ok(None) };
        let Some(view) = self.service.get(id).await?.filter(|view| view.complete) else { return Ok(None) };
        let Some(portrait) = Portrait::of(&view) else { return Ok(None) };
        let last = match portrait.last_command() {
            Some(command) => self.commands.get(command).await?,
            None => None,
        };
        let under_way = last.is_some_and(|command| !command.state.is_final());
        Ok(Some((device, Seen { view, portrait, under_way })))
    }

    /// Gives the commands to all that there are; the others are named.
    async fn give(
        &self,
        scene: &Scene,
        changes: &Changes,
        seen: &BTreeMap<String, Seen>,
        manner: &Manner,
        (transition_ms, by): (u32, &By),
    ) -> Result<Given, Problem> {
        let (mut bodies, mut refused) = (Vec::new(), Vec::new());
        for (device, change) in changes {
            match seen.get(device) {
                None => refused.push(refusal(device, GONE)),
                Some(seen) => match seen.body(change, manner, transition_ms) {
                    Ok(body) => bodies.push(body),
                    Err(rule) => refused.push(refusal(device, &rule)),
                },
            }
        }
        let name = scene.object.as_str().to_owned();
        let by = by.through(scene.object.name());
        let mut many = hand_in_each(self.service, self.commands, self.scope, name, bodies, &by).await?;
        refused.append(&mut many.refused);
        many.refused = refused;
        Ok(Given { many, transition_ms })
    }
}

impl Given {
    fn has_refused(&self, device: &str) -> bool {
        let id = format!("device/{device}");
        self.many.refused.iter().any(|refused| refused.get("device") == Some(&Json::from(id.as_str())))
    }
}

impl Seen {
    /// The change that makes it what it is now.
    fn kept(&self) -> Result<Json, &'static str> {
        if self.portrait.is_offline() {
            return Err("it is offline, and nobody knows what it is now");
        }
        self.portrait.change(self.under_way)
    }

    /// What it was before it is made what is wanted. What is known already stays where it was that scene, and nothing else
    /// since, that made it what it is.
    fn before(&self, wanted: &Json, known: Option<&Json>) -> Option<Json> {
        let is_by_it = change_of(wanted).is_ok_and(|wanted| {
            self.portrait.is(&wanted, self.under_way) && self.portrait.was_asked(&wanted)
        });
        match known.filter(|_| is_by_it) {
            Some(known) => Some(known.clone()),
            None => self.portrait.change(self.under_way).ok(),
        }
    }

    /// Its command.
    fn body(&self, change: &Json, manner: &Manner, transition_ms: u32) -> Result<CommandBody, String> {
        let mut change = change.clone();
        if let Some(members) = change.as_object_mut().filter(|_| transition_ms > 0 && self.portrait.fades()) {
            members.insert("transition_ms".to_owned(), transition_ms.into());
        }
        let mut command = json!({ "device": self.view.id.as_str(), "change": change });
        if let Some(members) = command.as_object_mut() {
            members.extend(manner.deadline_ms.map(|ms| ("deadline_ms".to_owned(), ms.into())));
            members.extend(manner.key.as_ref().map(|key| ("key".to_owned(), key.as_str().into())));
        }
        serde_json::from_value(command).map_err(|rule| format!("its change is not understood: {rule}"))
    }
}

const GONE: &str = "it is gone: `hearth scene save` makes the scene without it";

fn refusal(device: &str, reason: &str) -> Json {
    json!({ "device": format!("device/{device}"), "detail": reason })
}

fn check_any_left(scene: &Scene, seen: &BTreeMap<String, Seen>) -> Result<(), Problem> {
    if seen.is_empty() {
        let detail = format!("every device of `{}` is gone", scene.object.name());
        let fix = "make it anew of devices that there are: `hearth scene save`";
        return Err(conflict("empty-scene", detail, fix));
    }
    Ok(())
}

fn step_of(step: &Json) -> Result<Step, Problem> {
    serde_json::from_value(step.clone()).map_err(|rule| {
        let fix = r#"such as {"scene": "evening", "transition_ms": 2000}"#;
        Problem::invalid(format!("a scene is not understood: {rule}"), fix)
    })
}

/// Checks what a schedule says of a scene, but for whether there is one.
pub(super) fn check_step(step: &Json) -> Result<(), Problem> {
    let Step { transition_ms, deadline_ms, .. } = step_of(step)?;
    check_transition(transition_ms)?;
    deadline_ms.map(check_deadline).transpose()?;
    Ok(())
}

/// Checks how many devices there are in a scene, and how long its change takes.
pub(super) fn check_size(scene: &Scene) -> Result<(), Problem> {
    let devices = scene.set.len();
    if devices == 0 || devices > MAX_DEVICES {
        let detail = format!("{devices} devices: a scene has 1 to {MAX_DEVICES}");
        return Err(Problem::invalid(detail, "name devices, groups or areas"));
    }
    check_transition(Some(scene.transition_ms)).map(drop)
}

fn check_transition(ms: Option<u32>) -> Result<Option<u32>, Problem> {
    match ms {
        Some(ms) if ms > MAX_TRANSITION_MS => {
            let fix = format!("give at most {MAX_TRANSITION_MS} (one hour)");
            Err(Problem::invalid(format!("`transition_ms` is {ms}"), fix))
        }
        ms => Ok(ms),
    }
}

fn conflict(slug: &'static str, detail: String, fix: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, slug, "The scene is not in a state for this", detail, fix)
}
