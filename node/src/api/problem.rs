//! The one form in which the API says no: problem documents of RFC 9457, and the one place that
//! turns every error into one.

mod people;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mesh_proto::error::NameError;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::ports::PortError;
use crate::{
    auth::{
        scope::ScopeError,
        setup::SetupError,
        tokens::{Denied, TokenError},
    },
    json::{JsonError, MAX_JSON_BYTES},
    service::ServiceError,
};

/// What went wrong, for people and programs.
///
/// Boxed, because it is what nearly every function of the API may answer with.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    slug: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    fix: String,
    retry_after_s: Option<u64>,
    candidates: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    fix: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    candidates: &'a [String],
}

impl Problem {
    /// A problem of the type `urn:hearth:problem:SLUG`; `fix` is the way out.
    pub fn new(
        status: StatusCode,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (detail, fix) = (detail.into(), fix.into());
        let (retry_after_s, candidates) = (None, Vec::new());
        Self(Box::new(Parts { slug, title, status, detail, fix, retry_after_s, candidates }))
    }

    /// The same with a `Retry-After` of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// The same with the names that were perhaps meant (at most 16 are shown).
    #[must_use]
    pub fn with_candidates(mut self, candidates: impl IntoIterator<Item = String>) -> Self {
        self.0.candidates = candidates.into_iter().take(16).collect();
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The last part of its type.
    pub fn slug(&self) -> &'static str {
        self.0.slug
    }

    /// The document, for a WebSocket message.
    pub fn to_json(&self) -> Json {
        json!(self.document())
    }

    fn document(&self) -> Document<'_> {
        Document {
            r#type: format!("urn:hearth:problem:{}", self.0.slug),
            title: self.0.title,
            status: self.0.status.as_u16(),
            detail: &self.0.detail,
            fix: &self.0.fix,
            candidates: &self.0.candidates,
        }
    }

    /// A request that breaks a rule of its fields.
    pub fn invalid(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-request",
            "The request is not valid",
            detail,
            fix,
        )
    }

    /// Nothing of that name.
    pub fn not_found(what: &str, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", format!("there is no {what}"), fix)
    }

    /// A role that does not suffice.
    pub fn forbidden(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail, fix)
    }

    /// No token or session, or none that is known. The two read alike.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "Who are you?",
            "the request carries no token and no session that this household knows",
            "sign in at /api/v1/login, or send `Authorization: Bearer TOKEN`; an admin makes one with `hearth token create`",
        )
    }

    /// Something on our side.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Hearth failed to answer",
            "the handler of this request failed; nothing else is affected",
            "see the daemon's log, and report it with the request",
        )
    }

    /// Too much at once.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        let fix = "try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much at once", detail, fix)
            .retry_after(1)
    }

    /// The node is on its way down.
    pub fn stopping() -> Self {
        let detail = "the node is stopping or restarting";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The node is stopping",
            detail,
            "try again in a moment",
        )
        .retry_after(2)
    }

    /// A part of the node hangs or cannot do its work.
    pub fn degraded(detail: impl Into<String>) -> Self {
        let fix = "run `hearth doctor` on the board; a service that hangs is restarted by systemd";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "degraded", "The node is not healthy", detail, fix)
            .retry_after(5)
    }

    /// A request that took longer than it may.
    pub fn deadline(seconds: u64) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "The request took too long",
            format!("no answer within {seconds} s; a write in it may still take effect"),
            "look at `hearth status` and `/healthz`, then try again",
        )
    }

    /// A body of the wrong media type.
    pub fn media_type(wanted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "Wrong content type",
            format!("this request needs a body of the type {wanted}"),
            format!("send `Content-Type: {wanted}`"),
        )
    }

    /// What is wrong, in words.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The way out.
    pub fn fix(&self) -> &str {
        &self.0.fix
    }

    /// A body beyond its limit.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!("a body here may have {limit} bytes at most"),
            "split the request",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hearth\""));
        }
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match error {
            ServiceError::Forbidden(_) => Self::new(
                StatusCode::FORBIDDEN,
                "not-writable",
                "The field is not for clients",
                detail,
                "to change a device send a command; to see who reports what see `hearth get`",
            ),
            ServiceError::Value { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "value",
                "The value breaks a rule",
                detail,
                "shorten or flatten the value, or split it over several fields",
            ),
            ServiceError::TooManyOps(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-many-changes",
                "Too many changes in one request",
                detail,
                "split the request",
            ),
            ServiceError::Overloaded => Self::overloaded(detail),
            ServiceError::Store(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "store",
                "The store cannot be written",
                detail,
                "run `hearth doctor`: it says what to free or mend",
            ),
            ServiceError::Roster(_) => Self::new(
                StatusCode::CONFLICT,
                "roster",
                "The household's roster refuses",
                detail,
                "ask on a node whose role is admin (`hearth status`)",
            ),
            ServiceError::Outside(outside) => Self::new(
                StatusCode::CONFLICT,
                "outside",
                "This node stands outside of its household",
                format!("{detail}; nobody else would ever hear of the change, so it is not made"),
                outside.fix,
            ),
            ServiceError::NoSuchWatcher => Self::new(
                StatusCode::GONE,
                "observer-gone",
                "The subscription has ended",
                detail,
                "subscribe again with the last resume token",
            ),
            ServiceError::Stopping => Self::stopping(),
        }
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        let detail = error.to_string();
        let bad = |slug, title, fix| Self::new(StatusCode::BAD_REQUEST, slug, title, detail.clone(), fix);
        match error {
            JsonError::TooLarge => Self::too_large(MAX_JSON_BYTES),
            JsonError::TooDeep(_) => bad("too-deep", "The JSON is nested too deeply", "flatten the document"),
            JsonError::TooMany => {
                bad("too-many-values", "The JSON holds too many values", "send it in several requests")
            }
            JsonError::NumberOutOfRange(_) => bad(
                "number-out-of-range",
                "A whole number is out of range",
                "use -9223372036854775808 to 9223372036854775807, a float (1e19), or text",
            ),
            JsonError::Syntax(_) => {
                bad("not-json", "The body is not JSON", "send one JSON document in UTF-8")
            }
            JsonError::Bytes => bad("bytes", "Malformed bytes", "write bytes as {\"$bytes\":\"SGVhcnRo\"}"),
            JsonError::Shape(_) => Self::invalid(detail, "correct the field named in `detail`"),
            JsonError::NotAnObject => Self::invalid(detail, "send lines as `hearth export` writes them"),
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "name",
            "The name breaks a rule",
            error.to_string(),
            "kinds are like `note`, names like `shopping-list`, fields like `text`: no spaces, fields in lower case",
        )
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        let detail = error.to_string();
        match error {
            PortError::Stopping => Self::stopping(),
            PortError::Overloaded => Self::overloaded(detail),
            PortError::NotFound(_) => Self::new(
                StatusCode::NOT_FOUND,
                "not-found",
                "Not found",
                detail,
                "list what there is, then try again",
            ),
            PortError::Invalid { fix, .. } => Self::invalid(detail, fix),
            PortError::Conflict { fix, .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", "Not in this state", detail, fix)
            }
            PortError::Unreachable { fix, .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "unreachable",
                "The other side does not answer",
                detail,
                fix,
            ),
            PortError::Storage { fix, .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "store",
                "The disk cannot be written",
                detail,
                fix,
            ),
            PortError::Failed { fix, .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "It could not be done", detail, fix)
            }
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown => Self::unauthenticated(),
            Denied::Expired => Self::new(
                StatusCode::UNAUTHORIZED,
                "token-expired",
                "The token has ended",
                "the token was for a time that is over",
                "ask an admin for another: `hearth token create`",
            ),
            Denied::Paced { retry_after_s } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-attempts",
                "Too many wrong tokens",
                "too many wrong tokens came from this address",
                "wait, then use a token that is known",
            )
            .retry_after(retry_after_s),
            Denied::Stopping => Self::stopping(),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        match error {
            TokenError::TooMany => Self::new(
                StatusCode::CONFLICT,
                "too-many-tokens",
                "Too many tokens",
                detail,
                "revoke the ones that nobody uses: `hearth token list`, `hearth token revoke ID`",
            ),
            TokenError::Label => Self::invalid(detail, "shorten the label"),
            TokenError::Scope(error) => error.into(),
            TokenError::ConfinedAdmin => {
                Self::invalid(detail, "leave the scope out, or make it a viewer or an operator")
            }
            TokenError::End => Self::invalid(detail, "say it as 90d, or as a moment to come"),
            TokenError::Outlives => Self::forbidden(
                detail,
                "give it an end before that of your own token, or ask with a token that has none",
            ),
            TokenError::NoTime => Self::new(
                StatusCode::CONFLICT,
                "no-time",
                "The time of day is not known",
                detail,
                "say the time (`hearth time set`), or make a token without an end",
            ),
            TokenError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "not-found",
                "Not found",
                detail,
                "`hearth token list` shows the ids",
            ),
            TokenError::NoRandomness => Self::internal(),
            TokenError::Service(error) => error.into(),
        }
    }
}

