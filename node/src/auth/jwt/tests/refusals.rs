//! What is let in, and every refusal, by real signatures.

use proptest::prelude::*;

use super::*;

/// With these claims changed, or left out where null.
fn changed(changes: &Json) -> Json {
    let mut claims = claims(URL, NOW);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Json::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn header(algorithm: &str) -> Json {
    json!({"alg": algorithm, "typ": "JWT", "kid": "k"})
}

#[test]
fn every_algorithm_lets_in_what_its_own_key_signed_and_nothing_else() {
    for algorithm in Algorithm::ALL {
        let pair = match algorithm {
            Algorithm::Es256 => Pair::p256(),
            Algorithm::Es384 => Pair::p384(),
            Algorithm::EdDsa => Pair::ed25519(),
            _ => Pair::rsa(),
        };
        let known = household(setting(URL), &[pair.jwk("k")]);
        let token = pair.token(algorithm, &header(algorithm.as_str()), &claims(URL, NOW));
        let vouched = verify(&known, &token, NOW).unwrap();
        assert_eq!((&*vouched.issuer, &*vouched.subject, vouched.role), ("sso", "ann", Role::Admin));
        assert!(vouched.scope.is_whole());
        assert_eq!(vouched.term.until_s, NOW + 360, "the end and the leeway");
        // Each other algorithm, said of the same signature.
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let token = pair.token(algorithm, &header(other.as_str()), &claims(URL, NOW));
            let refused = verify(&known, &token, NOW).unwrap_err();
            assert!(
                matches!(refused, Refused::Signature | Refused::WrongKey),
                "{algorithm} as {other}: {refused}"
            );
        }
        // One byte of the claims, one of the signature.
        let forged = token.replace(
            &base64(claims(URL, NOW).to_string()),
            &base64(changed(&json!({"sub": "bob"})).to_string()),
        );
        assert_eq!(verify(&known, &forged, NOW), Err(Refused::Signature), "{algorithm}");
        let end = token.len() - 8;
        let flipped = if &token[end..=end] == "A" { "B" } else { "A" };
        let broken = format!("{}{flipped}{}", &token[..end], &token[end + 1..]);
        assert_eq!(verify(&known, &broken, NOW), Err(Refused::Signature), "{algorithm}");
    }
}

