//! The adapters: where each stands, its settings, pairing.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use mesh_proto::ShortId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    ApiContext,
    access::Principal,
    admin::{find_node, short},
    extract::{Body, Named},
    ports::adapters::{AdapterChange, AdapterView},
    problem::Problem,
};

pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let adapters = within(&context, &principal).await?;
    Ok(Json(json!({ "adapters": adapters })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(id): Named,
) -> Result<Json<AdapterView>, Problem> {
    find(&context, &principal, &id).await.map(Json)
}

/// A change of an adapter; what is left out stays as it is. No `Debug`: it may hold secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    enabled: Option<bool>,
    /// Names or keys.
    nodes: Option<Vec<String>>,
    #[serde(default)]
    settings: Map<String, Value>,
    #[serde(default)]
    restart: bool,
}

pub(super) async fn change(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(id): Named,
    Body(body): Body<ChangeBody>,
) -> Result<Json<AdapterView>, Problem> {
    let ChangeBody { enabled, nodes, settings, restart } = body;
    let nodes = match nodes {
        Some(given) => Some(find_nodes(&context, &given).await?),
        None => None,
    };
    let change = AdapterChange { enabled, nodes, settings, restart };
    context.adapters.change(id.clone(), change).await?;
    find(&context, &principal, &id).await.map(Json)
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

/// Nodes by what people call them, as `hearth nodes` shows them: one that has just joined too. Their ids are kept, so that
/// whoever renames a node does not move what it runs.
async fn find_nodes(context: &ApiContext, given: &[String]) -> Result<Vec<ShortId>, Problem> {
    let nodes = context.service.status().await?.nodes;
    let id = |given: &String| {
        let node = find_node(&nodes, given)?;
        short(&node.id).parse().map_err(|_| Problem::internal())
    };
    given.iter().map(id).collect()
}

/// Those of which a client may know.
async fn within(context: &ApiContext, principal: &Principal) -> Result<Vec<AdapterView>, Problem> {
    let mut adapters = context.adapters.list().await?;
    adapters.retain(|adapter| principal.scope.covers(&format!("adapter/{}", adapter.id)));
    Ok(adapters)
}

async fn find(context: &ApiContext, principal: &Principal, id: &str) -> Result<AdapterView, Problem> {
    let adapters = within(context, principal).await?;
    let ids: Vec<String> = adapters.iter().map(|adapter| adapter.id.clone()).collect();
    adapters.into_iter().find(|adapter| adapter.id == id).ok_or_else(|| {
        Problem::not_found("such adapter", "`hearth adapter list` shows what there is").with_candidates(ids)
    })
}
