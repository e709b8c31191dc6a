//! Automations.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Map, Value, json};

use super::{
    ApiContext,
    extract::{Body, Enabled, Named},
    ports::automations::AutomationView,
    problem::Problem,
};
use crate::automation::Rehearsal;

/// How deep the JSON of a program may nest: beyond what actions and conditions in one another come to, which is counted there.
const PROGRAM_DEPTH: usize = 64;

pub(super) async fn list(State(context): State<Arc<ApiContext>>) -> Result<Json<Value>, Problem> {
    let automations = context.automations.list().await?;
    let circuits = context.automations.circuits().await?;
    Ok(Json(json!({ "automations": automations, "circuits": circuits })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<AutomationView>, Problem> {
    find(&context, &name).await.map(Json)
}

pub(super) async fn put(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
    Body(program): Body<Map<String, Value>, PROGRAM_DEPTH>,
) -> Result<Json<AutomationView>, Problem> {
    context.automations.put(name.clone(), program).await?;
    find(&context, &name).await.map(Json)
}

pub(super) async fn enable(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
    Body(Enabled { enabled }): Body<Enabled>,
) -> Result<Json<AutomationView>, Problem> {
    context.automations.enable(name.clone(), enabled).await?;
    find(&context, &name).await.map(Json)
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    context.automations.remove(name.clone()).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

pub(super) async fn rehearse(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<Rehearsal>, Problem> {
    Ok(Json(context.automations.rehearse(name).await?))
}

pub(super) async fn start(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<(StatusCode, Json<Value>), Problem> {
    context.automations.start(name.clone()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "name": name, "started": true }))))
}

async fn find(context: &ApiContext, name: &str) -> Result<AutomationView, Problem> {
    if let Some(automation) = context.automations.get(name.to_owned()).await? {
        return Ok(automation);
    }
    let names = context.automations.list().await?.into_iter().map(|automation| automation.name);
    Err(Problem::not_found("such automation", "`hearth automation list` shows what there is")
        .with_candidates(names))
}
