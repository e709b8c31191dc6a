//! `token`, `setup-code`, `doctor`.

use hyper::Method;
use serde_json::{Value, json};

use super::args::{TokenCommand, TokenRole};
use super::client::{garbled, segment};
use super::exit::{Exit, Failure};
use super::model::{Check, read_list};
use super::output::Done;
use super::{Session, show};

impl Session {
    pub(super) async fn token(&self, command: &TokenCommand) -> Done<Exit> {
        match command {
            TokenCommand::Create { role, label } => {
                let role = match role {
                    TokenRole::Viewer => "viewer",
                    TokenRole::Operator => "operator",
                    TokenRole::Admin => "admin",
                };
                let mut body = json!({"role": role});
                if let (Some(label), Some(body)) = (label, body.as_object_mut()) {
                    body.insert("label".into(), json!(label));
                }
                let answer = self.client.call(Method::POST, "/api/v1/tokens", Some(&body)).await?;
                let token = text(&answer, "token")?;
                self.out.note(format!("token {} ({role}); it is shown this once:", text(&answer, "id")?));
                self.out.either(&answer, || token)?;
            }
            TokenCommand::List => {
                let answer = self.client.get("/api/v1/tokens").await?;
                let tokens: Vec<Value> = read_list(&answer, "tokens")?;
                self.out.either(&answer, || {
                    show::rows(
                        &tokens,
                        ["ID", "ROLE", "LABEL", "CREATED"],
                        ["id", "role", "label", "created"],
                    )
                })?;
            }
            TokenCommand::Revoke { id } => {
                self.client.call(Method::DELETE, &format!("/api/v1/tokens/{}", segment(id)), None).await?;
                return self.done(json!({"id": id, "revoked": true}), format!("token {id} is void"));
            }
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn setup_code(&self, new: bool) -> Done<Exit> {
        let method = if new { Method::POST } else { Method::GET };
        let answer = self.client.call(method, "/api/v1/setup-code", None).await?;
        if answer.get("code").is_some_and(Value::is_null) {
            return Err(no_code(&answer).into());
        }
        let code = text(&answer, "code")?;
        self.out.either(&answer, || code)?;
        Ok(Exit::Ok)
    }

    pub(super) async fn doctor(&self) -> Done<Exit> {
        let answer = self.client.get("/api/v1/doctor").await?;
        let checks: Vec<Check> = read_list(&answer, "checks")?;
        self.out.either(&answer, || show::checks(&checks, self.out.colour))?;
        let failed = checks.iter().any(|check| check.status == "fail");
        Ok(if failed { Exit::Failure } else { Exit::Ok })
    }
}

/// Why there is no code to show, by the names that the API has for it when somebody tries one.
fn no_code(answer: &Value) -> Failure {
    let (kind, detail) = if answer.get("locked").and_then(Value::as_bool) == Some(true) {
        ("setup-code-locked", "the setup code is locked after wrong tries")
    } else {
        ("setup-code-used", "the setup code was used")
    };
    let fix = "make another: hearth setup-code --new";
    let problem = json!({"type": format!("urn:hearth:problem:{kind}"), "detail": detail, "fix": fix});
    Failure { problem: Some(Box::new(problem)), ..Failure::new(Exit::NotFound, detail, fix) }
}

fn text(answer: &Value, member: &str) -> Result<String, Failure> {
    let found = answer.get(member).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| garbled(format!("its answer has no `{member}`")))
}
