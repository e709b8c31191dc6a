//! The audit trail: what of each request goes into it, and how an admin reads it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::{Access, Peer, Uid},
    extract::Params,
    guards::only_reads,
    history::moment,
    json::timestamp,
    ports::history::Moment,
    problem::Problem,
};
use crate::{
    audit::{AuditHandle, Class, Entry, MAX_RECORDS, Query, Record},
    auth::Who,
};

/// Records of one answer unless asked for otherwise.
const DEFAULT_PAGE: usize = 100;
/// Routes whose doings decide who may do what.
const SECURITY: [&str; 13] = [
    "/api/v1/setup",
    SETUP_CODE,
    "/api/v1/tokens",
    "/api/v1/users",
    "/api/v1/sessions",
    "/api/v1/me",
    "/api/v1/issuers",
    "/api/v1/login",
    "/api/v1/logout",
    "/api/v1/invites",
    "/api/v1/join",
    "/api/v1/leave",
    "/api/v1/nodes",
];

const SETUP_CODE: &str = "/api/v1/setup-code";

/// What is known of a request before it is answered. Never its body, and never a path that may be a secret.
pub(super) struct Note {
    /// Whom the way in vouches for, where the handlers say nothing else.
    who: Option<Who>,
    method: Method,
    route: Option<String>,
    object: Option<String>,
    from: Option<IpAddr>,
    via: Option<IpAddr>,
}

impl Note {
    /// Takes down what matters.
    pub(super) async fn of(request: Request, access: Access) -> (Self, Request) {
        let (mut parts, body) = request.into_parts();
        let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let params = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
        let names: Vec<&str> = params.iter().flatten().map(|(_, value)| value).collect();
        let object = route.as_deref().and_then(|route| object(route, &names));
        let peer = parts.extensions.get::<Peer>();
        let (from, via) = peer.map_or((None, None), |peer| (Some(peer.address.ip()), peer.via));
        let uid = parts.extensions.get::<Uid>().map(|uid| uid.0);
        let who = (access == Access::Socket).then_some(Who::Socket { uid });
        let note = Self { who, method: parts.method.clone(), route, object, from, via };
        (note, Request::from_parts(parts, body))
    }

    /// Records it with its outcome, if it belongs into the trail.
    pub(super) fn record(self, audit: &AuditHandle, response: &Response) {
        let status = response.status();
        let route = self.route.as_deref().unwrap_or("(no such route)");
        let Some(class) = class(&self.method, route, status) else { return };
        let who = response.extensions().get::<Who>().or(self.who.as_ref()).map(Who::to_string);
        let what = format!("{} {route}", self.method);
        let entry = Entry::new(class, who.as_deref().unwrap_or("nobody"), &what, status.as_u16());
        audit.record(entry.from(self.from, self.via).object(self.object.as_deref()));
    }
}

