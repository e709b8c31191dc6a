//! What an admin says of an issuer, and what its claims then give.

use super::{spec::object, *};
use crate::auth::jwt::claims::role;

fn given(setting: &Json, claims: Json) -> Result<(Role, Scope), Refused> {
    let spec = Spec::parse(setting.clone()).unwrap();
    let given = role(&spec, claims.as_object().unwrap())?;
    Ok((given.role, given.scope))
}

#[test]
fn the_highest_role_counts_with_all_the_parts_that_it_is_given_for() {
    let mut said = setting(URL);
    said["roles"]["map"]["garden"] =
        json!({"role": "operator", "scope": {"areas": ["garden"], "devices": ["lifx-1"]}});
    let all = Scope::default();
    assert_eq!(given(&said, json!({"groups": ["kids", "x", "parents"]})), Ok((Role::Admin, all.clone())));
    assert_eq!(given(&said, json!({"groups": "kids"})), Ok((Role::Viewer, all)));
    let areas = vec!["garden".to_owned(), "guest room".to_owned()];
    let parts = Scope { areas, devices: vec!["lifx-1".to_owned()], ..Scope::default() };
    assert_eq!(given(&said, json!({"groups": ["kids", "guests", "garden"]})), Ok((Role::Operator, parts)));
    assert_eq!(given(&said, json!({"groups": [1, null]})), Err(Refused::NoRole));
    said["roles"] = json!({"claim": "realm_access.roles", "map": {"a": "viewer"}});
    assert!(given(&said, json!({"realm_access": {"roles": ["a"]}})).is_ok());
    assert!(given(&said, json!({"realm_access.roles": ["a"]})).is_ok());
    assert!(given(&said, json!({"realm_access": ["roles", "a"]})).is_err());
    said["roles"]["claim"] = json!("https://example.org/roles");
    assert!(given(&said, json!({"https://example.org/roles": ["a"]})).is_ok());
    said["roles"]["claim"] = json!("scope");
    assert!(given(&said, json!({"scope": "openid a"})).is_ok(), "a list of words");
    said["roles"]["claim"] = json!("name");
    assert!(given(&said, json!({"name": "openid a"})).is_err(), "one text");
}

#[test]
fn what_was_said_reads_back_as_it_was_said() {
    let mut said = setting(URL);
    said["jwks"] = json!("http://127.0.0.1:8080/jwks");
    said["max_age_s"] = json!(3_600);
    let spec = Spec::parse(said.clone()).unwrap();
    assert_eq!(Spec::parse(spec.to_json()).unwrap(), spec);
    said["audience"] = json!("hearth");
    said["leeway_s"] = json!(0);
    let other = Spec::parse(said).unwrap();
    assert_ne!(other, spec);
    assert_eq!(other.source(), spec.source(), "its keys stay");
    let elsewhere = Spec { jwks: None, ..other.clone() };
    assert_ne!(elsewhere.source(), other.source());
    assert_eq!((other.audience, other.leeway_s, &*other.subject), (vec!["hearth".to_owned()], 0, "sub"));
}

#[test]
fn what_is_said_wrongly_is_refused_with_its_member() {
    let cases = [
        ("url", json!(""), "`url`"),
        ("url", json!("http://sso.example.org"), "`url`"),
        ("url", json!("accounts.example.org"), "`url`"),
        ("url", json!("https://ann:secret@sso.example.org"), "`url`"),
        ("jwks", json!("http://sso.example.org/jwks"), "`jwks`"),
        ("jwks", json!("https://sso.example.org/jwks?x=1"), "`jwks`"),
        ("jwks", json!("file:///etc/passwd"), "`jwks`"),
        ("audience", json!([]), "`audience`"),
        ("audience", json!([""]), "`audience`"),
        ("audience", json!(vec!["a"; 9]), "`audience`"),
        ("audience", json!(7), "OneOrMany"),
        ("algorithms", json!([]), "RS256"),
        ("algorithms", json!(["none"]), "never none"),
        ("algorithms", json!(["RS256", "HS256"]), "shared secret"),
        ("algorithms", json!(["rs256"]), "RS256"),
        ("roles", json!({"claim": "groups", "map": {}}), "`groups`"),
        ("roles", json!({"claim": "groups", "map": {"a": "root"}}), "`a`"),
        ("roles", json!({"claim": "groups", "map": {"a": "node"}}), "`a`"),
        ("roles", json!({"claim": "groups", "map": {"a": {"scope": {}}}}), "`a`"),
        (
            "roles",
            json!({"claim": "groups", "map": {"a": {"role": "viewer", "scope": {"rooms": []}}}}),
            "`a`",
        ),
        ("roles", json!({"claim": "groups", "map": {"a": {"role": "viewer", "scope": {}}}}), "`a`"),
        (
            "roles",
            json!({"claim": "groups", "map": {"a": {"role": "admin", "scope": {"areas": ["x"]}}}}),
            "`a`",
        ),
        (
            "roles",
            json!({"claim": "groups", "map": {"a": {"role": "viewer", "scope": {"prefixes": ["note"]}}}}),
            "`note` is no prefix",
        ),
        ("roles", json!({"claim": "", "map": {"a": "viewer"}}), "`roles.claim`"),
        ("subject", json!("a\nb"), "`subject`"),
        ("root", json!("-----BEGIN"), "`root`"),
        ("leeway_s", json!(121), "`leeway_s`"),
        ("max_age_s", json!(59), "`max_age_s`"),
        ("extra", json!(1), "extra"),
        ("audience", json!((0..8).map(|n| format!("{n}").repeat(250)).collect::<Vec<_>>()), ""),
    ];
    for (member, value, part) in cases {
        let mut said = setting(URL);
        said[member] = value.clone();
        let error = match Spec::parse(said) {
            Err(error) => error.to_string(),
            // Long, and still what a field holds.
            Ok(_) if part.is_empty() => continue,
            Ok(_) => panic!("{member}: {value} is taken"),
        };
        assert!(error.contains(part), "{member}: {value}: {error}");
    }
    let mut large = setting(URL);
    large["roles"]["map"] = (0..32).map(|n| (format!("{n:0>200}"), json!("viewer"))).collect();
    assert_eq!(Spec::parse(large), Err(SpecError::TooLarge));
    for name in ["", "SSO", "a b", "a/b", "..", "a.b", &"a".repeat(33)] {
        assert_eq!(object(name), Err(SpecError::Name), "{name}");
    }
}
