//! Tokens that say they come from an issuer which the household trusts (RFC 7519, RFC 8725).

use hearth_tests::{fakes::issuer::Issuer, python::peer};
use serde_json::json;

use super::bench::{Bench, Problem, asked};

const STATUS: &str = "/api/v1/status";

pub(crate) async fn attack(bench: &mut Bench) {
    let issuer = Issuer::start().await.unwrap();
    let made = peer("issuer.py", &[&issuer.url(), "hearth"]).await.unwrap();
    issuer.publish(Some(&made["keys"]["old"]));
    let trusted = json!({
        "url": issuer.url(),
        "audience": "hearth",
        "algorithms": ["RS256", "ES256"],
        "roles": {"claim": "groups", "map": {"kids": "viewer"}},
    });
    let answer = bench.node.client().send("PUT", "/api/v1/issuers/sso", Some(&trusted)).await.unwrap();
    answer.success().unwrap();
    let token = |name: &str| made["tokens"][name].as_str().unwrap().to_owned();
    let good = bench.node.web(Some(&token("viewer"))).await.unwrap();
    assert_eq!(good.get(STATUS).await.unwrap().status, 200, "what the attacks differ from");
    for (name, kind) in [
        ("an algorithm `none`", "none"),
        ("the issuer's public key as a secret", "confused"),
        ("an algorithm that this issuer does not use", "pss"),
        ("a token for somebody else", "audience"),
        ("a token of another issuer", "issuer"),
        ("a token that has ended", "expired"),
        ("a token that has not begun", "early"),
        ("a token without an end", "unending"),
        ("a token that somebody changed", "forged"),
        ("a token under a key that nobody published", "new"),
    ] {
        bench.http(name, &asked(&token(kind), "GET", STATUS, None), Problem(401, "token-refused")).await;
    }
    let stranger = asked(&token("nobody"), "GET", STATUS, None);
    bench.http("a stranger for whom the issuer vouches", &stranger, Problem(403, "no-role")).await;
    let above = asked(&token("viewer"), "POST", "/api/v1/tokens", Some(&json!({"role": "admin"})));
    bench.http("a token made by a viewer from outside", &above, Problem(403, "forbidden")).await;
    let signed = token("viewer");
    let parts: Vec<&str> = signed.split('.').collect();
    for (name, text) in [
        ("a token of two parts", format!("{}.{}", parts[0], parts[1])),
        ("a token of five parts", format!("{signed}.x.y")),
        ("a token without its signature", format!("{}.{}.", parts[0], parts[1])),
        ("a token of sixteen kilobytes", format!("{}.{}.{}", parts[0], parts[1], "A".repeat(16 * 1024))),
        ("a token that is no base64", format!("{}.{}=.{}", parts[0], parts[1], parts[2])),
    ] {
        let reply = tokio::task::block_in_place(|| bench.exchange(&asked(&text, "GET", STATUS, None)));
        assert_eq!(reply.as_ref().map(|reply| reply.status), Some(401), "{name}: {reply:?}");
        bench.passed(name).await;
    }
}
