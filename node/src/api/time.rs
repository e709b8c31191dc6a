//! The time of day of the household.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use mesh_proto::time::{Basis, SetTimeError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext, access::Principal, extract::Body, json::timestamp, ports::PortError, problem::Problem,
};
use crate::service::TimeView;

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let time = context.service.time().await?;
    // Which nodes there are is not for whoever is confined to a part of the home.
    let peer = time.peer.clone().filter(|_| principal.scope.is_whole());
    Ok(Json(to_json(&TimeView { peer, ..time })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeBody {
    time: String,
}

pub(super) async fn set(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Body(body): Body<TimeBody>,
) -> Result<Json<Value>, Problem> {
    context.service.set_time(moment(&body.time)?).await?.map_err(|refused| match refused {
        SetTimeError::Known => Problem::from(PortError::Conflict {
            detail: refused.to_string(),
            fix: "`hearth time` shows from which; correct that clock, and every node follows".to_owned(),
        }),
        SetTimeError::Implausible => {
            Problem::invalid(refused.to_string(), "give the time of today, such as 2026-11-29T17:30:00+01:00")
        }
    })?;
    read(State(context), Extension(principal)).await
}

/// Milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Problem> {
    let at: Option<jiff::Timestamp> = text.parse().ok();
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Problem::invalid(
            format!("`time` is `{shown}`"),
            "write RFC 3339 with an offset, such as 2026-11-29T17:30:00+01:00",
        )
    })
}

fn to_json(time: &TimeView) -> Value {
    let ahead_ms = i128::from(time.ms) - i128::from(time.wall_ms);
    let (rests_on, detail) = match time.basis {
        Basis::WallClock => ("wall_clock", "the clock of this machine, which a time program keeps right"),
        Basis::Peer(_) => ("peer", "the time of a node that is nearer to a right clock"),
        Basis::Person => ("person", "what a person said"),
        Basis::WentOn => ("went_on", "a clock that was right, or a battery's, and went on since"),
        Basis::Told => ("told", "what another node counts on: a person's word, or a clock that went on"),
        Basis::Nothing => ("nothing", "nothing: no time program, no battery clock, no node that knows it"),
    };
    json!({
        "time": timestamp(time.ms),
        "trusted": time.trusted,
        "rests_on": rests_on,
        "detail": detail,
        "peer": time.peer,
        "ahead_of_wall_clock_ms": i64::try_from(ahead_ms).unwrap_or(i64::MAX),
    })
}
