//! For the fuzz target, and for the properties of the tests: a token of whoever comes, and the keys that an issuer publishes.

use std::sync::LazyLock;

use serde_json::json;

use super::{
    Spec, claims, is_jwt,
    keys::{Algorithm, Keys, MAX_KEYS},
    token::{MAX_BYTES, Token},
};

/// What an admin says of an issuer.
static SPEC: LazyLock<Option<Spec>> = LazyLock::new(|| {
    let spec = json!({
        "url": "https://sso.example.org", "audience": "hearth", "algorithms": ["RS256", "ES256", "EdDSA"], "max_age_s": 600,
        "roles": {"claim": "realm.groups", "map": {"parents": "admin", "guests": {"role": "viewer", "scope": {"areas": ["hall"]}}}},
    });
    Spec::parse(spec).ok()
});

/// A token, and behind an empty line a set of keys.
///
/// # Panics
/// When what is read breaks a rule, or a key vouches for what nobody signed.
pub fn run(data: &[u8]) {
    let at = data.windows(2).position(|two| two == b"\n\n");
    let (text, set) = at.and_then(|at| data.split_at_checked(at)).unwrap_or((data, data));
    let keys = Keys::parse(set.trim_ascii());
    if let Ok(keys) = &keys {
        assert!(keys.count() <= MAX_KEYS);
    }
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(token) = Token::parse(text) else { return };
    assert!(text.len() <= MAX_BYTES && token.message.len() + token.signature.len() < text.len());
    assert!(is_jwt(text) || text.starts_with(crate::auth::tokens::PREFIX));
    for algorithm in keys.iter().flat_map(|_| Algorithm::ALL) {
        let vouched = keys.as_ref().is_ok_and(|keys| {
            keys.verify(token.key.as_deref(), algorithm, token.message, &token.signature).is_ok()
        });
        // Signed by a key of its own, it may be; a key that is known vouches for what it signed alone.
        assert!(!vouched || !token.signature.is_empty());
    }
    if let Some(spec) = &*SPEC {
        let now = 1_800_000_000;
        if let Ok(said) = claims::check(spec, &token.claims, now) {
            assert!(said.until_s > now && !said.subject.is_empty());
        }
        if let Ok(given) = claims::role(spec, &token.claims) {
            assert!(spec.roles.values().any(|known| known.role == given.role));
        }
    }
}
