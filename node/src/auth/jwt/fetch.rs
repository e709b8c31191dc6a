//! The keys of an issuer as it publishes them: by OpenID Connect Discovery, or at an address that an admin gave.

use std::time::Duration;

use device_adapters::web::{Web, WebError, WebRequest, WebResponse};
use hyper::{StatusCode, header};
use serde_json::Value as Json;
use thiserror::Error;

use super::{
    keys::{Keys, KeysError},
    spec::{Spec, is_here, is_safe},
    token::parse_strictly,
};

/// For each of the two questions.
const WITHIN: Duration = Duration::from_secs(8);
/// Longest answer, in bytes.
pub(super) const MOST: usize = 256 * 1024;
/// How long keys are fresh where the issuer does not say.
const FRESH: Duration = Duration::from_secs(3_600);
/// How long they are fresh at least and at most, whatever it says.
const FRESH_S: std::ops::RangeInclusive<u64> = 300..=86_400;

/// Why there are no new keys.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Trust(String),
    #[error("{0}")]
    Web(#[from] WebError),
    #[error("it answers {0} instead of its keys")]
    Status(StatusCode),
    #[error(
        "its discovery document is no JSON object with `issuer` and `jwks_uri` (OpenID Connect Discovery 1.0)"
    )]
    Discovery,
    #[error("its discovery document is that of another issuer: `issuer` has to be the same to the byte")]
    Another,
    #[error("its `jwks_uri` is no https:// address")]
    Unsafe,
    #[error("{0}")]
    Keys(#[from] KeysError),
}

/// What was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: Keys,
    /// As it came.
    pub(super) document: Vec<u8>,
    pub(super) fresh: Duration,
}

pub(super) async fn fetch(spec: &Spec) -> Result<Fetched, FetchError> {
    let web = match &spec.root {
        Some(root) => Web::trusting(root.as_bytes()),
        None => Web::public(),
    };
    let web = web.map_err(FetchError::Trust)?;
    let address = match &spec.jwks {
        Some(jwks) => jwks.clone(),
        None => discover(&web, &spec.url).await?,
    };
    let answer = get(&web, address).await?;
    let keys = Keys::parse(&answer.body)?;
    let fresh = freshness(&answer);
    Ok(Fetched { keys, document: answer.body, fresh })
}

async fn discover(web: &Web, url: &str) -> Result<String, FetchError> {
    let address = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
    let answer = get(web, address).await?;
    let document = parse_strictly(&answer.body).map_err(|_| FetchError::Discovery)?;
    let text = |name: &str| document.get(name).and_then(Json::as_str).ok_or(FetchError::Discovery);
    if text("issuer")? != url {
        return Err(FetchError::Another);
    }
    let jwks = text("jwks_uri")?;
    // An issuer elsewhere has nothing to send us to on this machine.
    if !is_safe(jwks) || (is_here(jwks) && !is_here(url)) {
        return Err(FetchError::Unsafe);
    }
    Ok(jwks.to_owned())
}

async fn get(web: &Web, address: String) -> Result<WebResponse, FetchError> {
    let mut request = WebRequest::get(address);
    (request.within, request.most) = (WITHIN, MOST);
    request.headers.push(("accept", "application/json".to_owned()));
    let answer = web.send(request).await?;
    if answer.status == StatusCode::OK { Ok(answer) } else { Err(FetchError::Status(answer.status)) }
}

/// By `Cache-Control: max-age` (RFC 9111, section 5.2.2.1), within bounds.
fn freshness(answer: &WebResponse) -> Duration {
    let control = answer.headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let age =
        |directive: &str| directive.trim().strip_prefix("max-age=")?.trim_matches('"').parse::<u64>().ok();
    let seconds = control.and_then(|control| control.to_ascii_lowercase().split(',').find_map(age));
    seconds.map_or(FRESH, |s| Duration::from_secs(s.clamp(*FRESH_S.start(), *FRESH_S.end())))
}
