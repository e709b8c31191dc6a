//! Reading and writing objects.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State, http::StatusCode};
use mesh_proto::{
    FieldName, ObjectId,
    kinds::{Author, guards_the_door},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::Principal,
    extract::{Body, Object, Params},
    json::from_object,
    problem::Problem,
    scoped,
};
use crate::{
    auth::tokens::Role,
    json::to_value,
    service::{ObjectView, Op},
};

/// Objects on a page unless asked for otherwise.
const DEFAULT_PAGE: usize = 100;
/// Most objects on a page.
pub(super) const MAX_PAGE: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    incomplete: bool,
}

pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    let limit = params.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::invalid(
            format!("limit is {limit}"),
            format!("ask for 1 to {MAX_PAGE} objects"),
        ));
    }
    let after = params.after.as_deref().map(ObjectId::new).transpose()?;
    let (page, next) =
        scoped::page(&context.service, &principal, &params.prefix, after, limit, params.incomplete).await?;
    let shown: Vec<_> = page.iter().map(from_object).collect();
    Ok(Json(json!({ "objects": shown, "next": next.as_ref().map(ObjectId::as_str) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadParams {
    #[serde(default)]
    incomplete: bool,
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Object(id): Object,
    Params(params): Params<ReadParams>,
) -> Result<Json<Value>, Problem> {
    let object = context.service.get(id.clone()).await?;
    let shown = object.filter(|object| principal.sees(object) && (object.complete || params.incomplete));
    let fix =
        "`hearth list` shows what there is; an object that lacks a required field needs ?incomplete=true";
    shown.map(|object| Json(from_object(&object))).ok_or_else(|| Problem::not_found(id.as_str(), fix))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    unset: Vec<String>,
}

pub(super) async fn write(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Object(id): Object,
    Body(patch): Body<Patch>,
) -> Result<Json<Value>, Problem> {
    refuse_door(&id)?;
    let fields: Vec<&str> = patch.set.keys().chain(&patch.unset).map(String::as_str).collect();
    principal.may_write(&context.service, &id, &fields).await?;
    if id.kind() == "node" {
        // As at /api/v1/nodes: by its name an admin removes a node.
        principal.must_be(Role::Admin)?;
    }
    let twice = patch.unset.iter().find(|field| patch.set.contains_key(*field));
    if let Some(field) = twice {
        return Err(Problem::invalid(format!("`{field}` is both set and unset"), "name each field once"));
    }
    let mut ops = Vec::new();
    for (field, value) in patch.set {
        ops.push(Op::Set(id.clone(), FieldName::new(&field)?, to_value(value)?));
    }
    for field in patch.unset {
        ops.push(Op::Unset(id.clone(), FieldName::new(&field)?));
    }
    if ops.is_empty() {
        return Err(Problem::invalid("nothing is set and nothing is unset", "give `set` or `unset`"));
    }
    context.service.write(Author::Client, ops).await?;
    tracing::debug!(object = %id, by = %principal.who, "a client has written an object");
    let written = context.service.get(id.clone()).await?;
    let gone = || ObjectView { id, fields: BTreeMap::new(), complete: false };
    Ok(Json(from_object(&written.unwrap_or_else(gone))))
}

pub(super) async fn delete(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Object(id): Object,
) -> Result<StatusCode, Problem> {
    refuse_door(&id)?;
    principal.may_delete(&context.service, &id).await?;
    // What is not here needs no tombstone; asking twice is no mistake.
    if context.service.get(id.clone()).await?.is_some() {
        tracing::debug!(object = %id, by = %principal.who, "a client deletes an object");
        context.service.write(Author::Client, vec![Op::Delete(id)]).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Even the fields that the kinds of the door leave free are for nobody.
pub(super) fn refuse_door(id: &ObjectId) -> Result<(), Problem> {
    if guards_the_door(id.kind()) {
        let fix = "an admin makes and ends them at /api/v1/tokens, /api/v1/users and /api/v1/sessions, or by `hearth token`, \
                   `hearth user`";
        return Err(Problem::forbidden("who may come in is not written as objects", fix));
    }
    Ok(())
}
