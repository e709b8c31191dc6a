//! What a client that is confined to a part of the home may see and do.
//!
//! Three things keep it there. [`RULES`] says of every route whether it is for confined clients at all: one that is not listed, or is
//! about all of the home, is not. Whoever looks for devices does so within a scope ([`super::devices`]), so that a name out of it
//! names nothing. And what is written is judged by the object's name alone, for what stands in an object is for its writer to choose.

use axum::{
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
};
use mesh_proto::{FieldName, ObjectId};
use serde_json::{Value, json};

use super::{
    access::Principal,
    devices::{all_devices, text},
    objects::MAX_PAGE,
    problem::Problem,
};
use crate::{
    auth::{Scope, tokens::Role},
    service::{ObjectView, Service, ServiceError, Status},
};

/// How a route treats confined clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing of the home is behind it, or another lock than who somebody is.
    Open,
    /// Its handler shows and does what is within the scope, and nothing else.
    Part,
    /// It is about all of the home, or outlives the client: not for confined clients.
    Whole,
}

/// Every route by every method. What is not here is closed to confined clients.
pub(super) const RULES: &[(Method, &str, Rule)] = {
    use Rule::{Open, Part, Whole};
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const PATCH: Method = Method::PATCH;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    &[
        (GET, "/healthz", Open),
        (GET, "/api/v1/ca", Open),
        (GET, "/api/v1/openapi.json", Open),
        (POST, "/api/v1/login", Open),
        (POST, "/api/v1/setup", Open),
        (GET, "/api/v1/setup-code", Open),
        (POST, "/api/v1/setup-code", Open),
        (POST, "/hooks/{token}", Open),
        (PUT, "/hooks/{token}", Open),
        (GET, super::WATCH, Part),
        // Counts of everything that happens in the home.
        (GET, "/metrics", Whole),
        (GET, "/api/v1/status", Part),
        (GET, "/api/v1/objects", Part),
        (GET, "/api/v1/objects/{kind}/{name}", Part),
        (PATCH, "/api/v1/objects/{kind}/{name}", Part),
        (DELETE, "/api/v1/objects/{kind}/{name}", Part),
        (GET, "/api/v1/devices", Part),
        (GET, "/api/v1/devices/{name}", Part),
        (GET, "/api/v1/history/{device}", Part),
        (POST, "/api/v1/commands", Part),
        (GET, "/api/v1/commands/{id}", Part),
        (GET, "/api/v1/adapters", Part),
        (GET, "/api/v1/adapters/{id}", Part),
        (PATCH, "/api/v1/adapters/{id}", Whole),
        (DELETE, "/api/v1/adapters/{id}", Whole),
        (POST, "/api/v1/adapters/{id}/pair", Whole),
        (GET, "/api/v1/time", Part),
        (PUT, "/api/v1/time", Whole),
        (POST, "/api/v1/events", Part),
        (GET, "/api/v1/automations", Part),
        (GET, "/api/v1/automations/{name}", Part),
        (PATCH, "/api/v1/automations/{name}", Part),
        (DELETE, "/api/v1/automations/{name}", Part),
        (POST, "/api/v1/automations/{name}/start", Part),
        // A program acts later, as the household, whose scope nobody asks for.
        (PUT, "/api/v1/automations/{name}", Whole),
        // A rehearsal tells how conditions stand, whatever they look at.
        (GET, "/api/v1/automations/{name}/test", Whole),
        // A path is for whoever knows it, and outlives the client.
        (POST, "/api/v1/automations/{name}/webhook", Whole),
        (DELETE, "/api/v1/automations/{name}/webhook", Whole),
        (GET, "/api/v1/schedules", Part),
        (GET, "/api/v1/schedules/{name}", Part),
        (PATCH, "/api/v1/schedules/{name}", Part),
        (DELETE, "/api/v1/schedules/{name}", Part),
        // As a program.
        (PUT, "/api/v1/schedules/{name}", Whole),
        (GET, "/api/v1/scenes", Part),
        (GET, "/api/v1/scenes/{name}", Part),
        (PUT, "/api/v1/scenes/{name}", Part),
        (DELETE, "/api/v1/scenes/{name}", Part),
        (POST, "/api/v1/scenes/{name}/activate", Part),
        (POST, "/api/v1/scenes/{name}/undo", Part),
        (GET, "/api/v1/home", Part),
        (PATCH, "/api/v1/home", Whole),
        (GET, "/api/v1/invites", Whole),
        (POST, "/api/v1/invites", Whole),
        (DELETE, "/api/v1/invites/{id}", Whole),
        (POST, "/api/v1/join", Whole),
        (POST, "/api/v1/leave", Whole),
        (PATCH, "/api/v1/nodes/{node}", Whole),
        (DELETE, "/api/v1/nodes/{node}", Whole),
        (GET, "/api/v1/tokens", Whole),
        (POST, "/api/v1/tokens", Whole),
        (DELETE, "/api/v1/tokens/{id}", Whole),
        // Who somebody is, and how he comes in, is his own matter.
        (POST, "/api/v1/logout", Part),
        (GET, "/api/v1/me", Part),
        (PUT, "/api/v1/me/password", Part),
        (GET, "/api/v1/sessions", Part),
        (DELETE, "/api/v1/sessions", Part),
        (DELETE, "/api/v1/sessions/{id}", Part),
        (GET, "/api/v1/users", Whole),
        (POST, "/api/v1/users", Whole),
        (GET, "/api/v1/users/{name}", Whole),
        (PATCH, "/api/v1/users/{name}", Whole),
        (DELETE, "/api/v1/users/{name}", Whole),
        (GET, "/api/v1/issuers", Whole),
        (GET, "/api/v1/issuers/{name}", Whole),
        (PUT, "/api/v1/issuers/{name}", Whole),
        (DELETE, "/api/v1/issuers/{name}", Whole),
        (POST, "/api/v1/issuers/{name}/test", Whole),
        (GET, "/api/v1/audit", Whole),
        (GET, "/api/v1/doctor", Whole),
        (GET, super::BACKUP, Whole),
        (GET, super::EXPORT, Whole),
        (POST, super::IMPORT, Whole),
    ]
};

