//! An issuer outside of the home, whose tokens somebody else's library makes: roles, every trick, keys that change, an issuer
//! that is down, and one that is trusted no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use hearth_tests::{
    daemon::{Client, Daemon, Launch, PATIENCE, Plan, wait_until},
    fakes::issuer::Issuer,
    python::peer,
};
use serde_json::{Value, json};

const AUDIENCE: &str = "hearth";
/// A little less, for what lies between a fetch and its arrival.
const MINUTE: Duration = Duration::from_secs(59);

/// A node that knows the time, and an issuer with its keys and tokens.
struct Home {
    node: Daemon,
    issuer: Issuer,
    made: Value,
}

impl Home {
    async fn start() -> Self {
        let issuer = Issuer::start().await.unwrap();
        let made = peer("issuer.py", &[&issuer.url(), AUDIENCE]).await.unwrap();
        issuer.publish(Some(&made["keys"]["old"]));
        let launch = Launch::new().variable("HEARTH_CLOCK", "trusted").with(&["--log", "debug,node=trace"]);
        let node = Plan::new("kitchen").launch(launch).start().await.unwrap();
        Self { node, issuer, made }
    }

    /// Trusts it by the command line.
    async fn trust(&self) -> Value {
        let file = json!({
            "url": self.issuer.url(),
            "audience": AUDIENCE,
            "algorithms": ["RS256", "PS256", "ES256", "EdDSA"],
            "roles": {"claim": "groups", "map": {"parents": "admin", "kids": "viewer",
                "guests": {"role": "operator", "scope": {"areas": ["guest room"]}}}},
        });
        let args = ["issuer", "add", "sso", "--file", "-", "--json"];
        self.node.cli_with(&args, file.to_string().as_bytes()).await.unwrap().ok().unwrap().json().unwrap()
    }

    fn token(&self, name: &str) -> &str {
        self.made["tokens"][name].as_str().unwrap()
    }

    async fn client(&self, token: &str) -> Client {
        self.node.web(Some(token)).await.unwrap()
    }

    /// The status with which a token is answered when it asks for something that viewers may read.
    async fn status(&self, name: &str) -> u16 {
        self.client(self.token(name)).await.get("/api/v1/status").await.unwrap().status
    }
}

#[tokio::test]
async fn an_issuer_lets_in_whom_it_vouches_for_and_no_trick_does() {
    let home = Home::start().await;
    assert_eq!(home.status("admin").await, 401, "nobody is trusted yet");
    let shown = home.trust().await;
    assert_eq!((&shown["keys"], &shown["error"]), (&json!(2), &Value::Null), "{shown}");
    for name in ["admin", "pss", "edwards", "viewer"] {
        assert_eq!(home.status(name).await, 200, "{name}");
    }
    let write = json!({"set": {"text": "milk"}});
    for (name, expected) in [("admin", 200), ("viewer", 403)] {
        let client = home.client(home.token(name)).await;
        let answer = client.send("PATCH", "/api/v1/objects/note/shopping", Some(&write)).await.unwrap();
        assert_eq!(answer.status, expected, "{name}: {answer:?}");
    }
    let hidden = home.client(home.token("viewer")).await.get("/api/v1/objects/issuer/sso").await.unwrap();
    assert_eq!(hidden.status, 404);
    for (name, problem, word) in [
        ("nobody", "no-role", "role"),
        ("none", "token-refused", "`alg`"),
        ("confused", "token-refused", "`alg`"),
        ("audience", "token-refused", "`aud`"),
        ("issuer", "token-refused", "`iss`"),
        ("expired", "token-refused", "`exp`"),
        ("early", "token-refused", "`nbf`"),
        ("unending", "token-refused", "`exp`"),
        ("forged", "token-refused", "signature"),
        ("new", "token-refused", "`kid`"),
    ] {
        let answer = home.client(home.token(name)).await.get("/api/v1/status").await.unwrap();
        assert_eq!(answer.problem().unwrap(), problem, "{name}");
        assert!(answer.json().unwrap()["detail"].as_str().unwrap().contains(word), "{name}: {answer:?}");
        let parts: Vec<&str> = home.token(name).split('.').filter(|part| part.len() > 8).collect();
        assert!(parts.iter().all(|part| !answer.body.contains(part)), "{name} is echoed");
    }
    // The command line says the same, and the log has none of it.
    let test = async |name: &str| {
        home.node.cli_with(&["issuer", "test", "sso", "--json"], home.token(name).as_bytes()).await.unwrap()
    };
    let confined = test("confined").await.ok().unwrap().json().unwrap();
    assert_eq!((&confined["subject"], &confined["role"]), (&json!("eve"), &json!("operator")));
    assert_eq!(confined["scope"], json!({"areas": ["guest room"], "devices": [], "prefixes": []}));
    let nobody = test("nobody").await;
    assert_eq!((nobody.code, &nobody.json().unwrap()["found"]), (6, &json!(["strangers"])));
    let log = home.node.log();
    for (name, token) in home.made["tokens"].as_object().unwrap() {
        let signature = token.as_str().unwrap().rsplit('.').next().unwrap();
        assert!(signature.is_empty() || !log.contains(signature), "{name} is in the log");
    }
}