impl From<ScopeError> for Problem {
    fn from(error: ScopeError) -> Self {
        let detail = error.to_string();
        Self::invalid(
            detail,
            "prefixes are like note/ or scene/evening; areas and devices are called as in `hearth devices`",
        )
    }
}

impl From<SetupError> for Problem {
    fn from(error: SetupError) -> Self {
        let detail = error.to_string();
        let fix = "run `hearth setup-code` on the board for the code";
        match error {
            SetupError::Wrong { .. } => {
                Self::new(StatusCode::FORBIDDEN, "wrong-setup-code", "Wrong setup code", detail, fix)
            }
            SetupError::Spent => Self::new(
                StatusCode::GONE,
                "setup-code-used",
                "The setup code was used",
                detail,
                "run `hearth setup-code --new` on the board",
            ),
            SetupError::Locked => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "setup-code-locked",
                "Too many wrong setup codes",
                detail,
                "run `hearth setup-code --new` on the board",
            ),
            SetupError::None => {
                Self::new(StatusCode::NOT_FOUND, "no-setup-code", "There is no setup code", detail, fix)
            }
            SetupError::Over => {
                Self::new(StatusCode::GONE, "setup-code-over", "The setup code is over", detail, fix)
            }
            SetupError::NoRandomness => Self::internal(),
            SetupError::File(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "store",
                "The state folder cannot be written",
                detail,
                "run `hearth doctor`: it says what to free or mend",
            ),
            SetupError::Token(error) => error.into(),
            SetupError::User(error) => error.into(),
            SetupError::NotSignedIn(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not-signed-in",
                "The user was made, and is not signed in",
                detail,
                "sign in with the name and the password: the setup code is used",
            ),
            SetupError::Stopping => Self::stopping(),
        }
    }
}
