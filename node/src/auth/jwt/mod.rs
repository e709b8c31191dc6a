//! JSON Web Tokens (RFC 7519) of issuers outside of the home: a household that signs in elsewhere brings its people along.
//!
//! An issuer is an object `issuer/NAME` in which admins say which of its tokens count here and as whom ([`spec`]). One task
//! owns the issuers and their keys, which it fetches; who checks a token goes by the last snapshot of
//! them, so that no signature holds up another. Nothing in a token is believed before its signature is known to be
//! its issuer's, by an algorithm that the admin listed *and* that the key is for; see RFC 8725 for what else can go wrong.

mod claims;
mod fetch;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod issuers;
mod keys;
mod owner;
pub mod spec;
#[cfg(test)]
mod tests;
mod token;

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

pub use self::{
    issuers::{IssuersHandle, PutError},
    keys::{Algorithm, Keys},
    owner::{Issuers, IssuersParts},
    spec::{Spec, SpecError},
    token::is_jwt,
};
use self::{keys::NoMatch, token::Token};
use super::{Scope, tokens::Role};

/// Why a token opens nothing. No text repeats any of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than any that is taken.
    #[error("the token has more than {} bytes", token::MAX_BYTES)]
    TooLong,
    /// Not three parts.
    #[error("the token is no signed token in the compact form (RFC 7515): three parts with dots between")]
    Parts,
    /// A token that nobody here could read.
    #[error("the token is encrypted; signed ones alone are taken")]
    Encrypted,
    /// A token in a token.
    #[error("the token has a content type (`cty`): tokens within tokens are not taken")]
    Nested,
    /// A part in another spelling.
    #[error("the {0} of the token is not base64url without padding")]
    Base64(&'static str),
    /// A part that is no JSON object.
    #[error("the {0} of the token is no JSON object that is taken")]
    Json(&'static str),
    /// A member that stands twice.
    #[error("in the {0} of the token a member stands twice")]
    Twice(&'static str),
    /// A header that is missing or malformed.
    #[error("`{0}` in the header of the token is missing, or no text")]
    Header(&'static str),
    /// Another sort of token.
    #[error("`typ` in the header of the token is neither JWT nor at+jwt")]
    Type,
    /// An extension that must be understood.
    #[error("the header of the token has `crit`: no extension is understood here")]
    Critical,
    /// An algorithm that the admin did not list: `none`, one with a shared secret, or just another.
    #[error("`alg` in the header of the token is not one that this household accepts of its issuer")]
    Algorithm,
    /// Nobody whom this household trusts.
    #[error("`iss` in the token is no issuer that this household trusts")]
    Issuer,
    /// A key that the issuer has not published.
    #[error("`kid` in the header of the token is no key that its issuer has published")]
    UnknownKey,
    /// No key is named, and there are several.
    #[error(
        "the header of the token has no `kid`, and its issuer has several keys that could have signed it"
    )]
    NoKeyNamed,
    /// A key that is for something else.
    #[error("`alg` in the header of the token does not fit the key that `kid` names")]
    WrongKey,
    /// Somebody else's signature, or another content.
    #[error("the signature of the token is not its issuer's")]
    Signature,
    /// A claim that has to be there.
    #[error("`{0}` is missing in the token")]
    Missing(&'static str),
    /// A claim of another type.
    #[error("`{0}` in the token has the wrong type")]
    Malformed(&'static str),
    /// For somebody else.
    #[error("`aud` in the token does not name this household")]
    Audience,
    /// Over.
    #[error("`exp` in the token is past: it has expired")]
    Expired,
    /// Not yet.
    #[error("`nbf` in the token is still to come")]
    NotYet,
    /// Made tomorrow.
    #[error("`iat` in the token is still to come")]
    Future,
    /// Made too long ago.
    #[error("`iat` in the token is longer ago than this household accepts of its issuer")]
    TooOld,
    /// Nobody is named, or not in one word.
    #[error(
        "the claim of the token that is to name somebody is missing, or is not one word of at most 255 bytes"
    )]
    Subject,
    /// Known, and nobody here.
    #[error("none of what the token says of its bearer gives a role in this household")]
    NoRole,
    /// The keys of the issuer have never been had.
    #[error("the keys of the issuer of the token could not be fetched yet")]
    NoKeys,
    /// The time is not known.
    #[error("this node does not know the time, by which tokens of issuers count")]
    Clock,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// An issuer and its keys, as of now.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What an admin said.
    pub spec: Arc<Spec>,
    /// What it published last, if that was ever had.
    pub keys: Option<Arc<Keys>>,
    /// When that was, in milliseconds since 1970.
    pub fetched_ms: Option<u64>,
    /// Why they cannot be fetched; none after an attempt that went well, and before the first.
    pub error: Option<Unfetched>,
}

/// Why the keys of an issuer cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfetched {
    /// When the first attempt failed since one went well, in milliseconds since 1970.
    pub since_ms: u64,
    /// What the last one failed by.
    pub why: String,
}

