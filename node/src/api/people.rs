//! People: signing in and out, sessions, users, and the setup code that makes the first of them.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    access::{Access, Peer, Principal},
    cookie,
    extract::{Body, DOOR_BYTES, Named, Params},
    json::timestamp,
    problem::Problem,
};
use crate::auth::{
    Scope, Secret, Who,
    people::{NewUser, SignedIn},
    sessions::SessionView,
    setup::{Given, SetupView, Wanted, is_near},
    tokens::Role,
    users::{UserChange, UserView},
};
use crate::json::MAX_JSON_DEPTH;

type Context = State<Arc<ApiContext>>;
/// What a stranger sends.
type AtTheDoor<T> = Body<T, MAX_JSON_DEPTH, DOOR_BYTES>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginBody {
    user: String,
    password: Secret,
}

pub(super) async fn login(
    State(context): Context,
    peer: Option<Extension<Peer>>,
    Body(body): AtTheDoor<LoginBody>,
) -> Result<Response, Problem> {
    let signed_in = context.people.sign_in(&body.user, body.password, address(peer.as_ref())).await?;
    known(peer.as_ref());
    Ok(welcome(StatusCode::OK, &signed_in))
}

/// Where a request comes from; none over the socket.
fn address(peer: Option<&Extension<Peer>>) -> Option<IpAddr> {
    peer.map(|Extension(peer)| peer.address.ip())
}

/// Whoever has shown who they are does not give way to strangers.
fn known(peer: Option<&Extension<Peer>>) {
    if let Some(place) = peer.and_then(|Extension(peer)| peer.place.upgrade()) {
        place.show_token();
    }
}

/// The answer to somebody who has signed in, with the cookie; it tells the audit trail who that is.
fn welcome(status: StatusCode, signed_in: &SignedIn) -> Response {
    let SignedIn { user, role, expires_ms, .. } = signed_in;
    let body = json!({ "user": user, "role": role, "expires": timestamp(*expires_ms) });
    let who = Who::User { name: user.clone(), session: signed_in.session.clone() };
    with_cookie((status, Extension(who), Json(body)).into_response(), cookie::set(&signed_in.secret))
}

fn with_cookie(mut response: Response, value: Option<HeaderValue>) -> Response {
    if let Some(value) = value {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

pub(super) async fn logout(
    State(context): Context,
    Extension(principal): Extension<Principal>,
) -> Result<Response, Problem> {
    let Who::User { name, session } = principal.who else { return Err(no_session()) };
    context.people.sign_out(&session, Some(name)).await?;
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), cookie::clear()))
}

fn no_session() -> Problem {
    let detail = "this request comes by no session: there is nothing to sign out";
    Problem::invalid(detail, "name the user (`?user=NAME`); a token is revoked by `hearth token revoke ID`")
}

pub(super) async fn me(Extension(principal): Extension<Principal>) -> Json<Value> {
    let Principal { who, role, scope, .. } = &principal;
    let mut shown = json!({ "who": who.to_string(), "role": role, "scope": scope_json(scope) });
    let more = match who {
        Who::User { name, session } => json!({ "kind": "user", "user": name, "session": session }),
        Who::Token { id, label } => json!({ "kind": "token", "id": id, "label": label }),
        Who::Outside { issuer, subject } => json!({ "kind": "issuer", "issuer": issuer, "subject": subject }),
        Who::Socket { uid } => json!({ "kind": "socket", "uid": uid }),
    };
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    Json(shown)
}

