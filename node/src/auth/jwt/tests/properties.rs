//! Whatever comes as a token or as keys is read or refused.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Map;

use super::{super::fuzzing, *};

/// JSON as strangers write it: any sort of value at any place.
fn anything() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "[A-Za-z0-9_-]{0,50}".prop_map(Json::from),
        prop_oneof![
            "RSA", "EC", "OKP", "P-256", "P-384", "Ed25519", "sig", "verify", "RS256", "ES256", "hearth",
            "parents"
        ]
        .prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(Json::from), members(inner).prop_map(Json::from)]
    })
}

fn members(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Map<String, Json>> {
    let name = prop_oneof![
        "alg", "kid", "typ", "crit", "enc", "cty", "aud", "exp", "iat", "nbf", "sub", "realm", "groups",
        "scope", "kty", "crv", "use", "key_ops", "n", "e", "x", "y", "keys",
    ];
    vec((name, value), 0..9).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn whatever_an_issuer_or_a_bearer_writes_is_read_or_refused(
        header in members(anything()),
        claims in members(anything()),
        keys in vec(members(anything()), 0..4),
        signature in vec(any::<u8>(), 0..100),
    ) {
        let token = format!("{}.{}", message(&Json::from(header), &Json::from(claims)), base64(signature));
        fuzzing::run(format!("{token}\n\n{}", json!({"keys": keys})).as_bytes());
    }

    #[test]
    fn a_good_token_and_good_keys_that_were_damaged_are_read_or_refused(
        wounds in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let pair = Pair::ed25519();
            let token = pair.token(Algorithm::EdDsa, &json!({"alg": "EdDSA", "kid": "k"}), &claims("https://sso.example.org", 1_800_000_000));
            format!("{token}\n\n{}", json!({"keys": [pair.jwk("k")]})).into_bytes()
        });
        let mut bytes = GOOD.clone();
        for (at, byte) in wounds {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzzing::run(&bytes);
    }

    #[test]
    fn what_is_written_into_a_token_is_read_from_it(kid in "[ -~]{0,20}", subject in "\\PC{0,20}", signature in vec(any::<u8>(), 0..64)) {
        let (header, claims) = (json!({"alg": "ES256", "kid": kid}), json!({"sub": subject}));
        let text = format!("{}.{}", message(&header, &claims), base64(&signature));
        let token = Token::parse(&text).unwrap();
        prop_assert_eq!((token.algorithm, token.key), (Some(Algorithm::Es256), Some(kid)));
        prop_assert_eq!((Json::from(token.claims), token.signature), (claims, signature));
    }
}
