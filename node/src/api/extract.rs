//! Reading requests; whatever is wrong with one becomes a problem document.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mesh_proto::ObjectId;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::json::{self, MAX_JSON_BYTES, MAX_JSON_DEPTH};

/// How much of a body that is too large is still read, so that its sender hears why.
const MAX_DISCARDED_BYTES: usize = 16 * MAX_JSON_BYTES;

/// For how long.
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// Largest body of whoever has shown nothing yet, in bytes: room for a name and a password.
pub(super) const DOOR_BYTES: usize = 16 * 1024;

/// A JSON body that nests at most so deep and has so many bytes at most; no body at all counts as `{}`.
pub(super) struct Body<T, const DEPTH: usize = MAX_JSON_DEPTH, const BYTES: usize = MAX_JSON_BYTES>(
    pub(super) T,
);

impl<S: Sync, T: DeserializeOwned, const DEPTH: usize, const BYTES: usize> FromRequest<S>
    for Body<T, DEPTH, BYTES>
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = has_media_type(request.headers(), "application/json");
        let has_type = request.headers().contains_key(header::CONTENT_TYPE);
        let bytes = bounded(request, BYTES).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) if is_json || !has_type => Ok(Self(json::parse(b"{}")?)),
            (false, true) => Ok(Self(json::parse_request(&bytes, DEPTH)?)),
            _ => Err(Problem::media_type("application/json")),
        }
    }
}

/// A whole body of so many bytes at most.
pub(super) async fn bounded(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
    let mut body = request.into_body();
    if length.is_some_and(|length: u64| usize::try_from(length).map_or(true, |l| l > limit)) {
        discard(&mut body).await;
        return Err(Problem::too_large(limit));
    }
    match Limited::new(&mut body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(Problem::too_large(limit))
        }
        Err(_) => {
            Err(Problem::invalid("the body ended early", "send as many bytes as `Content-Length` says"))
        }
    }
}

/// Reads on what is refused, up to a bound: a client that sends first and reads afterwards would
/// find the connection reset instead of the answer.
async fn discard(body: &mut axum::body::Body) {
    let mut rest = Limited::new(body, MAX_DISCARDED_BYTES);
    // One that is slow, or waits to be told to go on, gets the answer now.
    let all = async { while let Some(Ok(_)) = rest.frame().await {} };
    let _ = tokio::time::timeout(DISCARD_WITHIN, all).await;
}

/// Whether the body is said to be of this type, whatever its parameters.
pub(super) fn has_media_type(headers: &axum::http::HeaderMap, wanted: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

/// Whether something is to be on.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enabled {
    pub(super) enabled: bool,
}

/// The query part of the address.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(params)| Self(params)).map_err(|error| {
            Problem::new(
                axum::http::StatusCode::BAD_REQUEST,
                "query",
                "The query is not valid",
                error.body_text(),
                "correct the parameter that `detail` names",
            )
        })
    }
}

/// The one name in the path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| not_utf8())
    }
}

/// The object in the path.
pub(super) struct Object(pub(super) ObjectId);

impl<S: Send + Sync> FromRequestParts<S> for Object {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((kind, name)) = path.map_err(|_| not_utf8())?;
        Ok(Self(ObjectId::new(&format!("{kind}/{name}"))?))
    }
}

fn not_utf8() -> Problem {
    Problem::invalid("the path is not UTF-8", "percent-encode names as UTF-8")
}