fn scope_json(scope: &Scope) -> Value {
    json!({ "prefixes": scope.prefixes, "areas": scope.areas, "devices": scope.devices })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUser {
    user: Option<String>,
}

pub(super) async fn sessions(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Params(OfUser { user }): Params<OfUser>,
) -> Result<Json<Value>, Problem> {
    let of = match (&principal.who, user) {
        (Who::User { name, .. }, None) => Some(name.clone()),
        (Who::User { name, .. }, Some(user)) if *name == user => Some(user),
        (_, user) => {
            must_administer(&principal)?;
            user
        }
    };
    let current = if let Who::User { session, .. } = &principal.who { Some(session.as_str()) } else { None };
    let sessions = context.people.sessions(of).await?;
    let shown: Vec<Value> = sessions.iter().map(|session| session_json(session, current)).collect();
    Ok(Json(json!({ "sessions": shown })))
}

fn session_json(session: &SessionView, current: Option<&str>) -> Value {
    let SessionView { id, user, created_ms, seen_ms, expires_ms, from } = session;
    json!({
        "id": id,
        "user": user,
        "created": timestamp(*created_ms),
        "seen": timestamp(*seen_ms),
        "expires": timestamp(*expires_ms),
        "from": from,
        "current": current == Some(id),
    })
}

/// Ends every session of whoever asks, or, for an admin, of a user.
pub(super) async fn sign_out_everywhere(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Params(OfUser { user }): Params<OfUser>,
) -> Result<Response, Problem> {
    let (name, is_own) = match (&principal.who, user) {
        (Who::User { name, .. }, None) => (name.clone(), true),
        (Who::User { name, .. }, Some(user)) if *name == user => (user, true),
        (_, Some(user)) => {
            must_administer(&principal)?;
            (user, false)
        }
        (_, None) => return Err(no_session()),
    };
    context.people.sign_out_everywhere(&name).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    Ok(if is_own { with_cookie(response, cookie::clear()) } else { response })
}

pub(super) async fn end_session(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Named(id): Named,
) -> Result<StatusCode, Problem> {
    let of = match &principal.who {
        _ if must_administer(&principal).is_ok() => None,
        Who::User { name, .. } => Some(name.clone()),
        _ => return must_administer(&principal).map(|()| StatusCode::NO_CONTENT),
    };
    context.people.sign_out(&id, of).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordBody {
    old: Secret,
    new: Secret,
}

/// Changes the password of whoever asks: every session ends, and this browser gets a new one.
pub(super) async fn change_password(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    peer: Option<Extension<Peer>>,
    Body(body): Body<PasswordBody>,
) -> Result<Response, Problem> {
    let Who::User { name, .. } = &principal.who else {
        let fix = "sign in first; an admin sets somebody's password by `hearth user password NAME`";
        return Err(Problem::invalid("only a person who has signed in has a password", fix));
    };
    let address = address(peer.as_ref());
    let signed_in = context.people.change_password(name, body.old, body.new, address).await?;
    Ok(welcome(StatusCode::OK, &signed_in))
}

/// Users are made and changed by admins of the whole home.
fn must_administer(principal: &Principal) -> Result<(), Problem> {
    principal.must_be(Role::Admin)?;
    if principal.scope.is_whole() {
        return Ok(());
    }
    let detail = "whoever is confined to a part of the home does not administer its users";
    Err(Problem::forbidden(detail, "use an admin of the whole home"))
}

pub(super) async fn users(
    State(context): Context,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    must_administer(&principal)?;
    let users = context.people.users().await?;
    Ok(Json(json!({ "users": users.iter().map(user_json).collect::<Vec<_>>() })))
}

fn user_json(user: &UserView) -> Value {
    let UserView { name, role, scope, enabled, created_ms, sessions } = user;
    json!({
        "name": name,
        "role": role,
        "scope": scope_json(scope),
        "enabled": enabled,
        "created": timestamp(*created_ms),
        "sessions": sessions,
    })
}

/// A part of the home; what is not named does not confine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopeBody {
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    areas: Vec<String>,
    #[serde(default)]
    devices: Vec<String>,
}

impl From<ScopeBody> for Scope {
    fn from(ScopeBody { prefixes, areas, devices }: ScopeBody) -> Self {
        Self { prefixes, areas, devices }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserBody {
    name: String,
    role: Role,
    scope: Option<ScopeBody>,
    password: Secret,
}

pub(super) async fn create_user(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Body(body): Body<UserBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_administer(&principal)?;
    let UserBody { name, role, scope, password } = body;
    let new = NewUser { name, role, scope: scope.map(Scope::from).unwrap_or_default(), password };
    let user = context.people.create(new).await?;
    Ok((StatusCode::CREATED, Json(user_json(&user))))
}

pub(super) async fn user(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    must_administer(&principal)?;
    Ok(Json(user_json(&context.people.user(&name).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserPatch {
    role: Option<Role>,
    scope: Option<ScopeBody>,
    enabled: Option<bool>,
    password: Option<Secret>,
}

pub(super) async fn change_user(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
    Body(body): Body<UserPatch>,
) -> Result<Json<Value>, Problem> {
    must_administer(&principal)?;
    let UserPatch { role, scope, enabled, password } = body;
    let change = UserChange { role, scope: scope.map(Scope::from), enabled };
    if change == UserChange::default() && password.is_none() {
        return Err(Problem::invalid("nothing is changed", "give `role`, `scope`, `enabled` or `password`"));
    }
    let user = context.people.change(&name, change, password, is_on_board(&principal)).await?;
    Ok(Json(user_json(&user)))
}

pub(super) async fn remove_user(
    State(context): Context,
    Extension(principal): Extension<Principal>,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    must_administer(&principal)?;
    context.people.remove(&name, is_on_board(&principal)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever may open the socket can always come back in.
fn is_on_board(principal: &Principal) -> bool {
    matches!(principal.who, Who::Socket { .. })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetupBody {
    code: Secret,
    /// For a user.
    user: Option<String>,
    password: Option<Secret>,
    /// For a token.
    label: Option<String>,
}

/// Trades the setup code for the first admin: a user with a session, or a token for a script.
pub(super) async fn setup(
    State(context): Context,
    peer: Option<Extension<Peer>>,
    Body(body): AtTheDoor<SetupBody>,
) -> Result<Response, Problem> {
    let address = address(peer.as_ref());
    if address.is_some_and(|address| !is_near(address)) {
        let detail = "the setup code is taken from the board itself and from its own network only";
        let fix = "come from the network of the home, or make the user on the board: `hearth user add NAME --role admin`";
        return Err(Problem::forbidden(detail, fix));
    }
    let wanted = match (body.user, body.password, body.label) {
        (Some(name), Some(password), None) => {
            Wanted::User(NewUser { name, role: Role::Admin, scope: Scope::default(), password }, address)
        }
        (None, None, label) => Wanted::Token(label.unwrap_or_else(|| "setup".to_owned())),
        _ => {
            let detail = "the setup code makes a user, or a token";
            return Err(Problem::invalid(detail, "give `user` and `password`, or `label` alone"));
        }
    };
    match context.setup.redeem(body.code, wanted).await? {
        Given::User(signed_in) => Ok(welcome(StatusCode::CREATED, &signed_in)),
        Given::Token(id, token) => {
            let body = json!({ "id": id, "token": token.expose(), "role": Role::Admin });
            let who = Who::Token { id, label: String::new() };
            Ok((StatusCode::CREATED, Extension(who), Json(body)).into_response())
        }
    }
}

pub(super) async fn setup_code(
    State(context): Context,
    Extension(access): Extension<Access>,
) -> Result<Json<Value>, Problem> {
    socket_only(access)?;
    Ok(show_setup(&context.setup.show().await?))
}

pub(super) async fn new_setup_code(
    State(context): Context,
    Extension(access): Extension<Access>,
) -> Result<Json<Value>, Problem> {
    socket_only(access)?;
    Ok(show_setup(&context.setup.renew().await?))
}

fn show_setup(view: &SetupView) -> Json<Value> {
    let SetupView { code, used, locked, seconds_left } = view;
    let code = code.as_ref().map(Secret::expose);
    Json(json!({ "code": code, "used": used, "locked": locked, "seconds_left": seconds_left }))
}

/// The code proves that somebody is on the board: no token can stand in for that.
fn socket_only(access: Access) -> Result<(), Problem> {
    if access == Access::Socket {
        return Ok(());
    }
    let detail = "the setup code is shown on the board only";
    Err(Problem::forbidden(detail, "run `hearth setup-code` on the board"))
}
