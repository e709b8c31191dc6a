//! `token`.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::admin::text;
use super::args::{TokenCommand, TokenCreateArgs, TokenEnd, TokenRole};
use super::client::segment;
use super::exit::Exit;
use super::model::{read_list, show_moment};
use super::output::Done;
use super::table::{Table, Tint};
use super::{Session, values};

impl Session {
    pub(super) async fn token(&self, command: &TokenCommand) -> Done<Exit> {
        match command {
            TokenCommand::Create(args) => {
                let answer = self.client.call(Method::POST, "/api/v1/tokens", Some(&body(args))).await?;
                let token = text(&answer, "token")?;
                self.out.note(format!("{}; it is shown this once:", made(&answer)?));
                self.out.either(&answer, || token)?;
            }
            TokenCommand::List => {
                let answer = self.client.get("/api/v1/tokens").await?;
                let tokens: Vec<Value> = read_list(&answer, "tokens")?;
                self.out.either(&answer, || table(&tokens).render(self.out.colour))?;
            }
            TokenCommand::Revoke { id } => {
                self.client.call(Method::DELETE, &format!("/api/v1/tokens/{}", segment(id)), None).await?;
                return self.done(json!({"id": id, "revoked": true}), format!("token {id} is void"));
            }
        }
        Ok(Exit::Ok)
    }
}

fn body(args: &TokenCreateArgs) -> Value {
    let role = match args.role {
        TokenRole::Viewer => "viewer",
        TokenRole::Operator => "operator",
        TokenRole::Admin => "admin",
        TokenRole::Node => "node",
    };
    let mut body = Map::new();
    body.insert("role".into(), role.into());
    body.extend(args.label.as_ref().map(|label| ("label".to_owned(), label.as_str().into())));
    if [&args.areas, &args.devices, &args.prefixes].iter().any(|list| !list.is_empty()) {
        let scope = json!({ "areas": args.areas, "devices": args.devices, "prefixes": args.prefixes });
        body.insert("scope".into(), scope);
    }
    body.extend(args.expires.as_ref().map(|end| match end {
        TokenEnd::After(life) => ("expires_s".to_owned(), life.as_secs().into()),
        TokenEnd::At(moment) => ("expires".to_owned(), moment.as_str().into()),
    }));
    Value::Object(body)
}

/// What was made, in words.
fn made(answer: &Value) -> Done<String> {
    let mut said = format!("token {} ({})", text(answer, "id")?, text(answer, "role")?);
    let scope = scope(answer);
    if !scope.is_empty() {
        said.push_str(&format!(" for {scope}"));
    }
    if answer.get("expires").is_some_and(Value::is_string) {
        said.push_str(&format!(" until {}", moment(answer, "expires")));
    }
    Ok(said)
}

fn table(tokens: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "ROLE", "SCOPE", "LABEL", "EXPIRES", "LAST USE", "CREATED", "BY"]);
    for token in tokens {
        let member = |name: &str| token.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let label = token.get("label").map(values::show).unwrap_or_default();
        let expires = match (token.get("expired").and_then(Value::as_bool), moment(token, "expires")) {
            (Some(true), _) => ("expired".to_owned(), Tint::Warn),
            (_, moment) => (moment, Tint::Plain),
        };
        let plain = |text: String| (text, Tint::Plain);
        table.row([
            plain(member("id")),
            plain(member("role")),
            plain(scope(token)),
            plain(if label == "\"\"" { String::new() } else { label }),
            expires,
            plain(moment(token, "used")),
            plain(moment(token, "created")),
            plain(member("by")),
        ]);
    }
    table
}

/// Nothing for all of the home.
fn scope(token: &Value) -> String {
    let list =
        |name: &str| token.get("scope").and_then(|scope| scope.get(name)?.as_array()).into_iter().flatten();
    let entries = |name: &'static str, sign: &'static str| {
        list(name).filter_map(Value::as_str).map(move |entry| format!("{sign}{entry}"))
    };
    let all = entries("areas", "area ").chain(entries("devices", "device/")).chain(entries("prefixes", ""));
    all.collect::<Vec<_>>().join(", ")
}

fn moment(token: &Value, member: &str) -> String {
    token.get(member).map(show_moment).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_shows_what_each_token_opens_and_until_when() {
        let tokens = [
            json!({"id": "aa", "role": "viewer", "label": "tablet", "created": "2026-11-01T00:00:00.000Z",
                "by": "user:ann", "expires": "2026-11-30T00:00:00.000Z", "expired": true, "used": null,
                "scope": {"areas": ["kitchen"], "devices": ["lifx-1"], "prefixes": ["note/"]}}),
            json!({"id": "bb", "role": "admin", "label": "", "created": "2026-11-01T00:00:00.000Z", "by": "",
                "expires": null, "expired": false, "used": "2026-11-30T08:00:00.000Z", "scope": null}),
        ];
        let shown = table(&tokens).render(false);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().any(|line| {
            ["aa", "viewer", "area kitchen, device/lifx-1, note/", "expired", "user:ann"]
                .iter()
                .all(|part| line.contains(part))
        }));
        assert!(lines.iter().any(|line| line.contains("bb") && !line.contains("\"\"")), "{shown}");
    }
}