#[tokio::test]
async fn keys_are_kept_when_the_issuer_is_down_and_fetched_twice_a_minute_at_most_whatever_comes() {
    let mut home = Home::start().await;
    home.trust().await;
    assert_eq!(home.issuer.fetches().len(), 1);
    // A key that is new is fetched when somebody shows it.
    home.issuer.publish(Some(&home.made["keys"]["new"]));
    assert_eq!(home.status("new").await, 200);
    assert_eq!(home.issuer.fetches().len(), 2);
    let flood = home.made["flood"].as_array().unwrap();
    for token in flood {
        let answer = home.client(token.as_str().unwrap()).await.get("/api/v1/status").await.unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(home.status("admin").await, 200, "beside the flood");
    }
    // Whatever the flood took: of three fetches the last is a minute after the first.
    let fetched = home.issuer.fetches();
    let crowded = fetched.windows(3).find(|three| three[2].duration_since(three[0]) < MINUTE);
    assert!(crowded.is_none(), "{} unknown keys made fetches at {fetched:?}", flood.len());
    home.issuer.publish(None);
    for _ in 0..2 {
        for name in ["admin", "new", "viewer"] {
            assert_eq!(home.status(name).await, 200, "{name}");
        }
        // And after a restart, from what it kept.
        home.node.stop().await.unwrap();
        home.node.start().await.unwrap();
    }
    let failed = wait_until("its failure is told", PATIENCE, async || {
        let shown = home.node.json(&["issuer", "show", "sso"]).await?;
        Ok(shown["error"].is_string() && shown["failing_since"].is_string())
    });
    failed.await.unwrap();
    let doctor = home.node.cli(&["doctor"]).await.unwrap().text();
    assert!(doctor.contains("issuer sso") && doctor.contains("cannot be fetched since"), "{doctor}");
    assert!(doctor.contains("hearth issuer add sso"), "{doctor}");
    let metrics = home.node.client().get("/metrics").await.unwrap().body;
    assert!(metrics.contains("\nhearth_issuers{keys=\"kept\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("\nhearth_issuer_fetch_failures_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn who_came_in_by_an_issuer_is_out_when_it_is_trusted_no_more() {
    let home = Home::start().await;
    home.trust().await;
    let mut observer = home.client(home.token("viewer")).await.watch().await.unwrap();
    observer.subscribe(&["note/"], None).await.unwrap();
    home.node.cli(&["issuer", "remove", "sso"]).await.unwrap().ok().unwrap();
    let ended = observer.next().await.unwrap_err().to_string();
    assert!(ended.contains("4401"), "{ended}");
    assert_eq!(home.status("admin").await, 401);
    let issuers = home.node.json(&["issuer", "list"]).await.unwrap();
    assert_eq!(issuers, json!({"issuers": []}));
    assert!(!home.node.state_dir().join("issuers/sso").exists());
}
