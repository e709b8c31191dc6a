//! What a token says, once it is known that its issuer says so (RFC 7519, section 4.1).

use serde_json::{Map, Value as Json};

use super::{
    Refused,
    spec::{Given, Spec},
};
use crate::auth::Scope;

/// Longest subject, in bytes (OpenID Connect Core, section 2).
const MAX_SUBJECT_BYTES: usize = 255;
/// Claims whose text is a list of words (RFC 8693, section 4.2).
const WORDS: [&str; 2] = ["scope", "scp"];

/// Whom a token speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) subject: String,
    /// Until when it counts, in seconds since 1970.
    pub(super) until_s: i64,
}

/// Whom it speaks of, if it is for this home and counts now, in seconds since 1970.
pub(super) fn check(spec: &Spec, claims: &Map<String, Json>, now_s: i64) -> Result<Said, Refused> {
    let leeway = i64::from(spec.leeway_s);
    is_for_us(spec, claims)?;
    let expires = time(claims, "exp")?.ok_or(Refused::Missing("exp"))?.saturating_add(leeway);
    let issued = time(claims, "iat")?;
    if now_s >= expires {
        return Err(Refused::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|begins| begins > now_s.saturating_add(leeway)) {
        return Err(Refused::NotYet);
    }
    if issued.is_some_and(|issued| issued > now_s.saturating_add(leeway)) {
        return Err(Refused::Future);
    }
    let until_s = match spec.max_age_s {
        None => expires,
        Some(age) => {
            let issued = issued.ok_or(Refused::Missing("iat"))?;
            let until = issued.saturating_add(i64::from(age)).saturating_add(leeway);
            if now_s >= until {
                return Err(Refused::TooOld);
            }
            expires.min(until)
        }
    };
    Ok(Said { subject: subject(spec, claims)?, until_s })
}

/// `aud` is a text or a list of texts; one of ours has to be in it.
fn is_for_us(spec: &Spec, claims: &Map<String, Json>) -> Result<(), Refused> {
    let is_ours = |text: &str| spec.audience.iter().any(|audience| audience == text);
    let found = match claims.get("aud").ok_or(Refused::Missing("aud"))? {
        Json::String(one) => is_ours(one),
        Json::Array(many) => {
            let texts = many.iter().map(Json::as_str).collect::<Option<Vec<_>>>();
            texts.ok_or(Refused::Malformed("aud"))?.into_iter().any(is_ours)
        }
        _ => return Err(Refused::Malformed("aud")),
    };
    if found { Ok(()) } else { Err(Refused::Audience) }
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction, which is left out.
fn time(claims: &Map<String, Json>, name: &'static str) -> Result<Option<i64>, Refused> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let whole = claim.as_i64();
    // Beyond the range of whole numbers it saturates.
    let seconds = whole.or_else(|| claim.as_f64().map(|seconds| seconds.floor() as i64));
    seconds.map(Some).ok_or(Refused::Malformed(name))
}

/// One word for logs and the audit trail: no blanks, no control characters.
fn subject(spec: &Spec, claims: &Map<String, Json>) -> Result<String, Refused> {
    let subject = at(claims, &spec.subject).and_then(Json::as_str).ok_or(Refused::Subject)?;
    let is_bad = |c: char| c.is_control() || c.is_whitespace();
    if !(1..=MAX_SUBJECT_BYTES).contains(&subject.len()) || subject.chars().any(is_bad) {
        return Err(Refused::Subject);
    }
    Ok(subject.to_owned())
}

/// What the claim of the issuer holds, as texts.
pub(super) fn values<'a>(spec: &Spec, claims: &'a Map<String, Json>) -> Vec<&'a str> {
    match at(claims, &spec.claim) {
        Some(Json::String(words)) if WORDS.contains(&&*spec.claim) => words.split(' ').collect(),
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The highest role that one of the values gives; of several parts of the home for that role, all of them.
pub(super) fn role(spec: &Spec, claims: &Map<String, Json>) -> Result<Given, Refused> {
    let given: Vec<_> = values(spec, claims).into_iter().filter_map(|value| spec.roles.get(value)).collect();
    let role = given.iter().map(|given| given.role).max().ok_or(Refused::NoRole)?;
    let scopes: Vec<_> =
        given.into_iter().filter(|given| given.role == role).map(|given| &given.scope).collect();
    let mut scope = Scope::default();
    if !scopes.iter().any(|scope| scope.is_whole()) {
        for one in scopes {
            scope.prefixes.extend(one.prefixes.iter().cloned());
            scope.areas.extend(one.areas.iter().cloned());
            scope.devices.extend(one.devices.iter().cloned());
        }
        for list in [&mut scope.prefixes, &mut scope.areas, &mut scope.devices] {
            list.sort_unstable();
            list.dedup();
        }
    }
    Ok(Given { role, scope })
}

/// A claim by its name, which may be an address with dots, or else by the path of its members.
fn at<'a>(claims: &'a Map<String, Json>, path: &str) -> Option<&'a Json> {
    if let Some(claim) = claims.get(path) {
        return Some(claim);
    }
    let mut steps = path.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |json, step| json.get(step))
}
