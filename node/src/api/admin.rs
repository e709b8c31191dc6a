//! The node itself: health, status, invites, joining and leaving.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mesh_proto::{FieldName, ObjectId, Value as Stored, kinds::Author, roster::Roles};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::Principal,
    extract::{Body, Named},
    json::timestamp,
    problem::Problem,
    scoped,
};
use crate::{
    auth::Secret,
    service::{NodeStatus, Op},
};

/// An event loop that takes longer to answer is not healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);
const DEFAULT_TTL_S: u32 = 900;
/// Shortest and longest life of an invite, in seconds.
const TTLS_S: std::ops::RangeInclusive<u32> = 60..=604_800;
const MAX_NODE_NAME_BYTES: usize = 64;

type Context = State<Arc<ApiContext>>;

/// Needs no token, hence says what is wrong and not where.
pub(super) async fn health(State(context): Context) -> Result<Json<Value>, Problem> {
    let stalled = context.stalled.borrow().clone();
    let mut reasons = Vec::new();
    if !stalled.is_empty() {
        reasons.push(format!("no sign of life from: {}", stalled.join(", ")));
    }
    match tokio::time::timeout(HEALTHY_WITHIN, context.service.health()).await {
        Ok(Ok(health)) => reasons.extend(health.reasons.into_iter().map(str::to_owned)),
        Ok(Err(_)) => return Err(Problem::stopping()),
        Err(_) => reasons.push("the event loop does not answer".to_owned()),
    }
    if reasons.is_empty() {
        return Ok(Json(json!({ "status": "ok" })));
    }
    Err(Problem::degraded(reasons.join("; ")))
}

pub(super) async fn status(
    State(context): Context,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let status = context.service.status().await?;
    if !principal.scope.is_whole() {
        return Ok(Json(scoped::status(&status)));
    }
    let mut shown = serde_json::to_value(&status).map_err(|_| Problem::internal())?;
    let at = context.listen.borrow().clone();
    if let Value::Object(map) = &mut shown {
        map.insert("api".to_owned(), json!(at.api));
        map.insert("listen".to_owned(), json!(at.listen));
        let certificate = context.certificate.borrow();
        map.insert("public".to_owned(), json!(certificate.public(at.public_port)));
        map.insert("certificate".to_owned(), certificate.json());
    }
    Ok(Json(shown))
}

pub(super) async fn ca(State(context): Context) -> Response {
    // Phones know by the name of the file what to do with it.
    let headers = [
        (header::CONTENT_TYPE, "application/x-pem-file"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"hearth-ca.pem\""),
    ];
    (headers, context.ca_pem.clone()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InviteBody {
    ttl_s: Option<u32>,
    roles: Option<Vec<String>>,
}

pub(super) async fn invite(
    State(context): Context,
    Body(body): Body<InviteBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let ttl_s = body.ttl_s.unwrap_or(DEFAULT_TTL_S);
    if !TTLS_S.contains(&ttl_s) {
        let (min, max) = TTLS_S.into_inner();
        return Err(Problem::invalid(format!("`ttl_s` is {ttl_s}"), format!("give {min} to {max} seconds")));
    }
    let mut roles = Roles::MEMBER;
    for name in body.roles.unwrap_or_default() {
        roles = match name.as_str() {
            "member" => roles,
            "admin" => roles | Roles::ADMIN,
            _ => {
                let detail = "`roles` holds something else than \"member\" and \"admin\"";
                return Err(Problem::invalid(detail, "a node is a member, or member and admin"));
            }
        };
    }
    let invite = context.invites.create(ttl_s, roles).await?;
    let (token, expires) = (invite.token.expose(), timestamp(invite.expires_ms));
    Ok((StatusCode::CREATED, Json(json!({ "id": invite.id, "token": token, "expires": expires }))))
}

pub(super) async fn invites(State(context): Context) -> Result<Json<Value>, Problem> {
    let invites = context.invites.list().await?;
    let shown = invites.iter().map(|invite| {
        let (roles, expires) = (role_names(invite.roles), timestamp(invite.expires_ms));
        json!({ "id": invite.id, "roles": roles, "expires": expires, "used": invite.used })
    });
    Ok(Json(json!({ "invites": shown.collect::<Vec<_>>() })))
}

fn role_names(roles: Roles) -> Vec<&'static str> {
    let names = [(Roles::MEMBER, "member"), (Roles::ADMIN, "admin")];
    names.iter().filter(|(role, _)| roles.contains(*role)).map(|(_, name)| *name).collect()
}

pub(super) async fn revoke_invite(State(context): Context, Named(id): Named) -> Result<StatusCode, Problem> {
    context.invites.revoke(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    token: Secret,
    #[serde(default)]
    force: bool,
}

pub(super) async fn join(
    State(context): Context,
    Body(body): Body<JoinBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let joined = context.control.join(body.token, body.force).await?;
    Ok((StatusCode::ACCEPTED, Json(json!(joined))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaveBody {
    #[serde(default)]
    force: bool,
}

pub(super) async fn leave(
    State(context): Context,
    Body(body): Body<LeaveBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    context.control.leave(body.force).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameBody {
    name: String,
}

pub(super) async fn rename(
    State(context): Context,
    Named(given): Named,
    Body(body): Body<RenameBody>,
) -> Result<Json<Value>, Problem> {
    let name = body.name.trim();
    if !(1..=MAX_NODE_NAME_BYTES).contains(&name.len()) || name.chars().any(char::is_control) {
        let detail = format!("a node's name has 1 to {MAX_NODE_NAME_BYTES} bytes and no control characters");
        return Err(Problem::invalid(detail, "give it the name of its room"));
    }
    let nodes = context.service.status().await?.nodes;
    let node = find_node(&nodes, &given)?;
    if let Some(other) = nodes.iter().find(|other| other.name == name && other.id != node.id) {
        let detail = format!("`{name}` is the name of the node {}", short(&other.id));
        return Err(Problem::new(StatusCode::CONFLICT, "name-taken", "Taken", detail, "choose another name"));
    }
    let object = ObjectId::new(&format!("node/{}", short(&node.id)))?;
    let op = Op::Set(object, FieldName::new("name")?, Stored::from(name));
    context.service.write(Author::Client, vec![op]).await?;
    Ok(Json(json!({ "id": node.id, "name": name })))
}

/// The part of a node's key that names its object.
pub(super) fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

/// By its name, or by its key or the first eight or more digits of it.
pub(super) fn find_node<'a>(nodes: &'a [NodeStatus], given: &str) -> Result<&'a NodeStatus, Problem> {
    let key = given.to_ascii_lowercase();
    let is_key = |node: &NodeStatus| key.len() >= 8 && node.id.starts_with(&key);
    let found: Vec<_> = nodes.iter().filter(|node| node.name == given || is_key(node)).collect();
    match found.as_slice() {
        [node] => Ok(node),
        [] => {
            let names = nodes.iter().map(|node| node.name.clone());
            let shown: String = given.chars().filter(|c| !c.is_control()).take(64).collect();
            let what = format!("node `{shown}`");
            Err(Problem::not_found(&what, "`hearth nodes` shows names and keys").with_candidates(names))
        }
        _ => {
            let detail = format!("{} nodes are called that", found.len());
            let fix = "use the key, or its first 16 digits";
            let problem = Problem::new(StatusCode::CONFLICT, "ambiguous-node", "Several nodes", detail, fix);
            Err(problem.with_candidates(found.iter().map(|node| node.id.clone())))
        }
    }
}

pub(super) async fn doctor(State(context): Context) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "checks": context.control.doctor().await? })))
}