/// The issuers by name.
pub type Known = BTreeMap<String, Issuer>;

/// Whom an issuer vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The issuer's name here.
    pub issuer: String,
    /// Whom it speaks of.
    pub subject: String,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// How long that counts.
    pub term: Term,
}

/// For how long a token counts: up to its end, and while the household says the same of its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The issuer's name here.
    pub issuer: String,
    /// What was said of it.
    pub spec: Arc<Spec>,
    /// In seconds since 1970.
    pub until_s: i64,
}

/// What a token would be, for an admin who wonders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Whom it lets in, or why nobody.
    pub outcome: Result<Vouched, Refused>,
    /// What the claim that gives roles holds, where the signature was good.
    pub found: Vec<String>,
}

/// Whom a token lets in at this time, in seconds since 1970.
fn verify(known: &Known, text: &str, now_s: i64) -> Result<Vouched, Refused> {
    let token = Token::parse(text)?;
    let (name, issuer) = issuer_of(known, &token)?;
    judge(name, issuer, &token, now_s)
}

fn issuer_of<'a>(known: &'a Known, token: &Token<'_>) -> Result<(&'a String, &'a Issuer), Refused> {
    let url = token.claims.get("iss").ok_or(Refused::Missing("iss"))?;
    known.iter().find(|(_, issuer)| *url == *issuer.spec.url).ok_or(Refused::Issuer)
}

fn judge(name: &str, issuer: &Issuer, token: &Token<'_>, now_s: i64) -> Result<Vouched, Refused> {
    is_signed(issuer, token)?;
    let Issuer { spec, .. } = issuer;
    let said = claims::check(spec, &token.claims, now_s)?;
    let spec::Given { role, scope } = claims::role(spec, &token.claims)?;
    let term = Term { issuer: name.to_owned(), spec: Arc::clone(spec), until_s: said.until_s };
    Ok(Vouched { issuer: name.to_owned(), subject: said.subject, role, scope, term })
}

fn is_signed(issuer: &Issuer, token: &Token<'_>) -> Result<(), Refused> {
    let listed = token.algorithm.filter(|algorithm| issuer.spec.algorithms.contains(algorithm));
    let algorithm = listed.ok_or(Refused::Algorithm)?;
    let keys = issuer.keys.as_ref().ok_or(Refused::NoKeys)?;
    keys.verify(token.key.as_deref(), algorithm, token.message, &token.signature).map_err(|no| match no {
        NoMatch::Unknown => Refused::UnknownKey,
        NoMatch::Unnamed => Refused::NoKeyNamed,
        NoMatch::Unfit => Refused::WrongKey,
        NoMatch::Forged => Refused::Signature,
    })
}

/// The issuer whose keys may have changed, where that is why a token was refused.
fn outdated<'a>(known: &'a Known, text: &str, refused: &Refused) -> Option<&'a String> {
    if !matches!(refused, Refused::UnknownKey | Refused::NoKeys) {
        return None;
    }
    let token = Token::parse(text).ok()?;
    issuer_of(known, &token).ok().map(|(name, _)| name)
}
