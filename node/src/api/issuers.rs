//! Outside issuers: what the household says of each, and what a token of one would be.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    extract::{Body, Named},
    json::timestamp,
    problem::Problem,
    tokens::shown_scope,
};
use crate::auth::{
    Secret,
    jwt::{Issuer, PutError, Refused, Spec, SpecError},
};

type Context = State<Arc<ApiContext>>;

pub(super) async fn list(State(context): Context) -> Result<Json<Value>, Problem> {
    let known = context.issuers.known().await?;
    let shown: Vec<_> = known.iter().map(|(name, issuer)| show(name, issuer)).collect();
    Ok(Json(json!({ "issuers": shown })))
}

pub(super) async fn read(State(context): Context, Named(name): Named) -> Result<Json<Value>, Problem> {
    one(&context, &name).await
}

/// Answered after the first attempt to fetch its keys, so that an admin sees at once whether it worked.
pub(super) async fn put(
    State(context): Context,
    Named(name): Named,
    Body(body): Body<Value>,
) -> Result<Json<Value>, Problem> {
    let spec = Spec::parse(body).map_err(PutError::from)?;
    context.issuers.put(name.clone(), spec).await?;
    context.issuers.fetch(name.clone()).await;
    one(&context, &name).await
}

pub(super) async fn remove(State(context): Context, Named(name): Named) -> Result<StatusCode, Problem> {
    context.issuers.remove(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestBody {
    token: Secret,
}

pub(super) async fn test(
    State(context): Context,
    Named(name): Named,
    Body(body): Body<TestBody>,
) -> Result<Json<Value>, Problem> {
    let trial = context.issuers.try_out(&name, &body.token).await.ok_or_else(unknown)?;
    Ok(Json(match trial.outcome {
        Ok(vouched) => json!({
            "accepted": true,
            "subject": vouched.subject,
            "role": vouched.role,
            "scope": shown_scope(&vouched.scope),
            "until": timestamp(u64::try_from(vouched.term.until_s).unwrap_or(0).saturating_mul(1_000)),
            "found": trial.found,
        }),
        Err(refused) => {
            json!({ "accepted": false, "problem": Problem::from(refused).to_json(), "found": trial.found })
        }
    }))
}

async fn one(context: &ApiContext, name: &str) -> Result<Json<Value>, Problem> {
    let known = context.issuers.known().await?;
    known.get(name).map(|issuer| Json(show(name, issuer))).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::not_found("issuer of that name", "`hearth issuer list` shows the names")
}

/// What was said of it, and how its keys are.
fn show(name: &str, issuer: &Issuer) -> Value {
    let mut shown = issuer.spec.to_json();
    if let Value::Object(members) = &mut shown {
        let state = [
            ("name", json!(name)),
            ("keys", json!(issuer.keys.as_ref().map(|keys| keys.count()))),
            ("fetched", json!(issuer.fetched_ms.map(timestamp))),
            ("error", json!(issuer.error.as_ref().map(|error| &error.why))),
            ("failing_since", json!(issuer.error.as_ref().map(|error| timestamp(error.since_ms)))),
        ];
        members.extend(state.map(|(name, value)| (name.to_owned(), value)));
    }
    shown
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        let detail = error.to_string();
        match error {
            PutError::Spec(SpecError::Shape(_)) => {
                Self::invalid(detail, "docs/security.md shows what is said of an issuer")
            }
            PutError::Spec(_) => Self::invalid(detail, "correct the member that `detail` names"),
            PutError::NotFound => unknown(),
            PutError::TooMany => {
                let fix = "remove one that nobody uses: `hearth issuer list`, `hearth issuer remove NAME`";
                Self::new(StatusCode::CONFLICT, "too-many-issuers", "Too many issuers", detail, fix)
            }
            PutError::Taken(_) => {
                let fix = "change that one, or remove it first";
                Self::new(StatusCode::CONFLICT, "issuer-taken", "The issuer is known already", detail, fix)
            }
            PutError::Service(error) => error.into(),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        let unavailable = |slug, title, fix| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail.clone(), fix).retry_after(30)
        };
        match refused {
            Refused::Stopping => Self::stopping(),
            Refused::Clock => {
                unavailable("no-time", "The time is not known", "wait, or say it with `hearth time set`")
            }
            Refused::NoKeys => {
                let fix = "try again; an admin sees why with `hearth issuer show NAME`";
                unavailable("issuer-unreachable", "The issuer cannot be asked", fix)
            }
            Refused::NoRole => {
                let fix = "an admin sees what it says with `hearth issuer test NAME`, and maps it to a role";
                Self::new(StatusCode::FORBIDDEN, "no-role", "No role here", detail, fix)
            }
            _ => Self::new(
                StatusCode::UNAUTHORIZED,
                "token-refused",
                "The token is not accepted",
                detail,
                "sign in anew at the issuer; an admin tries tokens with `hearth issuer test NAME`",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_told_apart_is_asked_to_come_again_and_who_has_no_role_is_not() {
        for (refused, status) in [
            (Refused::Expired, 401),
            (Refused::Signature, 401),
            (Refused::NoRole, 403),
            (Refused::NoKeys, 503),
            (Refused::Clock, 503),
            (Refused::Stopping, 503),
        ] {
            assert_eq!(Problem::from(refused).status().as_u16(), status);
        }
    }
}
