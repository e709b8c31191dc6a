//! Webhooks: their paths, and whoever calls one.
//!
//! What is called is what the path ends in, which is secret: it stands in no answer but the first, in no log, and in no metric.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::Peer,
    extract::{Named, bounded},
    problem::Problem,
    unknown_route,
};
use crate::{
    auth::Secret,
    automation::{
        called::{self, Called},
        webhooks::Refused,
    },
    json::{self, JsonError},
};

/// Longest body of a call, in bytes, and as JSON: what an event carries.
const MAX_BYTES: usize = 1_024;
/// How deep it may nest: an event and the record of a run are built around it.
const MAX_DEPTH: usize = 5;

/// Makes a fresh path; it is shown this once.
pub(super) async fn make(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let token = context.automations.make_webhook(name.clone()).await?;
    let path = format!("/hooks/{}", token.expose());
    let urls: Vec<String> = context.listen.borrow().api.iter().map(|at| format!("{at}{path}")).collect();
    Ok((StatusCode::CREATED, Json(json!({ "name": name, "path": path, "urls": urls }))))
}

pub(super) async fn revoke(
    State(context): State<Arc<ApiContext>>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    context.automations.revoke_webhook(name.clone()).await?;
    Ok(Json(json!({ "name": name, "webhook": false })))
}

/// A call. `GET` is none: browsers, mail programs and messengers follow addresses to look at what is there (RFC 9110, section 9.2.1).
pub(super) async fn call(
    State(context): State<Arc<ApiContext>>,
    Named(token): Named,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Response {
    let remote = peer.map(|Extension(peer)| peer.address.ip());
    let automation = match context.webhooks.admit(Secret::new(token), remote).await {
        Ok(automation) => automation,
        // As any other path that leads nowhere.
        Err(Refused::Unknown) => return unknown_route().await.into_response(),
        Err(refused) => return Problem::from(refused).into_response(),
    };
    let told = async {
        let data = data(&bounded(request, MAX_BYTES).await?)?;
        let called = Called::by_webhook(&automation, data);
        context.events.tell(called::TOPIC, called.to_data()).await?;
        Ok::<_, Problem>((StatusCode::ACCEPTED, Json(json!({ "accepted": true }))))
    };
    told.await.into_response()
}

/// What a body says: JSON, or else its text.
fn data(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let data = match json::parse(bytes) {
        Ok(data) => data,
        Err(JsonError::TooDeep(_)) if is_json(bytes) => return Err(too_deep()),
        Err(refused @ JsonError::NumberOutOfRange(_)) if is_json(bytes) => return Err(refused.into()),
        Err(_) => text(bytes)?,
    };
    if data.to_string().len() > MAX_BYTES {
        return Err(Problem::too_large(MAX_BYTES));
    }
    if depth(&data) > MAX_DEPTH {
        return Err(too_deep());
    }
    Ok(data)
}

/// Whether it is JSON, be it deeper or of greater numbers than what is taken: a text may hold as many brackets and digits as it likes.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

fn text(bytes: &[u8]) -> Result<Value, Problem> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_| {
        let detail = "the body is neither JSON nor text in UTF-8";
        Problem::invalid(detail, "send one of the two, or nothing")
    })
}

fn too_deep() -> Problem {
    Problem::invalid(format!("the body nests deeper than {MAX_DEPTH} levels"), "flatten the document")
}

/// How many lists and objects stand in one another.
fn depth(json: &Value) -> usize {
    match json {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Unknown => {
                Self::not_found("such path", "ask whoever made it for the one that counts now")
            }
            Refused::Paced { retry_after_s } => {
                too_many("too-many-attempts", "Too many wrong paths", detail, retry_after_s)
            }
            Refused::TooOften { retry_after_s } => {
                too_many("too-often", "Called too often", detail, retry_after_s)
            }
            Refused::Closed => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "Not in this state",
                detail,
                "`hearth automation show` shows its state",
            ),
            Refused::Overloaded => Self::overloaded(detail),
            Refused::Stopping => Self::stopping(),
        }
    }
}

fn too_many(slug: &'static str, title: &'static str, detail: String, seconds: u64) -> Problem {
    let fix = "wait as long as `Retry-After` says";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, slug, title, detail, fix).retry_after(seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_is_json_or_text_or_refused() {
        assert_eq!(data(b"").unwrap(), Value::Null);
        assert_eq!(data(br#"{"count": 2}"#).unwrap(), json!({"count": 2}));
        assert_eq!(data(b"count=2&side=front").unwrap(), json!("count=2&side=front"));
        let brackets = "[".repeat(40);
        for text in
            ["{halb", "parcel 99999999999999999999", "99999999999999999999 parcels", &brackets, "1e999"]
        {
            assert_eq!(data(text.as_bytes()).unwrap(), json!(text));
        }
        let deep = format!("{brackets}{}", "]".repeat(40));
        let deepest = format!("{}{}", "[".repeat(512), "]".repeat(512));
        for (refused, part) in [
            (&b"\xff\xfe"[..], "neither JSON nor text"),
            (deep.as_bytes(), "deeper than 5"),
            (deepest.as_bytes(), "deeper than 5"),
            (b"[[[[[[1]]]]]]", "deeper than 5"),
            (&[b'"'; 1_000], "1024 bytes at most"),
            (b"99999999999999999999", "64 bits"),
        ] {
            let refused = data(refused).unwrap_err();
            assert!(refused.detail().contains(part), "{}", refused.detail());
        }
    }
}