/// The rule of a route; none where nobody has made one.
fn rule(method: &Method, route: &str) -> Option<Rule> {
    // Whoever may read may ask how long it is (RFC 9110, section 9.3.2).
    let method = if method == Method::HEAD { &Method::GET } else { method };
    RULES.iter().find(|(known, path, _)| known == method && *path == route).map(|(_, _, rule)| *rule)
}

impl Principal {
    /// Refuses a confined client on a route that is not for it.
    pub(super) fn may_enter(&self, request: &Request) -> Result<(), Problem> {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let rule = route.and_then(|route| rule(request.method(), route));
        if self.scope.is_whole() || matches!(rule, Some(Rule::Open | Rule::Part)) {
            return Ok(());
        }
        Err(outside("this route is about all of the home"))
    }

    /// Whether it may see an object.
    pub(super) fn sees(&self, object: &ObjectView) -> bool {
        self.may_see(object.id.kind()) && self.scope.sees(object)
    }

    /// Refuses names out of the scope, for whatever is found by its name alone: scenes, schedules, automations, events.
    pub(super) fn must_cover(&self, kind: &str, name: &str) -> Result<(), Problem> {
        let name = format!("{kind}/{name}");
        if self.scope.covers(&name) {
            Ok(())
        } else {
            Err(outside(&format!("`{}` is outside of it", shown(&name))))
        }
    }

    /// Refuses what a confined client may not write: anything out of its scope; devices and nodes, for their names and areas say who
    /// is meant and whose scope they are in; in a group any device out of its scope, which others would command with it; and a group
    /// that is called as an area out of its scope, which others would command in its place.
    pub(super) async fn may_write(
        &self,
        service: &Service,
        id: &ObjectId,
        fields: &[&str],
    ) -> Result<(), Problem> {
        if self.scope.is_whole() {
            return Ok(());
        }
        self.may_touch(id)?;
        if id.kind() != "group" {
            return Ok(());
        }
        let area = id.name().to_lowercase();
        let is_of_others =
            |device: &ObjectView| !self.scope.sees(device) && text(device, "area").to_lowercase() == area;
        if all_devices(service).await?.iter().any(is_of_others) {
            let name = shown(id.name());
            return Err(outside(&format!(
                "whoever says `{name}` may mean an area beyond it: choose another name"
            )));
        }
        self.must_reach(service, fields.iter().copied()).await
    }

    /// The same for what it may not delete: with a group that has members out of its scope others would lose those, too.
    pub(super) async fn may_delete(&self, service: &Service, id: &ObjectId) -> Result<(), Problem> {
        if self.scope.is_whole() {
            return Ok(());
        }
        self.may_touch(id)?;
        let group = service.get(id.clone()).await?.filter(|_| id.kind() == "group");
        let fields = group.iter().flat_map(|group| group.fields.keys()).map(FieldName::as_str);
        let members = self.must_reach(service, fields).await;
        // Who they are is not told.
        members.map_err(|problem| match problem.status() {
            StatusCode::FORBIDDEN => outside(&format!("`{}` reaches beyond it", shown(id.as_str()))),
            _ => problem,
        })
    }

    fn may_touch(&self, id: &ObjectId) -> Result<(), Problem> {
        self.must_cover(id.kind(), id.name())?;
        if matches!(id.kind(), "device" | "node") {
            return Err(outside("names and areas say who is within it, and are given by others"));
        }
        Ok(())
    }

