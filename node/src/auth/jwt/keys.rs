//! The keys of an issuer (RFC 7517, RFC 7518, RFC 8037) and the signatures that they make.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use ring::{
    agreement,
    rand::SystemRandom,
    signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey},
};
use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::token::parse_strictly;

/// Keys that an issuer has at most; a set of more is not taken.
pub(super) const MAX_KEYS: usize = 64;
/// Keys of one id that are tried.
const MAX_TRIED: usize = 4;
/// Sizes of RSA keys that are taken, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// Longest exponent of RSA, in bytes: the library takes 33 bits.
const MAX_EXPONENT_BYTES: usize = 5;

/// How a token is signed: the asymmetric ones of RFC 7518 and RFC 8037. There is no `none` and none with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Its name in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Their names, for people.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(())
    }
}

/// Why a set of keys is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// Not what RFC 7517 describes.
    #[error("what it has for its keys is no JWK set (RFC 7517): a JSON object with a list `keys`")]
    Shape,
    /// Too many.
    #[error("it has {0} keys, {MAX_KEYS} are taken at most")]
    TooMany(usize),
}

/// Why no key says yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMatch {
    /// No key of that id, or none at all that could have signed.
    Unknown,
    /// The token names no key, and several could have signed (OpenID Connect Core, section 10.1).
    Unnamed,
    /// A key of that id is there, and is not for that algorithm.
    Unfit,
    /// The signature is of none of them.
    Forged,
}

/// What a key is made of; checked when it was read.
#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A public key that may sign tokens.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it says it is for.
    only: Option<Algorithm>,
    material: Material,
}

/// The keys of an issuer, as it published them last.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.keys.len())
    }
}

impl Keys {
    /// Reads a JWK set. Keys that are not for signatures, of a sort or size that is not taken, or malformed are left out:
    /// issuers publish more than they sign with.
    ///
    /// # Errors
    /// [`KeysError`] for what is no such set.
    pub fn parse(document: &[u8]) -> Result<Self, KeysError> {
        let set = parse_strictly(document).map_err(|_| KeysError::Shape)?;
        let listed = set.get("keys").and_then(Json::as_array).ok_or(KeysError::Shape)?;
        if listed.len() > MAX_KEYS {
            return Err(KeysError::TooMany(listed.len()));
        }
        Ok(Self { keys: listed.iter().filter_map(|key| key.as_object().and_then(key_of)).collect() })
    }

    /// How many of them may sign.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of them made this signature.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NoMatch> {
        let named: Vec<_> =
            self.keys.iter().filter(|key| id.is_none_or(|id| key.id.as_deref() == Some(id))).collect();
        // Two keys of one id are told apart by what they are for; else each of them is tried.
        let fit: Vec<_> = named.iter().filter(|key| key.is_for(algorithm)).take(MAX_TRIED).collect();
        match (id, fit.len()) {
            (Some(_), 0) if !named.is_empty() => Err(NoMatch::Unfit),
            (_, 0) => Err(NoMatch::Unknown),
            (None, 2..) => Err(NoMatch::Unnamed),
            _ if fit.iter().any(|key| key.material.made(algorithm, message, signature)) => Ok(()),
            _ => Err(NoMatch::Forged),
        }
    }
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.only.is_none_or(|only| only == algorithm) && self.material.fits(algorithm)
    }
}

impl Material {
    fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.rsa().is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    /// Whether it made the signature, by an algorithm that fits it.
    fn made(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let checked = match self {
            Self::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                algorithm.rsa().map(|parameters| key.verify(parameters, message, signature))
            }
            Self::P256(point) => Some(
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            ),
            Self::P384(point) => Some(
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, signature),
            ),
            Self::Ed25519(key) => {
                Some(UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature))
            }
        };
        checked.is_some_and(|outcome| outcome.is_ok())
    }
}

/// A key that may sign tokens, if it is one. Whatever else it says of where to find it (`x5u`, `x5c`) is nothing to us.
fn key_of(jwk: &Map<String, Json>) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Json::as_str);
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        operations.as_array()?.iter().find(|operation| *operation == "verify")?;
    }
    let material = material_of(text("kty")?, text("crv"), &|name| decode(text(name)?))?;
    let only = match jwk.get("alg") {
        Some(algorithm) => Some(algorithm.as_str()?.parse().ok()?),
        None => None,
    };
    if only.is_some_and(|only| !material.fits(only)) {
        return None;
    }
    let id = match jwk.get("kid") {
        Some(id) => Some(id.as_str()?.to_owned()),
        None => None,
    };
    Some(Key { id, only, material })
}

fn material_of(
    sort: &str,
    curve: Option<&str>,
    member: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Option<Material> {
    Some(match (sort, curve) {
        ("RSA", _) => {
            let (modulus, exponent) = (shortest(member("n")?), shortest(member("e")?));
            let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
            let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
            let is_exponent = exponent.len() <= MAX_EXPONENT_BYTES && is_odd(&exponent) && exponent != [1];
            if !RSA_BITS.contains(&bits) || !is_odd(&modulus) || !is_exponent {
                return None;
            }
            Material::Rsa { modulus, exponent }
        }
        ("EC", Some("P-256")) => Material::P256(point(32, &agreement::ECDH_P256, member)?),
        ("EC", Some("P-384")) => Material::P384(point(48, &agreement::ECDH_P384, member)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(member("x").filter(|key| key.len() == 32)?),
        _ => return None,
    })
}

/// An uncompressed point of the curve (SEC 1, section 2.3.3), if it is on it: the library says so when it is to agree on a
/// secret with that point.
fn point(
    bytes: usize,
    curve: &'static agreement::Algorithm,
    member: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let (x, y) = (member("x")?, member("y")?);
    if x.len() != bytes || y.len() != bytes {
        return None;
    }
    let point = [&[4], &*x, &*y].concat();
    let own = agreement::EphemeralPrivateKey::generate(curve, &SystemRandom::new()).ok()?;
    agreement::agree_ephemeral(own, &agreement::UnparsedPublicKey::new(curve, &point), |_| ()).ok()?;
    Some(point)
}

/// Without zeros before it, which some issuers write.
fn shortest(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.into_iter().skip(zeros).collect()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
}
