//! A token as it comes (RFC 7519 in the compact serialisation of RFC 7515), taken apart and not yet believed.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value as Json};

use super::{Refused, keys::Algorithm};
use crate::json::{self, JsonError};

/// Longest token, in bytes.
pub(super) const MAX_BYTES: usize = 8 * 1024;
/// How the error of a member that stands twice begins.
const TWICE: &str = "a member stands twice";

/// Whether a bearer's secret is a token of an outside issuer rather than one of ours: it has parts.
pub fn is_jwt(text: &str) -> bool {
    !text.starts_with(crate::auth::tokens::PREFIX) && text.bytes().filter(|byte| *byte == b'.').count() >= 2
}

/// A token whose signature nobody has looked at.
pub(super) struct Token<'a> {
    /// What it says it is signed by, if that is anything we know.
    pub(super) algorithm: Option<Algorithm>,
    /// The id of the key.
    pub(super) key: Option<String>,
    pub(super) claims: Map<String, Json>,
    /// What is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes it apart. Keys that it brings along, or says where to find (`jwk`, `jku`, `x5c`, `x5u`), are never looked at.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > MAX_BYTES {
            return Err(Refused::TooLong);
        }
        let parts: Vec<_> = text.split('.').collect();
        let [header, claims, signature] = match *parts.as_slice() {
            [header, claims, signature] => [header, claims, signature],
            [_, _, _, _, _] => return Err(Refused::Encrypted),
            _ => return Err(Refused::Parts),
        };
        let message = text.as_bytes().get(..header.len() + 1 + claims.len()).ok_or(Refused::Parts)?;
        let (algorithm, key) = read_header(&members(header, "header")?)?;
        let signature = decode(signature, "signature")?;
        Ok(Self { algorithm, key, claims: members(claims, "claims")?, message, signature })
    }
}

fn read_header(header: &Map<String, Json>) -> Result<(Option<Algorithm>, Option<String>), Refused> {
    if header.contains_key("enc") {
        return Err(Refused::Encrypted);
    }
    if header.contains_key("crit") {
        return Err(Refused::Critical);
    }
    if header.contains_key("cty") {
        return Err(Refused::Nested);
    }
    let is_type = |typ: &Json| {
        let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
        ["jwt", "at+jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    };
    if !header.get("typ").is_none_or(is_type) {
        return Err(Refused::Type);
    }
    let algorithm = header.get("alg").and_then(Json::as_str).ok_or(Refused::Header("alg"))?;
    let key = match header.get("kid") {
        Some(key) => Some(key.as_str().ok_or(Refused::Header("kid"))?.to_owned()),
        None => None,
    };
    Ok((algorithm.parse().ok(), key))
}

/// Without padding and without bits that mean nothing, so that a token has one spelling only.
fn decode(part: &str, what: &'static str) -> Result<Vec<u8>, Refused> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refused::Base64(what))
}

fn members(part: &str, what: &'static str) -> Result<Map<String, Json>, Refused> {
    match parse_strictly(&decode(part, what)?) {
        Ok(Json::Object(members)) => Ok(members),
        Err(JsonError::Shape(error)) if error.starts_with(TWICE) => Err(Refused::Twice(what)),
        _ => Err(Refused::Json(what)),
    }
}

/// JSON in which no member stands twice: of two, one reader may see the first and another the last.
pub(super) fn parse_strictly(bytes: &[u8]) -> Result<Json, JsonError> {
    json::parse::<Strict>(bytes).map(|strict| strict.0)
}

struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(member))) = from.next_entry::<String, Strict>()? {
            if members.insert(name, member).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Json::Object(members))
    }
}