    /// Refuses members of a group that are out of the scope.
    async fn must_reach(
        &self,
        service: &Service,
        fields: impl Iterator<Item = &str> + Send,
    ) -> Result<(), Problem> {
        for device in fields.filter_map(|field| field.strip_prefix("member.")) {
            let device = ObjectId::new(&format!("device/{device}"))?;
            if !reaches(service, &self.scope, &device).await? {
                return Err(outside(&format!("`{}` is outside of it", shown(device.as_str()))));
            }
        }
        Ok(())
    }

    /// Refuses to give somebody more than it has itself.
    pub(super) fn may_grant(&self, role: Role, scope: &Scope) -> Result<(), Problem> {
        if role <= self.role && scope.is_within(&self.scope) {
            return Ok(());
        }
        let detail = "nobody gives more than he has: the role or the scope goes beyond your own";
        Err(Problem::forbidden(detail, "ask for a lower role, or for a smaller part of the home"))
    }
}

/// Whether a device is within a scope, be it there or not.
pub(crate) async fn reaches(
    service: &Service,
    scope: &Scope,
    device: &ObjectId,
) -> Result<bool, ServiceError> {
    if scope.is_whole() {
        return Ok(true);
    }
    let gone = || ObjectView { id: device.clone(), fields: Default::default(), complete: false };
    Ok(scope.sees(&service.get(device.clone()).await?.unwrap_or_else(gone)))
}

/// Objects that a client sees, and behind which one the next page begins, where there is one. Neither tells of others: not by a gap,
/// for a page is filled, and not by a name.
pub(super) async fn page(
    service: &Service,
    principal: &Principal,
    prefix: &str,
    after: Option<ObjectId>,
    limit: usize,
    incomplete: bool,
) -> Result<(Vec<ObjectView>, Option<ObjectId>), ServiceError> {
    let mut page = Vec::new();
    for prefix in walks(&principal.scope, prefix) {
        let mut after = after.clone();
        loop {
            // Where much is hidden the whole of it is looked through, not limit by limit.
            let step = if page.is_empty() && principal.scope.is_whole() { limit } else { MAX_PAGE };
            let found = service.list(&prefix, after.take(), step, incomplete).await?;
            let is_last = found.len() < step;
            after = found.last().map(|object| object.id.clone());
            page.extend(found.into_iter().filter(|object| principal.sees(object)));
            if page.len() > limit || page.len() == limit && !is_last {
                page.truncate(limit);
                let next = page.last().map(|object| object.id.clone());
                return Ok((page, next));
            }
            if is_last {
                break;
            }
        }
    }
    Ok((page, None))
}

/// The prefixes below which anything can be within the scope, in the order of names, none of them below another.
fn walks(scope: &Scope, prefix: &str) -> Vec<String> {
    if scope.is_whole() {
        return vec![prefix.to_owned()];
    }
    let has_devices = !scope.areas.is_empty() || !scope.devices.is_empty();
    let own = scope.prefixes.iter().map(String::as_str).chain(has_devices.then_some("device/"));
    let meet = |own: &&str| own.starts_with(prefix) || prefix.starts_with(own);
    let mut met: Vec<_> =
        own.filter(meet).map(|own| if own.len() > prefix.len() { own } else { prefix }).collect();
    met.sort_unstable();
    met.dedup_by(|later, earlier| later.starts_with(&**earlier));
    met.into_iter().map(str::to_owned).collect()
}

/// How the node is, for a confined client: whether what it sees is current. Neither who is in the home nor where.
pub(super) fn status(status: &Status) -> Value {
    json!({
        "version": status.version,
        "uptime_s": status.uptime_s,
        "clock_synchronised": status.clock_synchronised,
        "confined": true,
    })
}

/// What is out of the scope of a client that knows it by name.
pub(crate) fn outside(why: &str) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "out-of-scope",
        "Not in your part of the home",
        format!("you are confined to a part of the home, and {why}"),
        "an admin gives you a larger part: a token has its scope for good, so it takes another (`hearth token create`)",
    )
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_what_can_be_within_the_scope_is_walked_and_none_of_it_twice() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let scope = |prefixes: &[&str], areas: &[&str]| Scope {
            prefixes: texts(prefixes),
            areas: texts(areas),
            devices: Vec::new(),
        };
        for (scope, prefix, expected) in [
            (Scope::default(), "", &[""][..]),
            (Scope::default(), "note/", &["note/"]),
            (scope(&["note/"], &[]), "", &["note/"]),
            (scope(&["note/"], &["hall"]), "", &["device/", "note/"]),
            (scope(&["note/"], &["hall"]), "note/s", &["note/s"]),
            (scope(&["note/"], &["hall"]), "device/lifx", &["device/lifx"]),
            (scope(&["note/"], &["hall"]), "token/", &[]),
            (scope(&["note/s", "note/", "device/a", "note/"], &["hall"]), "", &["device/", "note/"]),
            (scope(&["note/a", "note/b"], &[]), "note/", &["note/a", "note/b"]),
        ] {
            assert_eq!(walks(&scope, prefix), texts(expected), "{scope:?} {prefix}");
        }
    }
}
