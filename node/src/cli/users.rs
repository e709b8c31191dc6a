//! `hearth user`, `hearth sessions`.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _, stderr, stdin};

use hyper::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::args::{PasswordArgs, ScopeArgs, UserCommand, UserRole};
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::read_list;
use super::output::{Done, printable};
use super::{Session, show};
use crate::auth::Secret;

/// Longest line that is read for a password.
const MAX_LINE_BYTES: u64 = 1_024;

impl Session {
    pub(super) async fn user(&self, command: &UserCommand) -> Done<Exit> {
        match command {
            UserCommand::Add { name, role, scope, password } => {
                let password = read_password(name, password)?;
                let body = json!({
                    "name": name, "role": role_name(*role), "scope": scope_body(scope), "password": password.expose(),
                });
                let answer = self.client.call(Method::POST, "/api/v1/users", Some(&body)).await?;
                self.done(answer, format!("{name} can sign in on every board"))
            }
            UserCommand::List => {
                let answer = self.client.get("/api/v1/users").await?;
                let users: Vec<Value> = read_list(&answer, "users")?;
                self.out.either(&answer, || user_table(&users))?;
                Ok(Exit::Ok)
            }
            UserCommand::Show { name } => self.show_user(name).await,
            UserCommand::SetRole { name, role, scope } => {
                let body = json!({ "role": role_name(*role), "scope": scope_body(scope) });
                self.change_user(
                    name,
                    &body,
                    &format!("{name} is {} now, and signed out everywhere", role_name(*role)),
                )
                .await
            }
            UserCommand::Password { name, password } => {
                let body = json!({ "password": read_password(name, password)?.expose() });
                self.change_user(
                    name,
                    &body,
                    &format!("{name} has another password, and is signed out everywhere"),
                )
                .await
            }
            UserCommand::Disable { name } => {
                self.change_user(
                    name,
                    &json!({ "enabled": false }),
                    &format!("{name} cannot sign in any more"),
                )
                .await
            }
            UserCommand::Enable { name } => {
                self.change_user(name, &json!({ "enabled": true }), &format!("{name} can sign in again"))
                    .await
            }
            UserCommand::Remove { name } => {
                self.client.call(Method::DELETE, &path(name), None).await?;
                self.done(json!({ "name": name, "removed": true }), format!("{name} is removed"))
            }
            UserCommand::SignOut { name, session } => self.sign_out(name, session.as_deref()).await,
        }
    }

    async fn change_user(&self, name: &str, body: &Value, note: &str) -> Done<Exit> {
        let answer = self.client.call(Method::PATCH, &path(name), Some(body)).await?;
        self.done(answer, note.to_owned())
    }

    async fn show_user(&self, name: &str) -> Done<Exit> {
        let mut user = self.client.get(&path(name)).await?;
        let answer = self.client.get(&format!("/api/v1/sessions?user={}", segment(name))).await?;
        let sessions: Vec<Value> = read_list(&answer, "sessions")?;
        let table = user_table(std::slice::from_ref(&user));
        if let Some(user) = user.as_object_mut() {
            user.insert("sessions".into(), json!(sessions));
        }
        self.out.either(&user, || match sessions.is_empty() {
            true => table,
            false => format!("{table}\n\n{}", session_table(&sessions)),
        })?;
        Ok(Exit::Ok)
    }

    async fn sign_out(&self, name: &str, session: Option<&str>) -> Done<Exit> {
        let Some(session) = session else {
            let path = format!("/api/v1/sessions?user={}", segment(name));
            self.client.call(Method::DELETE, &path, None).await?;
            return self.done(
                json!({ "name": name, "signed_out": true }),
                format!("{name} is signed out everywhere"),
            );
        };
        let answer = self.client.get(&format!("/api/v1/sessions?user={}", segment(name))).await?;
        let sessions: Vec<Value> = read_list(&answer, "sessions")?;
        if !sessions.iter().any(|known| known.get("id").and_then(Value::as_str) == Some(session)) {
            let detail = format!("{name} has no session {session}");
            return Err(Failure::new(Exit::NotFound, detail, "see: hearth sessions").into());
        }
        self.client.call(Method::DELETE, &format!("/api/v1/sessions/{}", segment(session)), None).await?;
        let document = json!({ "name": name, "session": session, "signed_out": true });
        self.done(document, format!("the session {session} of {name} is over"))
    }

