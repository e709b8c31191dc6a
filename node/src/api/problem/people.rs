//! Why somebody was not let in, or not made.

use axum::http::StatusCode;

use super::Problem;
use crate::auth::{passwords::HashError, users::UserError};

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        let detail = error.to_string();
        let not_found = |fix| Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail.clone(), fix);
        let conflict = |slug, title, fix| Self::new(StatusCode::CONFLICT, slug, title, detail.clone(), fix);
        match error {
            UserError::Name => Self::invalid(detail, "choose a name like `ann` or `hall-tablet`"),
            UserError::Role => Self::invalid(detail, "give one of these roles; a program has a token"),
            UserError::Scope(_) => Self::invalid(detail, "shorten the scope, or give the role operator"),
            UserError::Password(_) => {
                let fix = "take several words that nobody would guess together";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "weak-password", "Another password", detail, fix)
            }
            UserError::Taken => conflict("name-taken", "Taken", "choose another name"),
            UserError::TooMany => conflict("too-many-users", "Too many users", "remove those who have gone"),
            UserError::NotFound => not_found("`hearth user list` shows the names"),
            UserError::NoSession => not_found("`hearth sessions` shows the ids"),
            UserError::LastAdmin => {
                let fix = "make another admin first, or do it on the board, by `hearth user`";
                conflict("last-admin", "The last admin", fix)
            }
            UserError::Wrong => {
                let fix = "try again; an admin sets a new password by `hearth user password NAME`";
                Self::new(StatusCode::UNAUTHORIZED, "wrong-password", "Not signed in", detail, fix)
            }
            UserError::Paced { retry_after_s } => {
                let fix = format!(
                    "wait {retry_after_s} s, or sign in from where you have signed in before; on the board \
                     `hearth` needs no password"
                );
                let title = "Too many wrong passwords";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", title, detail, fix)
                    .retry_after(retry_after_s)
            }
            UserError::Hash(HashError::Busy) => Self::overloaded(detail),
            UserError::Hash(HashError::NoRandomness) => Self::internal(),
            UserError::Service(error) => error.into(),
        }
    }
}
