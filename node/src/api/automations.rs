//! Automations.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use mesh_proto::ObjectId;
use serde_json::{Map, Value, json};

use super::{
    ApiContext,
    access::{Giver, Principal},
    extract::{Body, Enabled, Named},
    ports::automations::AutomationView,
    problem::Problem,
    scoped::reaches,
};
use crate::automation::Rehearsal;

/// How deep the JSON of a program may nest: beyond what actions and conditions in one another come to, which is counted there.
const PROGRAM_DEPTH: usize = 64;
/// The kind of their objects.
const KIND: &str = "automation";

pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let automations = within(&context, &principal).await?;
    let mut circuits = Vec::new();
    for circuit in context.automations.circuits().await? {
        let device = ObjectId::new(&circuit.device).map_err(|_| Problem::internal())?;
        if reaches(&context.service, &principal.scope, &device).await? {
            circuits.push(circuit);
        }
    }
    Ok(Json(json!({ "automations": automations, "circuits": circuits })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<AutomationView>, Problem> {
    find(&context, &principal, &name).await.map(Json)
}

pub(super) async fn put(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(program): Body<Map<String, Value>, PROGRAM_DEPTH>,
) -> Result<Json<AutomationView>, Problem> {
    context.automations.put(name.clone(), program).await?;
    find(&context, &principal, &name).await.map(Json)
}

pub(super) async fn enable(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(Enabled { enabled }): Body<Enabled>,
) -> Result<Json<AutomationView>, Problem> {
    principal.must_cover(KIND, &name)?;
    context.automations.enable(name.clone(), enabled).await?;
    find(&context, &principal, &name).await.map(Json)
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    principal.must_cover(KIND, &name)?;
    context.automations.remove(name.clone()).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

pub(super) async fn rehearse(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<Rehearsal>, Problem> {
    Ok(Json(context.automations.rehearse(name).await?))
}

/// What it does then is what whoever made it lets the home do, wherever that is.
pub(super) async fn start(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Giver(by): Giver,
    Named(name): Named,
) -> Result<(StatusCode, Json<Value>), Problem> {
    principal.must_cover(KIND, &name)?;
    context.automations.start(name.clone(), by.who).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "name": name, "started": true }))))
}

/// Those of which a client may know.
async fn within(context: &ApiContext, principal: &Principal) -> Result<Vec<AutomationView>, Problem> {
    let mut automations = context.automations.list().await?;
    automations.retain(|automation| principal.must_cover(KIND, &automation.name).is_ok());
    Ok(automations)
}

async fn find(context: &ApiContext, principal: &Principal, name: &str) -> Result<AutomationView, Problem> {
    if principal.must_cover(KIND, name).is_ok()
        && let Some(automation) = context.automations.get(name.to_owned()).await?
    {
        return Ok(automation);
    }
    let names = within(context, principal).await?.into_iter().map(|automation| automation.name);
    Err(Problem::not_found("such automation", "`hearth automation list` shows what there is")
        .with_candidates(names))
}