    pub(super) async fn sessions(&self, user: Option<&str>) -> Done<Exit> {
        let query = user.map(|user| format!("?user={}", segment(user))).unwrap_or_default();
        let answer = self.client.get(&format!("/api/v1/sessions{query}")).await?;
        let sessions: Vec<Value> = read_list(&answer, "sessions")?;
        self.out.either(&answer, || session_table(&sessions))?;
        Ok(Exit::Ok)
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/users/{}", segment(name))
}

fn role_name(role: UserRole) -> &'static str {
    match role {
        UserRole::Viewer => "viewer",
        UserRole::Operator => "operator",
        UserRole::Admin => "admin",
    }
}

fn scope_body(scope: &ScopeArgs) -> Value {
    json!({ "areas": scope.area, "devices": scope.device, "prefixes": scope.prefix })
}

fn user_table(users: &[Value]) -> String {
    let shown: Vec<Value> = users.iter().cloned().map(with_words).collect();
    show::rows(
        &shown,
        ["NAME", "ROLE", "WHERE", "STATE", "SESSIONS", "CREATED"],
        ["name", "role", "where", "state", "sessions", "created"],
    )
}

/// The scope and the state of a user in words.
fn with_words(mut user: Value) -> Value {
    let all = |list: &str| {
        user.get("scope").and_then(|scope| scope.get(list)?.as_array()).cloned().unwrap_or_default()
    };
    let named = ["areas", "devices", "prefixes"].into_iter().flat_map(all);
    let named: Vec<String> = named.filter_map(|one| one.as_str().map(printable)).collect();
    let place = if named.is_empty() { "all of the home".to_owned() } else { named.join("+") };
    let is_enabled = user.get("enabled").and_then(Value::as_bool) == Some(true);
    if let Some(user) = user.as_object_mut() {
        user.insert("where".into(), json!(place));
        user.insert("state".into(), json!(if is_enabled { "enabled" } else { "disabled" }));
    }
    user
}

fn session_table(sessions: &[Value]) -> String {
    show::rows(
        sessions,
        ["ID", "USER", "FROM", "BEGUN", "SEEN", "UNTIL"],
        ["id", "user", "from", "created", "seen", "expires"],
    )
}

/// The password of a user from stdin, or asked for twice at the terminal.
fn read_password(user: &str, args: &PasswordArgs) -> Result<Secret, Failure> {
    if args.password_stdin {
        return read_line("the password");
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        let detail = "a password is needed, and nobody is here to type it";
        return Err(Failure::new(Exit::Usage, detail, "pipe it in: --password-stdin < password.txt"));
    }
    let first = ask(&format!("Password for {user}: "))?;
    let second = ask("Once more: ")?;
    if first == second {
        return Ok(first);
    }
    Err(Failure::new(Exit::Usage, "the two passwords differ", "run it again"))
}

/// Asks at the terminal without showing what is typed.
fn ask(question: &str) -> Result<Secret, Failure> {
    // A prompt that nobody sees asks for nothing.
    let _ = write!(stderr(), "{question}").and_then(|()| stderr().flush());
    let silent = Silent::begin()?;
    let answer = read_line("the terminal");
    drop(silent);
    let _ = writeln!(stderr());
    answer
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> Result<Self, Failure> {
        let refused = |error: rustix::io::Errno| {
            let detail = format!("the terminal cannot be told to be silent: {error}");
            Failure::new(Exit::Failure, detail, "pipe the password in with --password-stdin")
        };
        let before = tcgetattr(stdin()).map_err(refused)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).map_err(refused)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyhow.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// One line of stdin, without its end.
fn read_line(from: &str) -> Result<Secret, Failure> {
    let mut line = zeroize::Zeroizing::new(String::new());
    let read = stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line);
    let failed = |detail| Failure::new(Exit::Usage, detail, "give one line of UTF-8 text");
    read.map_err(|error| failed(format!("{from} cannot be read: {error}")))?;
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_says_where_and_whether_somebody_may() {
        let users = [
            json!({"name": "ann", "role": "admin", "enabled": true, "sessions": 2, "created": "2026-11-30T08:00:00Z",
                "scope": {"areas": [], "devices": [], "prefixes": []}}),
            json!({"name": "ben", "role": "viewer", "enabled": false, "sessions": 0, "created": "x",
                "scope": {"areas": ["hall"], "devices": [], "prefixes": ["note/"]}}),
        ];
        let table = user_table(&users);
        assert!(table.contains("all of the home") && table.contains("hall+note/"), "{table}");
        assert!(table.lines().nth(2).unwrap().contains("disabled"), "{table}");
    }
}
