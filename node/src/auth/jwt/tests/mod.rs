#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod owner;
mod properties;
mod refusals;
mod setting;

use data_encoding::BASE64URL_NOPAD;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents},
};
use serde_json::{Value as Json, json};

use super::{spec::Spec, *};

/// A key made for these tests; it opens nothing anywhere.
const RSA: &[u8] = include_bytes!("rsa.pk8");
pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const URL: &str = "https://sso.example.org/realms/home";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// What an issuer signs with.
pub(super) enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Pair {
    pub(super) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(RSA).unwrap()))
    }

    pub(super) fn p256() -> Self {
        Self::P256(ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    pub(super) fn p384() -> Self {
        Self::P384(ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    pub(super) fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(super) fn jwk(&self, id: &str) -> Json {
        let point = |curve: &str, key: &EcdsaKeyPair| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y), "kid": id})
        };
        match self {
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64(n), "e": base64(e), "kid": id})
            }
            Self::P256(key) => point("P-256", key),
            Self::P384(key) => point("P-384", key),
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key()), "kid": id})
            }
        }
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header; `alg` is what it is signed by.
    pub(super) fn token(&self, algorithm: Algorithm, header: &Json, claims: &Json) -> String {
        let message = message(header, claims);
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", base64(signature))
    }
}

fn ecdsa(algorithm: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap()
}

fn message(header: &Json, claims: &Json) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

/// The same with a shared secret: what nobody here takes.
fn with_secret(header: &Json, claims: &Json, secret: &[u8]) -> String {
    let message = message(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", base64(tag))
}

pub(super) fn setting(url: &str) -> Json {
    json!({
        "url": url,
        "audience": ["hearth", "home"],
        "algorithms": Algorithm::ALL.map(Algorithm::as_str),
        "roles": {"claim": "groups", "map": {"parents": "admin", "kids": "viewer",
            "guests": {"role": "operator", "scope": {"areas": ["guest room"]}}}},
    })
}

pub(super) fn claims(url: &str, now_s: i64) -> Json {
    json!({"iss": url, "aud": "hearth", "sub": "ann", "groups": ["parents"], "exp": now_s + 300, "iat": now_s})
}

/// A household that trusts one issuer with these keys.
fn household(setting: Json, jwks: &[Json]) -> Known {
    let keys = Keys::parse(json!({"keys": jwks}).to_string().as_bytes()).unwrap();
    let (spec, keys) = (Arc::new(Spec::parse(setting).unwrap()), Some(Arc::new(keys)));
    Known::from([("sso".to_owned(), Issuer { spec, keys, fetched_ms: None, error: None })])
}
