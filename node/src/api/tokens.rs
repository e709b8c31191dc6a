//! Tokens: made, listed, revoked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::Principal,
    devices::{all_devices, find_device, text},
    extract::{Body, Named},
    json::timestamp,
    problem::Problem,
};
use crate::{
    auth::{
        Scope,
        scope::ScopeError,
        tokens::{End, Role, TokenView, Wanted},
    },
    service::Service,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    role: Role,
    #[serde(default)]
    label: String,
    /// Areas and devices by what people call them.
    #[serde(default)]
    scope: Scope,
    expires_s: Option<u64>,
    expires: Option<String>,
}

pub(super) async fn create(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Body(body): Body<TokenBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let TokenBody { role, label, scope, expires_s, expires } = body;
    let end = match (expires_s, expires) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("both `expires_s` and `expires` are given", "say it in one way"));
        }
        (Some(seconds), None) => Some(End::After(Duration::from_secs(seconds))),
        (None, Some(at)) => Some(End::At(moment(&at)?)),
        (None, None) => None,
    };
    let scope = resolve(&context.service, &principal, scope).await?;
    principal.may_grant(role, &scope)?;
    let ends_ms =
        principal.term.as_ref().map(|term| u64::try_from(term.until_s).unwrap_or(0).saturating_mul(1_000));
    let wanted = Wanted { role, label, scope: scope.clone(), end, by: Some(principal.who), ends_ms };
    let made = context.tokens.make(wanted).await?;
    let body = json!({
        "id": made.id,
        "token": made.token.expose(),
        "role": role,
        "scope": shown_scope(&scope),
        "expires": made.expires_ms.map(timestamp),
    });
    Ok((StatusCode::CREATED, Json(body)))
}

pub(super) async fn list(State(context): State<Arc<ApiContext>>) -> Result<Json<Value>, Problem> {
    let tokens = context.tokens.list().await?;
    Ok(Json(json!({ "tokens": tokens.iter().map(shown).collect::<Vec<_>>() })))
}

pub(super) async fn revoke(
    State(context): State<Arc<ApiContext>>,
    Named(id): Named,
) -> Result<StatusCode, Problem> {
    context.tokens.revoke(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(token: &TokenView) -> Value {
    json!({
        "id": token.id,
        "role": token.role,
        "label": token.label,
        "scope": shown_scope(&token.scope),
        "created": timestamp(token.created_ms),
        "by": token.by,
        "expires": token.expires_ms.map(timestamp),
        "expired": token.expired,
        "used": token.used_ms.map(timestamp),
    })
}

/// `null` for all of the home.
pub(super) fn shown_scope(scope: &Scope) -> Value {
    if scope.is_whole() { Value::Null } else { json!(scope) }
}

/// The scope by the names of objects, and areas as devices have them: one that nobody is in is a slip of the pen.
async fn resolve(service: &Service, principal: &Principal, given: Scope) -> Result<Scope, Problem> {
    let bounds = Scope { devices: Vec::new(), ..given.clone() };
    bounds.check()?;
    let entries = bounds.prefixes.len() + bounds.areas.len() + given.devices.len();
    if entries > crate::auth::scope::MAX_ENTRIES {
        return Err(ScopeError::TooMany(entries).into());
    }
    let mut devices = Vec::with_capacity(given.devices.len());
    for device in &given.devices {
        devices.push(find_device(service, &principal.scope, device).await?.id.name().to_owned());
    }
    let known = if given.areas.is_empty() { BTreeMap::new() } else { areas(service, principal).await? };
    let area = |area: String| match known.get(&area.to_lowercase()) {
        Some(known) => Ok(known.clone()),
        None => {
            let fix = "put a device into it first (`hearth set device/ID area=NAME`), or name another";
            let problem = Problem::not_found(&format!("device in the area `{area}`"), fix);
            Err(problem.with_candidates(known.values().cloned()))
        }
    };
    let areas = given.areas.into_iter().map(area).collect::<Result<Vec<_>, Problem>>()?;
    Ok(Scope { prefixes: given.prefixes, areas, devices }.tidy())
}

/// The areas that there are, by their names in lower case.
async fn areas(service: &Service, principal: &Principal) -> Result<BTreeMap<String, String>, Problem> {
    let devices = all_devices(service).await?;
    let named =
        devices.iter().filter(|device| principal.scope.sees(device)).map(|device| text(device, "area"));
    Ok(named.filter(|area| !area.is_empty()).map(|area| (area.to_lowercase(), area)).collect())
}

/// Milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Problem> {
    let at: Option<jiff::Timestamp> = text.parse().ok();
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).ok_or_else(|| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        Problem::invalid(
            format!("`expires` is `{shown}`"),
            "write RFC 3339 with an offset, such as 2027-02-28T18:00:00+01:00, or give `expires_s`",
        )
    })
}
