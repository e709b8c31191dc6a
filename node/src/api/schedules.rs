//! Schedules, and where the home is.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::Principal,
    commands,
    extract::{Body, Enabled, Named},
    ports::schedules::{HomeChange, HomeView, ScheduleView},
    problem::Problem,
};
use crate::automation::{HOME, ScheduleText};

/// Most schedules that are named to whoever asks for one that is not there.
const MAX_NAMED: usize = 256;
/// The kind of their objects.
const KIND: &str = "schedule";

pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let mut schedules = context.schedules.list().await?;
    schedules.retain(|schedule| principal.must_cover(KIND, &schedule.name).is_ok());
    Ok(Json(json!({ "schedules": schedules })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<ScheduleView>, Problem> {
    find(&context, &principal, &name).await.map(Json)
}

/// A schedule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleBody {
    when: String,
    #[serde(default)]
    only: String,
    #[serde(default)]
    except: String,
    #[serde(default)]
    missed: String,
    r#do: Vec<Value>,
    enabled: Option<bool>,
}

pub(super) async fn put(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(body): Body<ScheduleBody>,
) -> Result<Json<ScheduleView>, Problem> {
    let ScheduleBody { when, only, except, missed, r#do, enabled } = body;
    let mut kept = Vec::with_capacity(r#do.len());
    for command in r#do {
        kept.push(match command.get("scene") {
            Some(_) => context.scenes(&principal.scope).keep(command).await?,
            None => commands::keep(&context.service, command).await?,
        });
    }
    let enabled = enabled.unwrap_or(true);
    let text = ScheduleText { when, only, except, missed, commands: kept, enabled };
    context.schedules.put(name.clone(), text).await?;
    find(&context, &principal, &name).await.map(Json)
}

pub(super) async fn enable(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(Enabled { enabled }): Body<Enabled>,
) -> Result<Json<ScheduleView>, Problem> {
    principal.must_cover(KIND, &name)?;
    context.schedules.enable(name.clone(), enabled).await?;
    find(&context, &principal, &name).await.map(Json)
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    principal.must_cover(KIND, &name)?;
    context.schedules.remove(name.clone()).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

async fn find(context: &ApiContext, principal: &Principal, name: &str) -> Result<ScheduleView, Problem> {
    if principal.must_cover(KIND, name).is_ok()
        && let Some(schedule) = context.schedules.get(name.to_owned()).await?
    {
        return Ok(schedule);
    }
    let there_are = context.service.list("schedule/", None, MAX_NAMED, false).await?;
    let seen = there_are.iter().filter(|schedule| principal.sees(schedule));
    let names: Vec<_> = seen.map(|schedule| schedule.id.name().to_owned()).collect();
    Err(Problem::not_found("such schedule", "`hearth schedule list` shows what there is")
        .with_candidates(names))
}

/// Whoever is confined to a part of the home learns its zone, without which nobody shows the time of day, and not where it is.
pub(super) async fn home(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<HomeView>, Problem> {
    let home = context.schedules.home().await?;
    if principal.must_cover("home", HOME).is_ok() {
        return Ok(Json(home));
    }
    Ok(Json(HomeView { zone: home.zone, latitude: None, longitude: None, allowed_http: Vec::new() }))
}

/// A change of the home; what is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HomeBody {
    zone: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    #[serde(default)]
    allow_http: Vec<String>,
    #[serde(default)]
    deny_http: Vec<String>,
}

pub(super) async fn set_home(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Body(body): Body<HomeBody>,
) -> Result<Json<HomeView>, Problem> {
    let HomeBody { zone, latitude, longitude, allow_http, deny_http } = body;
    if latitude.is_some() != longitude.is_some() {
        return Err(Problem::invalid(
            "one of `latitude` and `longitude` is missing",
            "give both, in degrees",
        ));
    }
    let change = HomeChange { zone, place: latitude.zip(longitude), allow_http, deny_http };
    context.schedules.set_home(change).await?;
    home(State(context), Extension(principal)).await
}
