//! Schedules, and where the home is.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext, commands,
    extract::{Body, Enabled, Named},
    ports::schedules::{HomeChange, HomeView, ScheduleView},
    problem::Problem,
};
use crate::automation::ScheduleText;

/// Most schedules that are named to whoever asks for one that is not there.
const MAX_NAMED: usize = 256;

pub(super) async fn list(State(context): State<Arc<ApiContext>>) -> Result<Json<Value>, Problem> {
    let schedules = context.schedules.list().await?;
    Ok(Json(json!({ "schedules": schedules })))
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<ScheduleView>, Problem> {
    find(&context, &name).await.map(Json)
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
    Named(name): Named,
    Body(body): Body<ScheduleBody>,
) -> Result<Json<ScheduleView>, Problem> {
    let ScheduleBody { when, only, except, missed, r#do, enabled } = body;
    let mut kept = Vec::with_capacity(r#do.len());
    for command in r#do {
        kept.push(match command.get("scene") {
            Some(_) => context.scenes().keep(command).await?,
            None => commands::keep(&context.service, command).await?,
        });
    }
    let enabled = enabled.unwrap_or(true);
    let text = ScheduleText { when, only, except, missed, commands: kept, enabled };
    context.schedules.put(name.clone(), text).await?;
    find(&context, &name).await.map(Json)
}

pub(super) async fn enable(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
    Body(Enabled { enabled }): Body<Enabled>,
) -> Result<Json<ScheduleView>, Problem> {
    context.schedules.enable(name.clone(), enabled).await?;
    find(&context, &name).await.map(Json)
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    context.schedules.remove(name.clone()).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

async fn find(context: &ApiContext, name: &str) -> Result<ScheduleView, Problem> {
    if let Some(schedule) = context.schedules.get(name.to_owned()).await? {
        return Ok(schedule);
    }
    let there_are = context.service.list("schedule/", None, MAX_NAMED, false).await?;
    let names: Vec<_> = there_are.iter().map(|schedule| schedule.id.name().to_owned()).collect();
    Err(Problem::not_found("such schedule", "`hearth schedule list` shows what there is")
        .with_candidates(names))
}

pub(super) async fn home(State(context): State<Arc<ApiContext>>) -> Result<Json<HomeView>, Problem> {
    Ok(Json(context.schedules.home().await?))
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
    home(State(context)).await
}
