//! Scenes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    ApiContext,
    access::{Giver, Principal},
    commands::{self, MAX_WAIT_S},
    extract::{Body, Named},
    json::timestamp,
    problem::Problem,
};
use crate::{
    auth::Scope,
    automation::scenes::{Changes, Content, Given, Manner, Scene, Scenes},
};

impl ApiContext {
    pub(super) fn scenes<'a>(&'a self, scope: &'a Scope) -> Scenes<'a> {
        Scenes::new(&self.service, &self.commands).within(scope)
    }
}

pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let (scenes, devices) = context.scenes(&principal.scope).list().await?;
    let shown: Vec<_> = scenes.iter().map(|scene| to_json(scene, &devices)).collect();
    Ok(Json(json!({ "scenes": shown })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    shown(&context, &principal, &name).await.map(Json)
}

/// What is in a scene: changes that are said, or what devices are now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SceneBody {
    devices: Option<BTreeMap<String, Value>>,
    save: Option<Vec<String>>,
    transition_ms: Option<u32>,
}

pub(super) async fn put(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(body): Body<SceneBody>,
) -> Result<Json<Value>, Problem> {
    let content = match (body.devices, body.save) {
        (Some(changes), None) => Content::Said(changes),
        (None, Some(names)) => Content::Now(names),
        _ => {
            let fix =
                "give `save` with names of devices, groups or areas, or `devices` with a change for each";
            return Err(Problem::invalid("one of `save` and `devices` is needed", fix));
        }
    };
    principal.must_cover("scene", &name)?;
    let refused = context.scenes(&principal.scope).put(&name, content, body.transition_ms).await?;
    let mut scene = shown(&context, &principal, &name).await?;
    if let Some(members) = scene.as_object_mut() {
        members.insert("refused".to_owned(), refused.into());
    }
    Ok(Json(scene))
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    principal.must_cover("scene", &name)?;
    context.scenes(&principal.scope).remove(&name).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MannerBody {
    transition_ms: Option<u32>,
    deadline_ms: Option<u32>,
    key: Option<String>,
    #[serde(default)]
    wait: bool,
}

impl MannerBody {
    fn manner(self) -> Result<Manner, Problem> {
        commands::check_own_key(self.key.as_deref())?;
        Ok(Manner { transition_ms: self.transition_ms, deadline_ms: self.deadline_ms, key: self.key })
    }
}

pub(super) async fn activate(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Giver(by): Giver,
    Named(name): Named,
    Body(body): Body<MannerBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wait = body.wait;
    let manner = body.manner()?;
    answer(&context, &name, wait, context.scenes(&principal.scope).activate(&name, &manner, &by)).await
}

pub(super) async fn undo(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Giver(by): Giver,
    Named(name): Named,
    Body(body): Body<MannerBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wait = body.wait;
    let manner = body.manner()?;
    answer(&context, &name, wait, context.scenes(&principal.scope).undo(&name, &manner, &by)).await
}

/// The commands that were given, at their ends where those are waited for.
async fn answer(
    context: &ApiContext,
    name: &str,
    wait: bool,
    giving: impl Future<Output = Result<Given, Problem>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    // Listening begins before the commands do, so that no step of their lives is missed.
    let mut life = context.commands.life();
    let until = Instant::now() + Duration::from_secs(MAX_WAIT_S);
    let Given { mut many, transition_ms } = giving.await?;
    if wait {
        commands::follow(&context.commands, &mut life, &mut many.commands, until).await?;
    }
    let is_over = wait && many.commands.iter().all(|command| command.state.is_final());
    let given: Vec<_> = many.commands.iter().map(commands::to_json).collect();
    let shown =
        json!({ "scene": name, "transition_ms": transition_ms, "commands": given, "refused": many.refused });
    Ok((if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(shown)))
}

async fn shown(context: &ApiContext, principal: &Principal, name: &str) -> Result<Value, Problem> {
    let scenes = context.scenes(&principal.scope);
    let scene = scenes.find(name).await?;
    let (_, devices) = scenes.list().await?;
    Ok(to_json(&scene, &devices))
}

/// A scene as readers see it.
fn to_json(scene: &Scene, devices: &BTreeSet<String>) -> Value {
    let id = |device: &String| format!("device/{device}");
    let changes = |changes: &Changes| -> BTreeMap<String, Value> {
        changes.iter().map(|(device, change)| (id(device), change.clone())).collect()
    };
    let gone: Vec<_> = scene.set.keys().filter(|device| !devices.contains(*device)).map(id).collect();
    json!({
        "name": scene.object.name(),
        "devices": changes(&scene.set),
        "transition_ms": scene.transition_ms,
        "activated": scene.activated.as_ref().map(|last| json!({ "at": timestamp(last.at), "by": last.by })),
        "before": changes(&scene.before),
        "gone": gone,
    })
}
