//! Events: published here, heard by whoever watches `event/` objects.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiContext, access::Principal, extract::Body, problem::Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventBody {
    topic: String,
    #[serde(default)]
    data: Value,
}

pub(super) async fn publish(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Body(EventBody { topic, data }): Body<EventBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    // As its object begins.
    principal.must_cover("event", &format!("{topic}:"))?;
    let event = context.events.publish(topic.clone(), data.clone()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": event.as_str(), "topic": topic, "data": data }))))
}