/// Where a request belongs; none for what only reads, and for commands, which are recorded for themselves.
fn class(method: &Method, route: &str, status: StatusCode) -> Option<Class> {
    // What may be asked is asked of no handler.
    let is_reading = only_reads(method) || *method == Method::OPTIONS;
    if status.is_client_error() || status.is_server_error() {
        let is_kept_out = matches!(status.as_u16(), 400 | 401 | 403 | 421 | 429);
        return (!is_reading || is_kept_out).then_some(Class::Refused);
    }
    // Asking for the setup code makes one.
    let is_reading = is_reading && (route != SETUP_CODE || *method == Method::OPTIONS);
    if is_reading || route == "/api/v1/commands" {
        return None;
    }
    let is_security = SECURITY
        .iter()
        .any(|of| route.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    Some(if is_security { Class::Security } else { Class::Deed })
}

/// The object that a path is about: `note/list` of `/api/v1/objects/{kind}/{name}`, `scene/evening` of
/// `/api/v1/scenes/{name}/activate`.
fn object(route: &str, names: &[&str]) -> Option<String> {
    let of = route.strip_prefix("/api/v1/")?.split('/').next()?;
    match (of, names) {
        (_, []) => None,
        ("objects", names) => Some(names.join("/")),
        (of, names) => Some(format!("{}/{}", of.strip_suffix('s').unwrap_or(of), names.join("/"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParams {
    limit: Option<usize>,
    after: Option<u64>,
    who: Option<String>,
    object: Option<String>,
    since: Option<String>,
}

/// The records of this node, oldest first.
pub(super) async fn list(
    State(context): State<Arc<ApiContext>>,
    Params(params): Params<AuditParams>,
) -> Result<Json<Value>, Problem> {
    let limit = params.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_RECORDS).contains(&limit) {
        let fix = format!("ask for 1 to {MAX_RECORDS} records");
        return Err(Problem::invalid(format!("limit is {limit}"), fix));
    }
    let AuditParams { after, who, object, since, .. } = params;
    let since_ms = match since.map(|since| moment("since", &since)).transpose()? {
        Some(Moment::At(second)) => Some(second.saturating_mul(1_000)),
        Some(Moment::Ago(ago)) => {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            Some(context.service.time().await?.ms.saturating_sub(ago))
        }
        None => None,
    };
    let records = context.audit.read(Query { limit, after, who, object, since_ms }).await?;
    let node = context.service.status().await?.node;
    let records: Vec<Value> = records.iter().map(to_json).collect();
    Ok(Json(json!({ "node": node, "records": records, "lost": context.audit.lost() })))
}

fn to_json(record: &Record) -> Value {
    let mut shown = json!(record);
    if let Value::Object(members) = &mut shown {
        members.insert("at".to_owned(), timestamp(record.at).into());
        if let Some(since) = record.since {
            members.insert("since".to_owned(), timestamp(since).into());
        }
        members.insert("count".to_owned(), record.count.into());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_not_recorded_and_refusals_are() {
        let of = |method: &str, route, status: u16| {
            class(
                &method.parse().unwrap_or_default(),
                route,
                StatusCode::from_u16(status).unwrap_or_default(),
            )
        };
        assert_eq!(of("GET", "/api/v1/status", 200), None);
        assert_eq!(of("GET", "/api/v1/status", 404), None);
        assert_eq!(of("GET", "/api/v1/status", 401), Some(Class::Refused));
        assert_eq!(of("GET", "/api/v1/watch", 101), None);
        assert_eq!(of("PATCH", "/api/v1/objects/{kind}/{name}", 200), Some(Class::Deed));
        assert_eq!(of("PATCH", "/api/v1/objects/{kind}/{name}", 422), Some(Class::Refused));
        assert_eq!(of("DELETE", "/api/v1/tokens/{id}", 204), Some(Class::Security));
        assert_eq!(of("POST", "/api/v1/setup", 201), Some(Class::Security));
        assert_eq!(of("GET", "/api/v1/setup-code", 200), Some(Class::Security), "it makes one");
        assert_eq!(of("OPTIONS", "/api/v1/setup-code", 200), None);
        assert_eq!(of("GET", "/api/v1/setup-code", 409), None);
        assert_eq!(of("POST", "/api/v1/commands", 202), None, "those are recorded for themselves");
        assert_eq!(of("POST", "/api/v1/commands", 403), Some(Class::Refused));
    }

    #[test]
    fn objects_are_named_and_secrets_are_not() {
        let of = |route, names: &[&str]| object(route, names);
        assert_eq!(of("/api/v1/objects/{kind}/{name}", &["note", "list"]).as_deref(), Some("note/list"));
        assert_eq!(of("/api/v1/scenes/{name}/activate", &["evening"]).as_deref(), Some("scene/evening"));
        assert_eq!(of("/api/v1/history/{device}", &["lamp"]).as_deref(), Some("history/lamp"));
        assert_eq!(of("/api/v1/tokens", &[]), None);
        assert_eq!(of("/hooks/{token}", &["secret"]), None);
    }
}
