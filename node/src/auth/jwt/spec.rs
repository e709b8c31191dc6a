//! What an admin says of an issuer: where it is, which of its tokens count here, and as whom.
//!
//! All of it is one field of the object `issuer/NAME`, so that no node ever goes by half of a change.

use std::{collections::BTreeMap, net::IpAddr};

use device_adapters::web::Web;
use hyper::Uri;
use mesh_proto::{ObjectId, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use thiserror::Error;

use super::keys::Algorithm;
use crate::{
    auth::{Scope, tokens::Role},
    json::{JsonError, from_value, to_value},
    service::{ObjectView, Op},
};

/// The kind of its objects.
pub const KIND: &str = "issuer";
/// The one field in which all of it stands.
const FIELD: &str = "trust";
/// Longest name, in bytes: it is a file's name, too.
pub const MAX_NAME_BYTES: usize = 32;
/// How far the issuer's clock and ours may differ, in seconds, unless an admin says otherwise.
const LEEWAY_S: u32 = 60;
const MAX_LEEWAY_S: u32 = 120;
/// Shortest and longest age that can be demanded, in seconds: a minute, a year.
const MAX_AGE_S: std::ops::RangeInclusive<u32> = 60..=31_536_000;
const MAX_URL_BYTES: usize = 512;
const MAX_AUDIENCES: usize = 8;
const MAX_ROLES: usize = 32;
const MAX_TEXT_BYTES: usize = 256;

/// What an admin says of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What `iss` has to be, to the byte.
    pub url: String,
    /// Where its keys are; by default OpenID discovery tells.
    pub jwks: Option<String>,
    /// One of these has to be in `aud`.
    pub audience: Vec<String>,
    /// These alone are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The claim that says what somebody may do: a member, or a path of members with dots between.
    pub claim: String,
    /// What each of its values means here.
    pub roles: BTreeMap<String, Given>,
    /// The claim that names somebody.
    pub subject: String,
    /// The authority that vouches for its host, in PEM; by default those that this system trusts.
    pub root: Option<String>,
    /// How far the two clocks may differ, in seconds.
    pub leeway_s: u32,
    /// How old a token may be by its `iat`, in seconds.
    pub max_age_s: Option<u32>,
}

/// What a value of the claim gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// Why an issuer cannot be taken on. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A name that cannot be a file's.
    #[error("an issuer is called by 1 to {MAX_NAME_BYTES} of a-z, 0-9 and `-`, such as `sso`")]
    Name,
    /// Members that are missing, unknown or of the wrong type.
    #[error("{0}")]
    Shape(String),
    /// A text that is empty, too long, or has control characters.
    #[error("`{0}` has 1 to {1} bytes and no control characters")]
    Text(&'static str, usize),
    /// An address over which anybody could hand us keys.
    #[error(
        "`{0}` has to be an https:// address without a user, `?` and `#` (http:// for this machine alone)"
    )]
    Address(&'static str),
    /// No audience, or too many.
    #[error(
        "`audience` names 1 to {MAX_AUDIENCES} audiences: what the issuer writes into `aud` for this home"
    )]
    Audience,
    /// An algorithm that is none, or not one to trust.
    #[error("`algorithms` names one or several of {known}: never none, never one with a shared secret", known = Algorithm::list())]
    Algorithms,
    /// No role, or too many.
    #[error("`roles.map` says of 1 to {MAX_ROLES} values of `{0}` which role they give")]
    NoRoles(String),
    /// A role that is none.
    #[error(
        "`roles.map` gives `{0}` no role: say \"viewer\", \"operator\" or \"admin\", or {{\"role\": …, \"scope\": …}}"
    )]
    Role(String),
    /// A scope that is none.
    #[error("`roles.map` gives `{0}` no scope: {1}")]
    Scope(String, String),
    /// An authority that cannot be read.
    #[error("`root` is no certificate in PEM: {0}")]
    Root(String),
    /// Clocks that differ more than clocks do.
    #[error("`leeway_s` is 0 to {MAX_LEEWAY_S} seconds")]
    Leeway,
    /// An age out of its range.
    #[error("`max_age_s` is {} to {} seconds", MAX_AGE_S.start(), MAX_AGE_S.end())]
    MaxAge,
    /// More than a field holds.
    #[error(
        "this is more than a field of an object holds: map fewer values, or name an authority with a smaller key"
    )]
    TooLarge,
}

