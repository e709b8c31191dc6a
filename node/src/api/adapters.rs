//! The adapters: where each stands, its settings, pairing.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    extract::{Body, Named},
    ports::adapters::{AdapterChange, AdapterView},
    problem::Problem,
};

pub(super) async fn list(State(context): State<Arc<ApiContext>>) -> Result<Json<Value>, Problem> {
    let adapters = context.adapters.list().await?;
    Ok(Json(json!({ "adapters": adapters })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Named(id): Named,
) -> Result<Json<AdapterView>, Problem> {
    find(&context, &id).await.map(Json)
}

pub(super) async fn change(
    State(context): State<Arc<ApiContext>>,
    Named(id): Named,
    Body(change): Body<AdapterChange>,
) -> Result<Json<AdapterView>, Problem> {
    context.adapters.change(id.clone(), change).await?;
    find(&context, &id).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairBody {
    seconds: Option<u32>,
}

/// How long a bridge is waited for where nobody says so, in seconds.
const PAIR_S: u32 = 60;

pub(super) async fn pair(
    State(context): State<Arc<ApiContext>>,
    Named(id): Named,
    Body(body): Body<PairBody>,
) -> Result<Json<Value>, Problem> {
    let seconds = body.seconds.unwrap_or(PAIR_S);
    context.adapters.pair(id.clone(), seconds).await?;
    Ok(Json(json!({ "id": id, "seconds": seconds })))
}

pub(super) async fn forget(
    State(context): State<Arc<ApiContext>>,
    Named(id): Named,
) -> Result<Json<Value>, Problem> {
    context.adapters.forget(id.clone()).await?;
    Ok(Json(json!({ "id": id, "forgotten": true })))
}

async fn find(context: &ApiContext, id: &str) -> Result<AdapterView, Problem> {
    let adapters = context.adapters.list().await?;
    let ids: Vec<String> = adapters.iter().map(|adapter| adapter.id.clone()).collect();
    adapters.into_iter().find(|adapter| adapter.id == id).ok_or_else(|| {
        Problem::not_found("such adapter", "`hearth adapter list` shows what there is").with_candidates(ids)
    })
}
