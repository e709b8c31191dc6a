//! Tokens that say they come from an issuer which the household trusts (RFC 7519, RFC 8725).

use std::time::Duration;

use hearth_tests::{fakes::issuer::Issuer, python::peer};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::bench::{Bench, Problem, asked};

const STATUS: &str = "/api/v1/status";
/// A little less, for what lies between a fetch and its arrival.
const MINUTE: Duration = Duration::from_secs(59);

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
    flood(bench, &issuer, &made["flood"]).await;
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
        let reply = block_in_place(|| bench.exchange(&asked(&text, "GET", STATUS, None)));
        assert_eq!(reply.as_ref().map(|reply| reply.status), Some(401), "{name}: {reply:?}");
        bench.passed(name).await;
    }
}

/// Tokens under keys that nobody knows: each could make the node ask the issuer, and the issuer ask who does that.
async fn flood(bench: &mut Bench, issuer: &Issuer, tokens: &Value) {
    let before = issuer.fetches().len();
    for token in tokens.as_array().unwrap() {
        let reply = block_in_place(|| bench.exchange(&asked(token.as_str().unwrap(), "GET", STATUS, None)));
        assert_eq!(reply.as_ref().map(|reply| reply.status), Some(401), "{reply:?}");
        bench.good_is_served("a key that nobody knows").await;
    }
    // Of three fetches the last is a minute after the first; the one by which it was trusted counts.
    let fetched = issuer.fetches();
    let crowded = fetched.windows(3).find(|three| three[2].duration_since(three[0]) < MINUTE);
    assert!(crowded.is_none(), "{} fetches after {before}: {fetched:?}", fetched.len());
    bench.passed("sixty tokens under keys that nobody knows").await;
}