impl From<JsonError> for SpecError {
    fn from(_: JsonError) -> Self {
        Self::TooLarge
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RolesText {
    claim: String,
    map: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenText {
    role: String,
    #[serde(default)]
    scope: Scope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecText {
    url: String,
    jwks: Option<String>,
    audience: OneOrMany,
    algorithms: Vec<String>,
    roles: RolesText,
    subject: Option<String>,
    root: Option<String>,
    leeway_s: Option<u32>,
    max_age_s: Option<u32>,
}

impl Spec {
    /// Reads and checks what an admin, or the object, says.
    ///
    /// # Errors
    /// [`SpecError`]: the first rule that it breaks.
    pub fn parse(json: Json) -> Result<Self, SpecError> {
        let text: SpecText =
            serde_json::from_value(json).map_err(|error| SpecError::Shape(error.to_string()))?;
        let audience = match text.audience {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        let RolesText { claim, map } = text.roles;
        if !(1..=MAX_ROLES).contains(&map.len()) {
            return Err(SpecError::NoRoles(claim));
        }
        let roles = map.into_iter().map(|(value, given)| {
            let given = self::given(value.clone(), given)?;
            Ok::<_, SpecError>((value, given))
        });
        let spec = Self {
            url: text.url,
            jwks: text.jwks,
            audience,
            algorithms: algorithms(&text.algorithms)?,
            claim,
            roles: roles.collect::<Result<_, _>>()?,
            subject: text.subject.unwrap_or_else(|| "sub".to_owned()),
            root: text.root,
            leeway_s: text.leeway_s.unwrap_or(LEEWAY_S),
            max_age_s: text.max_age_s,
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        plain("url", &self.url, MAX_URL_BYTES)?;
        match &self.jwks {
            Some(jwks) if !is_safe(jwks) => return Err(SpecError::Address("jwks")),
            // Only discovery asks for the URL itself.
            None if !is_safe(&self.url) => return Err(SpecError::Address("url")),
            _ => {}
        }
        if !(1..=MAX_AUDIENCES).contains(&self.audience.len()) {
            return Err(SpecError::Audience);
        }
        self.audience.iter().try_for_each(|one| plain("audience", one, MAX_TEXT_BYTES))?;
        plain("roles.claim", &self.claim, MAX_TEXT_BYTES)?;
        self.roles.keys().try_for_each(|value| plain("roles.map", value, MAX_TEXT_BYTES))?;
        plain("subject", &self.subject, MAX_TEXT_BYTES)?;
        if let Some(root) = &self.root {
            Web::trusting(root.as_bytes()).map_err(SpecError::Root)?;
        }
        if self.leeway_s > MAX_LEEWAY_S {
            return Err(SpecError::Leeway);
        }
        if self.max_age_s.is_some_and(|age| !MAX_AGE_S.contains(&age)) {
            return Err(SpecError::MaxAge);
        }
        self.to_value()?.encode().map(drop).map_err(|_| SpecError::TooLarge)
    }

    /// As an admin would say it.
    pub fn to_json(&self) -> Json {
        let algorithms: Vec<_> = self.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        let roles: Map<_, _> =
            self.roles.iter().map(|(value, given)| (value.clone(), given.to_json())).collect();
        let mut json = json!({
            "url": self.url,
            "audience": self.audience,
            "algorithms": algorithms,
            "roles": {"claim": self.claim, "map": roles},
            "subject": self.subject,
            "leeway_s": self.leeway_s,
        });
        let optional = [
            ("jwks", self.jwks.clone().map(Json::from)),
            ("root", self.root.clone().map(Json::from)),
            ("max_age_s", self.max_age_s.map(Json::from)),
        ];
        if let Json::Object(members) = &mut json {
            members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        json
    }

    fn to_value(&self) -> Result<Value, SpecError> {
        Ok(to_value(self.to_json())?)
    }

    /// The one write that makes it count.
    ///
    /// # Errors
    /// [`SpecError::Name`], [`SpecError::TooLarge`].
    pub fn to_op(&self, name: &str) -> Result<Op, SpecError> {
        let field = mesh_proto::FieldName::new(FIELD).map_err(|_| SpecError::Name)?;
        Ok(Op::Set(object(name)?, field, self.to_value()?))
    }

    /// Of an object; `None` where it is not one that this version understands, which counts for nothing.
    pub(super) fn of(object: &ObjectView) -> Option<Self> {
        self::object(object.id.name()).ok()?;
        let field = object.fields.get(&mesh_proto::FieldName::new(FIELD).ok()?)?;
        Self::parse(from_value(&field.value)).ok()
    }

    /// What the keys that were fetched depend on: others than these do not count for it.
    pub(super) fn source(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [Some(&self.url), self.jwks.as_ref(), self.root.as_ref()] {
            let bytes = part.map(|text| text.as_bytes()).unwrap_or_default();
            hasher.update(&[u8::from(part.is_some())]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize()
    }
}

impl Given {
    fn to_json(&self) -> Json {
        if self.scope.is_whole() {
            return json!(self.role);
        }
        json!({"role": self.role, "scope": self.scope})
    }
}

/// The object of an issuer.
///
/// # Errors
/// [`SpecError::Name`].
pub fn object(name: &str) -> Result<ObjectId, SpecError> {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_part) {
        return Err(SpecError::Name);
    }
    ObjectId::new(&format!("{KIND}/{name}")).map_err(|_| SpecError::Name)
}

fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, SpecError> {
    let mut algorithms = names.iter().map(|name| name.parse()).collect::<Result<Vec<Algorithm>, ()>>();
    let known = algorithms.as_mut().map_err(|()| SpecError::Algorithms)?;
    known.sort_unstable();
    known.dedup();
    if known.is_empty() { Err(SpecError::Algorithms) } else { Ok(std::mem::take(known)) }
}

fn given(value: String, json: Json) -> Result<Given, SpecError> {
    if let Some(role) = json.as_str() {
        return Ok(Given { role: role_of(role, &value)?, scope: Scope::default() });
    }
    let (has_role, has_scope) = (json.get("role").is_some_and(Json::is_string), json.get("scope").is_some());
    let no_scope = |rule: String| SpecError::Scope(value.clone(), rule);
    let text: GivenText = serde_json::from_value(json)
        .map_err(|rule| if has_role { no_scope(rule.to_string()) } else { SpecError::Role(value.clone()) })?;
    let (role, scope) = (role_of(&text.role, &value)?, text.scope);
    scope.check().map_err(|rule| no_scope(rule.to_string()))?;
    // One that confines to nothing, or an admin who is confined and could take that back: neither is what somebody meant.
    if has_scope && (scope.is_whole() || role == Role::Admin) {
        let rule =
            "one of its lists `prefixes`, `areas` and `devices` has an entry, and an admin has no scope";
        return Err(no_scope(rule.to_owned()));
    }
    Ok(Given { role, scope })
}

/// A role for people and programs; no outside issuer speaks for a node.
fn role_of(text: &str, value: &str) -> Result<Role, SpecError> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let found = roles.into_iter().find(|role| role.as_str() == text);
    found.ok_or_else(|| SpecError::Role(value.to_owned()))
}

fn plain(field: &'static str, text: &str, most: usize) -> Result<(), SpecError> {
    if (1..=most).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(SpecError::Text(field, most))
}

/// Whether keys may be asked for there: nobody on the way can put in others.
pub(super) fn is_safe(url: &str) -> bool {
    parts(url).is_some_and(|(is_tls, host)| is_tls || is_loopback(&host))
}

/// Whether it is an address of this machine.
pub(super) fn is_here(url: &str) -> bool {
    parts(url).is_some_and(|(_, host)| is_loopback(&host))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether it is `https`, and its host.
fn parts(url: &str) -> Option<(bool, String)> {
    let uri: Uri =
        url.parse().ok().filter(|_| url.len() <= MAX_URL_BYTES && !url.contains(['?', '#', '@']))?;
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return None,
    };
    Some((is_tls, uri.host().filter(|host| !host.is_empty())?.to_owned()))
}