#[test]
fn what_is_no_token_is_refused_by_name_before_any_key_is_looked_at() {
    let part = |text: &str| base64(text);
    let (head, body) = (part(r#"{"alg":"ES256"}"#), part("{}"));
    let with = |header: &str| format!("{}.{body}.AA", part(header));
    for (text, refused) in [
        (format!("{head}.{body}.{}", "A".repeat(9_000)), Refused::TooLong),
        (format!("{head}.{body}"), Refused::Parts),
        (format!("{head}.{body}.AA.AA"), Refused::Parts),
        (format!("{head}.AA.AA.AA.AA"), Refused::Encrypted),
        (with(r#"{"alg":"dir","enc":"A256GCM"}"#), Refused::Encrypted),
        (with(r#"{"alg":"ES256","cty":"JWT"}"#), Refused::Nested),
        (with(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#), Refused::Critical),
        (with(r#"{"alg":"ES256","typ":"dpop+jwt"}"#), Refused::Type),
        (with(r#"{"alg":"ES256","typ":1}"#), Refused::Type),
        (with("{}"), Refused::Header("alg")),
        (with(r#"{"alg":["ES256"]}"#), Refused::Header("alg")),
        (with(r#"{"alg":"ES256","kid":7}"#), Refused::Header("kid")),
        (with(r#"{"alg":"none","alg":"ES256"}"#), Refused::Twice("header")),
        (format!("{head}.{}.AA", part(r#"{"a":{"exp":1,"exp":2}}"#)), Refused::Twice("claims")),
        (with("[]"), Refused::Json("header")),
        (format!("{head}.{}.AA", part("{\"exp\":")), Refused::Json("claims")),
        (format!("{head}.{}.AA", part(&"[".repeat(40))), Refused::Json("claims")),
        (format!("{head}=.{body}.AA"), Refused::Base64("header")),
        (format!("{head}.{body}.AB"), Refused::Base64("signature")),
        (format!("{head}.{body}.+/"), Refused::Base64("signature")),
        (format!("{head}.{body}.AA"), Refused::Missing("iss")),
    ] {
        assert_eq!(verify(&Known::new(), &text, NOW), Err(refused), "{:.60}", text);
    }
}

#[test]
fn no_trick_with_the_algorithm_or_the_key_opens_anything() {
    let (rsa, curve) = (Pair::rsa(), Pair::p256());
    let jwks = [rsa.jwk("rsa"), curve.jwk("ec")];
    let known = household(setting(URL), &jwks);
    let claims = claims(URL, NOW);
    let named = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    for alg in ["none", "None", "HS256", "HS512", "ES256K", "EdDSA2", "dir", ""] {
        let unsigned = format!("{}.", message(&named(alg, "rsa"), &claims));
        assert_eq!(verify(&known, &unsigned, NOW), Err(Refused::Algorithm), "{alg}");
    }
    // The public key as a shared secret, in each form in which libraries were handed it.
    let public = jwks[0].to_string();
    for secret in [public.as_bytes(), public.as_bytes().get(..64).unwrap(), b""] {
        let token = with_secret(&named("HS256", "rsa"), &claims, secret);
        assert_eq!(verify(&known, &token, NOW), Err(Refused::Algorithm));
        let token = with_secret(&named("RS256", "rsa"), &claims, secret);
        assert_eq!(verify(&known, &token, NOW), Err(Refused::Signature));
    }
    let token = curve.token(Algorithm::Es256, &named("ES256", "rsa"), &claims);
    assert_eq!(verify(&known, &token, NOW), Err(Refused::WrongKey));
    // Keys that the token brings along.
    let mut header = named("ES256", "ec");
    let own = Pair::p256();
    for (name, value) in [
        ("jwk", own.jwk("ec")),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/x5u")),
        ("x5c", json!(["AAAA"])),
    ] {
        header[name] = value;
    }
    assert_eq!(verify(&known, &own.token(Algorithm::Es256, &header, &claims), NOW), Err(Refused::Signature));
    assert!(
        verify(&known, &curve.token(Algorithm::Es256, &header, &claims), NOW).is_ok(),
        "they are ignored"
    );
    // Good signatures that the admin did not list.
    let mut narrow = setting(URL);
    narrow["algorithms"] = json!(["RS256"]);
    let narrow = household(narrow, &jwks);
    for (pair, algorithm, kid) in [(&rsa, Algorithm::Rs512, "rsa"), (&curve, Algorithm::Es256, "ec")] {
        let token = pair.token(algorithm, &named(algorithm.as_str(), kid), &claims);
        assert!(verify(&known, &token, NOW).is_ok());
        assert_eq!(verify(&narrow, &token, NOW), Err(Refused::Algorithm));
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    let pair = Pair::p256();
    let mut strict = setting(URL);
    strict["max_age_s"] = json!(600);
    let known = household(strict, &[pair.jwk("k")]);
    let token = |changes: &Json| pair.token(Algorithm::Es256, &header("ES256"), &changed(changes));
    for (changes, refused) in [
        (json!({"iss": null}), Refused::Missing("iss")),
        (json!({"iss": format!("{URL}/")}), Refused::Issuer),
        (json!({"iss": URL.to_uppercase()}), Refused::Issuer),
        (json!({"iss": [URL]}), Refused::Issuer),
        (json!({"aud": null}), Refused::Missing("aud")),
        (json!({"aud": "Hearth"}), Refused::Audience),
        (json!({"aud": ["other", "heart"]}), Refused::Audience),
        (json!({"aud": []}), Refused::Audience),
        (json!({"aud": {"hearth": true}}), Refused::Malformed("aud")),
        (json!({"aud": ["hearth", 1]}), Refused::Malformed("aud")),
        (json!({"exp": null}), Refused::Missing("exp")),
        (json!({"exp": "1900000000"}), Refused::Malformed("exp")),
        (json!({"exp": NOW - 60}), Refused::Expired),
        (json!({"exp": -1}), Refused::Expired),
        (json!({"exp": (NOW - 60) as f64 + 0.9}), Refused::Expired),
        (json!({"nbf": NOW + 61}), Refused::NotYet),
        (json!({"nbf": true}), Refused::Malformed("nbf")),
        (json!({"iat": NOW + 61}), Refused::Future),
        (json!({"iat": null}), Refused::Missing("iat")),
        (json!({"iat": NOW - 660}), Refused::TooOld),
        (json!({"sub": null}), Refused::Subject),
        (json!({"sub": ""}), Refused::Subject),
        (json!({"sub": 7}), Refused::Subject),
        (json!({"sub": "ann root"}), Refused::Subject),
        (json!({"sub": "ann\nroot"}), Refused::Subject),
        (json!({"sub": "a".repeat(256)}), Refused::Subject),
        (json!({"groups": null}), Refused::NoRole),
        (json!({"groups": ["Parents", "parents "]}), Refused::NoRole),
        (json!({"groups": {"parents": true}}), Refused::NoRole),
    ] {
        let answer = verify(&known, &token(&changes), NOW);
        assert_eq!(answer, Err(refused.clone()), "{changes}");
        let text = refused.to_string();
        assert!(!text.contains("ann") && !text.contains(URL), "{text}");
    }
    for changes in [
        json!({}),
        json!({"exp": NOW - 59}),
        json!({"exp": 1e300}),
        json!({"nbf": NOW + 60, "iat": NOW + 60}),
        json!({"aud": ["other", "home"]}),
        json!({"groups": "kids"}),
    ] {
        verify(&known, &token(&changes), NOW).unwrap_or_else(|refused| panic!("{changes}: {refused}"));
    }
    let vouched = verify(&known, &token(&json!({"exp": i64::MAX})), NOW).unwrap();
    assert_eq!(vouched.term.until_s, NOW + 660, "by its age");
}

#[test]
fn keys_that_are_for_something_else_or_malformed_are_left_out() {
    let (rsa, curve, edwards) = (Pair::rsa().jwk("k"), Pair::p256().jwk("k"), Pair::ed25519().jwk("k"));
    let with = |key: &Json, name: &str, value: Json| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let count = |key: &Json| Keys::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap().count();
    for key in [&rsa, &curve, &edwards, &with(&rsa, "use", json!("sig")), &with(&rsa, "alg", json!("PS512"))]
    {
        assert_eq!(count(key), 1, "{key}");
    }
    let small = base64([[0xff; 127].as_slice(), &[1]].concat());
    let huge = base64([[0xff; 1_024].as_slice(), &[1]].concat());
    for key in [
        with(&rsa, "use", json!("enc")),
        with(&rsa, "use", json!(7)),
        with(&rsa, "key_ops", json!(["sign"])),
        with(&rsa, "alg", json!("ES256")),
        with(&rsa, "alg", json!("HS256")),
        with(&rsa, "alg", json!("RSA-OAEP")),
        with(&rsa, "kid", json!(1)),
        with(&rsa, "n", json!(small)),
        with(&rsa, "n", json!(huge)),
        with(&rsa, "n", json!(base64([0xfe; 256]))),
        with(&rsa, "e", json!("AQ")),
        with(&rsa, "e", json!("AA")),
        with(&rsa, "e", json!("")),
        with(&rsa, "n", json!("!")),
        with(&curve, "crv", json!("P-384")),
        with(&curve, "crv", json!("secp256k1")),
        with(&curve, "y", curve["x"].clone()),
        with(&curve, "x", json!(base64([0; 33]))),
        with(&edwards, "x", json!(base64([1; 31]))),
        with(&edwards, "crv", json!("X25519")),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}),
        json!("key"),
    ] {
        assert_eq!(count(&key), 0, "{key}");
    }
    assert_eq!(
        Keys::parse(json!({"keys": vec![rsa; 65]}).to_string().as_bytes()),
        Err(keys::KeysError::TooMany(65))
    );
    for bad in ["[]", "{}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}", "<html>", ""] {
        assert_eq!(Keys::parse(bad.as_bytes()), Err(keys::KeysError::Shape), "{bad}");
    }
}

#[test]
fn the_right_key_is_found_by_its_id_its_use_or_by_being_alone() {
    let (one, two, rsa) = (Pair::p256(), Pair::p256(), Pair::rsa());
    let claims = claims(URL, NOW);
    let unnamed = json!({"alg": "ES256"});
    let alone = household(setting(URL), &[one.jwk("a"), rsa.jwk("b")]);
    assert!(verify(&alone, &one.token(Algorithm::Es256, &unnamed, &claims), NOW).is_ok());
    let several = household(setting(URL), &[one.jwk("a"), two.jwk("b")]);
    let token = one.token(Algorithm::Es256, &unnamed, &claims);
    assert_eq!(verify(&several, &token, NOW), Err(Refused::NoKeyNamed));
    let token = one.token(Algorithm::Es256, &json!({"alg": "ES256", "kid": "c"}), &claims);
    assert_eq!(verify(&several, &token, NOW), Err(Refused::UnknownKey));
    // Two of one id: of two sorts, or of one.
    let twins = household(setting(URL), &[one.jwk("k"), two.jwk("k"), rsa.jwk("k")]);
    for (pair, algorithm) in [(&one, Algorithm::Es256), (&two, Algorithm::Es256), (&rsa, Algorithm::Rs256)] {
        assert!(verify(&twins, &pair.token(algorithm, &header(algorithm.as_str()), &claims), NOW).is_ok());
    }
    let stranger = Pair::p256().token(Algorithm::Es256, &header("ES256"), &claims);
    assert_eq!(verify(&twins, &stranger, NOW), Err(Refused::Signature));
    let mut only = rsa.jwk("k");
    only["alg"] = json!("RS256");
    let only = household(setting(URL), &[only]);
    let token = rsa.token(Algorithm::Ps256, &header("PS256"), &claims);
    assert_eq!(verify(&only, &token, NOW), Err(Refused::WrongKey));
}

proptest! {
    #[test]
    fn any_text_is_refused_by_name(text in "\\PC{0,200}", parts in proptest::collection::vec(any::<Vec<u8>>(), 0..6)) {
        let encoded = parts.iter().map(base64).collect::<Vec<_>>().join(".");
        for text in [text, encoded] {
            prop_assert!(verify(&Known::new(), &text, NOW).is_err());
        }
    }

    /// Of a good token every other byte anywhere is refused.
    #[test]
    fn a_token_with_one_byte_changed_is_none(at in any::<proptest::sample::Index>(), byte in 0x21_u8..0x7f) {
        let pair = Pair::p256();
        let known = household(setting(URL), &[pair.jwk("k")]);
        let token = pair.token(Algorithm::Es256, &header("ES256"), &claims(URL, NOW));
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(verify(&known, &changed, NOW).is_ok(), changed == token);
    }
}
